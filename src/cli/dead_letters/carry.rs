//! `dead-letters export` and `dead-letters import`

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::super::{Exit, print};
use super::acting::failed;
use super::args::{Common, FilterArgs};
use super::list::go_on;
use super::text::{Bar, interrupt, letters};
use crate::dead_letters::{
    Desk, Export, ExportTrouble, Found, Import, ImportTrouble, Imported, NameTrouble, Named, Stop,
};

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where to: a file that is not there yet, or `-` for standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    filter: FilterArgs,
    /// Letters by the first digits of their ids, or by the ids of their requests
    #[arg(long = "letter", value_name = "LETTER")]
    letters: Vec<Named>,
    /// Go on with an export that was cut off: add what the file has not
    #[arg(long)]
    resume: bool,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What `export` wrote, or an audit of discards
    #[arg(value_name = "FILE")]
    file: PathBuf,
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
    let limit = args.filter.limit();
    let mut found = Found::new(&filter);
    let mut matched = 0;
    let mut written = Ok(());
    let bar = Bar::new("exporting");
    let surveyed = desk
        .survey(
            |step| bar.show(step),
            |letter| {
                if matched < limit && filter.takes(letter) {
                    matched += 1;
                    found.note(letter);
                    written = export.add(letter);
                }
                go_on(written.is_ok() && matched < limit)
            },
        )
        .await;
    drop(bar);
    let written = written.and_then(|()| export.finish());
    match (written, surveyed) {
        (Ok(()), Ok(_)) => tell_export(&export, &found.troubles(), to_stdout, common.json),
        // The reader has seen enough.
        (Err(error), _) if to_stdout && error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        (Err(error), _) => {
            eprintln!("cannot export: {error}");
            Exit::Failed
        }
        (Ok(()), Err(trouble)) => failed(&trouble),
    }
}

fn tell_export(export: &Export, troubles: &[NameTrouble], to_stdout: bool, as_json: bool) -> Exit {
    for trouble in troubles {
        eprintln!("{trouble}");
    }
    let told = if as_json {
        let told = json!({"exported": export.written, "there_already": export.skipped});
        format!("{told:#}\n")
    } else {
        let there = match export.skipped {
            0 => String::new(),
            count => format!("; {count} were in the file already"),
        };
        format!("{} exported{there}\n", letters(export.written))
    };
    let exit = if to_stdout {
        // The letters are on standard output.
        eprint!("{told}");
        Exit::Done
    } else {
        print(&told)
    };
    if troubles.is_empty() {
        exit
    } else {
        Exit::Failed
    }
}

pub async fn import(args: &ImportArgs, common: &Common, desk: &Desk) -> Exit {
    match try_import(args, desk).await {
        Ok(imported) => conclude(&imported, common.json),
        Err(trouble) => {
            eprintln!("{}: {trouble}", args.file.display());
            match trouble {
                ImportTrouble::Broker(trouble) => Exit::of(&trouble),
                ImportTrouble::Io(_) | ImportTrouble::Progress(_) => Exit::Failed,
                ImportTrouble::NoExport(_) => Exit::Usage,
            }
        }
    }
}

async fn try_import(args: &ImportArgs, desk: &Desk) -> Result<Imported, ImportTrouble> {
    let mut import = Import::open(&args.file)?;
    let bar = Bar::new("importing");
    desk.import(&mut import, |step| bar.show(step), interrupt())
        .await
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
        let mut told = format!("{} imported", letters(*done));
        for (count, what) in [
            (there, "were in the queue already"),
            (before, "were imported before"),
            (left, "are left"),
        ] {
            if *count > 0 {
                // Writing to a string cannot fail.
                let _ = write!(told, "; {count} {what}");
            }
        }
        told + "\n"
    };
    let printed = print(&told);
    match stop {
        Some(Stop::Broker(trouble)) => Exit::of(trouble),
        Some(_) => Exit::Failed,
        None => printed,
    }
}
