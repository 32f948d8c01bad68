//! Finds a RabbitMQ or starts a throw-away one, for the demo and the integration tests.
//!
//! In this order: a given URL, Docker, a `rabbitmq-server` on the machine, Debian's package. What
//! is started here is taken down with the process, however that ends. Talking AMQP is left to
//! others; only the server's greeting is read, which tells that it is up and which version it is.

pub mod docker;
mod docker_command;
mod readiness;
pub mod image;
pub mod cleanup_guard;
mod host_packages;
mod node;
mod process;
mod host_lock;

use std::{fmt, time::Duration};

use url::Url;

use self::docker::DockerContainer;
use self::image::BrokerImage;
use self::node::BrokerNode;
use self::process::CommandFailed;

/// Names the broker to use instead of starting one.
pub const URL_VARIABLE: &str = "RENAME_WORKER_TEST_AMQP_URL";

/// Names the release to start: see [`BrokerRelease`].
pub const RELEASE_VARIABLE: &str = "RABBITMQ";

/// How long a started broker may take until it greets. It takes 4 s on an idle machine; a test run
/// that compiles beside it has been seen to need 20.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How long a broker that somebody else runs may take to greet.
const GIVEN_LIMIT: Duration = Duration::from_secs(5);

/// The releases that are supported, oldest, usual and newest, each as some Debian suite has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BrokerRelease {
    V3_10,
    #[default]
    V4_0,
    V4_3,
}

impl BrokerRelease {
    pub const ALL: [Self; 3] = [Self::V3_10, Self::V4_0, Self::V4_3];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V3_10 => "3.10",
            Self::V4_0 => "4.0",
            Self::V4_3 => "4.3",
        }
    }

    /// The Debian suite whose package is this release.
    #[must_use]
    pub const fn suite(self) -> &'static str {
        match self {
            Self::V3_10 => "bookworm",
            Self::V4_0 => "trixie",
            Self::V4_3 => "sid",
        }
    }

    pub fn parse(text: &str) -> Result<Self, FindError> {
        Self::ALL
            .into_iter()
            .find(|release| release.as_str() == text)
            .ok_or_else(|| FindError::UnknownRelease(text.to_owned()))
    }

    /// Whether a server that calls itself `version` is of this release.
    fn covers(self, version: &str) -> bool {
        version
            .strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl fmt::Display for BrokerRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("`{0}` is no known RabbitMQ release: use 3.10, 4.0 or 4.3")]
    UnknownRelease(String),
    #[error("the given broker URL is not of the form amqp://user:password@host:port/vhost")]
    BadUrl,
    #[error("no RabbitMQ answers at {address}, the given URL: {why}")]
    GivenUnreachable { address: String, why: String },
    #[error(transparent)]
    NoChoiceWorks(#[from] NoChoiceWorks),
}

/// Every choice was tried in vain; its text names them all and says what was wrong with each.
#[derive(Debug)]
pub struct NoChoiceWorks {
    pub docker: String,
    pub machine: String,
    pub install: String,
}

impl std::error::Error for NoChoiceWorks {}

impl fmt::Display for NoChoiceWorks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no RabbitMQ could be found or started; any one of these is enough:\n  \
             1. give the URL of a running one (in {URL_VARIABLE}, or with --amqp-url)\n  \
             2. start Docker ({})\n  \
             3. put rabbitmq-server on the PATH ({})\n  \
             4. run as root on Debian or Ubuntu, to install the package rabbitmq-server ({})",
            self.docker, self.machine, self.install,
        )
    }
}

/// What went wrong with a running broker.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("this broker was given, so it is not ours to stop or start")]
    NotOurs,
    #[error("a private node cannot be paused, only a container can")]
    NotAContainer,
    #[error(transparent)]
    Command(#[from] CommandFailed),
    #[error("the broker did not come up: {0}")]
    NotUp(String),
}

/// Where a broker came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    Given,
    Container { image: String },
    PrivateNode { server: String },
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("the given URL"),
            Self::Container { image } => write!(f, "a throw-away container of {image}"),
            Self::PrivateNode { server } => write!(f, "a throw-away node of {server}"),
        }
    }
}

/// Tells a person what takes so long.
pub type ProvisionProgress = dyn Fn(&str) + Send + Sync;

/// Looks for a broker; see the module's text for the order.
pub struct BrokerProvisioner {
    url: Option<String>,
    release: Option<BrokerRelease>,
    progress: Box<ProvisionProgress>,
}

impl fmt::Debug for BrokerProvisioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder")
            .field("given", &self.url.is_some())
            .field("release", &self.release)
            .finish_non_exhaustive()
    }
}

impl BrokerProvisioner {
    /// As the environment asks: [`URL_VARIABLE`] and [`RELEASE_VARIABLE`], progress on standard
    /// error. An empty variable is none.
    pub fn from_env() -> Result<Self, FindError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Ok(Self {
            url: variable(URL_VARIABLE),
            release: variable(RELEASE_VARIABLE)
                .map(|text| BrokerRelease::parse(&text))
                .transpose()?,
            progress: Box::new(|line| eprintln!("{line}")),
        })
    }

    /// Uses this broker rather than starting one; `None` leaves things as they were.
    #[must_use]
    pub fn with_url(mut self, url: Option<String>) -> Self {
        self.url = url.or(self.url);
        self
    }

    /// Starts one, even if the environment names a URL: for tests that break their broker.
    #[must_use]
    pub fn without_url(mut self) -> Self {
        self.url = None;
        self
    }

    #[must_use]
    pub fn with_release(mut self, release: BrokerRelease) -> Self {
        self.release = Some(release);
        self
    }

    /// Where the lines for a person go.
    #[must_use]
    pub fn with_progress(mut self, progress: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// The URL that will be used instead of starting a broker.
    #[must_use]
    pub fn given_url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Finds or starts the broker.
    pub async fn find(&self) -> Result<DemoBroker, FindError> {
        if let Some(url) = &self.url {
            return given(url).await;
        }
        let docker = match self.find_in_docker().await {
            Ok(broker) => return Ok(broker),
            Err(why) => why,
        };
        let machine = match self.find_on_machine().await {
            Ok(broker) => return Ok(broker),
            Err(why) => why,
        };
        let install = match host_packages::install(&*self.progress).await {
            Ok(()) => match self.find_on_machine().await {
                Ok(broker) => return Ok(broker),
                Err(why) => why,
            },
            Err(why) => why,
        };
        Err(NoChoiceWorks {
            docker,
            machine,
            install,
        }
        .into())
    }

    /// An image to start containers of, present when this returns; or why there is none.
    pub async fn image(&self) -> Result<BrokerImage, String> {
        image::obtain(self.release.unwrap_or_default(), &*self.progress).await
    }

    async fn find_in_docker(&self) -> Result<DemoBroker, String> {
        let image = self.image().await?;
        let container = DockerContainer::start(&image)
            .await
            .map_err(|e| e.to_string())?;
        let version = readiness::await_greeting(&container.amqp_address(), START_LIMIT)
            .await
            .map_err(|why| format!("a container of {image} does not come up: {why}"))?;
        Ok(DemoBroker {
            url: local_url(container.amqp_port),
            management_url: Some(http_url(container.management_port)),
            prometheus_url: Some(http_url(container.prometheus_port)),
            version: Some(version),
            how_found: Provenance::Container {
                image: image.to_string(),
            },
            kind: BrokerKind::Container(container),
        })
    }

    async fn find_on_machine(&self) -> Result<DemoBroker, String> {
        let server = host_packages::server_program().ok_or("there is none")?;
        (self.progress)("starting a private RabbitMQ node for this run");
        let node = BrokerNode::start(&server)?;
        let version = node.await_greeting(START_LIMIT).await?;
        if let Some(release) = self.release
            && !release.covers(&version)
        {
            return Err(format!("it is {version}, not {release} as asked for"));
        }
        Ok(DemoBroker {
            url: local_url(node.ports.amqp),
            management_url: Some(http_url(node.ports.management)),
            prometheus_url: Some(http_url(node.ports.prometheus)),
            version: Some(version),
            how_found: Provenance::PrivateNode {
                server: server.display().to_string(),
            },
            kind: BrokerKind::Node(node),
        })
    }
}

/// A running broker. Ours is gone when this is dropped.
pub struct DemoBroker {
    url: String,
    management_url: Option<String>,
    prometheus_url: Option<String>,
    version: Option<String>,
    how_found: Provenance,
    kind: BrokerKind,
}

enum BrokerKind {
    Given,
    Container(DockerContainer),
    Node(BrokerNode),
}

impl fmt::Debug for DemoBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may carry a password.
        f.debug_struct("Broker")
            .field("how_found", &self.how_found)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl DemoBroker {
    /// `amqp://user:password@host:port/vhost`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The management plugin's address, without a trailing slash; unknown for a given broker.
    #[must_use]
    pub fn management_url(&self) -> Option<&str> {
        self.management_url.as_deref()
    }

    /// The Prometheus plugin's address (its page is `/metrics`); unknown for a given broker.
    #[must_use]
    pub fn prometheus_url(&self) -> Option<&str> {
        self.prometheus_url.as_deref()
    }

    #[must_use]
    pub fn how_found(&self) -> &Provenance {
        &self.how_found
    }

    /// As the server's greeting tells it; unknown where the greeting is inside TLS.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether it was started here, and so may be stopped, restarted and killed.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self.kind, BrokerKind::Given)
    }

    /// Takes down what was started and waits until nothing is left of it. Nothing is said of a
    /// given broker.
    pub async fn stop(self) {
        // Dropping waits for the janitor, which may take a second: not on a runtime's thread.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    /// Stops it as an operator would and starts it again, the same messages in it, on the same
    /// port. Returns when it greets.
    pub async fn restart(&self) -> Result<(), ProvisionError> {
        match &self.kind {
            BrokerKind::Given => return Err(ProvisionError::NotOurs),
            BrokerKind::Container(container) => container.restart().await?,
            BrokerKind::Node(node) => node.restart().await?,
        }
        self.await_greeting().await
    }

    /// Ends it without warning, as a power cut would; [`DemoBroker::start_again`] brings it back.
    pub async fn kill(&self) -> Result<(), ProvisionError> {
        match &self.kind {
            BrokerKind::Given => Err(ProvisionError::NotOurs),
            BrokerKind::Container(container) => Ok(container.kill().await?),
            BrokerKind::Node(node) => Ok(node.kill().await?),
        }
    }

    /// Starts it after a [`DemoBroker::kill`]. Returns when it greets.
    pub async fn start_again(&self) -> Result<(), ProvisionError> {
        match &self.kind {
            BrokerKind::Given => return Err(ProvisionError::NotOurs),
            BrokerKind::Container(container) => container.start_again().await?,
            BrokerKind::Node(node) => node.start_again()?,
        }
        self.await_greeting().await
    }

    /// Freezes it: connections stay open and nothing answers. Containers only.
    pub async fn pause(&self) -> Result<(), ProvisionError> {
        Ok(self.container()?.pause().await?)
    }

    pub async fn unpause(&self) -> Result<(), ProvisionError> {
        Ok(self.container()?.unpause().await?)
    }

    /// Runs `rabbitmqctl` with these arguments and returns what it printed.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String, ProvisionError> {
        match &self.kind {
            BrokerKind::Given => Err(ProvisionError::NotOurs),
            BrokerKind::Container(container) => Ok(container.ctl(arguments).await?),
            BrokerKind::Node(node) => Ok(node.ctl(arguments).await?),
        }
    }

    fn container(&self) -> Result<&DockerContainer, ProvisionError> {
        match &self.kind {
            BrokerKind::Given => Err(ProvisionError::NotOurs),
            BrokerKind::Container(container) => Ok(container),
            BrokerKind::Node(_) => Err(ProvisionError::NotAContainer),
        }
    }

    async fn await_greeting(&self) -> Result<(), ProvisionError> {
        let greeted = match &self.kind {
            BrokerKind::Given => Ok(String::new()),
            BrokerKind::Container(container) => {
                readiness::await_greeting(&container.amqp_address(), START_LIMIT).await
            }
            BrokerKind::Node(node) => node.await_greeting(START_LIMIT).await,
        };
        greeted.map(drop).map_err(ProvisionError::NotUp)
    }
}

/// A broker that somebody else runs: only looked at.
async fn given(url: &str) -> Result<DemoBroker, FindError> {
    let parsed = Url::parse(url).map_err(|_| FindError::BadUrl)?;
    let host = parsed.host_str().ok_or(FindError::BadUrl)?;
    let (address, encrypted) = match parsed.scheme() {
        "amqp" => (format!("{host}:{}", parsed.port().unwrap_or(5672)), false),
        "amqps" => (format!("{host}:{}", parsed.port().unwrap_or(5671)), true),
        _ => return Err(FindError::BadUrl),
    };
    let seen = if encrypted {
        readiness::await_listener(&address, GIVEN_LIMIT)
            .await
            .map(|()| None)
    } else {
        readiness::await_greeting(&address, GIVEN_LIMIT)
            .await
            .map(Some)
    };
    let version = seen.map_err(|why| FindError::GivenUnreachable { address, why })?;
    Ok(DemoBroker {
        url: url.to_owned(),
        management_url: None,
        prometheus_url: None,
        version,
        how_found: Provenance::Given,
        kind: BrokerKind::Given,
    })
}

fn local_url(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
}

fn http_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_covers_its_own_patches_only() {
        assert!(BrokerRelease::V4_0.covers("4.0.5"));
        assert!(BrokerRelease::V4_0.covers("4.0"));
        assert!(BrokerRelease::V3_10.covers("3.10.8"));
        assert!(!BrokerRelease::V4_0.covers("4.05.1"));
        assert!(!BrokerRelease::V4_0.covers("3.10.8"));
    }

    #[test]
    fn an_unknown_release_is_told_with_the_known_ones() {
        let error = BrokerRelease::parse("5.1").unwrap_err().to_string();
        assert_eq!(
            error,
            "`5.1` is no known RabbitMQ release: use 3.10, 4.0 or 4.3"
        );
    }

    #[test]
    fn having_no_broker_names_the_four_choices() {
        let told = FindError::from(NoChoiceWorks {
            docker: "no daemon answers".into(),
            machine: "there is none".into(),
            install: "this is not root".into(),
        })
        .to_string();
        insta::assert_snapshot!(told, @r"
        no RabbitMQ could be found or started; any one of these is enough:
          1. give the URL of a running one (in RENAME_WORKER_TEST_AMQP_URL, or with --amqp-url)
          2. start Docker (no daemon answers)
          3. put rabbitmq-server on the PATH (there is none)
          4. run as root on Debian or Ubuntu, to install the package rabbitmq-server (this is not root)
        ");
    }

    #[tokio::test]
    async fn a_given_url_that_nobody_answers_is_told_without_its_password() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let error = given(&format!("amqp://ola:hush@{address}/%2f"))
            .await
            .unwrap_err();
        let told = error.to_string();
        assert!(told.contains(&address.to_string()), "{told}");
        assert!(!told.contains("hush") && !format!("{error:?}").contains("hush"));
    }

    #[tokio::test]
    async fn a_url_of_another_kind_is_refused() {
        for url in ["", "localhost:5672", "http://localhost", "amqp:///vhost"] {
            assert!(matches!(given(url).await, Err(FindError::BadUrl)), "{url}");
        }
    }
}
