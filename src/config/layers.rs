//! The layers a setting can come from, laid over each other: file, then environment.
//!
//! Unknown keys are found layer by layer, before one can hide another; what a value must look like
//! is [`super::reader`]'s business.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};

use super::keys::{self, ACCOUNT, KEYS};
use super::mistakes::{Mistakes, Origin};
use crate::core::request::AccountId;

/// Begins every variable that is ours.
const PREFIX: &str = "RENAME_WORKER_";

/// A value as it was given, and where.
#[derive(Debug)]
pub(super) struct Found {
    pub value: Value,
    pub origin: Origin,
}

/// What is set, by its full path; unset keys are absent.
pub(super) type Layers = BTreeMap<String, Found>;

/// The process's environment, as [`super::Settings::load`] takes it.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            value.to_string_lossy().into_owned(),
        )
    })
}

pub(super) fn gather(
    config_file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    mistakes: &mut Mistakes,
) -> Layers {
    let mut figment = Figment::new();
    if let Some(path) = config_file {
        let origin = Origin::File(path.into());
        let dict = file(path, mistakes);
        figment = figment.merge(Layer::checked(dict, origin, mistakes));
    }
    // Sorted, so that mistakes are told in the same order on every machine.
    let ours: BTreeMap<_, _> = env
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect();
    for (name, value) in ours {
        let origin = Origin::Variable(name.clone());
        if let Some(dict) = variable(&name, value, mistakes) {
            figment = figment.merge(Layer::checked(dict, origin, mistakes));
        }
    }
    flatten(&figment)
}

/// The file's tables; empty with a mistake when it has none to give.
fn file(path: &Path, mistakes: &mut Mistakes) -> Dict {
    let origin = || Origin::File(path.into());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) => {
            mistakes.add("--config", origin(), format!("cannot be read: {cause}"));
            return Dict::new();
        }
    };
    toml::from_str(&text).unwrap_or_else(|error| {
        // The error's own text quotes the line, which may hold a secret.
        let before = error.span().map_or("", |span| &text[..span.start]);
        let line = before.matches('\n').count() + 1;
        let message = error.message().replace('\n', ", ");
        mistakes.add(
            format!("line {line}"),
            origin(),
            format!("no TOML: {message}"),
        );
        Dict::new()
    })
}

/// One variable as a layer: `RENAME_WORKER_API__TIMEOUT` is `api.timeout`.
fn variable(name: &str, value: String, mistakes: &mut Mistakes) -> Option<Dict> {
    let rest = &name[PREFIX.len()..];
    if !rest.contains("__") {
        // Kubernetes puts RENAME_WORKER_PORT and the like beside a service of that name, so only
        // what looks like one of our keys with a `_` too few is a mistake.
        if let Some(meant) = short_of_an_underscore(rest) {
            mistakes.add(
                name,
                Origin::Default,
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

fn short_of_an_underscore(rest: &str) -> Option<String> {
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
struct Layer {
    dict: Dict,
    origin: Origin,
}

impl Layer {
    /// Keeps what is known, tells what is not.
    fn checked(dict: Dict, origin: Origin, mistakes: &mut Mistakes) -> Self {
        let mut check = Check {
            origin: &origin,
            mistakes,
        };
        let dict = check.root(dict);
        Self { dict, origin }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        match &self.origin {
            Origin::Default => Metadata::named("default"),
            Origin::File(path) => Metadata::from("file", path.as_path()),
            Origin::Variable(name) => Metadata::from("variable", name.as_str()),
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

/// One layer's walk for keys that are none.
struct Check<'a> {
    origin: &'a Origin,
    mistakes: &'a mut Mistakes,
}

impl Check<'_> {
    fn root(&mut self, dict: Dict) -> Dict {
        self.tables(dict, "", "a section", |check, name, table| {
            check.section(name, table)
        })
    }

    fn section(&mut self, section: &str, table: Dict) -> Option<Dict> {
        let prefix = format!("{section}.");
        if !KEYS.iter().any(|key| key.path.starts_with(&prefix)) {
            let sections = KEYS.iter().filter_map(|key| key.path.split('.').next());
            let hint = did_you_mean(section, sections);
            self.add(section, format!("is no section{hint}"));
            return None;
        }
        let mut kept = Dict::new();
        for (name, value) in table {
            let path = format!("{section}.{name}");
            if path == "api.accounts" {
                kept.extend(self.accounts(value).map(|dict| (name, dict.into())));
            } else if keys::find(&path).is_some() && !path.contains('<') {
                kept.extend(self.scalar(&path, value).map(|value| (name, value)));
            } else {
                let here = KEYS.iter().filter(|key| !key.path.contains('<'));
                let hint = did_you_mean_key(section, &name, here.map(|key| key.path));
                self.add(&path, format!("is no key{hint}"));
            }
        }
        Some(kept)
    }

    fn accounts(&mut self, value: Value) -> Option<Dict> {
        let Some(dict) = value.into_dict() else {
            self.add(
                "api.accounts",
                "is no table; write [api.accounts.<aid>]".into(),
            );
            return None;
        };
        let kept = self.tables(dict, "api.accounts.", "a table", |check, aid, table| {
            if let Err(bad) = AccountId::parse(aid) {
                check.add(
                    &format!("api.accounts.{aid}"),
                    format!("is no account: {bad}"),
                );
                return None;
            }
            Some(check.account(aid, table))
        });
        Some(kept)
    }

    fn account(&mut self, aid: &str, table: Dict) -> Dict {
        let mut kept = Dict::new();
        for (name, value) in table {
            let path = format!("api.accounts.{aid}.{name}");
            if keys::account_key(&name).is_some() {
                kept.extend(self.scalar(&path, value).map(|value| (name, value)));
            } else {
                let names = KEYS.iter().filter_map(|key| key.path.strip_prefix(ACCOUNT));
                let hint = did_you_mean(&name, names);
                self.add(&path, format!("is no key{hint}"));
            }
        }
        kept
    }

    /// Goes into each table of `dict`, telling what is no table.
    fn tables(
        &mut self,
        dict: Dict,
        prefix: &str,
        kind: &str,
        mut enter: impl FnMut(&mut Self, &str, Dict) -> Option<Dict>,
    ) -> Dict {
        let mut kept = Dict::new();
        for (name, value) in dict {
            match value {
                Value::Dict(_, table) => {
                    kept.extend(enter(self, &name, table).map(|dict| (name, dict.into())));
                }
                _ => self.add(&format!("{prefix}{name}"), format!("is not in {kind}")),
            }
        }
        kept
    }

    /// A table where a value belongs would swallow the layers below it.
    fn scalar(&mut self, path: &str, value: Value) -> Option<Value> {
        if value.as_dict().is_none() {
            return Some(value);
        }
        self.add(path, "is a table; it takes a value".into());
        None
    }

    fn add(&mut self, key: &str, what: String) {
        self.mistakes.add(key, self.origin.clone(), what);
    }
}

/// "; did you mean …?", or nothing when nothing is near.
fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// As [`did_you_mean`], and finds the key of that name in another section.
fn did_you_mean_key<'a>(
    section: &str,
    name: &str,
    paths: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let split = paths.filter_map(|path| path.split_once('.'));
    let here = split.clone().filter(|(other, _)| *other == section);
    if let Some(near) = nearest(name, here.map(|(_, key)| key)) {
        return format!("; did you mean {section}.{near}?");
    }
    let elsewhere = split.clone().find(|(_, key)| *key == name);
    elsewhere.map_or_else(String::new, |(other, key)| {
        format!("; did you mean {other}.{key}?")
    })
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this likeness (0 to 1) a suggestion misleads more than it helps.
    const ALIKE: f64 = 0.8;
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The merged layers, each value by its full path.
fn flatten(figment: &Figment) -> Layers {
    let mut layers = Layers::new();
    let data = figment.data().unwrap_or_default();
    for (section, value) in data.get(&Profile::Default).into_iter().flatten() {
        gather_values(figment, section, value, &mut layers);
    }
    layers
}

fn gather_values(figment: &Figment, path: &str, value: &Value, layers: &mut Layers) {
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
        Some(Source::File(path)) => Origin::File(path.clone()),
        Some(Source::Custom(name)) => Origin::Variable(name.clone()),
        _ => Origin::Default,
    };
    let found = Found {
        value: value.clone(),
        origin,
    };
    layers.insert(path.into(), found);
}
