//! Everything that knows lapin, and nothing else does: the link to the broker that survives its
//! end, deliveries that cost a proof to settle, publishes that tell their fate, the topology.
//!
//! It decides nothing about requests: what to publish and when to settle is the worker's business.

// What everything below may use: failures, messages as they were delivered, their encoding.
mod codec;
mod delivery;
mod error;

// Sub-rooms, each of which may see those before it.
mod transport;
pub mod topology;
mod publish;
mod session;
mod dead_letter_queue;

// Errands of one connection each.
mod event_subscriber;
mod one_shot;

pub use dead_letter_queue::{
    AckHandle, Acked, BrowseCursor, BrowsedMessage, DeadLetterQueue, DeliveryLimitCheck,
    DepthCheck, FsyncProof, Republisher, ReviewError,
};
pub use delivery::{Delivery, ReceivedMessage};
pub use error::{BrokerError, RetryClass, remedy};
pub use event_subscriber::EventSubscriber;
pub use one_shot::{
    RequestPublisher, compare_topology, count_dead_letters, declare_topology, remove_topology,
};
pub use publish::confirm::{AckPermit, PublishResult, PublisherConfirm};
pub use publish::message::{CopyTo, OutboundMessage, RequestMessage};
pub use publish::publisher::PublishId;
pub use publish::publishing::{BrokerAlarm, PublishWait};
pub use session::protocol::BrokerEvent;
pub use session::supervisor::{BrokerClient, BrokerHandle, LinkSettings};
pub use topology::management::ManagementTrouble;
pub use topology::model::advice;
pub use topology::policies::policy_differences;
pub use transport::connection::address;
pub use transport::frame_filter::StreamLimits;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
