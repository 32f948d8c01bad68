//! Monday morning: three thousand failed renames, and a reviewer with one terminal.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lapin::BasicProperties;
use rename_worker::sandbox::ApiFault;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{done, lines, lines_of, stage, told};
use crate::support::stage::{ACCOUNT, Stage};

/// Letters of each reason.
const EACH: usize = 600;
const REASONS: [&str; 5] = [
    "deadline_exceeded",
    "invalid_request",
    "rejected",
    "user_not_found",
    "username_taken",
];

/// Has the worker fail three thousand requests, each for its reason.
async fn fail_them(stage: &Stage) {
    stage.user("taken");
    let refused = ApiFault::status(422).prefix("refused");
    stage.sandbox.set_faults([refused]).await;
    for n in 0..EACH {
        stage.user(&format!("has-{n}"));
        for (from, to, not_after) in [
            (
                format!("late-{n}"),
                format!("new-{n}"),
                Some("2020-01-01T00:00:00Z"),
            ),
            (format!("refused-{n}"), format!("new-{n}"), None),
            (format!("missing-{n}"), format!("other-{n}"), None),
            (format!("has-{n}"), "taken".to_owned(), None),
        ] {
            stage
                .ask(json!({"username": from, "new_username": to, "not_after": not_after}))
                .await;
        }
        let body = json!({"request_id": Uuid::new_v4(), "account_id": ACCOUNT});
        let properties = BasicProperties::default();
        stage.publish(body.to_string().as_bytes(), properties).await;
    }
    stage.events(EACH * REASONS.len()).await;
}

fn counts(groups: &Value) -> Vec<(String, u64)> {
    let groups = groups["groups"].as_array().expect("there are groups");
    let mut counts: Vec<_> = groups
        .iter()
        .map(|group| {
            let reason = group["reason"].as_str().expect("each has a reason");
            (reason.to_owned(), group["count"].as_u64().unwrap_or(0))
        })
        .collect();
    counts.sort();
    counts
}

#[tokio::test]
async fn three_thousand_letters_are_put_right_or_discarded_by_noon() {
    let stage = stage().await;
    let worker = stage.worker().await;
    fail_them(&stage).await;

    // Group.
    let groups = told(&stage, &["list"]).await;
    let wanted: Vec<_> = REASONS
        .iter()
        .map(|reason| ((*reason).to_owned(), EACH as u64))
        .collect();
    assert_eq!(counts(&groups), wanted);

    // Filter, and give each a name that is free.
    let taken = [
        "list",
        "--each",
        "--json",
        "--show-usernames",
        "--reason",
        "username_taken",
    ];
    let folder = tempfile::tempdir().unwrap();
    let names = folder.path().join("names.jsonl");
    let mut fixes = String::new();
    for letter in lines(&done(&stage, &taken).await) {
        assert_eq!(letter["new_username"], "taken");
        let free = format!("{}.free", letter["username"].as_str().unwrap());
        let fix = json!({"letter": letter["letter"], "new_username": free});
        writeln!(fixes, "{fix}").unwrap();
    }
    std::fs::write(&names, fixes).unwrap();

    // Replay: all of them are renamed.
    let names = names.to_str().unwrap();
    let replay = told(&stage, &["replay", "--set-from", names, "--yes"]).await;
    assert_eq!(replay["done"], EACH);
    for event in stage.events(EACH).await {
        assert_eq!(event["type"], "user.renamed", "{event}");
    }
    for n in 0..EACH {
        assert!(
            stage.has(&format!("has-{n}.free")),
            "has-{n} is not renamed"
        );
    }

    // Discard the rest.
    let audit = folder.path().join("audit.jsonl");
    let audit_arg = audit.to_str().unwrap();
    let rest: Vec<&str> = REASONS[..4].to_vec();
    for reason in &rest {
        let because = format!("agreed with upstream: {reason}");
        let args = [
            "discard",
            "--reason",
            reason,
            "--yes",
            "--because",
            &because,
            "--audit",
            audit_arg,
        ];
        assert_eq!(told(&stage, &args).await["done"], EACH);
    }
    assert_eq!(told(&stage, &["list"]).await["looked_at"], 0);

    // The audit is complete.
    let recorded = lines_of(&audit);
    assert_eq!(recorded.len(), EACH * rest.len());
    let letters: BTreeSet<_> = recorded
        .iter()
        .map(|line| line["letter"].to_string())
        .collect();
    assert_eq!(letters.len(), recorded.len(), "each once");
    for line in &recorded {
        let reason = &line["message"]["headers"]["x-rename-reason"]["text"];
        let because = format!("agreed with upstream: {}", reason.as_str().unwrap());
        assert_eq!(line["because"], because);
    }
    stage.strike(worker).await;
}
