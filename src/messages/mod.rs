//! The shapes that enter and leave the process, and their way to and from the core's types.
//!
//! Requests come in, events go out, headers travel with both. Nothing here knows the broker or the
//! API, and no text made here holds a username, except the bodies that are there to carry one.

pub mod event;
pub mod headers;
pub mod message;
mod strict_object;
pub mod request;
pub mod schema;
pub mod timestamp;
pub mod visible;
