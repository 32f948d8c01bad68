//! rename-worker, room by room, in reading order. No logic lives here.
//!
//! Dependencies point one way: `main → cli → app → worker → {broker, dintero, telemetry} → wire →
//! core`. The test `tests/it/house.rs` reads the `use` lines and fails when one points back.

// The commands: one file each; they print and decide nothing.
pub mod cli;
// The worker's life: configure, connect, run, drain.
pub mod app;
// The shell's one loop: an input goes into the core, its effects are performed.
pub mod worker;
// Decisions: what an answer means, when to try again, who waits for whom. Pure: no clock, no I/O.
pub mod core;
// The shapes that leave and enter the process: requests, events, headers, their JSON Schemas.
pub mod messages;
// Everything that knows lapin: connection, topology, consumer, publisher.
pub mod broker;
// Everything that knows reqwest: the API client, its tokens, its paths.
pub mod dintero;
// Settings: one struct a section, every mistake collected, secrets never printed.
pub mod config;
// Every metric, every log event, the set-up of tracing.
pub mod telemetry;
// The admin endpoints: `/livez`, `/readyz`, `/metrics`, `/status`.
pub mod admin;
// Requests into the queue: filled in, checked, confirmed.
pub mod publish;
// Review of dead letters: the queue as a list, the audit, replay and discard.
pub mod dead_letters;
// The stand-in for Dintero, for demos and tests only.
pub mod sandbox;
// The demo's stage: a throw-away broker found or started, and the story told on it.
pub mod demo;
// The one place that asks for the time and for chance.
pub mod clock;
