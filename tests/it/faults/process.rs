//! The real binary as a process that can be killed, and what it says of itself.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rename_worker::demo::broker::docker::free_ports;
use rename_worker::sandbox::{CLIENT_ID, CLIENT_SECRET};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::plan::NAME;
use crate::support::process::signal;

/// Asking a busy worker for its status may take a while, but not that long.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// Where a worker works, and how.
pub struct Settings {
    pub amqp_url: String,
    pub prefix: String,
    pub base_url: String,
    /// Further variables, such as `("RETRY__JITTER", "0")`.
    pub more: Vec<(&'static str, String)>,
}

/// What the workers said in their log, as far as it matters here.
#[derive(Debug, Default)]
pub struct Said {
    /// Lines with a username in them: there must be none.
    pub with_a_name: usize,
    /// Tries to connect that the broker left without an answer, or seemed to.
    pub unanswered: usize,
}

impl Said {
    pub fn read(log: &PathBuf) -> Self {
        let mut said = Self::default();
        let log = File::open(log).expect("the workers have a log");
        for line in BufReader::new(log).split(b'\n') {
            let line = line.expect("the log can be read").to_ascii_lowercase();
            let line = String::from_utf8_lossy(&line);
            said.with_a_name += usize::from(line.contains(NAME));
            said.unanswered += usize::from(line.contains("did not answer within"));
        }
        said
    }
}

/// A worker that runs; it is killed when this is dropped.
pub struct Process {
    child: Child,
    pub admin: String,
}

impl Process {
    /// `log` gets what it says, after what others said there.
    pub fn start(settings: &Settings, log: &PathBuf) -> Self {
        Self::start_under(&[env!("CARGO_BIN_EXE_rename-worker")], settings, log)
    }

    /// The same, started by another program such as `nohup`; the command ends with the worker.
    pub fn start_under(command: &[&str], settings: &Settings, log: &PathBuf) -> Self {
        let [port] = free_ports().expect("a port is free");
        let admin = format!("127.0.0.1:{port}");
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log can be written");
        let more = settings
            .more
            .iter()
            .map(|(key, value)| (format!("RENAME_WORKER_{key}"), value));
        let child = Command::new(command[0])
            .args(&command[1..])
            .arg("run")
            .env("RENAME_WORKER_AMQP__URL", &settings.amqp_url)
            .env("RENAME_WORKER_AMQP__PREFIX", &settings.prefix)
            .env("RENAME_WORKER_API__BASE_URL", &settings.base_url)
            .env("RENAME_WORKER_API__CLIENT_ID", CLIENT_ID)
            .env("RENAME_WORKER_API__CLIENT_SECRET", CLIENT_SECRET)
            .env("RENAME_WORKER_ADMIN__LISTEN", &admin)
            // Each try to connect has a line only then.
            .env(
                "RENAME_WORKER_LOG__LEVEL",
                "info,rename_worker::telemetry::events=debug",
            )
            .envs(more)
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the worker starts");
        Self { child, admin }
    }

    /// Ends it without warning. Says how it had ended by itself before, if it had.
    pub async fn kill(mut self) -> Option<ExitStatus> {
        let ended = self.ended();
        let _ = self.child.kill().await;
        ended
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Asks it to stop.
    pub async fn terminate(&self) {
        signal(&self.child, "TERM").await;
    }

    /// What a terminal that closes sends.
    pub async fn hang_up(&self) {
        signal(&self.child, "HUP").await;
    }

    pub async fn wait(&mut self) -> ExitStatus {
        self.child.wait().await.expect("it is our child")
    }

    /// Its `/status`, if it answers.
    pub async fn status(&self) -> Option<Value> {
        // Another test may have set it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("http://{}/status", self.admin);
        let asked = async { reqwest::get(url).await.ok()?.bytes().await.ok() };
        let body = tokio::time::timeout(STATUS_LIMIT, asked).await.ok()??;
        serde_json::from_slice(&body).ok()
    }
}
