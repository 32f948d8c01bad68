//! Promise 8: an account in trouble delays no request of another account by more than a call's time.
//! Against the real worker process, a real RabbitMQ and the sandbox.
//!
//! Each case has a short form, which is part of `cargo test`, and a long form with the numbers that the
//! promise was made with: `cargo test --test it neighbours:: -- --ignored --nocapture` runs those, one at a
//! time, in some ten minutes, and prints what it measured.
//!
//! Every case prints its figures and removes its queues before it asserts, so that a failure leaves
//! nothing on the broker.

mod bound;
mod credentials;
mod cut;
mod fixture;
mod flood;
mod outcomes;
mod popular;
mod probes;
mod process;
mod sick;
mod spelling;
