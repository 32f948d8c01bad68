//! What the integration tests share: one broker for the whole binary, ways to talk to it.
//!
//! The broker is started by the first test that asks and removed when the process ends. Tests run
//! beside each other on it: each takes a prefix of its own. A test that breaks its broker takes
//! one of its own ([`own_broker_or_skip`], [`tls`], [`cluster`]).

// Each test file uses the parts it needs; together they use all.
#![expect(
    dead_code,
    reason = "some pieces wait for the tests that other work brings"
)]

pub mod amqp;
pub mod stage;
pub mod cluster;
pub mod collector;
pub mod lower_case_api;
pub mod process;
pub mod proxy;
pub mod tls;

use std::{io::Write as _, sync::Mutex, time::Duration};

use rename_worker::demo::broker::cleanup_guard::CleanupGuard;
use rename_worker::demo::broker::image::BrokerImage;
use rename_worker::demo::broker::{BrokerProvisioner, DemoBroker, docker};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt as _,
    core::{ContainerPort, WaitFor},
    runners::AsyncRunner as _,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// What RabbitMQ prints when it is up.
pub const UP: &str = "Server startup complete";

/// Several brokers starting at once on a small machine need far more than the usual 4 s.
pub const START_LIMIT: Duration = Duration::from_mins(2);

const AMQP: ContainerPort = ContainerPort::Tcp(5672);
const MANAGEMENT: ContainerPort = ContainerPort::Tcp(15672);
const PROMETHEUS: ContainerPort = ContainerPort::Tcp(15692);

/// The broker that all tests share.
#[derive(Debug)]
pub struct Shared {
    pub url: String,
    /// Without a trailing slash; unknown where the URL was given.
    pub management_url: Option<String>,
    /// Its page is `/metrics`; unknown where the URL was given.
    pub prometheus_url: Option<String>,
}

/// The shared broker's URL.
pub async fn broker() -> &'static str {
    &shared().await.url
}

/// The shared broker.
pub async fn shared() -> &'static Shared {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED.get_or_init(start_shared).await
}

/// A prefix that no other test has.
pub fn unique_prefix() -> String {
    format!("it-{}", Uuid::new_v4().simple())
}

/// A broker for one test alone, which may restart, kill and pause it; gone when dropped. `None`
/// where there is only the broker that was given, which is told.
pub async fn own_broker_or_skip(what: &str) -> Option<DemoBroker> {
    match finder().without_url().find().await {
        Ok(broker) => Some(broker),
        Err(why) => {
            say(&format!(
                "SKIPPED {what}: it needs a broker of its own ({why})"
            ));
            None
        }
    }
}

/// The image to start brokers of in Docker. `None` where there is no Docker, which is told: the
/// test then returns without having shown anything.
pub async fn image_or_skip(what: &str) -> Option<BrokerImage> {
    match finder().image().await {
        Ok(image) => Some(image),
        Err(why) => {
            say(&format!("SKIPPED {what}: it needs Docker ({why})"));
            None
        }
    }
}

/// Tells a person something at once, past the test harness, which holds back what tests print.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A container that is removed when the process ends, however it ends.
pub struct Kept {
    pub container: ContainerAsync<GenericImage>,
    _janitor: CleanupGuard,
}

impl Kept {
    pub async fn port(&self, inside: ContainerPort) -> u16 {
        self.container
            .get_host_port_ipv4(inside)
            .await
            .expect("the port is published")
    }
}

/// Starts a broker by testcontainers; `change` adds what the test needs.
pub async fn start_container(
    image: &BrokerImage,
    change: impl FnOnce(
        testcontainers::ContainerRequest<GenericImage>,
    ) -> testcontainers::ContainerRequest<GenericImage>,
) -> Kept {
    let name = format!("rename-worker-it-{}", Uuid::new_v4().simple());
    let janitor = CleanupGuard::of_container(&name).expect("sh can be run");
    let (label, value) = docker::LABEL.split_once('=').expect("a label is key=value");
    let request = GenericImage::new(image.name.clone(), image.tag.clone())
        .with_exposed_port(AMQP)
        .with_exposed_port(MANAGEMENT)
        .with_exposed_port(PROMETHEUS)
        .with_wait_for(WaitFor::message_on_stdout(UP))
        .with_startup_timeout(START_LIMIT)
        .with_label(label, value)
        .with_container_name(name);
    let container = change(request).start().await.expect("the container starts");
    Kept {
        container,
        _janitor: janitor,
    }
}

pub fn finder() -> BrokerProvisioner {
    let finder = BrokerProvisioner::from_env().expect("the environment names a known release");
    finder.with_progress(say)
}

async fn start_shared() -> Shared {
    let finder = finder();
    if finder.given_url().is_none()
        && let Ok(image) = finder.image().await
    {
        let kept = start_container(&image, |request| request).await;
        let (amqp, management, prometheus) = (
            kept.port(AMQP).await,
            kept.port(MANAGEMENT).await,
            kept.port(PROMETHEUS).await,
        );
        keep(kept);
        return Shared {
            url: format!("amqp://guest:guest@127.0.0.1:{amqp}/%2f"),
            management_url: Some(format!("http://127.0.0.1:{management}")),
            prometheus_url: Some(format!("http://127.0.0.1:{prometheus}")),
        };
    }
    let broker = finder
        .find()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let shared = Shared {
        url: broker.url().to_owned(),
        management_url: broker.management_url().map(str::to_owned),
        prometheus_url: broker.prometheus_url().map(str::to_owned),
    };
    keep(broker);
    shared
}

/// Keeps something until the process ends. Statics are never dropped: the janitors clean.
fn keep(what: impl Send + 'static) {
    static KEPT: Mutex<Vec<Box<dyn Send>>> = Mutex::new(Vec::new());
    KEPT.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(Box::new(what));
}
