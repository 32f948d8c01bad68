//! Everything that knows lapin, and nothing else does: the link to the broker that survives its
//! end, deliveries that cost a proof to settle, publishes that tell their fate, the topology.
//!
//! It decides nothing about requests: what to publish and when to settle is the worker's business.

mod audience;
mod connection;
mod consumers;
mod content_header;
mod convert;
mod declare;
mod delivery;
mod ear;
mod fetch;
mod fit;
mod flow;
mod frame_filter;
mod greeting;
mod intake;
mod link;
mod management;
mod mend;
mod opening;
mod outgoing;
mod patience;
mod pipe;
mod policies;
mod proof;
mod publisher;
mod publishing;
mod reach;
mod refusal;
mod review;
mod runtime;
mod session;
mod single;
pub mod topology;
mod trouble;
mod undeliverable;

pub use audience::EventSubscriber;
pub use connection::address;
pub use delivery::{Delivery, ReceivedMessage};
pub use frame_filter::StreamLimits;
pub use link::{BrokerClient, BrokerEvent, BrokerHandle, LinkSettings};
pub use management::ManagementTrouble;
pub use outgoing::{CopyTo, OutboundMessage, RequestMessage};
pub use policies::policy_differences;
pub use proof::{AckPermit, PublishResult, PublisherConfirm};
pub use publisher::PublishId;
pub use publishing::{BrokerAlarm, PublishWait};
pub use refusal::advice;
pub use review::{
    AckHandle, Acked, BrowseCursor, BrowsedMessage, DeadLetterQueue, DeliveryLimitCheck,
    DepthCheck, FsyncProof, Republisher, ReviewError,
};
pub use single::{
    RequestPublisher, compare_topology, count_dead_letters, declare_topology, remove_topology,
};
pub use trouble::{BrokerError, RetryClass, remedy};

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
