//! Decisions, and nothing else: no tokio, lapin, reqwest, clock, randomness or logging.
//!
//! Time comes in as [`jiff::Timestamp`] arguments and randomness as a number from 0 to 1, so a
//! simulation with a virtual clock drives exactly what runs in production.

pub mod answer;
pub mod outcome;
pub mod request;
