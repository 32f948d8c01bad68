//! Processes that are told to stop as a platform does it.

use std::process::ExitStatus;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::stage::PATIENCE;

pub async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("it runs").to_string();
    let told = Command::new("kill").args(["-s", name, &id]).status().await;
    assert!(told.is_ok_and(|status| status.success()), "no signal");
}

/// Has it finish what it has begun, so that the broker delivers none of that again.
pub async fn terminate(child: &mut Child) -> ExitStatus {
    signal(child, "TERM").await;
    let ended = timeout(PATIENCE, child.wait()).await;
    ended.expect("it ends").expect("it is our child")
}
