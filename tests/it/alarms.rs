//! Commands that publish, where the broker takes no messages: they say why they wait, and end as soon
//! as they are asked to.

use std::process::{Output, Stdio};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use rename_worker::broker::declare_topology;
use rename_worker::broker::topology::model::QueueNames;
use rename_worker::broker::topology::model::TopologySettings;
use rename_worker::config::{AmqpSection, Secret, Settings};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::support::amqp::Raw;
use super::support::proxy::Proxy;
use super::support::stage::{ACCOUNT, PATIENCE};
use super::support::{broker, own_broker_or_skip, unique_prefix};

/// How soon a command that is asked to end has to have ended, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(8);
const ALARM: &str = "the broker has raised a memory alarm and accepts no messages";
const PUBLISH: [&str; 7] = [
    "publish",
    "--account",
    ACCOUNT,
    "--username",
    "a",
    "--new-username",
    "b",
];

struct Scene {
    amqp: AmqpSection,
    url: String,
}

impl Scene {
    /// A topology of its own, with dead letters in it.
    async fn at(url: &str, letters: usize) -> Self {
        let amqp = AmqpSection {
            url: Secret::inline(url),
            prefix: unique_prefix(),
            ..Settings::default().amqp
        };
        declare_topology(&amqp, &TopologySettings::with_delays(&[]))
            .await
            .unwrap();
        let raw = Raw::connect(url).await;
        let mut headers = FieldTable::default();
        let reason = AMQPValue::LongString("username_taken".into());
        headers.insert("x-rename-reason".into(), reason);
        let properties = BasicProperties::default().with_headers(headers);
        for _ in 0..letters {
            let body = json!({
                "request_id": Uuid::new_v4(), "account_id": ACCOUNT,
                "username": "a", "new_username": "b",
            });
            let body = body.to_string();
            let to = QueueNames::new(&amqp.prefix).dead_letters;
            raw.publish(&to, "any", body.as_bytes(), properties.clone())
                .await;
        }
        let url = url.to_owned();
        Self { amqp, url }
    }

    fn start(&self, args: &[&str]) -> Running {
        let child = Command::new(env!("CARGO_BIN_EXE_rename-worker"))
            .args(args)
            .env_clear()
            .env("RENAME_WORKER_AMQP__URL", &self.url)
            .env("RENAME_WORKER_AMQP__PREFIX", &self.amqp.prefix)
            .env("USER", "kari")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        Running { child }
    }

    async fn letters(&self) -> u32 {
        let raw = Raw::connect(&self.url).await;
        let queue = QueueNames::new(&self.amqp.prefix).dead_letters;
        raw.queue_length(&queue).await
    }
}

struct Running {
    child: Child,
}

impl Running {
    /// Waits until it says that on standard error.
    async fn says(&mut self, what: &str) {
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        let mut lines = BufReader::new(stderr).lines();
        let hearing = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(what) {
                    return true;
                }
            }
            false
        };
        let heard = timeout(PATIENCE, hearing).await;
        assert!(heard.unwrap_or(false), "it does not say: {what}");
    }

    /// Sends the signal; what it then says, and that it ends at once.
    async fn ended_by(mut self, signal: &str) -> Output {
        let process = self.child.id().expect("it runs").to_string();
        let begun = Instant::now();
        let kill = Command::new("kill").args([signal, &process]).status();
        assert!(kill.await.unwrap().success());
        let output = self.ended().await;
        let took = begun.elapsed();
        assert!(took < AT_ONCE, "it took {took:?}: {output:?}");
        output
    }

    async fn ended(&mut self) -> Output {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (
            self.child.stdout.as_mut().unwrap(),
            self.child.stderr.as_mut().unwrap(),
        );
        let reading = async {
            let (one, other) =
                tokio::join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr));
            one.and(other).unwrap();
        };
        timeout(PATIENCE, reading).await.expect("it ends");
        let status = self.child.wait().await.unwrap();
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn in_an_alarm_commands_say_why_they_wait_and_end_when_asked() {
    let Some(broker) = own_broker_or_skip("commands in a memory alarm").await else {
        return;
    };
    let scene = Scene::at(broker.url(), 3).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters");
    let file = file.to_str().unwrap();
    let export = scene.start(&["dead-letters", "export", file]).ended().await;
    assert!(export.status.success(), "{export:?}");
    // One more in the file, so that there is something to import.
    let line = std::fs::read_to_string(file).unwrap();
    let line = line.lines().next().unwrap().replace(r#"\"a\""#, r#"\"c\""#);
    let mut lines = std::fs::read(file).unwrap();
    lines.extend(format!("{line}\n").bytes());
    std::fs::write(file, lines).unwrap();

    let limit = |share: &'static str| ["set_vm_memory_high_watermark", share];
    broker.ctl(&limit("0.00001")).await.unwrap();
    let publish = [&PUBLISH[..], &["--json"]].concat();
    let replay = ["dead-letters", "replay", "--all", "--yes", "--json"];
    let import = ["dead-letters", "import", file, "--json"];
    for (args, signal) in [
        (&publish[..], "-INT"),
        (&publish, "-TERM"),
        (&replay, "-INT"),
        (&replay, "-HUP"),
        (&import, "-INT"),
    ] {
        let mut running = scene.start(args);
        running
            .says(&format!("{ALARM}; waiting, Ctrl-C to stop"))
            .await;
        let output = running.ended_by(signal).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let error = told["error"].as_str().unwrap();
        assert!(
            error.contains("interrupted") && error.contains(ALARM),
            "{error}"
        );
        assert!(told["unconfirmed"].as_u64().unwrap() > 0, "{told}");
        assert!(text(&output.stderr).contains("interrupted"), "{output:?}");
    }
    // What needs nothing published goes on.
    for args in [
        &["dead-letters", "list"][..],
        &["dead-letters", "show", "--json", &letter_of(file)],
        &["topology", "declare"],
    ] {
        let output = scene.start(args).ended().await;
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    assert_eq!(scene.letters().await, 3, "no letter was taken");

    // And when the alarm is over, what waited is done.
    let mut publish = scene.start(&PUBLISH);
    let mut replay = scene.start(&replay);
    publish.says(ALARM).await;
    replay.says(ALARM).await;
    broker.ctl(&limit("0.6")).await.unwrap();
    let published = publish.ended().await;
    assert!(published.status.success(), "{published:?}");
    let replayed = replay.ended().await;
    assert!(replayed.status.success(), "{replayed:?}");
    let told: Value = serde_json::from_slice(&replayed.stdout).expect("it is JSON");
    assert_eq!(told["done"], 3, "{told}");
    // What the import sent without a confirm may have come after all.
    assert!(scene.letters().await <= 1);
}

/// The id of the first letter in an export.
fn letter_of(file: &str) -> String {
    let line = std::fs::read_to_string(file).unwrap();
    let line: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    line["letter"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn where_confirms_stop_coming_that_is_said_and_the_end_is_at_once() {
    let url = broker().await;
    let (_, address) = url.split_once('@').expect("with user and password");
    let (address, _) = address.split_once('/').expect("with a virtual host");
    let proxy = Proxy::to(address).await;
    let mut scene = Scene::at(url, 400).await;
    scene.url = url.replace(address, &proxy.address.to_string());
    let replay = [
        "dead-letters",
        "replay",
        "--all",
        "--yes",
        "--json",
        "--rate",
        "100",
    ];
    let mut running = scene.start(&replay);
    let raw = Raw::connect(url).await;
    let due = QueueNames::new(&scene.amqp.prefix).due;
    let begun = Instant::now();
    while raw.queue_length(&due).await < 5 {
        assert!(begun.elapsed() < PATIENCE, "nothing is replayed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.stall();
    running
        .says("the broker has confirmed no message for 10 s; waiting")
        .await;
    let output = running.ended_by("-INT").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let (done, left) = (
        told["done"].as_u64().unwrap(),
        told["left"].as_u64().unwrap(),
    );
    assert_eq!(done + left, 400, "{told}");
    assert!(told["unconfirmed"].as_u64().unwrap() > 0, "{told}");
    let names = QueueNames::new(&scene.amqp.prefix);
    raw.remove_topology(&names, &[]).await;
}
