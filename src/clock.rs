//! The one place that asks for the time and for chance, so that everything else takes them as
//! arguments.
//!
//! `clippy.toml` forbids the clocks of `std` and `jiff` and `rand::random` everywhere but here.
//! Spans are measured with `tokio::time::Instant`, which tests can pause.

use jiff::Timestamp;

/// The time of day.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everybody else is told to ask"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A number from 0 to 1, for delays that must not fall together.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the die that everybody else is told to ask for"
)]
pub fn random_unit() -> f64 {
    rand::random()
}
