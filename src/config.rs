//! Settings: TOML and environment, parsed once into valid, immutable values.
//!
//! [`keys`] is the one table of what can be set; reading, the did-you-means, `config show` and
//! `docs/settings.md` all come from it. Every mistake is collected before any is told. A secret's
//! file is opened at each use, so that a rotated secret needs no restart; here only to say beforehand
//! what the run could not use. No mistake holds any part of a value.

mod amqp_url;
mod bom;
mod check;
mod files;
pub mod keys;
mod retry_delays;
mod layers;
mod loopback;
mod errors;
mod warnings;
pub mod pem;
mod proxy;
mod reader;
mod secret;
mod sections;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::core::model::request::AccountId;

pub use amqp_url::{AmqpUrl, AuthMechanism, BadAmqpUrl};
pub use bom::{text_without_bom, without_bom};
pub use errors::{ConfigError, ConfigErrors, ValueOrigin};
pub use files::FileFault;
pub use layers::environment;
pub use loopback::is_loopback;
pub use proxy::{BadProxyUrl, ProxyUrl};
pub use reader::EffectiveSettings;
pub use retry_delays::{BadLadder, RetryDelays};
pub use secret::{Secret, SecretError, token_fault};

/// Everything that can be set, valid.
#[derive(Debug, Clone)]
pub struct Settings {
    pub amqp: AmqpSection,
    pub api: ApiSection,
    pub consumer: ConsumerSection,
    pub retry: RetrySection,
    pub hold: HoldSection,
    pub dead_letters: DeadLettersSection,
    pub admin: AdminSection,
    pub log: LogSection,
    pub events: EventsSection,
    pub otlp: OtlpSection,
    /// The environment's proxy variables that are set, by their names; none of them is used.
    pub unused_proxy_variables: Vec<String>,
}

/// The broker, and the names on it.
#[derive(Debug, Clone)]
pub struct AmqpSection {
    /// `amqp://` or `amqps://`, with the password in it.
    pub url: Secret,
    pub ca_file: Option<PathBuf>,
    pub client_cert_file: Option<PathBuf>,
    /// Set exactly when `client_cert_file` is.
    pub client_key_file: Option<PathBuf>,
    pub prefix: String,
    pub declare_topology: bool,
}

/// Dintero's API.
#[derive(Debug, Clone)]
pub struct ApiSection {
    /// Without a trailing slash.
    pub base_url: String,
    pub allow_insecure: bool,
    pub ca_file: Option<PathBuf>,
    /// On the way to every host but this machine.
    pub proxy: Option<ProxyUrl>,
    /// For every account that has none of its own.
    pub credentials: Option<CredentialsSection>,
    pub accounts: BTreeMap<AccountId, CredentialsSection>,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// Per account.
    pub requests_per_second: Option<NonZeroU32>,
    pub verify_user: VerifyUser,
}

/// What opens the API.
#[derive(Debug, Clone)]
pub enum CredentialsSection {
    /// A token as it is.
    Token(Secret),
    /// What Get Token is asked with.
    Client { id: String, secret: Secret },
}

/// When a request's `user_id` is compared with the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyUser {
    /// By a self-rename before the rename: a wrong user is never renamed.
    Before,
    /// In the rename's own answer: one call fewer, but a wrong user is told only afterwards.
    After,
}

#[derive(Debug, Clone)]
pub struct ConsumerSection {
    /// Calls in flight. The machine's rules make the prefetch of it, which is more.
    pub concurrency: NonZeroU16,
    /// What one account may have of what is in hand while there are others: above 0, up to 1.
    pub account_share: f64,
    /// Requests in the wait queues beyond which no new ones are taken.
    pub max_deferred: u32,
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct RetrySection {
    pub initial_delay: Duration,
    pub multiplier: f64,
    /// The share by which a delay varies to either side, 0 to 1.
    pub jitter: f64,
    pub max_delay: Duration,
    pub max_attempts: u32,
    /// Since the first attempt.
    pub max_elapsed: Duration,
    /// The longest delay that is waited in the worker rather than in the ladder.
    pub local_wait: Duration,
    pub ladder: RetryDelays,
}

#[derive(Debug, Clone)]
pub struct HoldSection {
    /// Transient failures in a row that begin a hold.
    pub failures: u32,
    pub first_probe: Duration,
    pub max_probe: Duration,
}

#[derive(Debug, Clone)]
pub struct DeadLettersSection {
    /// How long a discarded one is kept.
    pub keep_discarded: Duration,
}

#[derive(Debug, Clone)]
pub struct AdminSection {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone)]
pub struct LogSection {
    pub format: LogFormat,
    /// A level, or `target=level` pairs, separated by commas.
    pub level: String,
    pub usernames: UsernameLogging,
    /// What usernames are hashed with; without one, a random key a process.
    pub hash_key: Option<Secret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    Text,
    Json,
}

/// How usernames appear in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsernameLogging {
    Hidden,
    Hashed,
    Shown,
}

#[derive(Debug, Clone)]
pub struct EventsSection {
    /// The `source` of every event.
    pub source: String,
}

#[derive(Debug, Clone)]
pub struct OtlpSection {
    /// Where traces go; none are sent without it.
    pub endpoint: Option<String>,
    /// On the way there, unless it is on this machine.
    pub proxy: Option<ProxyUrl>,
}

impl Settings {
    /// Reads the file, if there is one, and lays the environment over it.
    pub fn load(
        config_file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Self::explain(config_file, env).map(|(settings, _)| settings)
    }

    /// As [`Settings::load`], and says of each key what it is and where it came from.
    pub fn explain(
        config_file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<EffectiveSettings>), ConfigErrors> {
        let (settings, reader) = Self::read(config_file, env);
        Ok((settings, reader.finish()?))
    }

    /// As [`Settings::explain`], and what the run could not use of the files that are named is
    /// among the mistakes.
    pub fn check(
        config_file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<EffectiveSettings>), ConfigErrors> {
        let (settings, mut reader) = Self::read(config_file, env);
        for FileFault { key, what } in settings.file_faults() {
            reader.mistake(&key, what);
        }
        Ok((settings, reader.finish()?))
    }

    /// What the run could not use of the files that are named, as they are now.
    #[must_use]
    pub fn file_faults(&self) -> Vec<FileFault> {
        files::faults(self)
    }

    fn read(
        config_file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> (Self, reader::SettingsReader) {
        let env: Vec<_> = env.collect();
        let unused_proxy_variables = proxy::variables(&env);
        let mut mistakes = ConfigErrors::default();
        let layers = layers::collect(config_file, env.into_iter(), &mut mistakes);
        let mut reader = reader::SettingsReader::new(layers, mistakes);
        let mut settings = sections::settings(&mut reader);
        settings.unused_proxy_variables = unused_proxy_variables;
        (settings, reader)
    }
}

impl Default for Settings {
    /// Every key at its default, as the table says it.
    fn default() -> Self {
        Self::load(None, std::iter::empty()).expect("the defaults have no mistakes")
    }
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
