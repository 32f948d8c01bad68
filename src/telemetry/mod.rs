//! What those who watch the worker see: every metric, every log event, the set-up of tracing.
//!
//! It reports and decides nothing; serving `/metrics` is `admin`'s business.

pub mod build;
pub mod events;
pub mod log;
pub mod logged_names;
pub mod metrics;
pub mod trace;
