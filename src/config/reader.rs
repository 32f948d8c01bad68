//! Reads typed values by key and goes on after a mistake, so that all are told at once.

use std::time::Duration;

use super::errors::{ConfigErrors, ValueOrigin};
use super::keys::{self, ACCOUNT, KEYS, SettingKey, ValueKind};
use super::layers::{RawValue, SettingsLayers};
use super::values::{self, ParsedValue, RawScalar};

/// One key as it is in effect.
#[derive(Debug, Clone)]
pub struct EffectiveSettings {
    /// The full path, `section.key`.
    pub key: String,
    /// Secrets are `[redacted]`; none when unset.
    pub value: Option<toml::Value>,
    pub origin: ValueOrigin,
}

/// What stands for a secret wherever settings are shown.
const REDACTED: &str = "[redacted]";

pub(super) struct SettingsReader {
    layers: SettingsLayers,
    mistakes: ConfigErrors,
    effective: Vec<EffectiveSettings>,
}

impl SettingsReader {
    pub fn new(layers: SettingsLayers, mistakes: ConfigErrors) -> Self {
        Self {
            layers,
            mistakes,
            effective: Vec::new(),
        }
    }

    /// What is in effect, or everything that is wrong.
    pub fn finish(mut self) -> Result<Vec<EffectiveSettings>, ConfigErrors> {
        if self.mistakes.is_empty() {
            self.effective
                .sort_by_key(|effective| place(&effective.key));
            Ok(self.effective)
        } else {
            Err(self.mistakes.sorted())
        }
    }

    /// Whether file or environment say anything of this key.
    pub fn is_given(&self, path: &str) -> bool {
        self.layers.contains_key(path)
    }

    /// The accounts that anything is said of.
    pub fn accounts(&self) -> Vec<String> {
        let paths = self.layers.keys();
        let aids = paths.filter_map(|path| path.strip_prefix("api.accounts.")?.split('.').next());
        let mut aids: Vec<String> = aids.map(Into::into).collect();
        aids.dedup();
        aids
    }

    pub fn mistake(&mut self, path: &str, what: impl Into<String>) {
        let found = self.layers.get(path);
        let origin = found.map_or(ValueOrigin::Default, |found| found.origin.clone());
        self.mistakes.add(path, origin, what);
    }

    pub fn origin(&self, path: &str) -> ValueOrigin {
        let found = self.layers.get(path);
        found.map_or(ValueOrigin::Default, |found| found.origin.clone())
    }

    pub fn text(&mut self, path: &str) -> Option<String> {
        self.read(path, values::text)
    }

    pub fn flag(&mut self, path: &str) -> bool {
        self.required(path, values::flag)
    }

    pub fn count(&mut self, path: &str) -> Option<u32> {
        self.read(path, values::count)
    }

    pub fn decimal(&mut self, path: &str) -> f64 {
        self.required(path, values::decimal)
    }

    pub fn duration(&mut self, path: &str) -> Duration {
        self.required(path, values::duration)
    }

    /// A duration that another bounds: said too long it is a mistake, a default gives way.
    pub fn duration_within(&mut self, path: &str, bound: (&str, Duration)) -> Duration {
        let duration = self.duration(path);
        let (bound_path, bound) = bound;
        if duration <= bound {
            return duration;
        }
        if self.is_given(path) {
            let is = humantime::format_duration(duration);
            let most = humantime::format_duration(bound);
            self.mistake(path, format!("{is} is longer than {bound_path}, {most}"));
        } else if let Some(effective) = self.effective.iter_mut().find(|e| e.key == path) {
            effective.value = Some(values::quoted(bound));
        }
        bound
    }

    /// A value by the kind's own parser, falling back to the default after a mistake.
    pub fn required<T>(
        &mut self,
        path: &str,
        parse: fn(RawScalar<'_>, ValueKind) -> ParsedValue<T>,
    ) -> T {
        self.read(path, parse).unwrap_or_else(|| {
            let key = known(path);
            let default = key.default.expect("a required key has a default");
            let (value, _) = parse(RawScalar::Text(default), key.kind).expect("a default is valid");
            value
        })
    }

    /// A value, its default, or nothing: it was unset or is told as a mistake.
    fn read<T>(
        &mut self,
        path: &str,
        parse: fn(RawScalar<'_>, ValueKind) -> ParsedValue<T>,
    ) -> Option<T> {
        let key = known(path);
        let (parsed, origin) = match (self.layers.get(path), key.default) {
            (Some(RawValue { value, origin }), _) => {
                let given = match (origin, value.as_str()) {
                    (ValueOrigin::Variable(_), Some(text)) => RawScalar::Text(text),
                    _ => RawScalar::Toml(value),
                };
                (parse(given, key.kind), origin.clone())
            }
            (None, Some(default)) => (
                parse(RawScalar::Text(default), key.kind),
                ValueOrigin::Default,
            ),
            (None, None) => {
                self.show(path, None, ValueOrigin::Default);
                return None;
            }
        };
        match parsed {
            Ok((value, shown)) => {
                let shown = match key.kind {
                    ValueKind::Secret => REDACTED.into(),
                    _ => shown,
                };
                self.show(path, Some(shown), origin);
                Some(value)
            }
            Err(what) => {
                self.mistakes.add(path, origin, what);
                None
            }
        }
    }

    /// Tells the key as unset, without its default: a twin is set in its stead.
    pub fn unset(&mut self, path: &str) {
        self.show(path, None, ValueOrigin::Default);
    }

    fn show(&mut self, path: &str, value: Option<toml::Value>, origin: ValueOrigin) {
        self.effective.push(EffectiveSettings {
            key: path.into(),
            value,
            origin,
        });
    }
}

/// Orders paths as the table does, accounts one after the other.
fn place(path: &str) -> (Option<usize>, String, Option<usize>) {
    let at = |key: &SettingKey| KEYS.iter().position(|other| other.path == key.path);
    let account = path.strip_prefix("api.accounts.");
    match account.and_then(|rest| rest.split_once('.')) {
        Some((aid, _)) => {
            let first = KEYS.iter().position(|key| key.path.starts_with(ACCOUNT));
            (first, aid.into(), at(known(path)))
        }
        None => (at(known(path)), String::new(), None),
    }
}

/// The key of a path, an account's too.
fn known(path: &str) -> &'static SettingKey {
    let account = path.strip_prefix("api.accounts.");
    let key = match account.and_then(|rest| rest.split_once('.')) {
        Some((_, name)) => keys::account_key(name),
        None => keys::find(path),
    };
    key.expect("only keys of the table are read")
}
