//! The link to the broker, against a real one: what is settled, what is published, what survives.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rename_worker::broker::{
    BrokerEvent, CopyTo, Delivery, Link, LinkHandle, LinkSettings, Outgoing, Publication, Settled,
    Ticket,
};
use rename_worker::config::{Amqp, Secret};
use rename_worker::wire::event::{EventMessage, RENAMED};
use rename_worker::wire::headers::HeaderValue;
use tokio::sync::mpsc;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A worker's end of the link, with a topology of its own.
struct Bench {
    prefix: String,
    link: LinkHandle,
    events: mpsc::Receiver<BrokerEvent>,
    epoch: u64,
    /// A plain client beside it.
    channel: Channel,
    _connection: Connection,
}

fn url() -> String {
    std::env::var("RENAME_WORKER_TEST_AMQP_URL").expect("a broker")
}

fn amqp(prefix: &str) -> Amqp {
    Amqp {
        url: Secret::inline(&url()),
        ca_file: None,
        client_cert_file: None,
        client_key_file: None,
        prefix: prefix.to_owned(),
        declare_topology: true,
    }
}

impl Bench {
    async fn new() -> Self {
        let prefix = format!("t{}", Uuid::new_v4().simple());
        let connection = Connection::connect(&url(), ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let settings = LinkSettings {
            prefetch: 10,
            ladder: vec![Duration::from_millis(200)],
            connection_name: "test".to_owned(),
        };
        let (sender, events) = mpsc::channel(16);
        let link = Link::start(amqp(&prefix), settings, sender, ());
        let mut bench = Self {
            prefix,
            link,
            events,
            epoch: 0,
            channel,
            _connection: connection,
        };
        bench.up().await;
        bench
    }

    async fn next(&mut self) -> BrokerEvent {
        tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("a living link")
    }

    async fn up(&mut self) {
        loop {
            match self.next().await {
                BrokerEvent::Up { epoch } => {
                    self.epoch = epoch;
                    return;
                }
                BrokerEvent::Failed { why, .. } => eprintln!("failed: {why}"),
                BrokerEvent::Down { why, .. } => eprintln!("down: {why}"),
                other => panic!("{other:?} before being up"),
            }
        }
    }

    async fn delivered(&mut self) -> Delivery {
        match self.next().await {
            BrokerEvent::Delivered(delivery) => delivery,
            other => panic!("{other:?} instead of a delivery"),
        }
    }

    async fn published(&mut self, ticket: u64) -> Publication {
        match self.next().await {
            BrokerEvent::Published {
                ticket: told,
                result,
            } if told == Ticket(ticket) => result,
            other => panic!("{other:?} instead of an answer"),
        }
    }

    async fn request(&self, body: &str, properties: BasicProperties) {
        let exchange = format!("{}.requests", self.prefix);
        self.channel
            .basic_publish(
                exchange.into(),
                "rename.T00000001".into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                properties,
            )
            .await
            .unwrap();
    }
}

fn event() -> Outgoing {
    Outgoing::Event {
        message: EventMessage {
            event_type: RENAMED,
            id: Uuid::new_v4(),
            body: b"{}".to_vec(),
        },
        correlation_id: Some("c".to_owned()),
        traceparent: None,
    }
}

#[tokio::test]
async fn a_request_is_settled_by_a_confirmed_event() {
    let mut bench = Bench::new().await;
    bench.request("one", BasicProperties::default()).await;
    bench.link.consume(bench.epoch);
    let delivery = bench.delivered().await;
    assert_eq!(delivery.body(), b"one");
    assert_eq!(delivery.routing_key(), "rename.T00000001");
    bench.link.publish(Ticket(1), event());
    let Publication::Confirmed(event) = bench.published(1).await else {
        panic!("not confirmed");
    };
    assert!(!event.routed());
    bench.link.settle(delivery, Settled::Outcome { event });
    bench.link.close().await;
}

#[tokio::test]
async fn a_copy_comes_back_from_the_ladder_and_tells_where_it_came_from() {
    let mut bench = Bench::new().await;
    bench.request("late", BasicProperties::default()).await;
    bench.link.consume(bench.epoch);
    for round in 1..=3_i64 {
        let delivery = bench.delivered().await;
        assert_eq!(delivery.routing_key(), "rename.T00000001");
        assert_eq!(delivery.exchange(), format!("{}.requests", bench.prefix));
        let copy = Outgoing::Copy {
            of: Arc::clone(delivery.received()),
            to: CopyTo::Retry(0),
            headers: vec![("x-rename-attempts", HeaderValue::Int(round))],
        };
        bench.link.publish(Ticket(2), copy);
        let Publication::Confirmed(copy) = bench.published(2).await else {
            panic!("not confirmed");
        };
        bench.link.settle(delivery, Settled::Copied(copy));
    }
    let _ = BasicGetOptions::default();
    bench.link.close().await;
}
