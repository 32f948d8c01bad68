//! What each command says when nothing comes of it: which exit code, what a program reads, and what
//! is told before anybody asks a broker. None of it needs one.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The port of Discard, on which nothing listens.
const NOBODY: &str = "amqp://bob:hush@127.0.0.1:9/cellar";
/// Where that is, for a person.
const ADDRESS: &str = "127.0.0.1, port 9, virtual host cellar";

fn command(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rename-worker"));
    command
        .args(args)
        .env_clear()
        .env("RENAME_WORKER_AMQP__URL", NOBODY)
        .env("USER", "kari")
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Runs it where no broker is.
fn run(args: &[&str], folder: &Path) -> Output {
    command(args, folder).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is text")
}

#[test]
fn a_reader_who_leaves_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["topology", "show"][..],
        &["topology", "show", "--json"],
        &["topology", "check", "--json"],
        &["config", "show"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(args, folder.path());
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn();
        let output = output.unwrap().wait_with_output().unwrap();
        let wanted = if args.contains(&"check") { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(wanted), "{args:?}: {output:?}");
        assert!(!text(&output.stderr).contains("panicked"), "{args:?}");
    }
}

#[test]
fn which_broker_cannot_be_reached_is_told_to_persons_and_programs() {
    let folder = tempfile::tempdir().unwrap();
    let one = [
        "--account",
        "T12345678",
        "--username",
        "a",
        "--new-username",
        "b",
    ];
    for args in [
        &["topology", "check"][..],
        &["topology", "declare"],
        &[&["publish"], &one[..]].concat(),
        &["dead-letters", "list"],
        &["dead-letters", "show", "3c90"],
        &["dead-letters", "replay", "--all"],
        &["dead-letters", "discard", "--all", "--because", "x"],
        &["dead-letters", "export", "letters.jsonl"],
    ] {
        let args = [args, &["--json"]].concat();
        let output = run(&args, folder.path());
        assert_eq!(output.status.code(), Some(3), "{args:?}: {output:?}");
        let read: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let error = read["error"].as_str().expect("it says why");
        for told in [text(&output.stderr), error] {
            assert!(told.contains(ADDRESS), "{args:?}: {told}");
            assert!(!told.contains("hush") && !told.contains("bob"), "{told}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "no file is made by the way: {left:?}");
}

#[test]
fn what_is_exported_is_never_mixed_with_what_went_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["dead-letters", "export", "--json"], folder.path());
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn files_of_ones_own_are_looked_at_before_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("there.jsonl"), "mine\n").unwrap();
    let because = ["discard", "--all", "--because", "x"];
    for (args, code, wanted) in [
        (&["replay", "--set-from", "none.jsonl"][..], 2, "none.jsonl"),
        (&["import", "none.jsonl"], 2, "none.jsonl"),
        (&["import", "there.jsonl"], 2, "line 1 is no exported"),
        (&["export", "there.jsonl"], 2, "there already"),
        (&["export", "there.jsonl", "--resume"], 2, "line 1 is no"),
        (&["export", "none/a.jsonl"], 2, "cannot export to none/"),
        (&["export", "--resume"], 2, "--resume goes on with a file"),
        (&["export", "-", "--resume"], 2, "name it"),
        (
            &[&because[..], &["--audit", "none/a.jsonl"]].concat(),
            2,
            "none/a.jsonl",
        ),
        // A folder in its place, since permissions do not stop root.
        (
            &[&because[..], &["--audit", "."]].concat(),
            1,
            "cannot record in",
        ),
    ] {
        let output = run(&[&["dead-letters"], args].concat(), folder.path());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(wanted), "{args:?}: {told}");
        assert!(!told.contains("broker"), "{args:?}: {told}");
    }
    let mine = std::fs::read_to_string(folder.path().join("there.jsonl"));
    assert_eq!(mine.unwrap(), "mine\n");
}

#[test]
fn no_editor_is_started_where_there_is_no_terminal_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let edit = ["dead-letters", "replay", "--all", "--edit"];
    let output = run(&edit, folder.path());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("set EDITOR"));
    assert_eq!(text(&output.stdout), "");
    // One that is named may need no terminal: it goes on to the broker.
    let mut named = command(&edit, folder.path());
    let output = named.env("EDITOR", "sed").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn what_is_no_host_and_port_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    for (at, code) in [
        ("foo", 2),
        ("127.0.0.1", 2),
        ("http://127.0.0.1:9", 2),
        ("127.0.0.1:9", 3),
    ] {
        let output = run(&["status", "--admin", at], folder.path());
        assert_eq!(output.status.code(), Some(code), "{at}: {output:?}");
    }
}

#[test]
fn a_mistake_in_the_one_request_from_flags_is_wrong_usage_and_named_by_its_flag() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "publish",
        "--account",
        "T1",
        "--username",
        "a",
        "--new-username",
        "..",
        "--user-id",
        "x",
        "--request-id",
        "x",
        "--not-after",
        "soon",
    ];
    for more in [&[][..], &["--skip-invalid"], &["--dry-run"]] {
        let output = run(&[&flags, more].concat(), folder.path());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(text(&output.stdout), "");
        let told = text(&output.stderr);
        for flag in [
            "--account: ",
            "--new-username: ",
            "--user-id: ",
            "--request-id: ",
            "--not-after: ",
        ] {
            assert!(told.contains(flag), "{told}");
        }
        assert!(!told.contains('/') && !told.contains("--skip-invalid"));
        assert!(told.ends_with("nothing was sent: the request is not valid\n"));
    }
}
