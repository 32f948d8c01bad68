//! What RabbitMQ means when it refuses: which right is missing, which limit is reached, and the command
//! that changes it.
//!
//! The texts are RabbitMQ's own, read on 3.10, 4.0 and 4.3, without the user's name.

use std::collections::BTreeMap;
use std::fmt;

/// Where the patterns of each role are.
pub(super) const TABLE: &str =
    "docs/operations.md (Rights on RabbitMQ) has the patterns of each role";
const GRANT: &str = "USER CONFIGURE WRITE READ";

/// The broker's text, and before it what it means, where that is known.
pub(in crate::broker) struct ExplainedRefusal<'a>(pub(in crate::broker) &'a str);

impl fmt::Display for ExplainedRefusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        match missing_right(text) {
            Some(right) => write!(
                f,
                "{right}; {}; RabbitMQ: {text}",
                advice_on(std::slice::from_ref(&right))
            ),
            None => match explain(text) {
                Some(meaning) => write!(f, "{meaning}; RabbitMQ: {text}"),
                None => f.write_str(text),
            },
        }
    }
}

/// The same without the command, for one of several differences.
pub(in crate::broker) struct ShortReason<'a>(pub(in crate::broker) &'a str);

impl fmt::Display for ShortReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match missing_right(self.0) {
            Some(right) => right.fmt(f),
            None => ExplainedRefusal(self.0).fmt(f),
        }
    }
}

/// How to grant the rights for whose lack RabbitMQ wrote these `texts`. `None` if no right is lacking.
pub(in crate::broker) fn advice_for<'a>(
    texts: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let rights: Vec<_> = texts.into_iter().filter_map(missing_right).collect();
    (!rights.is_empty()).then(|| advice_on(&rights))
}

/// A right that the user does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MissingRight<'a> {
    /// `None`: RabbitMQ does not say, as until 3.10.
    right: Option<&'a str>,
    /// `queue`, `exchange`
    kind: &'a str,
    name: &'a str,
    vhost: &'a str,
    /// The routing key, where the right is a topic permission.
    topic: Option<&'a str>,
}

impl fmt::Display for MissingRight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind, name, vhost, ..
        } = self;
        match self.right {
            Some(right) => write!(f, "this user lacks the right to {right} on ")?,
            None => f.write_str(
                "this user lacks a right (to configure, to write or to read: this RabbitMQ does \
                 not say which) on ",
            )?,
        }
        if let Some(key) = self.topic {
            write!(f, "routing key {key} of ")?;
        }
        write!(f, "{kind} {name} in virtual host {vhost}")
    }
}

/// Reads `ACCESS_REFUSED - write access to exchange 'x' in vhost '/' refused`, of a topic
/// `write access to topic 'k' in exchange 'x' in vhost '/' refused`.
fn missing_right(text: &str) -> Option<MissingRight<'_>> {
    let text = text.strip_prefix("ACCESS_REFUSED - ")?;
    let (right, object) = text.split_once("access to ")?;
    // The end may be missing: the whole text has at most 255 bytes.
    let (object, vhost) = object.rsplit_once("' in vhost '")?;
    let vhost = vhost
        .rsplit_once("' refused")
        .map_or(vhost, |(vhost, _)| vhost);
    let (topic, kind, name) = if let Some(rest) = object.strip_prefix("topic '") {
        let (topic, name) = rest.rsplit_once("' in exchange '")?;
        (Some(topic), "exchange", name)
    } else {
        let (kind, name) = object.split_once(" '")?;
        (None, kind, name)
    };
    let right = right.trim();
    Some(MissingRight {
        right: ["configure", "write", "read"]
            .contains(&right)
            .then_some(right),
        kind,
        name,
        vhost,
        topic,
    })
}

fn advice_on(rights: &[MissingRight<'_>]) -> String {
    let mut commands: BTreeMap<String, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for missing in rights {
        let vhost = missing.vhost;
        let (command, object) = match missing.topic {
            None => (
                format!("rabbitmqctl set_permissions -p '{vhost}' {GRANT}"),
                missing.name,
            ),
            Some(key) => {
                let exchange = missing.name;
                let command = "rabbitmqctl set_topic_permissions";
                (
                    format!("{command} -p '{vhost}' USER {exchange} WRITE READ"),
                    key,
                )
            }
        };
        let pattern = match missing.right {
            Some("configure") => "CONFIGURE",
            Some("write") => "WRITE",
            Some("read") => "READ",
            _ => "one of them",
        };
        let objects = commands
            .entry(command)
            .or_default()
            .entry(pattern)
            .or_default();
        if !objects.contains(&object) {
            objects.push(object);
        }
    }
    let commands = commands.iter().map(|(command, patterns)| {
        let patterns = patterns
            .iter()
            .map(|(pattern, objects)| format!("{pattern} must match {}", objects.join(", ")));
        let patterns: Vec<_> = patterns.collect();
        format!("`{command}` grants it, where {}", patterns.join(" and "))
    });
    let commands: Vec<_> = commands.collect();
    format!("{}; {TABLE}", commands.join("; "))
}

/// What a refusal means that is about no single object.
fn explain(text: &str) -> Option<String> {
    if text.contains("Login was refused") {
        return Some(
            "user or password of amqp.url are wrong, or this user may not log in from here (RabbitMQ's \
             default user may on the broker's own machine only)"
                .to_owned(),
        );
    }
    if let Some(vhost) = between(text, "NOT_ALLOWED - vhost ", " not found") {
        return Some(format!(
            "there is no virtual host {vhost}: correct the end of amqp.url, or create it with \
             `rabbitmqctl add_vhost '{vhost}'`"
        ));
    }
    reached_limit(text).or_else(|| {
        let vhost = between(text, "access to vhost '", "' refused")?;
        Some(format!(
            "this user has no rights in virtual host {vhost}: `rabbitmqctl set_permissions -p \
             '{vhost}' {GRANT}` grants them; {TABLE}"
        ))
    })
}

/// How many connections and channels there have to be, for whoever sets a limit.
const NEEDED: &str =
    "a worker needs 2 connections with up to 4 channels each, a command 1 connection";

fn reached_limit(text: &str) -> Option<String> {
    if let Some(limit) = between(text, "user connection limit (", ")") {
        return Some(format!(
            "the limit of this user's connections ({limit}) is reached: {NEEDED}; close others, or \
             raise it with `rabbitmqctl set_user_limits USER '{{\"max-connections\": N}}'`"
        ));
    }
    if let Some(limit) = between(text, "node connection limit (", ")") {
        return Some(format!(
            "the limit of the broker's connections ({limit}) is reached: {NEEDED}; close others, or \
             raise connection_max in its rabbitmq.conf"
        ));
    }
    if let Some(limit) = between(text, "connection limit (", ")") {
        let vhost = between(text, "access to vhost '", "' refused").unwrap_or("VHOST");
        return Some(format!(
            "the limit of connections of virtual host {vhost} ({limit}) is reached: {NEEDED}; close \
             others, or raise it with `rabbitmqctl set_vhost_limits -p '{vhost}' \
             '{{\"max-connections\": N}}'`"
        ));
    }
    if let Some((_, rest)) = text.split_once("queue limit in vhost '") {
        let vhost = rest.split_once('\'').map_or("VHOST", |(vhost, _)| vhost);
        return Some(format!(
            "the limit of queues of virtual host {vhost} is reached: raise it with `rabbitmqctl \
             set_vhost_limits -p '{vhost}' '{{\"max-queues\": N}}'`; `rename-worker topology show` \
             lists ours"
        ));
    }
    if text.contains("number of channels opened") {
        let raise = if text.contains("user limit") {
            "with `rabbitmqctl set_user_limits USER '{\"max-channels\": N}'`"
        } else {
            "as channel_max or channel_max_per_node in the broker's rabbitmq.conf"
        };
        return Some(format!(
            "a limit of channels is reached: {NEEDED}; raise it {raise}"
        ));
    }
    None
}

/// Said where lapin finds no free channel in what the broker allows.
pub(in crate::broker) const TOO_FEW_CHANNELS: &str = "it allows too few channels on a connection: a worker needs 4; raise channel_max in its \
     rabbitmq.conf or in the query of amqp.url";

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    let (found, _) = rest.split_once(after)?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(text: &str) -> String {
        ExplainedRefusal(text).to_string()
    }

    #[test]
    fn a_missing_right_is_named_with_the_command_that_grants_it() {
        for (text, wanted) in [
            (
                "ACCESS_REFUSED - configure access to queue 'p.due' in vhost '/' refused",
                "this user lacks the right to configure on queue p.due in virtual host /; \
                 `rabbitmqctl set_permissions -p '/' USER CONFIGURE WRITE READ` grants it, where \
                 CONFIGURE must match p.due; docs/operations.md (Rights on RabbitMQ)",
            ),
            (
                "ACCESS_REFUSED - write access to exchange 'p.events' in vhost 'a b' refused",
                "this user lacks the right to write on exchange p.events in virtual host a b; \
                 `rabbitmqctl set_permissions -p 'a b' USER CONFIGURE WRITE READ` grants it, where \
                 WRITE must match p.events;",
            ),
            (
                "ACCESS_REFUSED - read access to queue 'p.requests' in vhost '/",
                "this user lacks the right to read on queue p.requests in virtual host /;",
            ),
            (
                "ACCESS_REFUSED - write access to topic 'rename.T1' in exchange 'p.requests' in \
                 vhost '/' refused",
                "this user lacks the right to write on routing key rename.T1 of exchange p.requests \
                 in virtual host /; `rabbitmqctl set_topic_permissions -p '/' USER p.requests WRITE \
                 READ` grants it, where WRITE must match rename.T1;",
            ),
            (
                "ACCESS_REFUSED - access to queue 'p.due' in vhost '/' refused",
                "this user lacks a right (to configure, to write or to read: this RabbitMQ does not \
                 say which) on queue p.due in virtual host /;",
            ),
        ] {
            let told = explained(text);
            assert!(told.starts_with(wanted), "{told}");
            assert!(told.ends_with(&format!("RabbitMQ: {text}")), "{told}");
        }
    }

    #[test]
    fn a_limit_or_a_virtual_host_is_named_with_what_to_do() {
        for (text, wanted) in [
            (
                "NOT_ALLOWED - access to vhost '/' refused: connection limit (8) is reached",
                "connections of virtual host / (8) is reached",
            ),
            (
                "NOT_ALLOWED - connection refused: user connection limit (2) is reached",
                "this user's connections (2) is reached",
            ),
            (
                "NOT_ALLOWED - connection refused: node connection limit (9) is reached",
                "connection_max",
            ),
            (
                "NOT_ALLOWED - number of channels opened has reached the maximum allowed user \
                 limit of (1)",
                "set_user_limits USER '{\"max-channels\": N}'",
            ),
            (
                "NOT_ALLOWED - number of channels opened (3) has reached the negotiated \
                 channel_max (3)",
                "channel_max",
            ),
            (
                "PRECONDITION_FAILED - cannot declare queue 'q1': queue limit in vhost 'v' (0) is \
                 reached",
                "set_vhost_limits -p 'v' '{\"max-queues\": N}'",
            ),
            (
                "NOT_ALLOWED - access to vhost 'v' refused",
                "this user has no rights in virtual host v: `rabbitmqctl set_permissions -p 'v'",
            ),
            (
                "NOT_ALLOWED - vhost v not found",
                "`rabbitmqctl add_vhost 'v'`",
            ),
            (
                "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For \
                 details see the broker logfile.",
                "user or password of amqp.url are wrong",
            ),
        ] {
            let told = explained(text);
            assert!(told.contains(wanted), "{told}");
            assert!(told.ends_with(&format!("RabbitMQ: {text}")), "{told}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_on() {
        for text in ["", "NOT_FOUND - no queue 'q' in vhost '/'", "access to "] {
            assert_eq!(explained(text), text);
        }
    }
}
