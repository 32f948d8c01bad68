//! The worker's sessions: a supervisor that connects again and again, and what one session
//! consumes, acknowledges and publishes until it ends.

pub(super) mod consumers;
pub(super) mod event_loop;
pub(super) mod fetch;
pub(super) mod handshake;
pub(super) mod protocol;
pub(super) mod queue_consumer;
pub(super) mod reconnect_backoff;
pub(super) mod supervisor;
pub(super) mod undeliverable;
