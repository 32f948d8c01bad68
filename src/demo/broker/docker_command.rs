//! The `docker` command: is there a daemon, and one call of it.

use std::time::Duration;

use tokio::process::Command;

use super::process::{CommandFailed, run};

/// For calls that only ask the daemon something, or give it a short order.
pub(super) const SHORT: Duration = Duration::from_secs(30);

/// Whether a daemon answers; the error says what the client said.
pub async fn daemon_answers() -> Result<(), CommandFailed> {
    docker(&["version", "--format", "{{.Server.Version}}"], SHORT)
        .await
        .map(drop)
}

pub(super) async fn docker(arguments: &[&str], limit: Duration) -> Result<String, CommandFailed> {
    run(Command::new("docker").args(arguments), limit).await
}
