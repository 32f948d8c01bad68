//! Opens a connection to the broker: URL, TLS, timeouts, heartbeat. No retry: `link` does that.
//!
//! # Why not lapin's own recovery
//!
//! lapin 4.12 can reconnect by itself (`enable_auto_recover`). We open every connection anew
//! instead, in a loop of our own, because
//!
//! 1. **An ack must never reach a channel that did not deliver.** lapin keeps the channel objects
//!    across a recovery and starts the delivery tags anew; until 4.12.3 (18 October 2026) an ack of
//!    the old channel was sent on the new one, where the same tag is another request. Here an old
//!    session's channel object is never used again, so the mistake cannot be written.
//! 2. **It retries what cannot heal.** `Error::can_be_recovered` is true of every protocol error,
//!    access refused and precondition failed among them, and the pace is one exponential series for
//!    all of them. We tell them apart: a restart is tried again within a second, a refusal seldom.
//! 3. **It gives up.** After 16 tries by default the connection is dead for good, and the waits in
//!    between are a `std::thread::sleep` in the I/O loop.
//! 4. **It connects with what it was given at first.** The URL and the certificates are captured
//!    once, so a rotated password or certificate would need a restart of the process.
//! 5. **It does not recover channels** ("Channels will still be recovered during connection
//!    recovery, but not outside of this scenario", changelog of 4.0): a closed channel or a
//!    cancelled consumer on a living connection needs a loop like ours anyway.
//! 6. **It is young.** The prefetch was lost by a recovery until 4.12.1, a first connection hung
//!    until 4.11 (issue 468), and issue 450, "Automatic recovery is not working" after a broker's
//!    restart, is open.
//!
//! # What else lapin leaves to us
//!
//! - Its asynchronous connect ignores `connection_timeout`, and giving up the future leaves an I/O
//!   thread behind that waits for the peer. So TCP and TLS are done here under a timeout, and a
//!   second handle on the socket is kept, by which a stuck connection is cut off.
//! - Its TLS always loads the system's roots and fails where there are none, as in an image
//!   `FROM scratch`. So the rustls configuration is made here: `ca_file` replaces the roots.
//! - Its URL parser turns an IPv6 address into `localhost`.
//! - It tries the addresses of a name one after the other, each for as long as the system does, so a
//!   node whose machine is gone would use up the time of all: see [`reach`].
//! - It cannot read all that a broker may deliver, so it hears the broker by an [`Ear`].

use std::io;
use std::net::{Shutdown, TcpStream as Socket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use lapin::tcp::{AsyncTcpStream, RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties, Event};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};

use super::ear::{Ear, Pulse};
use super::greeting::Greeting;
use super::reach;
use super::runtime::{Heard, Tcp, listening};
use super::trouble::Trouble;
use crate::config::Amqp;

/// TCP and TLS together. A broker in reach answers in milliseconds; 5 s outlast a lost SYN twice.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte to an open connection, TCP and TLS included. RabbitMQ's own limit is 10 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds between heartbeats, unless the URL says otherwise. RabbitMQ's 60 s would leave a cut
/// cable unnoticed for two minutes; 10 s finds it in 20, and is well above what its
/// documentation calls prone to false alarms (below 5 s).
const HEARTBEAT: u16 = 10;
/// How long a graceful close may take before the socket is cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A live connection, and the means to cut it.
pub(super) struct Wire {
    pub(super) connection: Connection,
    /// What lapin tells of it, from its first moment on.
    pub(super) events: Pin<Box<dyn Stream<Item = Event> + Send + Sync>>,
    /// What the broker said of itself.
    pub(super) greeting: Arc<Greeting>,
    cutter: Cutter,
}

/// Opens a connection with the URL, certificates and key as they are now.
pub(super) async fn open(amqp: &Amqp, name: &str) -> Result<Wire, Trouble> {
    open_felt(amqp, name, Pulse::default()).await
}

/// The same; `pulse` beats whenever the broker says something.
pub(super) async fn open_felt(amqp: &Amqp, name: &str, pulse: Pulse) -> Result<Wire, Trouble> {
    let door = Arc::new(Door::find(amqp).await?);
    let cutter = Cutter::default();
    let unless_open = cutter.cut_on_drop();
    let greeting = Arc::new(Greeting::default());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = Connection::connector(
        door.uri.clone(),
        listening(),
        {
            let (cutter, greeting) = (cutter.clone(), Arc::clone(&greeting));
            async move |_, _| {
                let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, door.enter(&cutter))
                    .await
                    .map_err(timed_out)
                    .flatten()?;
                // The TLS is below the ear.
                let heard = Ear::new(stream, Arc::clone(&greeting), pulse.clone());
                Ok(AsyncTcpStream::<Heard>::Plain(heard))
            }
        },
        properties,
    );
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => {
            unless_open.disarm();
            Ok(Wire {
                events: Box::pin(connection.events_listener()),
                connection,
                greeting,
                cutter,
            })
        }
        Ok(Err(error)) => Err(Trouble::of_connecting(&error)),
        Err(_) => Err(Trouble::Silent(HANDSHAKE_TIMEOUT.as_secs())),
    }
}

impl Wire {
    /// Says goodbye if the broker listens, and cuts the connection if it does not.
    pub(super) async fn close(self) {
        let closing = self.connection.close(200, "OK".into());
        tokio::time::timeout(CLOSE_TIMEOUT, closing).await.ok();
        self.cutter.cut();
    }

    /// Ends it without a word.
    pub(super) fn cut(&self) {
        self.cutter.cut();
    }

    pub(super) fn cut_on_drop(&self) -> CutOnDrop {
        self.cutter.cut_on_drop()
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

/// A second handle on the connection's socket. lapin's I/O thread owns the first and lets go of it
/// only when the peer does, so a dead peer would keep both for ever.
#[derive(Clone, Default)]
struct Cutter(Arc<Mutex<Held>>);

#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Socket(Socket),
    /// Whatever comes now is too late.
    Cut,
}

impl Cutter {
    fn hold(&self, stream: &tokio::net::TcpStream) -> io::Result<()> {
        let socket = Socket::from(stream.as_fd().try_clone_to_owned()?);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*held, Held::Cut) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        *held = Held::Socket(socket);
        Ok(())
    }

    fn cut_on_drop(&self) -> CutOnDrop {
        CutOnDrop(Some(self.clone()))
    }

    fn cut(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Held::Socket(socket) = std::mem::replace(&mut *held, Held::Cut) {
            // It fails when the socket is closed already, which is what is wanted.
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Cuts a connection off whose opening is given up or fails.
pub(super) struct CutOnDrop(Option<Cutter>);

impl CutOnDrop {
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(cutter) = &self.0 {
            cutter.cut();
        }
    }
}

/// Where the broker is and how to get in, as the settings and their files say it now.
struct Door {
    uri: AMQPUri,
    tls: Option<RustlsConnector>,
}

impl Door {
    async fn find(amqp: &Amqp) -> Result<Self, Trouble> {
        let amqp = amqp.clone();
        // Files are read.
        tokio::task::spawn_blocking(move || Self::read(&amqp))
            .await
            .map_err(|error| Trouble::Settings(error.to_string()))?
    }

    /// Connects, and gives `cutter` the means to cut off what it may have to wait for.
    async fn enter(&self, cutter: &Cutter) -> io::Result<AsyncTcpStream<Tcp>> {
        let authority = &self.uri.authority;
        let tcp = reach::tcp(&authority.host, authority.port, crate::clock::chance()).await?;
        cutter.hold(tcp.get_ref())?;
        let stream = AsyncTcpStream::Plain(tcp);
        match &self.tls {
            Some(connector) => stream.into_rustls(connector, &authority.host).await,
            None => Ok(stream),
        }
    }

    fn read(amqp: &Amqp) -> Result<Self, Trouble> {
        let url = amqp
            .url
            .read()
            .map_err(|error| Trouble::Settings(error.to_string()))?;
        let uri = parse_url(url.expose_secret())?;
        let tls = match uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => Some(tls_connector(amqp)?),
        };
        Ok(Self { uri, tls })
    }
}

/// Where the broker is, as `amqp.url` has it; without user and password, so that a person may see it.
pub fn address(amqp: &Amqp) -> Option<String> {
    let url = amqp.url.read().ok()?;
    let AMQPUri {
        authority, vhost, ..
    } = parse_url(url.expose_secret()).ok()?;
    let (host, port) = (authority.host, authority.port);
    Some(format!("{host}, port {port}, virtual host {vhost}"))
}

/// User, password and virtual host of `amqp.url`.
pub(super) async fn login(amqp: &Amqp) -> Result<(String, SecretString, String), Trouble> {
    let AMQPUri {
        authority, vhost, ..
    } = Door::find(amqp).await?.uri;
    let AMQPUserInfo { username, password } = authority.userinfo;
    Ok((username, password.into(), vhost))
}

/// A stream to another port, with the certificates of `amqp` where it is TLS.
pub(super) async fn stream_to(
    amqp: &Amqp,
    (host, port): (&str, u16),
    is_tls: bool,
) -> io::Result<AsyncTcpStream<Tcp>> {
    let tcp = reach::tcp(host, port, crate::clock::chance()).await?;
    let stream = AsyncTcpStream::Plain(tcp);
    if !is_tls {
        return Ok(stream);
    }
    let amqp = amqp.clone();
    // Files are read.
    let connector = tokio::task::spawn_blocking(move || tls_connector(&amqp))
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)?;
    stream.into_rustls(&connector, host).await
}

fn parse_url(url: &str) -> Result<AMQPUri, Trouble> {
    // The parser's error may quote the URL, which has a password in it.
    let mut uri: AMQPUri = url
        .parse()
        .map_err(|_| Trouble::Settings("amqp.url is no AMQP URL".to_owned()))?;
    if let Some(address) = ipv6_of(url) {
        uri.authority.host = address;
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    Ok(uri)
}

/// The address in `amqp://user:password@[::1]:5672/`.
fn ipv6_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let (address, _) = host.strip_prefix('[')?.split_once(']')?;
    Some(address.to_owned())
}

fn tls_connector(amqp: &Amqp) -> Result<RustlsConnector, Trouble> {
    let roots = match &amqp.ca_file {
        Some(path) => {
            RustlsConnectorConfig::default().with_parsable_certificates(certificates(path)?)
        }
        None => RustlsConnectorConfig::new_with_native_certs().map_err(|error| {
            Trouble::Settings(format!(
                "the system's CA certificates cannot be used, set amqp.ca_file: {error}"
            ))
        })?,
    };
    match (&amqp.client_cert_file, &amqp.client_key_file) {
        (Some(cert), Some(key)) => roots
            .connector_with_single_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| unusable("client certificate", cert, &error)),
        _ => roots
            .connector_with_no_client_auth()
            .map_err(|error| Trouble::Settings(error.to_string())),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable("certificate", path, &error))?;
    if certificates.is_empty() {
        return Err(unusable("certificate", path, &"there is none in it"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Trouble> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable("private key", path, &error))
}

fn unusable(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Trouble {
    Trouble::Settings(format!(
        "cannot use the {what} in {}: {error}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, Settings};

    #[test]
    fn an_ipv6_address_is_not_taken_for_localhost() {
        for (url, host) in [
            ("amqp://u:p@[2001:db8::1]:5673/%2f", "2001:db8::1"),
            ("amqp://[::1]", "::1"),
            ("amqp://127.0.0.1:5672/%2f", "127.0.0.1"),
            ("amqps://mq.example.com/vhost", "mq.example.com"),
        ] {
            assert_eq!(parse_url(url).unwrap().authority.host, host, "{url}");
        }
    }

    #[test]
    fn the_heartbeat_is_ours_unless_the_url_says_otherwise() {
        let heartbeat = |url: &str| parse_url(url).unwrap().query.heartbeat;
        assert_eq!(heartbeat("amqp://mq"), Some(HEARTBEAT));
        assert_eq!(heartbeat("amqp://mq/?heartbeat=30"), Some(30));
    }

    #[test]
    fn where_the_broker_is_can_be_told_without_secrets() {
        let amqp = Amqp {
            url: Secret::inline("amqps://user:hush@mq.example.com/%2f"),
            ..Settings::default().amqp
        };
        let told = address(&amqp).unwrap();
        assert_eq!(told, "mq.example.com, port 5671, virtual host /");
    }

    #[test]
    fn a_bad_url_is_not_quoted() {
        let told = parse_url("http://user:hush@mq").unwrap_err().to_string();
        assert!(!told.contains("hush"), "{told}");
    }
}
