//! A review of the dead letters, at the broker: each letter is seen once, and nothing of what is not
//! taken changes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::BasicProperties;
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use rename_worker::broker::topology::model::{QueueNames, TopologySettings};
use rename_worker::broker::{
    BrokerError, DeadLetterQueue, DeliveryLimitCheck, PublishResult, ReviewError, declare_topology,
};
use rename_worker::config::{AmqpSection, Secret};
use rename_worker::messages::message::{MessageField, MessageView};

use crate::support::amqp::{Raw, SOON};
use crate::support::{broker, unique_prefix};

const LADDER: [Duration; 1] = [Duration::from_millis(200)];
const BY: &str = "kari@support-3";

struct Stage {
    amqp: AmqpSection,
    names: QueueNames,
    raw: Raw,
}

impl Stage {
    async fn new() -> Self {
        let url = broker().await;
        let prefix = unique_prefix();
        let amqp = AmqpSection {
            url: Secret::inline(url),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            prefix: prefix.clone(),
            declare_topology: true,
        };
        declare_topology(&amqp, &TopologySettings::with_delays(&LADDER))
            .await
            .unwrap();
        Self {
            names: QueueNames::new(&prefix),
            amqp,
            raw: Raw::connect(url).await,
        }
    }

    async fn review(&self) -> DeadLetterQueue {
        DeadLetterQueue::begin(&self.amqp, BY, DeliveryLimitCheck::Checked)
            .await
            .unwrap()
    }

    async fn letter(&self, body: &str, properties: BasicProperties) {
        let exchange = &self.names.dead_letters;
        let raw = &self.raw;
        raw.publish(exchange, "rename.T00000001", body.as_bytes(), properties)
            .await;
    }

    async fn letters(&self, count: usize) -> Vec<String> {
        let bodies: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let mut sending: FuturesUnordered<_> = bodies
            .iter()
            .map(|body| self.letter(body, BasicProperties::default()))
            .collect();
        while sending.next().await.is_some() {}
        drop(sending);
        bodies
    }

    fn request(&self, body: Vec<u8>) -> MessageView {
        MessageView {
            exchange: self.names.requests.clone(),
            routing_key: "k".to_owned(),
            body,
            ..MessageView::default()
        }
    }

    async fn finish(self) {
        self.raw.remove_topology(&self.names, &LADDER).await;
    }
}

#[tokio::test]
async fn what_is_looked_at_again_and_again_stays_as_it_was() {
    let stage = Stage::new().await;
    let mut table = FieldTable::default();
    table.insert("theirs".into(), 7_i64.into());
    table.insert("odd".into(), AMQPValue::LongString([0xff][..].into()));
    let properties = BasicProperties::default()
        .with_headers(table)
        .with_type("rename".into())
        .with_priority(3)
        .with_delivery_mode(2);
    for body in ["one", "other"] {
        stage.letter(body, properties.clone()).await;
    }
    let review = stage.review().await;
    let mut first: Option<Vec<MessageView>> = None;
    // More often than a delivery limit would allow.
    for round in 0..25 {
        let mut look = review.look().await.unwrap();
        let mut seen = Vec::new();
        while let Some(held) = look.next().await.unwrap() {
            seen.push(held.message);
        }
        review.give_back(look).await.unwrap();
        assert_eq!(review.waiting().await.unwrap(), 2, "in round {round}");
        assert!(*first.get_or_insert_with(|| seen.clone()) == seen);
    }
    let seen = first.unwrap();
    assert_eq!(seen[0].body, b"one");
    assert!(seen[0].headers.get("theirs") == Some(&MessageField::Int64(7)));
    assert!(seen[0].headers.get("odd") == Some(&MessageField::RawText(vec![0xff])));
    review.end().await;

    let left = stage.raw.drain(&stage.names.dead_letters, 2, SOON).await;
    for message in left {
        let mut kept = message.properties.clone();
        let headers: BTreeMap<_, _> = kept.headers().clone().unwrap_or_default().inner().clone();
        kept = kept.with_headers(FieldTable::default());
        assert!(headers.contains_key("theirs"));
        let sent = properties.clone().with_headers(FieldTable::default());
        assert_eq!(kept, sent, "looking changed a property");
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_that_end_before_their_last_letter_do_not_end_the_review() {
    let stage = Stage::new().await;
    stage.letters(40).await;
    let review = stage.review().await;
    for round in 0..100 {
        let mut look = review.look().await.unwrap();
        // So that consumers of one, of several and of all waves are at work when it ends.
        for _ in 0..=round % 40 {
            look.next().await.unwrap().unwrap();
        }
        let back = review.give_back(look).await;
        back.unwrap_or_else(|trouble| panic!("in round {round}: {trouble}"));
    }
    review.end().await;
    stage.finish().await;
}

#[tokio::test]
async fn each_of_many_letters_is_seen_once_while_some_are_taken() {
    // Several waves of them.
    const LETTERS: usize = 4_500;
    let stage = Stage::new().await;
    let bodies = stage.letters(LETTERS).await;
    let review = stage.review().await;
    let sender = review.sender().await.unwrap();
    let mut look = review.look().await.unwrap();
    let mut seen = Vec::new();
    let mut taken = 0;
    while let Some(held) = look.next().await.unwrap() {
        seen.push(String::from_utf8(held.message.body.clone()).unwrap());
        if seen.len() % 3 == 0 {
            let fate = sender.hand_over(stage.request(held.message.body)).await;
            let PublishResult::Confirmed(proof) = fate.await else {
                panic!("not confirmed");
            };
            held.claim.replayed(proof);
            taken += 1;
        }
    }
    assert_eq!(look.missing(), 0);
    assert_eq!(seen, bodies, "each once, in their order");
    review.give_back(look).await.unwrap();
    let waiting = review.waiting().await.unwrap();
    assert_eq!(waiting, (LETTERS - taken) as u64);
    assert!(sender.close().await.is_none());

    // And once more, those that are left.
    let mut look = review.look().await.unwrap();
    let mut left = 0;
    while look.next().await.unwrap().is_some() {
        left += 1;
    }
    assert_eq!(left, LETTERS - taken);
    review.give_back(look).await.unwrap();
    review.end().await;
    stage.finish().await;
}

#[tokio::test]
async fn a_second_reviewer_is_told_that_there_is_one() {
    let stage = Stage::new().await;
    let first = stage.review().await;
    let second = DeadLetterQueue::begin(&stage.amqp, BY, DeliveryLimitCheck::Checked).await;
    let reviewed = matches!(second, Err(ReviewError::Broker(BrokerError::Reviewed)));
    assert!(reviewed, "{second:?}");
    first.end().await;
    stage.review().await.end().await;
    stage.finish().await;
}

#[tokio::test]
async fn a_queue_whose_limit_would_drop_letters_is_not_looked_at() {
    let stage = Stage::new().await;
    let channel = stage.raw.channel();
    let queue = stage.names.dead_letters.as_str();
    channel
        .queue_delete(queue.into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let missing = DeadLetterQueue::begin(&stage.amqp, BY, DeliveryLimitCheck::Given).await;
    let told = matches!(missing, Err(ReviewError::Broker(BrokerError::Topology(_))));
    assert!(told, "{missing:?}");

    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(3));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.into(), options, arguments)
        .await
        .unwrap();
    channel
        .queue_bind(
            queue.into(),
            queue.into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    stage.letter("one", BasicProperties::default()).await;
    let limited = DeadLetterQueue::begin(&stage.amqp, BY, DeliveryLimitCheck::Checked).await;
    let told = limited.unwrap_err();
    assert!(matches!(told, ReviewError::Limited { .. }), "{told}");
    assert!(told.to_string().contains("x-delivery-limit"), "{told}");
    // Unless a person knows better.
    let review = DeadLetterQueue::begin(&stage.amqp, BY, DeliveryLimitCheck::Given)
        .await
        .unwrap();
    assert_eq!(review.waiting().await.unwrap(), 1);
    review.end().await;
    stage.finish().await;
}
