//! `dead-letters discard`

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::{Exit, Refusal, interrupted};
use super::acting::{Chosen, Summary, agreed, clear, exit_of_file, failed, tell_closed};
use super::args::Common;
use super::text::Bar;
use crate::dead_letters::{Audit, Desk, Groups, Selection, Visit, Who};

#[derive(Debug, Args)]
pub struct DiscardArgs {
    /// Why they can be thrown away; it is recorded
    #[arg(long, value_name = "TEXT", required = true)]
    because: String,
    /// Where each is recorded before it goes: JSON lines, only added to
    #[arg(long, value_name = "FILE", default_value = "rename-worker-audit.jsonl")]
    audit: PathBuf,
    #[command(flatten)]
    chosen: Chosen,
}

impl DiscardArgs {
    fn mistake(&self, who: &Who) -> Option<&'static str> {
        if self.because.trim().is_empty() {
            return Some("--because needs a reason");
        }
        if who.person.is_none() {
            return Some("the record is to say who discards, and USER is not set: --as NAME");
        }
        self.chosen.mistake()
    }
}

/// Makes sure that the discards can be recorded; makes no file yet.
pub fn open(args: &DiscardArgs, who: &Who) -> Result<(), Refusal> {
    if let Some(mistake) = args.mistake(who) {
        return Err(Refusal::new(Exit::Usage, mistake));
    }
    if args.chosen.dry_run {
        return Ok(());
    }
    Audit::can_be_opened(&args.audit).map_err(|error| no_record(&args.audit, &error))
}

fn no_record(audit: &Path, error: &io::Error) -> Refusal {
    let file = absolute(audit);
    let file = file.display();
    let told = format!("cannot record in {file}: {error}; nothing was discarded");
    Refusal::new(exit_of_file(error), told)
}

fn absolute(audit: &Path) -> PathBuf {
    std::path::absolute(audit).unwrap_or_else(|_| audit.to_owned())
}

pub async fn run(
    args: DiscardArgs,
    common: &Common,
    who: Who,
    desk: &Desk,
) -> Result<Exit, Refusal> {
    let (selection, groups, mut summary) = survey(&args.chosen, desk).await?;
    if args.chosen.dry_run {
        summary.groups = Some(groups.sorted());
        return Ok(summary.tell("discarded", None, common.json));
    }
    agreed("discarded", &groups.sorted(), summary.done, args.chosen.yes).await?;
    if summary.done == 0 {
        return Ok(summary.tell("discarded", None, common.json));
    }
    let audit = Audit::open(&args.audit, who, args.because);
    let mut audit = audit.map_err(|error| no_record(&args.audit, &error))?;
    tell_closed(&args.audit, audit.was_open_to_others());
    let bar = Bar::new("discarding");
    let discarded = desk
        .discard(selection, &mut audit, |step| bar.show(step), interrupted())
        .await;
    drop(bar);
    summary.done = discarded.discarded;
    summary.gone = discarded.gone;
    summary.left = discarded.left;
    summary.audit = Some(absolute(&args.audit).display().to_string());
    Ok(summary.tell("discarded", discarded.stop.as_ref(), common.json))
}

/// Looks at all letters, and finds out which are meant.
async fn survey(chosen: &Chosen, desk: &Desk) -> Result<(Selection, Groups, Summary), Refusal> {
    let mut selection = Selection::default();
    let mut groups = Groups::default();
    let bar = Bar::new("looking");
    let searched = desk
        .search(
            &chosen.filter(),
            chosen.filter.limit(),
            |step| bar.show(step),
            |letter| {
                selection.add(letter);
                groups.add(letter);
                Visit::Counted
            },
        )
        .await;
    drop(bar);
    let searched = searched.map_err(|trouble| failed(&trouble))?;
    chosen.filter.tell_reasons(&searched);
    clear(&searched.troubles, "nothing was done")?;
    let summary = Summary {
        done: selection.total(),
        ..Summary::of(&searched, chosen.dry_run)
    };
    Ok((selection, groups, summary))
}
