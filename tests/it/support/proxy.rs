//! A TCP proxy that can be told to stall and to cut what goes through it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes moved at a time: small, so that a cut falls into the middle of things.
const CHUNK: usize = 4096;

/// Ends a connection some time after these bytes have come from the target.
#[derive(Debug, Clone, Copy)]
pub struct Trigger {
    pub bytes: &'static [u8],
    pub after: Duration,
}

/// Bytes that end a connection, once.
type Armed = watch::Sender<Option<&'static [u8]>>;

/// Listens on a port of its own, which stays the same whatever becomes of the connections.
pub struct Proxy {
    pub address: SocketAddr,
    stalled: watch::Sender<bool>,
    cuts: watch::Sender<u64>,
    /// What ends the next connection that it comes by.
    armed: Armed,
    open: Arc<AtomicUsize>,
    _closing: DropGuard,
}

impl Proxy {
    /// Forwards to `target`, `host:port`; a target that is away means connections that end at once.
    pub async fn to(target: &str) -> Self {
        Self::with(target, None).await
    }

    /// The same, and ends each connection that the trigger's bytes come by.
    pub async fn with(target: &str, trigger: Option<Trigger>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let closing = CancellationToken::new();
        let proxy = Self {
            address,
            stalled: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            armed: watch::Sender::new(None),
            open: Arc::default(),
            _closing: closing.clone().drop_guard(),
        };
        let (stalled, cuts) = (proxy.stalled.subscribe(), proxy.cuts.subscribe());
        let armed = proxy.armed.clone();
        let (open, target) = (Arc::clone(&proxy.open), target.to_owned());
        tokio::spawn(closing.run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut cuts = cuts.clone();
                // Only cuts from now on concern it.
                cuts.mark_unchanged();
                let (stalled, target) = (stalled.clone(), target.clone());
                let armed = armed.clone();
                let counted = Counted::new(&open);
                tokio::spawn(async move {
                    tokio::select! {
                        () = forward(client, &target, stalled, (trigger, &armed)) => {}
                        _ = cuts.changed() => {}
                    }
                    drop(counted);
                });
            }
        }));
        proxy
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Nothing goes through until [`TestProxy::flow`]; nobody is told.
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    pub fn flow(&self) {
        self.stalled.send_replace(false);
    }

    /// Ends every connection and says how many there were. What was stalled is lost.
    pub fn cut(&self) -> usize {
        let open = self.open();
        self.cuts.send_modify(|count| *count += 1);
        open
    }

    /// Ends the next connection that these bytes come by from the target, without handing them on, and
    /// waits for that. Where they come in two pieces, it is the next after that.
    pub async fn cut_at(&self, bytes: &'static [u8]) {
        self.armed.send_replace(Some(bytes));
        let mut armed = self.armed.subscribe();
        let cut = armed.wait_for(Option::is_none).await;
        cut.expect("the sender lives as long as the proxy");
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn forward(
    client: TcpStream,
    target: &str,
    stalled: watch::Receiver<bool>,
    from_target: (Option<Trigger>, &Armed),
) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, stalled.clone(), None) => {}
        () = pump(from_server, to_client, stalled, Some(from_target)) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut stalled: watch::Receiver<bool>,
    from_target: Option<(Option<Trigger>, &Armed)>,
) {
    let mut chunk = [0; CHUNK];
    let (mut seen, mut end) = (Vec::new(), None);
    loop {
        let length = tokio::select! {
            read = from.read(&mut chunk) => match read {
                Ok(length @ 1..) => length,
                _ => return,
            },
            () = at(end) => return,
        };
        if let Some((_, armed)) = from_target
            && armed.send_if_modified(|armed| {
                let found = armed.is_some_and(|bytes| holds(&chunk[..length], bytes));
                if found {
                    *armed = None;
                }
                found
            })
        {
            return;
        }
        if let Some((Some(Trigger { bytes, after }), _)) = from_target
            && end.is_none()
        {
            // What came in two pieces is seen as well.
            seen.extend_from_slice(&chunk[..length]);
            if holds(&seen, bytes) {
                if after.is_zero() {
                    return;
                }
                end = Some(Instant::now() + after);
            }
            seen.drain(..seen.len().saturating_sub(bytes.len()));
        }
        if stalled.wait_for(|stalled| !stalled).await.is_err()
            || to.write_all(&chunk[..length]).await.is_err()
        {
            return;
        }
    }
}

fn holds(chunk: &[u8], bytes: &[u8]) -> bool {
    chunk.windows(bytes.len()).any(|window| window == bytes)
}

/// Never, without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
