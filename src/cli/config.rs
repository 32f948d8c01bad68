//! `config check` and `config show`; and how every command gets its settings.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CliError, ExitStatus, print};
use crate::config::{ConfigErrors, EffectiveSettings, Settings, ValueOrigin, environment};

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings and the files they name, and report every mistake
    ///
    /// Certificates, keys and secrets are read as the run reads them; nothing of them is printed.
    Check {
        /// Report as JSON
        #[arg(long)]
        json: bool,
        /// Leave out the files, where they are not on this machine
        #[arg(long)]
        skip_files: bool,
    },
    /// Show the settings in effect and where each comes from; secrets are left out
    Show {
        /// Show them as JSON
        #[arg(long)]
        json: bool,
    },
}

/// The settings, or every mistake in them.
pub fn settings(config_file: Option<&Path>) -> Result<Settings, CliError> {
    Settings::load(config_file, environment())
        .map_err(|mistakes| CliError::new(ExitStatus::Usage, mistakes.to_string()))
}

pub fn run(args: &ConfigArgs, config_file: Option<&Path>) -> ExitStatus {
    let found = match args.what {
        ConfigCommand::Check {
            skip_files: false, ..
        } => Settings::check(config_file, environment()),
        _ => Settings::explain(config_file, environment()),
    };
    match (&args.what, found) {
        (ConfigCommand::Check { json: false, .. }, Ok((settings, effective))) => {
            for note in settings.warnings() {
                say!("note: {note}");
            }
            print(&summary(&effective))
        }
        (ConfigCommand::Check { json: true, .. }, Ok((settings, _))) => print(&json_of(&json!({
            "ok": true, "mistakes": [], "notes": settings.warnings(),
        }))),
        (ConfigCommand::Show { json: false }, Ok((_, effective))) => print(&toml_of(&effective)),
        (ConfigCommand::Show { json: true }, Ok((_, effective))) => {
            print(&json_of(&shown(&effective)))
        }
        (
            ConfigCommand::Check { json: true, .. } | ConfigCommand::Show { json: true },
            Err(mistakes),
        ) => match print(&json_of(&errors_as_text(&mistakes))) {
            ExitStatus::Done => ExitStatus::Usage,
            failed => failed,
        },
        (_, Err(mistakes)) => {
            say!("{mistakes}");
            ExitStatus::Usage
        }
    }
}

fn summary(effective: &[EffectiveSettings]) -> String {
    let set = effective
        .iter()
        .filter(|e| e.origin != ValueOrigin::Default);
    let variables = set
        .clone()
        .filter(|e| matches!(e.origin, ValueOrigin::Variable(_)));
    let (set, variables) = (set.count(), variables.count());
    format!("settings ok: {set} set ({variables} by variables), the others at their defaults\n")
}

fn json_of(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn errors_as_text(mistakes: &ConfigErrors) -> serde_json::Value {
    let mistakes: Vec<_> = mistakes
        .iter()
        .map(|mistake| {
            json!({
                "key": mistake.key,
                "source": mistake.origin.to_string(),
                "what": mistake.what,
            })
        })
        .collect();
    json!({"ok": false, "mistakes": mistakes})
}

fn shown(effective: &[EffectiveSettings]) -> serde_json::Value {
    let settings: BTreeMap<_, _> = effective
        .iter()
        .map(|e| {
            let source = e.origin.to_string();
            (&e.key, json!({"value": e.value, "source": source}))
        })
        .collect();
    json!(settings)
}

/// A key's table, and its name in there.
fn parts(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// TOML that says of each key where it comes from; unset keys are comments.
fn toml_of(effective: &[EffectiveSettings]) -> String {
    let mut tables: Vec<(&str, Vec<String>)> = Vec::new();
    let set = |name: &str, value: &dyn Display| format!("{name} = {value}");
    let widths = effective
        .iter()
        .filter_map(|EffectiveSettings { key, value, .. }| {
            let (_, name) = parts(key);
            Some(set(name, value.as_ref()?).chars().count())
        });
    let width = widths.max().unwrap_or_default();
    for EffectiveSettings { key, value, origin } in effective {
        let (table, name) = parts(key);
        let line = match value {
            Some(value) => format!("{:<width$}  # {origin}", set(name, value)),
            None => format!("# {name} is not set"),
        };
        // An account's keys lie between its section's, and TOML wants a table in one piece.
        match tables.iter_mut().find(|(known, _)| *known == table) {
            Some((_, lines)) => lines.push(line),
            None => tables.push((table, vec![line])),
        }
    }
    let mut toml = String::new();
    for (table, lines) in tables {
        let gap = if toml.is_empty() { "" } else { "\n" };
        // Writing to a string cannot fail.
        let _ = writeln!(toml, "{gap}[{table}]\n{}", lines.join("\n"));
    }
    toml
}
