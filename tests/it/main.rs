//! The integration tests, one binary: a real RabbitMQ, the sandbox for an API.

mod broker_link;
mod commands;
mod watching;
