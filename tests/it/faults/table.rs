//! A run as a person reads it: what was broken, what came of it, what was found wrong.

use std::fmt::Write as _;
use std::time::Duration;

use super::Run;
use super::check::Findings;
use super::process::Said;
use super::script::{Done, struck};

/// What an operator may expect after a broker's restart, on a machine with little else to do.
const PROMISED: Duration = Duration::from_secs(2);

pub fn draw(
    run: &Run<'_>,
    done: &Done,
    said: &Said,
    findings: &Findings,
    took: Duration,
) -> String {
    let calls_hurt = done.api_faults + struck(&run.sandbox);
    let told = findings.moved_on_told;
    let moved_on = match findings.moved_on {
        0 => "0".to_owned(),
        count => format!("{count} ({told} told as renamed before)"),
    };
    let parts: [(&str, &[(&str, String)]); 3] = [
        (
            "broken",
            &[
                ("worker kills (SIGKILL)", done.kills.to_string()),
                ("broker restarts", done.restarts.to_string()),
                ("broker kills (SIGKILL)", done.broker_kills.to_string()),
                ("connections cut, broker", done.cut_connections.to_string()),
                ("connections cut, API", done.api_cut_connections.to_string()),
                ("delays, broker", done.delays.to_string()),
                ("delays, API", done.api_delays.to_string()),
                ("API outages", done.outages.to_string()),
                ("API calls lost, garbled, 429, 5xx", calls_hurt.to_string()),
            ],
        ),
        (
            "came of it",
            &[
                ("requests", run.plan.asked.len().to_string()),
                ("renamed", findings.renamed.to_string()),
                ("failed", findings.failed.to_string()),
                ("events told again", findings.repeated_events.to_string()),
                ("letters sent again", findings.repeated_letters.to_string()),
                ("told as failed after moving on", moved_on),
                (
                    "told as failed, then renamed",
                    findings.came_true.to_string(),
                ),
                ("connects that got no answer", said.unanswered.to_string()),
                ("consuming again after", back(&done.back_after)),
            ],
        ),
        (
            "checked",
            &[
                ("chains for order", findings.chains_checked.to_string()),
                ("volleys for order", findings.volleys_checked.to_string()),
                ("violations", findings.violations.len().to_string()),
            ],
        ),
    ];
    let mut table = String::new();
    for (part, rows) in parts {
        let _ = writeln!(table, "{part}");
        for (what, count) in rows {
            let _ = writeln!(table, "  {what:<34}{count}");
        }
    }
    let version = run.broker.version().unwrap_or("of an unknown version");
    let today = rename_worker::clock::now().to_string();
    let (today, _) = today.split_once('T').unwrap_or((&today, ""));
    let took = took.as_secs();
    let _ = writeln!(table, "RabbitMQ {version}, {today}, {took} s");
    table
}

/// Each of a few, the middle and the longest of many, and how many were as soon as promised.
fn back(after: &[Duration]) -> String {
    let seconds = |back: &Duration| format!("{:.2} s", back.as_secs_f64());
    let mut sorted = after.to_vec();
    sorted.sort_unstable();
    let (Some(median), Some(longest)) = (sorted.get(sorted.len() / 2), sorted.last()) else {
        return "(the broker was never away)".to_owned();
    };
    let (median, longest, all) = (seconds(median), seconds(longest), sorted.len());
    let soon = sorted.iter().filter(|&&back| back <= PROMISED).count();
    format!("{median} (median), {longest} (longest); within 2 s: {soon} of {all}")
}
