//! A stage for one test: names of its own on the shared broker, a sandbox, a queue that hears every
//! event, and workers on request.

use std::process::Stdio;
use std::time::Duration;

use lapin::BasicProperties;
use rename_worker::app::App;
use rename_worker::broker::declare_topology;
use rename_worker::broker::topology::model::{QueueNames, TopologySettings};
use rename_worker::config::{CredentialsSection, RetryDelays, Secret, Settings};
use rename_worker::core::model::request::AccountId;
use rename_worker::sandbox::{CLIENT_ID, CLIENT_SECRET, NewUser, Sandbox, SandboxOptions};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::process::Command;
use uuid::Uuid;

use super::amqp::{Message, Raw};

/// Longer than anything here takes, even beside a build.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const ACCOUNT: &str = "T12345678";

pub struct Stage {
    pub raw: Raw,
    pub names: QueueNames,
    pub sandbox: Sandbox,
    pub settings: Settings,
    /// Hears every event from the start.
    pub events: String,
}

impl Stage {
    /// With short delays; `change` sets what the test needs otherwise.
    pub async fn set(change: impl FnOnce(&mut Settings)) -> Self {
        let url = super::broker().await;
        let sandbox = Sandbox::start(SandboxOptions::default())
            .await
            .expect("a sandbox starts");
        let mut settings = Settings::default();
        settings.amqp.url = Secret::inline(url);
        settings.amqp.prefix = super::unique_prefix();
        settings.api.base_url = sandbox.base_url().to_owned();
        settings.api.credentials = Some(CredentialsSection::Client {
            id: CLIENT_ID.to_owned(),
            secret: Secret::inline(CLIENT_SECRET),
        });
        settings.api.timeout = Duration::from_secs(5);
        settings.admin.listen = ([127, 0, 0, 1], 0).into();
        settings.retry.initial_delay = Duration::from_millis(20);
        settings.retry.ladder =
            RetryDelays::new([300, 1_000, 5_000].map(Duration::from_millis).to_vec())
                .expect("a ladder");
        settings.hold.first_probe = Duration::from_millis(50);
        settings.hold.max_probe = Duration::from_millis(200);
        change(&mut settings);
        declare_topology(&settings.amqp, &TopologySettings::from(&settings))
            .await
            .expect("the topology can be declared");
        let names = QueueNames::new(&settings.amqp.prefix);
        let raw = Raw::connect(url).await;
        let events = raw.listen(&names.events, "#").await;
        Self {
            raw,
            names,
            sandbox,
            settings,
            events,
        }
    }

    pub async fn worker(&self) -> App {
        App::start(self.settings.clone())
            .await
            .expect("the worker starts")
    }

    /// The worker as a process of its own, which can be killed. It has the broker, the sandbox and
    /// the ladder of this stage; every other setting is to be given.
    pub fn process(&self) -> Command {
        let url = self.settings.amqp.url.read().expect("the URL is given");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rename-worker"));
        command
            .arg("run")
            .env("RENAME_WORKER_AMQP__URL", url.expose_secret())
            .env("RENAME_WORKER_AMQP__PREFIX", &self.settings.amqp.prefix)
            .env("RENAME_WORKER_API__BASE_URL", self.sandbox.base_url())
            .env("RENAME_WORKER_API__CLIENT_ID", CLIENT_ID)
            .env("RENAME_WORKER_API__CLIENT_SECRET", CLIENT_SECRET)
            .env("RENAME_WORKER_RETRY__INITIAL_DELAY", "20ms")
            .env("RENAME_WORKER_RETRY__LADDER", "300ms,1s,5s")
            .env("RENAME_WORKER_ADMIN__LISTEN", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// A user to be there; its id.
    pub fn user(&self, name: &str) -> Uuid {
        let account_id = AccountId::parse(ACCOUNT).expect("an account");
        let seed = NewUser {
            account_id,
            username: name.into(),
            id: None,
        };
        self.sandbox.seed([seed])[0].id
    }

    /// Publishes a request and returns its id.
    pub async fn rename(&self, from: &str, to: &str, user_id: Option<Uuid>) -> Uuid {
        self.ask(json!({"username": from, "new_username": to, "user_id": user_id}))
            .await
    }

    /// Publishes a request with these fields beside an id and the account.
    pub async fn ask(&self, mut fields: Value) -> Uuid {
        let id = Uuid::new_v4();
        fields["request_id"] = json!(id);
        fields["account_id"] = json!(ACCOUNT);
        self.publish(fields.to_string().as_bytes(), BasicProperties::default())
            .await;
        id
    }

    pub async fn publish(&self, body: &[u8], properties: BasicProperties) {
        self.raw
            .publish(&self.names.requests, "rename.T12345678", body, properties)
            .await;
    }

    /// The next event.
    pub async fn event(&self) -> Value {
        self.events(1).await.remove(0)
    }

    /// The next events.
    pub async fn events(&self, count: usize) -> Vec<Value> {
        let messages = self.raw.drain(&self.events, count, PATIENCE).await;
        messages.iter().map(Message::json).collect()
    }

    /// Takes dead letters.
    pub async fn letters(&self, count: usize) -> Vec<Message> {
        self.raw
            .drain(&self.names.dead_letters, count, PATIENCE)
            .await
    }

    /// After a kill, the copy and its original may both be there; then both are told, with one id.
    pub async fn settle_twin(&self, told: &Value) {
        if told["data"]["attempts"] == 1 {
            let again = self.event().await;
            assert_eq!(again["id"], told["id"], "{again}");
        }
    }

    /// Who is called what, as the API has it.
    pub fn has(&self, name: &str) -> bool {
        let account = AccountId::parse(ACCOUNT).expect("an account");
        self.sandbox.user(&account, name).is_some()
    }

    /// Removes everything of this test from the broker.
    pub async fn remove(&self) {
        let delays = self.settings.retry.ladder.steps();
        self.raw.remove_topology(&self.names, delays).await;
    }

    /// Ends the test: nothing is left on the broker, and nothing that was not expected came.
    pub async fn strike(self, worker: App) {
        worker.stop().await;
        let left = self.raw.queue_length(&self.events).await;
        assert_eq!(left, 0, "more events came than expected");
        let letters = self.raw.queue_length(&self.names.dead_letters).await;
        assert_eq!(letters, 0, "more dead letters came than expected");
        let delays = self.settings.retry.ladder.steps();
        for queue in self.names.request_queues(delays) {
            let left = self.raw.queue_length(&queue).await;
            assert_eq!(left, 0, "requests are left in {queue}");
        }
        self.remove().await;
    }
}
