//! What the files that the settings name hold now, read as the run reads them: of no use to the
//! run, each is a mistake to `config check` and a warning at the run's start, since a file may
//! appear or be replaced while the worker runs.

use secrecy::ExposeSecret as _;

use super::amqp_url::AmqpUrl;
use super::pem::{self, BadIdentity, BadPem};
use super::secret::{Secret, token_fault};
use super::{AmqpSection, ApiSection, CredentialsSection, Settings};

/// Something wrong with what a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// `section.key`.
    pub key: String,
    /// To follow the key; it holds nothing of the file and nothing of its path.
    pub what: String,
}

/// Everything that the run could not use at this moment.
pub(super) fn faults(settings: &Settings) -> Vec<FileFault> {
    let mut faults = FileErrors::default();
    faults.amqp(&settings.amqp);
    faults.api(&settings.api);
    if let Some(Err(error)) = settings.log.hash_key.as_ref().map(Secret::read) {
        faults.add("log.hash_key_file", &error);
    }
    faults.0
}

#[derive(Default)]
struct FileErrors(Vec<FileFault>);

impl FileErrors {
    fn add(&mut self, key: impl Into<String>, what: &(impl ToString + ?Sized)) {
        self.0.push(FileFault {
            key: key.into(),
            what: what.to_string(),
        });
    }

    fn amqp(&mut self, amqp: &AmqpSection) {
        let tls = self.amqp_url(&amqp.url);
        if tls == Some(false) && amqp.url.file().is_some() {
            self.files_without_tls(amqp);
        }
        if let Some(path) = &amqp.ca_file {
            self.pem(
                "amqp.ca_file",
                pem::content(path).and_then(|pem| pem::authorities(&pem)),
            );
        } else if tls == Some(true) {
            self.system_roots("amqp.ca_file");
        }
        if let (Some(certificate), Some(key)) = (&amqp.client_cert_file, &amqp.client_key_file) {
            match pem::identity(certificate, key) {
                Ok(_) => {}
                Err(BadIdentity::Certificate(bad)) => self.add("amqp.client_cert_file", &bad),
                Err(BadIdentity::Key(bad)) => self.add("amqp.client_key_file", &bad),
            }
        }
    }

    fn files_without_tls(&mut self, amqp: &AmqpSection) {
        for (key, file) in [
            ("amqp.ca_file", &amqp.ca_file),
            ("amqp.client_cert_file", &amqp.client_cert_file),
            ("amqp.client_key_file", &amqp.client_key_file),
        ] {
            if file.is_some() {
                self.add(
                    key,
                    "is of no use: what amqp.url_file holds is amqp://; say amqps://",
                );
            }
        }
    }

    /// Whether TLS will be spoken, where that can be seen.
    fn amqp_url(&mut self, url: &Secret) -> Option<bool> {
        let text = match (url.read(), url) {
            (Ok(text), _) => text,
            (Err(error), Secret::File(_)) => {
                self.add("amqp.url_file", &error);
                return None;
            }
            // Told as a mistake of the settings already.
            (Err(_), Secret::Inline(_)) => return None,
        };
        match (AmqpUrl::parse(text.expose_secret()), url) {
            (Ok(url), _) => Some(url.tls),
            (Err(bad), Secret::File(_)) => {
                self.add("amqp.url_file", &format!("what it holds {bad}"));
                None
            }
            (Err(_), Secret::Inline(_)) => None,
        }
    }

    fn api(&mut self, api: &ApiSection) {
        if let Some(path) = &api.ca_file {
            self.pem(
                "api.ca_file",
                pem::content(path).and_then(|pem| pem::authorities(&pem)),
            );
        } else if api.base_url.starts_with("https:") {
            self.system_roots("api.ca_file");
        }
        if let Some(credentials) = &api.credentials {
            self.credentials("api", credentials);
        }
        for (account, credentials) in &api.accounts {
            self.credentials(&format!("api.accounts.{account}"), credentials);
        }
    }

    fn credentials(&mut self, section: &str, credentials: &CredentialsSection) {
        let (name, secret, is_token) = match credentials {
            CredentialsSection::Token(secret) => ("token_file", secret, true),
            CredentialsSection::Client { secret, .. } => ("client_secret_file", secret, false),
        };
        if secret.file().is_none() {
            return;
        }
        let key = format!("{section}.{name}");
        match secret.read() {
            Err(error) => self.add(key, &error),
            Ok(token) if is_token => {
                if let Some(fault) = token_fault(token.expose_secret()) {
                    self.add(key, &format!("what it holds {fault}"));
                }
            }
            Ok(_) => {}
        }
    }

    fn pem<T>(&mut self, key: &str, read: Result<T, BadPem>) {
        if let Err(bad) = read {
            self.add(key, &bad);
        }
    }

    fn system_roots(&mut self, key: &str) {
        if rustls_native_certs::load_native_certs().certs.is_empty() {
            self.add(
                key,
                "is not set, and this machine has no trusted certificates: install its \
                 ca-certificates package, or set SSL_CERT_FILE or this key",
            );
        }
    }
}
