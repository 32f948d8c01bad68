//! The visit to the dead letters: it sees each of them, and nothing of what it does not remove
//! changes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::BasicProperties;
use lapin::types::FieldTable;
use rename_worker::broker::topology::Names;
use rename_worker::broker::{
    Field, LetterBox, Message, Outgoing, Properties, Publication, Trouble, declare_topology,
};
use rename_worker::config::{Amqp, Secret};

use crate::support::amqp::{Raw, SOON};
use crate::support::{broker, unique_prefix};

const LADDER: [Duration; 1] = [Duration::from_millis(200)];

struct Stage {
    amqp: Amqp,
    names: Names,
    raw: Raw,
}

impl Stage {
    async fn new() -> Self {
        let url = broker().await;
        let prefix = unique_prefix();
        let amqp = Amqp {
            url: Secret::inline(url),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            prefix: prefix.clone(),
            declare_topology: true,
        };
        declare_topology(&amqp, &LADDER).await.unwrap();
        Self {
            names: Names::new(&prefix),
            amqp,
            raw: Raw::connect(url).await,
        }
    }

    async fn letter(&self, body: &str, properties: BasicProperties) {
        let exchange = &self.names.dead_letters;
        let raw = &self.raw;
        raw.publish(exchange, "rename.T00000001", body.as_bytes(), properties)
            .await;
    }

    async fn finish(self) {
        let names = &self.names;
        let retry = names.retry(LADDER[0]);
        self.raw
            .remove(
                &[&names.requests, &names.dead_letters, &retry],
                &[&names.requests, &names.dead_letters, &names.events],
            )
            .await;
    }
}

#[tokio::test]
async fn only_what_was_published_again_is_removed_and_the_rest_is_as_it_was() {
    let stage = Stage::new().await;
    let mut table = FieldTable::default();
    table.insert("theirs".into(), 7_i64.into());
    let properties = BasicProperties::default()
        .with_headers(table)
        .with_type("rename".into())
        .with_delivery_mode(2);
    for body in ["fix me", "leave me"] {
        stage.letter(body, properties.clone()).await;
    }
    // Looked at and left: more often than a delivery limit would allow.
    for _ in 0..25 {
        let mut visit = LetterBox::open(&stage.amqp).await.unwrap();
        assert!(visit.differences().is_empty());
        let seen = visit.next().await.unwrap().expect("a letter");
        assert_eq!(seen.body(), b"fix me");
        assert!(visit.close().await.is_none());
    }
    let mut visit = LetterBox::open(&stage.amqp).await.unwrap();
    let fixed = visit.next().await.unwrap().expect("a letter");
    let told = fixed.plain_properties();
    let theirs = told.headers.clone().unwrap_or_default();
    assert_eq!(theirs.get("theirs"), Some(&Field::I64(7)));
    let again = Outgoing::Message(Message {
        exchange: stage.names.requests.clone(),
        routing_key: fixed.routing_key().to_owned(),
        body: b"fixed".to_vec(),
        properties: Properties {
            headers: None,
            ..told
        },
    });
    let Publication::Confirmed(proof) = visit.publish(again).await else {
        panic!("not confirmed");
    };
    visit.remove(fixed, proof);
    assert!(visit.next().await.unwrap().is_some());
    assert!(visit.next().await.unwrap().is_none());
    assert!(visit.close().await.is_none());

    let sent = stage.raw.drain(&stage.names.requests, 1, SOON).await;
    assert_eq!(sent[0].body, b"fixed");
    assert_eq!(sent[0].routing_key, "rename.T00000001");
    let left = stage.raw.drain(&stage.names.dead_letters, 1, SOON).await;
    assert_eq!(left[0].body, b"leave me");
    let mut kept = left[0].properties.clone();
    let headers: BTreeMap<_, _> = kept.headers().clone().unwrap_or_default().inner().clone();
    kept = kept.with_headers(FieldTable::default());
    assert!(headers.contains_key("theirs"));
    assert_eq!(
        kept,
        properties.with_headers(FieldTable::default()),
        "looking changed a property"
    );
    stage.finish().await;
}

#[tokio::test]
async fn each_of_many_letters_is_seen_once_in_order_while_some_are_removed() {
    const LETTERS: usize = 1_300;
    let stage = Stage::new().await;
    let bodies: Vec<String> = (0..LETTERS).map(|n| n.to_string()).collect();
    let mut sending: FuturesUnordered<_> = bodies
        .iter()
        .map(|body| stage.letter(body, BasicProperties::default()))
        .collect();
    while sending.next().await.is_some() {}
    drop(sending);
    let mut visit = LetterBox::open(&stage.amqp).await.unwrap();
    let mut held = Vec::new();
    let mut seen = Vec::new();
    while let Some(letter) = visit.next().await.unwrap() {
        seen.push(String::from_utf8(letter.body().to_vec()).unwrap());
        if seen.len() % 3 == 0 {
            let away = Outgoing::Message(Message {
                exchange: stage.names.requests.clone(),
                routing_key: "k".to_owned(),
                body: letter.body().to_vec(),
                properties: Properties::default(),
            });
            let Publication::Confirmed(proof) = visit.publish(away).await else {
                panic!("not confirmed");
            };
            visit.remove(letter, proof);
        } else {
            held.push(letter);
        }
    }
    assert_eq!(seen, bodies);
    assert!(visit.close().await.is_none());
    assert_eq!(
        stage.raw.queue_length(&stage.names.dead_letters).await as usize,
        held.len()
    );
    stage.finish().await;
}

#[tokio::test]
async fn a_second_reviewer_is_told_that_there_is_one() {
    let stage = Stage::new().await;
    let first = LetterBox::open(&stage.amqp).await.unwrap();
    let second = LetterBox::open(&stage.amqp).await;
    assert!(matches!(second, Err(Trouble::Reviewed)), "{second:?}");
    assert!(first.close().await.is_none());
    let third = LetterBox::open(&stage.amqp).await.unwrap();
    assert!(third.close().await.is_none());
    stage.finish().await;
}
