//! The demo: the whole story on a throw-away stage, and that stage, which tests use as well.
//!
//! Nothing here is needed in production, and nothing in production may lean on it. Printing is
//! `cli`'s business.

pub mod broker;
mod report;
mod script;
mod stage;

pub use report::DemoReport;
pub use stage::{DemoEnvironment, DemoError, DemoOptions, ProgressEvent};
