//! Asks a running worker for its status.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::status::WorkerStatus;

/// A worker that turns answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest status, with all the held accounts that are listed, is some 25 KB; more is no status.
pub(super) const BODY_MAX: usize = 64 * 1024;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("no worker answers at {at}: {why}; is it running, and is admin.listen the same here?")]
    Unreachable { at: String, why: String },
    #[error("what answers at {at} is no rename-worker: {why}")]
    Strange { at: String, why: String },
}

/// The status of the worker whose admin endpoints are there: an address or a name, with a port.
pub async fn status(at: &str) -> Result<WorkerStatus, StatusError> {
    let unreachable = |why: &dyn std::fmt::Display| StatusError::Unreachable {
        at: at.to_owned(),
        why: why.to_string(),
    };
    let body = tokio::time::timeout(TIMEOUT, fetch(at))
        .await
        .map_err(|_| unreachable(&"no answer in time"))?
        .map_err(|why| unreachable(&why))?;
    serde_json::from_slice(&body).map_err(|why| StatusError::Strange {
        at: at.to_owned(),
        why: why.to_string(),
    })
}

async fn fetch(at: &str) -> anyhow::Result<Vec<u8>> {
    let stream = TcpStream::connect(at).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get("/status")
        .header(hyper::header::HOST, at)
        .body(axum::body::Body::empty())?;
    let asking = async {
        let answer = sender.send_request(request).await?;
        let body = axum::body::Body::new(answer.into_body());
        let bytes: Bytes = axum::body::to_bytes(body, BODY_MAX).await?;
        anyhow::Ok(bytes.to_vec())
    };
    let connection = async {
        // Its error is also the request's.
        connection.await.ok();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = asking => answer,
        () = connection => unreachable!("it waits for ever"),
    }
}
