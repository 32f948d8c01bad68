//! The lock of a review: whoever holds the token of `rename.review-lock` reviews, nobody else.
//!
//! The queue has a single active consumer, so RabbitMQ delivers its messages to one consumer at a
//! time, and to the next one within milliseconds when the first is gone, however it went. Each review
//! publishes one token before it consumes, since there may be none; the holder acknowledges spare
//! ones.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::ConfirmSelectOptions;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation};

use super::super::connection::Wire;
use super::super::declare::{self, open_channel};
use super::super::topology::{Difference, Names, Object, Topology, TopologySettings, What};
use super::super::trouble::Trouble;

/// How long the token is waited for: a review that has just ended frees it within milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Tokens taken at a time: the one that is held, and spare ones.
const PREFETCH: u16 = 8;
/// AMQP's mark of a message that survives the broker's restart.
const PERSISTENT: u8 = 2;

/// Takes the lock. The connection holds it from now on; the channel is free for questions.
pub(super) async fn acquire(
    wire: &Wire,
    names: &Names,
    may_declare: bool,
) -> Result<Channel, Trouble> {
    let needed = needed(names);
    // What is there already takes no right to configure.
    match declare::require(wire, &needed).await {
        Err(Trouble::Topology(_)) if may_declare => declare::declare(wire, &needed).await?,
        there => there?,
    }
    let channel = open_channel(&wire.connection).await?;
    let told = |error: lapin::Error| Trouble::of_session(&error);
    let taken = match publish_token(&channel, names).await.map_err(told)? {
        Confirmation::Ack(Some(_)) => Err(Trouble::Topology(vec![unbound(&needed)])),
        Confirmation::Nack(_) => Err(Trouble::Reviewed),
        _ if take_token(&channel, names).await.map_err(told)? => Ok(()),
        _ => Err(Trouble::Reviewed),
    };
    if taken.is_err() {
        channel.close(200, "OK".into()).await.ok();
    }
    taken.map(|()| channel)
}

/// What of the topology the lock needs.
fn needed(names: &Names) -> Topology {
    let lock = names.review_lock.as_str();
    let mut topology = Topology::new(names, &TopologySettings::with_delays(&[]));
    topology.objects.retain(|object| match object {
        Object::Exchange { name, .. } => *name == names.internal,
        Object::Queue { name, .. } => name == lock,
        Object::Binding { queue, .. } => queue == lock,
    });
    topology
}

/// That the binding is missing, which only a message that returns shows.
fn unbound(needed: &Topology) -> Difference {
    let mut objects = needed.objects.iter();
    let binding = objects.find(|object| matches!(object, Object::Binding { .. }));
    Difference {
        object: binding.map(Object::to_string).unwrap_or_default(),
        what: What::Missing,
    }
}

async fn publish_token(channel: &Channel, names: &Names) -> lapin::Result<Confirmation> {
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish(
            names.internal.as_str().into(),
            names.review_lock.as_str().into(),
            options,
            b"",
            BasicProperties::default().with_delivery_mode(PERSISTENT),
        )
        .await?;
    confirm.await
}

/// `false` if somebody else has it.
async fn take_token(channel: &Channel, names: &Names) -> lapin::Result<bool> {
    channel
        .basic_qos(PREFETCH, BasicQosOptions { global: false })
        .await?;
    let mut tokens = channel
        .basic_consume(
            names.review_lock.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let Ok(first) = tokio::time::timeout(LOCK_TIMEOUT, tokens.next()).await else {
        return Ok(false);
    };
    let Some(first) = first else { return Ok(false) };
    first?;
    // Ends with the channel.
    tokio::spawn(async move {
        while let Some(Ok(spare)) = tokens.next().await {
            spare.ack(BasicAckOptions::default()).await.ok();
        }
    });
    Ok(true)
}
