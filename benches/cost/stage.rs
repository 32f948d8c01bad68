//! The broker and the sandbox, and one run of a side on them.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lapin::options::{
    ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use rename_worker::demo::broker::{BrokerProvisioner, DemoBroker};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::api::{Api, TOKEN, WORKER};
use crate::load::{self, Users};
use crate::side::{RATE, Side};
use crate::{CONCURRENCY, bare_loop, process};

/// How often the progress is looked at: seldom enough to cost nothing.
const POLL: Duration = Duration::from_millis(5);
/// A run takes some seconds; this long, and something is stuck.
const PATIENCE: Duration = Duration::from_mins(3);
/// For the last acks to leave and for a started process to come to rest.
const REST: Duration = Duration::from_millis(500);
/// What an API at some distance takes for a call.
const LATENCY: Duration = Duration::from_millis(30);

/// What hangs on the prefix.
const QUEUES: [&str; 11] = [
    "requests",
    "due",
    "undeliverable",
    "wait.5s",
    "wait.30s",
    "wait.2m",
    "wait.10m",
    "wait.1h",
    "dead-letters",
    "discarded",
    "review-lock",
];

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
    broker: DemoBroker,
    connection: Connection,
    channel: Channel,
    /// Where the events of this bench are counted.
    events: String,
    /// Answers at once.
    prompt: Api,
    /// Answers as one far away does.
    slow: Api,
    prefix: String,
    requests: usize,
    dir: TempDir,
}

impl Stage {
    /// Finds the broker and starts the sandbox with a user for each request.
    pub async fn set(requests: usize) -> Result<Self> {
        let broker = BrokerProvisioner::from_env()?.find().await?;
        let connection = Connection::connect(broker.url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let dir = tempfile::tempdir()?;
        let prompt = Api::start(&dir, requests, Duration::ZERO).await?;
        let slow = Api::start(&dir, requests, LATENCY).await?;
        let prefix = format!("bench-{}", Uuid::now_v7().simple());
        declare_topology(broker.url(), &prefix).await?;
        let events = load::bind_events(&channel, &prefix).await?;
        Ok(Self {
            broker,
            connection,
            channel,
            events,
            prompt,
            slow,
            prefix,
            requests,
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
        self.until_ready(&mut child, Side::Worker, admin).await?;
        let ready = began.elapsed();
        sleep(REST).await;
        let resident_mb = process::memory_mb(pid(&child)?, "VmRSS")?;
        child.kill().await?;
        Ok(Start { ready, resident_mb })
    }

    /// Lets one side work all requests off.
    pub async fn run(&mut self, side: Side) -> Result<Run> {
        self.empty().await?;
        let users = Users {
            count: self.requests,
            renamed: self.api(side).renamed,
            with_sick: side.has_sick(),
        };
        let admin = free_port()?;
        let (mut child, throughput) = if side.is_steady() {
            let mut child = self.spawn(side, admin)?;
            self.until_ready(&mut child, side, admin).await?;
            let began = Instant::now();
            load::publish_steadily(&self.channel, &self.prefix, users, RATE).await?;
            let throughput = self
                .until_done(&mut child, side, began, Some(began))
                .await?;
            (child, throughput)
        } else {
            load::publish(&self.channel, &self.prefix, users).await?;
            let began = Instant::now();
            let mut child = self.spawn(side, admin)?;
            let throughput = self.until_done(&mut child, side, began, None).await?;
            (child, throughput)
        };
        sleep(REST).await;
        let pid = pid(&child)?;
        let cpu = process::cpu_time(pid)?;
        let peak_mb = process::memory_mb(pid, "VmHWM")?;
        child.kill().await?;
        if side.is_steady() {
            self.slow.renamed += 1;
        } else {
            self.prompt.renamed += 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
        let cpu_micros = cpu.as_secs_f64() * 1e6 / self.requests as f64;
        Ok(Run {
            throughput,
            cpu_micros,
            peak_mb,
        })
    }

    /// Waits for the last rename; the renames a second since then, or else since the first one.
    async fn until_done(
        &self,
        child: &mut Child,
        side: Side,
        began: Instant,
        since: Option<Instant>,
    ) -> Result<f64> {
        let mut first = since.map(|at| (at, 0));
        loop {
            let done = self.count().await?;
            if first.is_none() && done > 0 {
                first = Some((Instant::now(), done));
            }
            if let Some((at, already)) = first
                && done >= self.requests
            {
                #[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
                return Ok((done - already) as f64 / at.elapsed().as_secs_f64());
            }
            self.check(child, side, began)?;
            sleep(POLL).await;
        }
    }

    async fn until_ready(&self, child: &mut Child, side: Side, admin: u16) -> Result<()> {
        let began = Instant::now();
        let client = plain_client()?;
        while !is_ready(&client, admin).await {
            self.check(child, side, began)?;
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn api(&self, side: Side) -> &Api {
        if side.is_steady() {
            &self.slow
        } else {
            &self.prompt
        }
    }

    /// Takes everything down.
    pub async fn strike(mut self) -> Result<()> {
        self.prompt.sandbox.kill().await?;
        self.slow.sandbox.kill().await?;
        for queue in QUEUES {
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
        let api = self.api(side);
        let mut command = if side == Side::BareLoop {
            bare_loop::command(self.broker.url(), &self.prefix, &api.base_url, TOKEN)?
        } else {
            self.worker(&api.base_url, side == Side::WithoutLog, admin)
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

    fn worker(&self, base_url: &str, without_log: bool, admin: u16) -> Command {
        let mut command = Command::new(WORKER);
        command
            .arg("run")
            .env("RENAME_WORKER_AMQP__URL", self.broker.url())
            .env("RENAME_WORKER_AMQP__PREFIX", &self.prefix)
            .env("RENAME_WORKER_API__BASE_URL", base_url)
            .env("RENAME_WORKER_API__TOKEN", TOKEN)
            .env("RENAME_WORKER_ADMIN__LISTEN", format!("127.0.0.1:{admin}"))
            .env(
                "RENAME_WORKER_CONSUMER__CONCURRENCY",
                CONCURRENCY.to_string(),
            );
        if without_log {
            command.env("RENAME_WORKER_LOG__LEVEL", "off");
        }
        command
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
        let of_prefix = QUEUES.map(|queue| format!("{}.{queue}", self.prefix));
        for queue in of_prefix.iter().chain([&self.events]) {
            self.channel
                .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
                .await?;
        }
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
