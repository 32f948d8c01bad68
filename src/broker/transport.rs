//! A connection to RabbitMQ whose incoming bytes lapin can always read: TCP, the stream that
//! sanitizes frames, lapin's runtime over it. Knows no queue.

pub(super) mod connection;
pub(super) mod content_header;
pub(super) mod flow;
pub(super) mod frame_filter;
pub(super) mod frame_sanitizer;
pub(super) mod happy_eyeballs;
pub(super) mod lapin_runtime;
pub(super) mod sanitizing_stream;
pub(super) mod server_properties;
