//! The generated pages of the settings, and the tests that keep them true: `docs/settings.md` and
//! `examples/rename-worker.toml`.

use std::fmt::Write as _;
use std::path::Path;

use super::keys::{KEYS, SettingKey, ValueKind};
use super::layers::variable_name;
use super::{Settings, values};

fn settings_page() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         <!-- Generated from src/config/keys.rs by make schemas -->\n\n\
         Settings come from a TOML file (`--config FILE`, or the variable `RENAME_WORKER_CONFIG`), \
         and each can be overridden by an environment variable: `api.timeout` by \
         `RENAME_WORKER_API__TIMEOUT`, an account's by \
         `RENAME_WORKER_API__ACCOUNTS__T12345678__TOKEN`. An empty variable counts as unset. \
         In a variable a list is separated by commas.\n\n\
         `rename-worker config check` tells every mistake at once; `rename-worker config show` \
         tells what is in effect and where each value comes from. Unknown keys are mistakes. \
         Neither quotes what it cannot read. Certificates, keys and secrets in files are read by \
         `config check` as the run reads them (`--skip-files` leaves them out). \
         Secrets never print. A `*_file` is read anew when it is used, so a rotated secret needs \
         no restart (but for `log.hash_key_file`); it excludes its twin without `_file`. A byte order mark at the beginning of \
         a file or value and line breaks at the end of a value are left out. \
         `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are used for nothing: a proxy \
         is `api.proxy` or `otlp.proxy`. A token and a client exclude each \
         other too. Paths are relative to the working directory.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (table, name) = key.path.rsplit_once('.').unwrap();
        if table != section {
            section = table;
            let _ = write!(
                page,
                "\n## `{table}`\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
            );
        }
        let default = match key.default {
            Some(default) => format!("`{default}`"),
            None => "none".into(),
        };
        let kind = match key.kind {
            ValueKind::Choice(choices) => format!("`{}`", choices.join("`, `")),
            kind => kind.expected(),
        };
        let _ = writeln!(page, "| `{name}` | {kind} | {default} | {} |", key.meaning);
    }
    page
}

fn example() -> String {
    let mut file = String::from(
        "# Every setting of rename-worker at its default; what has none shows an example.\n\
         # Generated from src/config/keys.rs by make schemas\n\
         # Check your own with: rename-worker --config FILE config check\n",
    );
    let mut section = String::new();
    for key in KEYS {
        let (table, name) = key.path.rsplit_once('.').unwrap();
        let table = table.replace("<aid>", "T12345678");
        if table != section {
            let _ = writeln!(file, "\n[{table}]");
            section = table;
        }
        let _ = writeln!(file, "# {}\n#{name} = {}", key.meaning, sample(key));
    }
    file
}

/// The default as TOML, or something that could stand there.
fn sample(key: &SettingKey) -> String {
    let text = key.default.unwrap_or(match key.kind {
        ValueKind::Secret if key.path.rsplit('.').next() == Some("proxy") => {
            "http://proxy.example.com:3128"
        }
        ValueKind::Secret => "…",
        ValueKind::Url => "http://127.0.0.1:4318",
        ValueKind::File => "/run/secrets/rename-worker/…",
        ValueKind::Count { .. } => "20",
        _ => "rename-worker",
    });
    match key.kind {
        ValueKind::Flag | ValueKind::Count { .. } | ValueKind::Decimal { .. } => text.into(),
        ValueKind::Durations => {
            let (_, steps) = values::ladder(values::RawScalar::Text(text), key.kind).unwrap();
            steps.to_string()
        }
        _ => format!("\"{text}\""),
    }
}

fn assert_generated(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == expected,
        "{} is out of date; regenerate it with: make schemas",
        path.display()
    );
}

#[test]
fn the_committed_page_is_that_of_the_table() {
    assert_generated("docs/settings.md", &settings_page());
}

#[test]
fn the_committed_example_file_is_that_of_the_table() {
    assert_generated("examples/rename-worker.toml", &example());
}

#[test]
fn the_example_file_is_accepted_as_it_is_and_uncommented() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker.toml");
    let has_default = |line: &&str| {
        KEYS.iter().any(|key| {
            let name = key.path.rsplit('.').next().unwrap();
            key.default.is_some() && line.starts_with(&format!("#{name} = "))
        })
    };
    let uncomment = |line: &str| match Some(line).filter(has_default) {
        Some(line) => line[1..].to_owned(),
        None => line.to_owned(),
    };
    let uncommented: Vec<String> = example().lines().map(uncomment).collect();
    assert_eq!(
        uncommented
            .iter()
            .filter(|l| l.contains(" = ") && !l.starts_with('#'))
            .count(),
        KEYS.iter().filter(|key| key.default.is_some()).count()
    );
    for toml in [example(), uncommented.join("\n")] {
        std::fs::write(&path, &toml).unwrap();
        let loaded = Settings::load(Some(&path), std::iter::empty());
        let loaded = loaded.unwrap_or_else(|mistakes| panic!("{mistakes}\n{toml}"));
        assert_eq!(format!("{loaded:?}"), format!("{:?}", Settings::default()));
    }
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    for key in KEYS.iter().filter(|key| key.default.is_some()) {
        let variable = (variable_name(key.path), key.default.unwrap().to_owned());
        let loaded = Settings::explain(None, std::iter::once(variable.clone()));
        let (_, effective) = loaded.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let shown = effective.iter().find(|e| e.key == key.path).unwrap();
        assert_eq!(shown.origin.to_string(), variable.0);
    }
}
