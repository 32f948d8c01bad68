//! Messages that are larger than what was agreed on with the broker, or than what is taken: no
//! session ends by them, no review stops at them, and what is taken of them has its limit.

use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use rename_worker::broker::{
    BrokerEvent, DeadLetterQueue, Delivery, DeliveryLimitCheck, StreamLimits,
};
use rename_worker::core::policy::consume_plan::{ConsumeScope, SourceQueue};
use rename_worker::core::policy::removal::RemovalCause;
use rename_worker::messages::headers::{HeaderSource as _, LEFT_OUT_HEADERS};

use crate::broker_bench::{Bench, ROUTING_KEY, amqp, start_limited};
use crate::support::amqp::Raw;
use crate::support::{broker, unique_prefix};

const LIMIT: u64 = 64 * 1024;
/// What a frame of 128 KiB has room for in one header, beside what else is in it.
const FULL: usize = 130_980;

fn filled(length: usize) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(
        "filler".into(),
        AMQPValue::LongString("f".repeat(length).into()),
    );
    headers
}

async fn deliveries(
    events: &mut tokio::sync::mpsc::Receiver<BrokerEvent>,
    count: usize,
) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let event = tokio::time::timeout(crate::broker_bench::PATIENCE, events.recv()).await;
        match event.expect("a delivery in time").expect("a living link") {
            BrokerEvent::Delivered(delivery) => all.push(delivery),
            BrokerEvent::TakesNew { .. } => {}
            other => panic!("{other:?} instead of a delivery"),
        }
    }
    all
}

#[tokio::test]
async fn a_long_body_is_rejected_unread_and_read_whole_among_the_undeliverable_ones() {
    const LONG: usize = 3 * 1024 * 1024;
    let bench = Bench::new().await;
    let short = "s".repeat(usize::try_from(LIMIT).unwrap());
    let long = "l".repeat(LONG);
    for _ in 0..5 {
        for body in [&long, &short] {
            bench.request(body, BasicProperties::default()).await;
        }
    }
    let limits = StreamLimits {
        body_max: Some(LIMIT),
    };
    let url = broker().await;
    let (link, mut events) = start_limited(amqp(url, &bench.prefix), limits);
    let epoch = loop {
        if let Some(BrokerEvent::Up { epoch }) = events.recv().await {
            break epoch;
        }
    };
    link.consume(epoch, ConsumeScope::All);
    // The short ones, and the first of the long ones: those come one at a time.
    let came = deliveries(&mut events, 6).await;
    let (long, short_ones): (Vec<_>, Vec<_>) = came
        .iter()
        .partition(|one| one.source() == SourceQueue::Undeliverable);
    assert_eq!((long.len(), short_ones.len()), (1, 5));
    assert_eq!((long[0].cut_from(), long[0].body().len()), (None, LONG));
    assert_eq!(long[0].removal(), Some(RemovalCause::Rejected));
    assert_eq!(long[0].exchange(), bench.name("requests"));
    assert_eq!(long[0].routing_key(), ROUTING_KEY);
    for one in short_ones {
        assert_eq!(one.body(), short.as_bytes());
    }
    drop(came);
    link.close().await;
    bench.holds("requests", 5).await;
    bench.holds("undeliverable", 5).await;
    bench.finish().await;
}

#[tokio::test]
async fn bodies_come_unharmed_whatever_the_frame_size() {
    let url = broker().await;
    for frame_max in [0, 8192, 10_000, 1_000_000] {
        let sized = format!("{url}?frame_max={frame_max}");
        let mut bench = Bench::with(amqp(&sized, &unique_prefix()), url).await;
        bench.up().await;
        let bodies: Vec<String> = [0, 1, 8184, 8185, 100_000]
            .iter()
            .map(|length| "b".repeat(*length))
            .collect();
        for body in &bodies {
            bench.request(body, BasicProperties::default()).await;
        }
        bench.link.consume(bench.epoch, ConsumeScope::All);
        for body in &bodies {
            let delivery = bench.delivered().await;
            assert_eq!(delivery.body(), body.as_bytes(), "{frame_max}");
            bench.settle(delivery).await;
        }
        bench.finish().await;
    }
}

#[tokio::test]
async fn headers_beyond_a_small_frame_are_left_out_and_counted() {
    let url = broker().await;
    let small = format!("{url}?frame_max=8192");
    let mut bench = Bench::with(amqp(&small, &unique_prefix()), url).await;
    bench.up().await;
    let mut headers = filled(100_000);
    headers.insert("kept".into(), AMQPValue::LongInt(7));
    let properties = BasicProperties::default()
        .with_app_id("kept too".into())
        .with_message_id("m".into())
        .with_headers(headers);
    bench.request("body", properties).await;
    bench.request("next", BasicProperties::default()).await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let truncated = bench.delivered().await;
    assert_eq!(truncated.body(), b"body");
    assert_eq!(truncated.truncated_headers(), 1);
    assert_eq!(truncated.message_id(), Some("m"));
    assert_eq!(truncated.int("kept"), Some(7));
    let next = bench.delivered().await;
    assert_eq!(next.truncated_headers(), 0);
    drop((truncated, next));
    bench.finish().await;
}

#[tokio::test]
async fn a_message_that_fills_its_frame_is_delivered_again_and_ends_no_session() {
    let mut bench = Bench::new().await;
    let properties = BasicProperties::default().with_headers(filled(FULL));
    bench.request("full", properties).await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let first = bench.delivered().await;
    // The broker adds its count of deliveries to what it delivers again.
    bench.link.requeue(first);
    let again = bench.delivered().await;
    assert!(again.redelivered());
    assert_eq!(again.body(), b"full");
    bench.settle(again).await;
    bench.finish().await;
}

/// A queue that dead-letters to the letters' exchange.
async fn expiring_queue(bench: &Bench, queue: &str) {
    let mut arguments = FieldTable::default();
    let exchange = AMQPValue::LongString(bench.name("dead-letters").into());
    arguments.insert("x-dead-letter-exchange".into(), exchange);
    bench
        .channel
        .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_letter_that_fills_its_frame_stops_no_review() {
    let bench = Bench::new().await;
    let raw = Raw::connect(broker().await).await;
    // RabbitMQ moves it to the dead letters, and adds why.
    let filler = FULL - 40;
    let full = BasicProperties::default()
        .with_expiration("1".into())
        .with_headers(filled(filler));
    // As with the queue of 0.1.0, from which such a message goes to the letters themselves.
    let queue = bench.name("expiring");
    expiring_queue(&bench, &queue).await;
    let plain = BasicProperties::default().with_expiration("1".into());
    for (body, properties) in [("full", full), ("plain", plain)] {
        raw.publish("", &queue, body.as_bytes(), properties).await;
    }
    bench.holds("dead-letters", 2).await;
    raw.remove(&[&queue], &[]).await;
    let amqp = amqp(broker().await, &bench.prefix);
    let review = DeadLetterQueue::begin(&amqp, "kari", DeliveryLimitCheck::Checked)
        .await
        .unwrap();
    let mut look = review.look().await.unwrap();
    let mut left_out = Vec::new();
    while let Some(held) = look.next().await.unwrap() {
        assert!(held.message.headers.contains_key("x-death"));
        let missing = held.message.headers.int(LEFT_OUT_HEADERS);
        left_out.push((held.message.body.len(), missing));
    }
    assert_eq!(left_out, [(4, Some(1)), (5, None)]);
    review.give_back(look).await.unwrap();
    review.end().await;
    drop(raw);
    bench.finish().await;
}
