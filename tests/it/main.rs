//! The integration tests, one binary: a real RabbitMQ, the sandbox for an API.

mod broker_finder;
mod broker_link;
mod commands;
mod house;
mod support;
mod watching;
