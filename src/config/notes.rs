//! What is no mistake, yet worth a word before the worker runs: it may be as it should only where
//! the settings were checked, or be meant.

use secrecy::ExposeSecret as _;

use super::{Credentials, Log, Secret, Settings, Usernames, sections};

impl Settings {
    /// Looks at files as they are now; none of its words holds a secret.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        note_amqp_url(&self.amqp.url, &mut notes);
        for (key, file) in [
            ("amqp.ca_file", &self.amqp.ca_file),
            ("amqp.client_cert_file", &self.amqp.client_cert_file),
            ("amqp.client_key_file", &self.amqp.client_key_file),
            ("api.ca_file", &self.api.ca_file),
        ] {
            if let Some(path) = file
                && let Err(cause) = std::fs::File::open(path)
            {
                notes.push(format!("{key}: cannot open {}: {cause}", path.display()));
            }
        }
        if let Some(credentials) = &self.api.credentials {
            note_credentials("api", credentials, &mut notes);
        }
        for (account, credentials) in &self.api.accounts {
            note_credentials(&format!("api.accounts.{account}"), credentials, &mut notes);
        }
        if self.api.credentials.is_none() && self.api.accounts.is_empty() {
            notes.push("api: no credentials are set, so requests will wait for them".into());
        }
        if self.api.allow_insecure && self.api.base_url.starts_with("http://") {
            notes.push("api.base_url: tokens and usernames travel in the clear".into());
        }
        note_logged_names(&self.log, &mut notes);
        notes
    }
}

fn note_logged_names(log: &Log, notes: &mut Vec<String>) {
    /// In bytes. With a shorter key, somebody who has the log and a list of names can try all keys.
    const KEY_MIN: usize = 16;
    match (log.usernames, &log.hash_key) {
        (Usernames::Hidden, _) => {}
        (Usernames::Shown, _) => {
            notes.push("log.usernames: usernames appear in the logs".into());
        }
        (Usernames::Hashed, None) => notes.push(
            "log.usernames: usernames are hashed with a random key, so that the hashes of this \
             process match no other's; to compare them, set log.hash_key or log.hash_key_file"
                .into(),
        ),
        (Usernames::Hashed, Some(secret)) => match secret.read() {
            Err(error) => notes.push(format!("log.hash_key_file: {error}")),
            Ok(key) if key.expose_secret().len() < KEY_MIN => notes.push(format!(
                "log.hash_key: the key is shorter than {KEY_MIN} bytes and can be guessed"
            )),
            Ok(_) => {}
        },
    }
}

fn note_amqp_url(url: &Secret, notes: &mut Vec<String>) {
    let Secret::File(path) = url else { return };
    match url.read() {
        Err(error) => notes.push(format!("amqp.url_file: {error}")),
        Ok(text) => {
            if let Err(what) = sections::amqp_scheme(text.expose_secret()) {
                let path = path.display();
                notes.push(format!("amqp.url_file: what {path} holds {what}"));
            }
        }
    }
}

fn note_credentials(section: &str, credentials: &Credentials, notes: &mut Vec<String>) {
    let (key, secret) = match credentials {
        Credentials::Token(secret) => ("token_file", secret),
        Credentials::Client { secret, .. } => ("client_secret_file", secret),
    };
    if let Err(error) = secret.read() {
        notes.push(format!("{section}.{key}: {error}"));
    }
}
