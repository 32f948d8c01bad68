//! The broker's URL, read once and by everybody alike: `config check`, the connection, and whatever
//! shows where the broker is.
//!
//! It follows RabbitMQ's URI specification, and is stricter where a password that is not
//! percent-encoded would become part of another component: `/`, `?`, `#` and `@` in it end the host
//! early, and the rest would then be shown as port or virtual host. No error quotes any of it.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::{Host, Url};

use super::loopback::{is_host, is_loopback};

/// Where the broker is and how to get in.
#[derive(Clone)]
pub struct AmqpUrl {
    /// `amqps://`.
    pub tls: bool,
    /// `guest` when the URL has none.
    pub user: SecretString,
    /// `guest` when the URL has none.
    pub password: SecretString,
    /// A name or an address; an IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
    pub vhost: String,
    /// Seconds; 0 turns heartbeats off.
    pub heartbeat: Option<u16>,
    /// Bytes; 0 is no limit.
    pub frame_max: Option<u32>,
    /// 0 is no limit.
    pub channel_max: Option<u16>,
    pub mechanism: Option<AuthMechanism>,
    /// There are parameters that mean nothing here.
    pub has_unused_parameters: bool,
}

/// How to authenticate, by RabbitMQ's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMechanism {
    AmqPlain,
    Anonymous,
    External,
    Plain,
    RabbitCrDemo,
}

/// What is wrong with a URL, to follow its key; it holds nothing of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAmqpUrl(&'static str);

/// What a name or value may have in AMQP, in bytes: a short string.
const SHORT_STRING_MAX: usize = 255;
/// The least that AMQP lets a client ask for, in bytes.
const FRAME_MAX_LEAST: u32 = 4096;
/// More than the channels that one connection of ours opens.
const CHANNEL_MAX_LEAST: u16 = 16;

/// The parameters that are used; others are RabbitMQ's Erlang client's or another client's own.
const PARAMETERS: [&str; 5] = [
    "heartbeat",
    "frame_max",
    "channel_max",
    "auth_mechanism",
    // Known to the specification; the worker has its own limit.
    "connection_timeout",
];

impl AmqpUrl {
    pub fn parse(text: &str) -> Result<Self, BadAmqpUrl> {
        let bad = |what| Err(BadAmqpUrl(what));
        // The URL parser would drop some of them silently.
        if text.chars().any(char::is_control) {
            return bad("holds a line break or another control character");
        }
        let Ok(url) = Url::parse(text) else {
            return bad(
                "is not a URL; if the user or password holds one of / ? # @ : % it must be \
                 written as %2f %3f %23 %40 %3a %25",
            );
        };
        let tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            _ => return bad("is not an AMQP URL; it must begin with amqp:// or amqps://"),
        };
        if url.cannot_be_a_base() {
            return bad("is not an AMQP URL; it must begin with amqp:// or amqps://");
        }
        let stray_at = [Some(url.path()), url.query()]
            .into_iter()
            .flatten()
            .any(|part| part.contains('@'));
        if stray_at || url.fragment().is_some() {
            return bad(
                "has an @ or # behind its host; in user, password and virtual host, write \
                 / ? # @ as %2f %3f %23 %40",
            );
        }
        Ok(Self {
            tls,
            user: user_info(url.username())?,
            password: match url.password() {
                None => GUEST.into(),
                Some(password) => decoded(password, NOT_UTF8)?.into_owned().into(),
            },
            host: host(&url)?,
            port: url.port().unwrap_or(if tls { 5671 } else { 5672 }),
            vhost: vhost(&url)?,
            heartbeat: number(&url, "heartbeat").ok_or(BadAmqpUrl(
                "has a heartbeat that is not a whole number of seconds from 0 to 65535, \
                 without a unit",
            ))?,
            frame_max: number(&url, "frame_max")
                .filter(|max| max.is_none_or(|max| max == 0 || max >= FRAME_MAX_LEAST))
                .ok_or(BadAmqpUrl(
                    "has a frame_max that is neither 0 nor a whole number of bytes from 4096",
                ))?,
            channel_max: number(&url, "channel_max")
                .filter(|max| max.is_none_or(|max| max == 0 || max >= CHANNEL_MAX_LEAST))
                .ok_or(BadAmqpUrl(
                    "has a channel_max that is neither 0 nor a whole number from 16 to 65535",
                ))?,
            mechanism: mechanism(&url)?,
            has_unused_parameters: url
                .query_pairs()
                .any(|(name, _)| !PARAMETERS.contains(&&*name)),
        })
    }

    /// Whether what is sent can leave this machine unencrypted.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        !self.tls && !is_loopback(&self.host)
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpUrl").finish_non_exhaustive()
    }
}

/// RabbitMQ's user and password out of the box, which the specification lets a client assume.
const GUEST: &str = "guest";
const NOT_UTF8: BadAmqpUrl = BadAmqpUrl(
    "has a user, password, host or virtual host that is not UTF-8 once it is percent-decoded; \
     write a % of its own as %25",
);

fn user_info(user: &str) -> Result<SecretString, BadAmqpUrl> {
    match user {
        "" => Ok(GUEST.into()),
        user => Ok(decoded(user, NOT_UTF8)?.into_owned().into()),
    }
}

fn host(url: &Url) -> Result<String, BadAmqpUrl> {
    let name = match url.host() {
        Some(Host::Domain(name)) => decoded(name, NOT_UTF8)?,
        Some(Host::Ipv4(address)) => return Ok(address.to_string()),
        Some(Host::Ipv6(address)) => return Ok(address.to_string()),
        None => Cow::default(),
    };
    if name.is_empty() {
        return Err(BadAmqpUrl("has no host"));
    }
    if !is_host(&name) {
        return Err(BadAmqpUrl(
            "has a host that is neither a name nor an address",
        ));
    }
    Ok(name.into_owned())
}

fn vhost(url: &Url) -> Result<String, BadAmqpUrl> {
    let Some(path) = url.path().strip_prefix('/') else {
        return Ok("/".into());
    };
    if path.contains('/') {
        return Err(BadAmqpUrl(
            "has more than one path segment; in a virtual host's name, write / as %2f",
        ));
    }
    if path.is_empty() {
        // By the specification that names the virtual host "", which no RabbitMQ has by itself.
        return Err(BadAmqpUrl(
            "ends in a / that names no virtual host; leave the / out, or write %2f behind it, \
             for the virtual host /",
        ));
    }
    let name = decoded(path, NOT_UTF8)?;
    if name.len() > SHORT_STRING_MAX {
        return Err(BadAmqpUrl("has a virtual host of more than 255 bytes"));
    }
    Ok(name.into_owned())
}

fn decoded(text: &str, or: BadAmqpUrl) -> Result<Cow<'_, str>, BadAmqpUrl> {
    percent_decode_str(text).decode_utf8().map_err(|_| or)
}

/// The first value of that name; none of the outer `Option` when it is there and does not fit.
#[expect(
    clippy::option_option,
    reason = "the inner one is the parameter's absence, which is fine"
)]
fn number<T: std::str::FromStr>(url: &Url, name: &str) -> Option<Option<T>> {
    let mut pairs = url.query_pairs();
    match pairs.find(|(key, _)| key == name) {
        None => Some(None),
        Some((_, value)) => value.parse().ok().map(Some),
    }
}

fn mechanism(url: &Url) -> Result<Option<AuthMechanism>, BadAmqpUrl> {
    let mut pairs = url.query_pairs();
    let Some((_, name)) = pairs.find(|(key, _)| key == "auth_mechanism") else {
        return Ok(None);
    };
    match name.to_ascii_lowercase().as_str() {
        "amqplain" => Ok(Some(AuthMechanism::AmqPlain)),
        "anonymous" => Ok(Some(AuthMechanism::Anonymous)),
        "external" => Ok(Some(AuthMechanism::External)),
        "plain" => Ok(Some(AuthMechanism::Plain)),
        "rabbit-cr-demo" => Ok(Some(AuthMechanism::RabbitCrDemo)),
        _ => Err(BadAmqpUrl(
            "has an auth_mechanism that is not known; say plain, external, amqplain, anonymous \
             or rabbit-cr-demo",
        )),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn every_component_is_decoded() {
        let url = "amqp://u%40x:p%2f%23%3f@mq.example.com:5673/a%2fb?heartbeat=30&frame_max=0";
        let url = AmqpUrl::parse(url).unwrap();
        assert_eq!(url.user.expose_secret(), "u@x");
        assert_eq!(url.password.expose_secret(), "p/#?");
        assert_eq!((url.host.as_str(), url.port), ("mq.example.com", 5673));
        assert_eq!(url.vhost, "a/b");
        assert_eq!((url.heartbeat, url.frame_max), (Some(30), Some(0)));
        assert!(!url.tls && !url.has_unused_parameters);
    }

    #[test]
    fn what_is_left_out_is_what_the_specification_says() {
        let url = AmqpUrl::parse("AMQPS://[2001:db8::1]").unwrap();
        assert_eq!(url.user.expose_secret(), "guest");
        assert_eq!(url.password.expose_secret(), "guest");
        assert_eq!((url.host.as_str(), url.port), ("2001:db8::1", 5671));
        assert_eq!(url.vhost, "/");
        assert!(url.tls && url.heartbeat.is_none());
        assert!(
            AmqpUrl::parse("amqp://mq?verify=x")
                .unwrap()
                .has_unused_parameters
        );
    }

    #[test]
    fn urls_that_the_connection_cannot_use_are_refused() {
        for url in [
            "",
            "broker:5672",
            "amqp:broker",
            "amqp:///x",
            "amqp://b{roker",
            "http://broker",
            "amqp://broker/",
            "amqp://broker/?heartbeat=10",
            "amqp://broker//",
            "amqp://broker/a/b",
            "amqp://broker/%ff",
            "amqp://u:%ff@broker",
            "amqp://broker:99999",
            "amqp://broker?heartbeat=30s",
            "amqp://broker?heartbeat=99999",
            "amqp://broker?frame_max=100",
            "amqp://broker?channel_max=1",
            "amqp://broker?auth_mechanism=scram",
            "amqp://bro\nker",
            "amqp://u:12/34@broker",
            "amqp://u:12?34@broker/vhost",
            "amqp://u:12#34@broker/vhost",
        ] {
            let error = AmqpUrl::parse(url).map(|_| ()).unwrap_err().to_string();
            for piece in ["broker", "12", "34@"] {
                assert!(!error.contains(piece), "{url}: {error}");
            }
        }
    }

    #[test]
    fn only_an_unencrypted_connection_off_this_machine_is_in_the_clear() {
        for (url, clear) in [
            ("amqp://localhost", false),
            ("amqp://127.0.0.1:5672/%2f", false),
            ("amqp://[::1]", false),
            ("amqps://mq.example.com", false),
            ("amqp://mq.example.com", true),
            ("amqp://127.evil.com", true),
            ("amqp://mq.localhost", true),
        ] {
            assert_eq!(
                AmqpUrl::parse(url).unwrap().is_in_the_clear(),
                clear,
                "{url}"
            );
        }
    }
}
