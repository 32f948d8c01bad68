//! The demo: the whole story on a throw-away stage, and that stage, which tests use as well.
//!
//! Nothing here is needed in production, and nothing in production may lean on it. Printing is
//! `cli`'s business.

pub mod broker;
mod report;
mod scenario;
mod environment;

pub use environment::{DemoEnvironment, DemoError, DemoOptions, ProgressEvent};
pub use report::DemoReport;
