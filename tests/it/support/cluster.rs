//! Three RabbitMQ nodes that form a cluster, each of which can be killed or cut off. Needs Docker.
//!
//! Each node is in two networks: the cluster's own, where the nodes know each other by name, and
//! an outer one that only carries the ports that clients use. A node that is cut off loses its
//! peers, not its clients; it then pauses by itself, as RabbitMQ's advice for three nodes has it,
//! and turns its clients away until it is joined again.

use std::time::Duration;

use rename_worker::demo::broker::cleanup_guard::CleanupGuard;
use rename_worker::demo::broker::docker;
use rename_worker::demo::broker::image::BrokerImage;
use tokio::process::Command;
use uuid::Uuid;

use super::{START_LIMIT, UP, amqp::Raw, image_or_skip};

/// An odd number, so that a majority remains when one is gone.
pub const NODES: usize = 3;

/// Where the nodes find each other. The pause between tries is in milliseconds: the three start
/// together, so the first ones have to wait for the last. Silent peers are given up after 5 s rather
/// than a minute.
const CONFIGURATION: &str = "\
loopback_users = none
net_ticktime = 5
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = rabbit@node0
cluster_formation.classic_config.nodes.2 = rabbit@node1
cluster_formation.classic_config.nodes.3 = rabbit@node2
cluster_formation.discovery_retry_limit = 60
cluster_formation.discovery_retry_interval = 500
cluster_partition_handling = pause_minority
";

/// What the nodes of the official image prove their fellowship by; images built here share one
/// already.
const COOKIE: &str = "RENAMEWORKERTESTCOOKIE";

/// The cluster; all of it is gone when this is dropped, or the process ends.
pub struct Cluster {
    pub nodes: Vec<ClusterNode>,
    inner_network: String,
    _janitor: CleanupGuard,
}

/// One node. Its port stays the same when it is killed and started again.
pub struct ClusterNode {
    /// `rabbit@node0` and so on, as RabbitMQ calls it.
    pub name: String,
    pub url: String,
    host: String,
    container: String,
}

/// Starts a cluster, or tells that there is no Docker.
pub async fn cluster_or_skip(what: &str) -> Option<Cluster> {
    let image = image_or_skip(what).await?;
    Some(Cluster::start(&image).await)
}

impl Cluster {
    async fn start(image: &BrokerImage) -> Self {
        let id = format!("rename-worker-it-{}", Uuid::new_v4().simple());
        // Docker publishes ports on the network whose name comes first.
        let outer_network = format!("{id}-a-outer");
        let inner_network = format!("{id}-b-inner");
        let janitor = CleanupGuard::spawn(
            r#"docker rm --force --volumes "$1-0" "$1-1" "$1-2"; docker network rm "$1-a-outer" "$1-b-inner""#,
            &[id.as_ref()],
        )
        .expect("sh can be run");
        for network in [&outer_network, &inner_network] {
            docker(&["network", "create", "--label", docker::LABEL, network]).await;
        }
        let configuration = tempfile::NamedTempFile::new().expect("a file can be made");
        std::fs::write(configuration.path(), CONFIGURATION).expect("a file can be written");
        set_readable(configuration.path());
        let ports: [u16; NODES] = docker::free_ports().expect("ports are free");
        let mut nodes = Vec::with_capacity(NODES);
        for (number, port) in ports.into_iter().enumerate() {
            let node = ClusterNode {
                name: format!("rabbit@node{number}"),
                url: format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
                host: format!("node{number}"),
                container: format!("{id}-{number}"),
            };
            node.create(
                image,
                port,
                &outer_network,
                &inner_network,
                configuration.path(),
            )
            .await;
            nodes.push(node);
        }
        for node in &nodes {
            docker(&["start", &node.container]).await;
        }
        for node in &nodes {
            node.await_up(1).await;
        }
        let cluster = Self {
            nodes,
            inner_network,
            _janitor: janitor,
        };
        cluster
            .await_running_seen_by(&cluster.nodes[0], NODES)
            .await;
        cluster
    }

    /// The node that leads a quorum queue now.
    pub async fn leader_of(&self, queue: &str) -> &ClusterNode {
        for node in &self.nodes {
            let Ok(listed) = node
                .try_ctl(&[
                    "list_queues",
                    "--quiet",
                    "--no-table-headers",
                    "name",
                    "leader",
                ])
                .await
            else {
                continue;
            };
            let leader = listed.lines().find_map(|line| {
                let (name, leader) = line.split_once('\t')?;
                (name == queue).then(|| leader.trim().to_owned())
            });
            if let Some(leader) = leader {
                return self
                    .nodes
                    .iter()
                    .find(|node| node.name == leader)
                    .expect("the leader is one of the nodes");
            }
        }
        panic!("no node knows who leads {queue}");
    }

    /// Parts the node from its peers; its clients still reach it.
    pub async fn cut_off(&self, node: &ClusterNode) {
        docker(&[
            "network",
            "disconnect",
            &self.inner_network,
            &node.container,
        ])
        .await;
    }

    /// Ends [`Cluster::cut_off`].
    pub async fn join_again(&self, node: &ClusterNode) {
        connect(&self.inner_network, node).await;
    }

    /// Waits until `node` sees so many nodes running, itself among them.
    pub async fn await_running_seen_by(&self, node: &ClusterNode, count: usize) {
        let expression =
            "io:format(\"~b\", [length([N || N <- [node() | nodes()], rabbit:is_running(N)])]).";
        let seen = async {
            loop {
                // `eval` prints the expression's value, ok, after what it printed itself.
                let seen = node.try_ctl(&["eval", expression]).await;
                if seen.is_ok_and(|seen| seen.trim_start().starts_with(&count.to_string())) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let came = tokio::time::timeout(START_LIMIT, seen).await;
        assert!(came.is_ok(), "{} does not see {count} nodes", node.name);
    }
}

impl ClusterNode {
    /// Ends it without warning.
    pub async fn kill(&self) {
        docker(&["kill", &self.container]).await;
    }

    /// Starts it after a kill and waits until it is up.
    pub async fn start_again(&self) {
        let starts = self.starts().await;
        docker(&["start", &self.container]).await;
        self.await_up(starts + 1).await;
    }

    /// Runs `rabbitmqctl` on it and returns what it printed.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments)
            .await
            .unwrap_or_else(|why| panic!("rabbitmqctl {arguments:?}: {why}"))
    }

    pub async fn connect(&self) -> Raw {
        Raw::connect(&self.url).await
    }

    async fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        try_docker(&[&["exec", &self.container, "rabbitmqctl"], arguments].concat()).await
    }

    async fn create(
        &self,
        image: &BrokerImage,
        port: u16,
        outer_network: &str,
        inner_network: &str,
        configuration: &std::path::Path,
    ) {
        let cookie = format!("RABBITMQ_ERLANG_COOKIE={COOKIE}");
        let node_name = format!("RABBITMQ_NODENAME={}", self.name);
        let own_address = format!("{}:127.0.0.1", self.host);
        let publish = format!("127.0.0.1:{port}:5672");
        let image_name = image.to_string();
        let mut call = vec![
            "create",
            "--name",
            &self.container,
            "--env",
            &node_name,
            // Its own name must not depend on a network that it may be cut off from.
            "--add-host",
            &own_address,
            "--label",
            docker::LABEL,
            "--network",
            outer_network,
            "--publish",
            &publish,
        ];
        if !image.built_here {
            call.extend(["--env", &cookie]);
        }
        call.push(&image_name);
        docker(&call).await;
        let target = format!("{}:/etc/rabbitmq/conf.d/30-cluster.conf", self.container);
        docker(&["cp", &configuration.display().to_string(), &target]).await;
        connect(inner_network, self).await;
    }

    /// How often the server has come up so far.
    async fn starts(&self) -> usize {
        let log = try_docker(&["logs", &self.container]).await;
        log.map_or(0, |log| log.matches(UP).count())
    }

    async fn await_up(&self, starts: usize) {
        let up = async {
            while self.starts().await < starts {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        let came = tokio::time::timeout(START_LIMIT, up).await;
        assert!(
            came.is_ok(),
            "{} did not come up within {START_LIMIT:?}",
            self.name
        );
    }
}

async fn connect(inner_network: &str, node: &ClusterNode) {
    docker(&[
        "network",
        "connect",
        "--alias",
        &node.host,
        inner_network,
        &node.container,
    ])
    .await;
}

async fn docker(arguments: &[&str]) -> String {
    try_docker(arguments)
        .await
        .unwrap_or_else(|why| panic!("docker {arguments:?}: {why}"))
}

async fn try_docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .await
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// `docker cp` keeps the mode, and the server does not run as the file's owner.
fn set_readable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .expect("it is our own file");
}
