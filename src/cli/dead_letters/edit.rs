//! A request opened in the person's own editor, and looked at when they are done.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::Command;

use anyhow::{Context as _, anyhow, ensure};

use super::text::clean;
use crate::dead_letters::{Letter, Replay, editable};

/// The editor where none is named; it draws on a terminal.
const EDITOR: &str = "vi";

/// The editor to use; none where none is named and there is no terminal.
pub fn editor() -> Option<String> {
    let named = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|editor| !editor.is_empty()));
    let on_a_terminal = || io::stdin().is_terminal() && io::stdout().is_terminal();
    named.or_else(|| on_a_terminal().then(|| EDITOR.to_owned()))
}

/// What came of an edit.
pub enum Edited {
    /// It is a valid request now.
    Ready,
    /// The person emptied the file or left it as it was: this one is not to be sent.
    LeftOut,
    /// It is none still.
    Refused(Box<str>),
}

/// Lets a person change the letter's body, again as often as they want while it is not valid.
pub fn edit(letter: &Letter, replay: &mut Replay, requests: &str) -> anyhow::Result<Edited> {
    // With what is set for it already, unless nothing can be set in it.
    let body = replay.amendments.body(letter);
    let body = body.unwrap_or_else(|_| letter.message.body.clone());
    let body = String::from_utf8(body)
        .map_err(|_| anyhow!("letter {} is no text and cannot be edited", letter.id))?;
    let given = editable(&body);
    let mut text = given.clone();
    loop {
        text = in_editor(&text)?;
        if text.trim().is_empty() || text.trim() == given.trim() {
            return Ok(Edited::LeftOut);
        }
        replay
            .amendments
            .set_body(letter.id, text.trim_end().as_bytes().to_vec());
        let Err(why) = replay.prepare(letter, requests) else {
            return Ok(Edited::Ready);
        };
        eprintln!("{} is no valid request: {}", letter.id, clean(&why));
        if !again()? {
            return Ok(Edited::Refused(why));
        }
    }
}

fn again() -> io::Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(false);
    }
    eprint!("Edit it again? [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(!matches!(answer.trim(), "n" | "N" | "no"))
}

fn in_editor(text: &str) -> anyhow::Result<String> {
    // Only its owner may read it: it holds usernames. It goes when it is dropped.
    let mut file = tempfile::Builder::new()
        .prefix("rename-request-")
        .suffix(".json")
        .tempfile()
        .context("cannot make a file to edit")?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    let editor = editor().context("there is no editor: set EDITOR")?;
    // By a shell, since people put arguments into the variable: `code --wait`.
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg(&editor)
        .arg(file.path())
        .status()
        .with_context(|| format!("cannot start the editor {editor}"))?;
    ensure!(status.success(), "the editor {editor} failed: {status}");
    // By its name, since some editors write a new file.
    std::fs::read_to_string(file.path()).context("cannot read what was edited")
}
