//! A request opened in the person's own editor, and looked at when they are done.

use std::io::{self, IsTerminal as _};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::process::{Child, Command};

use super::super::interrupt::{InterruptRequest, InterruptSignals, answer_to};
use super::render::escape_control_chars;
use crate::dead_letters::{DeadLetter, EditFolder, ReplayOptions, editable};

/// The editor where none is named; it draws on a terminal.
const EDITOR: &str = "vi";
/// How long an editor that is asked to end may take before it is killed.
const EDITOR_END: Duration = Duration::from_secs(2);

/// The editor to use; none where none is named and there is no terminal.
pub fn editor() -> Option<String> {
    let named = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|editor| !editor.is_empty()));
    let on_a_terminal = || io::stdin().is_terminal() && io::stdout().is_terminal();
    named.or_else(|| on_a_terminal().then(|| EDITOR.to_owned()))
}

/// What came of an edit.
pub enum EditResult {
    /// It is a valid request now.
    Ready,
    /// The person emptied the file or left it as it was: this one is not to be sent.
    LeftOut,
    /// It is none still.
    Refused(Box<str>),
}

/// Lets a person change the letter's body, again as often as they want while it is not valid.
pub async fn edit(
    letter: &DeadLetter,
    replay: &mut ReplayOptions,
    requests: &str,
) -> anyhow::Result<EditResult> {
    // With what is set for it already, unless nothing can be set in it.
    let body = replay.amendments.body(letter);
    let body = body.unwrap_or_else(|_| letter.message.body.clone());
    let body = String::from_utf8(body)
        .map_err(|_| anyhow!("letter {} is no text and cannot be edited", letter.id))?;
    let given = editable(&body);
    let mut text = given.clone();
    loop {
        text = in_editor(&text).await?;
        if text.trim().is_empty() || text.trim() == given.trim() {
            return Ok(EditResult::LeftOut);
        }
        replay
            .amendments
            .set_body(letter.id, text.trim_end().as_bytes().to_vec());
        let Err(why) = replay.prepare(letter, requests) else {
            return Ok(EditResult::Ready);
        };
        say!(
            "{} is no valid request: {}",
            letter.id,
            escape_control_chars(&why)
        );
        if !ask_retry().await? {
            return Ok(EditResult::Refused(why));
        }
    }
}

async fn ask_retry() -> anyhow::Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(false);
    }
    let answer = answer_to("Edit it again? [Y/n] ").await;
    let answer = answer.context("interrupted")?;
    Ok(!matches!(&*answer, "n" | "N" | "no"))
}

async fn in_editor(text: &str) -> anyhow::Result<String> {
    // It holds usernames. It goes when it is dropped, with all that the editor left beside.
    let folder = EditFolder::new().context("cannot make a folder to edit in")?;
    let file = folder.write(text).context("cannot make a file to edit")?;
    let editor = editor().context("there is no editor: set EDITOR")?;
    // Listened for before it starts, so that none of them ends us with the folder left behind.
    let signals = InterruptSignals::new().context("cannot listen for signals")?;
    // By a shell, since people put arguments into the variable: `code --wait`.
    let child = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg(&editor)
        .arg(&file)
        .spawn()
        .with_context(|| format!("cannot start the editor {editor}"))?;
    let status = end_of(child, signals).await?;
    ensure!(status.success(), "the editor {editor} failed: {status}");
    // By its name, since some editors write a new file.
    std::fs::read_to_string(&file).context("cannot read what was edited")
}

/// Waits for the editor. Ctrl-C is the editor's own, which has it from the terminal as we do: one
/// that it ends is an editor that failed. Whatever else asks us to end, ends the editor as well.
async fn end_of(mut editor: Child, mut signals: InterruptSignals) -> anyhow::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = editor.wait() => return status.context("cannot wait for the editor"),
            asked = signals.next() => if asked == InterruptRequest::End {
                end(&mut editor).await;
                bail!("asked to end while a request was edited");
            },
        }
    }
}

/// Ends the editor, in its own way if it takes the time that it has.
async fn end(editor: &mut Child) {
    if let Some(id) = editor.id() {
        // The standard library has no way to send this signal; every shell has.
        let told = Command::new("sh")
            .arg("-c")
            .arg("kill -TERM \"$1\"")
            .arg("sh")
            .arg(id.to_string())
            .status();
        told.await.ok();
    }
    if tokio::time::timeout(EDITOR_END, editor.wait())
        .await
        .is_err()
    {
        editor.kill().await.ok();
    }
}
