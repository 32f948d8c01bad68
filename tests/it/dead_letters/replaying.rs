//! Letters put right and sent again, or thrown away with a record.

use std::time::Duration;

use lapin::types::FieldTable;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    NAME, body, done, lines, lines_of, put, put_many, run, stage, start, strike, text, told,
};
use crate::support::amqp::{Message, SOON};

#[tokio::test]
async fn a_replay_keeps_the_request_and_starts_anew() {
    let stage = stage().await;
    let id = Uuid::new_v4();
    let body = body(id, NAME, "taken");
    let headers = [("x-rename-attempts", "12"), ("mine", "kept")];
    put(&stage, "retries_exhausted", &body, &headers).await;
    let told = told(&stage, &["replay", &id.to_string()]).await;
    assert_eq!(told["done"], 1);
    let sent = stage.raw.drain(&stage.names.due, 1, SOON).await.remove(0);
    assert_eq!(sent.body, body.as_bytes());
    assert_eq!(sent.exchange, stage.names.internal);
    let origin = ["exchange", "routing-key"]
        .map(|what| sent.text_header(&format!("x-rename-original-{what}")));
    let expected = [&stage.names.requests, "rename.T12345678"];
    assert_eq!(origin, expected.map(|text| Some(text.to_owned())));
    assert_eq!(sent.text_header("mine").as_deref(), Some("kept"));
    assert_eq!(
        sent.text_header("x-rename-replay"),
        told["run"].as_str().map(Into::into)
    );
    assert_eq!(sent.header("x-rename-attempts"), None);
    assert_eq!(sent.header("x-rename-reason"), None);
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 0);
    strike(stage).await;
}

#[tokio::test]
async fn fields_are_set_for_all_or_for_each_and_checked_before_sending() {
    let stage = stage().await;
    let ids: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    for id in &ids {
        put(&stage, "username_taken", &body(*id, NAME, "taken"), &[]).await;
    }
    // What would be no valid request is not sent, and stays.
    let refused = run(
        &stage,
        &["replay", "--all", "--set", "user_id=me", "--json"],
    )
    .await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("/user_id: is no UUID"));
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 3);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("names.jsonl");
    let lines = format!(
        "{}\n{}\n",
        json!({"request_id": ids[0], "new_username": "zero"}),
        json!({"request_id": ids[1], "new_username": "one"}),
    );
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    told(
        &stage,
        &["replay", "--set-from", file, "--set", "requested_by=kari"],
    )
    .await;
    told(&stage, &["replay", "--all", "--set", "new_username=two"]).await;
    let sent = stage.raw.drain(&stage.names.due, 3, SOON).await;
    let sent: Vec<_> = sent.iter().map(Message::json).collect();
    for (nth, name) in ["zero", "one", "two"].into_iter().enumerate() {
        assert_eq!(sent[nth]["request_id"], json!(ids[nth]));
        assert_eq!(sent[nth]["new_username"], name);
    }
    assert_eq!(sent[0]["requested_by"], "kari");
    strike(stage).await;
}

#[tokio::test]
async fn a_request_is_edited_in_the_person_s_editor() {
    let stage = stage().await;
    let (fixed, emptied) = (Uuid::new_v4(), Uuid::new_v4());
    put(&stage, "username_taken", &body(fixed, NAME, "taken"), &[]).await;
    put(&stage, "username_taken", &body(emptied, NAME, "leave"), &[]).await;
    let args = ["replay", "--all", "--edit", "--json"];
    let editor = r#"sed -i -e 's/"taken"/"free"/' -e '/leave/,$d'"#;
    // An editor that fails; then one that leaves half of the second request.
    for (editor, code) in [("false", 1), (editor, 1)] {
        let mut command = super::command(&stage.settings, &args).await;
        let output = command.env("EDITOR", editor).env("PATH", "/usr/bin:/bin");
        let output = output.output().await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    let sent = stage.raw.drain(&stage.names.due, 1, SOON).await.remove(0);
    assert_eq!(sent.json()["request_id"], json!(fixed));
    assert_eq!(sent.json()["new_username"], "free");
    // What is emptied or left as it was is left out, whatever is set besides.
    let set = [&args[..], &["--set", "requested_by=kari"]].concat();
    for (editor, args) in [
        ("truncate -s 0", &args[..]),
        ("true", &args),
        ("true", &set),
    ] {
        let mut command = super::command(&stage.settings, args).await;
        let output = command.env("EDITOR", editor).env("PATH", "/usr/bin:/bin");
        let output = output.output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(text(&output.stderr).contains("is left out"));
        assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 1);
    }
    // The person sees what is set, and has the last word.
    let mut command = super::command(&stage.settings, &set).await;
    let editor = "sed -i -e s/kari/ola/";
    let output = command.env("VISUAL", editor).env("PATH", "/usr/bin:/bin");
    let output = output.output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let sent = stage.raw.drain(&stage.names.due, 1, SOON).await;
    assert_eq!(sent[0].json()["requested_by"], "ola");
    strike(stage).await;
}

#[tokio::test]
async fn a_rate_is_kept() {
    let stage = stage().await;
    put_many(&stage, 10).await;
    let begun = tokio::time::Instant::now();
    told(&stage, &["replay", "--all", "--rate", "10"]).await;
    // The first goes at once, the others a tenth of a second apart.
    assert!(begun.elapsed() >= Duration::from_millis(900));
    assert_eq!(stage.raw.queue_length(&stage.names.due).await, 10);
    strike(stage).await;
}

#[tokio::test]
async fn an_interrupt_leaves_the_rest_as_it_was() {
    const LETTERS: usize = 100;
    let stage = stage().await;
    put_many(&stage, LETTERS).await;
    let args = ["replay", "--all", "--yes", "--json", "--rate", "20"];
    let replay = start(&stage, &args).await;
    let requests = &stage.names.due;
    while stage.raw.queue_length(requests).await < 5 {
        // Until another process has sent some, which no clock of ours can hurry.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pid = replay.id().expect("it runs").to_string();
    let mut kill = std::process::Command::new("kill");
    assert!(kill.args(["-INT", &pid]).status().unwrap().success());
    let output = replay.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("stopped: interrupted"));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (sent, left) = (summary["done"].as_u64(), summary["left"].as_u64());
    assert_eq!(
        sent.zip(left).map(|(sent, left)| sent + left),
        Some(LETTERS as u64)
    );
    let sent = super::requests_in(&stage, requests).await;
    let left = super::requests_in(&stage, &stage.names.dead_letters).await;
    assert_eq!(sent.len() + left.len(), LETTERS, "each is in one place");
    strike(stage).await;
}

#[tokio::test]
async fn where_no_queue_takes_a_replay_every_letter_stays() {
    let stage = stage().await;
    put_many(&stage, 20).await;
    let (queue, exchange) = (stage.names.due.as_str(), stage.names.internal.as_str());
    let table = FieldTable::default();
    let channel = stage.raw.channel();
    channel
        .queue_unbind(queue.into(), exchange.into(), queue.into(), table)
        .await
        .unwrap();
    let output = run(&stage, &["replay", "--all", "--yes"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("is bound to its exchange"), "{told}");
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 20);
    strike(stage).await;
}

#[tokio::test]
async fn what_is_discarded_is_recorded_whole_and_can_be_brought_back() {
    let stage = stage().await;
    let ids = put_many(&stage, 3).await;
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl");
    let audit_arg = audit.to_str().unwrap();
    let discard = ["discard", "--all", "--because", "gone for good"];
    // Nobody who discards remains unnamed.
    let mut unnamed = super::command(&stage.settings, &discard).await;
    let output = unnamed.env_remove("USER").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("--as NAME"));
    // Where nothing can be recorded, nothing is discarded.
    let nowhere = [&discard[..], &["--audit", "/nowhere/audit.jsonl"]].concat();
    assert_eq!(run(&stage, &nowhere).await.status.code(), Some(2));
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 3);
    let full = [&discard[..], &["--audit", "/dev/full"]].concat();
    assert_eq!(run(&stage, &full).await.status.code(), Some(1));
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 3);

    let before = done(&stage, &["export", "-"]).await;
    told(&stage, &[&discard[..], &["--audit", audit_arg]].concat()).await;
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 0);
    let recorded = lines_of(&audit);
    assert_eq!(recorded.len(), 3);
    for (line, was) in recorded.iter().zip(lines(&before)) {
        assert_eq!(line["because"], "gone for good");
        assert!(line["by"].as_str().unwrap().starts_with("kari@"));
        assert_eq!(line["message"], was["message"]);
    }
    told(&stage, &["import", audit_arg]).await;
    let back = super::requests_in(&stage, &stage.names.dead_letters).await;
    assert_eq!(back.len(), ids.len());
    strike(stage).await;
}
