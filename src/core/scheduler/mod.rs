//! The worker's mind: one state machine, an [`JobEvent`] goes in, [`Effect`]s come out.
//!
//! It knows every request the worker has in hand and what each waits for. The shell performs the
//! effects and reports what came of them; it decides nothing. Leaves out bodies, headers and
//! connections: the shell keeps those by [`JobId`].
//!
//! - `job`: one request in hand and the phases of its life
//! - `admission`: what a delivery is, whose turn it is
//! - `attempts`: when a try starts, what an answer does
//! - `limits`: when attempts or time are used up
//! - `detached_calls`: calls whose delivery became void while they ran
//! - `survivals`: sessions that ended with a request in hand, and not the process
//! - `deferral`: where a request waits outside the worker, and why
//! - `publishing`: publishing an outcome or a copy, then the ack
//! - `holds`: what a hold of the worker or of an account does, and who probes
//! - `shares`: what one account or one name may take of what is in hand
//! - `lifecycle`: the broker comes and goes, the drain

pub mod accounts;
mod admission;
mod attempts;
mod deferral;
mod detached_calls;
pub mod fair_queue;
mod holds;
mod job;
mod lifecycle;
mod limits;
pub mod name_order;
pub mod outcome_cache;
mod publishing;
mod shares;
mod survivals;
pub mod turn_estimate;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;

use jiff::Timestamp;

pub use self::admission::POISON_MARGIN;
pub use self::deferral::{DeferralNote, DeferralReason, Destination};
use self::holds::ProbeSearch;
use self::job::{Job, Phase};
use self::survivals::SurvivedSessions;
use super::model::api_response::{ApiResponse, CallKind, ResponseSummary};
use super::model::outcome::{AttemptHistory, Failed, Outcome};
use super::model::request::{AccountId, RenameRequest};
use super::policy::consume_plan::{ConsumeScope, SourceQueue};
use super::policy::hold::{HoldCause, HoldSettings, WorkerHold};
use super::policy::rate_limit::CallRateLimiter;
use super::policy::removal::RemovalCause;
use super::policy::retry::{RetryPolicy, RetrySettings};
use super::policy::verdict::{Confirmation, NameRole};
use super::scheduler::accounts::{AccountTable, HeldAccount};
use super::scheduler::fair_queue::FairQueue;
use super::scheduler::name_order::{NameSequencer, OrderPosition, RequestIdentity};
use super::scheduler::outcome_cache::OutcomeCache;
use super::scheduler::turn_estimate::TurnEstimate;

/// Requests that wait in the worker (in backoff, for their turn) for each call slot. They hold no
/// slot but are unacknowledged, so prefetch has room for them; past it, they wait in the ladder.
const WAITING_PER_SLOT: usize = 3;

/// Requests on their way for each call slot: the one being called, those whose outcome is being
/// published or acked, and those at hand for the slots that fall free before the broker sends more.
const ON_THE_WAY_PER_SLOT: usize = 4;

/// What the machine goes by.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    pub retry: RetrySettings,
    pub hold: HoldSettings,
    /// Check `user_id` before the call, not after.
    pub verify_before: bool,
    /// Calls in flight at most.
    pub concurrency: usize,
    pub requests_per_second: Option<NonZeroU32>,
    /// The requests queue's `x-delivery-limit`.
    pub delivery_limit: u32,
    /// Requests that may be away at a time before no new ones are taken.
    pub max_deferred: usize,
    /// What one account may have of what is in hand while there are others, above 0 up to 1.
    pub account_share: f64,
    /// Accounts with credentials of their own; all others share theirs.
    pub own_credentials: BTreeSet<AccountId>,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            retry: RetrySettings::default(),
            hold: HoldSettings::default(),
            verify_before: true,
            concurrency: 64,
            requests_per_second: None,
            delivery_limit: 20,
            max_deferred: 50_000,
            account_share: 0.5,
            own_credentials: BTreeSet::new(),
        }
    }
}

impl SchedulerConfig {
    /// How many requests may wait in the worker.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.concurrency * WAITING_PER_SLOT
    }

    /// How many unacknowledged deliveries the broker may hand out. Were those that wait to use up
    /// what is meant for those on their way, each slot would idle until its ack brings the next.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        let on_the_way = self.concurrency * ON_THE_WAY_PER_SLOT;
        u16::try_from(on_the_way + self.capacity()).unwrap_or(u16::MAX)
    }

    /// How many requests one account may have in hand while there are others.
    #[must_use]
    pub fn share(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a 16-bit number"
        )]
        let share = (f64::from(self.prefetch()) * self.account_share.clamp(0.0, 1.0)) as usize;
        share.max(1)
    }
}

/// A request in hand, numbered by the shell in the order of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Everything that can happen.
#[derive(Debug)]
pub enum JobEvent {
    /// The broker is connected, the topology is there.
    Up,
    /// The connection is gone, and every delivery of it is void.
    Down,
    /// New requests are being taken from now on, beside those that are due.
    TakesNew,
    /// The broker takes no publishes for now (`connection.blocked`), or does again.
    Blocked(bool),
    Delivered(ArrivedRequest),
    /// All that [`Effect::Fetch`] asked for has come, or the queue is empty.
    Fetched {
        found: u32,
    },
    Answered {
        job: JobId,
        answer: ApiResponse,
    },
    /// The broker confirmed what was published, or it did not get there.
    Published {
        job: JobId,
        part: PublishPart,
        confirmed: bool,
    },
    /// The ack has reached the broker.
    Settled {
        job: JobId,
    },
    /// [`Scheduler::next_timer`] has come.
    Timer,
    /// Finish what is begun, give back the rest.
    Drain,
}

/// A delivery, as far as decisions need it.
#[derive(Debug)]
pub struct ArrivedRequest {
    pub job: JobId,
    /// The request, or what is wrong with it.
    pub request: Result<Box<RenameRequest>, Box<str>>,
    pub carried: AttemptHistory,
    pub redelivered: bool,
    /// How often the broker says it was delivered before and not acknowledged.
    pub delivery_count: u32,
    /// The queue that it came from.
    pub source: SourceQueue,
    /// It came by [`Effect::Fetch`].
    pub fetched: bool,
    /// It comes from `rename.undeliverable`, where RabbitMQ put it for this.
    pub removed: Option<RemovalCause>,
}

/// What the shell is to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Consume(ConsumeScope),
    StopConsuming,
    /// Fetch about this number of messages of a queue. They come as deliveries marked so, and then
    /// [`JobEvent::Fetched`].
    Fetch {
        queue: SourceQueue,
        most: u16,
    },
    Call {
        job: JobId,
        kind: CallKind,
        path_name: NameRole,
    },
    /// Publishes of one place must leave in this order.
    Publish {
        job: JobId,
        parcel: PublishEffect,
    },
    /// Everything was confirmed. With `settle`, the shell says [`JobEvent::Settled`] once the broker
    /// has the ack; without it, the job is over.
    Ack {
        job: JobId,
        ended: Option<Box<RequestEnded>>,
        settle: Option<AckBarrier>,
    },
    /// Requeue it untouched; the job is over.
    GiveBack {
        job: JobId,
    },
    /// Every delivery in hand is void.
    ForgetAll,
    /// The last job is over; the worker may go.
    Drained,
    /// For those who watch.
    Note(Observation),
}

/// How sure the ack must be before [`JobEvent::Settled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckBarrier {
    /// It has been sent.
    Sent,
    /// The broker has processed it: somebody waits whose call would make a redelivery of this one
    /// undecidable.
    Processed,
}

/// What is published.
#[derive(Debug, Clone, PartialEq)]
pub enum PublishEffect {
    Event(Outcome),
    Letter(Failed),
    Copy {
        to: Destination,
        carried: AttemptHistory,
    },
}

impl PublishEffect {
    #[must_use]
    pub const fn part(&self) -> PublishPart {
        match self {
            Self::Event(_) => PublishPart::Event,
            Self::Letter(_) => PublishPart::Letter,
            Self::Copy { .. } => PublishPart::Copy,
        }
    }
}

/// Which publish of a job's a confirm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishPart {
    Event,
    Letter,
    Copy,
}

/// A request that has ended, as metrics and logs want it.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestEnded {
    pub outcome: Outcome,
    pub first_receipt_at: Timestamp,
}

/// What is worth a line in the log or a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    Deferred(DeferralNote),
    Held(HoldCause, CallReport),
    ProbeFailed(HoldCause, CallReport),
    Resumed,
    /// One account is held, while others go on.
    AccountHeld(HoldCause, CallReport),
    AccountResumed(HoldCause, CallReport),
    /// Few enough requests are away for new ones to be taken again; `false`: too many are.
    TakesNew(bool),
    Confirmation(Confirmation),
}

/// The answer that decided it, and whose call it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReport {
    pub gist: ResponseSummary,
    pub account: AccountId,
}

/// How many requests are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    pub in_flight: usize,
    pub waiting: usize,
    pub blocked_by_order: usize,
    /// Everything unacknowledged, the above included.
    pub in_hand: usize,
}

/// What one input is handled with: the time, randomness, and where effects go.
struct StepContext<'a> {
    now: Timestamp,
    roll: &'a mut dyn FnMut() -> f64,
    effects: &'a mut Vec<Effect>,
}

impl StepContext<'_> {
    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of the world that vary one without the other"
)]
pub struct Scheduler {
    rules: SchedulerConfig,
    retry: RetryPolicy,
    hold: WorkerHold,
    look: ProbeSearch,
    accounts: AccountTable,
    turns: TurnEstimate,
    /// How many requests each account has in hand.
    in_hand: HashMap<AccountId, usize>,
    pacer: CallRateLimiter,
    /// When the last one expires that was sent to the wait queue of each step.
    last_expiry: Vec<Option<Timestamp>>,
    line: NameSequencer,
    recent: OutcomeCache,
    jobs: BTreeMap<JobId, Job>,
    by_ticket: HashMap<OrderPosition, JobId>,
    /// Calls under way whose delivery is void; their message will be delivered again.
    orphans: HashMap<RequestIdentity, JobId>,
    survivals: SurvivedSessions,
    /// What is consumed while nothing holds the worker up.
    scope: ConsumeScope,
    ready: FairQueue<JobId>,
    timers: BTreeSet<(Timestamp, JobId)>,
    counts: JobCounts,
    connected: bool,
    blocked: bool,
    draining: bool,
    drained: bool,
    /// The first input brings the time and randomness to start from.
    started: bool,
}

impl Scheduler {
    #[must_use]
    pub fn new(rules: SchedulerConfig) -> Self {
        Self {
            retry: RetryPolicy::new(rules.retry.clone()),
            hold: WorkerHold::new(rules.hold),
            look: ProbeSearch::default(),
            accounts: AccountTable::new(rules.hold, rules.own_credentials.clone()),
            turns: TurnEstimate::default(),
            in_hand: HashMap::new(),
            last_expiry: vec![None; rules.retry.ladder.len()],
            pacer: CallRateLimiter::new(rules.requests_per_second),
            line: NameSequencer::default(),
            recent: OutcomeCache::default(),
            jobs: BTreeMap::new(),
            by_ticket: HashMap::new(),
            orphans: HashMap::new(),
            survivals: SurvivedSessions::default(),
            scope: ConsumeScope::All,
            ready: FairQueue::default(),
            timers: BTreeSet::new(),
            counts: JobCounts::default(),
            connected: false,
            blocked: false,
            draining: false,
            drained: false,
            started: false,
            rules,
        }
    }

    /// Takes one input; `roll` gives random numbers from 0 to 1; effects are appended.
    pub fn handle(
        &mut self,
        input: JobEvent,
        now: Timestamp,
        roll: &mut dyn FnMut() -> f64,
        effects: &mut Vec<Effect>,
    ) {
        let cx = &mut StepContext { now, roll, effects };
        if !self.started {
            self.started = true;
            self.line = NameSequencer::starting((cx.roll)(), now);
        }
        let has_room = self.connected
            && !self.draining
            && self.hold.cause().is_none()
            && self.jobs.len() < usize::from(self.rules.prefetch());
        self.line.has_room(has_room, cx.now);
        match input {
            JobEvent::Up => self.on_connected(cx),
            JobEvent::Down => self.on_disconnected(cx),
            JobEvent::TakesNew => self.line.takes_new(cx.now),
            JobEvent::Blocked(blocked) => self.blocked = blocked,
            JobEvent::Delivered(arrived) => self.delivered(arrived, cx),
            JobEvent::Fetched { found } => self.fetched(found),
            JobEvent::Answered { job, answer } => self.answered(job, &answer, cx),
            JobEvent::Published {
                job,
                part,
                confirmed,
            } => self.published(job, part, confirmed, cx),
            JobEvent::Settled { job } => self.settled(job, cx),
            JobEvent::Timer => self.timers_due(cx),
            JobEvent::Drain => self.drain(cx),
        }
        self.schedule_unblocked(cx);
        self.look_if_due(cx);
        self.start_ready(cx);
        self.bound_what_is_away(cx);
        if self.draining && !self.drained && self.jobs.is_empty() {
            self.drained = true;
            cx.emit(Effect::Drained);
        }
    }

    /// When [`JobEvent::Timer`] is wanted next.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        let waiting = self.timers.first().map(|&(at, _)| at);
        match (waiting, self.next_look()) {
            (Some(waiting), Some(look)) => Some(waiting.min(look)),
            (waiting, look) => waiting.or(look),
        }
    }

    #[must_use]
    pub fn counts(&self) -> JobCounts {
        JobCounts {
            in_hand: self.jobs.len(),
            ..self.counts
        }
    }

    #[must_use]
    pub fn held(&self) -> Option<HoldCause> {
        self.hold.cause()
    }

    /// When the next probe goes, while held.
    #[must_use]
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.hold.probe_at()
    }

    /// See [`AccountTable::held`].
    #[must_use]
    pub fn held_accounts(&self) -> Vec<HeldAccount> {
        self.accounts.held()
    }

    /// How many accounts are held.
    #[must_use]
    pub fn held_total(&self) -> usize {
        self.accounts.held_total()
    }

    /// Grows whenever what [`Scheduler::held_accounts`] says may have changed.
    #[must_use]
    pub const fn held_changes(&self) -> u64 {
        self.accounts.held_changes()
    }

    /// How many accounts are held for this cause.
    #[must_use]
    pub const fn held_count(&self, cause: HoldCause) -> usize {
        self.accounts.held_count(cause)
    }

    /// The request behind a job, for the call or the event the shell is to make.
    #[must_use]
    pub fn request(&self, job: JobId) -> Option<&RenameRequest> {
        self.jobs.get(&job)?.request.as_deref()
    }

    /// Moves a job to another phase and keeps the counts true.
    fn set_phase(&mut self, id: JobId, phase: Phase) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut job.phase, phase);
        let after = count_of(&job.phase);
        if let Some(count) = count_of(&before) {
            *count(&mut self.counts) -= 1;
        }
        if let Some(count) = after {
            *count(&mut self.counts) += 1;
        }
    }

    /// The job is over: takes it out, and its place in the line with it if `done`.
    fn remove(&mut self, id: JobId) -> Option<Job> {
        self.give_up_share(id);
        let job = self.jobs.remove(&id)?;
        if let Some(count) = count_of(&job.phase) {
            *count(&mut self.counts) -= 1;
        }
        // A copy may be back, in its place, before the original is acknowledged.
        if let Some(ticket) = job.ticket
            && self.by_ticket.get(&ticket) == Some(&id)
        {
            self.by_ticket.remove(&ticket);
        }
        if let Some(at) = job.timer {
            self.timers.remove(&(at, id));
        }
        Some(job)
    }

    fn set_timer(&mut self, id: JobId, at: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(before) = job.timer.replace(at) {
            self.timers.remove(&(before, id));
        }
        self.timers.insert((at, id));
    }

    fn timers_due(&mut self, cx: &mut StepContext<'_>) {
        while let Some(&(at, id)) = self.timers.first()
            && at <= cx.now
        {
            self.timers.remove(&(at, id));
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            job.timer = None;
            match job.phase {
                Phase::Waiting => self.schedule(id, cx),
                Phase::Publishing(_) => self.publish_what_is_due(id, cx),
                _ => {}
            }
        }
    }
}

type CountSelector = fn(&mut JobCounts) -> &mut usize;

/// Which count a phase belongs to.
fn count_of(phase: &Phase) -> Option<CountSelector> {
    match phase {
        Phase::Calling(_) => Some(|counts| &mut counts.in_flight),
        Phase::Waiting => Some(|counts| &mut counts.waiting),
        Phase::Blocked => Some(|counts| &mut counts.blocked_by_order),
        Phase::Ready | Phase::Heir | Phase::Publishing(_) | Phase::Settling(_) => None,
    }
}

#[cfg(test)]
mod tests;
