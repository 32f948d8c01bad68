//! The admin endpoints: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! They read what the loop shows of itself and never touch the work, and nobody who can reach the
//! port can take more from the process than a bounded share.

pub mod ask;
pub mod descriptors;
mod server;
pub mod status;

use std::time::Duration;

use axum::extract::State as Given;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::server::AdminServer;
use self::status::WorkerStatus;
use crate::clock;
use crate::telemetry::metrics::Metrics;
use crate::worker::WorkerState;

/// A loop that has not turned for so long hangs: it turns every few seconds even when idle.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// The media type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the endpoints show.
#[derive(Debug, Clone)]
pub struct WatchedWorker {
    pub metrics: Metrics,
    pub state: watch::Receiver<WorkerState>,
    pub concurrency: u16,
    pub prefix: String,
    pub started_at: Timestamp,
}

/// Serves until it is dropped, so many connections at once.
pub async fn serve(listener: TcpListener, watched: WatchedWorker, connections_max: usize) {
    AdminServer::new(routes(watched), connections_max)
        .run(listener)
        .await;
}

fn routes(watched: WatchedWorker) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(show_status))
        .with_state(watched)
}

/// The process turns.
async fn livez(Given(watched): Given<WatchedWorker>) -> impl IntoResponse {
    let turned_at = watched
        .state
        .borrow()
        .turned_at
        .unwrap_or(watched.started_at);
    let still_for = Duration::try_from(clock::now().duration_since(turned_at)).unwrap_or_default();
    if still_for < STALLED_AFTER {
        (StatusCode::OK, "the worker turns\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the worker hangs\n")
    }
}

/// Consuming, or holding, with a live broker connection.
async fn readyz(Given(watched): Given<WatchedWorker>) -> impl IntoResponse {
    let state = watched.state.borrow();
    let (code, why) = match (state.draining, state.connected, state.held) {
        (true, ..) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        (_, false, _) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no connection to the broker\n",
        ),
        (_, true, Some(_)) => (StatusCode::OK, "holding\n"),
        (_, true, None) => (StatusCode::OK, "consuming\n"),
    };
    (code, why)
}

async fn metrics(Given(watched): Given<WatchedWorker>) -> impl IntoResponse {
    match watched.metrics.render() {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, PROMETHEUS_TEXT)],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

async fn show_status(Given(watched): Given<WatchedWorker>) -> Json<WorkerStatus> {
    Json(WorkerStatus::of(&watched, clock::now()))
}
