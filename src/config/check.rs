//! Finds, in one layer, the keys that are none, and says which may have been meant.

use figment::value::{Dict, Value};

use super::keys::{self, ACCOUNT, KEYS};
use super::mistakes::{Mistakes, Origin};
use crate::core::request::AccountId;

/// Keeps what is known, tells what is not.
pub(super) fn known(dict: Dict, origin: &Origin, mistakes: &mut Mistakes) -> Dict {
    Check { origin, mistakes }.root(dict)
}

/// One layer's walk.
struct Check<'a> {
    origin: &'a Origin,
    mistakes: &'a mut Mistakes,
}

impl Check<'_> {
    fn root(&mut self, dict: Dict) -> Dict {
        let mut kept = Dict::new();
        for (name, value) in dict {
            if let Value::Dict(_, table) = value {
                let table = self.section(&name, table);
                kept.extend(table.map(|table| (name, table.into())));
            } else {
                let elsewhere = did_you_mean_key("", &name);
                self.add(&name, format!("is in no section{elsewhere}"));
            }
        }
        kept
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
                let hint = did_you_mean_key(section, &name);
                self.add(&path, format!("is no key{hint}"));
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
                (Err(bad), _) => self.add(&path, format!("is no account: {bad}")),
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
                let hint = did_you_mean(&name, names);
                self.add(&path, format!("is no key{hint}"));
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

    fn add(&mut self, key: &str, what: impl Into<String>) {
        self.mistakes.add(key, self.origin.clone(), what);
    }
}

/// "; did you mean …?", or nothing when nothing is near.
fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// As [`did_you_mean`], and finds the key of that name in another section.
fn did_you_mean_key(section: &str, name: &str) -> String {
    let scalars = KEYS.iter().filter(|key| !key.path.contains('<'));
    let split = scalars.filter_map(|key| key.path.split_once('.'));
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
