use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn field() -> impl Strategy<Value = MessageField> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(MessageField::Bool),
        any::<i8>().prop_map(MessageField::Int8),
        any::<u8>().prop_map(MessageField::UInt8),
        any::<i16>().prop_map(MessageField::Int16),
        any::<u16>().prop_map(MessageField::UInt16),
        any::<i32>().prop_map(MessageField::Int32),
        any::<u32>().prop_map(MessageField::UInt32),
        any::<i64>().prop_map(MessageField::Int64),
        any::<f32>().prop_map(MessageField::Float),
        any::<f64>().prop_map(MessageField::Double),
        (any::<u8>(), any::<u32>())
            .prop_map(|(scale, value)| MessageField::Decimal { scale, value }),
        ".*".prop_map(MessageField::ShortText),
        ".*".prop_map(MessageField::Text),
        vec(any::<u8>(), 0..20).prop_map(MessageField::RawText),
        vec(any::<u8>(), 0..20).prop_map(MessageField::Bytes),
        any::<u64>().prop_map(MessageField::Timestamp),
        Just(MessageField::Void),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(MessageField::List),
            btree_map(".*", inner, 0..4).prop_map(MessageField::Table),
        ]
    })
}

fn properties() -> impl Strategy<Value = MessageProperties> {
    let text = || option::of(".*");
    let one = (text(), text(), text(), text(), text(), text());
    let other = (text(), text(), text(), text());
    let numbers = (
        option::of(any::<u8>()),
        option::of(any::<u8>()),
        option::of(any::<u64>()),
    );
    (one, other, numbers).prop_map(|(one, other, numbers)| MessageProperties {
        content_type: one.0,
        content_encoding: one.1,
        correlation_id: one.2,
        reply_to: one.3,
        expiration: one.4,
        message_id: one.5,
        kind: other.0,
        user_id: other.1,
        app_id: other.2,
        cluster_id: other.3,
        delivery_mode: numbers.0,
        priority: numbers.1,
        timestamp: numbers.2,
    })
}

fn message() -> impl Strategy<Value = MessageView> {
    (
        ".*",
        ".*",
        properties(),
        btree_map(".*", field(), 0..6),
        vec(any::<u8>(), 0..60),
    )
        .prop_map(
            |(exchange, routing_key, properties, headers, body)| MessageView {
                exchange,
                routing_key,
                properties,
                headers,
                body,
            },
        )
}

proptest! {
    #[test]
    fn as_json_and_back_nothing_is_lost(message in message()) {
        let line = serde_json::to_string(&message).unwrap();
        prop_assert!(!line.contains('\n'), "one line");
        let back: MessageView = serde_json::from_str(&line).unwrap();
        prop_assert!(back == message, "{line}");
    }
}

#[test]
fn numbers_that_json_has_not_come_back_too() {
    for number in [f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE] {
        let line = serde_json::to_string(&MessageField::Double(number)).unwrap();
        let back: MessageField = serde_json::from_str(&line).unwrap();
        let MessageField::Double(back) = back else {
            panic!("{line}")
        };
        assert_eq!(back.to_bits(), number.to_bits(), "{line}");
    }
}

#[test]
fn a_message_reads_well_as_json() {
    let message = MessageView {
        exchange: "rename.dead-letters".into(),
        routing_key: "rename.T12345678".into(),
        properties: MessageProperties {
            content_type: Some("application/json".into()),
            delivery_mode: Some(2),
            ..MessageProperties::default()
        },
        headers: [
            (
                "x-rename-reason".to_owned(),
                MessageField::from("username_taken"),
            ),
            ("x-rename-attempts".to_owned(), MessageField::Int64(1)),
            ("odd".to_owned(), MessageField::RawText(vec![0xff])),
        ]
        .into(),
        body: b"{}".into(),
    };
    insta::assert_json_snapshot!(message);
}

#[test]
fn what_is_no_message_is_refused() {
    for wrong in [
        "{}",
        r#"{"exchange":"","routing_key":"","properties":{},"headers":{}}"#,
        r#"{"exchange":"","routing_key":"","properties":{"color":1},"headers":{},"body":{"text":""}}"#,
        r#"{"exchange":"","routing_key":"","properties":{},"headers":{"a":1},"body":{"text":""}}"#,
        r#"{"exchange":"","routing_key":"","properties":{},"headers":{},"body":{"base64":"?"}}"#,
    ] {
        assert!(
            serde_json::from_str::<MessageView>(wrong).is_err(),
            "{wrong}"
        );
    }
}
