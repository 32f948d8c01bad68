//! The link to the broker, against a real one: what is settled, what is published, what survives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use rename_worker::broker::{
    AckPermit, BrokerError, BrokerEvent, CopyTo, Delivery, OutboundMessage, PublishId,
    PublishResult,
};
use rename_worker::core::policy::consume_plan::{ConsumeScope, SourceQueue};
use rename_worker::messages::headers;
use rename_worker::messages::headers::{HeaderSource as _, HeaderValue};

use crate::broker_bench::{Bench, PREFETCH, ROUTING_KEY, event};

fn letter(of: &Delivery) -> OutboundMessage {
    OutboundMessage::DeadLetter {
        of: Arc::clone(of.received()),
        headers: vec![(headers::REASON, HeaderValue::Text("rejected".to_owned()))],
    }
}

fn copy(of: &Delivery, to: CopyTo) -> OutboundMessage {
    OutboundMessage::Copy {
        of: Arc::clone(of.received()),
        to,
        headers: vec![(headers::ATTEMPTS, HeaderValue::Int(1))],
    }
}

const WAIT: CopyTo = CopyTo::Wait {
    step: 0,
    wait: Duration::from_millis(200),
};

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[tokio::test]
async fn a_request_is_settled_by_a_confirmed_event() {
    let mut bench = Bench::new().await;
    bench.request("one", BasicProperties::default()).await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let delivery = bench.delivered().await;
    assert_eq!(delivery.body(), b"one");
    assert_eq!(delivery.routing_key(), ROUTING_KEY);
    let PublishResult::Confirmed(event) = bench.publish(event()).await else {
        panic!("not confirmed");
    };
    assert!(!event.routed(), "nobody has subscribed");
    bench.link.settle(delivery, AckPermit::Outcome { event });
    // The close hands over what was settled before.
    let (prefix, channel) = (bench.prefix.clone(), bench.channel.clone());
    bench.link.close().await;
    let options = QueueDeleteOptions::default();
    let left = channel.queue_delete(format!("{prefix}.requests").into(), options);
    assert_eq!(left.await.unwrap(), 0);
}

#[tokio::test]
async fn a_copy_comes_back_from_the_ladder_and_tells_where_it_came_from() {
    let mut bench = Bench::new().await;
    // As a request that the broker once dead-lettered and a shovel brought back: RabbitMQ 3.10
    // would drop its copy when that expires, since it died in this queue before.
    let mut death = FieldTable::default();
    death.insert("queue".into(), text(&bench.name("requests")));
    death.insert("reason".into(), text("delivery_limit"));
    death.insert("exchange".into(), text("any"));
    death.insert("count".into(), AMQPValue::LongLongInt(1));
    death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
    let mut keys = FieldArray::default();
    keys.push(text(ROUTING_KEY));
    death.insert("routing-keys".into(), AMQPValue::FieldArray(keys));
    let mut deaths = FieldArray::default();
    deaths.push(AMQPValue::FieldTable(death));
    let mut table = FieldTable::default();
    table.insert("x-death".into(), AMQPValue::FieldArray(deaths));
    // Its reason of then must not travel with the copy, or it would start anew each time.
    table.insert(headers::FAILED_AT.into(), text("2026-11-24T10:00:00Z"));
    let properties = BasicProperties::default().with_headers(table);
    bench.request("late", properties).await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    for round in 0..3 {
        let delivery = bench.delivered().await;
        assert_eq!(delivery.body(), b"late");
        assert_eq!(delivery.routing_key(), ROUTING_KEY);
        assert_eq!(delivery.exchange(), bench.name("requests"));
        assert_eq!(delivery.text(headers::FAILED_AT).is_some(), round == 0);
        assert_eq!(delivery.int(headers::ATTEMPTS).is_some(), round > 0);
        let copy = copy(&delivery, WAIT);
        let PublishResult::Confirmed(copy) = bench.publish(copy).await else {
            panic!("not confirmed");
        };
        bench.link.settle(delivery, AckPermit::Copied(copy));
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_dead_letter_keeps_everything_but_what_would_hurt() {
    let mut bench = Bench::new().await;
    let mut table = FieldTable::default();
    let mut others = FieldArray::default();
    others.push(text("somebody.else"));
    table.insert("CC".into(), AMQPValue::FieldArray(others));
    table.insert("theirs".into(), AMQPValue::Double(1.5));
    let sent = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("identity".into())
        .with_correlation_id("corr".into())
        .with_message_id("msg".into())
        .with_reply_to("answers".into())
        .with_timestamp(1_700_000_000)
        .with_type("rename".into())
        .with_app_id("crm".into())
        .with_priority(3);
    let hazardous = sent
        .clone()
        .with_headers(table)
        .with_delivery_mode(1)
        .with_user_id("guest".into())
        .with_expiration("60000".into());
    bench.request("\u{0}not json", hazardous).await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let delivery = bench.delivered().await;
    let letter = letter(&delivery);
    assert!(matches!(
        bench.publish(letter).await,
        PublishResult::Confirmed(confirmed) if confirmed.routed()
    ));

    let letter = bench.get("dead-letters").await;
    assert_eq!(letter.data, b"\0not json");
    assert_eq!(letter.routing_key.as_str(), ROUTING_KEY);
    let mut table = letter.properties.headers().clone().unwrap();
    let told: BTreeMap<_, _> = std::mem::take(&mut table)
        .inner()
        .iter()
        // RabbitMQ 3.x counts from the first delivery on.
        .filter(|(name, _)| name.as_str() != "x-delivery-count")
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect();
    let mut cc = FieldArray::default();
    cc.push(text("somebody.else"));
    let expected: BTreeMap<_, _> = [
        ("theirs", AMQPValue::Double(1.5)),
        ("x-rename-original-cc", AMQPValue::FieldArray(cc)),
        ("x-rename-original-exchange", text(&bench.name("requests"))),
        ("x-rename-original-expiration", text("60000")),
        ("x-rename-original-routing-key", text(ROUTING_KEY)),
        ("x-rename-original-user-id", text("guest")),
        ("x-rename-reason", text("rejected")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(told, expected);
    assert_eq!(
        letter.properties.with_headers(FieldTable::default()),
        sent.with_delivery_mode(2)
            .with_headers(FieldTable::default())
    );
    bench.finish().await;
}

/// lapin hands a returned message to whichever confirm comes next; believing it would call a lost
/// dead letter safe.
#[tokio::test]
async fn each_return_is_told_of_its_own_publish() {
    const ROUNDS: u64 = 300;
    let mut bench = Bench::new().await;
    bench.request("lost?", BasicProperties::default()).await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let delivery = bench.delivered().await;
    // Dead letters have nowhere to go, copies and events are fine.
    bench
        .channel
        .queue_unbind(
            bench.name("dead-letters").into(),
            bench.name("dead-letters").into(),
            "#".into(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    for round in 0..ROUNDS {
        let outgoing = match round % 3 {
            0 => letter(&delivery),
            1 => copy(&delivery, WAIT),
            _ => event(),
        };
        bench.link.publish(PublishId(round), outgoing);
    }
    let mut told = BTreeMap::new();
    while told.len() < usize::try_from(ROUNDS).unwrap() {
        if let BrokerEvent::Published { ticket, result } = bench.next().await {
            told.insert(ticket, result);
        }
    }
    for (PublishId(round), result) in told {
        let right = match (round % 3, &result) {
            (0, PublishResult::Returned) => true,
            (1, PublishResult::Confirmed(confirmed)) => confirmed.routed(),
            (2, PublishResult::Confirmed(confirmed)) => !confirmed.routed(),
            _ => false,
        };
        assert!(right, "publish {round} was told as {result:?}");
    }
    bench.finish().await;
}

#[tokio::test]
async fn what_an_old_session_delivered_can_be_settled_no_more() {
    let mut bench = Bench::new().await;
    bench.request("again", BasicProperties::default()).await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let old = bench.delivered().await;
    // Publishing to a missing exchange ends the channel.
    bench
        .channel
        .exchange_delete(
            bench.name("events").into(),
            ExchangeDeleteOptions::default(),
        )
        .await
        .unwrap();
    assert_eq!(bench.publish(event()).await, PublishResult::Lost);
    let why = bench.down().await;
    assert!(matches!(&why, BrokerError::ChannelClosed(_)), "{why}");
    assert!(why.to_string().contains(".events"), "{why}");
    bench.up().await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let new = bench.delivered().await;
    assert!(new.redelivered());
    assert_eq!((old.epoch(), new.epoch()), (bench.epoch - 1, bench.epoch));
    // A copy of what the broker has taken back would be a twin.
    let twin = copy(&old, CopyTo::Due);
    assert_eq!(bench.publish(twin).await, PublishResult::Lost);
    // The old delivery's number is the new one's too: an ack of it would settle the new one.
    let PublishResult::Confirmed(event) = bench.publish(event()).await else {
        panic!("not confirmed");
    };
    bench.link.settle(old, AckPermit::Outcome { event });
    bench.link.requeue(new);
    assert_eq!(bench.delivered().await.body(), b"again");
    bench.finish().await;
}

#[tokio::test]
async fn a_deleted_queue_is_made_anew_and_consumed_again() {
    let mut bench = Bench::new().await;
    for body in ["before", "and this"] {
        bench.request(body, BasicProperties::default()).await;
    }
    bench.link.consume(bench.epoch, ConsumeScope::All);
    // After the second one no consumer of the session changes any more.
    let _void = [bench.delivered().await, bench.delivered().await];
    bench
        .channel
        .queue_delete(bench.name("requests").into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let why = bench.down().await;
    assert!(matches!(why, BrokerError::ConsumerCancelled), "{why}");
    bench.up().await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    bench.request("after", BasicProperties::default()).await;
    assert_eq!(bench.delivered().await.body(), b"after");
    bench.finish().await;
}

#[tokio::test]
async fn stopping_loses_nothing_and_leaves_what_is_held() {
    let mut bench = Bench::new().await;
    for n in 0..30 {
        bench
            .request(&n.to_string(), BasicProperties::default())
            .await;
    }
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let first = bench.delivered().await;
    bench.link.stop_consuming(bench.epoch);
    let mut held = vec![first];
    loop {
        match bench.next().await {
            BrokerEvent::Delivered(delivery) => held.push(delivery),
            BrokerEvent::Stopped { epoch } if epoch == bench.epoch => break,
            other => panic!("{other:?} while stopping"),
        }
    }
    assert!(held.len() <= usize::from(PREFETCH));
    let left = 30 - u32::try_from(held.len()).unwrap();
    bench.holds("requests", left).await;
    // What is held can be settled as before, and consuming can begin again.
    for delivery in held {
        bench.settle(delivery).await;
    }
    bench.link.consume(bench.epoch, ConsumeScope::All);
    for n in (30 - left)..30 {
        let delivery = bench.delivered().await;
        assert_eq!(delivery.body(), n.to_string().as_bytes());
        bench.settle(delivery).await;
    }
    bench.finish().await;
}

#[tokio::test]
async fn requests_are_fetched_from_a_queue_as_far_as_there_are_any() {
    use SourceQueue::{Due, Requests};
    let mut bench = Bench::new().await;
    bench.link.fetch(bench.epoch, Requests, 64);
    let end = bench.next().await;
    assert!(
        matches!(end, BrokerEvent::Fetched { found: 0, .. }),
        "{end:?}"
    );
    bench.request("one", BasicProperties::default()).await;
    bench.request("two", BasicProperties::default()).await;
    bench.holds("requests", 2).await;
    let probe = bench.fetched(Requests).await;
    assert_eq!(probe.body(), b"one");
    assert!(probe.is_fetched());
    let tail = copy(&probe, CopyTo::Due);
    let PublishResult::Confirmed(tail) = bench.publish(tail).await else {
        panic!("not confirmed");
    };
    bench.link.settle(probe, AckPermit::Copied(tail));
    let again = bench.fetched(Due).await;
    assert_eq!(again.body(), b"one");
    assert_eq!(again.source(), Due);
    bench.request("three", BasicProperties::default()).await;
    bench.holds("requests", 2).await;
    bench.link.fetch(bench.epoch, Requests, 64);
    for body in ["two", "three"] {
        assert_eq!(bench.delivered().await.body(), body.as_bytes());
    }
    let end = bench.next().await;
    assert!(
        matches!(end, BrokerEvent::Fetched { found: 2, .. }),
        "{end:?}"
    );
    bench.finish().await;
}

#[tokio::test]
async fn what_lies_beyond_a_fetch_stays_in_the_queue_for_whoever_consumes_next() {
    const MOST: u16 = 40;
    let mut bench = Bench::new().await;
    for number in 0..100 {
        let body = number.to_string();
        bench.request(&body, BasicProperties::default()).await;
    }
    bench.holds("requests", 100).await;
    bench.link.fetch(bench.epoch, SourceQueue::Requests, MOST);
    // Kept, so that nothing else is sent in their place.
    let mut kept = Vec::new();
    for number in 0..MOST {
        let delivery = bench.delivered().await;
        assert!(delivery.is_fetched());
        assert_eq!(delivery.body(), number.to_string().as_bytes());
        kept.push(delivery);
    }
    let end = bench.next().await;
    assert!(
        matches!(end, BrokerEvent::Fetched { found, .. } if found == u32::from(MOST)),
        "{end:?}"
    );
    assert_eq!(bench.length("requests").await, 60);
    bench.link.consume(bench.epoch, ConsumeScope::All);
    for number in MOST..100 {
        let delivery = bench.delivered().await;
        assert!(!delivery.is_fetched());
        assert_eq!(delivery.body(), number.to_string().as_bytes());
        bench.settle(delivery).await;
    }
    bench.finish().await;
}

#[tokio::test]
async fn orders_to_a_session_that_is_over_are_void() {
    let mut bench = Bench::new().await;
    bench.request("wait", BasicProperties::default()).await;
    let _held = bench.fetched(SourceQueue::Requests).await;
    bench.request("keep", BasicProperties::default()).await;
    bench.holds("requests", 1).await;
    bench.link.consume(bench.epoch + 1, ConsumeScope::All);
    bench.link.fetch(bench.epoch - 1, SourceQueue::Requests, 1);
    bench.link.stop_consuming(bench.epoch - 1);
    // The answer to a publish comes after all that, and nothing came of it.
    assert!(matches!(
        bench.publish(event()).await,
        PublishResult::Confirmed(_)
    ));
    assert!(bench.early.is_empty());
    assert_eq!(bench.length("requests").await, 1);
    bench.finish().await;
}
