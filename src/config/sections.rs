//! Each section from its keys, and the rules between keys.
//!
//! After a mistake a placeholder goes on in its place; nothing of it leaves, since the reader then
//! ends in the mistakes.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use secrecy::ExposeSecret as _;
use url::Url;

use super::amqp_url::AmqpUrl;
use super::loopback::{is_host, is_loopback};
use super::proxy::ProxyUrl;
use super::reader::SettingsReader;
use super::secret::{Secret, client_id_fault, token_fault};
use super::values;
use super::{
    AdminSection, AmqpSection, ApiSection, ConsumerSection, CredentialsSection, DeadLettersSection,
    EventsSection, HoldSection, LogFormat, LogSection, OtlpSection, RetrySection, Settings,
    UsernameLogging, VerifyUser,
};
use crate::core::model::request::AccountId;

pub(super) fn settings(reader: &mut SettingsReader) -> Settings {
    Settings {
        amqp: amqp(reader),
        api: api(reader),
        consumer: consumer(reader),
        retry: retry(reader),
        hold: hold(reader),
        dead_letters: DeadLettersSection {
            keep_discarded: reader.duration("dead_letters.keep_discarded"),
        },
        admin: AdminSection {
            listen: reader.required("admin.listen", values::address),
        },
        log: log(reader),
        events: events(reader),
        otlp: otlp(reader),
        unused_proxy_variables: Vec::new(),
    }
}

fn amqp(reader: &mut SettingsReader) -> AmqpSection {
    let url = secret(reader, "amqp.url", "amqp.url_file");
    let mut plain = false;
    if let Some(Secret::Inline(text)) = &url {
        match AmqpUrl::parse(text.expose_secret()) {
            Ok(url) => plain = !url.tls,
            Err(bad) => reader.mistake("amqp.url", bad.to_string()),
        }
    }
    let [ca_file, client_cert_file, client_key_file] = [
        "amqp.ca_file",
        "amqp.client_cert_file",
        "amqp.client_key_file",
    ]
    .map(|path| {
        if plain && reader.is_given(path) {
            reader.mistake(path, "is of no use: amqp.url is amqp://; say amqps://");
        }
        file(reader, path)
    });
    match ["amqp.client_cert_file", "amqp.client_key_file"].map(|path| reader.is_given(path)) {
        [true, false] => reader.mistake(
            "amqp.client_cert_file",
            "needs its key: set amqp.client_key_file",
        ),
        [false, true] => reader.mistake(
            "amqp.client_key_file",
            "needs its certificate: set amqp.client_cert_file",
        ),
        _ => {}
    }
    let prefix = reader.text("amqp.prefix").unwrap_or_default();
    if let Err(what) = check_prefix(&prefix) {
        reader.mistake("amqp.prefix", what);
    }
    AmqpSection {
        url: url.unwrap_or_else(|| Secret::inline("")),
        ca_file,
        client_cert_file,
        client_key_file,
        prefix,
        declare_topology: reader.flag("amqp.declare_topology"),
    }
}

fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    /// Leaves room in a queue's name, 255 bytes at most, for what follows; in bytes.
    const MAX: usize = 64;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if prefix.len() > MAX || !prefix.chars().all(plain) {
        return Err("does not fit; say 1 to 64 letters, digits, `.`, `-` and `_`");
    }
    if prefix == "amq" || prefix.starts_with("amq.") {
        return Err("does not fit: names that begin with amq. are the broker's own");
    }
    Ok(())
}

fn api(reader: &mut SettingsReader) -> ApiSection {
    let allow_insecure = reader.flag("api.allow_insecure");
    let base_url = base_url(reader, allow_insecure);
    let ca_file = file(reader, "api.ca_file");
    let proxy = proxy(reader, "api.proxy");
    let credentials = credentials_at(reader, "api.");
    let mut accounts = BTreeMap::new();
    for aid in reader.accounts() {
        let given = credentials_at(reader, &format!("api.accounts.{aid}."));
        if let (Ok(account), Some(given)) = (AccountId::parse(&aid), given) {
            accounts.insert(account, given);
        }
    }
    let timeout = reader.duration("api.timeout");
    let connect_timeout = reader.duration_within("api.connect_timeout", ("api.timeout", timeout));
    let verify_user = match reader.required("api.verify_user", values::choice) {
        0 => VerifyUser::Before,
        _ => VerifyUser::After,
    };
    ApiSection {
        base_url,
        allow_insecure,
        ca_file,
        proxy,
        credentials,
        accounts,
        timeout,
        connect_timeout,
        requests_per_second: reader
            .count("api.requests_per_second")
            .and_then(NonZeroU32::new),
        verify_user,
    }
}

fn base_url(reader: &mut SettingsReader, allow_insecure: bool) -> String {
    let Some(text) = reader.text("api.base_url") else {
        return String::new();
    };
    match http_url(&text) {
        Err(what) => {
            reader.mistake("api.base_url", what);
            String::new()
        }
        Ok(url) => {
            let here = url.host_str().is_some_and(is_loopback);
            if url.scheme() == "http" && !here && !allow_insecure {
                let what = "is plain http beyond this machine: tokens and usernames would travel \
                    in the clear; say https://, or set api.allow_insecure";
                reader.mistake("api.base_url", what);
            }
            url.as_str().trim_end_matches('/').into()
        }
    }
}

/// A URL that calls can be made below. What is wrong never quotes it.
fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "is not a URL".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is no http URL; it begins with https:// or http://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password; leave them out".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment; leave it out".into());
    }
    if !url.host_str().is_some_and(is_host) {
        return Err("has a host that is neither a name nor an address".into());
    }
    Ok(url)
}

/// A token, or a client, whole; `at` is where the keys are, with its last dot.
fn credentials_at(reader: &mut SettingsReader, at: &str) -> Option<CredentialsSection> {
    let path = |name: &str| format!("{at}{name}");
    let [
        token,
        token_file,
        client_id,
        client_secret,
        client_secret_file,
    ] = [
        "token",
        "token_file",
        "client_id",
        "client_secret",
        "client_secret_file",
    ]
    .map(path);
    let has_token = reader.is_given(&token) || reader.is_given(&token_file);
    let secret_path = [&client_secret, &client_secret_file]
        .into_iter()
        .find(|path| reader.is_given(path));
    let has_id = reader.is_given(&client_id);
    let has_client = has_id || secret_path.is_some();
    if has_token && has_client {
        let said = if has_id {
            Some(&client_id)
        } else {
            secret_path
        };
        let both = format!("is set beside {at}token; a token and a client exclude each other");
        reader.mistake(said.unwrap_or(&client_id), both);
    } else if has_id && secret_path.is_none() {
        let what = format!("needs its secret: set {client_secret} or {client_secret_file}");
        reader.mistake(&client_id, what);
    } else if let (false, Some(secret)) = (has_id, secret_path) {
        reader.mistake(secret, format!("needs its client: set {client_id}"));
    }
    let token = token_of(reader, &token, &token_file);
    let id = reader.text(&client_id);
    if let Some(fault) = id.as_deref().and_then(client_id_fault) {
        reader.mistake(&client_id, fault);
    }
    let client = secret(reader, &client_secret, &client_secret_file);
    match (token, id, client) {
        (Some(token), _, _) => Some(CredentialsSection::Token(token)),
        (None, Some(id), Some(secret)) => Some(CredentialsSection::Client { id, secret }),
        _ => None,
    }
}

/// A secret given inline or in a file, not both; a default gives way to the file.
fn secret(reader: &mut SettingsReader, inline: &str, file: &str) -> Option<Secret> {
    if !reader.is_given(file) {
        reader.unset(file);
        let given = Secret::inline(&reader.text(inline)?);
        if let Err(error) = given.read() {
            reader.mistake(inline, error.to_string());
            return None;
        }
        return Some(given);
    }
    if reader.is_given(inline) {
        let other = reader.origin(inline);
        reader.mistake(file, format!("is set beside {inline} ({other}); keep one"));
    }
    reader.unset(inline);
    let path = reader.text(file)?;
    if !can_be_a_path(&path) {
        reader.mistake(
            file,
            format!("is not a path; a secret itself belongs in {inline}"),
        );
        return None;
    }
    Some(Secret::File(path.into()))
}

/// As [`secret`], of which a token is made.
fn token_of(reader: &mut SettingsReader, inline: &str, file: &str) -> Option<Secret> {
    let token = secret(reader, inline, file)?;
    if let Secret::Inline(text) = &token
        && let Some(fault) = token_fault(text.expose_secret())
    {
        reader.mistake(inline, fault);
    }
    Some(token)
}

fn file(reader: &mut SettingsReader, path: &str) -> Option<PathBuf> {
    let text = reader.text(path)?;
    if can_be_a_path(&text) {
        return Some(text.into());
    }
    reader.mistake(
        path,
        "is not a path; what the file would hold is not read from here",
    );
    None
}

/// Whether a text can be a file's path rather than what was to be in the file: `config show`
/// shows paths.
fn can_be_a_path(text: &str) -> bool {
    /// No sensible path is longer, in bytes.
    const PATH_MAX: usize = 1024;
    let is_content = text.contains("://")
        || text.contains("-----BEGIN")
        || text.starts_with("eyJ")
        || text.chars().any(char::is_control);
    !is_content && text.len() <= PATH_MAX
}

fn proxy(reader: &mut SettingsReader, path: &str) -> Option<ProxyUrl> {
    let text = reader.text(path)?;
    match ProxyUrl::parse(&text) {
        Ok(proxy) => Some(proxy),
        Err(bad) => {
            reader.mistake(path, bad.to_string());
            None
        }
    }
}

fn consumer(reader: &mut SettingsReader) -> ConsumerSection {
    let concurrency = reader.required("consumer.concurrency", values::count);
    let concurrency = u16::try_from(concurrency).ok().and_then(NonZeroU16::new);
    ConsumerSection {
        concurrency: concurrency.expect("its bounds fit"),
        account_share: reader.decimal("consumer.account_share"),
        max_deferred: reader.required("consumer.max_deferred", values::count),
        drain_timeout: reader.duration("consumer.drain_timeout"),
    }
}

fn retry(reader: &mut SettingsReader) -> RetrySection {
    let max_delay = reader.duration("retry.max_delay");
    let bound = ("retry.max_delay", max_delay);
    RetrySection {
        initial_delay: reader.duration_within("retry.initial_delay", bound),
        multiplier: reader.decimal("retry.multiplier"),
        jitter: reader.decimal("retry.jitter"),
        max_delay,
        max_attempts: reader.required("retry.max_attempts", values::count),
        max_elapsed: reader.duration("retry.max_elapsed"),
        local_wait: reader.duration("retry.local_wait"),
        ladder: reader.required("retry.ladder", values::ladder),
    }
}

fn hold(reader: &mut SettingsReader) -> HoldSection {
    let max_probe = reader.duration("hold.max_probe");
    HoldSection {
        failures: reader.required("hold.failures", values::count),
        first_probe: reader.duration_within("hold.first_probe", ("hold.max_probe", max_probe)),
        max_probe,
    }
}

fn log(reader: &mut SettingsReader) -> LogSection {
    let format = match reader.required("log.format", values::choice) {
        0 => LogFormat::Auto,
        1 => LogFormat::Text,
        _ => LogFormat::Json,
    };
    let level = reader.required("log.level", values::text);
    if !level.split(',').all(is_directive) {
        let what = "does not fit; say error, warn, info, debug, trace or off, or several such as \
            info,rename_worker::broker=debug";
        reader.mistake("log.level", what);
    }
    let usernames = match reader.required("log.usernames", values::choice) {
        0 => UsernameLogging::Hidden,
        1 => UsernameLogging::Hashed,
        _ => UsernameLogging::Shown,
    };
    LogSection {
        format,
        level,
        usernames,
        hash_key: secret(reader, "log.hash_key", "log.hash_key_file"),
    }
}

/// `level` or `target=level`. The subscriber would take a misspelt level for a target.
fn is_directive(directive: &str) -> bool {
    let (target, level) = directive.split_once('=').unwrap_or(("all", directive));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:-".contains(c);
    !target.is_empty()
        && target.chars().all(is_name)
        && ["off", "error", "warn", "info", "debug", "trace"].contains(&level)
}

fn events(reader: &mut SettingsReader) -> EventsSection {
    /// CloudEvents asks for events under 64 KiB whole; no sensible source is longer, in bytes.
    const SOURCE_MAX: usize = 255;
    let source = reader.required("events.source", values::text);
    // RFC 3986 leaves these out of every URI reference.
    let stray = |c: char| c.is_whitespace() || c.is_control() || "<>\"{}|\\^`".contains(c);
    if source.len() > SOURCE_MAX || source.contains(stray) {
        let what = "is no URI reference; say one such as /rename-worker, without spaces";
        reader.mistake("events.source", what);
    }
    EventsSection { source }
}

fn otlp(reader: &mut SettingsReader) -> OtlpSection {
    let endpoint = reader.text("otlp.endpoint").and_then(|text| {
        let url = http_url(&text);
        url.map_err(|what| reader.mistake("otlp.endpoint", what))
            .ok()
    });
    OtlpSection {
        // As it is parsed, since the exporter's own parser takes less.
        endpoint: endpoint.map(String::from),
        proxy: proxy(reader, "otlp.proxy"),
    }
}
