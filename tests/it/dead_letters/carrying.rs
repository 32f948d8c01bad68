//! Letters carried to a file and back, with nothing lost.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use serde_json::json;

use super::{done, lines_of, put_many, run, stage, strike, text, told};
use crate::support::amqp::SOON;

/// A message with everything that a message may have.
fn everything() -> BasicProperties {
    let mut inner = FieldTable::default();
    inner.insert("void".into(), AMQPValue::Void);
    let list = vec![
        AMQPValue::Boolean(true),
        AMQPValue::ShortShortInt(-1),
        AMQPValue::LongInt(i32::MIN),
        AMQPValue::LongLongInt(i64::MAX),
        AMQPValue::Double(0.1),
        AMQPValue::Timestamp(1_763_978_400),
        AMQPValue::LongString("løng".into()),
        AMQPValue::LongString([0xff, 0x00][..].into()),
        AMQPValue::FieldTable(inner),
    ];
    let mut headers = FieldTable::default();
    headers.insert("list".into(), AMQPValue::FieldArray(FieldArray::from(list)));
    headers.insert(
        "x-rename-failed-at".into(),
        AMQPValue::LongString("2026-11-24T09:00:00.000Z".into()),
    );
    BasicProperties::default()
        .with_headers(headers)
        .with_content_type("application/json".into())
        .with_content_encoding("identity".into())
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("c".into())
        .with_reply_to("r".into())
        .with_message_id("m".into())
        .with_timestamp(1_763_978_400)
        .with_type("t".into())
        .with_app_id("a".into())
}

#[tokio::test]
async fn an_exported_letter_comes_back_the_same() {
    let (stage, elsewhere) = (stage().await, stage().await);
    let exchange = &stage.names.dead_letters;
    for body in [&b"{}"[..], b"\xff\x00", b""] {
        stage
            .raw
            .publish(exchange, "a.key", body, everything())
            .await;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters.jsonl");
    let file = file.to_str().unwrap();
    let told_once = told(&stage, &["export", file]).await;
    assert_eq!(told_once["exported"], 3);
    // The queue keeps them; a file that is there is not written over.
    assert_eq!(run(&stage, &["export", file]).await.status.code(), Some(2));
    let again = told(&stage, &["export", file, "--resume"]).await;
    assert_eq!(
        again,
        json!({"exported": 0, "there_already": 3, "missing": 0})
    );

    assert_eq!(told(&elsewhere, &["import", file]).await["imported"], 3);
    let was = stage.raw.drain(&stage.names.dead_letters, 3, SOON).await;
    let is = elsewhere
        .raw
        .drain(&elsewhere.names.dead_letters, 3, SOON)
        .await;
    for (was, is) in was.iter().zip(&is) {
        assert_eq!((&was.body, &was.routing_key), (&is.body, &is.routing_key));
        let mut headers = was.properties.headers().clone().unwrap();
        // The broker's counts of the looks before.
        for count in ["x-delivery-count", "x-acquired-count"] {
            let kept = headers.inner().clone().into_iter();
            let kept = kept.filter(|(name, _)| name.as_str() != count);
            headers = kept.collect::<std::collections::BTreeMap<_, _>>().into();
        }
        assert_eq!(was.properties.clone().with_headers(headers), is.properties);
    }
    strike(stage).await;
    strike(elsewhere).await;
}

#[tokio::test]
async fn an_import_goes_on_and_doubles_nothing() {
    let (stage, elsewhere) = (stage().await, stage().await);
    put_many(&stage, 5).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    let file = path.to_str().unwrap();
    done(&stage, &["export", file, "--limit", "2"]).await;
    assert_eq!(told(&elsewhere, &["import", file]).await["imported"], 2);
    done(&stage, &["export", file, "--resume"]).await;
    assert_eq!(lines_of(&path).len(), 5);
    let rest = told(&elsewhere, &["import", file]).await;
    assert_eq!(
        (&rest["imported"], &rest["imported_before"]),
        (&json!(3), &json!(2))
    );
    // A run that was killed before it could write down how far it came.
    std::fs::remove_file(folder.path().join("letters.jsonl.progress")).unwrap();
    let again = told(&elsewhere, &["import", file]).await;
    assert_eq!(
        (&again["imported"], &again["there_already"]),
        (&json!(0), &json!(5))
    );
    let letters = &elsewhere.names.dead_letters;
    assert_eq!(elsewhere.raw.queue_length(letters).await, 5);
    std::fs::write(&path, "{}\n").unwrap();
    assert_eq!(
        run(&elsewhere, &["import", file]).await.status.code(),
        Some(2)
    );
    strike(stage).await;
    strike(elsewhere).await;
}

#[tokio::test]
async fn where_an_import_cannot_note_how_far_it_comes_nothing_is_sent() {
    let stage = stage().await;
    put_many(&stage, 2).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    let file = path.to_str().unwrap();
    done(&stage, &["export", file]).await;
    done(&stage, &["replay", "--all"]).await;
    // A folder of that name, since permissions do not stop root.
    let in_the_way = folder.path().join("letters.jsonl.progress.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let output = run(&stage, &["import", file]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told_why = text(&output.stderr);
    assert!(told_why.contains("cannot write down how far"), "{told_why}");
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 0);
    std::fs::remove_dir(in_the_way).unwrap();
    assert_eq!(told(&stage, &["import", file]).await["imported"], 2);
    // Again means nothing new, and it is told why.
    let again = run(&stage, &["import", file]).await;
    assert!(text(&again.stderr).contains("letters.jsonl.progress"));
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 2);
    strike(stage).await;
}
