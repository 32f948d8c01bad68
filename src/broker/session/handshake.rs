//! From nothing to what a session begins with: a connection, the topology, two channels, and the
//! broker's word that it takes messages. No retry: `link` does that.
//!
//! # A connection that never answers
//!
//! A proxy or load balancer takes a connection while the broker behind it is away, and may never
//! let go of it, nor answer when the broker is back; a network may forget one half-way. To wait for
//! it would keep the worker away from a broker that is well, and to give up soon would never get
//! through to a broker that is slow. So while nothing is heard on the first try it goes on, with all
//! the patience, and beside it there are younger ones, each given up once it falls silent.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::{Channel, Event};
use tokio::time::{Instant, sleep, timeout};

use super::protocol::SessionConfig;
use crate::broker::error::{BrokerError, closed_without_reason};
use crate::broker::publish::publisher::SessionPublisher;
use crate::broker::topology::declare;
use crate::broker::topology::declare::open_channel;
use crate::broker::transport::connection;
use crate::broker::transport::connection::AmqpConnection;
use crate::broker::transport::sanitizing_stream::ReadActivity;

/// After so long without a word from the broker another try begins. A broker that is well is
/// connected to and declared at in less.
const HEDGE_DELAY: Duration = Duration::from_millis(300);
/// So many younger tries at a time,
const MAX_HEDGED_ATTEMPTS: usize = 3;
/// and after so many silences one of them is given up.
const HEDGES_BEFORE_ABANDON: u32 = 5;
/// Declaring, opening channels and the first confirm, at most. Leaders of quorum queues are elected
/// within seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a session begins with.
pub(in crate::broker) struct OpenSession {
    pub(in crate::broker) consuming: Channel,
    pub(in crate::broker) publisher: SessionPublisher,
    /// The broker has an alarm and takes no messages now.
    pub(in crate::broker) blocked: bool,
    /// When the broker showed that it takes messages, or that it does not.
    pub(in crate::broker) told_at: Instant,
}

/// Connects and makes ready.
pub(in crate::broker) async fn connect(
    plan: &SessionConfig,
) -> Result<(AmqpConnection, OpenSession), BrokerError> {
    let mut pulses = vec![ReadActivity::default()];
    let mut elder = Box::pin(attempt(plan, pulses[0].clone()));
    let mut younger = FuturesUnordered::new();
    let mut heard = 0;
    loop {
        tokio::select! {
            done = &mut elder => return done,
            // `None` is one that was given up.
            Some(Some(done)) = younger.next() => return done,
            () = sleep(HEDGE_DELAY) => {
                let now: u64 = pulses.iter().map(ReadActivity::count).sum();
                if now == heard && younger.len() < MAX_HEDGED_ATTEMPTS {
                    let pulse = ReadActivity::default();
                    pulses.push(pulse.clone());
                    younger.push(while_active(pulse.clone(), Box::pin(attempt(plan, pulse))));
                }
                heard = now;
            }
        }
    }
}

/// `None` if the pulse is not felt any more before `trying` is done.
async fn while_active<T>(
    pulse: ReadActivity,
    mut trying: impl Future<Output = T> + Unpin,
) -> Option<T> {
    let (mut felt, mut silences) = (0, 0);
    while silences < HEDGES_BEFORE_ABANDON {
        tokio::select! {
            done = &mut trying => return Some(done),
            () = sleep(HEDGE_DELAY) => {
                silences = if pulse.count() == felt { silences + 1 } else { 0 };
                felt = pulse.count();
            }
        }
    }
    None
}

/// One try. Dropped before its end, it leaves nothing behind.
async fn attempt(
    plan: &SessionConfig,
    pulse: ReadActivity,
) -> Result<(AmqpConnection, OpenSession), BrokerError> {
    let name = &plan.connection_name;
    let mut wire = connection::open_limited(&plan.amqp, name, plan.limits, pulse).await?;
    let unless_done = wire.cut_on_drop();
    match ready(&mut wire, plan).await {
        Ok(ready) => {
            unless_done.disarm();
            Ok((wire, ready))
        }
        Err(BrokerError::Silent(seconds)) => Err(BrokerError::Silent(seconds)),
        Err(trouble) => {
            wire.close().await;
            Err(trouble)
        }
    }
}

/// Makes ready for a session on a connection that is there.
pub(in crate::broker) async fn ready(
    wire: &mut AmqpConnection,
    plan: &SessionConfig,
) -> Result<OpenSession, BrokerError> {
    let silent = |_| BrokerError::Silent(READY_TIMEOUT.as_secs());
    timeout(READY_TIMEOUT, make_ready(wire, plan))
        .await
        .map_err(silent)
        .flatten()
}

async fn make_ready(
    wire: &mut AmqpConnection,
    plan: &SessionConfig,
) -> Result<OpenSession, BrokerError> {
    if plan.amqp.declare_topology {
        declare::declare(wire, &plan.topology).await?;
    } else {
        declare::declare_and_verify(wire, &plan.topology).await?;
    }
    let consuming = open_channel(&wire.connection).await?;
    let mut publisher = SessionPublisher::open(&wire.connection, plan.addresses.clone()).await?;
    let blocked = publish_flow_canary(wire, &mut publisher).await?;
    Ok(OpenSession {
        consuming,
        publisher,
        blocked,
        told_at: Instant::now(),
    })
}

/// Finds out whether the broker takes messages: `true` if it does not. One that is in alarm (memory,
/// disk) tells a connection so only when that publishes. A worker that came up in an alarm would
/// call the API and find out afterwards that it cannot tell the outcome.
async fn publish_flow_canary(
    wire: &mut AmqpConnection,
    publisher: &mut SessionPublisher,
) -> Result<bool, BrokerError> {
    publisher.publish_canary();
    loop {
        tokio::select! {
            biased;
            event = wire.events.next() => match event {
                Some(Event::ConnectionBlocked(_)) => return Ok(true),
                Some(_) => {}
                None => return Err(closed_without_reason()),
            },
            told = publisher.next_batch() => {
                return match told.broken {
                    Some(trouble) => Err(trouble),
                    None => Ok(false),
                };
            }
        }
    }
}
