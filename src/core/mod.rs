//! Decisions, and nothing else: no tokio, lapin, reqwest, clock, randomness or logging.
//!
//! Time comes in as [`jiff::Timestamp`] arguments and randomness as a number from 0 to 1, so a
//! simulation with a virtual clock drives exactly what runs in production. In reading order:

// What the decisions are about: values that are valid once constructed.
pub mod model;
// The rules, each a pure function or a small state machine of its own.
pub mod policy;
// The rules applied to all requests in hand: an input goes in, effects come out.
pub mod scheduler;
