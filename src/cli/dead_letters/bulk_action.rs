//! What replay and discard have in common: choosing, asking before, telling after.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::super::interrupt::answer_to;
use super::super::terminal::say_text;
use super::super::{CliError, ExitStatus, print};
use super::args::FilterArgs;
use super::render::{counted, escape_control_chars, letters, table};
use crate::broker::BrokerError;
use crate::dead_letters::{
    AbortReason, LetterFilter, LetterGroup, LetterId, LetterRef, RefError, RefusedLetter,
    SearchResult,
};

/// More than these are asked for.
const CONFIRM_ABOVE: u64 = 10;
/// Kinds of refusals that are told on the terminal.
const REFUSALS_TOLD: usize = 20;

#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Letters by the first digits of their ids, or by the ids of their requests
    #[arg(value_name = "LETTER")]
    letters: Vec<LetterRef>,
    /// Do it without asking, also with more than 10
    #[arg(long)]
    pub yes: bool,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// All letters there are
    #[arg(long)]
    pub all: bool,
}

impl TargetArgs {
    pub fn filter(&self) -> LetterFilter {
        self.filter.filter(&self.letters)
    }

    /// Whether it says which letters are meant.
    pub fn mistake(&self) -> Option<&'static str> {
        let all = self.filter().takes_all();
        if all && !self.all {
            Some("say which letters: by id, by a filter such as --reason, or --all")
        } else if !all && self.all {
            Some("--all and a filter exclude each other")
        } else {
            None
        }
    }
}

/// Asks, where more than a few letters are meant and nobody has said yes.
pub async fn confirm(
    verb: &str,
    groups: &[LetterGroup],
    count: u64,
    yes: bool,
) -> Result<(), CliError> {
    if yes || count <= CONFIRM_ABOVE {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let message = format!(
            "{} would be {verb}; there is no terminal to ask on: --yes does it without asking",
            letters(count)
        );
        return Err(CliError::new(ExitStatus::Usage, message));
    }
    say_text(&table(groups));
    let question = format!("{} are to be {verb}. Go on? [y/N] ", letters(count));
    let answer = answer_to(&question).await;
    if matches!(answer.as_deref(), Some("y" | "Y" | "yes")) {
        return Ok(());
    }
    Err(CliError::new(ExitStatus::Failed, "nothing was done"))
}

/// Tells of them, if there are any.
pub fn tell_all(troubles: &[RefError]) -> bool {
    for trouble in troubles {
        say!("{trouble}");
    }
    !troubles.is_empty()
}

/// Refuses names that mean nobody or several; what comes of it is told besides.
pub fn refuse_unresolved(troubles: &[RefError], outcome: &str) -> Result<(), CliError> {
    if troubles.is_empty() {
        return Ok(());
    }
    let messages = troubles.iter().map(ToString::to_string);
    let messages: Vec<_> = messages.chain([outcome.to_owned()]).collect();
    Err(CliError::new(ExitStatus::Failed, messages.join("\n")))
}

pub fn failed(trouble: &BrokerError) -> CliError {
    CliError::new(ExitStatus::of(trouble), trouble.to_string())
}

/// Says of a file that it was open to others, if it was, and that it no longer is.
pub fn tell_closed(file: &Path, was_open_to_others: Option<u32>) {
    if let Some(mode) = was_open_to_others {
        let file = file.display();
        say!("{file} could be read by others (mode {mode:04o}); now only its owner can (0600)");
    }
}

/// How a command ends that a file of its own ends.
pub fn exit_for_file_error(error: &io::Error) -> ExitStatus {
    match error.kind() {
        io::ErrorKind::NotFound => ExitStatus::Usage,
        _ => ExitStatus::Failed,
    }
}

/// Said of letters that were published with less than they have.
pub const WITHOUT_PROPERTIES: &str =
    "of them without properties and headers, which the broker refuses";

/// What was done, as `--json` tells it.
#[derive(Debug, Default, Serialize)]
pub struct ActionSummary {
    pub dry_run: bool,
    /// Letters that were looked at, and that were meant.
    pub looked_at: u64,
    pub matched: u64,
    /// Letters that were, or with --dry-run would be, replayed or discarded.
    pub done: u64,
    /// Of those, how many were sent without their properties and headers, which the broker refuses.
    pub without_properties: u64,
    pub refused_count: u64,
    #[serde(serialize_with = "refusals")]
    pub refused: Vec<RefusedLetter>,
    /// Letters that were gone before it was their turn.
    pub gone: u64,
    /// Letters that it did not get to.
    pub left: u64,
    /// Those of them that were sent and not confirmed: the broker may have the replay or not.
    pub unconfirmed: u64,
    /// Letters that could not be looked at, since something else holds them.
    pub missing: u64,
    /// What all replays of this run have in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Where the discards are recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<LetterGroup>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn refusals<S: serde::Serializer>(refused: &[RefusedLetter], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(
        refused
            .iter()
            .map(|refused| json!({"letter": refused.letter.full(), "why": refused.why})),
    )
}

impl ActionSummary {
    /// Before anything is done.
    pub fn of(searched: &SearchResult, dry_run: bool) -> Self {
        Self {
            dry_run,
            looked_at: searched.seen,
            matched: searched.matched,
            missing: searched.missing,
            ..Self::default()
        }
    }

    /// Tells it, and how the command ends.
    pub fn print(mut self, verb: &str, stop: Option<&AbortReason>, as_json: bool) -> ExitStatus {
        say_text(&self.refusals());
        if let Some(stop) = stop {
            say!("stopped: {stop}");
        }
        self.error = stop.map(ToString::to_string);
        let exit = match stop {
            Some(AbortReason::Broker(trouble)) => ExitStatus::of(trouble),
            Some(_) => ExitStatus::Failed,
            None if self.refused_count + self.left > 0 => ExitStatus::Failed,
            None => ExitStatus::Done,
        };
        let text = if as_json {
            format!("{:#}\n", json!(self))
        } else {
            let groups = self.groups.as_deref().unwrap_or_default();
            table(groups) + &self.line(verb)
        };
        match print(&text) {
            ExitStatus::Done => exit,
            failed if exit == ExitStatus::Done => failed,
            _ => exit,
        }
    }

    /// Why letters stay, each reason once.
    fn refusals(&self) -> String {
        let mut kinds: Vec<(&str, LetterId, u64)> = Vec::new();
        for refused in &self.refused {
            match kinds.iter_mut().find(|(why, ..)| *why == &*refused.why) {
                Some((.., count)) => *count += 1,
                None => kinds.push((&refused.why, refused.letter, 1)),
            }
        }
        let mut text = String::new();
        let mut untold = self.refused_count;
        for (why, first, count) in kinds.into_iter().take(REFUSALS_TOLD) {
            untold -= count;
            // Writing to a string cannot fail.
            let _ = match count {
                1 => writeln!(text, "{first} stays: {}", escape_control_chars(why)),
                _ => writeln!(
                    text,
                    "{first} and {} more stay: {}",
                    count - 1,
                    escape_control_chars(why)
                ),
            };
        }
        if untold > 0 {
            let _ = writeln!(text, "{untold} more stay, for the like; --json tells each");
        }
        text
    }

    fn line(&self, verb: &str) -> String {
        if self.matched == 0 {
            let seen = letters(self.looked_at);
            return format!("none of {seen} matches; nothing is {verb}\n");
        }
        let would = if self.dry_run { "would be " } else { "" };
        let others = counted([
            (self.without_properties, WITHOUT_PROPERTIES),
            (self.refused_count, "stay, see above"),
            (self.gone, "gone before it was their turn"),
            (self.left, "left as before"),
            (self.unconfirmed, "of these sent without a confirm"),
            (self.missing, "more held by something else"),
        ]);
        let audit = self.audit.as_ref().filter(|_| self.done > 0);
        let recorded = audit.map(|audit| format!("; recorded in {audit}"));
        let recorded = recorded.unwrap_or_default();
        format!("{} {would}{verb}{others}{recorded}\n", letters(self.done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::DeadLetter;
    use crate::messages::message::MessageView;

    fn refused(body: u8, why: &str) -> RefusedLetter {
        let message = MessageView {
            body: vec![body],
            ..MessageView::default()
        };
        RefusedLetter {
            letter: DeadLetter::new(message, 0).id,
            why: why.into(),
        }
    }

    #[test]
    fn what_stays_is_told_by_why_it_does() {
        let summary = ActionSummary {
            refused_count: 9,
            refused: vec![
                refused(1, "/username: is missing"),
                refused(2, "the body is empty"),
                refused(3, "/username: is missing"),
            ],
            ..ActionSummary::default()
        };
        insta::assert_snapshot!(summary.refusals());
    }

    #[test]
    fn what_was_done_is_told_in_a_line() {
        let some = ActionSummary {
            matched: 9,
            done: 4,
            refused_count: 2,
            gone: 1,
            left: 2,
            unconfirmed: 1,
            missing: 3,
            audit: Some("/tmp/audit.jsonl".into()),
            ..ActionSummary::default()
        };
        let all = ActionSummary {
            dry_run: true,
            matched: 1,
            done: 1,
            ..ActionSummary::default()
        };
        let none = ActionSummary {
            looked_at: 7,
            ..ActionSummary::default()
        };
        let lines = [
            some.line("discarded"),
            all.line("replayed"),
            none.line("replayed"),
        ];
        insta::assert_snapshot!(lines.concat());
    }
}
