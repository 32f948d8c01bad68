//! `dead-letters export` and `dead-letters import`

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::super::terminal::{results, say_text};
use super::super::{CliError, ExitStatus, interrupted, print};
use super::args::{CommonArgs, FilterArgs};
use super::bulk_action::{
    WITHOUT_PROPERTIES, confirm, exit_for_file_error, failed, tell_all, tell_closed,
};
use super::render::{ProgressLine, counted, letters};
use crate::dead_letters::{
    AbortReason, Export, ExportError, Import, ImportError, ImportResult, LetterRef, LetterVisitor,
    ReviewSession,
};

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where to: a file that is not there yet, or `-` for standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Go on with an export that was cut off: add what FILE has not
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Letters by the first digits of their ids, or by the ids of their requests
    #[arg(long = "letter", value_name = "LETTER")]
    letters: Vec<LetterRef>,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What `export` wrote, or an audit of discards
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Do it without asking, also with more than 10
    #[arg(long)]
    yes: bool,
}

impl ExportArgs {
    pub fn goes_to_standard_output(&self) -> bool {
        self.file == Path::new("-")
    }

    fn cannot_open(&self, trouble: &ExportError) -> CliError {
        let exit = match trouble {
            ExportError::Io(error) => exit_for_file_error(error),
            ExportError::Exists | ExportError::NoExport(_) => ExitStatus::Usage,
        };
        let file = self.file.display();
        CliError::new(exit, format!("cannot export to {file}: {trouble}"))
    }
}

/// Opens what is there to be gone on with. A new file is none yet, since it would be in the way of
/// the next run if this one came no further.
pub fn open_export(args: &ExportArgs) -> Result<Option<Export>, CliError> {
    if args.goes_to_standard_output() {
        if args.resume {
            let message = "--resume goes on with a file: name it";
            return Err(CliError::new(ExitStatus::Usage, message));
        }
        return Ok(Some(Export::to(Box::new(results()))));
    }
    let opened = if args.resume && args.file.exists() {
        Export::to_file(&args.file, true).map(Some)
    } else {
        Export::can_be_new(&args.file).map(|()| None)
    };
    opened.map_err(|trouble| args.cannot_open(&trouble))
}

pub async fn export(
    args: ExportArgs,
    opened: Option<Export>,
    common: &CommonArgs,
    desk: &ReviewSession,
) -> Result<ExitStatus, CliError> {
    let to_stdout = args.goes_to_standard_output();
    let mut export = match opened {
        Some(export) => export,
        None => Export::to_file(&args.file, args.resume).map_err(|why| args.cannot_open(&why))?,
    };
    tell_closed(&args.file, export.was_open_to_others);
    let filter = args.filter.filter(&args.letters);
    let mut written = Ok(());
    let bar = ProgressLine::new("exporting");
    let searched = desk
        .search(
            &filter,
            args.filter.limit(),
            |step| bar.show(step),
            |letter| {
                written = export.add(letter);
                if written.is_ok() {
                    LetterVisitor::Counted
                } else {
                    LetterVisitor::Enough
                }
            },
        )
        .await;
    drop(bar);
    let written = written.and_then(|()| export.finish());
    match (written, searched) {
        (Ok(()), Ok(searched)) => {
            args.filter.tell_reasons(&searched);
            let exit = tell_export(&export, searched.missing, to_stdout, common.json);
            if tell_all(&searched.troubles) {
                Ok(ExitStatus::Failed)
            } else {
                Ok(exit)
            }
        }
        // The reader has seen enough.
        (Err(error), _) if to_stdout && error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitStatus::Done)
        }
        (Err(error), _) => {
            let message = format!("cannot export: {error}");
            Err(CliError::new(ExitStatus::Failed, message))
        }
        (Ok(()), Err(trouble)) => Err(failed(&trouble)),
    }
}

fn tell_export(export: &Export, missing: u64, to_stdout: bool, as_json: bool) -> ExitStatus {
    let text = if as_json {
        let object = json!({
            "exported": export.written,
            "there_already": export.skipped,
            "missing": missing,
        });
        format!("{object:#}\n")
    } else {
        let others = [
            (export.skipped, "were in the file already"),
            (missing, "more are held by something else"),
        ];
        format!("{} exported{}\n", letters(export.written), counted(others))
    };
    let exit = if to_stdout {
        // The letters are on standard output.
        say_text(&text);
        ExitStatus::Done
    } else {
        print(&text)
    };
    // Who counts on having all of them is to know.
    if missing > 0 {
        ExitStatus::Failed
    } else {
        exit
    }
}

/// Opens the file and reads all of it once.
pub fn open_import(args: &ImportArgs) -> Result<Import, CliError> {
    Import::open(&args.file).map_err(|trouble| args.refused(&trouble))
}

impl ImportArgs {
    fn refused(&self, trouble: &ImportError) -> CliError {
        let exit = match trouble {
            ImportError::Broker(trouble) => ExitStatus::of(trouble),
            ImportError::Io(error) => exit_for_file_error(error),
            ImportError::Progress(_) | ImportError::Note(..) => ExitStatus::Failed,
            ImportError::NoExport(_) => ExitStatus::Usage,
        };
        let file = self.file.display();
        CliError::new(exit, format!("cannot import {file}: {trouble}"))
    }
}

pub async fn import(
    args: &ImportArgs,
    mut import: Import,
    common: &CommonArgs,
    desk: &ReviewSession,
) -> Result<ExitStatus, CliError> {
    let (total, before) = import.size();
    confirm("imported", &[], total - before, args.yes).await?;
    let bar = ProgressLine::new("importing");
    let imported = desk
        .import(&mut import, |step| bar.show(step), interrupted())
        .await
        .map_err(|trouble| args.refused(&trouble))?;
    drop(bar);
    if before > 0 && before == total {
        say!(
            "all of them were imported before, says {}; remove it to import them again",
            import.progress_file().display()
        );
    }
    Ok(conclude(&imported, common.json))
}

fn conclude(imported: &ImportResult, as_json: bool) -> ExitStatus {
    let ImportResult {
        imported: done,
        without_properties,
        there,
        before,
        left,
        unconfirmed,
        stop,
    } = imported;
    if let Some(stop) = stop {
        say!("stopped: {stop}; the same command goes on");
    }
    let text = if as_json {
        let error = stop.as_ref().map(ToString::to_string);
        let object = json!({
            "imported": done,
            "without_properties": without_properties,
            "there_already": there,
            "imported_before": before,
            "left": left,
            "unconfirmed": unconfirmed,
            "error": error,
        });
        format!("{object:#}\n")
    } else {
        let others = [
            (*without_properties, WITHOUT_PROPERTIES),
            (*there, "were in the queue already"),
            (*before, "were imported before"),
            (*left, "are left"),
            (*unconfirmed, "of these were sent without a confirm"),
        ];
        format!("{} imported{}\n", letters(*done), counted(others))
    };
    let printed = print(&text);
    match stop {
        Some(AbortReason::Broker(trouble)) => ExitStatus::of(trouble),
        Some(_) => ExitStatus::Failed,
        None => printed,
    }
}
