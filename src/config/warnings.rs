//! What is no mistake, yet worth a word before the worker runs.

use secrecy::{ExposeSecret as _, SecretString};

use super::amqp_url::AmqpUrl;
use super::loopback::is_loopback;
use super::{LogSection, Settings, UsernameLogging};

impl Settings {
    /// What an operator should know; none of its words holds a secret. What is wrong with files is
    /// told by [`Settings::file_faults`].
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut notes = Vec::new();
        self.note_broker(&mut notes);
        self.note_proxies(&mut notes);
        if self.api.credentials.is_none() && self.api.accounts.is_empty() {
            notes.push("api: no credentials are set, so requests will wait for them".into());
        }
        if self.api.base_url.starts_with("http://") && !is_here(&self.api.base_url) {
            notes.push("api.base_url: tokens and usernames travel in the clear".into());
        }
        note_logged_names(&self.log, &mut notes);
        notes
    }

    fn note_broker(&self, notes: &mut Vec<String>) {
        let key = match self.amqp.url.file() {
            None => "amqp.url",
            Some(_) => "amqp.url_file",
        };
        let Ok(text) = self.amqp.url.read() else {
            return;
        };
        let Ok(url) = AmqpUrl::parse(text.expose_secret()) else {
            return;
        };
        if url.is_in_the_clear() {
            notes.push(format!(
                "{key}: the broker's password and usernames travel in the clear to another \
                 machine; say amqps://"
            ));
        }
        if url.has_unused_parameters {
            notes.push(format!(
                "{key}: has parameters that are used for nothing; used are heartbeat, frame_max, \
                 channel_max and auth_mechanism, and TLS has settings of its own"
            ));
        }
    }

    fn note_proxies(&self, notes: &mut Vec<String>) {
        let api = (&self.api.proxy, Some(&self.api.base_url), "api.proxy");
        let otlp = (&self.otlp.proxy, self.otlp.endpoint.as_ref(), "otlp.proxy");
        let mut missing = Vec::new();
        for (proxy, to, key) in [api, otlp] {
            let leaves = to.is_some_and(|url| !is_here(url));
            match proxy {
                Some(_) if !leaves => notes.push(format!(
                    "{key}: is used for nothing, since nothing leaves this machine for it"
                )),
                None if leaves => missing.push(key),
                _ => {}
            }
        }
        if !missing.is_empty() && !self.unused_proxy_variables.is_empty() {
            let variables = self.unused_proxy_variables.join(", ");
            let keys = missing.join(" and ");
            notes.push(format!(
                "{variables}: set in the environment and used for nothing; a proxy is named by {keys}"
            ));
        }
    }
}

/// Whether a URL's host is this machine.
fn is_here(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(is_loopback))
}

fn note_logged_names(log: &LogSection, notes: &mut Vec<String>) {
    /// In bytes. With a shorter key, somebody who has the log and a list of names can try all keys.
    const KEY_MIN: usize = 16;
    match (log.usernames, &log.hash_key) {
        (UsernameLogging::Hidden, _) => {}
        (UsernameLogging::Shown, _) => {
            notes.push("log.usernames: usernames appear in the logs".into());
        }
        (UsernameLogging::Hashed, None) => notes.push(
            "log.usernames: usernames are hashed with a random key, so that the hashes of this \
             process match no other's; to compare them, set log.hash_key or log.hash_key_file"
                .into(),
        ),
        (UsernameLogging::Hashed, Some(secret)) => {
            let is_short = |key: &SecretString| key.expose_secret().len() < KEY_MIN;
            if secret.read().is_ok_and(|key| is_short(&key)) {
                notes.push(format!(
                    "log.hash_key: the key is shorter than {KEY_MIN} bytes and can be guessed"
                ));
            }
        }
    }
}
