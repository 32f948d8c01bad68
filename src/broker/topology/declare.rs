//! Makes the topology on a broker, or compares what is there with it, and tells everything that
//! does not fit at once.
//!
//! AMQP tells of a misfit by closing the channel, so each one costs a new channel. Bindings cannot
//! be asked about over AMQP: they are declared, never checked.

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::model::{
    Argument, ArgumentValue, DELIVERY_LIMIT_ARGUMENT, DifferenceKind, Topology, TopologyDifference,
    TopologyObject, read_inequivalence,
};
use crate::broker::error::{BrokerError, without_user};
use crate::broker::transport::connection::AmqpConnection;
use crate::broker::transport::server_properties::ServerVersion;

/// Declares everything; what exists already must be as it is to be.
pub(in crate::broker) async fn declare(
    wire: &AmqpConnection,
    topology: &Topology,
) -> Result<(), BrokerError> {
    report(each(wire, topology, CheckMode::Declare).await?)
}

/// Looks whether every exchange and queue exists, with whatever arguments.
pub(in crate::broker) async fn declare_and_verify(
    wire: &AmqpConnection,
    topology: &Topology,
) -> Result<(), BrokerError> {
    report(each(wire, topology, CheckMode::Exists).await?)
}

/// Everything that is missing or differs. It creates nothing, but needs the right to configure.
pub(in crate::broker) async fn compare(
    wire: &AmqpConnection,
    topology: &Topology,
) -> Result<Vec<TopologyDifference>, BrokerError> {
    each(wire, topology, CheckMode::Compare).await
}

/// Removes every queue and exchange, bindings with them; what is not there is passed over.
pub(in crate::broker) async fn remove(
    connection: &Connection,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let channel = open_channel(connection).await?;
    for object in &topology.objects {
        let removed = match object {
            TopologyObject::Queue { name, .. } => {
                let options = QueueDeleteOptions::default();
                channel
                    .queue_delete(name.as_str().into(), options)
                    .await
                    .map(drop)
            }
            TopologyObject::Exchange { name, .. } => {
                let options = ExchangeDeleteOptions::default();
                channel.exchange_delete(name.as_str().into(), options).await
            }
            TopologyObject::Binding { .. } => Ok(()),
        };
        removed.map_err(|error| BrokerError::of_session(&error))?;
    }
    channel.close(200, "OK".into()).await.ok();
    Ok(())
}

/// How many messages are ready in a queue.
pub(in crate::broker) async fn length(
    connection: &Connection,
    queue: &str,
) -> Result<u32, BrokerError> {
    let channel = open_channel(connection).await?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await
        .map_err(|error| BrokerError::of_session(&error))?;
    channel.close(200, "OK".into()).await.ok();
    Ok(found.message_count())
}

#[derive(Clone, Copy)]
enum CheckMode {
    Declare,
    Exists,
    Compare,
}

fn report(differences: Vec<TopologyDifference>) -> Result<(), BrokerError> {
    if differences.is_empty() {
        Ok(())
    } else {
        Err(BrokerError::Topology(differences))
    }
}

async fn each(
    wire: &AmqpConnection,
    topology: &Topology,
    way: CheckMode,
) -> Result<Vec<TopologyDifference>, BrokerError> {
    let mut desk = TopologyChannel::open(wire).await?;
    let mut differences = Vec::new();
    for object in &topology.objects {
        if let Some(what) = one(&mut desk, object, way).await? {
            differences.push(TopologyDifference {
                object: object.to_string(),
                what,
            });
        }
    }
    desk.channel.close(200, "OK".into()).await.ok();
    Ok(differences)
}

async fn one(
    desk: &mut TopologyChannel<'_>,
    object: &TopologyObject,
    way: CheckMode,
) -> Result<Option<DifferenceKind>, BrokerError> {
    let unlimited = object.asks_for_no_delivery_limit();
    match way {
        CheckMode::Declare if unlimited => declare_unlimited(desk, object).await,
        CheckMode::Declare => desk.declare(object).await,
        CheckMode::Exists | CheckMode::Compare
            if matches!(object, TopologyObject::Binding { .. }) =>
        {
            Ok(None)
        }
        CheckMode::Exists => desk.find(object).await,
        CheckMode::Compare => match desk.find(object).await? {
            None if unlimited => {
                desk.declare(&for_broker_version(object, desk.greeting)?)
                    .await
            }
            // A declare of what exists creates nothing; it only compares.
            None => desk.declare(object).await,
            misfit => Ok(misfit),
        },
    }
}

/// The first version of which a queue without delivery limit must be asked for in so many words.
/// Before, none is the default, and -1 would drop a message at its first requeue.
const FIRST_VERSION_WITH_DEFAULT_LIMIT: u32 = 4;

/// The queue as this broker's version has to be asked for it.
fn for_broker_version(
    object: &TopologyObject,
    broker: &ServerVersion,
) -> Result<TopologyObject, BrokerError> {
    Ok(
        if broker.major_version()? < FIRST_VERSION_WITH_DEFAULT_LIMIT {
            object.without_delivery_limit()
        } else {
            object.clone()
        },
    )
}

/// Declares a queue without delivery limit.
async fn declare_unlimited(
    desk: &mut TopologyChannel<'_>,
    object: &TopologyObject,
) -> Result<Option<DifferenceKind>, BrokerError> {
    let misfit = desk
        .declare(&for_broker_version(object, desk.greeting)?)
        .await?;
    Ok(accept_without_delivery_limit(object, misfit))
}

fn has_no_limit_argument(what: &DifferenceKind) -> bool {
    matches!(what, DifferenceKind::Argument { argument, found, .. }
        if argument == DELIVERY_LIMIT_ARGUMENT && found.starts_with("none"))
}

/// A queue from before an upgrade to 4.x has no argument, hence a limit of 20. Arguments cannot be
/// changed, and publishing to it loses nothing, so the worker works on and says so each time.
fn accept_without_delivery_limit(
    object: &TopologyObject,
    misfit: Option<DifferenceKind>,
) -> Option<DifferenceKind> {
    if !misfit.as_ref().is_some_and(has_no_limit_argument) {
        return misfit;
    }
    tracing::warn!(
        "{object} was made before RabbitMQ 4.0 and now has a delivery limit of 20: lift it by a \
         policy (delivery-limit: -1), or make the queue anew"
    );
    None
}

/// A channel to ask on, replaced each time the broker closes it.
struct TopologyChannel<'a> {
    connection: &'a Connection,
    greeting: &'a ServerVersion,
    channel: Channel,
}

impl<'a> TopologyChannel<'a> {
    async fn open(wire: &'a AmqpConnection) -> Result<Self, BrokerError> {
        let channel = open_channel(&wire.connection).await?;
        Ok(Self {
            connection: &wire.connection,
            greeting: &wire.greeting,
            channel,
        })
    }

    /// What does not fit, if anything. It creates what is missing.
    async fn declare(
        &mut self,
        object: &TopologyObject,
    ) -> Result<Option<DifferenceKind>, BrokerError> {
        self.ask(object, false).await
    }

    /// Whether it is missing.
    async fn find(
        &mut self,
        object: &TopologyObject,
    ) -> Result<Option<DifferenceKind>, BrokerError> {
        self.ask(object, true).await
    }

    async fn ask(
        &mut self,
        object: &TopologyObject,
        passive: bool,
    ) -> Result<Option<DifferenceKind>, BrokerError> {
        let Err(error) = self.send(object, passive).await else {
            return Ok(None);
        };
        let what = mismatch(&error).ok_or_else(|| BrokerError::of_session(&error))?;
        self.channel = open_channel(self.connection).await?;
        Ok(Some(what))
    }

    async fn send(&self, object: &TopologyObject, passive: bool) -> lapin::Result<()> {
        match object {
            TopologyObject::Exchange { name, kind } => {
                let options = ExchangeDeclareOptions {
                    passive,
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                };
                let kind = ExchangeKind::Custom((*kind).to_owned());
                self.channel
                    .exchange_declare(name.as_str().into(), kind, options, FieldTable::default())
                    .await
            }
            TopologyObject::Queue { name, arguments } => {
                let options = QueueDeclareOptions {
                    passive,
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                self.channel
                    .queue_declare(name.as_str().into(), options, table(arguments))
                    .await
                    .map(|_| ())
            }
            TopologyObject::Binding {
                exchange,
                queue,
                routing_key,
            } => {
                self.channel
                    .queue_bind(
                        queue.as_str().into(),
                        exchange.as_str().into(),
                        routing_key.as_str().into(),
                        QueueBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await
            }
        }
    }
}

pub(in crate::broker) async fn open_channel(
    connection: &Connection,
) -> Result<Channel, BrokerError> {
    connection
        .create_channel()
        .await
        .map_err(|error| BrokerError::of_session(&error))
}

fn table(arguments: &[Argument]) -> FieldTable {
    let mut table = FieldTable::default();
    for argument in arguments {
        let value = match &argument.value {
            ArgumentValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
            ArgumentValue::Number(number) => AMQPValue::LongLongInt(*number),
            ArgumentValue::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert(argument.name.into(), value);
    }
    table
}

/// Whether the broker says that what was asked about is not there.
pub(in crate::broker) fn is_missing(error: &lapin::Error) -> bool {
    matches!(mismatch(error), Some(DifferenceKind::Missing))
}

/// A channel error about the object itself; any other error is not about the topology.
fn mismatch(error: &lapin::Error) -> Option<DifferenceKind> {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return None;
    };
    let reply_text = amqp.get_message().as_str();
    match amqp.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Some(DifferenceKind::Missing),
        AMQPErrorKind::Soft(_) => {
            Some(
                read_inequivalence(reply_text).unwrap_or_else(|| DifferenceKind::Refused {
                    reply_text: without_user(reply_text),
                }),
            )
        }
        AMQPErrorKind::Hard(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    #[test]
    fn a_refused_object_is_told_without_the_broker_s_user() {
        let refused = AMQPError::new(
            AMQPSoftError::ACCESSREFUSED.into(),
            "ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused for user 'bob'"
                .into(),
        );
        let what = mismatch(&ErrorKind::ProtocolError(refused).into());
        let Some(DifferenceKind::Refused { reply_text: told }) = what else {
            panic!("{what:?}");
        };
        assert_eq!(
            told,
            "ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused"
        );
    }
}
