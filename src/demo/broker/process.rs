//! Runs other programs and turns their failure into a sentence.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use tokio::process::Command;

/// A program that could not be run, failed, or took too long.
#[derive(Debug, thiserror::Error)]
#[error("`{program}` {why}")]
pub struct CommandFailed {
    pub program: String,
    pub why: String,
}

/// Runs the command to its end, at most `limit`, and returns what it printed.
pub async fn run(command: &mut Command, limit: Duration) -> Result<String, CommandFailed> {
    let program = command_line(command);
    let failed = |why: String| CommandFailed {
        program: program.clone(),
        why,
    };
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(limit, output).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(failed(format!("cannot be run: {error}"))),
        Err(_) => return Err(failed(format!("took longer than {} s", limit.as_secs()))),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() {
        String::from_utf8_lossy(&output.stdout)
    } else {
        said
    };
    // The last line tells what stopped it; those before tell how far it came.
    let last = said.trim().lines().last().unwrap_or("it said nothing");
    Err(failed(format!("failed: {last}")))
}

/// The program and its first argument: enough to know which call it was.
fn command_line(command: &Command) -> String {
    let command = command.as_std();
    std::iter::once(command.get_program())
        .chain(command.get_args().take(1))
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A command of `sh` that runs `script` with `arguments` as `$1`, `$2`, ….
pub fn script(script: &str, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_tells_the_last_line_that_was_said() {
        let mut command = script("echo one >&2; echo two >&2; exit 3", &[]);
        let error = run(&mut command, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "`sh -c` failed: two");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let error = run(
            &mut Command::new("no-such-program-here"),
            Duration::from_secs(5),
        )
        .await
        .unwrap_err();
        assert!(error.why.starts_with("cannot be run"), "{error}");
    }
}
