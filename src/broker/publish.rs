//! Publishing with confirms: messages, their headers within a frame, and the broker's answers.

pub(super) mod confirm;
pub(super) mod confirmed_publisher;
pub(super) mod header_budget;
pub(super) mod message;
pub(super) mod publisher;
pub(super) mod publishing;
