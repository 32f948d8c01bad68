use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use jiff::Timestamp;

use super::family::NAMESPACE;
use super::*;
use crate::core::model::api_response::CallKind;
use crate::core::model::outcome::{AppliedBy, ConfirmedBy, Failed, Renamed};

/// The generated list of metrics, and how to make it anew.
const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
const REGENERATE: &str = "UPDATE_GENERATED";

fn given() -> StaticLabels {
    StaticLabels {
        version: "1.2.3".to_owned(),
        revision: "abcdef0".to_owned(),
        ladder: ["5s", "30s", "2m", "10m", "1h"].map(str::to_owned).to_vec(),
    }
}

fn metrics() -> Metrics {
    Metrics::new(&given()).expect("the metrics are declared well")
}

fn renamed(how: AppliedBy) -> Outcome {
    Outcome::Renamed(Renamed {
        how,
        confirmed_by: ConfirmedBy::Answer,
        user_id: None,
        username: None,
        attempts: 1,
        completed_at: Timestamp::UNIX_EPOCH,
    })
}

fn failed(reason: Reason) -> Outcome {
    Outcome::Failed(Failed {
        reason,
        detail: "for the test".into(),
        http_status: None,
        attempts: 1,
        first_attempt_at: None,
        failed_at: Timestamp::UNIX_EPOCH,
    })
}

/// The text without what differs from run to run.
fn rendered(metrics: &Metrics) -> String {
    let text = metrics.render().expect("text");
    let ours = |line: &&str| !line.contains("process_");
    text.lines().filter(ours).collect::<Vec<_>>().join("\n")
}

/// The lines that are not zero, without help and buckets.
fn moved(metrics: &Metrics) -> Vec<String> {
    rendered(metrics)
        .lines()
        .filter(|line| !line.starts_with('#') && !line.ends_with(" 0") && !line.contains("_bucket"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_series_is_there_at_zero_from_the_start() {
    insta::assert_snapshot!(rendered(&metrics()));
}

#[test]
fn every_metric_the_contract_names_is_there() {
    let names: Vec<_> = MetricFamilies::CATALOGUE
        .iter()
        .map(|about| about.name)
        .collect();
    for name in [
        "requests_consumed_total",
        "outcomes_total",
        "api_calls_total",
        "api_call_duration_seconds",
        "request_duration_seconds",
        "request_age_seconds",
        "deferrals_total",
        "events_published_total",
        "event_publish_failures_total",
        "dead_letters_total",
        "in_flight",
        "waiting",
        "blocked_by_order",
        "hold",
        "accounts_held",
        "broker_connected",
        "broker_reconnects_total",
        "build_info",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn each_verb_moves_its_own_series_and_no_other() {
    let metrics = metrics();
    let (ms, age) = (Duration::from_millis(20), Some(Duration::from_secs(2)));
    metrics.consumed(false);
    metrics.consumed(true);
    metrics.queue_head(Timestamp::from_second(1_795_507_200).unwrap());
    metrics.near_delivery_limit();
    metrics.outcome(&renamed(AppliedBy::Applied), ms, age);
    metrics.outcome(&renamed(AppliedBy::AlreadyApplied), ms, None);
    metrics.outcome(&failed(Reason::UserNotFound), ms, age);
    metrics.api_call(CallKind::Rename, CallStatus::Code(200), ms);
    metrics.api_call(CallKind::Confirm, CallStatus::Code(418), ms);
    metrics.api_call(CallLabel::Token, CallStatus::Timeout, ms);
    metrics.confirmation(Confirmation::Absent);
    metrics.deferred(2);
    metrics.event_published(EventType::UserRenamed);
    metrics.event_publish_failed(EventType::UserRenameFailed);
    metrics.event_unrouted(EventType::UserRenamed);
    metrics.dead_letter(Reason::Poison);
    metrics.set_concurrency(64);
    metrics.set_in_flight(3);
    metrics.set_waiting(4);
    metrics.set_blocked_by_order(5);
    metrics.set_hold(Some(HoldCause::Credentials));
    metrics.set_accounts_held(HoldCause::Api, 6);
    metrics.broker_connected(true);
    metrics.broker_reconnected();
    insta::assert_snapshot!(moved(&metrics).join("\n"));
}

#[test]
fn the_hold_has_one_cause_at_most() {
    let metrics = metrics();
    let holds = || -> Vec<_> {
        let moved = moved(&metrics);
        moved
            .into_iter()
            .filter(|line| line.contains("_hold"))
            .collect()
    };
    metrics.set_hold(Some(HoldCause::Api));
    assert_eq!(holds(), [r#"rename_worker_hold{cause="api"} 1"#]);
    metrics.set_hold(Some(HoldCause::Credentials));
    assert_eq!(holds(), [r#"rename_worker_hold{cause="credentials"} 1"#]);
    metrics.set_hold(None);
    assert!(holds().is_empty());
}

#[test]
fn counts_add_up_over_their_labels() {
    let metrics = metrics();
    let soon = Duration::ZERO;
    metrics.outcome(&renamed(AppliedBy::Applied), soon, None);
    metrics.outcome(&renamed(AppliedBy::AlreadyApplied), soon, None);
    metrics.outcome(&failed(Reason::Rejected), soon, None);
    metrics.outcome(&failed(Reason::Poison), soon, None);
    let counts = metrics.clone().counts();
    assert_eq!(
        (counts.renamed, counts.already_applied, counts.failed),
        (1, 1, 2)
    );
    assert_eq!(counts.consumed, 0);
}

#[test]
fn the_process_tells_its_own_share() {
    let text = metrics().render().unwrap();
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn promtool_has_nothing_to_complain_about() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("promtool is not here, so it was not asked; `make rules-test` brings it");
        return;
    };
    let text = metrics().render().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn the_committed_list_of_metrics_is_up_to_date() {
    let fresh = doc();
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::write(DOC, &fresh).unwrap();
    }
    let kept = std::fs::read_to_string(DOC).unwrap_or_default();
    assert!(
        kept == fresh,
        "docs/metrics.md is stale: run `make schemas`"
    );
}

/// `docs/metrics.md`, whole.
fn doc() -> String {
    let mut text = String::from(include_str!("metrics.md.head"));
    text.push_str("\n| metric | kind | labels | what it tells |\n| --- | --- | --- | --- |\n");
    for about in MetricFamilies::CATALOGUE {
        let labels = about.labels.iter().map(|label| format!("`{label}`"));
        writeln!(
            text,
            "| `{NAMESPACE}_{}` | {} | {} | {} |",
            about.name,
            about.kind,
            labels.collect::<Vec<_>>().join(", "),
            about.help
        )
        .unwrap();
    }
    text.push_str(
        "\n## What a label can say\n\n| metric | label | values |\n| --- | --- | --- |\n",
    );
    for about in MetricFamilies::CATALOGUE
        .iter()
        .filter(|about| about.name != "build_info")
    {
        let rows = (about.rows)(&given());
        for (place, label) in about.labels.iter().enumerate() {
            let mut values: Vec<_> = Vec::new();
            for row in &rows {
                let value = format!("`{}`", row[place]);
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            writeln!(
                text,
                "| `{}` | `{label}` | {} |",
                about.name,
                values.join(", ")
            )
            .unwrap();
        }
    }
    text.push_str("\n## Buckets\n\n| histogram | upper bounds, in seconds |\n| --- | --- |\n");
    for about in MetricFamilies::CATALOGUE
        .iter()
        .filter(|about| !about.buckets.is_empty())
    {
        let bounds: Vec<_> = about.buckets.iter().map(f64::to_string).collect();
        writeln!(text, "| `{}` | {} |", about.name, bounds.join(", ")).unwrap();
    }
    text
}
