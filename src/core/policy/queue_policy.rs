//! Which policies of RabbitMQ change what the queues promise.
//!
//! A policy applies to queues by their names, whoever declared them, and changes them while they are
//! used. AMQP says nothing of it. Where a queue has an argument of its own, RabbitMQ takes the smaller
//! number of both; of `overflow` it takes the policy's; of the dead-letter keys the queue's own.

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueRole {
    Requests,
    Due,
    Wait,
    Undeliverable,
    DeadLetters,
    Discarded,
    ReviewLock,
}

/// A queue, with those of its own arguments that a policy may undercut.
#[derive(Debug, Clone, Copy)]
pub struct PolicedQueue {
    pub role: QueueRole,
    /// `x-message-ttl`, in milliseconds.
    pub message_ttl: Option<i64>,
    /// `x-delivery-limit`.
    pub delivery_limit: Option<i64>,
    /// Whether a negative delivery limit is none, as from RabbitMQ 4.0 on. Before, it drops a message
    /// the first time that it is returned.
    pub negative_limit_is_none: bool,
}

/// What a policy sets one key to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyValue<'a> {
    Number(i64),
    Text(&'a str),
    Other,
}

/// RabbitMQ's own `consumer_timeout`, in milliseconds: half an hour.
const USUAL_CONSUMER_TIMEOUT: i64 = 30 * 60 * 1_000;

/// What the queue does not keep any more of its promises under a policy that sets `key` so. `None`
/// where the policy changes none.
#[must_use]
pub fn changed_promise(
    queue: &PolicedQueue,
    key: &str,
    value: PolicyValue<'_>,
) -> Option<&'static str> {
    match (key, value) {
        ("max-length" | "max-length-bytes", _) => Some(when_full(queue.role)),
        ("overflow", value) => at_overflow(queue.role, value),
        ("message-ttl", PolicyValue::Number(ttl)) => at_expiry(queue, ttl),
        ("expires", _) => Some(when_deleted(queue.role)),
        ("delivery-limit", PolicyValue::Number(limit)) => at_delivery_limit(queue, limit),
        ("dead-letter-exchange", _) if queue.role == QueueRole::Discarded => {
            Some("discarded letters do not end when they expire: they reach another exchange")
        }
        ("consumer-timeout", PolicyValue::Number(millis)) if millis < USUAL_CONSUMER_TIMEOUT => {
            when_held_for_long(queue.role)
        }
        ("delayed-retry-type", value) if value != PolicyValue::Text("disabled") => {
            when_returned(queue.role)
        }
        _ => None,
    }
}

/// What an exchange does not do any more under a policy that sets `key`. `reports_unrouted` is
/// whether somebody relies on being told that no queue takes a message.
#[must_use]
pub fn changed_promise_of_exchange(reports_unrouted: bool, key: &str) -> Option<&'static str> {
    (key == "alternate-exchange" && reports_unrouted)
        .then_some("a message that no queue of ours takes counts as safe, and goes elsewhere")
}

const fn when_full(role: QueueRole) -> &'static str {
    match role {
        QueueRole::Requests => {
            "requests beyond it are refused, and lost where upstream does not wait for confirms"
        }
        QueueRole::Due => {
            "beyond it nothing can be given back or replayed, and what has waited does not return"
        }
        QueueRole::Wait => "beyond it no request can wait for its next attempt",
        QueueRole::Undeliverable => {
            "beyond it what RabbitMQ moves away stays in its queue, and gets no outcome"
        }
        QueueRole::DeadLetters => "beyond it no request can fail: it stays without an outcome",
        QueueRole::Discarded => "beyond it discarded letters are dropped before their time",
        QueueRole::ReviewLock => NO_REVIEW,
    }
}

const NO_REVIEW: &str = "the token of a review may be dropped, so that no review can begin";

const fn at_overflow(role: QueueRole, value: PolicyValue<'_>) -> Option<&'static str> {
    if let PolicyValue::Text(text) = value
        && matches!(text.as_bytes(), b"reject-publish")
    {
        return None;
    }
    match role {
        QueueRole::Requests | QueueRole::Due | QueueRole::Wait => Some(
            "what it moves on may be lost, since RabbitMQ does that at least once only with \
             reject-publish; beyond a length limit its oldest requests are dropped",
        ),
        QueueRole::Undeliverable | QueueRole::DeadLetters => {
            Some("beyond a length limit the oldest letters are dropped instead of new ones refused")
        }
        // It is what they have anyway.
        QueueRole::Discarded | QueueRole::ReviewLock => None,
    }
}

fn at_expiry(queue: &PolicedQueue, ttl: i64) -> Option<&'static str> {
    if queue.message_ttl.is_some_and(|own| own <= ttl) {
        return None;
    }
    Some(match queue.role {
        QueueRole::Requests | QueueRole::Due => {
            "requests that have waited for so long fail without an attempt"
        }
        QueueRole::Wait => "requests are tried again sooner than retry.ladder says",
        QueueRole::Undeliverable => "what nobody has read by then is lost without an outcome",
        QueueRole::DeadLetters => "letters that nobody has reviewed by then are lost",
        QueueRole::Discarded => {
            "discarded letters are kept for less long than dead_letters.keep_discarded says"
        }
        QueueRole::ReviewLock => NO_REVIEW,
    })
}

const fn when_deleted(role: QueueRole) -> &'static str {
    match role {
        QueueRole::Requests | QueueRole::Due | QueueRole::Undeliverable => {
            "the queue is deleted with all that is in it while no worker consumes"
        }
        QueueRole::Wait | QueueRole::Discarded => {
            "the queue is deleted with all that is in it, since nobody ever consumes from it"
        }
        QueueRole::DeadLetters | QueueRole::ReviewLock => {
            "the queue is deleted with all that is in it while nobody reviews"
        }
    }
}

fn at_delivery_limit(queue: &PolicedQueue, limit: i64) -> Option<&'static str> {
    // Nobody consumes what waits, and of a review's tokens there is always another.
    if matches!(queue.role, QueueRole::Wait | QueueRole::ReviewLock) {
        return None;
    }
    if limit < 0 {
        return (!queue.negative_limit_is_none)
            .then_some("a message is dropped the first time that it is returned");
    }
    if queue
        .delivery_limit
        .is_some_and(|own| (0..=limit).contains(&own))
    {
        return None;
    }
    Some(match queue.role {
        QueueRole::Requests | QueueRole::Due => {
            "RabbitMQ moves a request away before the worker ends it as poison"
        }
        QueueRole::Undeliverable => "a message that ends the worker so often is lost",
        _ => "letters that are looked at more often are lost",
    })
}

const fn when_held_for_long(role: QueueRole) -> Option<&'static str> {
    match role {
        QueueRole::Requests | QueueRole::Due | QueueRole::Undeliverable => Some(
            "a worker that has a request in hand for longer loses it, and it is delivered again",
        ),
        QueueRole::DeadLetters | QueueRole::ReviewLock => {
            Some("a review that takes longer is cut off")
        }
        QueueRole::Wait | QueueRole::Discarded => None,
    }
}

const fn when_returned(role: QueueRole) -> Option<&'static str> {
    match role {
        QueueRole::Requests | QueueRole::Due | QueueRole::Undeliverable => {
            Some("a request that is returned waits for RabbitMQ's delay, out of its order")
        }
        QueueRole::DeadLetters => Some("letters that were looked at are hidden for a while"),
        QueueRole::Wait | QueueRole::Discarded | QueueRole::ReviewLock => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [QueueRole; 7] = [
        QueueRole::Requests,
        QueueRole::Due,
        QueueRole::Wait,
        QueueRole::Undeliverable,
        QueueRole::DeadLetters,
        QueueRole::Discarded,
        QueueRole::ReviewLock,
    ];

    /// As the topology declares it on RabbitMQ 4, with a wait and a keeping time of 5 s.
    fn queue(role: QueueRole) -> PolicedQueue {
        PolicedQueue {
            role,
            message_ttl: matches!(role, QueueRole::Wait | QueueRole::Discarded).then_some(5_000),
            delivery_limit: Some(match role {
                QueueRole::Requests | QueueRole::Due => 20,
                _ => -1,
            }),
            negative_limit_is_none: true,
        }
    }

    /// The roles whose promises change, as letters in the order of `ROLES`.
    fn touched(key: &str, value: PolicyValue<'_>) -> String {
        let letters = ROLES.iter().zip("rdwuLxt".chars());
        letters
            .filter(|(role, _)| changed_promise(&queue(**role), key, value).is_some())
            .map(|(_, letter)| letter)
            .collect()
    }

    #[test]
    fn each_policy_is_reported_for_the_queues_whose_promise_it_changes() {
        use PolicyValue::{Number, Other, Text};
        for (key, value, wanted) in [
            ("max-length", Number(1_000_000), "rdwuLxt"),
            ("max-length-bytes", Number(1), "rdwuLxt"),
            ("overflow", Text("drop-head"), "rdwuL"),
            ("overflow", Text("reject-publish-dlx"), "rdwuL"),
            ("overflow", Text("reject-publish"), ""),
            ("message-ttl", Number(4_999), "rdwuLxt"),
            ("message-ttl", Number(5_000), "rduLt"),
            ("expires", Number(86_400_000), "rdwuLxt"),
            ("delivery-limit", Number(-1), ""),
            ("delivery-limit", Number(19), "rduLx"),
            ("delivery-limit", Number(20), "uLx"),
            ("dead-letter-exchange", Text("x"), "x"),
            ("dead-letter-routing-key", Text("x"), ""),
            ("dead-letter-strategy", Text("at-most-once"), ""),
            ("consumer-timeout", Number(60_000), "rduLt"),
            ("consumer-timeout", Number(1_800_000), ""),
            ("delayed-retry-type", Text("all"), "rduL"),
            ("delayed-retry-type", Text("disabled"), ""),
            ("queue-leader-locator", Text("balanced"), ""),
            ("target-group-size", Number(3), ""),
            ("federation-upstream-set", Text("all"), ""),
            ("message-ttl", Other, ""),
        ] {
            assert_eq!(touched(key, value), wanted, "{key} {value:?}");
        }
    }

    #[test]
    fn a_negative_delivery_limit_drops_messages_before_rabbitmq_4() {
        for (role, wanted) in [
            (QueueRole::Requests, true),
            (QueueRole::DeadLetters, true),
            (QueueRole::Wait, false),
        ] {
            let old = PolicedQueue {
                negative_limit_is_none: false,
                ..queue(role)
            };
            let changed = changed_promise(&old, "delivery-limit", PolicyValue::Number(-1));
            assert_eq!(changed.is_some(), wanted, "{role:?}");
        }
    }

    #[test]
    fn an_alternate_exchange_matters_where_somebody_relies_on_returns() {
        assert!(changed_promise_of_exchange(true, "alternate-exchange").is_some());
        assert!(changed_promise_of_exchange(false, "alternate-exchange").is_none());
        assert!(changed_promise_of_exchange(true, "federation-upstream").is_none());
    }
}
