//! The broker, the sandbox and the requests, and one run of either side on them.

use std::fmt;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rename_worker::demo::broker::{Broker, Finder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{CONCURRENCY, bare_loop, process};

const WORKER: &str = env!("CARGO_BIN_EXE_rename-worker");
const ACCOUNT: &str = "T12345678";
const TOKEN: &str = "bench-token";

/// How often the progress is looked at: seldom enough to cost nothing.
const POLL: Duration = Duration::from_millis(5);
/// A run takes some seconds; this long, and something is stuck.
const PATIENCE: Duration = Duration::from_mins(3);
/// For the last acks to leave and for a started process to come to rest.
const REST: Duration = Duration::from_millis(500);
/// Requests published and not yet confirmed.
const UNCONFIRMED: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    BareLoop,
    Worker,
}

/// One side's way through all requests.
pub struct Run {
    /// Messages a second.
    pub throughput: f64,
    /// A message's, its share of the start included.
    pub cpu_micros: f64,
    pub peak_mb: f64,
}

/// One start of the worker with nothing to do.
pub struct Start {
    pub ready: Duration,
    pub resident_mb: f64,
}

pub struct Stage {
    broker: Broker,
    connection: Connection,
    channel: Channel,
    /// Where the events of this bench are counted.
    events: String,
    sandbox: Child,
    base_url: String,
    prefix: String,
    requests: usize,
    /// How often each user was renamed: the names carry it.
    renamed: usize,
    dir: TempDir,
}

impl Stage {
    /// Finds the broker and starts the sandbox with a user for each request.
    pub async fn set(requests: usize) -> Result<Self> {
        let broker = Finder::from_env()?.find().await?;
        let connection = Connection::connect(broker.url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let dir = tempfile::tempdir()?;
        let (sandbox, base_url) = start_sandbox(&dir, requests).await?;
        let prefix = format!("bench-{}", Uuid::now_v7().simple());
        declare_topology(broker.url(), &prefix).await?;
        let events = bind_events(&channel, &prefix).await?;
        Ok(Self {
            broker,
            connection,
            channel,
            events,
            sandbox,
            base_url,
            prefix,
            requests,
            renamed: 0,
            dir,
        })
    }

    pub fn broker(&self) -> String {
        let version = self.broker.version().unwrap_or("of unknown version");
        format!("RabbitMQ {version} ({})", self.broker.how_found())
    }

    /// Starts the worker on an empty queue and lets it rest.
    pub async fn start_idle(&self) -> Result<Start> {
        let admin = free_port()?;
        let began = Instant::now();
        let mut child = self.spawn(Side::Worker, admin)?;
        let client = plain_client()?;
        while !is_ready(&client, admin).await {
            self.check(&mut child, Side::Worker, began)?;
            sleep(Duration::from_millis(1)).await;
        }
        let ready = began.elapsed();
        sleep(REST).await;
        let resident_mb = process::memory_mb(pid(&child)?, "VmRSS")?;
        child.kill().await?;
        Ok(Start { ready, resident_mb })
    }

    /// Publishes all requests, then lets one side work them off.
    pub async fn run(&mut self, side: Side) -> Result<Run> {
        self.empty().await?;
        self.publish().await?;
        let began = Instant::now();
        let mut child = self.spawn(side, free_port()?)?;
        let mut first = None;
        let throughput = loop {
            let done = self.count().await?;
            let (at, already) = *first.get_or_insert((Instant::now(), done));
            if already == 0 && done > 0 {
                first = Some((Instant::now(), done));
            }
            if done >= self.requests {
                #[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
                break (done - already) as f64 / at.elapsed().as_secs_f64();
            }
            self.check(&mut child, side, began)?;
            sleep(POLL).await;
        };
        sleep(REST).await;
        let pid = pid(&child)?;
        let cpu = process::cpu_time(pid)?;
        let peak_mb = process::memory_mb(pid, "VmHWM")?;
        child.kill().await?;
        self.renamed += 1;
        #[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
        let cpu_micros = cpu.as_secs_f64() * 1e6 / self.requests as f64;
        Ok(Run {
            throughput,
            cpu_micros,
            peak_mb,
        })
    }

    /// Takes everything down.
    pub async fn strike(mut self) -> Result<()> {
        self.sandbox.kill().await?;
        let retry = ["5s", "30s", "2m", "10m", "1h"].map(|step| format!("retry.{step}"));
        let others = ["requests", "dead-letters"].map(str::to_owned);
        for queue in retry.iter().chain(&others) {
            let name = format!("{}.{queue}", self.prefix);
            self.channel
                .queue_delete(name.into(), QueueDeleteOptions::default())
                .await?;
        }
        for exchange in ["requests", "events", "dead-letters"] {
            let name = format!("{}.{exchange}", self.prefix);
            self.channel
                .exchange_delete(name.into(), ExchangeDeleteOptions::default())
                .await?;
        }
        self.connection.close(200, "done".into()).await?;
        self.broker.stop().await;
        Ok(())
    }

    fn spawn(&self, side: Side, admin: u16) -> Result<Child> {
        let log = std::fs::File::create(self.log(side))?;
        let mut command = match side {
            Side::BareLoop => {
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .arg(bare_loop::ARGUMENT)
                    .env(bare_loop::AMQP_URL, self.broker.url())
                    .env(bare_loop::PREFIX, &self.prefix)
                    .env(bare_loop::BASE_URL, &self.base_url)
                    .env(bare_loop::TOKEN, TOKEN);
                command
            }
            Side::Worker => {
                let mut command = Command::new(WORKER);
                command
                    .arg("run")
                    .env("RENAME_WORKER_AMQP__URL", self.broker.url())
                    .env("RENAME_WORKER_AMQP__PREFIX", &self.prefix)
                    .env("RENAME_WORKER_API__BASE_URL", &self.base_url)
                    .env("RENAME_WORKER_API__TOKEN", TOKEN)
                    .env("RENAME_WORKER_ADMIN__LISTEN", format!("127.0.0.1:{admin}"))
                    .env(
                        "RENAME_WORKER_CONSUMER__CONCURRENCY",
                        CONCURRENCY.to_string(),
                    );
                command
            }
        };
        let child = command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            // Logs go where they cost what they cost: to a file, as under a container runtime.
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(child)
    }

    fn log(&self, side: Side) -> std::path::PathBuf {
        self.dir.path().join(format!("{side}.log"))
    }

    fn check(&self, child: &mut Child, side: Side, began: Instant) -> Result<()> {
        let ended = child.try_wait()?;
        if ended.is_none() && began.elapsed() < PATIENCE {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.log(side)).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(10).collect();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        match ended {
            Some(status) => bail!("the {side} ended by itself ({status}); its last words:\n{tail}"),
            None => bail!("the {side} is stuck; its last words:\n{tail}"),
        }
    }

    /// Leaves nothing of the run before, and counts from nought.
    async fn empty(&self) -> Result<()> {
        let requests = format!("{}.requests", self.prefix);
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        // The killed consumer's last requests come back when the broker has noticed.
        while self
            .channel
            .queue_declare(requests.as_str().into(), passive, FieldTable::default())
            .await?
            .consumer_count()
            > 0
        {
            sleep(POLL).await;
        }
        self.channel
            .queue_purge(requests.as_str().into(), QueuePurgeOptions::default())
            .await?;
        self.channel
            .queue_purge(self.events.as_str().into(), QueuePurgeOptions::default())
            .await?;
        Ok(())
    }

    async fn count(&self) -> Result<usize> {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare(self.events.as_str().into(), passive, FieldTable::default())
            .await?;
        Ok(queue.message_count() as usize)
    }

    async fn publish(&self) -> Result<()> {
        let mut confirming = FuturesUnordered::new();
        for user in 0..self.requests {
            if confirming.len() >= UNCONFIRMED {
                confirmed(confirming.next().await)?;
            }
            let body = json!({
                "request_id": Uuid::now_v7(),
                "account_id": ACCOUNT,
                "username": name(user, self.renamed),
                "new_username": name(user, self.renamed + 1),
                "requested_at": rename_worker::clock::now(),
                "requested_by": "bench",
            });
            let properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_delivery_mode(2);
            let confirm = self
                .channel
                .basic_publish(
                    format!("{}.requests", self.prefix).into(),
                    format!("rename.{ACCOUNT}").into(),
                    BasicPublishOptions::default(),
                    body.to_string().as_bytes(),
                    properties,
                )
                .await?;
            confirming.push(confirm);
        }
        while let Some(confirmation) = confirming.next().await {
            confirmed(Some(confirmation))?;
        }
        Ok(())
    }
}

async fn declare_topology(amqp_url: &str, prefix: &str) -> Result<()> {
    let declared = Command::new(WORKER)
        .args(["topology", "declare"])
        .env("RENAME_WORKER_AMQP__URL", amqp_url)
        .env("RENAME_WORKER_AMQP__PREFIX", prefix)
        .output()
        .await?;
    let told = String::from_utf8_lossy(&declared.stderr);
    ensure!(declared.status.success(), "no topology: {told}");
    Ok(())
}

async fn bind_events(channel: &Channel, prefix: &str) -> Result<String> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), exclusive, FieldTable::default())
        .await?;
    channel
        .queue_bind(
            queue.name().clone(),
            format!("{prefix}.events").into(),
            // Only these: a failed event would be a wrong run, which then never ends.
            "user.renamed".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(queue.name().to_string())
}

fn confirmed(confirmation: Option<lapin::Result<lapin::Confirmation>>) -> Result<()> {
    let confirmation = confirmation.context("nothing to confirm")??;
    ensure!(confirmation.is_ack(), "the broker refused a request");
    Ok(())
}

/// A user's name after so many renames: as long as many an address.
fn name(user: usize, renamed: usize) -> String {
    format!("user-{user:06}.{renamed:02}@example.com")
}

async fn start_sandbox(dir: &TempDir, users: usize) -> Result<(Child, String)> {
    let file = dir.path().join("users.jsonl");
    let mut lines = std::io::BufWriter::new(std::fs::File::create(&file)?);
    for user in 0..users {
        let line = json!({ "account_id": ACCOUNT, "username": name(user, 0) });
        writeln!(lines, "{line}")?;
    }
    lines.into_inner()?.sync_all()?;
    let mut sandbox = Command::new(WORKER)
        .args([
            "sandbox",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--token",
            TOKEN,
            "--users",
        ])
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
    Ok((sandbox, base_url.to_owned()))
}

async fn is_ready(client: &reqwest::Client, admin: u16) -> bool {
    let answer = client
        .get(format!("http://127.0.0.1:{admin}/readyz"))
        .send()
        .await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

fn plain_client() -> Result<reqwest::Client> {
    // reqwest asks for a TLS provider even where there is no TLS.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// Free a moment ago, at least.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn pid(child: &Child) -> Result<u32> {
    child.id().context("the process has ended")
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BareLoop => "bare loop",
            Self::Worker => "rename-worker",
        })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            throughput,
            cpu_micros,
            peak_mb,
        } = self;
        write!(
            f,
            "{throughput:.0} messages/s, {cpu_micros:.1} µs CPU each, {peak_mb:.1} MB at most"
        )
    }
}
