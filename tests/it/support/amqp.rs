//! Plain lapin for the tests: they look at the broker past all of our own code.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use rename_worker::broker::topology::model::{
    QueueNames, Topology, TopologyObject, TopologySettings,
};
use tokio::time::timeout;

/// For what takes milliseconds, unless the machine is busy with several brokers.
pub const SOON: Duration = Duration::from_secs(20);

/// The `reply_code` of a polite close.
const GOODBYE: u16 = 200;

/// A connection with one channel in confirm mode.
pub struct Raw {
    connection: Connection,
    channel: Channel,
}

/// A message that a test took from a queue.
#[derive(Debug, Clone)]
pub struct Message {
    pub exchange: String,
    pub routing_key: String,
    pub redelivered: bool,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Message {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// A header, if it is there.
    pub fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }

    /// A header that is a text.
    pub fn text_header(&self, name: &str) -> Option<String> {
        match self.header(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        }
    }
}

impl Raw {
    pub async fn connect(url: &str) -> Self {
        let connected = Self::try_connect(url).await;
        connected.expect("the broker can be reached and opens a channel")
    }

    /// For a broker that may be away.
    pub async fn try_connect(url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await?;
        Ok(Self {
            connection,
            channel,
        })
    }

    /// For what these helpers leave out.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// One more, for what ends its channel.
    pub async fn another_channel(&self) -> Channel {
        let channel = self.connection.create_channel().await;
        channel.expect("a channel opens")
    }

    /// Publishes and waits for the confirm; a message that no queue takes fails the test.
    pub async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirm = self
            .channel
            .basic_publish(
                exchange.into(),
                routing_key.into(),
                options,
                body,
                properties,
            )
            .await
            .expect("the message is sent");
        match confirm.await.expect("the broker confirms") {
            Confirmation::Ack(None) => {}
            other => panic!("the broker did not take the message: {other:?}"),
        }
    }

    /// A queue of its own for what `exchange` gets under `routing_key` (`#` for all) from now on.
    /// It goes with this connection.
    pub async fn listen(&self, exchange: &str, routing_key: &str) -> String {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .expect("a queue can be declared");
        let name = queue.name().to_string();
        self.channel
            .queue_bind(
                name.as_str().into(),
                exchange.into(),
                routing_key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("the exchange is there to be bound to");
        name
    }

    /// Takes `count` messages, waiting at most `within` for them; what is over stays.
    pub async fn drain(&self, queue: &str, count: usize, within: Duration) -> Vec<Message> {
        let mut taken = Vec::with_capacity(count);
        let came = timeout(within, self.take(queue, count, &mut taken)).await;
        assert!(
            came.is_ok(),
            "{} of {count} messages came to {queue} within {within:?}",
            taken.len()
        );
        taken
    }

    async fn take(&self, queue: &str, count: usize, taken: &mut Vec<Message>) {
        if count == 0 {
            return;
        }
        // A channel of its own: closing it gives back what came but was not asked for.
        let channel = self
            .connection
            .create_channel()
            .await
            .expect("a channel opens");
        let prefetch = u16::try_from(count).unwrap_or(1000).min(1000);
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await
            .expect("a prefetch can be set");
        let mut consumer = channel
            .basic_consume(
                queue.into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("the queue can be consumed");
        while taken.len() < count {
            let delivery = consumer
                .next()
                .await
                .expect("the consumer lives on")
                .expect("the connection lives on");
            delivery
                .ack(BasicAckOptions::default())
                .await
                .expect("the channel lives on");
            taken.push(Message {
                exchange: delivery.exchange.to_string(),
                routing_key: delivery.routing_key.to_string(),
                redelivered: delivery.redelivered,
                properties: delivery.properties,
                body: delivery.data,
            });
        }
        let _ = channel.close(GOODBYE, "enough".into()).await;
    }

    /// How many messages are ready in the queue; one that is held by a consumer is not.
    pub async fn queue_length(&self, queue: &str) -> u32 {
        // A channel of its own: asking for a queue that is not there closes the channel.
        let channel = self
            .connection
            .create_channel()
            .await
            .expect("a channel opens");
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .expect("the queue is there");
        let _ = channel.close(GOODBYE, "enough".into()).await;
        queue.message_count()
    }

    /// Removes the queues and exchanges, so that a broker that was given is left as it was.
    /// Deletes every queue and exchange of one prefix.
    pub async fn remove_topology(&self, names: &QueueNames, delays: &[Duration]) {
        let topology = Topology::new(names, &TopologySettings::with_delays(delays));
        for object in &topology.objects {
            match object {
                TopologyObject::Queue { name, .. } => self.remove(&[name], &[]).await,
                TopologyObject::Exchange { name, .. } => self.remove(&[], &[name]).await,
                TopologyObject::Binding { .. } => {}
            }
        }
    }

    pub async fn remove(&self, queues: &[&str], exchanges: &[&str]) {
        for &queue in queues {
            let options = QueueDeleteOptions::default();
            let deleted = self.channel.queue_delete(queue.into(), options).await;
            deleted.expect("a queue can be deleted");
        }
        for &exchange in exchanges {
            let options = ExchangeDeleteOptions::default();
            let deleted = self.channel.exchange_delete(exchange.into(), options).await;
            deleted.expect("an exchange can be deleted");
        }
    }
}
