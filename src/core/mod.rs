//! Decisions, and nothing else: no tokio, lapin, reqwest, clock, randomness or logging.
//!
//! Time comes in as [`jiff::Timestamp`] arguments and randomness as a number from 0 to 1, so a
//! simulation with a virtual clock drives exactly what runs in production. In reading order:

// A rename request, valid once constructed.
pub mod request;
// When a request was asked for, where what its publisher says of that can be true.
pub mod request_time;
// What the API said to one call, as facts.
pub mod answer;
// How a request ends, and what travels with it until then.
pub mod outcome;
// When two spellings are one name.
pub mod names;
// What an answer means: the table.
pub mod verdict;
// When to try again, where to wait, when to give up.
pub mod retry;
// Rules that decide for many requests at once: the holds.
pub mod policy;
// Whose turn it is among accounts.
pub mod fair_queue;
// What is known of each account: its hold, how long its tries take.
pub mod accounts;
// How long the turn of a request is away.
pub mod turn_estimate;
// Who must wait for whom.
pub mod order;
// How fast an account's calls may go.
pub mod pace;
// Which message the broker refused, and what of it to publish instead.
pub mod republish;
// Outcomes worth remembering.
pub mod recent;
// How many requests a session may take at a time.
pub mod consume_window;
// Which queues a session consumes, and in which order.
pub mod consume_plan;
// Why RabbitMQ moved a request away, and how it ends then.
pub mod removal;
// Which policies of RabbitMQ change what the queues promise.
pub mod queue_policy;
// Which log lines of a standing fault are due.
pub mod fault_log;
// All of the above but the log's in one state machine: an input goes in, effects come out.
pub mod machine;
