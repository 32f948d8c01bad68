//! What the machine has, and what its package manager can add.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use super::process::{CommandFailed, run};
use super::{ProvisionProgress, host_lock};

/// Where packages put the server without the wrapper that lets only root and `rabbitmq` start it.
const KNOWN_PLACES: [&str; 2] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/sbin/rabbitmq-server",
];

/// Installing RabbitMQ brings Erlang along: about 100 MB.
const INSTALL_LIMIT: Duration = Duration::from_mins(10);

const SHORT: Duration = Duration::from_secs(30);

/// The machine's `rabbitmq-server`.
pub fn server_program() -> Option<PathBuf> {
    KNOWN_PLACES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .or_else(|| find_program("rabbitmq-server"))
}

/// Installs RabbitMQ and stops the service that the package starts: our node is a private one.
pub async fn install(progress: &ProvisionProgress) -> Result<(), String> {
    if !is_root().await {
        return Err("this is not root".to_owned());
    }
    if find_program("apt-get").is_none() {
        return Err("there is no apt-get".to_owned());
    }
    let _turn = host_lock::acquire("rabbitmq-package", progress).await?;
    // Whoever had the turn before may have installed it.
    if server_program().is_some() {
        return Ok(());
    }
    progress("installing Debian's package rabbitmq-server, about a minute, once");
    apt_install("rabbitmq-server")
        .await
        .map_err(|e| e.to_string())?;
    // Which of the two manages services is not worth telling apart; the other one just fails. The
    // port mapper refuses to go if somebody else's node needs it.
    for stop in [
        ["systemctl", "disable", "--now", "rabbitmq-server"].as_slice(),
        &["service", "rabbitmq-server", "stop"],
        &["epmd", "-kill"],
    ] {
        let _ = run(Command::new(stop[0]).args(&stop[1..]), SHORT).await;
    }
    Ok(())
}

/// Installs a package, with fresh lists if the present ones do not do.
pub async fn apt_install(package: &str) -> Result<(), CommandFailed> {
    // Seconds: somebody else may be installing something right now.
    let wait = "DPkg::Lock::Timeout=300";
    let install = [
        "install",
        "--yes",
        "--no-install-recommends",
        "-o",
        wait,
        package,
    ];
    if apt_get(&install).await.is_ok() {
        return Ok(());
    }
    // Some other repository on the machine may be out of reach; what counts is the next step.
    let _ = apt_get(&["update"]).await;
    apt_get(&install).await
}

async fn apt_get(arguments: &[&str]) -> Result<(), CommandFailed> {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut command, INSTALL_LIMIT).await.map(drop)
}

pub async fn is_root() -> bool {
    run(Command::new("id").arg("-u"), SHORT)
        .await
        .is_ok_and(|id| id.trim() == "0")
}

/// Looks a program up in the PATH, and in the places that a user's PATH often lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-here"), None);
    }
}
