//! The exchanges, queues and bindings of contract section 2, as values: what is to be there.
//!
//! Nothing here talks to a broker; `declare` does.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::config::Ladder;

/// A request delivered more often than this is dead-lettered by the broker itself.
pub const DELIVERY_LIMIT: i64 = 20;
/// `x-delivery-limit` that means none, from RabbitMQ 4.0 on, where the default is 20.
const NO_DELIVERY_LIMIT: i64 = -1;

/// The names of all objects, made from `amqp.prefix`.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
    pub requests: String,
    pub events: String,
    pub dead_letters: String,
    /// No part of the topology: a reviewer's sign that nobody else may review now.
    pub review: String,
}

impl Names {
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            requests: format!("{prefix}.requests"),
            events: format!("{prefix}.events"),
            dead_letters: format!("{prefix}.dead-letters"),
            review: format!("{prefix}.review"),
        }
    }

    /// The retry queue of one step of the ladder.
    #[must_use]
    pub fn retry(&self, step: Duration) -> String {
        format!("{}.retry.{}", self.prefix, Ladder::label(step))
    }
}

/// All that is to be there, in the order in which it can be declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    pub objects: Vec<Object>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum Object {
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
        routing_key: &'static str,
    },
}

/// One `x-…` argument of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Argument {
    pub name: &'static str,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Text(String),
    Number(i64),
}

impl Topology {
    #[must_use]
    pub fn new(names: &Names, ladder: &[Duration]) -> Self {
        let mut objects = vec![
            exchange(&names.requests),
            exchange(&names.events),
            exchange(&names.dead_letters),
            dead_letters(names),
            requests(names),
        ];
        objects.extend(ladder.iter().map(|step| retry(names, *step)));
        for name in [&names.dead_letters, &names.requests] {
            objects.push(Object::Binding {
                exchange: name.clone(),
                queue: name.clone(),
                routing_key: "#",
            });
        }
        Self { objects }
    }
}

fn exchange(name: &str) -> Object {
    Object::Exchange {
        name: name.to_owned(),
        kind: "topic",
    }
}

fn requests(names: &Names) -> Object {
    Object::Queue {
        name: names.requests.clone(),
        arguments: vec![
            text("x-queue-type", "quorum"),
            number("x-delivery-limit", DELIVERY_LIMIT),
            text("x-dead-letter-exchange", &names.dead_letters),
            text("x-dead-letter-strategy", "at-least-once"),
            // At-least-once dead-lettering works with this overflow only.
            text("x-overflow", "reject-publish"),
        ],
    }
}

fn dead_letters(names: &Names) -> Object {
    Object::Queue {
        name: names.dead_letters.clone(),
        arguments: vec![
            text("x-queue-type", "quorum"),
            number(DELIVERY_LIMIT_ARGUMENT, NO_DELIVERY_LIMIT),
        ],
    }
}

fn retry(names: &Names, step: Duration) -> Object {
    let millis = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
    Object::Queue {
        name: names.retry(step),
        arguments: vec![
            text("x-queue-type", "quorum"),
            number("x-message-ttl", millis),
            // The default exchange, whose routing key is a queue's name.
            text("x-dead-letter-exchange", ""),
            text("x-dead-letter-routing-key", &names.requests),
            text("x-dead-letter-strategy", "at-least-once"),
            text("x-overflow", "reject-publish"),
        ],
    }
}

fn text(name: &'static str, value: &str) -> Argument {
    Argument {
        name,
        value: Value::Text(value.to_owned()),
    }
}

const fn number(name: &'static str, value: i64) -> Argument {
    Argument {
        name,
        value: Value::Number(value),
    }
}

pub(super) const DELIVERY_LIMIT_ARGUMENT: &str = "x-delivery-limit";

impl Object {
    pub(super) fn is_queue(&self, called: &str) -> bool {
        matches!(self, Self::Queue { name, .. } if name == called)
    }

    pub(super) fn asks_for_no_delivery_limit(&self) -> bool {
        matches!(self, Self::Queue { arguments, .. } if arguments.iter().any(Argument::is_no_limit))
    }

    /// The same, for a broker on which no delivery limit is the default.
    pub(super) fn without_delivery_limit(&self) -> Self {
        let mut object = self.clone();
        if let Self::Queue { arguments, .. } = &mut object {
            arguments.retain(|argument| !argument.is_no_limit());
        }
        object
    }
}

impl Argument {
    fn is_no_limit(&self) -> bool {
        self.name == DELIVERY_LIMIT_ARGUMENT && self.value == Value::Number(NO_DELIVERY_LIMIT)
    }
}

/// One thing about the broker that is not as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `queue rename.requests`
    pub object: String,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    Missing,
    /// It exists, made with another argument.
    Argument {
        argument: String,
        wanted: String,
        found: String,
    },
    /// The broker refused to declare it or to tell about it.
    Refused {
        told: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match &self.what {
            What::Missing => write!(f, "{object} is missing"),
            What::Argument {
                argument,
                wanted,
                found,
            } => write!(
                f,
                "{object} has {argument} {found} where {wanted} is wanted"
            ),
            What::Refused { told } => write!(f, "{object} was refused: {told}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Object {
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
pub(super) fn read_inequivalence(told: &str) -> Option<What> {
    let (_, rest) = told.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once('\'')?;
    let (_, rest) = rest.split_once("received ")?;
    let (wanted, found) = rest.split_once(" but current is ").unwrap_or((rest, "?"));
    Some(What::Argument {
        argument: argument.to_owned(),
        wanted: plain_value(wanted),
        found: plain_value(found),
    })
}

/// `the value '20' of type 'signedint'` and `'topic'` both become the value alone.
fn plain_value(told: &str) -> String {
    let told = told.trim().trim_start_matches("the value ");
    let told = told.split(" of type ").next().unwrap_or(told);
    told.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(ladder: &[u64]) -> Topology {
        let ladder: Vec<Duration> = ladder.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Topology::new(&Names::new("rename"), &ladder)
    }

    #[test]
    fn the_topology_is_the_contract_s() {
        let shown = topology(&[5_000, 30_000, 120_000, 600_000, 3_600_000]);
        insta::assert_json_snapshot!(shown);
    }

    #[test]
    fn an_odd_step_has_a_name_too() {
        let names = Names::new("p");
        assert_eq!(names.retry(Duration::from_millis(200)), "p.retry.200ms");
    }

    #[test]
    fn the_broker_s_words_on_other_arguments_are_read() {
        let told = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in \
                    vhost '/': received the value '20' of type 'signedint' but current is none";
        let what = read_inequivalence(told).unwrap();
        let difference = Difference {
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
            Some(What::Argument {
                argument: "type".to_owned(),
                wanted: "'topic'".to_owned(),
                found: "'direct'".to_owned(),
            })
        );
        assert_eq!(read_inequivalence("NOT_FOUND - no queue 'q'"), None);
    }
}
