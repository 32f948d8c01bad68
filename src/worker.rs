//! The shell's one loop: whatever happens becomes an [`JobEvent`] of the core's machine, and the
//! effects it answers with are performed. Nothing is decided here.
//!
//! Everything runs in one task: the calls under way are polled by the loop, so nothing needs a lock
//! and nothing can be lost between tasks. What is bounded: calls by `consumer.concurrency`,
//! deliveries by the prefetch, events of the broker by their channel.

mod in_flight;
mod outbound;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::in_flight::InFlight;
use crate::broker::{BrokerEvent, BrokerHandle, Delivery, PublishId, PublishResult};
use crate::clock;
use crate::core::model::api_response::{ApiResponse, CallKind};
use crate::core::model::outcome::AttemptHistory;
use crate::core::model::request_time;
use crate::core::policy::consume_plan::SourceQueue;
use crate::core::policy::hold::HoldCause;
use crate::core::policy::verdict::NameRole;
use crate::core::scheduler::accounts::{HeldAccount, MAX_LISTED};
use crate::core::scheduler::{
    AckBarrier, ArrivedRequest, Effect, JobCounts, JobEvent, JobId, POISON_MARGIN, PublishEffect,
    PublishPart, RequestEnded, Scheduler, SchedulerConfig,
};
use crate::dintero::{ApiCall, ApiClient};
use crate::messages;
use crate::messages::request::PartialRequest;
use crate::telemetry::events::{EventReporter, RequestRecord};
use crate::telemetry::trace::{self, RequestTracer};

/// Broker events handled before anything else gets a turn.
const BATCH: usize = 64;

/// How often an idle loop shows that it turns.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The interval between updates of the status while more accounts are held than it lists: there may be
/// thousands.
const MANY_HELD_INTERVAL: Duration = Duration::from_secs(1);

/// From so many deliveries below the limit on, watchers are told: well before the request ends as
/// poison.
const NEAR_LIMIT: u32 = 10;
const _: () = assert!(NEAR_LIMIT > POISON_MARGIN);

/// What others may know of the loop.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerState {
    pub connected: bool,
    pub blocked: bool,
    pub epoch: u64,
    pub held: Option<HoldCause>,
    pub probe_at: Option<Timestamp>,
    /// Of those that are held while others go on, the longest held.
    pub held_accounts: Vec<HeldAccount>,
    pub held_accounts_total: usize,
    pub draining: bool,
    pub counts: JobCounts,
    /// When the loop last turned.
    pub turned_at: Option<Timestamp>,
}

type CallInProgress = Pin<Box<dyn Future<Output = (JobId, ApiResponse)> + Send>>;

/// The worker: the machine and what it acts through.
pub struct Worker {
    machine: Scheduler,
    delivery_limit: u32,
    link: BrokerHandle,
    client: ApiClient,
    /// The events' `source`.
    source: Box<str>,
    reporter: EventReporter,
    tracer: RequestTracer,
    hands: HashMap<JobId, InFlight>,
    calls: FuturesUnordered<CallInProgress>,
    /// Inputs that effects brought about.
    pending: VecDeque<JobEvent>,
    next_job: u64,
    epoch: u64,
    drained: bool,
    /// As of which of the machine's changes the held accounts are shown.
    held_shown: u64,
    held_shown_at: Instant,
    state: watch::Sender<WorkerState>,
}

impl Worker {
    #[must_use]
    pub fn new(
        rules: SchedulerConfig,
        link: BrokerHandle,
        client: ApiClient,
        source: &str,
        reporter: EventReporter,
        tracer: RequestTracer,
    ) -> Self {
        Self {
            delivery_limit: rules.delivery_limit,
            machine: Scheduler::new(rules),
            link,
            client,
            source: source.into(),
            reporter,
            tracer,
            hands: HashMap::new(),
            calls: FuturesUnordered::new(),
            pending: VecDeque::new(),
            next_job: 0,
            epoch: 0,
            drained: false,
            held_shown: 0,
            held_shown_at: Instant::now(),
            state: watch::Sender::default(),
        }
    }

    #[must_use]
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.state.subscribe()
    }

    /// Works until told to stop; then finishes what is in flight, for at most `drain_timeout`, and
    /// gives back the link for closing.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<BrokerEvent>,
        stop: CancellationToken,
        drain_timeout: Duration,
    ) -> BrokerHandle {
        let mut batch = Vec::with_capacity(BATCH);
        let mut timer = std::pin::pin!(tokio::time::sleep(HEARTBEAT));
        let mut drain_by = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled(), if drain_by.is_none() => {
                    drain_by = Some(Instant::now() + drain_timeout);
                    self.reporter.draining(self.machine.counts().in_hand);
                    self.step(JobEvent::Drain);
                }
                Some((job, answer)) = self.calls.next() => self.step(JobEvent::Answered { job, answer }),
                received = events.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return self.link;
                    }
                    for event in batch.drain(..) {
                        self.on_broker(event);
                    }
                }
                () = &mut timer => {}
            }
            // Not in the timer's branch alone: a loop that always has something else to do never
            // gets there.
            if self
                .machine
                .next_timer()
                .is_some_and(|at| at <= clock::now())
            {
                self.step(JobEvent::Timer);
            }
            if self.drained {
                return self.link;
            }
            if drain_by.is_some_and(|by| by <= Instant::now()) {
                self.reporter.drain_timed_out(self.machine.counts().in_hand);
                return self.link;
            }
            self.reporter.tick(clock::now());
            self.show_state(drain_by.is_some());
            let wake = self.next_deadline(drain_by);
            if timer.deadline() != wake {
                timer.as_mut().reset(wake);
            }
        }
    }

    fn on_broker(&mut self, event: BrokerEvent) {
        match event {
            BrokerEvent::Up { epoch } => {
                self.epoch = epoch;
                self.reporter.connected(epoch);
                self.state.send_modify(|state| {
                    state.connected = true;
                    state.blocked = false;
                    state.epoch = epoch;
                });
                self.step(JobEvent::Up);
            }
            BrokerEvent::Down { why, .. } => {
                self.reporter.disconnected(why.needs_action(), &why);
                self.state.send_modify(|state| state.connected = false);
                self.step(JobEvent::Down);
            }
            BrokerEvent::Failed {
                tries,
                why,
                again_in,
            } => {
                let needs_action = why.needs_action();
                self.reporter
                    .connect_failed(needs_action, tries, &why, again_in);
            }
            BrokerEvent::Blocked(blocked) => {
                self.reporter.blocked(blocked);
                self.state.send_modify(|state| state.blocked = blocked);
                self.step(JobEvent::Blocked(blocked));
            }
            BrokerEvent::Delivered(delivery) => self.delivered(delivery),
            BrokerEvent::Unreadable { why } => self.reporter.unreadable(&why),
            BrokerEvent::Published { ticket, result } => self.published(ticket, result),
            BrokerEvent::Flushed { ticket } => self.step(JobEvent::Settled {
                job: JobId(ticket.0),
            }),
            BrokerEvent::Fetched { epoch, found } if epoch == self.epoch => {
                self.step(JobEvent::Fetched { found });
            }
            BrokerEvent::TakesNew { epoch } if epoch == self.epoch => self.step(JobEvent::TakesNew),
            BrokerEvent::TakesNew { .. }
            | BrokerEvent::Fetched { .. }
            | BrokerEvent::Stopped { .. } => {}
        }
    }

    fn delivered(&mut self, delivery: Delivery) {
        let now = clock::now();
        let job = JobId(self.next_job);
        self.next_job += 1;
        let redelivered = delivery.redelivered();
        let delivery_count = delivery.delivery_count();
        self.reporter.metrics().consumed(redelivered);
        let headers = &**delivery.received();
        let mut trace = self.tracer.request(trace::DeliveryAttributes {
            traceparent: headers.traceparent(),
            redelivered,
            body_size: delivery.body().len(),
        });
        let removed = delivery.removal();
        if let Some(cause) = removed {
            self.reporter.undeliverable(cause);
        }
        let carried = if delivery.has_trusted_headers() {
            messages::headers::attempt_history(headers, now)
        } else {
            AttemptHistory::default()
        };
        let read = messages::request::read(delivery.body(), delivery.content_type(), headers);
        let (request, partial) = match read {
            Ok(request) => {
                trace.read(&request);
                (Ok(Box::new(request)), None)
            }
            Err(unreadable) => (Err(unreadable.detail), Some(Box::new(unreadable.partial))),
        };
        if delivery_count.saturating_add(NEAR_LIMIT) >= self.delivery_limit {
            let request = request.as_deref().ok();
            self.reporter.near_delivery_limit(delivery_count, request);
        }
        let published_at = delivery
            .timestamp()
            .and_then(|seconds| Timestamp::from_second(seconds.try_into().ok()?).ok());
        let requested_at = request.as_ref().ok().and_then(|it| it.requested_at);
        let asked_at = request_time::plausible([requested_at, published_at], now);
        if let Some(asked_at) = asked_at
            && !redelivered
            && delivery.source() == SourceQueue::Requests
        {
            self.reporter.metrics().queue_head(asked_at);
        }
        let (fetched, source) = (delivery.is_fetched(), delivery.source());
        self.hands
            .insert(job, InFlight::new(delivery, partial, asked_at, trace));
        self.step(JobEvent::Delivered(ArrivedRequest {
            job,
            request,
            carried,
            redelivered,
            delivery_count,
            source,
            fetched,
            removed,
        }));
    }

    fn published(&mut self, ticket: PublishId, result: PublishResult) {
        let (job, part) = outbound::job_of(ticket);
        let request = self.machine.request(job).map(|request| request.request_id);
        let confirmed = match (result, self.hands.get_mut(&job)) {
            (PublishResult::Confirmed(proof), Some(hand)) => {
                match (part, hand.telling) {
                    (PublishPart::Event, Some((kind, _))) => {
                        self.reporter.event_published(kind, proof.routed());
                    }
                    (PublishPart::Letter, Some((_, Some(reason)))) => {
                        self.reporter.dead_lettered(reason);
                    }
                    _ => {}
                }
                hand.confirm(part, proof);
                true
            }
            (PublishResult::Returned | PublishResult::Refused, Some(hand)) => {
                match (part, hand.telling) {
                    (PublishPart::Event, Some((kind, _))) => {
                        self.reporter.event_not_published(kind, request);
                    }
                    (PublishPart::Letter, _) => self.reporter.not_stored("dead letter", request),
                    _ => self.reporter.not_stored("copy", request),
                }
                hand.refused(part);
                false
            }
            // The session ended; that it did is told next.
            (PublishResult::Lost, _) | (_, None) => false,
        };
        self.step(JobEvent::Published {
            job,
            part,
            confirmed,
        });
    }

    /// Gives the machine an input and performs what it answers, until nothing is left to do.
    fn step(&mut self, input: JobEvent) {
        let mut effects = Vec::new();
        self.pending.push_back(input);
        while let Some(input) = self.pending.pop_front() {
            self.machine
                .handle(input, clock::now(), &mut clock::random_unit, &mut effects);
            for effect in effects.drain(..) {
                self.execute(effect);
            }
        }
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Consume(scope) => self.link.consume(self.epoch, scope),
            Effect::StopConsuming => self.link.stop_consuming(self.epoch),
            Effect::Fetch { queue, most } => self.link.fetch(self.epoch, queue, most),
            Effect::Call {
                job,
                kind,
                path_name,
            } => self.call(job, kind, path_name),
            Effect::Publish { job, parcel } => self.publish(job, parcel),
            Effect::Ack { job, ended, settle } => self.ack(job, ended, settle),
            Effect::GiveBack { job } => {
                if let Some(hand) = self.hands.remove(&job) {
                    hand.trace.left("given_back");
                    self.link.requeue(hand.delivery);
                }
            }
            Effect::ForgetAll => self.hands.clear(),
            Effect::Drained => self.drained = true,
            Effect::Note(note) => self.reporter.note(note),
        }
    }

    fn call(&mut self, job: JobId, kind: CallKind, path_name: NameRole) {
        let Some(request) = self.machine.request(job) else {
            return;
        };
        let username = match path_name {
            NameRole::Old => &request.username,
            NameRole::New => &request.new_username,
        };
        let new_username = match kind {
            CallKind::Rename => &request.new_username,
            CallKind::Confirm => username,
        };
        let trace = self.hands.get_mut(&job).map(|hand| hand.trace.call(kind));
        let traceparent = trace.as_ref().and_then(trace::StepTrace::traceparent);
        let call = ApiCall {
            kind,
            account: request.account_id.clone(),
            username: username.clone(),
            new_username: new_username.clone(),
            traceparent: traceparent.map(Into::into),
        };
        let client = self.client.clone();
        self.calls.push(Box::pin(async move {
            let answer = client.change_username(&call).await;
            if let Some(trace) = trace {
                trace.answered(&answer);
            }
            (job, answer)
        }));
    }

    fn publish(&mut self, job: JobId, parcel: PublishEffect) {
        let ticket = outbound::publish_id(job, parcel.part());
        let request = self.machine.request(job);
        let Some(hand) = self.hands.get_mut(&job) else {
            return;
        };
        let outgoing = outbound::outgoing(&self.source, hand, request, parcel);
        if let Some(outgoing) = outgoing {
            self.link.publish(ticket, outgoing);
        }
    }

    fn ack(&mut self, job: JobId, ended: Option<Box<RequestEnded>>, settle: Option<AckBarrier>) {
        let Some(hand) = self.hands.remove(&job) else {
            return;
        };
        if let Some(ended) = ended {
            hand.trace.ended(&ended.outcome);
            let request = self.machine.request(job);
            let partial = hand.partial.as_deref();
            let account = partial.and_then(PartialRequest::account);
            self.reporter.request_ended(&RequestRecord {
                ended: &ended,
                request,
                request_id: request
                    .map(|request| request.request_id)
                    .or_else(|| partial?.request_uuid()),
                account: request
                    .map(|request| &request.account_id)
                    .or(account.as_ref()),
                asked_at: hand.asked_at,
                trace_id: hand.trace.trace_id().as_deref(),
                now: clock::now(),
            });
        } else {
            hand.trace.left("waits");
        }
        let (delivery, proof) = hand.into_ack_permit();
        if let Some(proof) = proof {
            self.link.settle(delivery, proof);
        }
        match settle {
            Some(AckBarrier::Sent) => self.pending.push_back(JobEvent::Settled { job }),
            Some(AckBarrier::Processed) => self.link.flush(self.epoch, PublishId(job.0)),
            None => {}
        }
    }

    /// The earliest time of the next update of the held accounts in the status, if they have changed.
    fn held_accounts_due(&self) -> Option<Instant> {
        if self.held_shown == self.machine.held_changes() {
            return None;
        }
        let apart = if self.machine.held_total() > MAX_LISTED {
            MANY_HELD_INTERVAL
        } else {
            Duration::ZERO
        };
        Some(self.held_shown_at + apart)
    }

    fn show_held_accounts(&mut self) {
        let now = Instant::now();
        if self.held_accounts_due().is_none_or(|at| at > now) {
            return;
        }
        self.held_shown = self.machine.held_changes();
        self.held_shown_at = now;
        for cause in HoldCause::ALL {
            let held = gauge(self.machine.held_count(cause));
            self.reporter.metrics().set_accounts_held(cause, held);
        }
        self.state.send_modify(|state| {
            state.held_accounts = self.machine.held_accounts();
            state.held_accounts_total = self.machine.held_total();
        });
    }

    fn show_state(&mut self, draining: bool) {
        self.show_held_accounts();
        let counts = self.machine.counts();
        let metrics = self.reporter.metrics();
        metrics.set_in_flight(gauge(counts.in_flight));
        metrics.set_waiting(gauge(counts.waiting));
        metrics.set_blocked_by_order(gauge(counts.blocked_by_order));
        self.state.send_modify(|state| {
            state.counts = counts;
            state.held = self.machine.held();
            state.probe_at = self.machine.probe_at();
            state.draining = draining;
            state.turned_at = Some(clock::now());
        });
    }

    fn next_deadline(&self, drain_by: Option<Instant>) -> Instant {
        let now = Instant::now();
        let mut wake = now + HEARTBEAT;
        if let Some(at) = self.machine.next_timer() {
            let wait = Duration::try_from(at.duration_since(clock::now())).unwrap_or_default();
            wake = wake.min(now + wait);
        }
        let others = [drain_by, self.held_accounts_due()];
        others.into_iter().flatten().fold(wake, Instant::min)
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
