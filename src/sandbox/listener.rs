//! The doors: accept loops whose connections can be broken one by one, or all at once while the
//! door refuses.
//!
//! Why not `axum::serve`: it owns its connections, and a fault has to break one without an answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{SandboxStartError, SandboxState};

/// Connections open at once at one door; far more than any worker's pool, far less than a process
/// may have files open.
const LINES_MAX: usize = 4096;

/// How long calls under way may take after the door was closed.
const GRACE: Duration = Duration::from_secs(1);

/// How long to wait before accepting or binding is tried again after it failed.
const AGAIN: Duration = Duration::from_millis(10);

/// What a handler knows: everything shared, and the connection it answers on.
#[derive(Debug, Clone)]
pub(super) struct RequestContext {
    pub shared: Arc<SandboxState>,
    /// Whether this is the door that a fault can close.
    pub can_refuse: bool,
    line: CancellationToken,
}

impl RequestContext {
    /// Breaks the connection; the handler is dropped with it.
    pub(super) async fn abort_connection(&self) -> Infallible {
        self.line.cancel();
        std::future::pending().await
    }
}

/// Whether a door is refusing now; what it is to be is the faults' word.
#[derive(Debug)]
pub(super) struct ConnectionState(watch::Sender<bool>);

impl Default for ConnectionState {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl ConnectionState {
    pub(super) async fn until(&self, refusing: bool) {
        // It can't fail: the sender is ours.
        let _ = self.0.subscribe().wait_for(|now| *now == refusing).await;
    }
}

/// A loopback listener.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, SandboxStartError> {
    if !address.ip().is_loopback() {
        return Err(SandboxStartError::NotLoopback(address));
    }
    let listening = TcpListener::bind(address).await;
    listening.map_err(|source| SandboxStartError::Listen { address, source })
}

pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr, SandboxStartError> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    listener
        .local_addr()
        .map_err(|source| SandboxStartError::Listen {
            address: any,
            source,
        })
}

pub(super) struct SandboxListener {
    pub routes: Router<RequestContext>,
    pub shared: Arc<SandboxState>,
    pub closing: CancellationToken,
    /// When to refuse; none for a door that never does.
    pub refusing: Option<watch::Receiver<bool>>,
}

impl SandboxListener {
    /// Serves until `closing`, then ends what is under way.
    pub(super) async fn serve(mut self, listener: TcpListener) {
        let Ok(address) = listener.local_addr() else {
            return;
        };
        let mut listener = listener;
        let mut lines = JoinSet::new();
        loop {
            tokio::select! {
                () = self.closing.cancelled() => break,
                () = until(self.refusing.as_mut(), true) => {
                    drop(listener);
                    lines.shutdown().await;
                    self.say(true);
                    let closing = self.closing.clone();
                    let again = async {
                        until(self.refusing.as_mut(), false).await;
                        bind_again(address).await
                    };
                    listener = tokio::select! {
                        () = closing.cancelled() => return,
                        listener = again => listener,
                    };
                    self.say(false);
                }
                Some(_) = lines.join_next() => {}
                accepted = listener.accept(), if lines.len() < LINES_MAX => match accepted {
                    Ok((stream, _)) => { lines.spawn(self.serve_connection(stream)); }
                    Err(_) => tokio::time::sleep(AGAIN).await,
                },
            }
        }
        drop(listener);
        let rest = async { while lines.join_next().await.is_some() {} };
        // What is not done by then is broken off when `lines` is dropped.
        let _ = tokio::time::timeout(GRACE, rest).await;
    }

    fn say(&self, refusing: bool) {
        self.shared.door.0.send_replace(refusing);
    }

    /// One connection's life.
    fn serve_connection(&self, stream: TcpStream) -> impl Future<Output = ()> + use<> {
        let broken = CancellationToken::new();
        let routes = self.routes.clone().with_state(RequestContext {
            shared: Arc::clone(&self.shared),
            can_refuse: self.refusing.is_some(),
            line: broken.clone(),
        });
        let closing = self.closing.clone();
        async move {
            // Answers are small and waited for; that it can't be set is no reason not to answer.
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(routes);
            let io = TokioIo::new(stream);
            let mut connection = http1::Builder::new().serve_connection(io, service);
            let mut closing = pin!(closing.cancelled());
            let mut closed = false;
            loop {
                tokio::select! {
                    biased;
                    () = broken.cancelled() => {
                        let stream = connection.into_parts().io.into_inner();
                        // A reset, as a crashed peer sends it. Where it can't be set, the caller
                        // sees the connection end instead, which is as good a fault.
                        let _ = stream.set_zero_linger();
                        return;
                    }
                    // An error here is the caller's going away.
                    _ = &mut connection => return,
                    () = &mut closing, if !closed => {
                        closed = true;
                        Pin::new(&mut connection).graceful_shutdown();
                    }
                }
            }
        }
    }
}

/// Returns when the faults want the door so; never, for a door that never refuses.
async fn until(refusing: Option<&mut watch::Receiver<bool>>, so: bool) {
    if let Some(refusing) = refusing
        && refusing.wait_for(|now| *now == so).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// The same port again, as soon as it can be had.
async fn bind_again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
