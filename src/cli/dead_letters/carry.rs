//! `dead-letters export` and `dead-letters import`

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::super::{Exit, interrupted, print};
use super::acting::{agreed, failed, tell_all};
use super::args::{Common, FilterArgs};
use super::text::{Bar, counted, letters};
use crate::dead_letters::{
    Desk, Export, ExportTrouble, Import, ImportTrouble, Imported, Named, Stop, Visit,
};

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where to: a file that is not there yet, or `-` for standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Go on with an export that was cut off: add what the file has not
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Letters by the first digits of their ids, or by the ids of their requests
    #[arg(long = "letter", value_name = "LETTER")]
    letters: Vec<Named>,
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

pub async fn export(args: ExportArgs, common: &Common, desk: &Desk) -> Exit {
    let to_stdout = args.file == Path::new("-");
    let opened = if to_stdout {
        Ok(Export::to(Box::new(io::stdout())))
    } else {
        Export::to_file(&args.file, args.resume)
    };
    let mut export = match opened {
        Ok(export) => export,
        Err(trouble) => {
            eprintln!("cannot export to {}: {trouble}", args.file.display());
            return match trouble {
                ExportTrouble::Io(_) => Exit::Failed,
                ExportTrouble::Exists | ExportTrouble::NoExport(_) => Exit::Usage,
            };
        }
    };
    let filter = args.filter.filter(&args.letters);
    let mut written = Ok(());
    let bar = Bar::new("exporting");
    let searched = desk
        .search(
            &filter,
            args.filter.limit(),
            |step| bar.show(step),
            |letter| {
                written = export.add(letter);
                if written.is_ok() {
                    Visit::Counted
                } else {
                    Visit::Enough
                }
            },
        )
        .await;
    drop(bar);
    let written = written.and_then(|()| export.finish());
    match (written, searched) {
        (Ok(()), Ok(searched)) => {
            let exit = tell_export(&export, searched.missing, to_stdout, common.json);
            if tell_all(&searched.troubles) {
                Exit::Failed
            } else {
                exit
            }
        }
        // The reader has seen enough.
        (Err(error), _) if to_stdout && error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        (Err(error), _) => {
            eprintln!("cannot export: {error}");
            Exit::Failed
        }
        (Ok(()), Err(trouble)) => failed(&trouble),
    }
}

fn tell_export(export: &Export, missing: u64, to_stdout: bool, as_json: bool) -> Exit {
    let told = if as_json {
        let told = json!({
            "exported": export.written,
            "there_already": export.skipped,
            "missing": missing,
        });
        format!("{told:#}\n")
    } else {
        let others = [
            (export.skipped, "were in the file already"),
            (missing, "more are held by something else"),
        ];
        format!("{} exported{}\n", letters(export.written), counted(others))
    };
    let exit = if to_stdout {
        // The letters are on standard output.
        eprint!("{told}");
        Exit::Done
    } else {
        print(&told)
    };
    // Who counts on having all of them is to know.
    if missing > 0 { Exit::Failed } else { exit }
}

pub async fn import(args: &ImportArgs, common: &Common, desk: &Desk) -> Exit {
    try_import(args, common, desk)
        .await
        .unwrap_or_else(|trouble| {
            eprintln!("cannot import {}: {trouble}", args.file.display());
            match trouble {
                ImportTrouble::Broker(trouble) => Exit::of(&trouble),
                ImportTrouble::Io(_) | ImportTrouble::Progress(_) | ImportTrouble::Note(..) => {
                    Exit::Failed
                }
                ImportTrouble::NoExport(_) => Exit::Usage,
            }
        })
}

async fn try_import(
    args: &ImportArgs,
    common: &Common,
    desk: &Desk,
) -> Result<Exit, ImportTrouble> {
    let mut import = Import::open(&args.file)?;
    let (total, before) = import.size();
    if let Err(exit) = agreed("imported", &[], total - before, args.yes) {
        return Ok(exit);
    }
    let bar = Bar::new("importing");
    let imported = desk
        .import(&mut import, |step| bar.show(step), interrupted())
        .await?;
    drop(bar);
    if before > 0 && before == total {
        eprintln!(
            "all of them were imported before, says {}; remove it to import them again",
            import.progress_file().display()
        );
    }
    Ok(conclude(&imported, common.json))
}

fn conclude(imported: &Imported, as_json: bool) -> Exit {
    let Imported {
        imported: done,
        there,
        before,
        left,
        stop,
    } = imported;
    if let Some(stop) = stop {
        eprintln!("stopped: {stop}; the same command goes on");
    }
    let told = if as_json {
        let error = stop.as_ref().map(ToString::to_string);
        let told = json!({
            "imported": done,
            "there_already": there,
            "imported_before": before,
            "left": left,
            "error": error,
        });
        format!("{told:#}\n")
    } else {
        let others = [
            (*there, "were in the queue already"),
            (*before, "were imported before"),
            (*left, "are left"),
        ];
        format!("{} imported{}\n", letters(*done), counted(others))
    };
    let printed = print(&told);
    match stop {
        Some(Stop::Broker(trouble)) => Exit::of(trouble),
        Some(_) => Exit::Failed,
        None => printed,
    }
}
