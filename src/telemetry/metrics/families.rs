//! Every metric, declared once: the doc comment is the help text, the type says kind and labels.

use prometheus::{Histogram, IntCounter, IntGauge, Registry};

use super::calls::{CallLabel, CallStatus};
use super::family::{LabelSet, MetricFamily, MetricHandle, MetricSpec, StaticLabels, families};
use super::labels::{
    BuildLabels, DelayLabel, EventType, OutcomeLabel, ReasonLabel, RedeliveredLabel,
    UndeliverableCause,
};
use crate::core::model::outcome::Reason;
use crate::core::policy::hold::HoldCause;
use crate::core::policy::verdict::Confirmation;

/// Seconds. A call takes some ms on a good day and is cut off after 10 s by default, so: from 5 ms
/// to 30 s, about ×2 a step.
const CALL_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Seconds. From a request that passes straight through (10 ms) to one that used up its day.
const AGE_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1_800.0, 3_600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0,
];

families! {
    /// The metrics by name, without the prefix.
    #[derive(Debug)]
    pub struct MetricFamilies {
        /// Messages taken from the request queue; `redelivered` tells whether the broker had
        /// delivered them before.
        pub requests_consumed_total: IntCounter<RedeliveredLabel>;

        /// When the request last received for the first time was asked for (`requested_at`, else the
        /// AMQP timestamp, where either can be true), as Unix time. While there is a backlog, the time passed since is about
        /// the age of the oldest request in the queue, which the broker does not tell of quorum queues.
        pub queue_head_timestamp_seconds: IntGauge<()>;

        /// Deliveries whose count has come near the broker's delivery limit, where a request ends
        /// as `poison`.
        pub deliveries_near_limit_total: IntCounter<()>;

        /// Requests that ended, by how; `reason` is `none` unless it is a failure.
        pub outcomes_total: IntCounter<ReasonLabel>;

        /// Calls made to the API; `status` is the code (or its class, for a rare one), or why there
        /// was none: timeout, connect, reset, garbled.
        pub api_calls_total: IntCounter<(CallLabel, CallStatus)>;

        /// Time a call to the API took, answered or not.
        pub api_call_duration_seconds: Histogram<CallLabel>, buckets: CALL_SECONDS;

        /// Self-renames made to learn whether a name exists and whose it is, by what they showed.
        pub confirmations_total: IntCounter<Confirmation>;

        /// Time from a request's first receipt to its outcome, waits included.
        pub request_duration_seconds: Histogram<OutcomeLabel>, buckets: AGE_SECONDS;

        /// Time from when a request was asked for (`requested_at`, else the AMQP timestamp) to its
        /// outcome; not measured where that is more than a year ago or 5 minutes ahead, which a
        /// publisher's mistake has made.
        pub request_age_seconds: Histogram<()>, buckets: AGE_SECONDS;

        /// Requests moved to a wait queue, by its delay.
        pub deferrals_total: IntCounter<DelayLabel>;

        /// Events the broker has confirmed.
        pub events_published_total: IntCounter<EventType>;

        /// Events the broker did not confirm; each is published again.
        pub event_publish_failures_total: IntCounter<EventType>;

        /// Confirmed events that no queue was bound for.
        pub events_unrouted_total: IntCounter<EventType>;

        /// Requests put into the dead-letter queue for review.
        pub dead_letters_total: IntCounter<Reason>;

        /// Messages read from `rename.undeliverable`, by why they are there: RabbitMQ moved them away
        /// (`delivery_limit`, `expired`, `maxlen`) or a consumer `rejected` them; `unreadable` counts
        /// the failed attempts to read one that nobody can read over AMQP 0-9-1.
        pub undeliverable_total: IntCounter<UndeliverableCause>;

        /// Calls that may be in flight at once (`consumer.concurrency`).
        pub concurrency: IntGauge<()>;

        /// Calls in flight now.
        pub in_flight: IntGauge<()>;

        /// Requests waiting in the worker for their next attempt; they hold no slot.
        pub waiting: IntGauge<()>;

        /// Requests waiting for an earlier one that shares a name with them.
        pub blocked_by_order: IntGauge<()>;

        /// 1 while the worker holds (consumes nothing and only probes), by cause: `api` is down,
        /// or refuses our `credentials`.
        pub hold: IntGauge<HoldCause>;

        /// Accounts that are held while others go on, by cause: the `api` fails their calls, or
        /// refuses their `credentials`. Which they are shows in `/status`.
        pub accounts_held: IntGauge<HoldCause>;

        /// 1 while there is a live connection to the broker.
        pub broker_connected: IntGauge<()>;

        /// Connections to the broker made after the first.
        pub broker_reconnects_total: IntCounter<()>;

        /// Log lines that were not written, since whoever reads standard error is too slow or has
        /// stopped reading; the worker does not wait for them.
        pub log_lines_dropped_total: IntCounter<()>;

        /// Always 1; the labels say what runs.
        pub build_info: IntGauge<BuildLabels>;
    }
}
