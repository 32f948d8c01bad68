//! A RabbitMQ as far as the promises depend on it: one requests queue with a delivery limit, the
//! ladder, the dead letters, confirms, redelivery.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use rename_worker::core::machine::{Destination, JobId, Parcel, Part};
use rename_worker::core::outcome::{Carried, Failed, Outcome};

use super::plan::later;

/// A message of the requests queue.
#[derive(Debug, Clone)]
pub struct Message {
    /// Which request of the life it carries.
    pub request: usize,
    pub carried: Carried,
    pub deliveries: u32,
}

/// What a worker has written to its connection and the broker has not read yet, in order.
#[derive(Debug)]
pub enum Frame {
    Publish {
        job: JobId,
        request: usize,
        parcel: Parcel,
    },
    Ack(JobId),
    Requeue(JobId),
    /// Answered once all before it has been processed.
    Barrier(JobId),
    Consume,
    Cancel,
    Get,
}

/// An event that the broker holds.
#[derive(Debug)]
pub struct Told {
    pub request: usize,
    pub at: Timestamp,
    /// The worker's life that told it.
    pub life: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Default)]
pub struct Broker {
    pub requests: VecDeque<Message>,
    /// Per step of the ladder, in order of arrival, with the time it expires.
    ladder: Vec<VecDeque<(Timestamp, Message)>>,
    delays: Vec<Duration>,
    delivery_limit: u32,
    /// By the job it was delivered as, with the connection it was delivered on.
    unacked: BTreeMap<JobId, (u64, Message)>,
    pub events: Vec<Told>,
    pub letters: Vec<(usize, Failed)>,
    /// Dropped at the delivery limit, without a word.
    pub dropped: Vec<usize>,
    /// What each job has had stored, to check that no ack comes before.
    pub stored: BTreeMap<JobId, Vec<Part>>,
    /// Requests that were delivered more than once, or copied: a try may have been applied.
    pub doubtful: BTreeSet<usize>,
    /// When copies went to the tail, by request and the worker's life.
    pub tails: BTreeMap<(usize, u64), Vec<Timestamp>>,
}

impl Broker {
    pub fn new(delays: Vec<Duration>, delivery_limit: u32) -> Self {
        Self {
            ladder: vec![VecDeque::new(); delays.len()],
            delays,
            delivery_limit,
            ..Self::default()
        }
    }

    pub fn publish(&mut self, request: usize) {
        self.requests.push_back(Message {
            request,
            carried: Carried::default(),
            deliveries: 0,
        });
    }

    pub fn deliver(&mut self, job: JobId, connection: u64) -> Option<Message> {
        let message = self.requests.pop_front()?;
        if message.deliveries > 0 || message.carried.copy.is_some() {
            self.doubtful.insert(message.request);
        }
        self.unacked.insert(job, (connection, message.clone()));
        Some(message)
    }

    pub fn unacked_on(&self, connection: u64) -> usize {
        self.unacked
            .values()
            .filter(|(on, _)| *on == connection)
            .count()
    }

    /// Stores what was published.
    pub fn store(&mut self, job: JobId, request: usize, parcel: Parcel, life: u64, now: Timestamp) {
        self.stored.entry(job).or_default().push(parcel.part());
        match parcel {
            Parcel::Event(outcome) => self.events.push(Told {
                request,
                at: now,
                life,
                outcome,
            }),
            Parcel::Letter(failed) => self.letters.push((request, failed)),
            Parcel::Copy { to, carried } => {
                let message = Message {
                    request,
                    carried,
                    deliveries: 0,
                };
                match to {
                    Destination::Tail => {
                        self.tails.entry((request, life)).or_default().push(now);
                        self.requests.push_back(message);
                    }
                    Destination::Ladder(step) => {
                        let expires = later(now, self.delays[step]);
                        self.ladder[step].push_back((expires, message));
                    }
                }
            }
        }
    }

    pub fn ack(&mut self, job: JobId) -> Option<Message> {
        self.unacked.remove(&job).map(|(_, message)| message)
    }

    pub fn requeue(&mut self, job: JobId) {
        if let Some((_, message)) = self.unacked.remove(&job) {
            self.give_back(message);
        }
    }

    /// A connection is gone: what it had not acknowledged goes back to the front, in order.
    pub fn return_unacked(&mut self, connection: u64) {
        let lost: Vec<JobId> = self
            .unacked
            .iter()
            .filter(|(_, (on, _))| *on == connection)
            .map(|(&job, _)| job)
            .collect();
        for job in lost.into_iter().rev() {
            self.requeue(job);
        }
    }

    fn give_back(&mut self, mut message: Message) {
        message.deliveries += 1;
        if message.deliveries > self.delivery_limit {
            self.dropped.push(message.request);
        } else {
            self.requests.push_front(message);
        }
    }

    /// Messages whose time in the ladder is over go back to the tail.
    pub fn expire(&mut self, now: Timestamp) {
        let mut due: Vec<(Timestamp, Message)> = Vec::new();
        for queue in &mut self.ladder {
            while queue.front().is_some_and(|(at, _)| *at <= now) {
                due.extend(queue.pop_front());
            }
        }
        due.sort_by_key(|(at, _)| *at);
        let messages = due.into_iter().map(|(_, message)| message);
        self.requests.extend(messages);
    }

    pub fn next_expiry(&self) -> Option<Timestamp> {
        let fronts = self.ladder.iter().filter_map(VecDeque::front);
        fronts.map(|(at, _)| *at).min()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.unacked.is_empty()
            && self.ladder.iter().all(VecDeque::is_empty)
    }
}
