//! What the cases share: a stage with a sandbox, the worker's process, requests, their latencies.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use rename_worker::config::Settings;
use rename_worker::core::model::request::AccountId;
use rename_worker::sandbox::{ApiFault, NewUser};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use uuid::Uuid;

use super::outcomes::Outcomes;
use super::process::WorkerProcess;
use crate::support::say;
use crate::support::stage::Stage;

/// The account that nothing is wrong with.
pub const HEALTHY: &str = "P10000001";

/// Its requests are to have their outcome within this time.
pub const PROMPT: Duration = Duration::from_secs(2);

/// Publishes that wait for their confirm at most.
const UNCONFIRMED: usize = 1_000;

/// Held by the long form that runs: beside each other they would measure each other.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Part of `cargo test`: few requests, short delays.
    Short,
    /// The numbers, and the default settings.
    Long,
}

impl Form {
    pub fn pick<T>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

/// Variables of the worker without their `RENAME_WORKER_`.
pub type Env<'a> = &'a [(&'a str, &'a str)];

/// The short forms' delays beside those of [`Stage`].
const SHORT_DELAYS: Env<'static> = &[
    ("RETRY__MAX_DELAY", "2s"),
    ("HOLD__FIRST_PROBE", "50ms"),
    ("HOLD__MAX_PROBE", "200ms"),
];

/// A request to rename.
#[derive(Debug, Clone)]
pub struct Request {
    pub id: Uuid,
    pub account: &'static str,
    pub from: String,
    pub to: String,
}

impl Request {
    pub fn new(account: &'static str, from: &str, to: &str) -> Self {
        Self {
            id: Uuid::new_v4(),
            account,
            from: from.to_owned(),
            to: to.to_owned(),
        }
    }

    fn body(&self) -> Vec<u8> {
        let body = json!({
            "request_id": self.id, "account_id": self.account,
            "username": self.from, "new_username": self.to,
        });
        body.to_string().into_bytes()
    }
}

pub fn account_id(account: &str) -> AccountId {
    AccountId::parse(account).expect("an account")
}

/// One case: names of its own on the broker, its sandbox, its outcomes.
pub struct Fixture {
    pub form: Form,
    pub stage: Stage,
    pub outcomes: Outcomes,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Fixture {
    pub async fn new(form: Form) -> Self {
        let alone = match form {
            Form::Short => None,
            Form::Long => Some(ALONE.lock().await),
        };
        let stage = Stage::set(|settings| {
            if form == Form::Long {
                settings.retry = Settings::default().retry;
            }
        })
        .await;
        let outcomes = Outcomes::collect(&stage).await;
        Self {
            form,
            stage,
            outcomes,
            _alone: alone,
        }
    }

    pub async fn worker(&self, env: Env<'_>) -> WorkerProcess {
        let mut command = self.stage.process();
        let delays = match self.form {
            Form::Short => SHORT_DELAYS,
            Form::Long => {
                command
                    .env_remove("RENAME_WORKER_RETRY__INITIAL_DELAY")
                    .env_remove("RENAME_WORKER_RETRY__LADDER");
                &[]
            }
        };
        for (name, value) in delays.iter().chain(env) {
            command.env(format!("RENAME_WORKER_{name}"), value);
        }
        WorkerProcess::start(command).await
    }

    /// Requests of users that exist, each of its own.
    pub fn requests(&self, account: &'static str, prefix: &str, count: usize) -> Vec<Request> {
        let from = |number: usize| format!("{prefix}{number}");
        self.seed(account, (0..count).map(from));
        let request =
            |number| Request::new(account, &from(number), &format!("{prefix}{number}-new"));
        (0..count).map(request).collect()
    }

    /// Requests of one user that share both names: there, back, there and so on. Each takes one
    /// successful call if they are applied in their order, and finds no user otherwise.
    pub fn chain(&self, account: &'static str, name: &str, count: usize) -> Vec<Request> {
        self.seed(account, [name.to_owned()]);
        let other = format!("{name}-new");
        let request = |number| match number % 2 {
            0 => Request::new(account, name, &other),
            _ => Request::new(account, &other, name),
        };
        (0..count).map(request).collect()
    }

    fn seed(&self, account: &str, names: impl IntoIterator<Item = String>) {
        let seeds = names.into_iter().map(|name| NewUser {
            account_id: account_id(account),
            username: name.into(),
            id: None,
        });
        self.stage.sandbox.seed(seeds);
    }

    /// Publishes them as fast as the broker confirms.
    pub async fn publish(&self, requests: &[Request]) {
        let channel = self.stage.raw.another_channel().await;
        let selected = channel.confirm_select(ConfirmSelectOptions::default());
        selected.await.expect("the broker confirms publishes");
        for some in requests.chunks(UNCONFIRMED) {
            let mut confirms = Vec::with_capacity(some.len());
            for request in some {
                let confirm = channel
                    .basic_publish(
                        self.stage.names.requests.as_str().into(),
                        format!("rename.{}", request.account).into(),
                        BasicPublishOptions::default(),
                        &request.body(),
                        BasicProperties::default(),
                    )
                    .await;
                confirms.push(confirm.expect("the request is sent"));
            }
            for confirm in confirms {
                let confirmed = confirm.await.expect("the broker answers");
                assert!(!confirmed.is_nack(), "the broker refused a request");
            }
        }
        let _ = channel.close(200, "OK".into()).await;
    }

    /// Publishes one each time the interval has passed; when each was published.
    pub async fn publish_each(&self, requests: &[Request], every: Duration) -> Vec<Instant> {
        let mut ticks = tokio::time::interval(every);
        let mut published = Vec::with_capacity(requests.len());
        for request in requests {
            ticks.tick().await;
            published.push(Instant::now());
            let key = format!("rename.{}", request.account);
            let properties = BasicProperties::default();
            let exchange = &self.stage.names.requests;
            let raw = &self.stage.raw;
            raw.publish(exchange, &key, &request.body(), properties)
                .await;
        }
        published
    }

    /// From publishing each until its outcome was there; those without one have none.
    pub fn latencies(&self, requests: &[Request], published: &[Instant]) -> Latencies {
        let each = requests.iter().zip(published).map(|(request, &at)| {
            let outcome = self.outcomes.first(request)?;
            Some(outcome.at.saturating_duration_since(at))
        });
        Latencies(each.collect())
    }

    /// Calls of an account that met its fault since the faults were set.
    pub fn faulty_calls(&self, account: &str) -> u64 {
        let faults = self.stage.sandbox.faults();
        let of_account = faults.iter().filter(|fault| fault.fault.contains(account));
        of_account.map(|fault| fault.struck).sum()
    }

    /// Prints figures, removes everything from the broker.
    pub async fn finish(self, worker: WorkerProcess, figures: &str) {
        say(&format!("neighbours, {:?}: {figures}", self.form));
        worker.kill().await;
        self.stage.remove().await;
    }
}

/// A fault of one account.
pub fn fault(account: &str, status: u16) -> ApiFault {
    ApiFault::status(status).account(account_id(account))
}

/// How long outcomes took.
#[derive(Debug)]
pub struct Latencies(Vec<Option<Duration>>);

impl Latencies {
    /// The share of all that had their outcome within the limit.
    pub fn share_within(&self, limit: Duration) -> f64 {
        let within = self.0.iter().flatten().filter(|&&took| took <= limit);
        ratio(within.count(), self.0.len())
    }

    pub fn without_outcome(&self) -> usize {
        self.0.iter().filter(|took| took.is_none()).count()
    }

    /// The longest of those that had an outcome.
    pub fn longest(&self) -> Duration {
        self.0.iter().flatten().copied().max().unwrap_or_default()
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no requests");
        }
        let mut sorted: Vec<_> = self.0.iter().flatten().copied().collect();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        write!(
            f,
            "{} of {} with an outcome, {:.0}% within {PROMPT:?}, median {:.2} s, longest {:.2} s",
            sorted.len(),
            self.0.len(),
            self.share_within(PROMPT) * 100.0,
            median.as_secs_f64(),
            self.longest().as_secs_f64(),
        )
    }
}

/// `part` by `whole`.
pub fn ratio(part: usize, whole: usize) -> f64 {
    let [part, whole] = [part, whole].map(|count| u32::try_from(count).expect("a count of a test"));
    f64::from(part) / f64::from(whole)
}
