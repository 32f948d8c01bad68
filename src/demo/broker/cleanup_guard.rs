//! Cleans up when this process is gone, however it went: returned, panicked, interrupted, killed.
//!
//! A destructor runs only on the first two. So a child of its own process group holds the read
//! end of a pipe and waits; when the write end closes, by hand or by the kernel, it cleans.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

/// Ctrl-C reaches other process groups only through a shell that forwards it; being told to end
/// before the work is done must not stop the cleaning.
const WAIT_THEN_CLEAN: &str = "trap '' INT TERM HUP; cat >/dev/null; ";

/// Dropping it cleans at once and waits until that is done.
#[derive(Debug)]
pub struct CleanupGuard {
    child: Child,
}

impl CleanupGuard {
    /// When this process or the janitor is gone, `sh` runs `script` with `arguments` as `$1`, ….
    pub fn spawn(script: &str, arguments: &[&OsStr]) -> io::Result<Self> {
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{WAIT_THEN_CLEAN}{script}"))
            .arg("janitor")
            .args(arguments)
            .stdin(Stdio::piped())
            // Its output would keep a pipeline such as `cargo test | tee` waiting.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// Removes a container.
    pub fn of_container(name: &str) -> io::Result<Self> {
        Self::spawn(r#"docker rm --force --volumes "$1""#, &[OsStr::new(name)])
    }
}

impl Drop for CleanupGuard {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_janitor_cleans() {
        let folder = tempfile::tempdir().unwrap();
        let rubbish = folder.path().join("rubbish");
        std::fs::write(&rubbish, "").unwrap();
        let janitor = CleanupGuard::spawn(r#"rm "$1""#, &[rubbish.as_os_str()]).unwrap();
        assert!(rubbish.exists());
        drop(janitor);
        assert!(!rubbish.exists());
    }
}
