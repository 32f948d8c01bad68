//! The integration tests, one binary: a real RabbitMQ, the sandbox for an API.

mod bad_bytes;
mod bad_input;
mod broker_bench;
mod broker_finder;
mod broker_letters;
mod broker_life;
mod broker_link;
mod broker_silence;
mod cluster;
mod commands;
mod dashboard_data;
mod dead_letters;
mod demo;
mod faults;
mod house;
mod leaks;
mod policies;
mod publish;
mod refusals;
mod rights;
mod sandbox_command;
mod simulation;
mod stages;
mod support;
#[cfg(feature = "otlp")]
mod traces;
mod verdicts;
mod waiting;
mod watching;
