//! Sets the stage, plays the script on it, and strikes it again.
//!
//! Everything but the broker lives in this process: the stand-in for Dintero and the very worker
//! that `run` runs. What is told is heard as any subscriber would hear it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::broker::{BrokerProvisioner, DemoBroker, FindError};
use super::report::{DeadLetterTally, DemoReport, ReceivedEvent, tally};
use super::scenario;
use super::scenario::{LATENCY, Scenario, ScenarioRequest};
use crate::app::{self, App};
use crate::broker::topology::model::{QueueNames, TopologySettings};
use crate::broker::{
    BrokerError, EventSubscriber, PublishResult, RequestMessage, RequestPublisher,
    count_dead_letters, declare_topology, remove_topology,
};
use crate::clock;
use crate::config::{AmqpSection, CredentialsSection, Secret, Settings};
use crate::sandbox::{self, CLIENT_ID, CLIENT_SECRET, Sandbox, SandboxOptions};

/// Requests published at once; with [`EVERY`] it makes 250 a second.
const BATCH: usize = 10;

/// Between two batches. A busy upstream, and slow enough to be watched.
const EVERY: Duration = Duration::from_millis(40);

/// When this long nothing has been told, what is missing will not come. Longer than the ladder's
/// first step, 5 s, with all attempts before it.
const SILENCE: Duration = Duration::from_secs(20);

/// What a person may choose.
#[derive(Debug)]
pub struct DemoOptions {
    pub finder: BrokerProvisioner,
}

/// What the audience may be told meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressEvent {
    /// So many requests will be published.
    Begins(usize),
    /// So many outcomes have been heard.
    Heard(usize),
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the stand-in for Dintero does not start: {0}")]
    Sandbox(#[from] sandbox::SandboxStartError),
    #[error("the worker does not start: {0}")]
    Worker(#[from] app::WorkerStartError),
    #[error("a request was not taken by the broker")]
    NotPublished,
}

/// Everything that is up while the demo plays.
#[derive(Debug)]
pub struct DemoEnvironment {
    broker: DemoBroker,
    amqp: AmqpSection,
    topology: TopologySettings,
    script: Scenario,
    sandbox: Sandbox,
    app: App,
    audience: EventSubscriber,
}

impl DemoEnvironment {
    /// Finds or starts the broker, and starts the rest.
    pub async fn start(options: DemoOptions) -> Result<Self, DemoError> {
        let broker = options.finder.find().await?;
        let script = scenario::script();
        let sandbox = Sandbox::start(SandboxOptions {
            users: script.users.clone(),
            faults: scenario::faults(),
            latency: LATENCY,
            ..SandboxOptions::default()
        })
        .await?;
        let settings = settings(&broker, &sandbox);
        let amqp = settings.amqp.clone();
        let topology = TopologySettings::from(&settings);
        declare_topology(&amqp, &topology).await?;
        let audience = EventSubscriber::subscribe(&amqp).await?;
        let app = App::start(settings).await?;
        Ok(Self {
            broker,
            amqp,
            topology,
            script,
            sandbox,
            app,
            audience,
        })
    }

    /// Publishes everything and waits until all of it has been told.
    pub async fn run(&mut self, watch: impl Fn(ProgressEvent)) -> Result<DemoReport, DemoError> {
        let requests = &self.script.requests;
        watch(ProgressEvent::Begins(requests.len()));
        let began = Instant::now();
        let publisher = RequestPublisher::connect(&self.amqp).await?;
        let played = tokio::try_join!(
            publish(&publisher, requests),
            consume_events(&mut self.audience, requests.len(), &watch),
        );
        let seconds = began.elapsed().as_secs_f64();
        // What ended the connection says more than what that kept from being sent.
        if let Some(trouble) = publisher.close().await {
            return Err(trouble.into());
        }
        let (sent, heard) = played?;
        let tally = tally(requests, &sent, &heard);
        Ok(DemoReport {
            broker: self.broker.how_found().to_string(),
            version: self.broker.version().map(str::to_owned),
            requests: requests.len(),
            seconds,
            outcomes: tally.outcomes,
            latency_ms: tally.latency_ms,
            wrong: tally.wrong,
            repeats: tally.repeats,
            took_effect: self.sandbox.ledger().len(),
            calls: self.sandbox.calls().total(),
            dead_letters: DeadLetterTally {
                queue: QueueNames::new(&self.amqp.prefix).dead_letters,
                letters: count_dead_letters(&self.amqp).await? as usize,
            },
        })
    }

    /// Where to look around while the stage stands, one place a line.
    #[must_use]
    pub fn places(&self) -> String {
        let management = self
            .broker
            .management_url()
            .map(|url| format!("RabbitMQ's console  {url} (guest, guest)\n"));
        format!(
            "{}worker's metrics    http://{}/metrics, /status\nAPI's stand-in      {}",
            management.unwrap_or_default(),
            self.app.admin,
            self.sandbox.control_url(),
        )
    }

    /// Whether the broker goes with the stage, and all that is in it.
    #[must_use]
    pub fn broker_is_ours(&self) -> bool {
        self.broker.is_ours()
    }

    /// Takes everything down and leaves nothing behind, on a given broker neither.
    pub async fn teardown(self) -> Result<(), DemoError> {
        self.app.stop().await;
        self.audience.close().await;
        self.sandbox.shutdown().await;
        let cleared = if self.broker.is_ours() {
            Ok(())
        } else {
            remove_topology(&self.amqp, &self.topology).await
        };
        self.broker.stop().await;
        Ok(cleared?)
    }
}

/// The defaults, pointed at what was found and started.
fn settings(broker: &DemoBroker, sandbox: &Sandbox) -> Settings {
    let mut settings = Settings::default();
    settings.amqp.url = Secret::inline(broker.url());
    if !broker.is_ours() {
        // On somebody's broker the names must be nobody's.
        let unique = Uuid::new_v4().simple().to_string();
        settings.amqp.prefix = format!("rename-demo-{}", &unique[..8]);
    }
    sandbox.base_url().clone_into(&mut settings.api.base_url);
    settings.api.credentials = Some(CredentialsSection::Client {
        id: CLIENT_ID.to_owned(),
        secret: Secret::inline(CLIENT_SECRET),
    });
    settings.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    settings
}

/// Publishes at an even pace; says when each request was handed over.
async fn publish(
    publisher: &RequestPublisher,
    requests: &[ScenarioRequest],
) -> Result<Vec<Instant>, DemoError> {
    let mut pace = interval(EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = Vec::with_capacity(requests.len());
    let mut fates = Vec::with_capacity(requests.len());
    for batch in requests.chunks(BATCH) {
        pace.tick().await;
        for scripted in batch {
            sent.push(Instant::now());
            fates.push(publisher.hand_over(message(scripted)).await);
        }
    }
    let confirmed = |fate: &PublishResult| matches!(fate, PublishResult::Confirmed(_));
    if join_all(fates).await.iter().all(confirmed) {
        Ok(sent)
    } else {
        Err(DemoError::NotPublished)
    }
}

fn message(scripted: &ScenarioRequest) -> RequestMessage {
    RequestMessage {
        exchange: None,
        routing_key: format!("rename.{}", scripted.account),
        body: scripted.body.clone(),
        content_type: Some("application/json".to_owned()),
        message_id: scripted.request_id.map(|id| id.to_string()),
        correlation_id: None,
        timestamp: u64::try_from(clock::now().as_second()).ok(),
        headers: Vec::new(),
    }
}

/// Listens until so many outcomes were told, or no more come.
async fn consume_events(
    audience: &mut EventSubscriber,
    outcomes: usize,
    watch: &impl Fn(ProgressEvent),
) -> Result<Vec<(ReceivedEvent, Instant)>, DemoError> {
    let mut heard = Vec::with_capacity(outcomes);
    let mut distinct = std::collections::HashSet::with_capacity(outcomes);
    while distinct.len() < outcomes {
        let Ok(event) = tokio::time::timeout(SILENCE, audience.next()).await else {
            break;
        };
        // What is no event of ours counts as missing in the end.
        if let Ok(told) = serde_json::from_slice::<ReceivedEvent>(&event?) {
            distinct.insert(told.id);
            heard.push((told, Instant::now()));
            watch(ProgressEvent::Heard(distinct.len()));
        }
    }
    Ok(heard)
}
