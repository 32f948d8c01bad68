//! `status`: how the running worker is, for a person.

use std::fmt::Write as _;
use std::net::SocketAddrV6;
use std::num::NonZeroU16;
use std::path::Path;

use clap::Args;

use super::{CliError, ExitStatus};
use crate::admin::ask::{self, StatusError};
use crate::admin::status::WorkerStatus;

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the worker's admin endpoints are; `admin.listen` of the settings when not given
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    admin: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `status`.
pub async fn run(args: StatusArgs, config: Option<&Path>) -> ExitStatus {
    let at = match args.admin {
        Some(at) => at,
        None => match super::config::settings(config) {
            Ok(settings) => settings.admin.listen.to_string(),
            Err(refusal) => return refusal.print(args.json),
        },
    };
    match ask::status(&at).await {
        Ok(status) if args.json => match serde_json::to_string_pretty(&status) {
            Ok(text) => super::print(&format!("{text}\n")),
            Err(error) => {
                say!("{error}");
                ExitStatus::Failed
            }
        },
        Ok(status) => super::print(&as_text(&status)),
        Err(error) => {
            let exit = match error {
                StatusError::Unreachable { .. } => ExitStatus::Unreachable,
                StatusError::Strange { .. } => ExitStatus::Failed,
            };
            CliError::new(exit, error.to_string()).print(args.json)
        }
    }
}

/// A name or an address with a port, as it is; whether somebody is there is another matter.
fn host_and_port(text: &str) -> Result<String, &'static str> {
    let of_a_name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let named = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.chars().all(of_a_name) && port.parse::<NonZeroU16>().is_ok()
    });
    let fits = named || text.parse::<SocketAddrV6>().is_ok_and(|at| at.port() > 0);
    fits.then(|| text.to_owned())
        .ok_or("it is a host and a port such as 127.0.0.1:9090")
}

fn as_text(status: &WorkerStatus) -> String {
    let WorkerStatus {
        broker,
        hold,
        counts,
        ..
    } = status;
    let doing = match (status.draining, broker.connected, hold.held) {
        (true, ..) => "stopping".to_owned(),
        (_, false, _) => "waiting for the broker".to_owned(),
        (_, true, true) => {
            let cause = hold.cause.as_deref().unwrap_or("unknown");
            let probe = hold.next_probe_at.map_or_else(
                || "a probe is under way".to_owned(),
                |at| format!("next probe {at:.0}"),
            );
            format!("holding ({cause}; {probe})")
        }
        (_, true, false) if broker.blocked => "waiting for the broker's alarm to end".to_owned(),
        (_, true, false) => "consuming".to_owned(),
    };
    let rows = [
        (
            "worker",
            format!(
                "{} ({}), since {:.0}",
                status.version, status.revision, status.started_at
            ),
        ),
        ("now", doing),
        (
            "queue",
            format!("{}, session {}", broker.queue, broker.sessions),
        ),
        (
            "in flight",
            format!("{} of {}", status.in_flight, status.concurrency),
        ),
        (
            "waiting",
            format!(
                "{} in backoff, {} for their turn",
                status.waiting, status.blocked_by_order
            ),
        ),
        ("consumed", counts.consumed.to_string()),
        (
            "renamed",
            format!(
                "{} ({} already applied)",
                counts.renamed + counts.already_applied,
                counts.already_applied
            ),
        ),
        (
            "failed",
            format!("{} ({} dead letters)", counts.failed, counts.dead_lettered),
        ),
        ("deferred", counts.deferred.to_string()),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    }
    text + &held_accounts(status)
}

/// The accounts that are held, the longest held first; the rest as a number.
fn held_accounts(status: &WorkerStatus) -> String {
    let mut text = String::new();
    let shown = status.held_accounts.iter().take(MAX_ACCOUNTS);
    for (row, held) in shown.enumerate() {
        let name = if row == 0 { "held" } else { "" };
        let probe = held.next_probe_at.map_or_else(
            || "a probe is under way".to_owned(),
            |at| format!("next probe {at:.0}"),
        );
        let _ = writeln!(
            text,
            "{name:<10} {} since {:.0} ({}; {probe}; last answer: {})",
            held.account, held.since, held.cause, held.last_answer
        );
    }
    let more = status.held_accounts_total.saturating_sub(MAX_ACCOUNTS);
    if more > 0 {
        let _ = writeln!(text, "{:<10} and {more} more accounts", "");
    }
    text
}

/// Held accounts that are listed for a person.
const MAX_ACCOUNTS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{BrokerStatus, HeldAccountStatus, HoldStatus};
    use crate::telemetry::metrics::RequestCounts;

    #[test]
    fn the_admin_endpoints_are_told_by_host_and_port() {
        for fine in ["127.0.0.1:9090", "[::1]:9090", "rename-worker.prod:80"] {
            assert_eq!(host_and_port(fine).unwrap(), fine);
        }
        for bad in [
            "",
            "foo",
            ":9090",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "::1:9090",
            "[::1]",
            "http://127.0.0.1:9090",
            "127.0.0.1:9090/status",
        ] {
            host_and_port(bad).unwrap_err();
        }
    }

    #[test]
    fn a_person_reads_what_the_worker_does_and_has_done() {
        let at = "2026-11-24T10:00:00Z".parse().unwrap();
        let status = WorkerStatus {
            version: "0.1.0".to_owned(),
            revision: "abc1234".to_owned(),
            started_at: at,
            now: at,
            broker: BrokerStatus {
                connected: true,
                blocked: false,
                sessions: 2,
                queue: "rename.requests".to_owned(),
            },
            hold: HoldStatus {
                held: true,
                cause: Some("api".to_owned()),
                next_probe_at: Some(at),
            },
            held_accounts: (0..11)
                .map(|number| HeldAccountStatus {
                    account: format!("T{number:08}"),
                    cause: "credentials".to_owned(),
                    since: at,
                    next_probe_at: (number > 0).then_some(at),
                    last_answer: "status 401".to_owned(),
                    last_answer_at: at,
                })
                .collect(),
            held_accounts_total: 12,
            draining: false,
            in_flight: 3,
            concurrency: 64,
            waiting: 5,
            blocked_by_order: 1,
            in_hand: 9,
            counts: RequestCounts {
                consumed: 120,
                renamed: 90,
                already_applied: 4,
                failed: 6,
                api_calls: 150,
                deferred: 11,
                events_published: 100,
                dead_lettered: 6,
                broker_reconnects: 1,
            },
        };
        insta::assert_snapshot!(as_text(&status));
    }
}
