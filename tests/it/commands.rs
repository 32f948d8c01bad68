//! The commands that need neither broker nor API: settings, schemas, completions.

use std::process::{Command, Output};

fn rename_worker(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rename-worker"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A schema's or example's committed text.
fn committed(path: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    std::fs::read_to_string(format!("{root}/{path}")).unwrap()
}

#[test]
fn the_example_settings_are_accepted() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rename-worker.toml");
    let output = rename_worker(&["config", "check", "--config", file], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).starts_with("settings ok"));
}

#[test]
fn mistakes_are_exit_code_2_and_all_told() {
    let env = [
        ("RENAME_WORKER_API__TIMEOUT", "soon"),
        ("RENAME_WORKER_AMQP__URL", "http://guest:hush@broker"),
        ("RENAME_WORKER_LOG__COLOUR", "red"),
    ];
    for command in ["check", "show"] {
        let output = rename_worker(&["config", command], &env);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let told = text(&output.stderr);
        assert!(told.starts_with("3 mistakes in the settings:"), "{told}");
        assert!(!told.contains("hush"), "{told}");
        for (variable, _) in env {
            assert!(told.contains(variable), "{told}");
        }
        let output = rename_worker(&["config", command, "--json"], &env);
        assert_eq!(output.status.code(), Some(2));
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["mistakes"].as_array().unwrap().len(), 3, "{told}");
    }
}

#[test]
fn what_is_in_effect_is_shown_with_its_source_and_no_secret() {
    let env = [
        ("RENAME_WORKER_AMQP__URL", "amqp://guest:hush@broker"),
        ("RENAME_WORKER_API__ACCOUNTS__T12345678__TOKEN", "hush"),
        ("RENAME_WORKER_RETRY__LADDER", "1s,1m"),
    ];
    let output = rename_worker(&["config", "show"], &env);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    insta::assert_snapshot!(text(&output.stdout));
    let output = rename_worker(&["config", "show", "--json"], &env);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["api.timeout"]["value"], "10s");
    assert_eq!(shown["api.timeout"]["source"], "default");
    assert_eq!(shown["amqp.url"]["value"], "[redacted]");
    assert_eq!(shown["amqp.url"]["source"], "RENAME_WORKER_AMQP__URL");
}

#[test]
fn the_sources_of_all_settings_stand_in_one_column() {
    let output = rename_worker(&["config", "show"], &[]);
    let told = text(&output.stdout);
    let columns: Vec<_> = told.lines().filter_map(|line| line.find(" # ")).collect();
    assert!(columns.len() > 20, "{told}");
    assert!(columns.iter().all(|column| *column == columns[0]), "{told}");
}

#[test]
fn a_schema_is_printed_as_it_is_committed() {
    let list = rename_worker(&["schema", "--list"], &[]);
    let names: Vec<&str> = text(&list.stdout).lines().collect();
    assert_eq!(
        names,
        ["rename-request", "user-renamed", "user-rename-failed"]
    );
    for name in names {
        let output = rename_worker(&["schema", name], &[]);
        let expected = committed(&format!("schemas/{name}.schema.json"));
        assert_eq!(text(&output.stdout), expected);
    }
    assert_eq!(
        rename_worker(&["schema", "nonsense"], &[]).status.code(),
        Some(2)
    );
    assert_eq!(rename_worker(&["schema"], &[]).status.code(), Some(2));
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = rename_worker(&["completions", shell], &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("rename-worker"), "{shell}");
    }
}
