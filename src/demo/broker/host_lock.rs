//! One at a time, among all processes of the machine: building an image, installing a package.

use std::{env, fs::File, io};

use super::ProvisionProgress;

/// Held until the work is done; the kernel ends it with the process.
#[derive(Debug)]
pub struct HostLock {
    _file: File,
}

/// Waits for the turn to do `what`, a word for a file's name.
pub async fn acquire(what: &str, progress: &ProvisionProgress) -> Result<HostLock, String> {
    let path = env::temp_dir().join(format!("rename-worker-{what}.lock"));
    let cannot = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(cannot)?;
    if file.try_lock().is_ok() {
        return Ok(HostLock { _file: file });
    }
    progress(&format!("waiting for another process to prepare {what}"));
    let file = tokio::task::spawn_blocking(move || file.lock().map(|()| file))
        .await
        .map_err(|error| error.to_string())?
        .map_err(cannot)?;
    Ok(HostLock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_waits_for_the_one_before() {
        let what = format!("test-of-turns-{}", std::process::id());
        let first = acquire(&what, &|_| ()).await.unwrap();
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let second = tokio::spawn({
            let what = what.clone();
            async move { acquire(&what, &move |line| told.send(line.to_owned()).unwrap()).await }
        });
        assert!(hears.recv().await.unwrap().starts_with("waiting for"));
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
        let _ = std::fs::remove_file(env::temp_dir().join(format!("rename-worker-{what}.lock")));
    }
}
