//! The rights of each role, as docs/operations.md has them: enough for all that the role does, and
//! with any one of them missing, an error that names it. On a broker of its own, with real users.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use rename_worker::broker::topology::model::QueueNames;
use rename_worker::core::model::request::AccountId;
use rename_worker::demo::broker::DemoBroker;
use rename_worker::sandbox::{
    ApiFault, CLIENT_ID, CLIENT_SECRET, CallFilter, NewUser, Sandbox, SandboxOptions,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use super::support::amqp::{Message, Raw};
use super::support::process::terminate;
use super::support::stage::{ACCOUNT, PATIENCE};
use super::support::{own_broker_or_skip, unique_prefix};

const DOCUMENT: &str = include_str!("../../docs/operations.md");
const PASSWORD: &str = "hush";
const VERBS: [&str; 3] = ["configure", "write", "read"];
/// The one step of the ladder here.
const WAIT: &str = "wait.300ms";

/// The patterns of each role, in the order of `VERBS`, with `prefix` in place of `rename`.
fn documented(prefix: &str) -> BTreeMap<String, [String; 3]> {
    let lines = DOCUMENT.lines();
    let commands = lines.filter_map(|line| line.strip_prefix("rabbitmqctl set_permissions -p / "));
    let read = |command: &str| {
        let (role, patterns) = command.split_once(' ').expect("a role");
        let patterns: Vec<String> = patterns
            .split('\'')
            .skip(1)
            .step_by(2)
            .map(|pattern| {
                let pattern = pattern.replace(r"rename\.", &format!(r"{prefix}\."));
                pattern.replace(r"billing\.renames", &format!(r"{prefix}-billing\.renames"))
            })
            .collect();
        (
            role.to_owned(),
            patterns.try_into().expect("three patterns"),
        )
    };
    commands.map(read).collect()
}

#[test]
fn the_document_has_the_patterns_of_every_role() {
    let roles: Vec<String> = documented("p").into_keys().collect();
    let wanted = [
        "checker",
        "declarer",
        "plain-worker",
        "reviewer",
        "subscriber",
        "upstream",
        "worker",
    ];
    assert_eq!(roles, wanted);
}

/// A broker with a user for each role.
struct Site {
    broker: DemoBroker,
    prefix: String,
    names: QueueNames,
    roles: BTreeMap<String, [String; 3]>,
    raw: Raw,
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Site {
    async fn open(what: &str) -> Option<Self> {
        let broker = own_broker_or_skip(what).await?;
        let prefix = unique_prefix();
        let roles = documented(&prefix);
        let raw = Raw::connect(broker.url()).await;
        let site = Self {
            names: QueueNames::new(&prefix),
            sandbox: Sandbox::start(SandboxOptions::default())
                .await
                .expect("a sandbox starts"),
            folder: tempfile::tempdir().unwrap(),
            broker,
            prefix,
            roles,
            raw,
        };
        for role in site.roles.keys() {
            site.ctl(&["add_user", &user(role), PASSWORD]).await;
            site.grant(role, &site.roles[role]).await;
        }
        Some(site)
    }

    async fn ctl(&self, args: &[&str]) {
        self.broker.ctl(args).await.expect("rabbitmqctl does it");
    }

    async fn grant(&self, role: &str, [configure, write, read]: &[String; 3]) {
        let user = user(role);
        self.ctl(&["set_permissions", "-p", "/", &user, configure, write, read])
            .await;
    }

    fn url(&self, role: &str) -> String {
        let url = self.broker.url();
        url.replace("guest:guest@", &format!("{}:{PASSWORD}@", user(role)))
    }

    fn command(&self, role: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rename-worker"));
        command
            .args(args)
            .env_clear()
            .env("USER", "kari")
            .env("RENAME_WORKER_AMQP__URL", self.url(role))
            .env("RENAME_WORKER_AMQP__PREFIX", &self.prefix)
            .env("RENAME_WORKER_RETRY__LADDER", "300ms")
            .env("RENAME_WORKER_RETRY__INITIAL_DELAY", "20ms")
            .env("RENAME_WORKER_API__BASE_URL", self.sandbox.base_url())
            .env("RENAME_WORKER_API__CLIENT_ID", CLIENT_ID)
            .env("RENAME_WORKER_API__CLIENT_SECRET", CLIENT_SECRET)
            .env("RENAME_WORKER_ADMIN__LISTEN", "127.0.0.1:0")
            .env("RENAME_WORKER_LOG__FORMAT", "json")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if role == "plain-worker" {
            command.env("RENAME_WORKER_AMQP__DECLARE_TOPOLOGY", "false");
        }
        command
    }

    async fn run(&self, role: &str, args: &[&str]) -> Output {
        let running = self.command(role, args).output();
        timeout(PATIENCE, running)
            .await
            .unwrap_or_else(|_| panic!("{role} {args:?} did not end"))
            .expect("the binary runs")
    }

    async fn does(&self, role: &str, args: &[&str]) {
        let output = self.run(role, args).await;
        assert!(output.status.success(), "{role} {args:?}: {output:?}");
    }

    /// The worker, and its log line by line.
    fn worker(&self, role: &str) -> (Child, Lines) {
        let mut child = self.command(role, &["run"]).spawn().expect("it runs");
        let log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        (child, log)
    }

    async fn publish(&self, username: &str) {
        let new = format!("{username}.new");
        let one = [
            "--account",
            ACCOUNT,
            "--username",
            username,
            "--new-username",
            &new,
        ];
        self.does("upstream", &[&["publish"], &one[..]].concat())
            .await;
    }

    fn seed(&self, name: &str) {
        let seed = NewUser {
            account_id: AccountId::parse(ACCOUNT).expect("an account"),
            username: name.into(),
            id: None,
        };
        self.sandbox.seed([seed]);
    }

    /// What RabbitMQ moved away, or the worker rejected unread.
    async fn put_undeliverable(&self) {
        let body = json!({
            "request_id": Uuid::new_v4(),
            "account_id": ACCOUNT,
            "username": "moved",
            "new_username": "away",
        });
        let (exchange, queue) = (&self.names.internal, &self.names.undeliverable);
        let body = body.to_string();
        self.raw
            .publish(exchange, queue, body.as_bytes(), BasicProperties::default())
            .await;
    }

    /// Everything that may have been removed.
    async fn declare_again(&self) {
        let mut command = self.command("declarer", &["topology", "declare"]);
        let as_guest = command.env("RENAME_WORKER_AMQP__URL", self.broker.url());
        let output = as_guest.output().await.expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// A file to import.
    async fn export_a_letter(&self) {
        let letters = &self.names.dead_letters;
        self.raw
            .publish(letters, "any", b"{}", BasicProperties::default())
            .await;
        self.does("reviewer", &["dead-letters", "export", "letter.jsonl"])
            .await;
        self.raw.drain(letters, 1, PATIENCE).await;
    }

    /// The queue of a subscriber, declared and bound with its own user's rights.
    async fn subscribe(&self) -> (Raw, String) {
        let raw = Raw::connect(&self.url("subscriber")).await;
        let queue = format!("{}-billing.renames", self.prefix);
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let table = FieldTable::default;
        let channel = raw.channel();
        let declared = channel.queue_declare(queue.as_str().into(), durable, table());
        declared.await.expect("it may declare its queue");
        let (events, bind) = (&self.names.events, QueueBindOptions::default());
        channel
            .queue_bind(
                queue.as_str().into(),
                events.as_str().into(),
                "#".into(),
                bind,
                table(),
            )
            .await
            .expect("it may bind its queue");
        (raw, queue)
    }
}

type Lines = tokio::io::Lines<BufReader<tokio::process::ChildStderr>>;

/// No message of ours may have it.
fn user(role: &str) -> String {
    format!("bob-{role}")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn kind_of(event: &Value) -> &str {
    event["type"].as_str().expect("an event has a type")
}

#[tokio::test]
async fn each_role_can_do_all_it_does_with_the_documented_rights() {
    let Some(site) = Site::open("the rights of each role").await else {
        return;
    };
    site.does("declarer", &["topology", "declare"]).await;
    site.does("checker", &["topology", "check"]).await;
    let (subscriber, events) = site.subscribe().await;
    for role in ["worker", "plain-worker"] {
        let (mut worker, _log) = site.worker(role);
        // Renamed, renamed after a wait, failed, and failed as undeliverable.
        let (good, late) = (format!("good-{role}"), format!("late-{role}"));
        for name in [&good, &late] {
            site.seed(name);
        }
        let refused_once = ApiFault::status(503)
            .on(CallFilter::Rename)
            .prefix("late")
            .next(3);
        site.sandbox.set_faults([refused_once]).await;
        for name in [&good, &late, "nobody"] {
            site.publish(name).await;
        }
        site.put_undeliverable().await;
        let told = subscriber.drain(&events, 4, PATIENCE).await;
        let told: Vec<Value> = told.iter().map(Message::json).collect();
        let renamed = told
            .iter()
            .filter(|event| kind_of(event).ends_with("renamed"));
        assert_eq!(renamed.count(), 2, "{role}: {told:?}");
        assert!(terminate(&mut worker).await.success());
    }
    let letters = |args: &'static [&'static str]| [&["dead-letters"], args].concat();
    for args in [
        &["list"][..],
        &["export", "letters.jsonl"],
        &["replay", "--reason", "user_not_found", "--yes"],
        &["discard", "--all", "--because", "tried", "--yes"],
        &["import", "letters.jsonl"],
    ] {
        site.does("reviewer", &letters(args)).await;
    }
    let names = &site.names;
    for (queue, count) in [(&names.due, 2), (&names.dead_letters, 4)] {
        site.raw.drain(queue, count, PATIENCE).await;
    }
    site.sandbox.shutdown().await;
}

#[tokio::test]
async fn upstream_and_subscribers_reach_no_queue_of_the_worker() {
    let Some(site) = Site::open("what upstream may not").await else {
        return;
    };
    site.does("declarer", &["topology", "declare"]).await;
    for role in ["upstream", "subscriber"] {
        for exchange in ["", &site.names.internal, &site.names.dead_letters] {
            let raw = Raw::connect(&site.url(role)).await;
            let published = raw
                .channel()
                .basic_publish(
                    exchange.into(),
                    site.names.due.as_str().into(),
                    lapin::options::BasicPublishOptions::default(),
                    b"forged",
                    BasicProperties::default(),
                )
                .await
                .expect("it is sent");
            let refused = published.await.expect_err("it is refused");
            assert!(refused.to_string().contains("ACCESS_REFUSED"), "{refused}");
        }
    }
    assert_eq!(site.raw.queue_length(&site.names.due).await, 0);
}

/// Every right of the role: which of `VERBS`, and the rest of the object's name.
fn rights_of(names: &QueueNames, prefix: &str, patterns: &[String; 3]) -> Vec<(usize, String)> {
    let wait = format!("{prefix}.{WAIT}");
    let objects = [
        &names.requests,
        &names.due,
        &names.undeliverable,
        &names.events,
        &names.dead_letters,
        &names.discarded,
        &names.review_lock,
        &names.internal,
        &wait,
    ];
    let mut rights = Vec::new();
    for (verb, pattern) in patterns.iter().enumerate() {
        for object in objects {
            let rest = object.trim_start_matches(prefix).trim_start_matches('.');
            let rest = rest.replace(WAIT, r"wait\..+");
            let alternatives: Vec<&str> = pattern.split(['(', ')', '|', '$']).collect();
            let alone = pattern == &format!(r"^{prefix}\.{rest}$");
            if alone || alternatives.contains(&rest.as_str()) {
                rights.push((verb, object.clone()));
            }
        }
    }
    rights
}

/// The same pattern, but for one object.
fn without(pattern: &str, object: &str) -> String {
    let object = object.replace('.', r"\.");
    pattern.replacen('^', &format!("^(?!{object}$)"), 1)
}

/// Whether the right is named, with the pattern that must grant it; and never the user.
fn names_right(told: &str, verb: &str, object: &str) -> bool {
    assert!(!told.contains("bob-"), "the user is named: {told}");
    let right = ["queue", "exchange"]
        .iter()
        .any(|kind| told.contains(&format!("lacks the right to {verb} on {kind} {object} ")));
    right && told.contains(&format!("{} must match {object}", verb.to_uppercase()))
}

#[tokio::test]
async fn a_missing_right_is_named_with_the_command_that_grants_it() {
    let Some(site) = Site::open("missing rights").await else {
        return;
    };
    if site
        .broker
        .version()
        .is_some_and(|version| version.starts_with("3.10"))
    {
        // It does not say which right is missing.
        return;
    }
    site.does("declarer", &["topology", "declare"]).await;
    site.export_a_letter().await;
    for role in [
        "upstream",
        "worker",
        "plain-worker",
        "declarer",
        "checker",
        "reviewer",
    ] {
        let patterns = &site.roles[role];
        let rights = rights_of(&site.names, &site.prefix, patterns);
        assert!(!rights.is_empty(), "{role} has rights");
        for (verb, object) in rights {
            let mut fewer = patterns.clone();
            fewer[verb] = without(&fewer[verb], &object);
            site.grant(role, &fewer).await;
            let told = told_without(&site, role, VERBS[verb], &object).await;
            assert!(
                names_right(&told, VERBS[verb], &object),
                "{role} without the right to {} on {object}: {told}",
                VERBS[verb]
            );
        }
        site.grant(role, patterns).await;
        site.declare_again().await;
    }
}

/// What the role says when it does all it does.
async fn told_without(site: &Site, role: &str, verb: &str, object: &str) -> String {
    let commands: &[&[&str]] = match role {
        "upstream" => &[&[
            "publish",
            "--account",
            ACCOUNT,
            "--username",
            "a",
            "--new-username",
            "b",
        ]],
        "declarer" => {
            // What a binding or a new queue needs is asked for where there is none.
            let delays = [Duration::from_millis(300)];
            site.raw.remove_topology(&site.names, &delays).await;
            &[&["topology", "declare"]]
        }
        "checker" => &[&["topology", "check"]],
        "reviewer" => {
            // Without a token the review publishes one.
            let lock = site.names.review_lock.as_str().into();
            let purged = site
                .raw
                .channel()
                .queue_purge(lock, QueuePurgeOptions::default());
            purged.await.expect("the lock can be emptied");
            // An empty queue is not read.
            let letters = &site.names.dead_letters;
            site.raw
                .publish(letters, "any", b"[]", BasicProperties::default())
                .await;
            &[
                &["dead-letters", "list"],
                &["dead-letters", "import", "letter.jsonl"],
            ]
        }
        _ => return log_of_worker(site, role, verb, object).await,
    };
    let mut told = String::new();
    for args in commands {
        told += &text(&site.run(role, args).await);
    }
    told
}

/// Everything that a worker logs until it names the right, at most for `PATIENCE`.
async fn log_of_worker(site: &Site, role: &str, verb: &str, object: &str) -> String {
    // What declaring needs is asked for where there is nothing; events are only published.
    let declares = role == "worker" && object != site.names.events;
    if declares {
        let delays = [Duration::from_millis(300)];
        site.raw.remove_topology(&site.names, &delays).await;
    }
    // Something that fails needs the events and the dead letters.
    if !declares {
        site.publish("nobody").await;
    }
    log_until(site, role, |told| names_right(told, verb, object)).await
}

#[tokio::test]
async fn limits_and_virtual_hosts_are_named_with_what_to_do() {
    let Some(site) = Site::open("limits").await else {
        return;
    };
    site.does("declarer", &["topology", "declare"]).await;
    site.ctl(&["add_vhost", "narrow"]).await;
    let check = &["topology", "check"];
    let told_at = async |vhost: &str| {
        let url = site.url("checker").replace("%2f", vhost);
        let mut command = site.command("checker", check);
        let output = command.env("RENAME_WORKER_AMQP__URL", url).output();
        text(&output.await.expect("it runs"))
    };
    let told = told_at("narrow").await;
    assert!(told.contains("no rights in virtual host narrow"), "{told}");
    let told = told_at("none").await;
    assert!(told.contains("there is no virtual host none"), "{told}");
    let checker = user("checker");
    site.ctl(&[
        "set_permissions",
        "-p",
        "narrow",
        &checker,
        ".*",
        ".*",
        ".*",
    ])
    .await;
    site.ctl(&[
        "set_vhost_limits",
        "-p",
        "narrow",
        "{\"max-connections\": 0}",
    ])
    .await;
    let told = told_at("narrow").await;
    let limit = "connections of virtual host narrow (0) is reached";
    assert!(
        told.contains(limit) && told.contains("set_vhost_limits"),
        "{told}"
    );
    site.ctl(&["set_user_limits", &checker, "{\"max-connections\": 0}"])
        .await;
    let told = told_at("%2f").await;
    let limit = "the limit of this user's connections (0) is reached";
    assert!(
        told.contains(limit) && told.contains("set_user_limits"),
        "{told}"
    );
    assert!(!told.contains("bob-"), "{told}");
    // A worker has a second connection, and says so if that is not allowed.
    for (limits, wanted) in [
        (
            "{\"max-connections\": 1}",
            "this user's connections (1) is reached",
        ),
        ("{\"max-channels\": 1}", "a limit of channels is reached"),
    ] {
        let worker = user("plain-worker");
        site.ctl(&["clear_user_limits", &worker, "all"]).await;
        site.ctl(&["set_user_limits", &worker, limits]).await;
        let told = log_until(&site, "plain-worker", |told| told.contains(wanted)).await;
        assert!(told.contains(wanted) && !told.contains("bob-"), "{told}");
    }
}

/// Everything that a worker logs until it is enough, at most for `PATIENCE`.
async fn log_until(site: &Site, role: &str, is_enough: impl Fn(&str) -> bool) -> String {
    let (mut worker, mut log) = site.worker(role);
    let mut told = String::new();
    let reading = async {
        while let Some(line) = log.next_line().await.expect("the log can be read") {
            told += &line;
            if is_enough(&told) {
                break;
            }
        }
    };
    // What was logged by then says why it was not enough.
    timeout(PATIENCE, reading).await.ok();
    worker.kill().await.unwrap();
    told
}
