//! Containers of RabbitMQ in Docker.

use std::{io, net::TcpListener, ops::Range, time::Duration};

use uuid::Uuid;

use super::cleanup_guard::CleanupGuard;
use super::docker_command::{SHORT, docker};
use super::image::BrokerImage;
use super::process::CommandFailed;

/// Marks every container that this project starts: `docker ps --filter label=rename-worker`.
pub const LABEL: &str = "rename-worker=throw-away";

/// For calls that wait until a broker has stopped (2 s on an idle machine).
const LONG: Duration = Duration::from_secs(90);

/// How often another port is tried when somebody was faster to take it.
const PORT_TRIES: usize = 5;

/// Below those that a system gives to outgoing connections (from 32768 on Linux): while a broker
/// restarts nobody listens on its port, and a connection that got it by chance would keep it.
const PORTS: Range<u16> = 16_384..32_768;

/// A running RabbitMQ; removed when dropped, or when this process is gone.
#[derive(Debug)]
pub struct DockerContainer {
    name: String,
    pub amqp_port: u16,
    pub management_port: u16,
    pub prometheus_port: u16,
    _janitor: CleanupGuard,
}

impl DockerContainer {
    /// Starts one. It is up once it greets.
    pub async fn start(image: &BrokerImage) -> Result<Self, CommandFailed> {
        let mut tries = 1;
        loop {
            match Self::start_on_free_ports(image).await {
                Err(error) if tries < PORT_TRIES && error.why.contains("already allocated") => {
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Docker could choose the ports itself, but would choose others after a restart.
    async fn start_on_free_ports(image: &BrokerImage) -> Result<Self, CommandFailed> {
        let cannot = |error: io::Error| CommandFailed {
            program: "docker run".to_owned(),
            why: format!("cannot be prepared: {error}"),
        };
        let [amqp_port, management_port, prometheus_port] = free_ports().map_err(cannot)?;
        let name = format!("rename-worker-{}", Uuid::new_v4().simple());
        // Hired first, so that not even an interrupted start leaves anything behind.
        let janitor = CleanupGuard::of_container(&name).map_err(cannot)?;
        let publish = |host: u16, inside: u16| format!("127.0.0.1:{host}:{inside}");
        docker(
            &[
                "run",
                "--detach",
                "--name",
                &name,
                "--label",
                LABEL,
                "--publish",
                &publish(amqp_port, 5672),
                "--publish",
                &publish(management_port, 15672),
                "--publish",
                &publish(prometheus_port, 15692),
                &image.to_string(),
            ],
            SHORT,
        )
        .await?;
        Ok(Self {
            name,
            amqp_port,
            management_port,
            prometheus_port,
            _janitor: janitor,
        })
    }

    pub(super) fn amqp_address(&self) -> String {
        format!("127.0.0.1:{}", self.amqp_port)
    }

    pub(super) async fn restart(&self) -> Result<(), CommandFailed> {
        // Docker kills what has not stopped by itself after this many seconds.
        docker(&["restart", "--time", "60", &self.name], LONG)
            .await
            .map(drop)
    }

    pub(super) async fn kill(&self) -> Result<(), CommandFailed> {
        docker(&["kill", &self.name], SHORT).await.map(drop)
    }

    pub(super) async fn start_again(&self) -> Result<(), CommandFailed> {
        docker(&["start", &self.name], SHORT).await.map(drop)
    }

    pub(super) async fn pause(&self) -> Result<(), CommandFailed> {
        docker(&["pause", &self.name], SHORT).await.map(drop)
    }

    pub(super) async fn unpause(&self) -> Result<(), CommandFailed> {
        docker(&["unpause", &self.name], SHORT).await.map(drop)
    }

    pub(super) async fn ctl(&self, arguments: &[&str]) -> Result<String, CommandFailed> {
        let call = [&["exec", &self.name, "rabbitmqctl"], arguments].concat();
        docker(&call, LONG).await
    }
}

/// Ports that nothing listens on now, and that no outgoing connection will take by chance.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    // All are held until all are known, else the same one might be given twice.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = hold_one()?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Begins anywhere, so that two runs beside each other seldom ask for the same.
fn hold_one() -> io::Result<TcpListener> {
    let (.., anywhere) = Uuid::new_v4().as_u64_pair();
    let count = u64::from(PORTS.end - PORTS.start);
    let skipped = usize::try_from(anywhere % count).unwrap_or_default();
    PORTS
        .cycle()
        .skip(skipped)
        .take(PORTS.len())
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn free_ports_differ_from_each_other() {
        let ports: [u16; 8] = free_ports().unwrap();
        assert_eq!(HashSet::from(ports).len(), 8);
    }

    #[test]
    fn a_free_port_is_none_that_an_outgoing_connection_may_get() {
        let ports: [u16; 8] = free_ports().unwrap();
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
    }
}
