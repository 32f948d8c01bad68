//! What the real process writes to standard error: whoever does not read it stops nothing, what was
//! logged last is written before the process ends, and a fault that lasts does not fill the log.

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::options::QueuePurgeOptions;
use rename_worker::core::model::request::AccountId;
use rename_worker::demo::broker::docker::free_ports;
use rename_worker::sandbox::{ApiFault, NewUser};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::support::process::terminate;
use crate::support::stage::{PATIENCE, Stage};

/// Requests that each have a line in the log: more than the pipe (64 KiB) and the lines that may
/// wait (4,096) hold together.
const LINES: usize = 4_800;

/// Published at a time.
const BATCH: usize = 200;

/// Tries to connect until the broker is there.
const TRIES: usize = 8;

async fn get(admin: &str, path: &str) -> Option<String> {
    // Another test may have set it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::get(format!("http://{admin}{path}")).await.ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}

/// The value of a series without labels.
async fn metric(admin: &str, name: &str) -> Option<u64> {
    let page = get(admin, "/metrics").await?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")))?;
    line.parse().ok()
}

/// Asks again and again until there is an answer.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("in vain: {what}"))
}

fn start(mut command: Command) -> (Child, String) {
    let [port] = free_ports().expect("a port is free");
    let admin = format!("127.0.0.1:{port}");
    let child = command
        .env("RENAME_WORKER_ADMIN__LISTEN", &admin)
        .env("RENAME_WORKER_LOG__FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the worker starts");
    (child, admin)
}

/// The lines of standard error, until the process ends.
async fn lines(child: &mut Child) -> Vec<serde_json::Value> {
    let mut text = String::new();
    let stderr = child.stderr.as_mut().expect("it is piped");
    let read = tokio::time::timeout(PATIENCE, stderr.read_to_string(&mut text)).await;
    read.expect("it ends").expect("it is text");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

fn messages<'a>(lines: &'a [serde_json::Value], level: &str) -> Vec<&'a str> {
    lines
        .iter()
        .filter(|line| line["level"] == level)
        .filter_map(|line| line["message"].as_str())
        .collect()
}

#[tokio::test]
async fn a_reader_of_the_log_that_stalls_stops_neither_work_nor_probes_and_what_is_lost_is_counted()
{
    let stage = Stage::set(|_| {}).await;
    let (mut worker, admin) = start(stage.process());
    for _ in 0..LINES / BATCH {
        let invalid = (0..BATCH).map(|_| stage.publish(b"{}", BasicProperties::default()));
        join_all(invalid).await;
    }
    let dropped = eventually("lines are dropped", async || {
        let dropped = metric(&admin, "rename_worker_log_lines_dropped_total").await?;
        (dropped > 0).then_some(dropped)
    })
    .await;
    assert!(dropped < LINES as u64, "{dropped}");
    eventually("every request ends", async || {
        let status: serde_json::Value =
            serde_json::from_str(&get(&admin, "/status").await?).ok()?;
        (status["counts"]["failed"] == LINES && status["in_hand"] == 0).then_some(())
    })
    .await;
    let purge = QueuePurgeOptions::default();
    for queue in [&*stage.names.dead_letters, &stage.events] {
        let purged = stage.raw.channel().queue_purge(queue.into(), purge).await;
        purged.expect("the queue is there");
    }
    stage.user("old");
    stage.rename("old", "new", None).await;
    assert_eq!(stage.event().await["type"], "user.renamed");
    assert!(get(&admin, "/livez").await.is_some(), "it is alive");
    assert!(get(&admin, "/readyz").await.is_some(), "it is ready");

    // Nobody reads still.
    let status = terminate(&mut worker).await;
    assert!(status.success(), "{status}");
    let next = stage.worker().await;
    stage.strike(next).await;
}

#[tokio::test]
async fn what_is_logged_last_is_written_before_the_process_ends() {
    let stage = Stage::set(|_| {}).await;
    let (mut worker, admin) = start(stage.process());
    eventually("it is ready", async || get(&admin, "/readyz").await).await;
    let taken = {
        let mut second = stage.process();
        second
            .env("RENAME_WORKER_ADMIN__LISTEN", &admin)
            .env("RENAME_WORKER_LOG__FORMAT", "json")
            .stderr(Stdio::piped());
        second.spawn().expect("the worker starts")
    };
    let mut taken = taken;
    let said = lines(&mut taken).await;
    assert_eq!(taken.wait().await.unwrap().code(), Some(2));
    assert_eq!(messages(&said, "ERROR"), ["cannot start"]);

    assert!(terminate(&mut worker).await.success());
    let said = lines(&mut worker).await;
    assert_eq!(messages(&said, "INFO").last(), Some(&"stopped"));
    let next = stage.worker().await;
    stage.strike(next).await;
}

#[tokio::test]
async fn a_broker_that_is_away_has_one_line_when_it_is_lost_and_one_when_it_is_back() {
    let stage = Stage::set(|_| {}).await;
    let url = stage.settings.amqp.url.read().expect("the URL is given");
    let url = url::Url::parse(url.expose_secret()).expect("it is a URL");
    let broker = format!(
        "{}:{}",
        url.host_str().expect("a host"),
        url.port().unwrap_or(5672)
    );
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let mut away = url.clone();
    let at = listener.local_addr().expect("it is bound");
    away.set_host(Some("127.0.0.1")).expect("it has a host");
    away.set_port(Some(at.port())).expect("it has a port");
    let mut command = stage.process();
    command.env("RENAME_WORKER_AMQP__URL", away.as_str());
    let (mut worker, admin) = start(command);
    for _ in 0..TRIES {
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        drop(accepted.expect("another try"));
    }
    // Now it is there.
    let relay = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut broker = TcpStream::connect(&broker).await.expect("the broker");
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut broker).await;
            });
        }
    });
    eventually("it is back", async || get(&admin, "/readyz").await).await;
    assert!(terminate(&mut worker).await.success());
    relay.abort();
    let said = lines(&mut worker).await;
    assert_eq!(messages(&said, "ERROR"), ["cannot work with the broker"]);
    let back = said
        .iter()
        .filter(|line| line["message"] == "connected to the broker again")
        .collect::<Vec<_>>();
    assert_eq!(back.len(), 1, "{said:#?}");
    assert!(back[0]["away_for"].is_string(), "{}", back[0]);
    // One a minute at most: this took less than two.
    let warned = said.iter().filter(|line| {
        line["level"] == "WARN"
            && line["message"]
                .as_str()
                .is_some_and(|m| m.contains("broker"))
    });
    assert!(warned.count() <= 1, "{said:#?}");
    let next = stage.worker().await;
    stage.strike(next).await;
}

/// What `rename-worker status` prints for a person.
async fn status_text(admin: &str) -> String {
    let asked = Command::new(env!("CARGO_BIN_EXE_rename-worker"))
        .args(["status", "--admin", admin])
        .output();
    let output = asked.await.expect("the binary runs");
    String::from_utf8(output.stdout).expect("it is text")
}

#[tokio::test]
async fn the_hold_of_an_account_has_a_line_when_it_begins_and_one_when_it_ends() {
    const REFUSED: &str = "T40100000";
    let stage = Stage::set(|_| {}).await;
    let (mut worker, admin) = start(stage.process());
    // The credentials work, so what is refused after that is one account only.
    stage.user("old");
    stage.rename("old", "new", None).await;
    assert_eq!(stage.event().await["type"], "user.renamed");
    let refused = AccountId::parse(REFUSED).expect("an account");
    let fault = ApiFault::status(401).account(refused.clone());
    stage.sandbox.set_faults([fault]).await;
    stage.sandbox.seed([NewUser {
        account_id: refused,
        username: "old".into(),
        id: None,
    }]);
    let request = json!({
        "request_id": Uuid::new_v4(), "account_id": REFUSED,
        "username": "old", "new_username": "new",
    });
    let request = request.to_string();
    stage
        .publish(request.as_bytes(), BasicProperties::default())
        .await;
    let shown = eventually("the account is held", async || {
        let text = status_text(&admin).await;
        text.contains(REFUSED).then_some(text)
    })
    .await;
    assert!(shown.contains("now        consuming\n"), "{shown}");
    let row = shown.lines().last().expect("a row");
    assert!(row.starts_with("held       T40100000 since "), "{row}");
    assert!(row.contains("(credentials; "), "{row}");
    assert!(row.ends_with("last answer: status 401)"), "{row}");

    stage.sandbox.set_faults([]).await;
    let event = stage.event().await;
    assert_eq!(event["type"], "user.renamed", "{event}");
    assert_eq!(event["data"]["attempts"], 1, "{event}");
    let shown = status_text(&admin).await;
    assert!(!shown.contains(REFUSED), "{shown}");
    assert!(terminate(&mut worker).await.success());
    let said = lines(&mut worker).await;
    let of_account: Vec<_> = said
        .iter()
        .filter(|line| line["account"] == REFUSED && line["cause"] == "credentials")
        .map(|line| ["level", "message", "answer"].map(|field| line[field].as_str()))
        .collect();
    let began = "holding one account: the API refuses its credentials; its requests wait until a probe succeeds";
    let ended = "the account is answered again; its requests go on";
    let wanted = [["WARN", began, "status 401"], ["INFO", ended, "status 200"]];
    assert_eq!(of_account, wanted.map(|line| line.map(Some)), "{said:#?}");
    let next = stage.worker().await;
    stage.strike(next).await;
}

#[tokio::test]
async fn hashed_names_match_between_processes_that_share_a_key_and_the_key_is_never_shown() {
    const KEY: &str = "a key that nobody knows";
    let stage = Stage::set(|_| {}).await;
    let mut hashes = Vec::new();
    for (number, key) in [Some(KEY), Some(KEY), None, None].into_iter().enumerate() {
        let mut command = stage.process();
        command.env("RENAME_WORKER_LOG__USERNAMES", "hashed");
        if let Some(key) = key {
            command.env("RENAME_WORKER_LOG__HASH_KEY", key);
        }
        let (mut worker, _) = start(command);
        stage.user("ola@example.com");
        stage
            .rename(
                "ola@example.com",
                &format!("kari{number}@example.com"),
                None,
            )
            .await;
        assert_eq!(stage.event().await["type"], "user.renamed");
        assert!(terminate(&mut worker).await.success());
        let said = lines(&mut worker).await;
        let renamed = said.iter().find(|line| line["message"] == "renamed");
        let renamed = renamed.unwrap_or_else(|| panic!("{said:#?}"));
        hashes.push(renamed["username"].as_str().expect("a hash").to_owned());
        let text = serde_json::to_string(&said).unwrap();
        assert!(
            !text.contains("example.com") && !text.contains(KEY),
            "{text}"
        );
        let noted = messages(&said, "WARN");
        let noted = noted
            .iter()
            .filter(|note| note.starts_with("log.usernames: "));
        assert_eq!(noted.count(), usize::from(key.is_none()), "{said:#?}");
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
    assert_ne!(hashes[2], hashes[3]);
    let next = stage.worker().await;
    stage.strike(next).await;
}
