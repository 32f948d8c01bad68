//! A private RabbitMQ node of the machine's own `rabbitmq-server`: own name, ports, folders and
//! port mapper, so that it neither sees nor disturbs another one on the machine.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use super::cleanup_guard::CleanupGuard;
use super::docker::free_ports;
use super::host_packages::find_program;
use super::process::{CommandFailed, run, script};
use super::readiness;

/// Long enough for a broker with some thousand messages to write them down.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// `rabbitmqctl` starts an Erlang of its own first.
const CTL_LIMIT: Duration = Duration::from_mins(1);

/// How much of the server's log a failed start tells.
const LOG_LINES: usize = 5;

/// The server and its port mapper share a process group, noted in the folder, so that the janitor
/// can find it after a restart.
const CLEAN: &str = r#"
kill -s KILL -- "-$(cat "$1/group")"
kill -s KILL "$(cat "$1/epmd")"
rm -rf "$1""#;

/// The ports that a node listens on, all on loopback.
#[derive(Debug, Clone, Copy)]
pub struct NodePorts {
    pub amqp: u16,
    pub management: u16,
    pub prometheus: u16,
    distribution: u16,
    epmd: u16,
}

/// A running node; stopped and its folder removed when dropped, or when this process is gone.
#[derive(Debug)]
pub struct BrokerNode {
    pub ports: NodePorts,
    server: PathBuf,
    folder: PathBuf,
    running: Mutex<Option<Child>>,
    epmd: Option<Child>,
    _janitor: CleanupGuard,
}

impl BrokerNode {
    /// Starts one. It is up once it greets.
    pub fn start(server: &Path) -> Result<Self, String> {
        Self::prepare(server)
            .and_then(|node| node.spawn().map(|()| node))
            .map_err(|error| format!("{}: {error}", server.display()))
    }

    /// Waits for the greeting, but not longer than the server lives.
    pub async fn await_greeting(&self, limit: Duration) -> Result<String, String> {
        let address = format!("127.0.0.1:{}", self.ports.amqp);
        let greeted = readiness::await_greeting(&address, limit);
        let died = async {
            while !self.has_ended() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let why = tokio::select! {
            greeted = greeted => match greeted {
                Ok(version) => return Ok(version),
                Err(why) => why,
            },
            () = died => "it ended".to_owned(),
        };
        Err(format!("{why}; its log ends: {}", self.end_of_log()))
    }

    /// Asks it to stop, waits, starts it again.
    pub async fn restart(&self) -> Result<(), CommandFailed> {
        if let Some(child) = self.take_running() {
            let id = child.id().to_string();
            self.wait_gone(child, script(r#"kill -s TERM "$1""#, &[OsStr::new(&id)]))
                .await?;
        }
        self.start_again()
    }

    /// Ends it without warning.
    pub async fn kill(&self) -> Result<(), CommandFailed> {
        if let Some(child) = self.take_running() {
            let id = child.id().to_string();
            self.wait_gone(
                child,
                script(r#"kill -s KILL -- "-$1""#, &[OsStr::new(&id)]),
            )
            .await?;
        }
        Ok(())
    }

    pub fn start_again(&self) -> Result<(), CommandFailed> {
        self.spawn().map_err(|error| CommandFailed {
            program: self.server.display().to_string(),
            why: format!("cannot be run: {error}"),
        })
    }

    pub async fn ctl(&self, arguments: &[&str]) -> Result<String, CommandFailed> {
        let beside = self.server.with_file_name("rabbitmqctl");
        let mut command = self.command(&beside);
        command.args(arguments);
        run(&mut command.into(), CTL_LIMIT).await
    }

    fn prepare(server: &Path) -> std::io::Result<Self> {
        let [amqp, management, prometheus, distribution, epmd] = free_ports()?;
        let ports = NodePorts {
            amqp,
            management,
            prometheus,
            distribution,
            epmd,
        };
        let folder = std::env::temp_dir().join(format!("rename-worker-node-{amqp}"));
        fs::create_dir(&folder)?;
        let janitor = CleanupGuard::spawn(CLEAN, &[folder.as_os_str()])?;
        fs::create_dir(folder.join("conf.d"))?;
        fs::write(folder.join("rabbitmq-env.conf"), "")?;
        fs::write(folder.join("advanced.config"), "[].\n")?;
        fs::write(
            folder.join("enabled_plugins"),
            "[rabbitmq_management,rabbitmq_prometheus].\n",
        )?;
        fs::write(folder.join("rabbitmq.conf"), configuration(ports))?;
        let epmd = start_port_mapper(ports.epmd)?;
        if let Some(epmd) = &epmd {
            fs::write(folder.join("epmd"), epmd.id().to_string())?;
        }
        Ok(Self {
            ports,
            server: server.to_owned(),
            folder,
            running: Mutex::new(None),
            epmd,
            _janitor: janitor,
        })
    }

    fn spawn(&self) -> std::io::Result<()> {
        let mut log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        writeln!(log, "starting {}", self.server.display())?;
        let child = self
            .command(&self.server)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us; the server is stopped by the janitor.
            .process_group(0)
            .spawn()?;
        fs::write(self.folder.join("group"), child.id().to_string())?;
        *self.lock() = Some(child);
        Ok(())
    }

    /// One of RabbitMQ's programs, told to use this node's places and no others.
    fn command(&self, program: &Path) -> Command {
        let at = |name: &str| self.folder.join(name);
        let mut command = Command::new(program);
        command
            .env("HOME", &self.folder)
            .env(
                "RABBITMQ_NODENAME",
                format!("private-{}@localhost", self.ports.amqp),
            )
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_CONFIG_FILES", at("conf.d"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", at("data"))
            .env("RABBITMQ_LOG_BASE", at("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", at("pid"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", at("generated"))
            .env("RABBITMQ_SCHEMA_DIR", at("schema"))
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env_remove("NOTIFY_SOCKET");
        if self.epmd.is_some() {
            command.env("ERL_EPMD_PORT", self.ports.epmd.to_string());
        }
        command
    }

    /// Sends the signal and waits until the server has gone, on a thread that may wait.
    async fn wait_gone(
        &self,
        mut child: Child,
        mut signal: tokio::process::Command,
    ) -> Result<(), CommandFailed> {
        run(&mut signal, CTL_LIMIT).await?;
        let gone = tokio::task::spawn_blocking(move || child.wait());
        match tokio::time::timeout(STOP_LIMIT, gone).await {
            Ok(_) => Ok(()),
            Err(_) => Err(CommandFailed {
                program: self.server.display().to_string(),
                why: format!("did not stop within {} s", STOP_LIMIT.as_secs()),
            }),
        }
    }

    fn has_ended(&self) -> bool {
        match self.lock().as_mut() {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => true,
        }
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ")
    }

    fn take_running(&self) -> Option<Child> {
        // Its number must not be killed later, when it may be another process's.
        let _ = fs::remove_file(self.folder.join("group"));
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.running
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for BrokerNode {
    fn drop(&mut self) {
        // Here only so that no zombies are left; the janitor, dropped next, does the rest.
        let server = self.lock().take();
        for mut child in server.into_iter().chain(self.epmd.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Erlang's port mapper. Without one of its own, a node would start one that stays for ever.
fn start_port_mapper(port: u16) -> std::io::Result<Option<Child>> {
    let Some(program) = find_program("epmd") else {
        return Ok(None);
    };
    Command::new(program)
        .args(["-port", &port.to_string(), "-address", "127.0.0.1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map(Some)
}

fn configuration(ports: NodePorts) -> String {
    let NodePorts {
        amqp,
        management,
        prometheus,
        ..
    } = ports;
    format!(
        "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management}\n\
         prometheus.tcp.ip = 127.0.0.1\n\
         prometheus.tcp.port = {prometheus}\n\
         loopback_users = none\n"
    )
}
