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
//! - Its URL parser turns an IPv6 address into `localhost`, and takes a piece of a password that is
//!   not percent-encoded for the virtual host: [`AmqpUrl`] reads the URL.
//! - It tries the addresses of a name one after the other, each for as long as the system does, so a
//!   node whose machine is gone would use up the time of all: see [`happy_eyeballs`].
//! - It cannot read all that a broker may deliver, so it hears the broker by an [`SanitizingStream`].

use std::io;
use std::net::{Shutdown, TcpStream as Socket};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use lapin::tcp::{AsyncTcpStream, RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{
    AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism,
};
use lapin::{Connection, ConnectionProperties, Event};
use secrecy::{ExposeSecret as _, SecretString};

use super::flow::{ReadFlow, ThrottledStream};
use super::frame_filter::{FRAME_MAX, FRAME_MIN, FRAME_MOST, FrameFilter, StreamLimits};
use super::happy_eyeballs;
use super::lapin_runtime::{ObservedStream, TcpConnect, listening};
use super::sanitizing_stream::{ReadActivity, SanitizingStream};
use super::server_properties::ServerVersion;
use crate::broker::error::BrokerError;
use crate::config::pem::{self, BadIdentity};
use crate::config::{AmqpSection, AmqpUrl, AuthMechanism};

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
pub(in crate::broker) struct AmqpConnection {
    /// Shared with publishers, which open another channel when theirs is closed.
    pub(in crate::broker) connection: Arc<Connection>,
    /// What lapin tells of it, from its first moment on.
    pub(in crate::broker) events: Pin<Box<dyn Stream<Item = Event> + Send + Sync>>,
    /// What the broker said of itself.
    pub(in crate::broker) greeting: Arc<ServerVersion>,
    /// How much may come at a time; without a limit, unless somebody sets one.
    pub(in crate::broker) flow: ReadFlow,
    cutter: SocketShutdown,
}

/// Opens a connection with the URL, certificates and key as they are now.
pub(in crate::broker) async fn open(
    amqp: &AmqpSection,
    name: &str,
) -> Result<AmqpConnection, BrokerError> {
    open_limited(amqp, name, StreamLimits::NONE, ReadActivity::default()).await
}

/// The same, but what exceeds the limits is cut, and `pulse` beats whenever the broker says
/// something.
pub(in crate::broker) async fn open_limited(
    amqp: &AmqpSection,
    name: &str,
    limits: StreamLimits,
    pulse: ReadActivity,
) -> Result<AmqpConnection, BrokerError> {
    let door = Arc::new(BrokerEndpoint::load(amqp).await?);
    let cutter = SocketShutdown::default();
    let unless_open = cutter.cut_on_drop();
    let greeting = Arc::new(ServerVersion::default());
    let flow = ReadFlow::default();
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let frame_max = door.uri.query.frame_max.unwrap_or(FRAME_MAX);
    let connecting = Connection::connector(
        door.uri.clone(),
        listening(),
        {
            let (cutter, greeting) = (cutter.clone(), Arc::clone(&greeting));
            let flow = flow.clone();
            async move |_, _| {
                let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, door.connect(&cutter))
                    .await
                    .map_err(timed_out)
                    .flatten()?;
                let stream = ThrottledStream::new(stream, flow.clone());
                // The TLS is below the ear.
                let filter = FrameFilter::new(limits, frame_max, Arc::clone(&greeting));
                let heard = SanitizingStream::new(stream, filter, pulse.clone());
                Ok(AsyncTcpStream::<ObservedStream>::Plain(heard))
            }
        },
        properties,
    );
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => {
            unless_open.disarm();
            Ok(AmqpConnection {
                events: Box::pin(connection.events_listener()),
                connection: Arc::new(connection),
                greeting,
                flow,
                cutter,
            })
        }
        Ok(Err(error)) => Err(BrokerError::from_connect(&error)),
        Err(_) => Err(BrokerError::Silent(HANDSHAKE_TIMEOUT.as_secs())),
    }
}

impl AmqpConnection {
    /// Says goodbye if the broker listens, and cuts the connection if it does not.
    pub(in crate::broker) async fn close(self) {
        let closing = self.connection.close(200, "OK".into());
        tokio::time::timeout(CLOSE_TIMEOUT, closing).await.ok();
        self.cutter.cut();
    }

    /// Ends it without a word.
    pub(in crate::broker) fn cut(&self) {
        self.cutter.cut();
    }

    pub(in crate::broker) fn cut_on_drop(&self) -> AbortOnDrop {
        self.cutter.cut_on_drop()
    }
}

impl std::fmt::Debug for AmqpConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

/// A second handle on the connection's socket. lapin's I/O thread owns the first and lets go of it
/// only when the peer does, so a dead peer would keep both for ever.
#[derive(Clone, Default)]
struct SocketShutdown(Arc<Mutex<SocketState>>);

#[derive(Default)]
enum SocketState {
    #[default]
    Nothing,
    Socket(Socket),
    /// Whatever comes now is too late.
    Cut,
}

impl SocketShutdown {
    fn hold(&self, stream: &tokio::net::TcpStream) -> io::Result<()> {
        let socket = Socket::from(stream.as_fd().try_clone_to_owned()?);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*held, SocketState::Cut) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        *held = SocketState::Socket(socket);
        Ok(())
    }

    fn cut_on_drop(&self) -> AbortOnDrop {
        AbortOnDrop(Some(self.clone()))
    }

    fn cut(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let SocketState::Socket(socket) = std::mem::replace(&mut *held, SocketState::Cut) {
            // It fails when the socket is closed already, which is what is wanted.
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Cuts a connection off whose opening is given up or fails.
pub(in crate::broker) struct AbortOnDrop(Option<SocketShutdown>);

impl AbortOnDrop {
    pub(in crate::broker) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(cutter) = &self.0 {
            cutter.cut();
        }
    }
}

/// Where the broker is and how to get in, as the settings and their files say it now.
struct BrokerEndpoint {
    uri: AMQPUri,
    tls: Option<RustlsConnector>,
}

impl BrokerEndpoint {
    async fn load(amqp: &AmqpSection) -> Result<Self, BrokerError> {
        let amqp = amqp.clone();
        // Files are read.
        tokio::task::spawn_blocking(move || Self::read(&amqp))
            .await
            .map_err(|error| BrokerError::Settings(error.to_string()))?
    }

    /// Connects, and gives `cutter` the means to cut off what it may have to wait for.
    async fn connect(&self, cutter: &SocketShutdown) -> io::Result<AsyncTcpStream<TcpConnect>> {
        let authority = &self.uri.authority;
        let tcp = happy_eyeballs::connect_tcp(
            &authority.host,
            authority.port,
            crate::clock::random_unit(),
        )
        .await?;
        cutter.hold(tcp.get_ref())?;
        let stream = AsyncTcpStream::Plain(tcp);
        match &self.tls {
            Some(connector) => stream.into_rustls(connector, &authority.host).await,
            None => Ok(stream),
        }
    }

    fn read(amqp: &AmqpSection) -> Result<Self, BrokerError> {
        let url = read_url(amqp)?;
        let tls = if url.tls {
            Some(tls_connector(amqp)?)
        } else {
            None
        };
        Ok(Self {
            uri: uri(&url),
            tls,
        })
    }
}

/// Where the broker is, as `amqp.url` has it; without user and password, so that a person may see it.
pub fn address(amqp: &AmqpSection) -> Option<String> {
    let AmqpUrl {
        host, port, vhost, ..
    } = read_url(amqp).ok()?;
    Some(format!("{host}, port {port}, virtual host {vhost}"))
}

/// User, password and virtual host of `amqp.url`.
pub(in crate::broker) async fn login(
    amqp: &AmqpSection,
) -> Result<(String, SecretString, String), BrokerError> {
    let AMQPUri {
        authority, vhost, ..
    } = BrokerEndpoint::load(amqp).await?.uri.clone();
    let AMQPUserInfo { username, password } = authority.userinfo;
    Ok((username, password.into(), vhost))
}

/// A stream to another port, with the certificates of `amqp` where it is TLS.
pub(in crate::broker) async fn stream_to(
    amqp: &AmqpSection,
    (host, port): (&str, u16),
    is_tls: bool,
) -> io::Result<AsyncTcpStream<TcpConnect>> {
    let tcp = happy_eyeballs::connect_tcp(host, port, crate::clock::random_unit()).await?;
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

/// The URL as the settings or their file have it now.
fn read_url(amqp: &AmqpSection) -> Result<AmqpUrl, BrokerError> {
    let key = match amqp.url.file() {
        None => "amqp.url",
        Some(_) => "amqp.url_file",
    };
    let text = amqp.url.read().map_err(|error| bad_url(key, &error))?;
    AmqpUrl::parse(text.expose_secret()).map_err(|bad| bad_url(key, &bad))
}

/// The same URL as lapin has it. Its own parser is not asked: it takes less care of a broken URL
/// than [`AmqpUrl`], and an IPv6 address for `localhost`.
fn uri(url: &AmqpUrl) -> AMQPUri {
    AMQPUri {
        scheme: if url.tls {
            AMQPScheme::AMQPS
        } else {
            AMQPScheme::AMQP
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: url.user.expose_secret().to_owned(),
                password: url.password.expose_secret().to_owned(),
            },
            host: url.host.clone(),
            port: url.port,
        },
        vhost: url.vhost.clone(),
        query: AMQPQueryString {
            frame_max: Some(frame_max(url.frame_max)),
            channel_max: url.channel_max,
            heartbeat: Some(url.heartbeat.unwrap_or(HEARTBEAT)),
            connection_timeout: None,
            auth_mechanism: url.mechanism.map(|mechanism| match mechanism {
                AuthMechanism::AmqPlain => SASLMechanism::AMQPlain,
                AuthMechanism::Anonymous => SASLMechanism::Anonymous,
                AuthMechanism::External => SASLMechanism::External,
                AuthMechanism::Plain => SASLMechanism::Plain,
                AuthMechanism::RabbitCrDemo => SASLMechanism::RabbitCrDemo,
            }),
        },
    }
}

/// The frame size to ask for. Without one, or with 0, "no limit", lapin asks for none: where the
/// broker has none either, it then reserves 128 GiB.
fn frame_max(in_url: Option<u32>) -> u32 {
    let wanted = in_url.filter(|size| *size > 0).unwrap_or(FRAME_MAX);
    wanted.clamp(FRAME_MIN, FRAME_MOST)
}

fn tls_connector(amqp: &AmqpSection) -> Result<RustlsConnector, BrokerError> {
    let roots = match &amqp.ca_file {
        Some(path) => {
            let bad = |bad| bad_url("amqp.ca_file", &bad);
            let content = pem::content(path).map_err(bad)?;
            pem::authorities(&content).map_err(bad)?;
            RustlsConnectorConfig::default()
                .with_parsable_certificates(pem::certificates(&content).map_err(bad)?)
        }
        None => RustlsConnectorConfig::new_with_native_certs().map_err(|_| {
            BrokerError::Settings(
                "amqp.ca_file is not set, and this machine has no trusted certificates".to_owned(),
            )
        })?,
    };
    let made = match (&amqp.client_cert_file, &amqp.client_key_file) {
        (Some(certificate), Some(key)) => {
            let identity = pem::identity(certificate, key).map_err(|bad| match bad {
                BadIdentity::Certificate(bad) => bad_url("amqp.client_cert_file", &bad),
                BadIdentity::Key(bad) => bad_url("amqp.client_key_file", &bad),
            })?;
            roots.connector_with_single_cert(identity.chain, identity.key)
        }
        _ => roots.connector_with_no_client_auth(),
    };
    made.map_err(|_| {
        BrokerError::Settings("TLS cannot be set up with amqp.ca_file and its kin".to_owned())
    })
}

/// What is wrong with a key or with what it leads to; none of it is a part of the value.
fn bad_url(key: &str, what: &dyn std::fmt::Display) -> BrokerError {
    BrokerError::Settings(format!("{key} {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Secret, Settings};

    fn parsed(url: &str) -> AMQPUri {
        uri(&AmqpUrl::parse(url).unwrap())
    }

    #[test]
    fn an_ipv6_address_is_not_taken_for_localhost() {
        for (url, host) in [
            ("amqp://u:p@[2001:db8::1]:5673/%2f", "2001:db8::1"),
            ("amqp://[::1]", "::1"),
            ("amqp://127.0.0.1:5672/%2f", "127.0.0.1"),
            ("amqps://mq.example.com/vhost", "mq.example.com"),
        ] {
            assert_eq!(parsed(url).authority.host, host, "{url}");
        }
    }

    #[test]
    fn the_heartbeat_is_ours_unless_the_url_says_otherwise() {
        let heartbeat = |url: &str| parsed(url).query.heartbeat;
        assert_eq!(heartbeat("amqp://mq"), Some(HEARTBEAT));
        assert_eq!(heartbeat("amqp://mq/%2f?heartbeat=30"), Some(30));
    }

    fn assert_read_as_lapin_reads_it(url: &str) {
        let mut theirs: AMQPUri = url.parse().unwrap();
        theirs.query.heartbeat.get_or_insert(HEARTBEAT);
        theirs.query.frame_max = Some(frame_max(theirs.query.frame_max));
        // It is not used.
        theirs.query.connection_timeout = None;
        assert_eq!(parsed(url), theirs, "{url}");
    }

    #[test]
    fn lapin_s_own_parser_reads_the_same_from_a_url() {
        for url in [
            "amqp://localhost",
            "amqps://u%40x:p%2f%23@mq.example.com:5673/a%2fb?heartbeat=7&frame_max=8192",
            "amqp://user@mq?channel_max=64&auth_mechanism=AMQPLAIN&connection_timeout=5000",
            "amqps://:@mq/v?auth_mechanism=external",
            "amqp://u:p%25q@ho%61st/%2f",
        ] {
            assert_read_as_lapin_reads_it(url);
        }
    }

    proptest! {
        #[test]
        fn lapin_s_own_parser_reads_the_same_from_whatever_is_accepted(
            url in "amqps?://([a-z%2f:@+ /?#\\\\é]{0,8}@)?[a-z.%6]{1,6}(:[0-9]{1,5})?\
                    (/[a-z%2f ]{0,6})?\
                    (\\?(heartbeat|frame_max|channel_max|auth_mechanism|x)=[a-z0-9%+]{0,6})?",
        ) {
            if AmqpUrl::parse(&url).is_ok() {
                assert_read_as_lapin_reads_it(&url);
            }
        }
    }

    #[test]
    fn the_frame_size_is_always_limited() {
        let size = |url: &str| parsed(url).query.frame_max;
        assert_eq!(size("amqp://mq"), Some(FRAME_MAX));
        assert_eq!(size("amqp://mq/%2f?frame_max=0"), Some(FRAME_MAX));
        assert_eq!(size("amqp://mq/%2f?frame_max=4096"), Some(FRAME_MIN));
        assert_eq!(size("amqp://mq/%2f?frame_max=10000"), Some(10_000));
        assert_eq!(size("amqp://mq/%2f?frame_max=4294967295"), Some(FRAME_MOST));
    }

    #[test]
    fn where_the_broker_is_can_be_told_without_secrets() {
        let amqp = AmqpSection {
            url: Secret::inline("amqps://user:hush@mq.example.com/%2f"),
            ..Settings::default().amqp
        };
        let told = address(&amqp).unwrap();
        assert_eq!(told, "mq.example.com, port 5671, virtual host /");
    }
}
