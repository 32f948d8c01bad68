//! `dead-letters replay`

use std::fs::File;
use std::io::BufReader;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

use super::super::{CliError, ExitStatus, interrupted};
use super::args::{CommonArgs, rate};
use super::bulk_action::{ActionSummary, TargetArgs, confirm, failed, refuse_unresolved};
use super::edit::{self, EditResult};
use super::render::ProgressLine;
use crate::dead_letters::{
    DeadLetter, FieldEdit, LetterEdits, LetterGroups, LetterSelection, LetterVisitor,
    RefusedLetter, ReplayOptions, ReviewSession, SearchResult,
};

/// Letters that are edited by hand in one go, and what they weigh at most: they are kept for it.
const EDITS_MAX: usize = 50;
const EDITS_BYTES: usize = 16 << 20;

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Set a field of each request first, as in `new_username=kari`; an empty value removes it
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    sets: Vec<FieldEdit>,
    /// Set fields of each request by a file, and replay only those that it names: JSON lines such
    /// as `{"letter": "3f9a…", "new_username": "kari"}`, or with `request_id` instead of `letter`
    #[arg(long, value_name = "FILE")]
    set_from: Option<PathBuf>,
    /// Set the content type of each message first
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Open each request in $VISUAL or $EDITOR first, or in vi where neither is set and there is a
    /// terminal; a file that is left as it was, or emptied, leaves that letter out
    #[arg(long, conflicts_with = "dry_run")]
    edit: bool,
    /// At most so many a second
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<NonZeroU32>,
    #[command(flatten)]
    chosen: TargetArgs,
}

impl ReplayArgs {
    fn mistake(&self) -> Option<&'static str> {
        if self.edit && edit::editor().is_none() {
            return Some("there is no terminal for an editor: set EDITOR to one that needs none");
        }
        // A file names letters as well.
        if self.set_from.is_some() && !self.chosen.all {
            return None;
        }
        self.chosen.mistake()
    }
}

/// What was found to be replayed.
#[derive(Default)]
struct ReplayPreview {
    selection: LetterSelection,
    groups: LetterGroups,
    refused: Vec<RefusedLetter>,
    refused_count: u64,
    /// To be edited; empty unless asked for.
    to_edit: Vec<DeadLetter>,
    /// What those weigh.
    weight: usize,
    searched: SearchResult,
}

pub async fn run(
    args: ReplayArgs,
    amendments: LetterEdits,
    common: &CommonArgs,
    desk: &ReviewSession,
) -> Result<ExitStatus, CliError> {
    let mut replay = ReplayOptions {
        run: Uuid::now_v7(),
        amendments,
    };
    let mut survey = survey(&args, &replay, desk).await?;
    if args.edit {
        edit_all(&mut survey, &mut replay, desk).await?;
    }
    let groups = std::mem::take(&mut survey.groups).sorted();
    let mut summary = ActionSummary {
        done: survey.selection.total(),
        refused_count: survey.refused_count,
        refused: survey.refused,
        ..ActionSummary::of(&survey.searched, args.chosen.dry_run)
    };
    if args.chosen.dry_run {
        summary.groups = Some(groups);
        return Ok(summary.print("replayed", None, common.json));
    }
    confirm("replayed", &groups, summary.done, args.chosen.yes).await?;
    let bar = ProgressLine::new("replaying");
    let selection = survey.selection;
    let replayed = desk
        .replay(
            &replay,
            selection,
            args.rate,
            |step| bar.show(step),
            interrupted(),
        )
        .await;
    drop(bar);
    summary.run = Some(replay.run.to_string());
    summary.done = replayed.replayed;
    summary.without_properties = replayed.without_properties;
    summary.refused_count += replayed.refused_count;
    summary.refused.extend(replayed.refused);
    summary.gone = replayed.gone;
    summary.left = replayed.left;
    summary.unconfirmed = replayed.unconfirmed;
    Ok(summary.print("replayed", replayed.stop.as_ref(), common.json))
}

/// Reads what is to be set in the requests.
pub fn open(args: &mut ReplayArgs) -> Result<LetterEdits, CliError> {
    if let Some(mistake) = args.mistake() {
        return Err(CliError::new(ExitStatus::Usage, mistake));
    }
    let sets = std::mem::take(&mut args.sets);
    let mut amendments = LetterEdits::new(sets, args.content_type.take());
    if let Some(path) = &args.set_from {
        let read = File::open(path).map_err(|error| error.to_string());
        let read = read.and_then(|file| amendments.read_file(BufReader::new(file)));
        read.map_err(|wrong| {
            CliError::new(ExitStatus::Usage, format!("{}: {wrong}", path.display()))
        })?;
    }
    Ok(amendments)
}

/// Looks at all letters, and finds out which are meant and which of them could be sent.
async fn survey(
    args: &ReplayArgs,
    replay: &ReplayOptions,
    desk: &ReviewSession,
) -> Result<ReplayPreview, CliError> {
    let mut survey = ReplayPreview::default();
    let bar = ProgressLine::new("looking");
    let searched = desk
        .search(
            &args.chosen.filter(),
            args.chosen.filter.limit(),
            |step| bar.show(step),
            |letter| {
                if replay.amendments.omits(letter) {
                    return LetterVisitor::PassedOver;
                }
                survey.meet(letter, args.edit, replay, desk);
                LetterVisitor::Counted
            },
        )
        .await;
    drop(bar);
    survey.searched = searched.map_err(|trouble| failed(&trouble))?;
    args.chosen.filter.tell_reasons(&survey.searched);
    refuse_unresolved(&survey.searched.troubles, "nothing was done")?;
    Ok(survey)
}

impl ReplayPreview {
    fn meet(
        &mut self,
        letter: &DeadLetter,
        edit: bool,
        replay: &ReplayOptions,
        desk: &ReviewSession,
    ) {
        if edit {
            if self.to_edit.len() <= EDITS_MAX && self.weight <= EDITS_BYTES {
                self.weight += letter.message.weight();
                let copy = DeadLetter::new(letter.message.clone(), letter.deliveries);
                self.to_edit.push(copy);
            }
            return;
        }
        match replay.prepare(letter, desk.requests()) {
            Ok(_) => {
                self.selection.add(letter);
                self.groups.add(letter);
            }
            Err(why) => self.refuse(letter, why),
        }
    }

    fn refuse(&mut self, letter: &DeadLetter, why: Box<str>) {
        self.refused_count += 1;
        if self.refused.len() < crate::dead_letters::REFUSALS_LISTED {
            let letter = letter.id;
            self.refused.push(RefusedLetter { letter, why });
        }
    }
}

async fn edit_all(
    survey: &mut ReplayPreview,
    replay: &mut ReplayOptions,
    desk: &ReviewSession,
) -> Result<(), CliError> {
    if survey.to_edit.len() > EDITS_MAX {
        let message =
            format!("more than {EDITS_MAX} letters are meant; --limit {EDITS_MAX} edits the first");
        return Err(CliError::new(ExitStatus::Usage, message));
    }
    if survey.weight > EDITS_BYTES {
        let message = "they have more than 16 MiB, too many to be edited in one go: name fewer";
        return Err(CliError::new(ExitStatus::Usage, message));
    }
    for letter in std::mem::take(&mut survey.to_edit) {
        let edited = edit::edit(&letter, replay, desk.requests()).await;
        let edited = edited.map_err(|error| {
            CliError::new(
                ExitStatus::Failed,
                format!("{error:#}; nothing was replayed"),
            )
        })?;
        match edited {
            EditResult::Ready => {
                survey.selection.add(&letter);
                survey.groups.add(&letter);
            }
            EditResult::LeftOut => {
                say!("{} is left out: its file is empty or as it was", letter.id);
            }
            EditResult::Refused(why) => survey.refuse(&letter, why),
        }
    }
    Ok(())
}
