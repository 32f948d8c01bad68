//! What telling one outcome costs, by itself: the calls that the worker makes to its reporter and
//! metrics for one renamed request, again and again, with and without the log line. Differences of
//! a few per cent drown in the noise of whole runs; here they don't.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use rename_worker::clock;
use rename_worker::config::{LogFormat, LogSection, UsernameLogging};
use rename_worker::core::model::api_response::CallKind;
use rename_worker::core::model::outcome::{AppliedBy, ConfirmedBy, Outcome, Renamed};
use rename_worker::core::model::request::{AccountId, RenameRequest, Username};
use rename_worker::core::scheduler::RequestEnded;
use rename_worker::telemetry::events::{EventReporter, RequestRecord};
use rename_worker::telemetry::log;
use rename_worker::telemetry::logged_names::LoggedNames;
use rename_worker::telemetry::metrics::{CallStatus, EventType, Metrics, StaticLabels};
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

use crate::{load, process};

/// Says that this process is to do the telling; the log's level follows.
pub const ARGUMENT: &str = "--telling";

/// Enough for the clock of `/proc`, which ticks every 10 ms.
const OUTCOMES: u32 = 300_000;

/// CPU microseconds an outcome, as a process of its own whose log goes to a file.
pub async fn cost(level: &str) -> Result<f64> {
    let dir = TempDir::new()?;
    let told = Command::new(std::env::current_exe()?)
        .args([ARGUMENT, level])
        .stderr(File::create(dir.path().join("log"))?)
        .stdout(Stdio::piped())
        .output()
        .await?;
    ensure!(told.status.success(), "telling outcomes failed");
    Ok(String::from_utf8(told.stdout)?.trim().parse()?)
}

/// The process: prints the microseconds.
pub fn run(level: &str) -> Result<()> {
    let _log = log::init(&LogSection {
        format: LogFormat::Json,
        level: level.to_owned(),
        usernames: UsernameLogging::Hidden,
        hash_key: None,
    })?;
    let metrics = Metrics::new(&StaticLabels::default())?;
    let reporter = EventReporter::new(metrics, LoggedNames::Hidden);
    let request = request()?;
    let me = std::process::id();
    let before = process::cpu_time(me)?;
    for _ in 0..OUTCOMES {
        tell(&reporter, &request);
    }
    let spent = process::cpu_time(me)?.saturating_sub(before);
    println!("{}", spent.as_secs_f64() * 1e6 / f64::from(OUTCOMES));
    Ok(())
}

/// All that is told of one request from its delivery to its ack.
fn tell(reporter: &EventReporter, request: &RenameRequest) {
    let now = clock::now();
    let metrics = reporter.metrics();
    metrics.consumed(false);
    if let Some(at) = request.requested_at {
        metrics.queue_head(at);
    }
    metrics.api_call(
        CallKind::Rename,
        CallStatus::Code(200),
        Duration::from_millis(5),
    );
    reporter.event_published(EventType::UserRenamed, true);
    // The loop sets them at each of its turns, of which a request takes several.
    for turn in 0..4 {
        metrics.set_in_flight(turn);
        metrics.set_waiting(0);
        metrics.set_blocked_by_order(0);
    }
    let ended = RequestEnded {
        outcome: Outcome::Renamed(Renamed {
            how: AppliedBy::Applied,
            confirmed_by: ConfirmedBy::Answer,
            user_id: None,
            username: None,
            attempts: 1,
            completed_at: now,
        }),
        first_receipt_at: now,
    };
    reporter.request_ended(&RequestRecord {
        ended: &ended,
        request: Some(request),
        request_id: Some(request.request_id),
        account: Some(&request.account_id),
        asked_at: request.requested_at,
        trace_id: None,
        now,
    });
}

fn request() -> Result<RenameRequest> {
    Ok(RenameRequest {
        request_id: Uuid::now_v7(),
        account_id: AccountId::parse(load::ACCOUNT)?,
        username: Username::parse(&load::name(1, 0))?,
        new_username: Username::parse(&load::name(1, 1))?,
        user_id: None,
        requested_at: Some(clock::now()),
        requested_by: Some("bench".into()),
        not_after: None,
    })
}
