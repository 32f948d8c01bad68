//! Where log lines go and how they look: text for a person at a terminal, else JSON; on standard
//! error, since standard output is for results.
//!
//! A thread of its own writes them. Whoever logs never waits for whoever reads: where the reader
//! stalls, lines are dropped and counted.

mod repeats;

use std::io::IsTerminal as _;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;

use tracing::{Metadata, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use self::repeats::RepeatFilter;
use crate::config::{LogFormat, LogSection};
use crate::messages::visible::EscapingWriter;

/// What these say only matters when it is a warning, unless somebody asks. That traces are not
/// taken, nobody else tells.
const DEPENDENCY_DIRECTIVES: &str =
    "tower=warn,opentelemetry=warn,opentelemetry_sdk=warn,opentelemetry-otlp=error";

/// The libraries whose lines may show what goes over the wire: bodies, names in a path, passwords.
/// Whatever `log.level` asks for, more than this does not come. lapin's own crates tell nothing: they
/// tell each connection error at error level, and we tell the same better.
const MAX_LEVEL_BY_TARGET: [(&str, LevelFilter); 9] = [
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

/// The lines that wait for the writing thread at most. At 2,000 requests a second, each with its
/// line, a reader may pause for two seconds; with some 500 bytes a line that is 2 MB.
const LINES_WAITING_MAX: usize = 4096;

/// What was dropped so far; the log is the process's, so this is as well.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("log.level is no filter: {0}")]
pub struct BadLevel(#[from] tracing_subscriber::filter::ParseError);

/// Keeps the log going. Dropping it writes what still waits, for about a second where the reader
/// has stalled.
#[must_use = "lines that still wait are lost unless this lives until the process ends"]
#[derive(Debug)]
pub struct LogGuard {
    _writer: WorkerGuard,
}

/// Sets the process's log up; does nothing where one is set up already, as in tests.
pub fn init(log: &LogSection) -> Result<LogGuard, BadLevel> {
    let registry = tracing_subscriber::registry()
        .with(filter(&log.level)?)
        .with(RepeatFilter::default());
    let is_terminal = std::io::stderr().is_terminal();
    let text = match log.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("log-writer")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let layer = tracing_subscriber::fmt::layer().with_target(false);
    // A log that is set up already is kept: whoever did so wanted it.
    let set_up = if text {
        let writer = move || EscapingWriter::with_colours(writer.clone());
        let layer = layer.with_writer(writer).with_ansi(is_terminal);
        registry.with(layer).try_init()
    } else {
        let writer = move || EscapingWriter::new(writer.clone());
        let layer = layer.json().flatten_event(true).with_writer(writer);
        registry.with(layer).try_init()
    };
    if set_up.is_ok() {
        DROPPED.set(dropped).ok();
    }
    Ok(LogGuard { _writer: guard })
}

/// The lines that were dropped so far, since standard error was not read fast enough.
#[must_use]
pub fn lines_dropped() -> u64 {
    let dropped = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
    u64::try_from(dropped).unwrap_or(u64::MAX)
}

/// From now on a panic is a line of the log. The default writes it to standard error itself, where
/// it would wait for ever for a reader that has stalled, and the process with it.
pub fn panics_too() {
    panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let place = panic.location().map(tracing::field::display);
        // What a panic says may quote what was being worked on; the place is enough to find it.
        tracing::error!(place, "a mistake in rename-worker: it panicked");
    }));
}

fn filter<S>(level: &str) -> Result<impl Layer<S> + use<S>, BadLevel>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let asked = EnvFilter::try_new(format!("{DEPENDENCY_DIRECTIVES},{level}"))?;
    Ok(asked.and_then(filter_fn(is_allowed)))
}

fn is_allowed(line: &Metadata<'_>) -> bool {
    let mut hushed = MAX_LEVEL_BY_TARGET.iter();
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
    struct RecordingLayer(Arc<Mutex<Vec<(String, Level)>>>);

    impl<S: Subscriber> Layer<S> for RecordingLayer {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let line = event.metadata();
            let heard = (line.target().to_owned(), *line.level());
            self.0.lock().unwrap().push(heard);
        }
    }

    fn heard_at(level: &str) -> Vec<(String, Level)> {
        let heard = RecordingLayer::default();
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
