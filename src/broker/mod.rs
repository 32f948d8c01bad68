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

pub use audience::Audience;
pub use connection::address;
pub use delivery::{Delivery, Received};
pub use frame_filter::StreamLimits;
pub use link::{BrokerEvent, Link, LinkHandle, LinkSettings};
pub use management::ManagementTrouble;
pub use outgoing::{CopyTo, Outgoing, Request};
pub use policies::policy_differences;
pub use proof::{Confirmed, Publication, Settled};
pub use publisher::Ticket;
pub use publishing::{Alarm, Waiting};
pub use refusal::advice;
pub use review::{
    Back, Claim, Held, Look, QueueTrust, Recorded, Review, ReviewTrouble, Sender, Taken,
};
pub use single::{
    RequestPublisher, compare_topology, count_dead_letters, declare_topology, remove_topology,
};
pub use trouble::{Pace, Trouble, remedy};

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
