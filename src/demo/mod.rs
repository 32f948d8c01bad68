//! The stage: a throw-away RabbitMQ for whoever wants to see or test the worker.
//!
//! Nothing here is needed in production, and nothing in production may lean on it.

pub mod broker;
