//! What a reviewer sees: groups, lines, whole letters; and that seeing changes nothing.

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use uuid::Uuid;

use super::{NAME, body, done, lines, put, put_many, run, stage, strike, text, told};
use crate::support::amqp::SOON;

#[tokio::test]
async fn letters_are_grouped_filtered_and_shown_without_names_unless_asked() {
    let stage = stage().await;
    let id = Uuid::new_v4();
    for _ in 0..3 {
        let body = body(Uuid::new_v4(), NAME, "new");
        put(&stage, "username_taken", &body, &[]).await;
    }
    let late = [("x-rename-failed-at", "2026-11-24T12:00:00.000Z")];
    put(&stage, "user_not_found", &body(id, NAME, "b"), &late).await;

    let groups = told(&stage, &["list"]).await;
    assert_eq!(groups["looked_at"], 4);
    let told_groups: Vec<_> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (group["reason"].as_str().unwrap(), group["count"].as_u64()))
        .collect();
    assert_eq!(
        told_groups,
        [("username_taken", Some(3)), ("user_not_found", Some(1))]
    );
    let table = done(&stage, &["list"]).await;
    assert!(table.contains("4 letters"), "{table}");

    for (filter, matched) in [
        (&["--reason", "user_not_found,poison"][..], 1),
        (&["--account", "T12345678"], 4),
        (&["--account", "P12345678"], 0),
        (&["--since", "2026-11-24T10:00:00Z"], 1),
        (&["--until", "2026-11-24T10:00:00Z"], 3),
        (&["--username", "b"], 1),
        (&["--username", NAME, "--limit", "2"], 2),
        (&["--request-id", &id.to_string()], 1),
        (&["--detail", "answered"], 4),
    ] {
        let args = [&["list"], filter].concat();
        assert_eq!(told(&stage, &args).await["matched"], matched, "{filter:?}");
        let each = [&["list", "--each", "--json"], filter].concat();
        let listed = done(&stage, &each).await;
        assert_eq!(lines(&listed).len(), matched, "{filter:?}");
        assert!(!listed.contains(NAME));
    }
    let each = ["list", "--each", "--show-usernames", "--username", "b"];
    assert!(done(&stage, &each).await.contains(NAME));

    let listed = done(&stage, &["list", "--each", "--json", "--username", "b"]).await;
    let letter = lines(&listed)[0]["letter"].as_str().unwrap().to_owned();
    for name in [&letter[..12], &letter, &id.to_string()] {
        let shown = done(&stage, &["show", name]).await;
        assert!(shown.contains(NAME) && shown.contains("What it means"));
        let shown = told(&stage, &["show", name]).await;
        assert_eq!(shown[0]["letter"], json!(letter));
    }
    let nobody = run(&stage, &["show", "00000000"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("no letter 00000000"));
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 4);
    strike(stage).await;
}

#[tokio::test]
async fn the_reasons_are_listed_where_one_may_be_misspelt() {
    let stage = stage().await;
    put_many(&stage, 1).await;
    for args in [
        &["list"][..],
        &["list", "--each"],
        &["replay", "--dry-run"],
        &["discard", "--dry-run", "--because", "x"],
        &["export"],
    ] {
        for (reason, hinted) in [
            ("nope", true),
            ("poison", false),
            ("nope,username_taken", false),
        ] {
            let output = run(&stage, &[args, &["--reason", reason]].concat()).await;
            assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
            let told = text(&output.stderr).contains("reasons: invalid_request, user_not_found");
            assert_eq!(told, hinted, "{args:?}, {reason}: {output:?}");
        }
    }
    strike(stage).await;
}

#[tokio::test]
async fn what_the_broker_or_anybody_put_there_is_shown_and_replayed() {
    let stage = stage().await;
    let (taken, shovelled) = (Uuid::new_v4(), Uuid::new_v4());
    make_the_queue_of_0_1_0(&stage).await;
    stage
        .publish(
            body(taken, NAME, "new").as_bytes(),
            BasicProperties::default(),
        )
        .await;
    deliver_in_vain(&stage).await;
    let anything = body(shovelled, NAME, "new");
    let exchange = &stage.names.dead_letters;
    for body in [anything.as_bytes(), b"\xff\x00 no request"] {
        let properties = BasicProperties::default();
        stage.raw.publish(exchange, "any", body, properties).await;
    }

    let groups = told(&stage, &["list"]).await;
    let reasons: Vec<_> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["broker_delivery_limit", "unknown", "unknown"]);
    let shown = done(&stage, &["show", &taken.to_string()]).await;
    assert!(shown.contains("RabbitMQ's history"), "{shown}");
    assert!(shown.contains(&stage.names.requests), "{shown}");

    // What is no request is refused, and stays.
    let replayed = run(&stage, &["replay", "--all", "--json"]).await;
    assert_eq!(replayed.status.code(), Some(1));
    let summary = lines(&text(&replayed.stdout).replace('\n', "")).remove(0);
    assert_eq!(
        (&summary["done"], &summary["refused_count"]),
        (&json!(2), &json!(1))
    );
    let left = stage.raw.drain(&stage.names.dead_letters, 1, SOON).await;
    assert_eq!(left[0].body, b"\xff\x00 no request");

    let sent = stage.raw.drain(&stage.names.due, 2, SOON).await;
    for (message, (id, routing_key)) in sent
        .iter()
        .zip([(taken, "rename.T12345678"), (shovelled, "any")])
    {
        assert_eq!(message.json()["request_id"], json!(id));
        let origin = message.text_header("x-rename-original-routing-key");
        assert_eq!(origin.as_deref(), Some(routing_key));
        assert_eq!(message.header("x-death"), None);
        assert!(message.text_header("x-rename-replay").is_some());
        let of = message.text_header("x-rename-replay-of").unwrap();
        assert!(of.starts_with(&id.to_string()), "{of}");
    }
    strike(stage).await;
}

/// Has the broker itself move the one request to the dead letters, as it did with the queues of 0.1.0:
/// takes it and gives it back until then.
async fn deliver_in_vain(stage: &crate::support::stage::Stage) {
    let queue = stage.names.requests.as_str();
    while stage.raw.queue_length(&stage.names.dead_letters).await == 0 {
        let channel = stage.raw.another_channel().await;
        let got = channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .unwrap();
        // Its channel's end counts as a failed delivery on every release.
        channel.close(200, "in vain".into()).await.unwrap();
        drop(got);
    }
}

/// The queue of requests as 0.1.0 declares it, which dead-letters to the letters themselves.
async fn make_the_queue_of_0_1_0(stage: &crate::support::stage::Stage) {
    let (channel, names) = (stage.raw.channel(), &stage.names);
    stage.raw.remove(&[&names.requests], &[]).await;
    let mut arguments = FieldTable::default();
    for (name, value) in [
        ("x-queue-type", "quorum"),
        ("x-dead-letter-exchange", &names.dead_letters),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
    ] {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(20));
    let queue = names.requests.as_str();
    let options = QueueDeclareOptions::durable();
    channel
        .queue_declare(queue.into(), options, arguments)
        .await
        .unwrap();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(queue.into(), queue.into(), "#".into(), options, none)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_second_reviewer_is_told_and_nothing_is_asked_without_a_terminal() {
    let stage = stage().await;
    put_many(&stage, 11).await;
    let amqp = &stage.settings.amqp;
    let review = rename_worker::broker::DeadLetterQueue::begin(
        amqp,
        "ola@support-1",
        rename_worker::broker::DeliveryLimitCheck::Checked,
    )
    .await
    .unwrap();
    let second = run(&stage, &["list"]).await;
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("somebody else is reviewing"));
    review.end().await;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters.jsonl");
    let file = file.to_str().unwrap();
    let exported = run(&stage, &["export", file]).await;
    // No bar is drawn where there is no terminal.
    assert_eq!(text(&exported.stderr), "");
    let asked = run(&stage, &["import", file]).await;
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    assert!(text(&asked.stderr).contains("no terminal to ask on"));
    for args in [
        &["replay", "--all"][..],
        &["discard", "--all", "--because", "why not"],
    ] {
        let asked = run(&stage, args).await;
        assert_eq!(asked.status.code(), Some(2), "{asked:?}");
        assert!(text(&asked.stderr).contains("no terminal to ask on"));
        let dry = [args, &["--dry-run"]].concat();
        let told = told(&stage, &dry).await;
        assert_eq!(
            (&told["done"], &told["dry_run"]),
            (&json!(11), &json!(true))
        );
    }
    for args in [
        &["replay"][..],
        &["discard", "--all"],
        &["discard", "--all", "--because", " "],
        &["replay", "--all", "--reason", "x"],
        &["replay", "abc"],
    ] {
        let wrong = run(&stage, args).await;
        assert_eq!(wrong.status.code(), Some(2), "{args:?}: {wrong:?}");
    }
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 11);
    strike(stage).await;
}

#[tokio::test]
async fn no_broker_is_exit_code_3() {
    let mut settings = rename_worker::config::Settings::default();
    settings.amqp.prefix = "none".to_owned();
    let mut command = super::command(&settings, &["list"]).await;
    // Nothing listens on a port that was just free.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let url = format!("amqp://127.0.0.1:{port}/%2f");
    let output = command
        .env("RENAME_WORKER_AMQP__URL", url)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = text(&output.stderr);
    let wanted =
        format!("amqp.url (RENAME_WORKER_AMQP__URL) is 127.0.0.1, port {port}, virtual host /");
    assert!(told.contains(&wanted), "{told}");
}

#[tokio::test]
async fn what_a_limit_or_a_filter_leaves_out_is_told() {
    let stage = stage().await;
    put_many(&stage, 5).await;
    // Fields mixed up by upstream: a name where the id should be.
    let mixed = json!({"request_id": NAME, "account_id": NAME}).to_string();
    put(&stage, "invalid_request", &mixed, &[]).await;
    for (args, wanted) in [
        (
            &["list", "--limit", "2"][..],
            "2 letters; 4 more were not looked at",
        ),
        (&["list", "--each", "--limit", "2"], "2 letters; 4 more"),
        (
            &["list", "--reason", "nonsense"],
            "none of 6 letters matches",
        ),
        (
            &["replay", "--reason", "nonsense"],
            "none of 6 letters matches",
        ),
        (&["list", "--reason", "username_taken"], "5 letters of 6"),
        (
            &["replay", "--reason", "username_taken", "--dry-run"],
            "username_taken",
        ),
    ] {
        let told = done(&stage, args).await;
        assert!(told.contains(wanted), "{args:?}: {told}");
    }
    let limited = told(&stage, &["list", "--limit", "2"]).await;
    assert_eq!(limited["not_looked_at"], 4);
    for args in [&["list", "--each"][..], &["list", "--each", "--json"]] {
        let listed = done(&stage, args).await;
        assert!(!listed.contains(NAME), "{listed}");
    }
    strike(stage).await;
}
