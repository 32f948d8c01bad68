//! What a worker's shell does: performs its machine's effects against the simulated broker and API,
//! and lives, loses its connection, drains and dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng as _;
use rename_worker::core::model::api_response::CallKind;
use rename_worker::core::model::names::folded;
use rename_worker::core::model::outcome::Outcome;
use rename_worker::core::model::request::RenameRequest;
use rename_worker::core::policy::consume_plan::{ConsumePlan, DeliveryCheck, SourceQueue};
use rename_worker::core::policy::consume_window::{ConsumeWindow, SessionDeath, SessionHistory};
use rename_worker::core::policy::removal::RemovalCause;
use rename_worker::core::policy::verdict::NameRole;
use rename_worker::core::scheduler::{
    AckBarrier, ArrivedRequest, Effect, JobCounts, JobEvent, JobId, Observation, PublishPart,
    Scheduler, SchedulerConfig,
};

use super::broker::{Frame, Message};
use super::plan::later;
use super::world::{Event, World};

/// `consumer.drain_timeout`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Worker {
    pub machine: Scheduler,
    /// Numbers every process there was.
    pub life: u64,
    pub alive: bool,
    /// The connection it believes in.
    pub connection: Option<u64>,
    pub timer_at: Option<Timestamp>,
    /// What the session consumes, and how.
    session: ConsumePlan,
    history: SessionHistory,
    /// What RabbitMQ moved away is read.
    reads_undeliverable: bool,
    /// It knows that new requests are taken.
    takes_new: bool,
    wire: VecDeque<Frame>,
    /// The broker is about to read from the wire.
    reading: bool,
    /// What the shell keeps of each job.
    in_hand: BTreeMap<JobId, usize>,
    /// What was sent on a connection arrives in order.
    arrives_at: Timestamp,
    blocked: bool,
    draining: bool,
    held: bool,
    /// What may probe during a hold: what was fetched for it, and what RabbitMQ moved away.
    may_probe: BTreeSet<JobId>,
    /// The requests this life has seen, in order.
    seen: Vec<usize>,
}

impl Worker {
    pub fn new(rules: &SchedulerConfig, now: Timestamp) -> Self {
        Self {
            machine: Scheduler::new(rules.clone()),
            life: 0,
            alive: false,
            connection: None,
            timer_at: None,
            session: ConsumePlan::new(ConsumeWindow::Full, rules.prefetch()),
            history: SessionHistory::default(),
            takes_new: false,
            reads_undeliverable: false,
            wire: VecDeque::new(),
            reading: false,
            in_hand: BTreeMap::new(),
            arrives_at: now,
            blocked: false,
            draining: false,
            held: false,
            may_probe: BTreeSet::new(),
            seen: Vec::new(),
        }
    }

    pub fn counts(&self) -> JobCounts {
        self.machine.counts()
    }

    pub fn is_idle(&self) -> bool {
        self.wire.is_empty() && (!self.alive || self.machine.counts().in_hand == 0)
    }
}

impl World {
    pub(super) fn lives(&self, worker: usize, life: u64) -> bool {
        let worker = &self.workers[worker];
        worker.alive && worker.life == life
    }

    pub(super) fn begin(&mut self, w: usize) {
        self.next_life += 1;
        self.workers[w] = Worker {
            life: self.next_life,
            alive: true,
            ..Worker::new(&self.rules, self.now)
        };
        let life = self.next_life;
        self.say(w, "STARTS");
        self.after(1..10, Event::Connect { worker: w, life });
    }

    pub(super) fn connect(&mut self, w: usize) {
        self.next_connection += 1;
        let worker = &mut self.workers[w];
        worker.connection = Some(self.next_connection);
        worker.session = ConsumePlan::new(worker.history.window(), self.rules.prefetch());
        worker.takes_new = false;
        worker.reads_undeliverable = false;
        worker.reading = false;
        worker.blocked = false;
        self.input(w, JobEvent::Up);
        if self.alarm {
            self.reach(w, JobEvent::Blocked(true), 1..5);
        }
    }

    pub(super) fn kill(&mut self, w: usize) {
        self.kills += 1;
        self.say(w, "KILLED");
        if self.rng.random_bool(0.5) {
            self.silenced.insert(self.workers[w].life);
        }
        self.end(w, false);
    }

    pub(super) fn cut(&mut self, w: usize) {
        self.say(w, "CUT");
        let half_open = self.rng.random_bool(0.2);
        self.end_session(w, false, half_open);
    }

    /// The session ends, and the process lives.
    fn end_session(&mut self, w: usize, met_suspect: bool, half_open: bool) {
        self.cuts += 1;
        self.lose_connection(w, met_suspect, half_open);
        let worker = &mut self.workers[w];
        worker.history.session_died(SessionDeath {
            delivered: worker.session.has_delivered(),
            full_for: worker.session.full_for(self.now),
            met_suspect,
        });
        self.input(w, JobEvent::Down);
        let life = self.workers[w].life;
        self.after(1..3_000, Event::Connect { worker: w, life });
    }

    pub(super) fn alarm(&mut self) {
        self.alarm = true;
        for w in 0..self.workers.len() {
            self.say(w, "BLOCKED");
            self.reach(w, JobEvent::Blocked(true), 1..5);
        }
        self.after(1..20_000, Event::AlarmOver);
    }

    pub(super) fn alarm_over(&mut self) {
        self.alarm = false;
        for w in 0..self.workers.len() {
            self.reach(w, JobEvent::Blocked(false), 5..10);
            self.read_soon(w);
        }
    }

    pub(super) fn drain(&mut self, w: usize) {
        if !self.workers[w].draining {
            self.say(w, "DRAINS");
            self.workers[w].draining = true;
            let life = self.workers[w].life;
            let exit = later(self.now, DRAIN_TIMEOUT);
            self.schedule(exit, Event::Exit { worker: w, life });
            self.input(w, JobEvent::Drain);
        }
    }

    /// The process is gone, perhaps having closed its connection; another one starts.
    pub(super) fn end(&mut self, w: usize, closed: bool) {
        if self.workers[w].alive {
            self.workers[w].alive = false;
            let half_open = !closed && self.rng.random_bool(0.2);
            self.lose_connection(w, closed, half_open);
            self.workers[w].in_hand.clear();
            self.after(1..3_000, Event::Start { worker: w });
        }
    }

    /// The broker may still read some of what was written, and take its time to find out; if the
    /// connection was closed, it has read all and knows at once.
    fn lose_connection(&mut self, w: usize, closed: bool, half_open: bool) {
        let Some(connection) = self.workers[w].connection else {
            return;
        };
        let written = self.workers[w].wire.len();
        let read = if closed {
            written
        } else {
            self.rng.random_range(0..=written)
        };
        if !self.alarm {
            for _ in 0..read {
                self.read_frame(w, false);
            }
        }
        let worker = &mut self.workers[w];
        worker.wire.clear();
        worker.connection = None;
        worker.session.want(None);
        let found = if half_open { 0..60_000 } else { 0..1 };
        self.after(found, Event::Lost { connection });
    }

    pub(super) fn deliver_to(&mut self, w: usize) {
        self.settle_session(w);
        for source in [
            SourceQueue::Due,
            SourceQueue::Requests,
            SourceQueue::Undeliverable,
        ] {
            while let Some(connection) = self.workers[w].connection
                && self.broker.unacked_on(connection, source) < self.prefetch_of(w, source)
                && self.hand_out(w, connection, source, false)
            {
                self.settle_session(w);
            }
        }
    }

    fn prefetch_of(&self, w: usize, source: SourceQueue) -> usize {
        let session = &self.workers[w].session;
        match source {
            SourceQueue::Undeliverable => usize::from(self.workers[w].reads_undeliverable),
            SourceQueue::Due | SourceQueue::Requests => {
                usize::from(session.prefetch_of(source).unwrap_or(0))
            }
        }
    }

    /// The session asks how long its queues are, and goes on.
    fn settle_session(&mut self, w: usize) {
        let Some(connection) = self.workers[w].connection else {
            return;
        };
        let unsettled = [SourceQueue::Due, SourceQueue::Requests]
            .map(|source| self.broker.unacked_on(connection, source))
            .iter()
            .sum::<usize>();
        let unsettled = u32::try_from(unsettled).expect("a few");
        let session = &mut self.workers[w].session;
        session.on_tick(unsettled);
        while let Some(queue) = session.take_count() {
            let ready = u32::try_from(self.broker.queue(queue).len()).expect("a few");
            session.on_count(queue, ready, unsettled, self.now);
            if ready > 0 || unsettled > 0 {
                break;
            }
        }
        let takes_new = session.takes_new();
        if takes_new && !self.workers[w].takes_new {
            self.reach(w, JobEvent::TakesNew, 0..3);
        }
        self.workers[w].takes_new = takes_new;
    }

    /// One message of the queue goes to the worker. `false` if there was none, or if it ended the
    /// session.
    fn hand_out(&mut self, w: usize, connection: u64, source: SourceQueue, fetched: bool) -> bool {
        let unreadable = |request: usize| self.planned[request].unreadable;
        if source == SourceQueue::Undeliverable && self.broker.is_headed_by(unreadable) {
            // It ends the connection that is for those alone.
            return false;
        }
        let job = JobId(self.next_job);
        let Some(message) = self.broker.deliver(job, connection, source) else {
            return false;
        };
        self.next_job += 1;
        if !self.session_survives(w, connection, &message) {
            return false;
        }
        let input = JobEvent::Delivered(self.arrived(job, message, fetched));
        let sent = later(self.now, Duration::from_millis(self.rng.random_range(0..3)));
        self.arrive(w, connection, sent, input);
        true
    }

    /// What the broker sends arrives in order.
    fn arrive(&mut self, w: usize, connection: u64, sent: Timestamp, input: JobEvent) {
        let worker = &mut self.workers[w];
        worker.arrives_at = worker.arrives_at.max(sent).max(self.now);
        let event = Event::Reach {
            worker: w,
            life: worker.life,
            connection: Some(connection),
            input,
        };
        let at = worker.arrives_at;
        self.schedule(at, event);
    }

    /// Whether the session goes on with a delivery.
    fn session_survives(&mut self, w: usize, connection: u64, message: &Message) -> bool {
        if message.queue == SourceQueue::Undeliverable {
            return true;
        }
        let session = &mut self.workers[w].session;
        let first = !session.has_delivered();
        let (redelivered, count) = (message.deliveries > 0, message.deliveries);
        let check = session.on_delivery(message.queue, redelivered, count, self.now);
        if self.planned[message.request].unreadable {
            self.say(w, "SESSION ENDED BY A MESSAGE");
            self.end_session(w, false, false);
            return false;
        }
        if check == DeliveryCheck::MetSuspect {
            self.say(w, "MET A SUSPECT");
            self.end_session(w, true, false);
            return false;
        }
        if let Some((after, left)) = &mut self.faults.short_sessions
            && first
            && *left > 0
        {
            *left -= 1;
            let at = later(self.now, *after);
            let worker = w;
            self.schedule(at, Event::CutSession { worker, connection });
        }
        true
    }

    fn arrived(&self, job: JobId, message: Message, fetched: bool) -> ArrivedRequest {
        ArrivedRequest {
            job,
            request: self.planned[message.request]
                .request
                .clone()
                .map(Box::new)
                .ok_or_else(|| message.request.to_string().into()),
            carried: message.carried,
            redelivered: message.deliveries > 0,
            delivery_count: message.deliveries,
            fetched,
            source: message.queue,
            removed: (message.queue == SourceQueue::Undeliverable)
                .then_some(RemovalCause::DeliveryLimit),
        }
    }

    pub(super) fn reached(
        &mut self,
        w: usize,
        life: u64,
        connection: Option<u64>,
        input: JobEvent,
    ) {
        if let JobEvent::Answered { .. } = input {
            self.count_call(false);
        }
        let there = self.lives(w, life)
            && (connection.is_none() || connection == self.workers[w].connection);
        if !there {
            return;
        }
        match &input {
            JobEvent::Delivered(arrived) => {
                let number = self.number_of(arrived);
                let worker = &mut self.workers[w];
                worker.in_hand.insert(arrived.job, number);
                if !worker.seen.contains(&number) {
                    worker.seen.push(number);
                }
                if arrived.fetched || arrived.removed.is_some() {
                    worker.may_probe.insert(arrived.job);
                }
            }
            JobEvent::Blocked(blocked) => self.workers[w].blocked = *blocked,
            _ => {}
        }
        self.input(w, input);
    }

    fn number_of(&self, arrived: &ArrivedRequest) -> usize {
        match &arrived.request {
            Ok(request) => self
                .planned
                .iter()
                .position(|planned| {
                    planned
                        .request
                        .as_ref()
                        .is_some_and(|known| known.request_id == request.request_id)
                })
                .expect("it was planned"),
            Err(number) => number.parse().expect("its number"),
        }
    }

    /// The broker reads some frames, and others a moment later.
    pub(super) fn read(&mut self, w: usize, connection: u64) {
        if self.workers[w].connection != Some(connection) {
            return;
        }
        self.workers[w].reading = false;
        if self.alarm {
            return;
        }
        let written = self.workers[w].wire.len();
        for _ in 0..self.rng.random_range(1..=written.max(1)) {
            self.read_frame(w, true);
        }
        self.read_soon(w);
    }

    fn read_soon(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        if let Some(connection) = worker.connection
            && !worker.reading
            && !worker.wire.is_empty()
        {
            worker.reading = true;
            let worker = w;
            self.after(0..4, Event::Read { worker, connection });
        }
    }

    /// `answer`: the connection lives, so that the worker hears of it.
    fn read_frame(&mut self, w: usize, answer: bool) {
        let Some(frame) = self.workers[w].wire.pop_front() else {
            return;
        };
        let life = self.workers[w].life;
        match frame {
            Frame::Publish {
                job,
                request,
                parcel,
            } => {
                let part = parcel.part();
                let refuse = answer && self.faults.refusals > 0 && self.rng.random_bool(0.05);
                if refuse {
                    self.faults.refusals -= 1;
                } else {
                    self.broker.store(job, request, parcel, life, self.now);
                    self.watch_the_ladder();
                    self.deliver_soon();
                }
                if answer {
                    let confirmed = !refuse;
                    let input = JobEvent::Published {
                        job,
                        part,
                        confirmed,
                    };
                    self.reach(w, input, 0..5);
                }
            }
            Frame::Ack(job) => {
                self.broker.ack(job);
                self.deliver_soon();
            }
            Frame::Barrier(job) => self.reach(w, JobEvent::Settled { job }, 0..5),
            Frame::Requeue(job) => {
                self.broker.requeue(job);
                self.deliver_soon();
            }
            Frame::Consume(scope) => {
                self.workers[w].session.want(Some(scope));
                self.workers[w].reads_undeliverable = true;
                self.deliver_soon();
            }
            Frame::Cancel => {
                self.workers[w].session.want(None);
                self.workers[w].reads_undeliverable = false;
            }
            // Whoever asked is gone.
            Frame::Get { .. } if !answer => {}
            Frame::Get { queue, most } => {
                if let Some(connection) = self.workers[w].connection {
                    let mut found = 0;
                    while found < u32::from(most) && self.hand_out(w, connection, queue, true) {
                        found += 1;
                    }
                    let sent = self.workers[w].arrives_at;
                    self.arrive(w, connection, sent, JobEvent::Fetched { found });
                }
            }
        }
    }

    pub(super) fn input(&mut self, w: usize, input: JobEvent) {
        let answered = match input {
            JobEvent::Answered { job, .. } => Some(job),
            _ => None,
        };
        if self.trace {
            println!("{} life {}: {input:?}", self.now, self.workers[w].life);
        }
        let mut effects = Vec::new();
        let rng = &mut self.rng;
        let roll = &mut || rng.random::<f64>();
        let machine = &mut self.workers[w].machine;
        machine.handle(input, self.now, roll, &mut effects);
        for effect in effects {
            if self.trace {
                println!("      -> {effect:?}");
            }
            if let Effect::Call { job, .. } = &effect {
                if self.planned[self.workers[w].in_hand[job]].poison {
                    self.kill(w);
                    return;
                }
                self.watch_the_call(w, &effect, answered);
            }
            self.perform(w, effect);
        }
        if self.workers[w].alive {
            self.watch_the_clock(w);
        }
    }

    fn perform(&mut self, w: usize, effect: Effect) {
        match effect {
            Effect::Consume(scope) => self.write(w, Frame::Consume(scope)),
            Effect::StopConsuming => self.write(w, Frame::Cancel),
            Effect::Fetch { queue, most } => self.write(w, Frame::Get { queue, most }),
            Effect::Call {
                job,
                kind,
                path_name,
            } => {
                let worker = &self.workers[w];
                let request = worker.machine.request(job).expect("a call has a request");
                let path = match path_name {
                    NameRole::Old => request.username.reveal(),
                    NameRole::New => request.new_username.reveal(),
                };
                let rename = kind == CallKind::Rename;
                let name = if rename {
                    request.new_username.reveal()
                } else {
                    path
                };
                let event = Event::Call {
                    worker: w,
                    life: worker.life,
                    job,
                    request: worker.in_hand[&job],
                    path: path.to_owned(),
                    name: name.to_owned(),
                    rename,
                };
                self.count_call(true);
                self.after(0..20, event);
            }
            Effect::Publish { job, parcel } => {
                let request = self.workers[w].in_hand[&job];
                self.write(
                    w,
                    Frame::Publish {
                        job,
                        request,
                        parcel,
                    },
                );
            }
            Effect::Ack { job, ended, settle } => {
                let failed = ended.is_some_and(|ended| matches!(ended.outcome, Outcome::Failed(_)));
                self.watch_the_ack(job, failed);
                self.write(w, Frame::Ack(job));
                match settle {
                    Some(AckBarrier::Sent) => self.reach(w, JobEvent::Settled { job }, 0..3),
                    Some(AckBarrier::Processed) => self.write(w, Frame::Barrier(job)),
                    None => {}
                }
            }
            Effect::GiveBack { job } => self.write(w, Frame::Requeue(job)),
            Effect::ForgetAll => {}
            Effect::Drained => {
                self.say(w, "DRAINED");
                self.end(w, true);
            }
            Effect::Note(note) => self.note(w, &note),
        }
    }

    fn note(&mut self, w: usize, note: &Observation) {
        match note {
            Observation::Held(..) => {
                self.workers[w].held = true;
                self.holds.push((self.now, self.api.calls.len()));
            }
            Observation::Resumed => self.workers[w].held = false,
            _ => {}
        }
        let name = format!("{note:?}");
        let name = name.split([' ', '(']).next().unwrap_or_default();
        *self.notes.entry(name.to_owned()).or_default() += 1;
    }

    fn write(&mut self, w: usize, frame: Frame) {
        if self.workers[w].connection.is_some() {
            self.workers[w].wire.push_back(frame);
            self.read_soon(w);
        }
    }

    /// The broker says something.
    fn reach(&mut self, w: usize, input: JobEvent, wait: std::ops::Range<u64>) {
        let life = self.workers[w].life;
        if let Some(connection) = self.workers[w].connection {
            self.after(
                wait,
                Event::Reach {
                    worker: w,
                    life,
                    connection: Some(connection),
                    input,
                },
            );
        }
    }

    fn watch_the_clock(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        if let Some(at) = worker.machine.next_timer()
            && worker.timer_at.is_none_or(|set| at < set)
        {
            let at = at.max(self.now);
            worker.timer_at = Some(at);
            let life = worker.life;
            self.schedule(at, Event::Timer { worker: w, life });
        }
    }

    /// Promise 2: the ack comes after the confirms of what the outcome publishes.
    fn watch_the_ack(&mut self, job: JobId, failed: bool) {
        let stored = self.broker.stored.get(&job).cloned().unwrap_or_default();
        let told = stored.contains(&PublishPart::Event)
            && (!failed || stored.contains(&PublishPart::Letter));
        if !told && !stored.contains(&PublishPart::Copy) {
            let broken = format!("{job:?} was acknowledged with only {stored:?} stored");
            self.broken.insert(broken);
        }
    }

    /// What must not be called: out of order, past its time, while held, while blocked.
    fn watch_the_call(&mut self, w: usize, effect: &Effect, answered: Option<JobId>) {
        let Effect::Call { job, kind, .. } = effect else {
            return;
        };
        let worker = &self.workers[w];
        let number = worker.in_hand[job];
        let mut broken = Vec::new();
        if worker.counts().in_flight > self.rules.concurrency {
            broken.push("more calls were in flight than allowed".to_owned());
        }
        let begins_a_try = answered != Some(*job);
        if worker.held && begins_a_try && !worker.may_probe.contains(job) {
            broken.push(format!("request {number} was tried during a hold"));
        }
        if *kind == CallKind::Rename {
            if worker.blocked {
                broken.push(format!("request {number} was called while blocked"));
            }
            let request = self.planned[number].request.as_ref();
            let not_after = request.and_then(|request| request.not_after);
            if begins_a_try && not_after.is_some_and(|not_after| self.now > not_after) {
                broken.push(format!("request {number} was tried past its time"));
            }
            broken.extend(self.overtaken(w, number));
        }
        self.broken.extend(broken);
    }

    /// Promise 4: within one worker's life, no request that shares a name may be called while one
    /// that came earlier has no outcome.
    fn overtaken(&self, w: usize, number: usize) -> Vec<String> {
        if self.workers.len() > 1 {
            return Vec::new();
        }
        let undisturbed = self.kills + self.cuts == 0 && self.next_life == 1;
        let Some(request) = &self.planned[number].request else {
            return Vec::new();
        };
        let seen = self.workers[w].seen.iter().copied();
        let earlier: Vec<usize> = if undisturbed {
            (0..number).collect()
        } else {
            seen.take_while(|&seen| seen != number).collect()
        };
        let told = |number: usize| self.broker.events.iter().any(|told| told.request == number);
        earlier
            .into_iter()
            .filter(|&earlier| {
                let before = self.planned[earlier].request.as_ref();
                before.is_some_and(|before| shares_a_name(before, request)) && !told(earlier)
            })
            .map(|earlier| format!("request {number} overtook request {earlier}"))
            .collect()
    }

    fn say(&self, w: usize, what: &str) {
        if self.trace {
            println!("{} life {} {what}", self.now, self.workers[w].life);
        }
    }
}

pub fn shares_a_name(one: &RenameRequest, other: &RenameRequest) -> bool {
    let names = |request: &'_ RenameRequest| {
        [&request.username, &request.new_username].map(|name| folded(name.reveal()))
    };
    let theirs = names(other);
    one.account_id == other.account_id && names(one).iter().any(|name| theirs.contains(name))
}
