//! Sends requests to the queue: read line by line, filled in, checked before the first is sent, and
//! each confirmed.
//!
//! It prints nothing and knows no exit codes; `cli` does.

mod input;
mod prepare;
mod send;

pub use input::{BadInput, InputLine, InputLines, RequestInput};
pub use prepare::{PreparedRequest, RequestDefaults, prepare};
pub use send::{
    CheckedRequest, PublishOptions, PublishStop, PublishSummary, SendEvent, StopReason, check, send,
};
