//! Finds, in one layer, the keys that are none, and says which may have been meant.
//!
//! A name in a file that is like no key's is told by its line: where quotes are broken, it may be a
//! piece of a secret.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::errors::{ConfigErrors, ValueOrigin};
use super::keys::{self, ACCOUNT, KEYS};
use crate::core::model::request::AccountId;

/// Keeps what is known, tells what is not.
pub(super) fn is_known_key(
    dict: Dict,
    origin: &ValueOrigin,
    lines: &CheckOutput,
    mistakes: &mut ConfigErrors,
) -> Dict {
    ConfigCheck {
        origin,
        lines,
        mistakes,
    }
    .root(dict)
}

/// The line of each key and table of a file, by its full path.
pub(super) type CheckOutput = BTreeMap<String, usize>;

/// One layer's walk.
struct ConfigCheck<'a> {
    origin: &'a ValueOrigin,
    lines: &'a CheckOutput,
    mistakes: &'a mut ConfigErrors,
}

impl ConfigCheck<'_> {
    fn root(&mut self, dict: Dict) -> Dict {
        let mut kept = Dict::new();
        for (name, value) in dict {
            if let Value::Dict(_, table) = value {
                let table = self.section(&name, table);
                kept.extend(table.map(|table| (name, table.into())));
            } else {
                let meant = meant_key("", &name);
                self.unknown(&name, "is in no section", meant);
            }
        }
        kept
    }

    fn section(&mut self, section: &str, table: Dict) -> Option<Dict> {
        let prefix = format!("{section}.");
        if !KEYS.iter().any(|key| key.path.starts_with(&prefix)) {
            let sections = KEYS.iter().filter_map(|key| key.path.split('.').next());
            let meant = nearest(section, sections).map(Into::into);
            self.unknown(section, "is no section", meant);
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
                let meant = meant_key(section, &name);
                self.unknown(&path, "is no key", meant);
            }
        }
        Some(kept)
    }

    fn accounts(&mut self, value: Value) -> Option<Dict> {
        let Some(tables) = value.into_dict() else {
            self.add("api.accounts", "is no table; write [api.accounts.<aid>]");
            return None;
        };
        let mut kept = Dict::new();
        for (aid, value) in tables {
            let path = format!("api.accounts.{aid}");
            match (AccountId::parse(&aid), value) {
                (Err(bad), _) => self.unknown(&path, &format!("is no account: {bad}"), None),
                (Ok(_), Value::Dict(_, table)) => {
                    let table = self.account(&path, table);
                    kept.insert(aid, table.into());
                }
                (Ok(_), _) => self.add(&path, "is no table; write [api.accounts.<aid>]"),
            }
        }
        Some(kept)
    }

    fn account(&mut self, at: &str, table: Dict) -> Dict {
        let mut kept = Dict::new();
        for (name, value) in table {
            let path = format!("{at}.{name}");
            if keys::account_key(&name).is_some() {
                kept.extend(self.scalar(&path, value).map(|value| (name, value)));
            } else {
                let names = KEYS.iter().filter_map(|key| key.path.strip_prefix(ACCOUNT));
                let meant = nearest(&name, names).map(Into::into);
                self.unknown(&path, "is no key", meant);
            }
        }
        kept
    }

    /// A table where a value belongs would swallow the layers below it.
    fn scalar(&mut self, path: &str, value: Value) -> Option<Value> {
        if value.as_dict().is_none() {
            return Some(value);
        }
        self.add(path, "is a table; it takes a value");
        None
    }

    fn unknown(&mut self, path: &str, what: &str, meant: Option<String>) {
        let key = match (self.origin, &meant) {
            (ValueOrigin::File(_), None) => match self.lines.get(path) {
                Some(line) => format!("line {line}"),
                None => "a key".into(),
            },
            _ => path.into(),
        };
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        self.add(&key, format!("{what}{hint}"));
    }

    fn add(&mut self, key: &str, what: impl Into<String>) {
        self.mistakes.add(key, self.origin.clone(), what);
    }
}

/// The key that may have been meant, of that section or of that name in another one.
fn meant_key(section: &str, name: &str) -> Option<String> {
    let scalars = KEYS.iter().filter(|key| !key.path.contains('<'));
    let split = scalars.filter_map(|key| key.path.split_once('.'));
    let here = split.clone().filter(|(other, _)| *other == section);
    if let Some(near) = nearest(name, here.map(|(_, key)| key)) {
        return Some(format!("{section}.{near}"));
    }
    let elsewhere = split.clone().find(|(_, key)| *key == name);
    elsewhere.map(|(other, key)| format!("{other}.{key}"))
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this likeness (0 to 1) a suggestion misleads more than it helps.
    const SUGGESTION_THRESHOLD: f64 = 0.8;
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= SUGGESTION_THRESHOLD)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
