//! The integration tests, one binary: a real RabbitMQ, the sandbox for an API.

mod admin_port;
mod bad_bytes;
mod bad_input;
mod alarms;
mod broker_bench;
mod broker_finder;
mod broker_letters;
mod broker_life;
mod broker_link;
mod broker_silence;
mod check_and_run;
mod cluster;
mod commands;
mod dashboard_data;
mod dead_letters;
mod demo;
mod faults;
mod fuzz;
mod house;
mod large_messages;
mod leaks;
mod log_output;
mod proxies;
mod publish;
mod refusals;
mod refused_properties;
mod sandbox_command;
mod secrets;
mod simulation;
mod stages;
mod support;
#[cfg(feature = "otlp")]
mod traces;
mod verdicts;
mod waiting;
mod watching;
