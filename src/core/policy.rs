//! Rules that decide for many requests at once.

// The holds of the worker and of an account: circuit breakers.
pub mod hold;
