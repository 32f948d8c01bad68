//! Serves the admin endpoints to anybody who can reach the port, at a bounded price: the number of
//! connections, what each may keep in memory and how long each may take.
//!
//! Why not `axum::serve`: it takes any number of connections, reads heads of 400 KiB and waits for
//! them without end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep_until};

/// How long a request's head may take, and how long a connection may be idle between two: every
/// client of ours sends a head at once. One that scrapes less often connects again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request and its answer may take together: `/metrics` takes milliseconds to make, and
/// whoever does not read it in that time does not want it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The buffer of a connection in bytes, and so the longest head: browsers send some 2 KiB, probes
/// and Prometheus less. hyper takes no less than 8 KiB.
const BUFFER: usize = 16 * 1024;

/// The headers of a request at most; a browser sends some twenty.
const HEADERS_MAX: usize = 64;

/// How long to wait before accepting is tried again where it failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A server of a bounded number of connections. Beyond it, the one whose last request is longest
/// ago makes room: a probe sends its request at once and has its answer within milliseconds, so
/// whatever hangs on the port goes before it.
pub(super) struct AdminServer {
    routes: Router,
    connections_max: usize,
    connections: JoinSet<()>,
    open: HashMap<Id, OpenConnection>,
    /// Counts what connections do, to know which did it last.
    clock: Arc<AtomicU64>,
}

/// A connection that is open.
struct OpenConnection {
    task: AbortHandle,
    activity: ConnectionActivity,
}

/// When a connection was last of use: when it was made, or began its last request.
#[derive(Clone)]
struct ConnectionActivity {
    clock: Arc<AtomicU64>,
    last: Arc<AtomicU64>,
}

impl AdminServer {
    pub(super) fn new(routes: Router, connections_max: usize) -> Self {
        Self {
            routes,
            connections_max,
            connections: JoinSet::new(),
            open: HashMap::new(),
            clock: Arc::default(),
        }
    }

    /// Serves until it is dropped.
    pub(super) async fn run(mut self, listener: TcpListener) {
        loop {
            tokio::select! {
                Some(ended) = self.connections.join_next_with_id() => self.forget(ended),
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        self.admit(stream).await;
                    } else {
                        // No descriptor is left, or the connection is gone already.
                        self.close_oldest().await;
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
        }
    }

    async fn admit(&mut self, stream: TcpStream) {
        while self.open.len() >= self.connections_max {
            self.close_oldest().await;
        }
        let activity = ConnectionActivity {
            clock: Arc::clone(&self.clock),
            last: Arc::default(),
        };
        activity.note();
        let connection = serve(stream, self.routes.clone(), activity.clone());
        let task = self.connections.spawn(connection);
        self.open
            .insert(task.id(), OpenConnection { task, activity });
    }

    /// Closes the connection whose last request is longest ago, and waits until it is closed.
    async fn close_oldest(&mut self) {
        let oldest = self.open.values().min_by_key(|open| open.activity.last());
        let Some(oldest) = oldest else {
            return;
        };
        oldest.task.abort();
        if let Some(ended) = self.connections.join_next_with_id().await {
            self.forget(ended);
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.open.remove(&id);
    }
}

impl ConnectionActivity {
    fn note(&self) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
    }

    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

/// One connection's life.
async fn serve(stream: TcpStream, routes: Router, activity: ConnectionActivity) {
    // Answers are small and waited for; that it cannot be set is no reason not to answer.
    let _ = stream.set_nodelay(true);
    let routes = TowerToHyperService::new(routes);
    let noted = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        noted.note();
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // An error here is the client's: it went away, or sent what is no request.
        _ = connection => {}
        () = stalled(activity) => {}
    }
}

/// Returns once no request has begun for [`REQUEST_TIMEOUT`]: then the last answer is not read.
async fn stalled(activity: ConnectionActivity) {
    loop {
        let seen = activity.last();
        sleep_until(Instant::now() + REQUEST_TIMEOUT).await;
        if activity.last() == seen {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
