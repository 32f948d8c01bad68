//! What the worker, the supervisor and a session send each other, and what every session is made
//! with.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::delivery::Delivery;
use crate::broker::error::BrokerError;
use crate::broker::publish::confirm::PublishResult;
use crate::broker::publish::message::{OutboundMessage, PublishRouting};
use crate::broker::publish::publisher::PublishId;
use crate::broker::topology::model::{QueueNames, Topology};
use crate::broker::transport::frame_filter::StreamLimits;
use crate::config::AmqpSection;
use crate::core::policy::consume_plan::{ConsumeScope, SourceQueue};

/// Everything that can happen on the broker's side.
#[derive(Debug)]
pub enum BrokerEvent {
    /// A session is open: topology in place, channels open, not consuming yet.
    Up {
        epoch: u64,
    },
    /// The session is over: every delivery of it is void, and every publish has been answered.
    Down {
        epoch: u64,
        why: BrokerError,
    },
    /// A try to connect failed; the next one comes after a while.
    Failed {
        /// Tries since the last good session.
        tries: u32,
        why: BrokerError,
        again_in: Duration,
    },
    /// The broker has a memory or disk alarm and takes nothing (`true`), or takes again. A new
    /// session begins unblocked.
    Blocked(bool),
    Delivered(Delivery),
    /// A message in `rename.undeliverable` ends each connection that it is delivered on.
    Unreadable {
        why: BrokerError,
    },
    /// The answer to a publish; answers come in any order.
    Published {
        ticket: PublishId,
        result: PublishResult,
    },
    /// The acks handed over before [`BrokerHandle::flush`](crate::broker::BrokerHandle::flush) have reached the broker.
    Flushed {
        ticket: PublishId,
    },
    /// [`BrokerHandle::fetch`](crate::broker::BrokerHandle::fetch) is over: this number of messages was found.
    Fetched {
        epoch: u64,
        found: u32,
    },
    /// After [`BrokerHandle::consume`](crate::broker::BrokerHandle::consume): what was due has been taken, and new requests are from now on.
    TakesNew {
        epoch: u64,
    },
    /// After [`BrokerHandle::stop_consuming`](crate::broker::BrokerHandle::stop_consuming): no further delivery comes.
    Stopped {
        epoch: u64,
    },
}

pub(in crate::broker) enum SessionCommand {
    Consume {
        epoch: u64,
        scope: ConsumeScope,
    },
    Stop {
        epoch: u64,
    },
    Fetch {
        epoch: u64,
        queue: SourceQueue,
        most: u16,
    },
    Publish {
        ticket: PublishId,
        outgoing: Box<OutboundMessage>,
    },
    Flush {
        epoch: u64,
        ticket: PublishId,
    },
    Close,
}

/// What every session needs, made once.
pub(in crate::broker) struct SessionConfig {
    pub(in crate::broker) amqp: AmqpSection,
    pub(in crate::broker) names: QueueNames,
    pub(in crate::broker) topology: Topology,
    pub(in crate::broker) addresses: Arc<PublishRouting>,
    pub(in crate::broker) prefetch: u16,
    pub(in crate::broker) connection_name: String,
    pub(in crate::broker) limits: StreamLimits,
}
