//! Every metric of the worker, in the verbs of what happened.
//!
//! They are declared in [`families`], each once beside its help; what a label may say is in
//! [`labels`]. Nothing here decides or logs, and every verb costs an atomic add or two.

pub mod calls;
pub mod families;
pub mod family;
pub mod labels;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};

pub use self::calls::{CallLabel, CallStatus};
use self::families::MetricFamilies;
pub use self::family::StaticLabels;
use self::labels::{BuildLabels, DelayLabel, ReasonLabel, RedeliveredLabel};
pub use self::labels::{EventType, OutcomeLabel, UndeliverableCause};
use crate::core::model::outcome::{Outcome, Reason};
use crate::core::policy::hold::HoldCause;
use crate::core::policy::verdict::Confirmation;

/// The worker's metrics; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    shared: Arc<MetricsInner>,
}

#[derive(Debug)]
struct MetricsInner {
    registry: Registry,
    families: MetricFamilies,
    /// How many dropped log lines the counter has by now.
    log_lines_dropped: AtomicU64,
}

/// What has happened since the start, for `/status` and summaries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    pub consumed: u64,
    pub renamed: u64,
    pub already_applied: u64,
    pub failed: u64,
    pub api_calls: u64,
    pub deferred: u64,
    pub events_published: u64,
    pub dead_lettered: u64,
    pub broker_reconnects: u64,
}

impl Metrics {
    /// All of them, every series at zero.
    pub fn new(given: &StaticLabels) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let families = MetricFamilies::register(&registry, given)?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        families.build_info.set(BuildLabels, 1);
        Ok(Self {
            shared: Arc::new(MetricsInner {
                registry,
                families,
                log_lines_dropped: AtomicU64::new(0),
            }),
        })
    }

    pub fn consumed(&self, redelivered: bool) {
        self.all()
            .requests_consumed_total
            .inc(RedeliveredLabel(redelivered));
    }

    /// A request was received that no worker had seen before (neither redelivered nor deferred).
    pub fn queue_head(&self, requested_at: Timestamp) {
        self.all()
            .queue_head_timestamp_seconds
            .set((), requested_at.as_second());
    }

    /// A delivery whose count has come near the broker's delivery limit.
    pub fn near_delivery_limit(&self) {
        self.all().deliveries_near_limit_total.inc(());
    }

    /// A request has ended: `took` since its first receipt, `age` since it was asked for.
    pub fn outcome(&self, outcome: &Outcome, took: Duration, age: Option<Duration>) {
        let all = self.all();
        all.outcomes_total.inc(ReasonLabel::from(outcome));
        all.request_duration_seconds
            .observe(OutcomeLabel::from(outcome), took);
        if let Some(age) = age {
            all.request_age_seconds.observe((), age);
        }
    }

    pub fn api_call(&self, kind: impl Into<CallLabel>, status: CallStatus, took: Duration) {
        let (all, kind) = (self.all(), kind.into());
        all.api_calls_total.inc((kind, status));
        all.api_call_duration_seconds.observe(kind, took);
    }

    pub fn confirmation(&self, result: Confirmation) {
        self.all().confirmations_total.inc(result);
    }

    /// A request was moved to the ladder's step of this index.
    pub fn deferred(&self, step: usize) {
        self.all().deferrals_total.inc(DelayLabel(step));
    }

    pub fn event_published(&self, kind: EventType) {
        self.all().events_published_total.inc(kind);
    }

    pub fn event_publish_failed(&self, kind: EventType) {
        self.all().event_publish_failures_total.inc(kind);
    }

    pub fn event_unrouted(&self, kind: EventType) {
        self.all().events_unrouted_total.inc(kind);
    }

    pub fn dead_letter(&self, reason: Reason) {
        self.all().dead_letters_total.inc(reason);
    }

    pub fn undeliverable(&self, cause: UndeliverableCause) {
        self.all().undeliverable_total.inc(cause);
    }

    pub fn set_concurrency(&self, calls: i64) {
        self.all().concurrency.set((), calls);
    }

    pub fn set_in_flight(&self, calls: i64) {
        self.all().in_flight.set((), calls);
    }

    pub fn set_waiting(&self, requests: i64) {
        self.all().waiting.set((), requests);
    }

    pub fn set_blocked_by_order(&self, requests: i64) {
        self.all().blocked_by_order.set((), requests);
    }

    /// The worker holds for this cause, or not at all.
    pub fn set_hold(&self, cause: Option<HoldCause>) {
        for each in HoldCause::ALL {
            self.all().hold.set(each, i64::from(cause == Some(each)));
        }
    }

    pub fn set_accounts_held(&self, cause: HoldCause, accounts: i64) {
        self.all().accounts_held.set(cause, accounts);
    }

    pub fn broker_connected(&self, connected: bool) {
        self.all().broker_connected.set((), i64::from(connected));
    }

    pub fn broker_reconnected(&self) {
        self.all().broker_reconnects_total.inc(());
    }

    pub fn counts(&self) -> RequestCounts {
        let all = self.all();
        let (renamed, already_applied) = (
            all.outcomes_total.get(ReasonLabel::Renamed),
            all.outcomes_total.get(ReasonLabel::AlreadyApplied),
        );
        RequestCounts {
            consumed: all.requests_consumed_total.total(),
            renamed,
            already_applied,
            failed: all
                .outcomes_total
                .total()
                .saturating_sub(renamed + already_applied),
            api_calls: all.api_calls_total.total(),
            deferred: all.deferrals_total.total(),
            events_published: all.events_published_total.total(),
            dead_lettered: all.dead_letters_total.total(),
            broker_reconnects: all.broker_reconnects_total.total(),
        }
    }

    /// So many lines of the process's log were dropped until now.
    pub fn log_lines_dropped(&self, until_now: u64) {
        // Several may ask at once; each line is counted by one of them.
        let counted = &self.shared.log_lines_dropped;
        let before = counted.fetch_max(until_now, Ordering::Relaxed);
        let new = until_now.saturating_sub(before);
        self.all().log_lines_dropped_total.inc_by((), new);
    }

    /// Prometheus' text format, the process's own metrics included.
    pub fn render(&self) -> prometheus::Result<String> {
        self.log_lines_dropped(super::log::lines_dropped());
        TextEncoder::new().encode_to_string(&self.shared.registry.gather())
    }

    fn all(&self) -> &MetricFamilies {
        &self.shared.families
    }
}

#[cfg(test)]
mod tests;
