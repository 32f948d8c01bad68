//! The stand-in for the API.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::load::{self, ACCOUNT};

pub const WORKER: &str = env!("CARGO_BIN_EXE_rename-worker");
pub const TOKEN: &str = "bench-token";

/// A sandbox with a user for each request.
pub struct Api {
    pub sandbox: Child,
    pub base_url: String,
    /// How often each user was renamed: the names carry it.
    pub renamed: usize,
}

impl Api {
    pub async fn start(dir: &TempDir, users: usize, latency: Duration) -> Result<Self> {
        let file = dir.path().join("users.jsonl");
        let mut lines = std::io::BufWriter::new(std::fs::File::create(&file)?);
        for user in 0..users {
            let line = json!({ "account_id": ACCOUNT, "username": load::name(user, 0) });
            writeln!(lines, "{line}")?;
        }
        lines.into_inner()?.sync_all()?;
        let mut sandbox = Command::new(WORKER)
            .args(["sandbox", "--json", "--listen", "127.0.0.1:0"])
            .args(["--token", TOKEN])
            .args(["--fault", &format!("503,prefix={}", load::SICK)])
            .args(["--latency", &format!("{}ms", latency.as_millis())])
            .arg("--users")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = sandbox.stdout.take().context("the sandbox says nothing")?;
        let ready = BufReader::new(stdout).lines().next_line().await?;
        let ready: Value = serde_json::from_str(&ready.context("the sandbox did not start")?)?;
        let base_url = ready["base_url"]
            .as_str()
            .context("where is the sandbox?")?;
        Ok(Self {
            base_url: base_url.to_owned(),
            sandbox,
            renamed: 0,
        })
    }
}
