//! Why RabbitMQ moved a request to `rename.undeliverable`, and how it ends there.

use super::verdict::ProvisionalFailure;
use crate::core::model::outcome::Reason;

/// Why RabbitMQ moved a message away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemovalCause {
    /// It was delivered too often without an end.
    DeliveryLimit,
    /// A time to live, the message's own or a policy's, passed.
    Expired,
    /// The queue was longer than a policy allows.
    Maxlen,
    /// A consumer rejected it; the worker does so with bodies that are too large to take.
    Rejected,
}

impl RemovalCause {
    pub const ALL: [Self; 4] = [
        Self::DeliveryLimit,
        Self::Expired,
        Self::Maxlen,
        Self::Rejected,
    ];

    /// RabbitMQ's own word for it, and the metric's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeliveryLimit => "delivery_limit",
            Self::Expired => "expired",
            Self::Maxlen => "maxlen",
            Self::Rejected => "rejected",
        }
    }

    /// What the broker's record says; a word of a later RabbitMQ, or none, counts as rejected.
    #[must_use]
    pub fn from_broker(reason: Option<&str>) -> Self {
        Self::ALL
            .into_iter()
            .find(|cause| Some(cause.as_str()) == reason)
            .unwrap_or(Self::Rejected)
    }

    /// How a request ends that was moved away for this, unless an earlier try took effect.
    pub(in crate::core) fn failure(self) -> ProvisionalFailure {
        let (reason, detail) = match self {
            Self::DeliveryLimit => (
                Reason::Poison,
                "delivered again and again without an end, up to the queue's delivery limit; it may \
                 be what stops the worker or ends its connection",
            ),
            Self::Expired => (
                Reason::DeadlineExceeded,
                "its time to live (the property expiration, or a policy's message-ttl) passed before \
                 it was processed",
            ),
            Self::Maxlen => (
                Reason::Rejected,
                "RabbitMQ removed it because its queue was longer than a policy allows (max-length)",
            ),
            Self::Rejected => (
                Reason::Rejected,
                "a consumer rejected it before it was processed",
            ),
        };
        ProvisionalFailure {
            reason,
            http_status: None,
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_read_back_and_an_unknown_one_is_a_rejection() {
        for cause in RemovalCause::ALL {
            assert_eq!(RemovalCause::from_broker(Some(cause.as_str())), cause);
        }
        for unknown in [None, Some("shovelled")] {
            assert_eq!(RemovalCause::from_broker(unknown), RemovalCause::Rejected);
        }
    }
}
