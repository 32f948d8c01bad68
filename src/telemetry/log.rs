//! Where log lines go and how they look: text for a person at a terminal, else JSON; on standard
//! error, since standard output is for results.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// What the libraries below say only matters when it is a warning; lapin tells each connection
/// error at error level, and we tell the same better. That traces are not taken, nobody else tells.
const QUIET: &str = "lapin=off,reqwest=warn,hyper=warn,rustls=warn,h2=warn,tower=warn,\
     opentelemetry=warn,opentelemetry_sdk=warn,opentelemetry-otlp=error";

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("log.level is no filter: {0}")]
pub struct BadLevel(#[from] tracing_subscriber::filter::ParseError);

/// Sets the process's log up; does nothing where one is set up already, as in tests.
pub fn init(log: &Log) -> Result<(), BadLevel> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.level))?;
    let registry = tracing_subscriber::registry().with(filter);
    let text = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // A log that is set up already is kept: whoever did so wanted it.
    if text {
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal());
        registry.with(layer).try_init().ok();
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .with_target(false);
        registry.with(layer).try_init().ok();
    }
    Ok(())
}
