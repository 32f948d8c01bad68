//! How usernames appear in log lines: not at all, hashed with a key, or as they are.

use std::fmt;

use ring::hmac::{self, HMAC_SHA256, Key};
use ring::rand::SystemRandom;
use secrecy::ExposeSecret as _;

use crate::config::{LogSection, SecretError, UsernameLogging};

/// The length of a hash in bytes: 2^32 different names before two are likely to share one, and
/// short enough to be read out.
const HASH_LEN: usize = 8;

/// How usernames appear.
#[derive(Debug, Clone)]
pub enum LoggedNames {
    /// They do not.
    Hidden,
    Hashed(NameHasher),
    Shown,
}

/// Why usernames cannot be hashed with the key that is asked for.
#[derive(Debug, thiserror::Error)]
#[error("log.hash_key_file: {0}")]
pub struct BadHashKey(#[from] SecretError);

impl LoggedNames {
    /// Reads the key, once: a key that changed while the worker runs would give one name two hashes
    /// in one log.
    pub fn new(log: &LogSection) -> Result<Self, BadHashKey> {
        Ok(match log.usernames {
            UsernameLogging::Hidden => Self::Hidden,
            UsernameLogging::Shown => Self::Shown,
            UsernameLogging::Hashed => Self::Hashed(match &log.hash_key {
                Some(key) => NameHasher::keyed(key.read()?.expose_secret()),
                None => NameHasher::with_random_key(),
            }),
        })
    }

    /// What a line says of this name.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<String> {
        match self {
            Self::Hidden => None,
            Self::Hashed(hasher) => Some(hasher.hash(name)),
            Self::Shown => Some(name.to_owned()),
        }
    }
}

/// HMAC-SHA256 of a name, cut short: who has the key can tell whether a hash is that of a name he
/// guesses, nobody else can.
#[derive(Clone)]
pub struct NameHasher {
    key: Key,
}

impl NameHasher {
    #[must_use]
    pub fn keyed(key: &str) -> Self {
        Self {
            key: Key::new(HMAC_SHA256, key.as_bytes()),
        }
    }

    /// Its hashes match those of no other process.
    #[must_use]
    pub fn with_random_key() -> Self {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new());
        Self {
            key: key.expect("the system has random numbers: TLS needs them as well"),
        }
    }

    #[must_use]
    pub fn hash(&self, name: &str) -> String {
        let tag = hmac::sign(&self.key, name.as_bytes());
        let kept = tag.as_ref().iter().take(HASH_LEN);
        let number = kept.fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        format!("{number:0width$x}", width = 2 * HASH_LEN)
    }
}

impl fmt::Debug for NameHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameHasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, Settings};

    const NAME: &str = "ola@example.com";

    fn log(usernames: UsernameLogging, hash_key: Option<Secret>) -> LogSection {
        LogSection {
            usernames,
            hash_key,
            ..Settings::default().log
        }
    }

    fn hashed(key: Option<Secret>) -> String {
        let names = LoggedNames::new(&log(UsernameLogging::Hashed, key)).unwrap();
        names.of(NAME).unwrap()
    }

    #[test]
    fn a_name_has_one_hash_a_key() {
        let key = || Some(Secret::inline("a key for the tests"));
        assert_eq!(hashed(key()), hashed(key()));
        assert_ne!(hashed(key()), hashed(Some(Secret::inline("another key"))));
        // Stays as it is, or searches in older logs find nothing:
        // printf %s ola@example.com | openssl dgst -sha256 -hmac 'a key for the tests'
        assert_eq!(hashed(key()), "f6f8e6f5e5007bce");
        let names = LoggedNames::new(&log(UsernameLogging::Hashed, key())).unwrap();
        assert_ne!(names.of("ola@example.org"), names.of(NAME));
    }

    #[test]
    fn without_a_key_each_process_has_its_own() {
        let (one, another) = (hashed(None), hashed(None));
        assert_ne!(one, another);
        assert_eq!(one.len(), 2 * HASH_LEN);
        let names = LoggedNames::new(&log(UsernameLogging::Hashed, None)).unwrap();
        assert_eq!(names.of(NAME), names.of(NAME));
    }

    #[test]
    fn the_key_may_be_in_a_file_and_one_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = || Some(Secret::File(path.clone()));
        let error = LoggedNames::new(&log(UsernameLogging::Hashed, key())).unwrap_err();
        assert!(
            error.to_string().starts_with("log.hash_key_file: "),
            "{error}"
        );
        std::fs::write(&path, "a key for the tests\n").unwrap();
        assert_eq!(
            hashed(key()),
            hashed(Some(Secret::inline("a key for the tests")))
        );
        // Who hashes nothing needs no key.
        std::fs::remove_file(&path).unwrap();
        LoggedNames::new(&log(UsernameLogging::Hidden, key())).unwrap();
    }

    #[test]
    fn names_appear_as_asked_and_the_key_never() {
        let key = || Some(Secret::inline("hush-hush"));
        let of = |usernames| LoggedNames::new(&log(usernames, key())).unwrap().of(NAME);
        assert_eq!(of(UsernameLogging::Hidden), None);
        assert_eq!(of(UsernameLogging::Shown).as_deref(), Some(NAME));
        let names = LoggedNames::new(&log(UsernameLogging::Hashed, key())).unwrap();
        let printed = format!("{names:?} {:?}", log(UsernameLogging::Hashed, key()));
        assert!(!printed.contains("hush"), "{printed}");
        assert!(!names.of(NAME).unwrap().contains("ola"));
    }
}
