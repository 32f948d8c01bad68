//! One life: workers' machines, a broker, an API, and a fate that kills, cuts and refuses.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng as _;
use rand::rngs::SmallRng;
use rename_worker::core::model::api_response::ApiResponse;
use rename_worker::core::policy::consume_plan::SourceQueue;
use rename_worker::core::scheduler::{JobEvent, JobId, SchedulerConfig};

use super::api::{self, Api};
use super::broker::Broker;
use super::plan::{Faults, Plan, Planned, later};
use super::shell::Worker;

/// Three days: no life needs more virtual time to come to rest.
const LONGEST: Duration = Duration::from_secs(3 * 24 * 3600);

/// A life that takes more steps turns in circles.
const MOST_STEPS: u32 = 400_000;

/// What will happen.
#[derive(Debug)]
pub enum Event {
    /// Upstream publishes a request.
    Publish(usize),
    /// The broker hands out messages, if it may.
    Deliver,
    /// The broker reads the next frame of this connection.
    Read {
        worker: usize,
        connection: u64,
    },
    /// Something reaches the worker, if it still lives and (for the broker's words) is connected.
    Reach {
        worker: usize,
        life: u64,
        connection: Option<u64>,
        input: JobEvent,
    },
    /// The API gets a call; its answer comes later.
    Call {
        worker: usize,
        life: u64,
        job: JobId,
        request: usize,
        path: String,
        name: String,
        rename: bool,
    },
    Timer {
        worker: usize,
        life: u64,
    },
    Expire,
    Start {
        worker: usize,
    },
    Connect {
        worker: usize,
        life: u64,
    },
    /// A proxy cuts a connection whose time is over.
    CutSession {
        worker: usize,
        connection: u64,
    },
    /// The broker finds a connection lost.
    Lost {
        connection: u64,
    },
    AlarmOver,
    /// The drain has taken too long.
    Exit {
        worker: usize,
        life: u64,
    },
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct World {
    pub start: Timestamp,
    pub now: Timestamp,
    pub rules: SchedulerConfig,
    /// When each request was published first.
    pub published_at: BTreeMap<usize, Timestamp>,
    pub broker: Broker,
    pub api: Api,
    pub planned: Vec<Planned>,
    pub workers: Vec<Worker>,
    pub faults: Faults,
    /// None of those was planned.
    pub is_calm: bool,
    pub kills: u32,
    pub cuts: u32,
    /// What was seen to go wrong while it lived.
    pub broken: BTreeSet<String>,
    pub notes: BTreeMap<String, u32>,
    pub at_rest: bool,
    /// When a worker began to hold, and how many calls had been made by then.
    pub holds: Vec<(Timestamp, usize)>,
    pub(super) rng: SmallRng,
    pub(super) trace: bool,
    pub(super) alarm: bool,
    pub(super) next_job: u64,
    pub(super) next_life: u64,
    pub(super) next_connection: u64,
    /// Lives whose calls never left.
    pub(super) silenced: BTreeSet<u64>,
    unpublished: usize,
    calls_under_way: usize,
    events: BinaryHeap<Reverse<(Timestamp, u64)>>,
    what: BTreeMap<u64, Event>,
    next_event: u64,
    expire_at: Option<Timestamp>,
}

impl World {
    pub fn new(plan: Plan, rng: SmallRng, trace: bool) -> Self {
        let delays = plan.rules.retry.ladder.clone();
        let mut world = Self {
            start: plan.start,
            now: plan.start,
            broker: Broker::new(delays, plan.rules.delivery_limit),
            api: Api::new(plan.users, plan.mood),
            planned: plan.requests,
            workers: (0..plan.workers)
                .map(|_| Worker::new(&plan.rules, plan.start))
                .collect(),
            rules: plan.rules,
            published_at: BTreeMap::new(),
            is_calm: plan.faults.are_none(),
            faults: plan.faults,
            kills: 0,
            cuts: 0,
            broken: BTreeSet::new(),
            notes: BTreeMap::new(),
            at_rest: false,
            holds: Vec::new(),
            rng,
            trace,
            alarm: false,
            next_job: 0,
            next_life: 0,
            next_connection: 0,
            silenced: BTreeSet::new(),
            unpublished: plan.published.len(),
            calls_under_way: 0,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            next_event: 0,
            expire_at: None,
        };
        for (wait, number) in plan.published {
            world.schedule(later(plan.start, wait), Event::Publish(number));
        }
        for worker in 0..world.workers.len() {
            world.after(0..10, Event::Start { worker });
        }
        if trace {
            world.tell_the_plan();
        }
        world
    }

    /// Lives until nothing is left to do.
    pub fn live(&mut self) {
        let end = later(self.now, LONGEST);
        let mut steps = 0;
        while let Some(Reverse((at, number))) = self.events.pop() {
            steps += 1;
            if at > end || steps > MOST_STEPS {
                return;
            }
            self.now = at;
            if let Some(event) = self.what.remove(&number) {
                self.happen(event);
                self.fate();
            }
            self.at_rest = self.unpublished == 0
                && self.calls_under_way == 0
                && self
                    .broker
                    .is_empty(|request| self.planned[request].unreadable)
                && self.workers.iter().all(Worker::is_idle);
            if self.at_rest {
                return;
            }
        }
    }

    pub fn summary(&self) -> String {
        format!(
            "{} requests, {} applied, {} events, {} letters, {} kills, {} cuts, {} lives, {:?}\n\
             left: {:?}, {:?}, {}",
            self.planned.len(),
            self.api.applied.len(),
            self.broker.events.len(),
            self.broker.letters.len(),
            self.kills,
            self.cuts,
            self.next_life,
            self.notes,
            self.broker,
            self.workers.iter().map(Worker::counts).collect::<Vec<_>>(),
            self.now.duration_since(self.start),
        )
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Publish(request) => {
                self.unpublished -= 1;
                self.published_at.entry(request).or_insert(self.now);
                self.broker.publish(request);
                self.deliver_soon();
            }
            Event::Deliver => self.deliver(),
            Event::Read { worker, connection } => self.read(worker, connection),
            Event::Reach {
                worker,
                life,
                connection,
                input,
            } => self.reached(worker, life, connection, input),
            Event::Call {
                worker,
                life,
                job,
                request,
                path,
                name,
                rename,
            } => self.call(worker, life, job, request, (&path, &name), rename),
            Event::Timer { worker, life } => {
                // Another one may have been set since, to an earlier time.
                if self.lives(worker, life) && self.workers[worker].timer_at == Some(self.now) {
                    self.workers[worker].timer_at = None;
                    self.input(worker, JobEvent::Timer);
                }
            }
            Event::Expire if self.expire_at != Some(self.now) => {}
            Event::Expire => {
                self.expire_at = None;
                self.broker.expire(self.now);
                self.deliver_soon();
                self.watch_the_ladder();
            }
            Event::Start { worker } => self.begin(worker),
            Event::Connect { worker, life } => {
                if self.lives(worker, life) {
                    self.connect(worker);
                }
            }
            Event::CutSession { worker, connection } => {
                if self.workers[worker].connection == Some(connection) {
                    self.cut(worker);
                }
            }
            Event::Lost { connection } => {
                self.broker.return_unacked(connection);
                self.deliver_soon();
            }
            Event::AlarmOver => self.alarm_over(),
            Event::Exit { worker, life } => {
                if self.lives(worker, life) {
                    self.end(worker, true);
                }
            }
        }
    }

    /// Things that go wrong, at any step.
    fn fate(&mut self) {
        let worker = self.rng.random_range(0..self.workers.len());
        if !self.workers[worker].alive || !self.rng.random_bool(self.faults.rate) {
            return;
        }
        match self.rng.random_range(0..4) {
            0 if self.faults.kills > 0 => {
                self.faults.kills -= 1;
                self.kill(worker);
            }
            1 if self.faults.cuts > 0 && self.workers[worker].connection.is_some() => {
                self.faults.cuts -= 1;
                self.cut(worker);
            }
            2 if self.faults.alarms > 0 && !self.alarm => {
                self.faults.alarms -= 1;
                self.alarm();
            }
            3 if self.faults.drains > 0 => {
                self.faults.drains -= 1;
                self.drain(worker);
            }
            _ => {}
        }
    }

    pub(super) fn deliver_soon(&mut self) {
        let queues = [
            SourceQueue::Requests,
            SourceQueue::Due,
            SourceQueue::Undeliverable,
        ];
        if queues
            .iter()
            .any(|&queue| self.broker.queue(queue).len() > 0)
        {
            self.after(0..3, Event::Deliver);
        }
    }

    fn deliver(&mut self) {
        let count = self.workers.len();
        let first = self.rng.random_range(0..count);
        for offset in 0..count {
            self.deliver_to((first + offset) % count);
        }
    }

    fn call(
        &mut self,
        worker: usize,
        life: u64,
        job: JobId,
        request: usize,
        (path, name): (&str, &str),
        rename: bool,
    ) {
        if self.silenced.contains(&life) {
            self.calls_under_way -= 1;
            return;
        }
        let Some(planned) = &self.planned[request].request else {
            return;
        };
        let call = api::Call {
            request,
            life,
            account: planned.account_id.as_str(),
            path,
            name,
            rename,
        };
        let answer = self.api.call(&call, self.now, &mut self.rng);
        if self.trace {
            let at = self.now;
            println!("{at} life {life}: request {request} calls {path} -> {name}: {answer:?}");
        }
        let slow = matches!(answer, ApiResponse::Silence(_));
        let wait = if slow { 1..10_000 } else { 1..200 };
        let input = JobEvent::Answered { job, answer };
        self.after(
            wait,
            Event::Reach {
                worker,
                life,
                connection: None,
                input,
            },
        );
    }

    pub(super) fn count_call(&mut self, begun: bool) {
        if begun {
            self.calls_under_way += 1;
        } else {
            self.calls_under_way -= 1;
        }
    }

    pub(super) fn watch_the_ladder(&mut self) {
        if let Some(at) = self.broker.next_expiry()
            && self.expire_at.is_none_or(|set| at < set)
        {
            self.expire_at = Some(at);
            self.schedule(at, Event::Expire);
        }
    }

    /// So many milliseconds from now.
    pub(super) fn after(&mut self, wait: std::ops::Range<u64>, event: Event) {
        let wait = Duration::from_millis(self.rng.random_range(wait));
        self.schedule(later(self.now, wait), event);
    }

    pub(super) fn schedule(&mut self, at: Timestamp, event: Event) {
        self.events.push(Reverse((at, self.next_event)));
        self.what.insert(self.next_event, event);
        self.next_event += 1;
    }

    fn tell_the_plan(&self) {
        println!("{:?}", self.api.mood);
        println!("{:?} {} workers", self.faults, self.workers.len());
        println!("{:?}", self.rules);
        for ((account, name), id) in &self.api.users {
            println!("{account} {name} is {id}");
        }
        for (number, planned) in self.planned.iter().enumerate() {
            let marks = (planned.poison, planned.published_twice);
            let Some(request) = &planned.request else {
                println!("request {number} is none {marks:?}");
                continue;
            };
            println!(
                "request {number}: {} {} -> {} {:?} {:?} {:?} (poison, twice): {marks:?}",
                request.account_id,
                request.username.reveal(),
                request.new_username.reveal(),
                request.request_id,
                request.user_id,
                request.not_after,
            );
        }
    }
}
