//! What can be wrong with the broker, told so that an operator knows what to do, and how soon to
//! try again.
//!
//! No URL, username or password is ever part of it.

use std::fmt;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use super::topology::{Difference, What};

/// Why there is no live connection, or none that can be worked with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    #[error("cannot read the broker's settings: {0}")]
    Settings(String),
    #[error("cannot reach the broker: {0}")]
    Unreachable(String),
    #[error("the broker did not answer within {0} s")]
    Silent(u64),
    #[error("TLS with the broker failed: {0}")]
    Tls(String),
    #[error("the broker refuses us: {0}")]
    Refused(String),
    #[error("the topology does not fit: {}{}", Listed(.0), remedy(.0))]
    Topology(Vec<Difference>),
    #[error("somebody else is reviewing the dead letters: wait until they are done")]
    Reviewed,
    #[error("the broker cancelled our consumer: its queue is gone or has lost its leader")]
    ConsumerCancelled,
    #[error(
        "a request was returned several times and may be what ends the worker: requests are taken \
         one at a time until it has an outcome"
    )]
    MetSuspect,
    #[error("the broker closed a channel: {0}")]
    ChannelClosed(String),
    #[error("the connection ended: {0}")]
    ConnectionEnded(String),
}

/// How soon another try makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It may be over any moment: a restart, a lost network.
    Quick,
    /// A person has to change something first.
    Slow,
}

impl Trouble {
    #[must_use]
    pub const fn pace(&self) -> Pace {
        match self {
            Self::Unreachable(_)
            | Self::Silent(_)
            | Self::MetSuspect
            | Self::ConnectionEnded(_) => Pace::Quick,
            Self::Settings(_)
            | Self::Tls(_)
            | Self::Refused(_)
            | Self::Topology(_)
            | Self::Reviewed
            | Self::ConsumerCancelled
            | Self::ChannelClosed(_) => Pace::Slow,
        }
    }

    /// Whether the broker was not reached at all, as opposed to reached and at odds with us.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Silent(_) | Self::Tls(_))
    }

    /// What an error says that came while connecting.
    pub(super) fn of_connecting(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::IOError(io) if is_tls(io) => Self::Tls(io.to_string()),
            ErrorKind::IOError(io) => Self::Unreachable(io.to_string()),
            ErrorKind::ProtocolError(amqp) => match amqp.kind() {
                // A broker that boots or shuts down says these; both pass.
                AMQPErrorKind::Hard(
                    AMQPHardError::CONNECTIONFORCED | AMQPHardError::INTERNALERROR,
                ) => Self::ConnectionEnded(amqp.get_message().to_string()),
                _ => Self::Refused(without_user(amqp.get_message().as_str())),
            },
            _ => Self::Unreachable(error.to_string()),
        }
    }

    /// What an error says that came on a living connection.
    pub(super) fn of_session(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(amqp) => {
                let told = without_user(amqp.get_message().as_str());
                match amqp.kind() {
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Self::Refused(told),
                    AMQPErrorKind::Soft(_) => Self::ChannelClosed(told),
                    AMQPErrorKind::Hard(_) => Self::ConnectionEnded(told),
                }
            }
            _ => Self::ConnectionEnded(error.to_string()),
        }
    }
}

/// lapin gives no reason where the broker closed the connection with a code that is no error.
pub(super) fn ended_silently() -> Trouble {
    Trouble::ConnectionEnded("it was closed without a reason".to_owned())
}

/// rustls's errors come wrapped in an I/O error; what they are about is not the network.
fn is_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

/// `… access to vhost '/x' refused for user 'bob'` without the last part: usernames stay out of logs.
fn without_user(text: &str) -> String {
    match text.find(" for user '") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

/// What to do about a queue or exchange that was made otherwise; empty where that is not the matter.
#[must_use]
pub fn remedy(differences: &[Difference]) -> &'static str {
    let is_argument = |difference: &Difference| matches!(difference.what, What::Argument { .. });
    if differences.iter().any(is_argument) {
        "; what exists cannot be changed, it has to be made again: docs/upgrading.md says how, with \
         all that is in it"
    } else {
        ""
    }
}

struct Listed<'a>(&'a [Difference]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, difference) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{difference}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_arguments_are_reported_with_what_to_do_about_them() {
        let differs = Difference {
            object: "queue rename.requests".to_owned(),
            what: What::Argument {
                argument: "x-dead-letter-exchange".to_owned(),
                wanted: "'rename.internal'".to_owned(),
                found: "'rename.dead-letters'".to_owned(),
            },
        };
        assert_eq!(
            Trouble::Topology(vec![differs]).to_string(),
            "the topology does not fit: queue rename.requests has x-dead-letter-exchange \
             'rename.dead-letters' where 'rename.internal' is wanted; what exists cannot be changed, \
             it has to be made again: docs/upgrading.md says how, with all that is in it"
        );
    }

    #[test]
    fn what_is_missing_needs_no_upgrade() {
        let missing = Difference {
            object: "queue rename.due".to_owned(),
            what: What::Missing,
        };
        assert_eq!(
            Trouble::Topology(vec![missing]).to_string(),
            "the topology does not fit: queue rename.due is missing"
        );
    }

    #[test]
    fn a_refusal_is_told_without_the_user() {
        let told = without_user(
            "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'bob'",
        );
        assert_eq!(
            told,
            "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused"
        );
    }
}
