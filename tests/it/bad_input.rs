//! Whatever is published as a request: it is dead-lettered byte for byte with its reason and a
//! failed event, the worker lives on, and nothing behind it waits.

use lapin::BasicProperties;
use serde_json::json;

use crate::support::stage::Stage;

fn request(username: &str) -> serde_json::Value {
    json!({
        "request_id": "01a20cd4-6421-75fe-a3c5-7f13ac577b50", "account_id": "T12345678",
        "username": username, "new_username": "new@example.com",
    })
}

fn bad_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let mut missing = request("old");
    missing.as_object_mut().unwrap().remove("account_id");
    let mut wrong = request("old");
    wrong["account_id"] = json!("X1");
    wrong["username"] = json!(12);
    let twice = request("old")
        .to_string()
        .replacen('{', "{\"username\":\"other\",", 1);
    let huge = request("old")
        .to_string()
        .replace("\"T12345678\"", "1e999999");
    let mut long = request("old");
    long["new_username"] = json!("x".repeat(256));
    vec![
        ("empty", vec![]),
        ("no JSON", b"hello".to_vec()),
        ("truncated", b"{\"request_id\": \"01a2".to_vec()),
        ("no UTF-8", vec![0xff, 0xfe, 0x00]),
        ("not an object", b"[1, 2]".to_vec()),
        (
            "over 64 KiB",
            request(&"x".repeat(70_000)).to_string().into_bytes(),
        ),
        ("a field missing", missing.to_string().into_bytes()),
        ("wrong fields", wrong.to_string().into_bytes()),
        ("a dot segment", request("..").to_string().into_bytes()),
        ("an empty name", request("").to_string().into_bytes()),
        ("too long a name", long.to_string().into_bytes()),
        ("duplicated keys", twice.into_bytes()),
        ("a huge number", huge.into_bytes()),
        ("deep nesting", nested.into_bytes()),
        ("compressed", b"\x1f\x8b\x08\x00\x00".to_vec()),
        ("an AMQP 1.0 value", b"\x00\x53\x77\xa1\x02{}".to_vec()),
    ]
}

#[tokio::test]
async fn what_stands_before_a_request_or_in_fields_that_are_not_listed_does_not_matter() {
    let stage = Stage::set(|_| {}).await;
    let nested = format!("{}{}", "[".repeat(130), "]".repeat(130));
    let odd = ["1e999999", "\"\\ud83d\"", nested.as_str()];
    for (number, value) in odd.into_iter().enumerate() {
        let name = format!("user-{number}");
        stage.user(&name);
        let mut body = request(&name);
        body["request_id"] = json!(uuid::Uuid::new_v4());
        body["new_username"] = json!(format!("renamed-{number}"));
        let body = body.to_string();
        let body = body.replacen('{', &format!("\u{feff}{{\"note\":{value},"), 1);
        let properties = BasicProperties::default();
        stage.publish(body.as_bytes(), properties).await;
    }
    let worker = stage.worker().await;
    for event in stage.events(odd.len()).await {
        assert_eq!(event["type"], "user.renamed", "{event}");
    }
    stage.strike(worker).await;
}

#[tokio::test]
async fn each_is_dead_lettered_byte_for_byte_and_nothing_behind_it_waits() {
    let stage = Stage::set(|_| {}).await;
    stage.user("fine");
    let bad = bad_bodies();
    for (_, body) in &bad {
        stage.publish(body, BasicProperties::default()).await;
    }
    let unknown = BasicProperties::default().with_content_type("image/png".into());
    stage
        .publish(request("typed").to_string().as_bytes(), unknown)
        .await;
    stage.rename("fine", "finer", None).await;
    let worker = stage.worker().await;
    let events = stage.events(bad.len() + 2).await;
    let failed: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "user.rename-failed")
        .collect();
    assert_eq!(failed.len(), bad.len() + 1);
    for event in &failed {
        assert_eq!(event["data"]["reason"], "invalid_request", "{event}");
        let detail = event["data"]["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && !detail.contains("xxxx"), "{detail}");
    }
    let letters = stage.letters(bad.len() + 1).await;
    for (what, body) in &bad {
        assert!(
            letters.iter().any(|letter| letter.body == *body),
            "{what} is not among them"
        );
    }
    for letter in &letters {
        assert_eq!(
            letter.text_header("x-rename-reason").as_deref(),
            Some("invalid_request")
        );
        assert_eq!(
            letter
                .text_header("x-rename-original-routing-key")
                .as_deref(),
            Some("rename.T12345678")
        );
    }
    assert!(stage.has("finer"));
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_cloud_event_is_taken_structured_and_binary() {
    let stage = Stage::set(|_| {}).await;
    stage.user("one");
    stage.user("two");
    let data = |old: &str| {
        json!({
            "request_id": uuid::Uuid::new_v4(), "account_id": "T12345678",
            "username": old, "new_username": format!("{old}-new"),
        })
    };
    let structured = json!({
        "specversion": "1.0", "id": "1", "source": "/crm", "type": "rename", "data": data("one"),
    });
    let properties =
        BasicProperties::default().with_content_type("application/cloudevents+json".into());
    stage
        .publish(structured.to_string().as_bytes(), properties)
        .await;
    let mut headers = lapin::types::FieldTable::default();
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "2"),
        ("source", "/crm"),
        ("type", "r"),
    ] {
        let value = lapin::types::AMQPValue::LongString(value.into());
        headers.insert(format!("cloudEvents:{name}").into(), value);
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_correlation_id("from-the-crm".into())
        .with_headers(headers);
    stage
        .publish(data("two").to_string().as_bytes(), properties)
        .await;
    let worker = stage.worker().await;
    let messages = stage
        .raw
        .drain(&stage.events, 2, crate::support::stage::PATIENCE)
        .await;
    for message in &messages {
        assert_eq!(message.routing_key, "user.renamed");
        assert_eq!(
            message
                .properties
                .message_id()
                .as_ref()
                .map(ToString::to_string),
            message.json()["id"].as_str().map(str::to_owned)
        );
    }
    let correlated = messages.iter().any(|message| {
        message
            .properties
            .correlation_id()
            .as_ref()
            .is_some_and(|id| id.as_str() == "from-the-crm")
    });
    assert!(correlated, "the correlation id is passed on");
    stage.strike(worker).await;
}

#[tokio::test]
async fn times_that_cannot_be_true_reach_no_metric() {
    let stage = Stage::set(|_| {}).await;
    let worker = stage.worker().await;
    let value = |name: &str| {
        let page = worker.metrics.render().expect("the metrics");
        let line = page.lines().find_map(|line| {
            line.strip_prefix(&format!("rename_worker_{name} "))
                .map(str::to_owned)
        });
        line.expect("it is there").parse::<f64>().expect("a number")
    };
    let measured = || {
        (
            value("request_age_seconds_count"),
            value("queue_head_timestamp_seconds"),
        )
    };
    for (number, requested_at) in [
        "0000-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "2001-01-01T00:00:00Z",
        "9999-12-30T00:00:00Z",
    ]
    .into_iter()
    .enumerate()
    {
        let (from, to) = (format!("a{number}"), format!("b{number}"));
        stage.user(&from);
        stage
            .ask(json!({"username": from, "new_username": to, "requested_at": requested_at}))
            .await;
        assert_eq!(stage.event().await["type"], "user.renamed");
    }
    // Zero, and milliseconds where seconds belong.
    for (number, timestamp) in [0, 1_795_514_400_000].into_iter().enumerate() {
        let (from, to) = (format!("c{number}"), format!("d{number}"));
        stage.user(&from);
        let body = json!({
            "request_id": uuid::Uuid::new_v4(), "account_id": "T12345678",
            "username": from, "new_username": to,
        });
        let properties = BasicProperties::default().with_timestamp(timestamp);
        stage.publish(body.to_string().as_bytes(), properties).await;
        assert_eq!(stage.event().await["type"], "user.renamed");
    }
    assert_eq!(measured(), (0.0, 0.0));
    stage.user("e");
    let now = rename_worker::clock::now();
    stage
        .ask(json!({"username": "e", "new_username": "f", "requested_at": now.to_string()}))
        .await;
    assert_eq!(stage.event().await["type"], "user.renamed");
    let in_time = async {
        // The outcome is counted once it is acknowledged.
        while measured().0 < 1.0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(crate::support::stage::PATIENCE, in_time).await;
    in_time.expect("a true time is measured");
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century fit")]
    let second = now.as_second() as f64;
    assert_eq!(measured(), (1.0, second));
    stage.strike(worker).await;
}
