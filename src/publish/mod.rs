//! Sends requests to the queue: read line by line, filled in, checked before the first is sent, and
//! each confirmed.
//!
//! It prints nothing and knows no exit codes; `cli` does.

mod input;
mod prepare;
mod send;

pub use input::{BadInput, Input, Line, Lines};
pub use prepare::{Defaults, Prepared, prepare};
pub use send::{Checked, Rules, Sent, Step, Stop, Why, check, send};
