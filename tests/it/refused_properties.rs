//! What the broker refuses of a message's properties when it is published again: the message ends
//! all the same, and nobody beside it pays.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use rename_worker::broker::{
    AckPermit, BrokerEvent, DeadLetterQueue, DeliveryLimitCheck, OutboundMessage, PublishId,
    PublishResult, PublisherConfirm,
};
use rename_worker::core::policy::consume_plan::ConsumeScope;
use rename_worker::messages::headers::HeaderValue;
use rename_worker::messages::message::{MessageField, MessageProperties, MessageView};

use crate::broker_bench::{Bench, amqp, event};
use crate::support::broker;
use crate::support::stage::Stage;

fn text(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// The letter of that number, some of which have what the broker refuses.
fn letter(exchange: &str, nth: u8) -> MessageView {
    let mut message = MessageView {
        exchange: exchange.to_owned(),
        routing_key: "k".to_owned(),
        body: vec![nth],
        properties: MessageProperties {
            app_id: Some("mine".to_owned()),
            content_type: Some("application/json".to_owned()),
            ..MessageProperties::default()
        },
        ..MessageView::default()
    };
    message
        .headers
        .insert("x-rename-reason".to_owned(), MessageField::from("rejected"));
    message
        .headers
        .insert("odd".to_owned(), MessageField::UInt8(1));
    match nth {
        20 => message.properties.expiration = Some("soon".to_owned()),
        21 => message.properties.user_id = Some("nobody".to_owned()),
        90 => message.properties.delivery_mode = Some(2),
        95 => message.properties.expiration = Some("-1".to_owned()),
        // These are known to be refused, and kept by another name.
        30 => message.properties.reply_to = Some("amq.rabbitmq.reply-to".to_owned()),
        31 => drop(
            message
                .headers
                .insert("CC".to_owned(), MessageField::from("q")),
        ),
        32 => drop(
            message
                .headers
                .insert("BCC".to_owned(), MessageField::Int8(1)),
        ),
        _ => {}
    }
    message
}

#[tokio::test]
async fn of_many_under_way_only_those_that_the_broker_refuses_lose_their_properties() {
    let bench = Bench::new().await;
    let amqp = amqp(broker().await, &bench.prefix);
    let review = DeadLetterQueue::begin(&amqp, "kari", DeliveryLimitCheck::Checked)
        .await
        .unwrap();
    let sender = review.sender().await.unwrap();
    let mut under_way = FuturesUnordered::new();
    for nth in 0..100_u8 {
        let message = letter(review.dead_letters(), nth);
        let fate = sender.hand_over(message).await;
        under_way.push(async move { (nth, fate.await) });
    }
    let mut reduced = Vec::new();
    while let Some((nth, fate)) = under_way.next().await {
        let PublishResult::Confirmed(proof) = fate else {
            panic!("{nth}: {fate:?}");
        };
        if !proof.is_whole() {
            reduced.push(nth);
        }
    }
    drop(under_way);
    reduced.sort_unstable();
    assert_eq!(reduced, [20, 21, 95]);
    assert!(sender.close().await.is_none());
    review.end().await;
    // Of those that were under way when the channel was closed, some may have got there before.
    let mut originals = BTreeSet::new();
    let mut bodies = BTreeSet::new();
    for _ in 0..bench.length("dead-letters").await {
        let letter = bench.get("dead-letters").await;
        bodies.insert(letter.data[0]);
        let properties = &letter.properties;
        assert_eq!(
            text(properties, "x-rename-reason").as_deref(),
            Some("rejected")
        );
        let refused = text(properties, "x-rename-left-out-properties");
        if reduced.contains(&letter.data[0]) {
            assert_eq!(refused.as_deref(), Some("PRECONDITION_FAILED"));
            assert_eq!(properties.app_id(), &None);
        } else {
            assert_eq!(refused, None);
            assert!(properties.app_id().is_some());
        }
        let names = properties.headers().iter().flat_map(FieldTable::inner);
        originals.extend(names.filter_map(|(name, _)| {
            let name = name.as_str().strip_prefix("x-rename-original-")?;
            Some((letter.data[0], name.to_owned()))
        }));
    }
    assert_eq!(bodies.len(), 100);
    let expected = [(30, "reply-to"), (31, "cc"), (32, "bcc")];
    let originals: Vec<_> = originals
        .iter()
        .map(|(n, name)| (*n, name.as_str()))
        .collect();
    assert_eq!(originals, expected);
    bench.finish().await;
}

#[tokio::test]
async fn a_letter_that_the_broker_refuses_costs_neither_the_session_nor_what_is_beside_it() {
    let mut bench = Bench::new().await;
    for body in ["refused", "beside"] {
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_app_id("mine".into());
        bench.request(body, properties).await;
    }
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let (refused, beside) = (bench.delivered().await, bench.delivered().await);
    // Not a list, and so refused: for the test alone it is among our own headers.
    let hazard = ("CC", HeaderValue::Text("elsewhere".to_owned()));
    let reason = ("x-rename-reason", HeaderValue::Text("rejected".to_owned()));
    let letter = |of: &rename_worker::broker::Delivery, headers| OutboundMessage::DeadLetter {
        of: of.received().clone(),
        headers,
    };
    bench
        .link
        .publish(PublishId(1), letter(&refused, vec![hazard, reason.clone()]));
    bench
        .link
        .publish(PublishId(2), letter(&beside, vec![reason]));
    bench.link.publish(PublishId(3), event());
    let mut proofs = BTreeMap::new();
    while proofs.len() < 3 {
        match bench.next().await {
            BrokerEvent::Published {
                ticket,
                result: PublishResult::Confirmed(proof),
            } => drop(proofs.insert(ticket, proof)),
            other => panic!("{other:?} instead of a confirm"),
        }
    }
    let whole: Vec<bool> = proofs.values().map(PublisherConfirm::is_whole).collect();
    assert_eq!(whole, [false, true, true]);
    // The deliveries are still there to be settled: it is the session that it was.
    let mut proof = |nth| proofs.remove(&PublishId(nth)).unwrap();
    let failure = AckPermit::Failure {
        letter: proof(1),
        event: proof(3),
    };
    bench.link.settle(refused, failure);
    bench.settle(beside).await;
    bench.holds("dead-letters", 2).await;
    for _ in 0..2 {
        let letter = bench.get("dead-letters").await;
        let properties = &letter.properties;
        let is_refused = letter.data == b"refused";
        let code = text(properties, "x-rename-left-out-properties");
        assert_eq!(code.is_some(), is_refused);
        assert_eq!(properties.app_id().is_some(), !is_refused);
        // What is needed to read it is kept.
        assert!(properties.content_type().is_some());
        assert_eq!(
            text(properties, "x-rename-reason").as_deref(),
            Some("rejected")
        );
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_request_that_asks_for_a_direct_reply_is_dead_lettered_like_any_other() {
    let stage = Stage::set(|_| {}).await;
    let url = broker().await;
    let (connection, channel) = {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(url, properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    };
    // Only who consumes from there may publish with it; the broker then puts a name behind it.
    let options = lapin::options::BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let direct = "amq.rabbitmq.reply-to";
    let _consumer = channel
        .basic_consume(direct.into(), "".into(), options, FieldTable::default())
        .await
        .unwrap();
    let properties = BasicProperties::default().with_reply_to(direct.into());
    channel
        .basic_publish(
            stage.names.requests.as_str().into(),
            "k".into(),
            lapin::options::BasicPublishOptions::default(),
            b"no request",
            properties,
        )
        .await
        .unwrap();
    let worker = stage.worker().await;
    let event = stage.event().await;
    assert_eq!(event["data"]["reason"], "invalid_request");
    let letter = stage.letters(1).await.remove(0);
    let reply_to = letter
        .properties
        .reply_to()
        .as_ref()
        .map(ToString::to_string);
    assert!(reply_to.is_some_and(|to| to.starts_with("amq.rabbitmq.reply-to.")));
    connection.close(200, "OK".into()).await.unwrap();
    stage.strike(worker).await;
}
