//! `run`: the worker, until a signal stops it.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ExitStatus;
use crate::admin::descriptors::DescriptorBudget;
use crate::app::{App, WorkerStartError};
use crate::broker;
use crate::config::FileFault;
use crate::telemetry::log;

/// Runs the worker. The first SIGTERM, SIGINT or SIGHUP lets it finish what is in flight; a second
/// SIGTERM or SIGINT ends it at once. A second SIGHUP does not: a terminal that closes may send two.
pub async fn run(config: Option<&Path>) -> ExitStatus {
    let settings = match super::config::settings(config) {
        Ok(settings) => settings,
        Err(refusal) => return refusal.print(false),
    };
    // Lives until the end of this function, whichever way it ends: what is logged on the way out is
    // written before the process ends.
    let _log = match log::init(&settings.log) {
        Ok(guard) => guard,
        Err(error) => {
            say!("{error}");
            return ExitStatus::Usage;
        }
    };
    log::panics_too();
    let mut signals = match ShutdownSignals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return ExitStatus::Failed;
        }
    };
    let descriptors = DescriptorBudget::raise();
    let too_few = descriptors.too_few_for(settings.consumer.concurrency.get());
    for note in settings.warnings().into_iter().chain(too_few) {
        tracing::warn!("{note}");
    }
    for FileFault { key, what } in settings.file_faults() {
        tracing::warn!("{key}: {what}");
    }
    let broker = broker::address(&settings.amqp);
    let app = match App::start(settings).await {
        Ok(app) => app,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return match error {
                WorkerStartError::Api(_)
                | WorkerStartError::Admin { .. }
                | WorkerStartError::Traces(_)
                | WorkerStartError::HashKey(_) => ExitStatus::Usage,
                WorkerStartError::Metrics(_) => ExitStatus::Failed,
            };
        }
    };
    tracing::info!(
        version = crate::telemetry::build::VERSION,
        admin = %app.admin,
        broker,
        "started"
    );
    let stop = app.shutdown_handle();
    let mut ended = std::pin::pin!(app.ended());
    loop {
        tokio::select! {
            () = &mut ended => {
                if stop.is_cancelled() {
                    tracing::info!("stopped");
                    return ExitStatus::Done;
                }
                tracing::error!("the worker ended without being told to");
                return ExitStatus::Failed;
            }
            () = signals.next(stop.is_cancelled()) => {}
        }
        if stop.is_cancelled() {
            tracing::warn!("told to stop a second time: ending at once");
            return ExitStatus::Failed;
        }
        stop.cancel();
    }
}

/// The signals that stop the worker.
struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
    /// None where whoever started the process had it ignored, as `nohup` does.
    hangup: Option<Signal>,
}

impl ShutdownSignals {
    fn listen() -> std::io::Result<Self> {
        let hangup = if is_hangup_ignored() {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        })
    }

    /// Waits for one that counts.
    async fn next(&mut self, is_stopping: bool) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) if !is_stopping => drop(hangup.recv().await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = hangup => {}
        }
    }
}

/// What the process inherited, as Linux tells it; elsewhere it is taken for not ignored.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is signal 1, SIGHUP.
    mask.is_some_and(|mask| mask & 1 == 1)
}
