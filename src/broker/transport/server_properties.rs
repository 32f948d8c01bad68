//! Reads a broker's version out of its greeting.
//!
//! lapin does not tell the server's properties, and one argument of one queue depends on the
//! version, dangerously: `x-delivery-limit` -1 means "none" from RabbitMQ 4.0 on, while 3.10 takes
//! it too and then drops a message the first time that it is requeued.

use std::sync::OnceLock;

use crate::broker::error::BrokerError;

/// What `connection.start`, the first method that a broker sends, begins with.
const START: &[u8] = b"\x00\x0a\x00\x0a";

/// What was heard of the broker's greeting so far.
#[derive(Debug, Default)]
pub(in crate::broker) struct ServerVersion(OnceLock<String>);

impl ServerVersion {
    /// Takes note if this method is the greeting.
    pub(in crate::broker) fn parse(&self, method: &[u8]) {
        if method.starts_with(START)
            && let Some(version) = version_in(method)
        {
            // There is one greeting a connection.
            self.0.set(version).ok();
        }
    }

    /// The first number of the broker's version.
    pub(in crate::broker) fn major_version(&self) -> Result<u32, BrokerError> {
        let version = self.0.get().map_or("", String::as_str);
        let major = version.split('.').next().and_then(|n| n.parse().ok());
        major.ok_or_else(|| BrokerError::Refused(format!("it calls its version {version:?}")))
    }
}

/// The server property `version`: its name, `S` for a long string, 4 bytes of length, the text.
fn version_in(payload: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\x07versionS";
    let name = payload.windows(NAME.len()).position(|part| part == NAME)?;
    let (length, rest) = payload.get(name + NAME.len()..)?.split_first_chunk::<4>()?;
    let text = rest.get(..u32::from_be_bytes(*length) as usize)?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &[u8] = b"\x00\x0a\x00\x0a\x00\x09\x07productS\x00\x00\x00\x08RabbitMQ\
        \x07versionS\x00\x00\x00\x053.8.1";

    #[test]
    fn the_version_is_found_in_a_greeting_and_in_no_part_of_it() {
        for end in 0..GREETING.len() {
            let greeting = ServerVersion::default();
            greeting.parse(&GREETING[..end]);
            assert!(greeting.major_version().is_err());
        }
        let greeting = ServerVersion::default();
        greeting.parse(GREETING);
        assert_eq!(greeting.major_version().ok(), Some(3));
    }

    #[test]
    fn no_other_method_is_taken_for_a_greeting() {
        let greeting = ServerVersion::default();
        greeting.parse(&[&b"\x00\x3c\x00\x3c"[..], GREETING].concat());
        assert!(greeting.major_version().is_err());
    }
}
