//! `run`: the worker, until it is told to stop.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use crate::app::{App, StartError};
use crate::broker;
use crate::telemetry::log;

/// Runs the worker. The first SIGTERM or SIGINT lets it finish what is in flight; the second ends
/// it at once.
pub async fn run(config: Option<&Path>) -> Exit {
    let settings = match super::config::settings(config) {
        Ok(settings) => settings,
        Err(refusal) => return refusal.tell(false),
    };
    if let Err(error) = log::init(&settings.log) {
        say!("{error}");
        return Exit::Usage;
    }
    let (mut terminate, mut interrupt) = match signals() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return Exit::Failed;
        }
    };
    for note in settings.notes() {
        tracing::warn!("{note}");
    }
    let broker = broker::address(&settings.amqp);
    let app = match App::start(settings).await {
        Ok(app) => app,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return match error {
                StartError::Api(_) | StartError::Admin { .. } | StartError::Traces(_) => {
                    Exit::Usage
                }
                StartError::Metrics(_) => Exit::Failed,
            };
        }
    };
    tracing::info!(
        version = crate::telemetry::build::VERSION,
        admin = %app.admin,
        broker,
        "started"
    );
    let stop = app.stopper();
    let mut ended = std::pin::pin!(app.ended());
    loop {
        tokio::select! {
            () = &mut ended => {
                if stop.is_cancelled() {
                    tracing::info!("stopped");
                    return Exit::Done;
                }
                tracing::error!("the worker ended without being told to");
                return Exit::Failed;
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            tracing::warn!("told to stop a second time: ending at once");
            return Exit::Failed;
        }
        stop.cancel();
    }
}

fn signals() -> std::io::Result<(Signal, Signal)> {
    Ok((
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ))
}
