//! The rules, each a pure function or a small state machine of its own. No rule knows the
//! scheduler that applies it.

// What a response means: the table.
pub mod verdict;
// When to try again, where to wait, when to give up.
pub mod retry;
// The holds of the worker and of an account: circuit breakers.
pub mod hold;
// How fast an account's calls may go.
pub mod rate_limit;
// Which message the broker refused, and what of it to publish instead.
pub mod republish;
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
