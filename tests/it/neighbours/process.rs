//! The worker as a process: its `/status`, its metrics, and the log lines of its deferrals.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use rename_worker::demo::broker::docker::free_ports;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::support::stage::PATIENCE;

/// Between two questions to a worker that starts.
const AGAIN: Duration = Duration::from_millis(50);

#[derive(Default)]
pub struct LoggedDeferrals {
    pub by_request: HashMap<Uuid, u32>,
    pub by_reason: BTreeMap<String, u32>,
}

/// A running worker. It is killed when this is dropped.
pub struct WorkerProcess {
    child: Child,
    admin: String,
    folder: TempDir,
}

impl WorkerProcess {
    /// Starts `command` and waits until `/readyz` answers 200.
    pub async fn start(mut command: Command) -> Self {
        // Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let [port] = free_ports().expect("a port is free");
        let admin = format!("127.0.0.1:{port}");
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let log = File::create(folder.path().join("log")).expect("a file can be written");
        let child = command
            .env("RENAME_WORKER_ADMIN__LISTEN", &admin)
            .env("RENAME_WORKER_LOG__FORMAT", "json")
            .stderr(log)
            .spawn()
            .expect("the worker starts");
        let mut worker = Self {
            child,
            admin,
            folder,
        };
        let ready = timeout(PATIENCE, worker.ready()).await;
        assert!(ready == Ok(true), "not ready: {}", worker.log_end());
        worker
    }

    /// Whether it became ready before it ended.
    async fn ready(&mut self) -> bool {
        loop {
            let answer = reqwest::get(format!("http://{}/readyz", self.admin)).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return true;
            }
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            sleep(AGAIN).await;
        }
    }

    async fn get(&self, path: &str) -> String {
        let answer = reqwest::get(format!("http://{}/{path}", self.admin)).await;
        let body = answer.expect("the worker answers").bytes().await;
        String::from_utf8_lossy(&body.expect("the answer comes")).into_owned()
    }

    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.get("status").await).expect("the status is JSON")
    }

    /// Waits until the status is `such`; the last one that was seen, and whether it was.
    pub async fn status_until(
        &self,
        limit: Duration,
        such: impl Fn(&Value) -> bool,
    ) -> (Value, bool) {
        let end = Instant::now() + limit;
        loop {
            let status = self.status().await;
            let is_such = such(&status);
            if is_such || Instant::now() >= end {
                return (status, is_such);
            }
            sleep(AGAIN).await;
        }
    }

    /// The sum of a metric's series that carry `label`, such as `cause="api"`; empty for all series.
    /// `None` if there is no such series.
    pub async fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let page = self.get("metrics").await;
        let of_name = page.lines().filter_map(|line| line.strip_prefix(name));
        let values = of_name
            .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// `rename_worker_deferrals_total`, of all delays.
    pub async fn deferrals(&self) -> f64 {
        let sum = self.metric("rename_worker_deferrals_total", "").await;
        sum.expect("the metric is there from the start")
    }

    /// Deferrals by request and by reason, from the log lines. Only lines that name the request, its
    /// account, the reason, the delay and the attempts count.
    pub fn logged_deferrals(&self) -> LoggedDeferrals {
        let log = File::open(self.folder.path().join("log")).expect("the worker has a log");
        let mut deferrals = LoggedDeferrals::default();
        for line in BufReader::new(log).lines() {
            let line = line.expect("the log can be read");
            let Ok(line) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let is_whole = line["level"] == "INFO"
                && ["account", "reason", "delay", "attempts"]
                    .iter()
                    .all(|&field| !line[field].is_null());
            let id = line["request_id"].as_str().and_then(|id| id.parse().ok());
            if let Some(id) = id.filter(|_| is_whole) {
                *deferrals.by_request.entry(id).or_default() += 1;
                let reason = line["reason"].to_string();
                *deferrals.by_reason.entry(reason).or_default() += 1;
            }
        }
        deferrals
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}
