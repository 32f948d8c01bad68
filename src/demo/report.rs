//! What came of the play: counted from what was told, for a person or a program to read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, TableComponent, presets};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::scenario::ScenarioRequest;
use crate::core::model::outcome::Reason;

/// Latencies are kept to three digits, up to ten minutes: nothing of a demo takes longer.
const LONGEST: Duration = Duration::from_mins(10);

/// An event of the worker's, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct ReceivedEvent {
    pub id: Uuid,
    data: EventData,
}

#[derive(Debug, Deserialize)]
struct EventData {
    request_id: Option<String>,
    /// Of a rename.
    outcome: Option<String>,
    /// Of a failure.
    reason: Option<String>,
}

/// The end of the demo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoReport {
    /// Where the broker came from.
    pub broker: String,
    pub version: Option<String>,
    pub requests: usize,
    /// From the first publish to the last outcome.
    pub seconds: f64,
    /// By outcome, or by reason of a failure.
    pub outcomes: BTreeMap<String, usize>,
    pub latency_ms: Option<LatencyReport>,
    /// Requests without an outcome, or with another one than they must have.
    pub wrong: usize,
    /// Events that told an outcome a second time, as at-least-once allows.
    pub repeats: usize,
    /// Renames that the API's stand-in says took effect.
    pub took_effect: usize,
    /// Calls that the stand-in answered, or left unanswered.
    pub calls: u64,
    pub dead_letters: DeadLetterTally,
}

/// From handing a request to the broker to hearing its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyReport {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterTally {
    pub queue: String,
    pub letters: usize,
}

/// What was told and when, matched with the script.
#[derive(Debug, Default)]
pub(super) struct OutcomeTally {
    pub outcomes: BTreeMap<String, usize>,
    pub latency_ms: Option<LatencyReport>,
    pub wrong: usize,
    pub repeats: usize,
}

impl DemoReport {
    /// Whether everything ended as it must.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.wrong == 0
            && self.took_effect == self.renamed()
            && self.dead_letters.letters == self.failed()
    }

    fn renamed(&self) -> usize {
        self.count(|outcome| reason(outcome).is_none())
    }

    fn failed(&self) -> usize {
        self.count(|outcome| reason(outcome).is_some())
    }

    fn count(&self, such: impl Fn(&str) -> bool) -> usize {
        let counts = self.outcomes.iter();
        counts.filter(|(name, _)| such(name)).map(|(_, n)| n).sum()
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_style(TableComponent::HeaderLines, '─');
        table.set_style(TableComponent::MiddleHeaderIntersections, '─');
        table.set_header(["outcome", "requests", "what it means"]);
        for (outcome, meaning) in MEANINGS {
            if let Some(count) = self.outcomes.get(*outcome) {
                table.add_row([*outcome, &count.to_string(), *meaning]);
            }
        }
        if let Some(counts) = table.column_mut(1) {
            counts.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// In the order in which they are shown.
const MEANINGS: &[(&str, &str)] = &[
    ("applied", "renamed; the API said so"),
    (
        "already_applied",
        "renamed; the answer was lost, so the API was asked who has the name",
    ),
    ("user_not_found", "failed: no user has the old name"),
    ("username_taken", "failed: another user has the new name"),
    (
        "user_mismatch",
        "failed: the name belongs to another user than the request means",
    ),
    (
        "outcome_unknown",
        "failed, or renamed: the API never made clear which",
    ),
    (
        "invalid_request",
        "failed: not a valid request; kept byte for byte",
    ),
    (
        "deadline_exceeded",
        "failed: it came after its own not_after",
    ),
    ("forbidden", "failed: the API refuses this rename to us"),
    ("rejected", "failed: the API refuses this rename"),
    ("retries_exhausted", "failed: tried too often or too long"),
    ("poison", "failed: delivered too often"),
];

fn reason(outcome: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|r| r.as_str() == outcome)
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.as_deref().unwrap_or("of unknown version");
        writeln!(
            f,
            "{} requests in {:.1} s, on RabbitMQ {version} ({})",
            self.requests, self.seconds, self.broker
        )?;
        writeln!(f, "\n{}\n", self.table().trim_fmt())?;
        if let Some(latency) = self.latency_ms {
            let LatencyReport { p50, p90, p99, max } = latency;
            writeln!(
                f,
                "from request to event: half within {}, 90 % within {}, 99 % within {}, all within {}",
                DurationRange(p50),
                DurationRange(p90),
                DurationRange(p99),
                DurationRange(max)
            )?;
        }
        writeln!(
            f,
            "the API was called {} times; by its own ledger {} renames took effect, {} were reported",
            self.calls,
            self.took_effect,
            self.renamed()
        )?;
        writeln!(
            f,
            "dead letters: {} in the queue {}, for {} failures",
            self.dead_letters.letters,
            self.dead_letters.queue,
            self.failed()
        )?;
        if self.repeats > 0 {
            writeln!(
                f,
                "{} outcomes were reported twice, with the same event id",
                self.repeats
            )?;
        }
        if self.is_fine() {
            write!(f, "every request ended as it must")
        } else {
            write!(
                f,
                "NOT AS IT MUST BE: {} requests ended otherwise or not at all",
                self.wrong
            )
        }
    }
}

/// Milliseconds, for a person.
struct DurationRange(f64);

impl fmt::Display for DurationRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000.0 {
            write!(f, "{:.0} ms", self.0)
        } else {
            write!(f, "{:.1} s", self.0 / 1000.0)
        }
    }
}

/// Matches what was told with what was asked: `sent` has the time of each request, in the script's
/// order.
pub(super) fn tally(
    script: &[ScenarioRequest],
    sent: &[Instant],
    heard: &[(ReceivedEvent, Instant)],
) -> OutcomeTally {
    let mut tally = OutcomeTally::default();
    let mut first: HashMap<Uuid, &(ReceivedEvent, Instant)> = HashMap::new();
    let mut by_request: HashMap<Uuid, HashSet<Uuid>> = HashMap::new();
    let mut unreadable = 0;
    for told in heard {
        let event = told.0.id;
        if first.contains_key(&event) {
            tally.repeats += 1;
            continue;
        }
        first.insert(event, told);
        let outcome = told.0.outcome().to_owned();
        *tally.outcomes.entry(outcome).or_default() += 1;
        match told.0.request() {
            Some(request) => {
                by_request.entry(request).or_default().insert(event);
            }
            None if told.0.outcome() == Reason::InvalidRequest.as_str() => unreadable += 1,
            None => tally.wrong += 1,
        }
    }
    let mut latencies = latencies();
    for (scripted, sent) in script.iter().zip(sent) {
        let Some(request) = scripted.request_id else {
            // One unreadable event for each unreadable request.
            if unreadable > 0 {
                unreadable -= 1;
            } else {
                tally.wrong += 1;
            }
            continue;
        };
        let events = by_request.remove(&request).unwrap_or_default();
        let fits = |event: &Uuid| scripted.expects(first[event].0.outcome());
        if events.len() != 1 || !events.iter().all(fits) {
            tally.wrong += 1;
        }
        for event in events {
            let took = first[&event].1.saturating_duration_since(*sent);
            latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }
    // Outcomes that nobody asked for.
    tally.wrong += by_request.len() + unreadable;
    tally.latency_ms = (!latencies.is_empty()).then(|| LatencyReport {
        p50: milliseconds(latencies.value_at_quantile(0.5)),
        p90: milliseconds(latencies.value_at_quantile(0.9)),
        p99: milliseconds(latencies.value_at_quantile(0.99)),
        max: milliseconds(latencies.max()),
    });
    tally
}

fn latencies() -> Histogram<u64> {
    let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
    match Histogram::new_with_max(longest, 3) {
        Ok(histogram) => histogram,
        Err(_) => unreachable!("3 digits and a maximum of at least 2 are what it can do"),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ten minutes in microseconds fit an f64"
)]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

impl ReceivedEvent {
    fn outcome(&self) -> &str {
        let data = &self.data;
        data.reason
            .as_deref()
            .or(data.outcome.as_deref())
            .unwrap_or("nothing")
    }

    fn request(&self) -> Option<Uuid> {
        self.data.request_id.as_deref()?.parse().ok()
    }
}

impl ScenarioRequest {
    fn expects(&self, outcome: &str) -> bool {
        match self.fails {
            Some(reason) => outcome == reason.as_str(),
            None => matches!(outcome, "applied" | "already_applied"),
        }
    }
}

#[cfg(test)]
mod tests;
