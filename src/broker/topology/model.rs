//! The exchanges, queues and bindings of contract section 2, as values.
//!
//! Nothing here talks to a broker; `declare` does.
//!
//! The worker, the review and RabbitMQ reach the queues that upstream must not write by the exchange
//! `rename.internal`, not by the default exchange: the right to write to the default exchange is the
//! right to write to every queue of the virtual host, and nobody here needs that.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::refusal::{ShortReason, advice_for};
use crate::config::{RetryDelays, Settings};

/// A request delivered more often than this is dead-lettered by the broker itself.
pub const DELIVERY_LIMIT: i64 = 20;
/// `x-delivery-limit` that means none, from RabbitMQ 4.0 on, where the default is 20.
const NO_DELIVERY_LIMIT: i64 = -1;

/// The names of all objects, made from `amqp.prefix`.
#[derive(Debug, Clone)]
pub struct QueueNames {
    prefix: String,
    pub requests: String,
    /// What has waited and is due, what was given back, and replays: written by the worker, the
    /// review and RabbitMQ only.
    pub due: String,
    /// What RabbitMQ itself moved away, and what the worker rejects unread.
    pub undeliverable: String,
    pub events: String,
    pub dead_letters: String,
    /// Dead letters that a person discarded, until they expire.
    pub discarded: String,
    /// Holds the token that a review has while it acts.
    pub review_lock: String,
    /// Routes to the queues that upstream must not write: their names are its routing keys.
    pub internal: String,
}

impl QueueNames {
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let name = |rest: &str| format!("{prefix}.{rest}");
        Self {
            prefix: prefix.to_owned(),
            requests: name("requests"),
            due: name("due"),
            undeliverable: name("undeliverable"),
            events: name("events"),
            dead_letters: name("dead-letters"),
            discarded: name("discarded"),
            review_lock: name("review-lock"),
            internal: name("internal"),
        }
    }

    /// The queue in which a request waits for one delay of the ladder.
    #[must_use]
    pub fn wait(&self, delay: Duration) -> String {
        format!("{}.wait.{}", self.prefix, RetryDelays::label(delay))
    }

    /// Every queue in which a request may be before its outcome is published.
    #[must_use]
    pub fn request_queues(&self, delays: &[Duration]) -> Vec<String> {
        let own = [&self.requests, &self.due, &self.undeliverable].map(Clone::clone);
        own.into_iter()
            .chain(delays.iter().map(|&delay| self.wait(delay)))
            .collect()
    }
}

/// What the settings choose about the topology.
#[derive(Debug, Clone)]
pub struct TopologySettings {
    /// The delays of the wait queues, ascending.
    pub delays: Vec<Duration>,
    /// How long a discarded dead letter is kept.
    pub keep_discarded: Duration,
}

impl From<&Settings> for TopologySettings {
    fn from(settings: &Settings) -> Self {
        Self {
            delays: settings.retry.ladder.steps().to_vec(),
            keep_discarded: settings.dead_letters.keep_discarded,
        }
    }
}

impl TopologySettings {
    /// These delays, and otherwise the defaults.
    #[must_use]
    pub fn with_delays(delays: &[Duration]) -> Self {
        Self {
            delays: delays.to_vec(),
            keep_discarded: Duration::from_hours(30 * 24),
        }
    }
}

/// Everything that must be there, in the order in which it can be declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    pub objects: Vec<TopologyObject>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum TopologyObject {
    Exchange {
        name: String,
        kind: &'static str,
    },
    Queue {
        name: String,
        arguments: Vec<Argument>,
    },
    Binding {
        exchange: String,
        queue: String,
        routing_key: String,
    },
}

/// One `x-…` argument of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Argument {
    pub name: &'static str,
    pub value: ArgumentValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ArgumentValue {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl Topology {
    #[must_use]
    pub fn new(names: &QueueNames, settings: &TopologySettings) -> Self {
        let queues = [
            dead_letters(names),
            undeliverable(names),
            discarded(names, settings.keep_discarded),
            review_lock(names),
            retried(names, &names.due),
            retried(names, &names.requests),
        ];
        let waits = settings.delays.iter().map(|&delay| wait(names, delay));
        let mut objects = vec![
            exchange(&names.requests, "topic"),
            exchange(&names.events, "topic"),
            exchange(&names.dead_letters, "topic"),
            exchange(&names.internal, "direct"),
        ];
        objects.extend(queues.into_iter().chain(waits));
        for name in [&names.dead_letters, &names.requests] {
            objects.push(binding(name, name, "#"));
        }
        let internal: Vec<TopologyObject> = objects
            .iter()
            .filter_map(TopologyObject::queue_name)
            .filter(|queue| *queue != names.requests)
            .map(|queue| binding(&names.internal, queue, queue))
            .collect();
        objects.extend(internal);
        Self { objects }
    }
}

fn exchange(name: &str, kind: &'static str) -> TopologyObject {
    TopologyObject::Exchange {
        name: name.to_owned(),
        kind,
    }
}

fn binding(exchange: &str, queue: &str, routing_key: &str) -> TopologyObject {
    TopologyObject::Binding {
        exchange: exchange.to_owned(),
        queue: queue.to_owned(),
        routing_key: routing_key.to_owned(),
    }
}

fn quorum_queue(name: &str, arguments: Vec<Argument>) -> TopologyObject {
    let mut all = vec![text("x-queue-type", "quorum")];
    all.extend(arguments);
    TopologyObject::Queue {
        name: name.to_owned(),
        arguments: all,
    }
}

/// A queue whose messages RabbitMQ moves to `rename.undeliverable` at the delivery limit.
fn retried(names: &QueueNames, name: &str) -> TopologyObject {
    let mut arguments = vec![number(DELIVERY_LIMIT_ARGUMENT, DELIVERY_LIMIT)];
    arguments.extend(dead_lettered_to(names, &names.undeliverable));
    quorum_queue(name, arguments)
}

fn dead_letters(names: &QueueNames) -> TopologyObject {
    // A length limit that a policy sets must refuse what is new, not drop what waits for review.
    quorum_queue(&names.dead_letters, vec![unlimited(), reject_publish()])
}

fn undeliverable(names: &QueueNames) -> TopologyObject {
    quorum_queue(&names.undeliverable, vec![unlimited(), reject_publish()])
}

fn discarded(names: &QueueNames, keep: Duration) -> TopologyObject {
    quorum_queue(&names.discarded, vec![unlimited(), time_to_live(keep)])
}

fn review_lock(names: &QueueNames) -> TopologyObject {
    let arguments = vec![
        unlimited(),
        Argument {
            name: "x-single-active-consumer",
            value: ArgumentValue::Flag(true),
        },
        // From RabbitMQ 4.3 on a consumer whose node is gone would keep the token for a minute.
        number("x-consumer-disconnected-timeout", 5_000),
    ];
    quorum_queue(&names.review_lock, arguments)
}

fn wait(names: &QueueNames, delay: Duration) -> TopologyObject {
    let mut arguments = vec![unlimited(), time_to_live(delay)];
    arguments.extend(dead_lettered_to(names, &names.due));
    quorum_queue(&names.wait(delay), arguments)
}

/// At least once, which RabbitMQ does for queues only that refuse what is beyond their length.
fn dead_lettered_to(names: &QueueNames, queue: &str) -> [Argument; 4] {
    [
        text("x-dead-letter-exchange", &names.internal),
        text("x-dead-letter-routing-key", queue),
        text("x-dead-letter-strategy", "at-least-once"),
        reject_publish(),
    ]
}

fn reject_publish() -> Argument {
    text("x-overflow", "reject-publish")
}

const fn unlimited() -> Argument {
    number(DELIVERY_LIMIT_ARGUMENT, NO_DELIVERY_LIMIT)
}

fn time_to_live(time: Duration) -> Argument {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    number("x-message-ttl", millis)
}

fn text(name: &'static str, value: &str) -> Argument {
    Argument {
        name,
        value: ArgumentValue::Text(value.to_owned()),
    }
}

const fn number(name: &'static str, value: i64) -> Argument {
    Argument {
        name,
        value: ArgumentValue::Number(value),
    }
}

pub(in crate::broker) const DELIVERY_LIMIT_ARGUMENT: &str = "x-delivery-limit";

impl TopologyObject {
    pub(in crate::broker) fn queue_name(&self) -> Option<&str> {
        match self {
            Self::Queue { name, .. } => Some(name),
            Self::Exchange { .. } | Self::Binding { .. } => None,
        }
    }

    pub(in crate::broker) fn asks_for_no_delivery_limit(&self) -> bool {
        matches!(self, Self::Queue { arguments, .. } if arguments.iter().any(Argument::means_unlimited))
    }

    /// The same, for a broker on which no delivery limit is the default.
    pub(in crate::broker) fn without_delivery_limit(&self) -> Self {
        let mut object = self.clone();
        if let Self::Queue { arguments, .. } = &mut object {
            arguments.retain(|argument| !argument.means_unlimited());
        }
        object
    }
}

impl Argument {
    fn means_unlimited(&self) -> bool {
        self.name == DELIVERY_LIMIT_ARGUMENT
            && self.value == ArgumentValue::Number(NO_DELIVERY_LIMIT)
    }
}

/// One thing about the broker that is not as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopologyDifference {
    /// `queue rename.requests`
    pub object: String,
    #[serde(flatten)]
    pub what: DifferenceKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum DifferenceKind {
    Missing,
    /// It exists, made with another argument.
    Argument {
        argument: String,
        wanted: String,
        found: String,
    },
    /// The broker refused to declare it or to tell about it.
    Refused {
        reply_text: String,
    },
    /// A policy of RabbitMQ applies to it that changes a promise.
    Policy {
        /// `policy 'p' and operator policy 'o'`
        policies: String,
        key: String,
        value: String,
        effect: &'static str,
    },
}

impl fmt::Display for TopologyDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match &self.what {
            DifferenceKind::Missing => write!(f, "{object} is missing"),
            DifferenceKind::Argument {
                argument,
                wanted,
                found,
            } => write!(
                f,
                "{object} has {argument} {found} where {wanted} is wanted"
            ),
            DifferenceKind::Refused { reply_text: told } => {
                write!(f, "{object} was refused: {}", ShortReason(told))
            }
            DifferenceKind::Policy {
                policies,
                key,
                value,
                effect,
            } => write!(
                f,
                "{object} is under {policies}, which sets {key} to {value}: {effect}"
            ),
        }
    }
}

impl fmt::Display for ArgumentValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

impl fmt::Display for TopologyObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange { name, .. } => write!(f, "exchange {name}"),
            Self::Queue { name, .. } => write!(f, "queue {name}"),
            Self::Binding {
                exchange,
                queue,
                routing_key,
            } => write!(f, "binding {exchange} -{routing_key}-> {queue}"),
        }
    }
}

/// Reads what RabbitMQ says of an object that exists with another argument, as in
/// `PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received
/// the value '20' of type 'signedint' but current is none`. The text is cut at 255 bytes, so its
/// end may be missing.
pub(in crate::broker) fn read_inequivalence(reply_text: &str) -> Option<DifferenceKind> {
    let (_, rest) = reply_text.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once('\'')?;
    let (_, rest) = rest.split_once("received ")?;
    let (wanted, found) = rest.split_once(" but current is ").unwrap_or((rest, "?"));
    Some(DifferenceKind::Argument {
        argument: argument.to_owned(),
        wanted: plain_value(wanted),
        found: plain_value(found),
    })
}

/// `the value '20' of type 'signedint'` and `'topic'` both become the value alone.
fn plain_value(reply_text: &str) -> String {
    let told = reply_text.trim().trim_start_matches("the value ");
    let told = told.split(" of type ").next().unwrap_or(told);
    told.to_owned()
}

/// How to grant the rights for whose lack something was refused. `None` if nothing was.
#[must_use]
pub fn advice(differences: &[TopologyDifference]) -> Option<String> {
    advice_for(
        differences
            .iter()
            .filter_map(|difference| match &difference.what {
                DifferenceKind::Refused { reply_text } => Some(reply_text.as_str()),
                _ => None,
            }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_is_the_contract_s() {
        let delays = [5, 30, 120, 600, 3_600].map(Duration::from_secs);
        let settings = TopologySettings::with_delays(&delays);
        insta::assert_json_snapshot!(Topology::new(&QueueNames::new("rename"), &settings));
    }

    #[test]
    fn a_delay_of_milliseconds_has_a_queue_name_too() {
        let names = QueueNames::new("p");
        assert_eq!(names.wait(Duration::from_millis(200)), "p.wait.200ms");
    }

    #[test]
    fn the_broker_s_words_on_other_arguments_are_read() {
        let told = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in \
                    vhost '/': received the value '20' of type 'signedint' but current is none";
        let what = read_inequivalence(told).unwrap();
        let difference = TopologyDifference {
            object: "queue q".to_owned(),
            what,
        };
        assert_eq!(
            difference.to_string(),
            "queue q has x-delivery-limit none where '20' is wanted"
        );
        let told = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '/': \
                    received 'topic' but current is 'direct'";
        assert_eq!(
            read_inequivalence(told),
            Some(DifferenceKind::Argument {
                argument: "type".to_owned(),
                wanted: "'topic'".to_owned(),
                found: "'direct'".to_owned(),
            })
        );
        assert_eq!(read_inequivalence("NOT_FOUND - no queue 'q'"), None);
    }

    #[test]
    fn several_missing_rights_get_one_advice() {
        let refused = |object: &str, told: &str| TopologyDifference {
            object: object.to_owned(),
            what: DifferenceKind::Refused {
                reply_text: format!("ACCESS_REFUSED - {told} in vhost '/' refused"),
            },
        };
        let differences = [
            refused("exchange p.a", "configure access to exchange 'p.a'"),
            refused("queue p.b", "configure access to queue 'p.b'"),
            refused("binding", "write access to queue 'p.b'"),
        ];
        assert_eq!(
            advice(&differences).unwrap(),
            format!(
                "`rabbitmqctl set_permissions -p '/' USER CONFIGURE WRITE READ` grants it, where \
                 CONFIGURE must match p.a, p.b and WRITE must match p.b; {}",
                super::super::refusal::TABLE
            )
        );
        assert_eq!(
            differences[2].to_string(),
            "binding was refused: this user lacks the right to write on queue p.b in virtual host /"
        );
        assert_eq!(advice(&[]), None);
    }
}
