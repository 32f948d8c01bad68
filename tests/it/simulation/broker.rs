//! A RabbitMQ as far as the promises depend on it: the queues of new and of due requests with a
//! delivery limit, the wait queues, the undeliverable ones, the dead letters, confirms, redelivery.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use rename_worker::core::model::outcome::{AttemptHistory, Failed, Outcome};
use rename_worker::core::policy::consume_plan::{ConsumeScope, SourceQueue};
use rename_worker::core::scheduler::{Destination, JobId, PublishEffect, PublishPart};

use super::plan::later;

/// A message with a request.
#[derive(Debug, Clone)]
pub struct Message {
    /// Which request of the life it carries.
    pub request: usize,
    pub carried: AttemptHistory,
    pub deliveries: u32,
    /// The queue it is in, or was delivered from.
    pub queue: SourceQueue,
}

/// A quorum queue: what was returned to it is handed out before what it never handed out, and what is
/// returned later stands behind what was returned before.
#[derive(Debug, Default)]
pub struct Queue {
    ready: VecDeque<Message>,
    returned: VecDeque<Message>,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.ready.len() + self.returned.len()
    }

    fn pop(&mut self) -> Option<Message> {
        self.returned.pop_front().or_else(|| self.ready.pop_front())
    }
}

/// What a worker has written to its connection and the broker has not read yet, in order.
#[derive(Debug)]
pub enum Frame {
    Publish {
        job: JobId,
        request: usize,
        parcel: PublishEffect,
    },
    Ack(JobId),
    Requeue(JobId),
    /// Answered once all before it has been processed.
    Barrier(JobId),
    Consume(ConsumeScope),
    Cancel,
    Get {
        queue: SourceQueue,
        most: u16,
    },
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
    requests: Queue,
    due: Queue,
    undeliverable: Queue,
    /// Per step of the ladder, in order of arrival, with the time it expires.
    ladder: Vec<VecDeque<(Timestamp, Message)>>,
    delays: Vec<Duration>,
    delivery_limit: u32,
    /// By the job it was delivered as, with the connection it was delivered on.
    unacked: BTreeMap<JobId, (u64, Message)>,
    pub events: Vec<Told>,
    pub letters: Vec<(usize, Failed)>,
    /// Moved to the undeliverable ones at the delivery limit.
    pub removed: Vec<usize>,
    /// What each job has had stored, to check that no ack comes before.
    pub stored: BTreeMap<JobId, Vec<PublishPart>>,
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
        self.requests.ready.push_back(Message {
            request,
            carried: AttemptHistory::default(),
            deliveries: 0,
            queue: SourceQueue::Requests,
        });
    }

    pub const fn queue(&mut self, source: SourceQueue) -> &mut Queue {
        match source {
            SourceQueue::Requests => &mut self.requests,
            SourceQueue::Due => &mut self.due,
            SourceQueue::Undeliverable => &mut self.undeliverable,
        }
    }

    pub fn deliver(&mut self, job: JobId, connection: u64, source: SourceQueue) -> Option<Message> {
        let message = self.queue(source).pop()?;
        let is_removed = source == SourceQueue::Undeliverable;
        if message.deliveries > 0 || message.carried.copy.is_some() || is_removed {
            self.doubtful.insert(message.request);
        }
        self.unacked.insert(job, (connection, message.clone()));
        Some(message)
    }

    pub fn unacked_on(&self, connection: u64, source: SourceQueue) -> usize {
        let unacked = self.unacked.values();
        unacked
            .filter(|(on, message)| *on == connection && message.queue == source)
            .count()
    }

    /// Whether the first of the undeliverable ones is of such a request.
    pub fn is_headed_by(&self, unreadable: impl Fn(usize) -> bool) -> bool {
        let queue = &self.undeliverable;
        let head = queue.returned.front().or_else(|| queue.ready.front());
        head.is_some_and(|message| unreadable(message.request))
    }

    /// Stores what was published.
    pub fn store(
        &mut self,
        job: JobId,
        request: usize,
        parcel: PublishEffect,
        life: u64,
        now: Timestamp,
    ) {
        self.stored.entry(job).or_default().push(parcel.part());
        match parcel {
            PublishEffect::Event(outcome) => self.events.push(Told {
                request,
                at: now,
                life,
                outcome,
            }),
            PublishEffect::Letter(failed) => self.letters.push((request, failed)),
            PublishEffect::Copy { to, carried } => {
                let message = Message {
                    request,
                    carried,
                    deliveries: 0,
                    queue: SourceQueue::Due,
                };
                match to {
                    Destination::Tail => {
                        self.tails.entry((request, life)).or_default().push(now);
                        self.due.ready.push_back(message);
                    }
                    Destination::Ladder { step, wait } => {
                        let expires = later(now, wait.min(self.delays[step]));
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

    /// A connection is gone: what it had not acknowledged is returned, in order.
    pub fn return_unacked(&mut self, connection: u64) {
        let lost: Vec<JobId> = self
            .unacked
            .iter()
            .filter(|(_, (on, _))| *on == connection)
            .map(|(&job, _)| job)
            .collect();
        for job in lost {
            self.requeue(job);
        }
    }

    fn give_back(&mut self, mut message: Message) {
        message.deliveries += 1;
        let limited = message.queue != SourceQueue::Undeliverable;
        if limited && message.deliveries > self.delivery_limit {
            self.removed.push(message.request);
            message.deliveries = 0;
            message.queue = SourceQueue::Undeliverable;
            self.undeliverable.ready.push_back(message);
        } else {
            self.queue(message.queue).returned.push_back(message);
        }
    }

    /// Messages whose time in a wait queue is over are due.
    pub fn expire(&mut self, now: Timestamp) {
        let mut due: Vec<(Timestamp, Message)> = Vec::new();
        for queue in &mut self.ladder {
            while queue.front().is_some_and(|(at, _)| *at <= now) {
                due.extend(queue.pop_front());
            }
        }
        due.sort_by_key(|(at, _)| *at);
        let messages = due.into_iter().map(|(_, message)| message);
        self.due.ready.extend(messages);
    }

    pub fn next_expiry(&self) -> Option<Timestamp> {
        let fronts = self.ladder.iter().filter_map(VecDeque::front);
        fronts.map(|(at, _)| *at).min()
    }

    /// Nothing is left but what nobody can read: `unreadable` says of which request.
    pub fn is_empty(&self, unreadable: impl Fn(usize) -> bool) -> bool {
        let undeliverable = &self.undeliverable;
        self.requests.len() + self.due.len() == 0
            && undeliverable
                .returned
                .iter()
                .all(|message| unreadable(message.request))
            && undeliverable
                .ready
                .iter()
                .all(|message| unreadable(message.request))
            && self.unacked.is_empty()
            && self.ladder.iter().all(VecDeque::is_empty)
    }
}
