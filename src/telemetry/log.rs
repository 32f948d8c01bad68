//! Where log lines go and how they look: text for a person at a terminal, else JSON; on standard
//! error, since standard output is for results.

use std::io::IsTerminal as _;

use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Log, LogFormat};
use crate::wire::visible::EscapingWriter;

/// What these say only matters when it is a warning, unless somebody asks. That traces are not
/// taken, nobody else tells.
const QUIET: &str = "tower=warn,opentelemetry=warn,opentelemetry_sdk=warn,opentelemetry-otlp=error";

/// The libraries whose lines may show what goes over the wire: bodies, names in a path, passwords.
/// Whatever `log.level` asks for, more than this does not come. lapin's own crates tell nothing: they
/// tell each connection error at error level, and we tell the same better.
const HUSHED: [(&str, LevelFilter); 9] = [
    ("lapin", LevelFilter::OFF),
    // And amq_protocol_tcp, amq_protocol_uri and so on.
    ("amq_protocol", LevelFilter::OFF),
    ("tcp_stream", LevelFilter::OFF),
    ("async_rs", LevelFilter::OFF),
    ("reqwest", LevelFilter::WARN),
    // And hyper_util.
    ("hyper", LevelFilter::WARN),
    ("h2", LevelFilter::WARN),
    ("axum", LevelFilter::WARN),
    // And rustls_connector.
    ("rustls", LevelFilter::WARN),
];

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("log.level is no filter: {0}")]
pub struct BadLevel(#[from] tracing_subscriber::filter::ParseError);

/// Sets the process's log up; does nothing where one is set up already, as in tests.
pub fn init(log: &Log) -> Result<(), BadLevel> {
    let registry = tracing_subscriber::registry().with(filter(&log.level)?);
    let text = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // A log that is set up already is kept: whoever did so wanted it.
    if text {
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(|| EscapingWriter::with_colours(std::io::stderr()))
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal());
        registry.with(layer).try_init().ok();
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(|| EscapingWriter::new(std::io::stderr()))
            .with_target(false);
        registry.with(layer).try_init().ok();
    }
    Ok(())
}

fn filter<S>(level: &str) -> Result<impl Layer<S> + use<S>, BadLevel>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let asked = EnvFilter::try_new(format!("{QUIET},{level}"))?;
    Ok(asked.and_then(filter_fn(may_be_told)))
}

fn may_be_told(line: &Metadata<'_>) -> bool {
    let mut hushed = HUSHED.iter();
    hushed
        .find(|(library, _)| line.target().starts_with(library))
        .is_none_or(|(_, most)| line.level() <= most)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Level, event};
    use tracing_subscriber::layer::Context;

    use super::*;

    /// Notes where each line comes from.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<(String, Level)>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let line = event.metadata();
            let heard = (line.target().to_owned(), *line.level());
            self.0.lock().unwrap().push(heard);
        }
    }

    fn heard_at(level: &str) -> Vec<(String, Level)> {
        let heard = Heard::default();
        let registry = tracing_subscriber::registry();
        let log = registry.with(filter(level).unwrap()).with(heard.clone());
        tracing::subscriber::with_default(log, || {
            event!(target: "lapin::io_loop", Level::ERROR, "");
            event!(target: "lapin::channels", Level::TRACE, "");
            event!(target: "amq_protocol_tcp", Level::TRACE, "");
            event!(target: "hyper_util::client", Level::TRACE, "");
            event!(target: "hyper::proto", Level::WARN, "");
            event!(target: "rename_worker::broker", Level::TRACE, "");
            event!(target: "rename_worker::broker", Level::INFO, "");
        });
        Arc::into_inner(heard.0).unwrap().into_inner().unwrap()
    }

    #[test]
    fn no_level_makes_the_libraries_show_what_goes_over_the_wire() {
        let talkative =
            "trace,lapin=trace,lapin::io_loop=error,amq_protocol_tcp=trace,hyper_util=trace";
        for level in ["trace", talkative] {
            let heard = heard_at(level);
            let told = |target: &str, level| (target.to_owned(), level);
            let expected = [
                told("hyper::proto", Level::WARN),
                told("rename_worker::broker", Level::TRACE),
                told("rename_worker::broker", Level::INFO),
            ];
            assert_eq!(heard, expected, "{level}");
        }
        assert_eq!(heard_at("info").len(), 2);
        assert_eq!(heard_at("off").len(), 0);
    }

    #[test]
    fn a_bad_level_is_told() {
        assert!(filter::<tracing_subscriber::Registry>("rename_worker=loud").is_err());
    }
}
