//! `dead-letters discard`

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::{CliError, ExitStatus, interrupted};
use super::args::CommonArgs;
use super::bulk_action::{
    ActionSummary, TargetArgs, confirm, exit_for_file_error, failed, refuse_unresolved, tell_closed,
};
use super::render::ProgressLine;
use crate::dead_letters::{
    AuditLog, LetterGroups, LetterSelection, LetterVisitor, Operator, ReviewSession,
};

#[derive(Debug, Args)]
pub struct DiscardArgs {
    /// Why they can be thrown away; it is recorded
    #[arg(long, value_name = "TEXT", required = true)]
    because: String,
    /// Where each is recorded before it goes: JSON lines, only added to
    #[arg(long, value_name = "FILE", default_value = "rename-worker-audit.jsonl")]
    audit: PathBuf,
    #[command(flatten)]
    chosen: TargetArgs,
}

impl DiscardArgs {
    fn mistake(&self, who: &Operator) -> Option<&'static str> {
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
pub fn open(args: &DiscardArgs, who: &Operator) -> Result<(), CliError> {
    if let Some(mistake) = args.mistake(who) {
        return Err(CliError::new(ExitStatus::Usage, mistake));
    }
    if args.chosen.dry_run {
        return Ok(());
    }
    AuditLog::can_be_opened(&args.audit).map_err(|error| no_record(&args.audit, &error))
}

fn no_record(audit: &Path, error: &io::Error) -> CliError {
    let file = absolute(audit);
    let file = file.display();
    let message = format!("cannot record in {file}: {error}; nothing was discarded");
    CliError::new(exit_for_file_error(error), message)
}

fn absolute(audit: &Path) -> PathBuf {
    std::path::absolute(audit).unwrap_or_else(|_| audit.to_owned())
}

pub async fn run(
    args: DiscardArgs,
    common: &CommonArgs,
    who: Operator,
    desk: &ReviewSession,
) -> Result<ExitStatus, CliError> {
    let (selection, groups, mut summary) = survey(&args.chosen, desk).await?;
    if args.chosen.dry_run {
        summary.groups = Some(groups.sorted());
        return Ok(summary.print("discarded", None, common.json));
    }
    confirm("discarded", &groups.sorted(), summary.done, args.chosen.yes).await?;
    if summary.done == 0 {
        return Ok(summary.print("discarded", None, common.json));
    }
    let audit = AuditLog::open(&args.audit, who, args.because);
    let mut audit = audit.map_err(|error| no_record(&args.audit, &error))?;
    tell_closed(&args.audit, audit.was_open_to_others());
    let bar = ProgressLine::new("discarding");
    let discarded = desk
        .discard(selection, &mut audit, |step| bar.show(step), interrupted())
        .await;
    drop(bar);
    summary.done = discarded.discarded;
    summary.gone = discarded.gone;
    summary.left = discarded.left;
    summary.audit = Some(absolute(&args.audit).display().to_string());
    Ok(summary.print("discarded", discarded.stop.as_ref(), common.json))
}

/// Looks at all letters, and finds out which are meant.
async fn survey(
    chosen: &TargetArgs,
    desk: &ReviewSession,
) -> Result<(LetterSelection, LetterGroups, ActionSummary), CliError> {
    let mut selection = LetterSelection::default();
    let mut groups = LetterGroups::default();
    let bar = ProgressLine::new("looking");
    let searched = desk
        .search(
            &chosen.filter(),
            chosen.filter.limit(),
            |step| bar.show(step),
            |letter| {
                selection.add(letter);
                groups.add(letter);
                LetterVisitor::Counted
            },
        )
        .await;
    drop(bar);
    let searched = searched.map_err(|trouble| failed(&trouble))?;
    chosen.filter.tell_reasons(&searched);
    refuse_unresolved(&searched.troubles, "nothing was done")?;
    let summary = ActionSummary {
        done: selection.total(),
        ..ActionSummary::of(&searched, chosen.dry_run)
    };
    Ok((selection, groups, summary))
}
