//! Makes the topology on a broker, or compares what is there with it, and tells everything that
//! does not fit at once.
//!
//! AMQP tells of a misfit by closing the channel, so each one costs a new channel. Bindings cannot
//! be asked about over AMQP: they are declared, never checked.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::topology::{
    Argument, DELIVERY_LIMIT_ARGUMENT, Difference, Object, Topology, Value, What,
    read_inequivalence,
};
use super::trouble::Trouble;

/// Declares everything; what exists already must be as it is to be.
pub(super) async fn declare(connection: &Connection, topology: &Topology) -> Result<(), Trouble> {
    report(each(connection, topology, Way::Declare).await?)
}

/// Looks whether every exchange and queue exists, with whatever arguments.
pub(super) async fn require(connection: &Connection, topology: &Topology) -> Result<(), Trouble> {
    report(each(connection, topology, Way::Exists).await?)
}

/// Everything that is missing or differs. It creates nothing, but needs the right to configure.
pub(super) async fn compare(
    connection: &Connection,
    topology: &Topology,
) -> Result<Vec<Difference>, Trouble> {
    each(connection, topology, Way::Compare).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Declare,
    Exists,
    Compare,
}

fn report(differences: Vec<Difference>) -> Result<(), Trouble> {
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Trouble::Topology(differences))
    }
}

async fn each(
    connection: &Connection,
    topology: &Topology,
    way: Way,
) -> Result<Vec<Difference>, Trouble> {
    let mut desk = Desk::open(connection).await?;
    let mut differences = Vec::new();
    for object in &topology.objects {
        if let Some(what) = one(&mut desk, object, way).await? {
            differences.push(Difference {
                object: object.to_string(),
                what,
            });
        }
    }
    desk.channel.close(200, "OK".into()).await.ok();
    Ok(differences)
}

async fn one(desk: &mut Desk<'_>, object: &Object, way: Way) -> Result<Option<What>, Trouble> {
    if matches!(object, Object::Binding { .. }) && way != Way::Declare {
        return Ok(None);
    }
    if way != Way::Declare {
        let found = desk.ask(object, true, Limit::Said).await?;
        if found.is_some() || way == Way::Exists {
            return Ok(found);
        }
    }
    // A declare of what exists creates nothing; it only compares.
    let misfit = desk.ask(object, false, Limit::Said).await?;
    if misfit.as_ref().is_some_and(refuses_the_limit) {
        return desk.ask(object, false, Limit::Unsaid).await;
    }
    Ok(misfit)
}

/// Whether a queue without delivery limit is asked for in so many words, see
/// [`Argument::asks_for_no_delivery_limit`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    Said,
    Unsaid,
}

/// A broker before 4.0 says `invalid arg 'x-delivery-limit' for queue …` to a negative one.
fn refuses_the_limit(what: &What) -> bool {
    matches!(what, What::Refused { told }
        if told.contains("invalid arg") && told.contains(DELIVERY_LIMIT_ARGUMENT))
}

/// A channel to ask on, replaced each time the broker closes it.
struct Desk<'a> {
    connection: &'a Connection,
    channel: Channel,
}

impl<'a> Desk<'a> {
    async fn open(connection: &'a Connection) -> Result<Self, Trouble> {
        let channel = open_channel(connection).await?;
        Ok(Self {
            connection,
            channel,
        })
    }

    /// What does not fit, if anything.
    async fn ask(
        &mut self,
        object: &Object,
        passive: bool,
        limit: Limit,
    ) -> Result<Option<What>, Trouble> {
        let Err(error) = self.send(object, passive, limit).await else {
            return Ok(None);
        };
        let what = misfit(&error).ok_or_else(|| Trouble::of_session(&error))?;
        self.channel = open_channel(self.connection).await?;
        Ok(Some(what))
    }

    async fn send(&self, object: &Object, passive: bool, limit: Limit) -> lapin::Result<()> {
        match object {
            Object::Exchange { name, kind } => {
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
            Object::Queue { name, arguments } => {
                let options = QueueDeclareOptions {
                    passive,
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                self.channel
                    .queue_declare(name.as_str().into(), options, table(arguments, limit))
                    .await
                    .map(|_| ())
            }
            Object::Binding {
                exchange,
                queue,
                routing_key,
            } => {
                self.channel
                    .queue_bind(
                        queue.as_str().into(),
                        exchange.as_str().into(),
                        (*routing_key).into(),
                        QueueBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await
            }
        }
    }
}

pub(super) async fn open_channel(connection: &Connection) -> Result<Channel, Trouble> {
    connection
        .create_channel()
        .await
        .map_err(|error| Trouble::of_session(&error))
}

fn table(arguments: &[Argument], limit: Limit) -> FieldTable {
    let mut table = FieldTable::default();
    for argument in arguments {
        if limit == Limit::Unsaid && argument.asks_for_no_delivery_limit() {
            continue;
        }
        let value = match &argument.value {
            Value::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Value::Number(number) => AMQPValue::LongLongInt(*number),
        };
        table.insert(argument.name.into(), value);
    }
    table
}

/// A channel error about the object itself; any other error is not about the topology.
fn misfit(error: &lapin::Error) -> Option<What> {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return None;
    };
    let told = amqp.get_message().as_str();
    match amqp.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Some(What::Missing),
        AMQPErrorKind::Soft(_) => Some(read_inequivalence(told).unwrap_or_else(|| What::Refused {
            told: told.to_owned(),
        })),
        AMQPErrorKind::Hard(_) => None,
    }
}
