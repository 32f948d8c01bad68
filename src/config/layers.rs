//! The layers a setting can come from, laid over each other: file, then environment.
//!
//! Unknown keys are found layer by layer ([`super::check`]), before one can hide another; what a
//! value must look like is [`super::reader`]'s business.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use toml::de::{DeTable, DeValue};

use super::bom::text_without_bom;
use super::check::{self, CheckOutput};
use super::errors::{ConfigErrors, ValueOrigin};
use super::keys::KEYS;

/// Begins every variable that is ours.
const PREFIX: &str = "RENAME_WORKER_";

/// A value as it was given, and where.
#[derive(Debug)]
pub(super) struct RawValue {
    pub value: Value,
    pub origin: ValueOrigin,
}

/// What is set, by its full path; unset keys are absent.
pub(super) type SettingsLayers = BTreeMap<String, RawValue>;

/// The process's environment, as [`super::Settings::load`] takes it.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            value.to_string_lossy().into_owned(),
        )
    })
}

pub(super) fn collect(
    config_file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    mistakes: &mut ConfigErrors,
) -> SettingsLayers {
    let mut figment = Figment::new();
    if let Some(path) = config_file {
        let origin = ValueOrigin::File(path.into());
        let (dict, lines) = file(path, mistakes);
        figment = figment.merge(SettingsLayer::checked(dict, origin, &lines, mistakes));
    }
    // Sorted, so that mistakes are told in the same order on every machine.
    let ours: BTreeMap<_, _> = env
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect();
    for (name, value) in ours {
        let origin = ValueOrigin::Variable(name.clone());
        if let Some(dict) = variable(&name, value, mistakes) {
            figment = figment.merge(SettingsLayer::checked(
                dict,
                origin,
                &CheckOutput::new(),
                mistakes,
            ));
        }
    }
    flatten(&figment)
}

/// The file's tables and where they stand; empty with a mistake when it has none to give.
fn file(path: &Path, mistakes: &mut ConfigErrors) -> (Dict, CheckOutput) {
    let origin = || ValueOrigin::File(path.into());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) => {
            mistakes.add("--config", origin(), format!("cannot be read: {cause}"));
            return (Dict::new(), CheckOutput::new());
        }
    };
    let text = text_without_bom(&text);
    let mut lines = CheckOutput::new();
    if let Ok(table) = DeTable::parse(text) {
        note_lines(text, "", table.get_ref(), &mut lines);
    }
    let dict = toml::from_str(text).unwrap_or_else(|error| {
        // The error's own text may quote the line, which may hold a secret.
        let at = error.span().map_or(0, |span| span.start);
        mistakes.add(
            format!("line {}", line_of(text, at)),
            origin(),
            "is not TOML: look for a quote, bracket or = that is missing, and for a key or table \
             that stands twice",
        );
        Dict::new()
    });
    (dict, lines)
}

fn note_lines(text: &str, above: &str, table: &DeTable<'_>, lines: &mut CheckOutput) {
    for (name, value) in table {
        let path = match above {
            "" => name.get_ref().to_string(),
            above => format!("{above}.{}", name.get_ref()),
        };
        if let DeValue::Table(table) = value.get_ref() {
            note_lines(text, &path, table, lines);
        }
        lines.insert(path, line_of(text, name.span().start));
    }
}

/// The line, from 1, of a place in a text, in bytes.
fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

/// One variable as a layer: `RENAME_WORKER_API__TIMEOUT` is `api.timeout`.
fn variable(name: &str, value: String, mistakes: &mut ConfigErrors) -> Option<Dict> {
    let rest = &name[PREFIX.len()..];
    if !rest.contains("__") {
        // Kubernetes puts RENAME_WORKER_PORT and the like beside a service of that name, so only
        // what looks like one of our keys with a `_` too few is a mistake.
        if let Some(meant) = missing_separator(rest) {
            mistakes.add(
                name,
                ValueOrigin::Default,
                format!("is no setting; did you mean {meant}?"),
            );
        }
        return None;
    }
    let mut parts: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if let [section, accounts, aid, ..] = &mut parts[..]
        && section == "api"
        && accounts == "accounts"
    {
        aid.make_ascii_uppercase();
    }
    let leaf = Value::from(value);
    let nested = parts.into_iter().rev().fold(leaf, |inner, part| {
        Value::Dict(Tag::Default, Dict::from([(part, inner)]))
    });
    nested.into_dict()
}

fn missing_separator(rest: &str) -> Option<String> {
    let rest = rest.to_ascii_lowercase();
    if rest.starts_with("api_accounts_") {
        return Some(format!("{PREFIX}API__ACCOUNTS__<aid>__<KEY>"));
    }
    KEYS.iter()
        .find(|key| key.path.replace('.', "_") == rest)
        .map(|key| variable_name(key.path))
}

/// The variable of a key.
pub(super) fn variable_name(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// A provider for figment: tables and where they came from.
struct SettingsLayer {
    dict: Dict,
    origin: ValueOrigin,
}

impl SettingsLayer {
    /// Keeps what is known, tells what is not.
    fn checked(
        dict: Dict,
        origin: ValueOrigin,
        lines: &CheckOutput,
        mistakes: &mut ConfigErrors,
    ) -> Self {
        let dict = check::is_known_key(dict, &origin, lines, mistakes);
        Self { dict, origin }
    }
}

impl Provider for SettingsLayer {
    fn metadata(&self) -> Metadata {
        match &self.origin {
            ValueOrigin::Default => Metadata::named("default"),
            ValueOrigin::File(path) => Metadata::from("file", path.as_path()),
            ValueOrigin::Variable(name) => Metadata::from("variable", name.as_str()),
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

/// The merged layers, each value by its full path.
fn flatten(figment: &Figment) -> SettingsLayers {
    let mut layers = SettingsLayers::new();
    let data = figment.data().unwrap_or_default();
    for (section, value) in data.get(&Profile::Default).into_iter().flatten() {
        gather_values(figment, section, value, &mut layers);
    }
    layers
}

fn gather_values(figment: &Figment, path: &str, value: &Value, layers: &mut SettingsLayers) {
    if let Some(dict) = value.as_dict() {
        for (name, value) in dict {
            gather_values(figment, &format!("{path}.{name}"), value, layers);
        }
        return;
    }
    let source = figment
        .get_metadata(value.tag())
        .and_then(|meta| meta.source.as_ref());
    let origin = match source {
        Some(Source::File(path)) => ValueOrigin::File(path.clone()),
        Some(Source::Custom(name)) => ValueOrigin::Variable(name.clone()),
        _ => ValueOrigin::Default,
    };
    let found = RawValue {
        value: value.clone(),
        origin,
    };
    layers.insert(path.into(), found);
}
