//! What replay and discard have in common: choosing, asking before, telling after.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::super::{Exit, print};
use super::args::FilterArgs;
use super::text::{clean, letters};
use crate::broker::Trouble;
use crate::dead_letters::{Filter, Group, NameTrouble, Named, Refused, Stop};

/// More than these are asked for.
const UNASKED: u64 = 10;
/// Refusals that are told on the terminal.
const REFUSALS_TOLD: usize = 20;

#[derive(Debug, Args)]
pub struct Chosen {
    /// Letters by the first digits of their ids, or by the ids of their requests
    #[arg(value_name = "LETTER")]
    letters: Vec<Named>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// All letters there are
    #[arg(long)]
    pub all: bool,
    /// Do it without asking, also with more than 10
    #[arg(long)]
    pub yes: bool,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Chosen {
    pub fn filter(&self) -> Filter {
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
pub fn agreed(verb: &str, groups: &[Group], count: u64, yes: bool) -> Result<(), Exit> {
    if yes || count <= UNASKED {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        eprintln!(
            "{} would be {verb}; there is no terminal to ask on: --yes does it, --dry-run only tells",
            letters(count)
        );
        return Err(Exit::Usage);
    }
    for group in groups {
        eprintln!("{:>8}  {}", group.count, clean(&group.reason));
    }
    eprint!("{} are to be {verb}. Go on? [y/N] ", letters(count));
    let mut answer = String::new();
    let read = io::stderr()
        .flush()
        .and_then(|()| io::stdin().read_line(&mut answer));
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    eprintln!("nothing was done");
    Err(Exit::Failed)
}

/// Tells of names that mean nobody or several.
pub fn told(troubles: &[NameTrouble]) -> Result<(), Exit> {
    for trouble in troubles {
        eprintln!("{trouble}");
    }
    if troubles.is_empty() {
        Ok(())
    } else {
        eprintln!("nothing was done");
        Err(Exit::Failed)
    }
}

pub fn failed(trouble: &Trouble) -> Exit {
    eprintln!("{trouble}");
    Exit::of(trouble)
}

/// What was done, as `--json` tells it.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub dry_run: bool,
    /// Letters that were looked at, and that were meant.
    pub looked_at: u64,
    pub matched: u64,
    /// Letters that were, or with --dry-run would be, replayed or discarded.
    pub done: u64,
    pub refused_count: u64,
    #[serde(serialize_with = "refusals")]
    pub refused: Vec<Refused>,
    /// Letters that were gone before it was their turn.
    pub gone: u64,
    /// Letters that it did not get to.
    pub left: u64,
    /// What all replays of this run have in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Where the discards are recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn refusals<S: serde::Serializer>(refused: &[Refused], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(
        refused
            .iter()
            .map(|refused| json!({"letter": refused.letter.full(), "why": refused.why})),
    )
}

impl Summary {
    /// Tells it, and how the command ends.
    pub fn tell(mut self, verb: &str, stop: Option<&Stop>, as_json: bool) -> Exit {
        for refused in self.refused.iter().take(REFUSALS_TOLD) {
            eprintln!("{} stays: {}", refused.letter, clean(&refused.why));
        }
        let more = self.refused_count.saturating_sub(REFUSALS_TOLD as u64);
        if more > 0 {
            eprintln!("{more} more stay, for the like");
        }
        if let Some(stop) = stop {
            eprintln!("stopped: {stop}");
        }
        self.error = stop.map(ToString::to_string);
        let exit = match stop {
            Some(Stop::Broker(trouble)) => Exit::of(trouble),
            Some(_) => Exit::Failed,
            None if self.refused_count + self.left > 0 => Exit::Failed,
            None => Exit::Done,
        };
        let text = if as_json {
            format!("{:#}\n", json!(self))
        } else {
            self.line(verb)
        };
        match print(&text) {
            Exit::Done => exit,
            failed if exit == Exit::Done => failed,
            _ => exit,
        }
    }

    fn line(&self, verb: &str) -> String {
        let would = if self.dry_run { "would be " } else { "" };
        let mut line = format!("{} {would}{verb}", letters(self.done));
        for (count, what) in [
            (self.refused_count, "stay: they are no valid requests"),
            (self.gone, "were gone before it was their turn"),
            (self.left, "are left as they were"),
        ] {
            if count > 0 {
                // Writing to a string cannot fail.
                let _ = write!(line, "; {count} {what}");
            }
        }
        if let Some(audit) = self.audit.as_ref().filter(|_| self.done > 0) {
            let _ = write!(line, "; recorded in {audit}");
        }
        line.push('\n');
        line
    }
}
