//! The exchanges and queues the worker needs: what they must be, declaring them, and comparing them
//! with what is there.

pub(super) mod declare;
pub(super) mod management;
pub mod model;
pub(super) mod policies;
pub(super) mod refusal;
