//! The worker's life: configure → connect → run → drain.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::admin::descriptors::DescriptorBudget;
use crate::broker::topology::model::TopologySettings;
use crate::broker::{BrokerClient, BrokerEvent, LinkSettings, StreamLimits};
use crate::clock;
use crate::config::{RetryDelays, Settings, VerifyUser};
use crate::core::model::api_response::CallKind;
use crate::core::policy::hold::HoldSettings;
use crate::core::policy::retry::RetrySettings;
use crate::core::scheduler::SchedulerConfig;
use crate::dintero::{self, ApiClient};
use crate::messages::request::BODY_MAX;
use crate::telemetry::build::{REVISION, VERSION};
use crate::telemetry::events::EventReporter;
use crate::telemetry::logged_names::{BadHashKey, LoggedNames};
use crate::telemetry::metrics::{CallLabel, CallStatus, Metrics, StaticLabels};
use crate::telemetry::trace::{BadExporter, RequestTracer};
use crate::worker::{Worker, WorkerState};

/// Broker events between the link and the loop: a few batches, so that neither waits for the other.
const EVENTS: usize = 1024;

/// Why the worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerStartError {
    #[error(transparent)]
    Api(#[from] dintero::ClientError),
    #[error("cannot listen on admin.listen {at}: {why}")]
    Admin { at: SocketAddr, why: std::io::Error },
    #[error("cannot set the metrics up: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Traces(#[from] BadExporter),
    #[error(transparent)]
    HashKey(#[from] BadHashKey),
}

/// A worker that runs.
#[derive(Debug)]
pub struct App {
    pub metrics: Metrics,
    pub state: watch::Receiver<WorkerState>,
    /// Where the admin endpoints are, with the port that was found where 0 was asked for.
    pub admin: SocketAddr,
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl App {
    /// Starts everything. The broker may be away still: connecting is part of the work.
    pub async fn start(settings: Settings) -> Result<Self, WorkerStartError> {
        let delays = settings.retry.ladder.steps();
        let metrics = Metrics::new(&StaticLabels {
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            ladder: delays
                .iter()
                .map(|&delay| RetryDelays::label(delay))
                .collect(),
        })?;
        let concurrency = usize::from(settings.consumer.concurrency.get());
        metrics.set_concurrency(i64::from(settings.consumer.concurrency.get()));
        let at = settings.admin.listen;
        let listener = TcpListener::bind(at)
            .await
            .map_err(|why| WorkerStartError::Admin { at, why })?;
        let admin = listener.local_addr().unwrap_or(at);
        let client = ApiClient::new(&settings.api, concurrency, CallMetrics(metrics.clone()))?;
        let logged_names = LoggedNames::new(&settings.log)?;
        let tracer = RequestTracer::new(
            &settings,
            VERSION,
            dintero::collector_client(&settings.otlp)?,
        )?;
        let rules = scheduler_config(&settings);
        let (tell, events) = mpsc::channel::<BrokerEvent>(EVENTS);
        let link = BrokerClient::start(
            settings.amqp.clone(),
            LinkSettings {
                prefetch: rules.prefetch(),
                topology: TopologySettings::from(&settings),
                connection_name: format!("rename-worker {VERSION}"),
                limits: StreamLimits {
                    body_max: Some(BODY_MAX as u64),
                },
            },
            tell,
        );
        let reporter = EventReporter::new(metrics.clone(), logged_names);
        let source = &settings.events.source;
        let worker = Worker::new(rules, link, client, source, reporter, tracer.clone());
        let state = worker.state();
        let stop = CancellationToken::new();
        let serving = admin::serve(
            listener,
            admin::WatchedWorker {
                metrics: metrics.clone(),
                state: state.clone(),
                concurrency: settings.consumer.concurrency.get(),
                prefix: settings.amqp.prefix.clone(),
                started_at: clock::now(),
            },
            DescriptorBudget::current().admin_connections(),
        );
        let work = tokio::spawn(serve_admin(
            worker,
            events,
            stop.clone(),
            settings.consumer.drain_timeout,
            serving,
            tracer,
        ));
        Ok(Self {
            metrics,
            state,
            admin,
            stop,
            work,
        })
    }

    /// Stops consuming, finishes what is in flight, gives back the rest.
    pub async fn stop(self) {
        self.stop.cancel();
        self.ended().await;
    }

    /// A way to stop it from elsewhere.
    #[must_use]
    pub fn shutdown_handle(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until it has stopped.
    pub async fn ended(self) {
        // A panic in the worker is a mistake of ours; it must end the process, not be waited out.
        if let Err(error) = self.work.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Works, and serves the admin endpoints until the work is over.
async fn serve_admin(
    worker: Worker,
    events: mpsc::Receiver<BrokerEvent>,
    stop: CancellationToken,
    drain_timeout: Duration,
    serving: impl Future<Output = ()> + Send,
    tracer: RequestTracer,
) {
    tokio::select! {
        link = worker.run(events, stop, drain_timeout) => link.close().await,
        () = serving => {}
    }
    // Sending the last spans blocks.
    let _ = tokio::task::spawn_blocking(move || tracer.shutdown()).await;
}

/// What the core goes by, from the settings.
#[must_use]
pub fn scheduler_config(settings: &Settings) -> SchedulerConfig {
    let (retry, hold) = (&settings.retry, &settings.hold);
    SchedulerConfig {
        retry: RetrySettings {
            initial_delay: retry.initial_delay,
            multiplier: retry.multiplier,
            jitter: retry.jitter,
            max_delay: retry.max_delay,
            max_attempts: retry.max_attempts,
            max_elapsed: retry.max_elapsed,
            local_wait: retry.local_wait,
            ladder: retry.ladder.steps().to_vec(),
        },
        hold: HoldSettings {
            failures: hold.failures,
            first_probe: hold.first_probe,
            max_probe: hold.max_probe,
        },
        verify_before: settings.api.verify_user == VerifyUser::Before,
        concurrency: usize::from(settings.consumer.concurrency.get()),
        requests_per_second: settings.api.requests_per_second,
        account_share: settings.consumer.account_share,
        own_credentials: settings.api.accounts.keys().cloned().collect(),
        max_deferred: usize::try_from(settings.consumer.max_deferred).unwrap_or(usize::MAX),
        ..SchedulerConfig::default()
    }
}

/// Counts the API's exchanges.
struct CallMetrics(Metrics);

impl dintero::CallObserver for CallMetrics {
    fn call_ended(&self, kind: dintero::HttpCallKind, status: dintero::HttpStatus, took: Duration) {
        let kind = match kind {
            dintero::HttpCallKind::Rename => CallLabel::from(CallKind::Rename),
            dintero::HttpCallKind::Confirm => CallLabel::from(CallKind::Confirm),
            dintero::HttpCallKind::Token => CallLabel::Token,
        };
        let status = match status {
            dintero::HttpStatus::Code(code) => CallStatus::Code(code),
            dintero::HttpStatus::Timeout => CallStatus::Timeout,
            dintero::HttpStatus::Connect => CallStatus::Connect,
            dintero::HttpStatus::Reset => CallStatus::Reset,
            dintero::HttpStatus::Garbled => CallStatus::Garbled,
        };
        self.0.api_call(kind, status, took);
    }
}
