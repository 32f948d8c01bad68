//! What can be wrong with the broker, told so that an operator knows what to do, and how soon to
//! try again.
//!
//! No URL, username or password is ever part of it.

use std::fmt;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use super::topology::model::{DifferenceKind, TopologyDifference, advice};
use super::topology::refusal::{ExplainedRefusal, TOO_FEW_CHANNELS};

/// Why there is no live connection, or none that can be worked with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    #[error("cannot use the broker's settings: {0}")]
    Settings(String),
    #[error("cannot reach the broker: {0}")]
    Unreachable(String),
    #[error("the broker did not answer within {0} s")]
    Silent(u64),
    #[error("TLS with the broker failed: {0}")]
    Tls(String),
    #[error("the broker refused access: {}", ExplainedRefusal(.0))]
    Refused(String),
    #[error("the topology does not fit: {}{}", DifferenceList(.0), remedy(.0))]
    Topology(Vec<TopologyDifference>),
    #[error("somebody else is reviewing the dead letters: wait until they are done")]
    Reviewed,
    #[error("the broker has raised a memory or disk alarm and accepts no messages")]
    Alarmed,
    #[error("the broker cancelled our consumer: its queue is gone or has lost its leader")]
    ConsumerCancelled,
    #[error(
        "a request was returned several times and may be what ends the worker: requests are taken \
         one at a time until it has an outcome"
    )]
    MetSuspect,
    #[error("a message has a body of {0} bytes, more than the worker reads")]
    TooLarge(u64),
    #[error("the broker closed a channel: {0}")]
    ChannelClosed(String),
    #[error("the connection ended: {0}")]
    ConnectionEnded(String),
}

/// How soon another try makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// It may be over any moment: a restart, a lost network.
    Quick,
    /// A person has to change something first.
    Slow,
}

impl BrokerError {
    #[must_use]
    pub const fn pace(&self) -> RetryClass {
        match self {
            Self::Unreachable(_)
            | Self::Silent(_)
            | Self::MetSuspect
            | Self::ConnectionEnded(_) => RetryClass::Quick,
            Self::Settings(_)
            | Self::Tls(_)
            | Self::Refused(_)
            | Self::Topology(_)
            | Self::Reviewed
            | Self::Alarmed
            | Self::ConsumerCancelled
            | Self::TooLarge(_)
            | Self::ChannelClosed(_) => RetryClass::Slow,
        }
    }

    /// Whether a person has to change something before it can end.
    #[must_use]
    pub const fn needs_action(&self) -> bool {
        matches!(self.pace(), RetryClass::Slow)
    }

    /// Whether the broker was not reached at all, as opposed to reached and at odds with us.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Silent(_) | Self::Tls(_))
    }

    /// What an error says that came while connecting.
    pub(super) fn from_connect(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::IOError(io) if is_tls(io) => Self::Tls(io.to_string()),
            ErrorKind::IOError(io) => Self::Unreachable(io.to_string()),
            ErrorKind::ProtocolError(amqp) => match amqp.kind() {
                // A broker that boots or shuts down says these; both pass.
                AMQPErrorKind::Hard(
                    AMQPHardError::CONNECTIONFORCED | AMQPHardError::INTERNALERROR,
                ) => Self::ConnectionEnded(without_user(amqp.get_message().as_str())),
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
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                    | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => Self::Refused(told),
                    AMQPErrorKind::Soft(_) => Self::ChannelClosed(told),
                    AMQPErrorKind::Hard(_) => Self::ConnectionEnded(told),
                }
            }
            ErrorKind::ChannelsLimitReached => Self::Refused(TOO_FEW_CHANNELS.to_owned()),
            _ => Self::ConnectionEnded(error.to_string()),
        }
    }
}

/// lapin gives no reason where the broker closed the connection with a code that is no error.
pub(super) fn closed_without_reason() -> BrokerError {
    BrokerError::ConnectionEnded("it was closed without a reason".to_owned())
}

/// rustls's errors come wrapped in an I/O error; what they are about is not the network.
fn is_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

/// The broker's text without the name of the user it is about, which stays out of logs:
/// `access to vhost '/' refused for user 'bob': connection limit (8) is reached` keeps the limit.
///
/// RabbitMQ writes `user '…'`, with the name as it is, quotes and all; and of a wrong `user_id`
/// `user_id property set to '…' but authenticated user was '…'`. What follows a name is kept only
/// where it is one of the ends that RabbitMQ writes.
pub(super) fn without_user(text: &str) -> String {
    let (text, user_id) = match text.find(USER_ID) {
        Some(at) => (
            &text[..at],
            "user_id property is not the authenticated user's name",
        ),
        None => (text, ""),
    };
    let Some((before, rest)) = text.split_once("user '") else {
        return format!("{text}{user_id}");
    };
    let kept = AFTER_USER.iter().filter_map(|after| rest.find(after)).min();
    let after = kept.map_or("", |at| &rest[at + 1..]);
    let before = before.trim_end();
    let before = before.strip_suffix(" for").unwrap_or(before);
    match after {
        "" => format!("{before}{user_id}"),
        after => format!("{before}{after}{user_id}"),
    }
}

/// Begins what RabbitMQ says of a message whose `user_id` is another user's.
const USER_ID: &str = "user_id property set to";
/// What RabbitMQ writes behind a user's name, with the quote that ends it.
const AFTER_USER: [&str; 3] = [
    "': user connection limit",
    "': connection limit",
    "' has reached the maximum allowed",
];

/// What to do about a queue or exchange that was made otherwise; empty where that is not the matter.
#[must_use]
pub fn remedy(differences: &[TopologyDifference]) -> &'static str {
    let is_argument = |difference: &TopologyDifference| {
        matches!(difference.what, DifferenceKind::Argument { .. })
    };
    if differences.iter().any(is_argument) {
        "; what exists cannot be changed, it has to be made again: docs/upgrading.md says how, with \
         all that is in it"
    } else {
        ""
    }
}

struct DifferenceList<'a>(&'a [TopologyDifference]);

impl fmt::Display for DifferenceList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, difference) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{difference}")?;
        }
        if let Some(advice) = advice(self.0) {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_arguments_are_reported_with_what_to_do_about_them() {
        let differs = TopologyDifference {
            object: "queue rename.requests".to_owned(),
            what: DifferenceKind::Argument {
                argument: "x-dead-letter-exchange".to_owned(),
                wanted: "'rename.internal'".to_owned(),
                found: "'rename.dead-letters'".to_owned(),
            },
        };
        assert_eq!(
            BrokerError::Topology(vec![differs]).to_string(),
            "the topology does not fit: queue rename.requests has x-dead-letter-exchange \
             'rename.dead-letters' where 'rename.internal' is wanted; what exists cannot be changed, \
             it has to be made again: docs/upgrading.md says how, with all that is in it"
        );
    }

    #[test]
    fn what_is_missing_needs_no_upgrade() {
        let missing = TopologyDifference {
            object: "queue rename.due".to_owned(),
            what: DifferenceKind::Missing,
        };
        assert_eq!(
            BrokerError::Topology(vec![missing]).to_string(),
            "the topology does not fit: queue rename.due is missing"
        );
    }

    #[test]
    fn a_refusal_is_told_without_the_user() {
        for (text, kept) in [
            (
                "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'bob'",
                "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused",
            ),
            (
                "NOT_ALLOWED - access to vhost '/' refused for user 'bob': connection limit (0) is reached",
                "NOT_ALLOWED - access to vhost '/' refused: connection limit (0) is reached",
            ),
            (
                "NOT_ALLOWED - Connection refused for user 'bo'b': user connection limit (2) is reached",
                "NOT_ALLOWED - Connection refused: user connection limit (2) is reached",
            ),
            (
                "NOT_ALLOWED - number of channels opened for user 'bob' has reached the maximum allowed user limit of (1)",
                "NOT_ALLOWED - number of channels opened has reached the maximum allowed user limit of (1)",
            ),
            (
                "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'eve'",
                "PRECONDITION_FAILED - user_id property is not the authenticated user's name",
            ),
            (
                "ACCESS_REFUSED - user 'bob' is not wanted",
                "ACCESS_REFUSED -",
            ),
            (
                "NOT_FOUND - no queue 'q' in vhost '/'",
                "NOT_FOUND - no queue 'q' in vhost '/'",
            ),
        ] {
            assert_eq!(without_user(text), kept);
        }
    }
}
