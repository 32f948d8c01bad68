//! What happens on a terminal: bars on standard error, and a question before many letters are
//! touched. The terminal is the one that util-linux's `script` makes.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use super::{command, put_many, stage, strike, text};
use crate::support::stage::Stage;

/// Runs the command on a terminal, on which somebody types; its exit code and what was to be seen.
/// Its standard output goes to a file.
async fn on_a_terminal(stage: &Stage, args: &[&str], typed: &str, out: &str) -> (i32, String) {
    let plain = command(&stage.settings, args).await;
    let plain = plain.as_std();
    let mut words = vec![plain.get_program()];
    words.extend(plain.get_args());
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let line = format!("{} > {out}", words.join(" "));
    let mut script = tokio::process::Command::new("script");
    script
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    for (name, value) in plain.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    let mut script = script.spawn().expect("util-linux has `script`");
    let mut stdin = script.stdin.take().expect("it is piped");
    stdin.write_all(typed.as_bytes()).await.unwrap();
    drop(stdin);
    let output = script.wait_with_output().await.unwrap();
    let code = output.status.code().expect("it ended by itself");
    (code, text(&output.stdout).to_owned())
}

#[tokio::test]
async fn on_a_terminal_a_person_is_asked_before_more_than_ten_are_touched() {
    let stage = stage().await;
    let ids = put_many(&stage, 11).await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    let queue = &stage.names.dead_letters;
    for typed in ["n\n", "\n"] {
        let (code, seen) = on_a_terminal(&stage, &["replay", "--all"], typed, out).await;
        assert_eq!(code, 1, "{seen}");
        assert!(seen.contains("11 letters are to be replayed. Go on? [y/N]"));
        assert!(seen.contains("username_taken"), "what they are: {seen}");
        assert!(seen.contains("nothing was done"), "{seen}");
        assert_eq!(stage.raw.queue_length(queue).await, 11);
    }
    // Ten are few enough.
    let ten = ["replay", "--all", "--limit", "10", "--dry-run"];
    let (code, seen) = on_a_terminal(&stage, &ten, "", out).await;
    assert!(code == 0 && !seen.contains("Go on?"), "{seen}");

    let (code, seen) = on_a_terminal(&stage, &["replay", "--all"], "y\n", out).await;
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("looking"), "a bar is drawn: {seen}");
    let told = std::fs::read_to_string(out).unwrap();
    assert_eq!(told, "11 letters replayed\n", "the result, and no bar");
    let sent = super::requests_in(&stage, &stage.names.due).await;
    assert_eq!(sent.len(), ids.len());
    strike(stage).await;
}
