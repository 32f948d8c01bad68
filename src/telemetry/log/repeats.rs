//! The bound of warnings and errors that have no bound of their own: those of libraries (traces that
//! a collector does not take) and of rooms that may not see the reporter.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::clock;
use crate::core::policy::fault_log::LineLimit;

/// Where lines are bounded already, and counted where they are left out; and the commands, which
/// say each thing once.
const BOUNDED: [&str; 2] = ["rename_worker::telemetry::events", "rename_worker::cli"];

/// Leaves out a warning or an error where the same place in the code has written too many lately.
/// It keeps a few numbers for each such place, which are as many as there are in the code.
#[derive(Debug, Default)]
pub(super) struct RepeatFilter {
    limits: Mutex<HashMap<Identifier, LineLimit>>,
}

impl<S: Subscriber> Layer<S> for RepeatFilter {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let line = event.metadata();
        if !is_to_be_bounded(line) {
            return true;
        }
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = limits.entry(line.callsite()).or_default();
        limit.admit(clock::now()).is_some()
    }
}

fn is_to_be_bounded(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::WARN
        && !BOUNDED
            .iter()
            .any(|target| line.target().starts_with(target))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::event;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Counts what gets through.
    #[derive(Clone, Default)]
    struct WrittenLine(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for WrittenLine {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn written(log: impl Fn()) -> usize {
        let written = WrittenLine::default();
        let subscriber = tracing_subscriber::registry()
            .with(RepeatFilter::default())
            .with(written.clone());
        tracing::subscriber::with_default(subscriber, log);
        written.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_warning_that_repeats_is_written_a_few_times() {
        let collector_is_away = || {
            for _ in 0..1000 {
                event!(target: "opentelemetry-otlp", Level::ERROR, "");
            }
        };
        assert_eq!(written(collector_is_away), 10);
        let another_place_as_well = || {
            collector_is_away();
            event!(target: "rename_worker::broker::declare", Level::WARN, "");
        };
        assert_eq!(written(another_place_as_well), 11);
    }

    #[test]
    fn what_is_bounded_elsewhere_or_asked_for_is_written() {
        let lines = || {
            for _ in 0..1000 {
                event!(target: "rename_worker::telemetry::events", Level::WARN, "");
                event!(target: "rename_worker::broker", Level::INFO, "");
            }
        };
        assert_eq!(written(lines), 2000);
    }
}
