//! Whatever hangs on the admin port of the real process, requests are renamed and probes answered.

use std::process::Stdio;
use std::time::Duration;

use rename_worker::demo::broker::docker::free_ports;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::stage::{PATIENCE, Stage};

/// Files that the process may have open: enough for its work with few calls in flight, too few for
/// that and as many admin connections as come.
const DESCRIPTORS: &str = "128";

/// Connections of each kind that hang on the port: four times as many as the process may have files open.
const FLOOD: usize = 500;

/// Requests to rename while they hang there.
const REQUESTS: usize = 20;

/// What may be resident in the end, in KiB: a worker at rest takes some 25 MiB in a release build.
const RESIDENT_MAX: u64 = 128 * 1024;

struct Worker {
    process: Child,
    admin: String,
}

impl Worker {
    /// With few descriptors, which it cannot raise.
    fn start(stage: &Stage) -> Self {
        let [port] = free_ports().expect("a port is free");
        let admin = format!("127.0.0.1:{port}");
        let worker = stage.process();
        let mut limited = Command::new("sh");
        limited.args([
            "-c",
            &format!("ulimit -n {DESCRIPTORS} && exec \"$0\" run"),
            env!("CARGO_BIN_EXE_rename-worker"),
        ]);
        for (name, value) in worker.as_std().get_envs() {
            limited.env(name, value.expect("it is set"));
        }
        let process = limited
            .env("RENAME_WORKER_ADMIN__LISTEN", &admin)
            .env("RENAME_WORKER_CONSUMER__CONCURRENCY", "8")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("sh can be run");
        Self { process, admin }
    }

    /// The status line of an answer; none where the connection is closed without one.
    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.lines().next()?.to_owned())
    }

    /// Waits until `/readyz` says yes.
    async fn ready(&self) {
        let ready = async {
            while self.get("/readyz").await.as_deref() != Some("HTTP/1.1 200 OK") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("ready");
    }

    fn resident_kib(&self) -> u64 {
        let id = self.process.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.expect("its most memory").parse().expect("a number")
    }
}

#[tokio::test]
async fn requests_are_renamed_and_probes_answered_beside_a_flood_on_the_admin_port() {
    let stage = Stage::set(|_| {}).await;
    let worker = Worker::start(&stage);
    worker.ready().await;
    let unfinished = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}", "a".repeat(8_000));
    let many_headers = format!(
        "GET /livez HTTP/1.1\r\nhost: x\r\n{}",
        format!("x: {}\r\n", "a".repeat(7_000)).repeat(50)
    );
    let unread = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20);
    let mut hanging = Vec::new();
    for (round, sent) in ["", "G", &unfinished, &many_headers, &unread]
        .into_iter()
        .enumerate()
    {
        for _ in 0..FLOOD {
            // It may be closed to make room for the next before all is sent.
            if let Ok(mut stream) = TcpStream::connect(&worker.admin).await {
                let _ = stream.write_all(sent.as_bytes()).await;
                hanging.push(stream);
            }
        }
        for request in 0..REQUESTS {
            let (from, to) = (format!("a{round}-{request}"), format!("b{round}-{request}"));
            stage.user(&from);
            stage.rename(&from, &to, None).await;
        }
        for event in stage.events(REQUESTS).await {
            assert_eq!(event["type"], "user.renamed", "{sent:.20}: {event}");
        }
        for path in ["/livez", "/readyz", "/metrics", "/status"] {
            let said = worker.get(path).await;
            assert_eq!(
                said.as_deref(),
                Some("HTTP/1.1 200 OK"),
                "{path} beside {sent:.20}"
            );
        }
        // Those that were closed on the other side are let go of, or this process runs out.
        if round % 2 == 1 {
            hanging.clear();
        }
    }
    let resident = worker.resident_kib();
    assert!(resident < RESIDENT_MAX, "{resident} KiB");
    drop(worker);
    let next = stage.worker().await;
    stage.strike(next).await;
}
