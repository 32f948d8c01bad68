//! A worker's end of the link to the broker, for the tests of the link.

use std::collections::VecDeque;
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rename_worker::broker::topology::model::{
    QueueNames, Topology, TopologyObject, TopologySettings,
};
use rename_worker::broker::{
    AckPermit, BrokerClient, BrokerError, BrokerEvent, BrokerHandle, Delivery, LinkSettings,
    OutboundMessage, PublishId, PublishResult, StreamLimits,
};
use rename_worker::config::{AmqpSection, Secret};
use rename_worker::core::policy::consume_plan::SourceQueue;
use rename_worker::messages::event::{EventMessage, RENAMED};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::support::{broker, unique_prefix};

/// The delay of its one wait queue.
pub const DELAYS: [Duration; 1] = [Duration::from_millis(200)];

/// Far longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PREFETCH: u16 = 10;
pub const ROUTING_KEY: &str = "rename.T00000001";

/// A worker's end of the link with a topology of its own, and a plain client beside it.
pub struct Bench {
    pub prefix: String,
    pub link: BrokerHandle,
    events: mpsc::Receiver<BrokerEvent>,
    pub epoch: u64,
    /// Came while something else was waited for.
    pub early: VecDeque<Delivery>,
    pub channel: Channel,
    _connection: Connection,
}

pub fn amqp(url: &str, prefix: &str) -> AmqpSection {
    AmqpSection {
        url: Secret::inline(url),
        ca_file: None,
        client_cert_file: None,
        client_key_file: None,
        prefix: prefix.to_owned(),
        declare_topology: true,
    }
}

impl Bench {
    /// On the shared broker, up.
    pub async fn new() -> Self {
        Self::on(broker().await).await
    }

    /// Up.
    pub async fn on(url: &str) -> Self {
        let mut bench = Self::with(amqp(url, &unique_prefix()), url).await;
        bench.up().await;
        bench
    }

    /// Just started. The plain client beside it takes its own way to the broker.
    pub async fn with(amqp: AmqpSection, plain_url: &str) -> Self {
        let connection = Connection::connect(plain_url, ConnectionProperties::default())
            .await
            .expect("the broker can be reached");
        let channel = connection.create_channel().await.expect("a channel opens");
        let (prefix, (link, events)) = (amqp.prefix.clone(), start(amqp));
        Self {
            prefix,
            link,
            events,
            epoch: 0,
            early: VecDeque::new(),
            channel,
            _connection: connection,
        }
    }

    /// The next event, but for the one that says which queues are consumed.
    pub async fn next(&mut self) -> BrokerEvent {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv())
                .await
                .expect("an event in time")
                .expect("a living link");
            if !matches!(event, BrokerEvent::TakesNew { .. }) {
                return event;
            }
        }
    }

    /// Waits for the next session; what comes before is dropped.
    pub async fn up(&mut self) {
        loop {
            if let BrokerEvent::Up { epoch } = self.next().await {
                self.epoch = epoch;
                return;
            }
        }
    }

    pub async fn down(&mut self) -> BrokerError {
        loop {
            match self.next().await {
                BrokerEvent::Down { epoch, why } => {
                    assert_eq!(epoch, self.epoch);
                    return why;
                }
                BrokerEvent::Published { .. } => {}
                other => panic!("{other:?} instead of the end of the session"),
            }
        }
    }

    pub async fn delivered(&mut self) -> Delivery {
        if let Some(delivery) = self.early.pop_front() {
            return delivery;
        }
        match self.next().await {
            BrokerEvent::Delivered(delivery) => delivery,
            other => panic!("{other:?} instead of a delivery"),
        }
    }

    /// Fetches until there is something: the broker may still be routing it.
    pub async fn fetched(&mut self, queue: SourceQueue) -> Delivery {
        loop {
            self.link.fetch(self.epoch, queue, 1);
            match self.next().await {
                BrokerEvent::Delivered(delivery) => {
                    let end = self.next().await;
                    assert!(
                        matches!(end, BrokerEvent::Fetched { found: 1, .. }),
                        "{end:?}"
                    );
                    return delivery;
                }
                BrokerEvent::Fetched { found: 0, .. } => {}
                other => panic!("{other:?} instead of a fetched request"),
            }
        }
    }

    pub async fn publish(&mut self, outgoing: OutboundMessage) -> PublishResult {
        self.link.publish(PublishId(7), outgoing);
        loop {
            match self.next().await {
                BrokerEvent::Published {
                    ticket: PublishId(7),
                    result,
                } => return result,
                BrokerEvent::Delivered(delivery) => self.early.push_back(delivery),
                other => panic!("{other:?} instead of an answer"),
            }
        }
    }

    pub async fn settle(&mut self, delivery: Delivery) {
        let PublishResult::Confirmed(event) = self.publish(event()).await else {
            panic!("not confirmed");
        };
        self.link.settle(delivery, AckPermit::Outcome { event });
    }

    pub async fn request(&self, body: &str, properties: BasicProperties) {
        self.channel
            .basic_publish(
                self.name("requests").into(),
                ROUTING_KEY.into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                properties,
            )
            .await
            .unwrap();
    }

    pub fn name(&self, what: &str) -> String {
        format!("{}.{what}", self.prefix)
    }

    /// Ready messages; unsettled ones do not count.
    pub async fn length(&self, what: &str) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(self.name(what).into(), options, FieldTable::default())
            .await
            .unwrap()
            .message_count()
    }

    /// Waits until so many messages are ready: the broker counts a little behind.
    pub async fn holds(&self, what: &str, count: u32) {
        let counting = async { while self.length(what).await != count {} };
        tokio::time::timeout(PATIENCE, counting)
            .await
            .unwrap_or_else(|_| panic!("{what} does not come to hold {count}"));
    }

    pub async fn get(&self, what: &str) -> lapin::message::Delivery {
        let options = BasicGetOptions { no_ack: true };
        let got = self
            .channel
            .basic_get(self.name(what).into(), options)
            .await
            .unwrap();
        got.expect("a message").delivery
    }

    /// Ends the link and removes what it made.
    pub async fn finish(self) {
        self.link.close().await;
        let names = QueueNames::new(&self.prefix);
        let topology = Topology::new(&names, &TopologySettings::with_delays(&DELAYS));
        for object in topology.objects {
            match object {
                TopologyObject::Queue { name, .. } => {
                    let options = QueueDeleteOptions::default();
                    let _ = self.channel.queue_delete(name.into(), options).await;
                }
                TopologyObject::Exchange { name, .. } => {
                    let options = ExchangeDeleteOptions::default();
                    let _ = self.channel.exchange_delete(name.into(), options).await;
                }
                TopologyObject::Binding { .. } => {}
            }
        }
    }
}

/// Starts a link alone.
pub fn start(amqp: AmqpSection) -> (BrokerHandle, mpsc::Receiver<BrokerEvent>) {
    start_limited(amqp, StreamLimits::NONE)
}

/// The same; messages are cut at the limits.
pub fn start_limited(
    amqp: AmqpSection,
    limits: StreamLimits,
) -> (BrokerHandle, mpsc::Receiver<BrokerEvent>) {
    let settings = LinkSettings {
        prefetch: PREFETCH,
        topology: TopologySettings::with_delays(&DELAYS),
        connection_name: "test".to_owned(),
        limits,
    };
    // Small, so that the link has to wait for us now and then.
    let (sender, events) = mpsc::channel(2);
    (BrokerClient::start(amqp, settings, sender), events)
}

/// Why the next try to connect fails, and when it will be tried again.
pub async fn failed(events: &mut mpsc::Receiver<BrokerEvent>) -> (BrokerError, Duration) {
    match tokio::time::timeout(PATIENCE, events.recv()).await {
        Ok(Some(BrokerEvent::Failed { why, again_in, .. })) => (why, again_in),
        other => panic!("{other:?} instead of a failure"),
    }
}

pub fn event() -> OutboundMessage {
    OutboundMessage::Event {
        message: EventMessage {
            event_type: RENAMED,
            id: Uuid::new_v4(),
            body: b"{}".to_vec(),
        },
        correlation_id: Some("c".to_owned()),
        traceparent: None,
    }
}
