//! The proxy on the way to a URL: the settings' one, or none for what is on this machine; and the
//! exporter's client, so that the environment's proxy variables mean nothing to it either.

use reqwest::{Proxy, Url};
use secrecy::ExposeSecret as _;

use super::ClientError;
use crate::config::{ProxyUrl, is_loopback};
#[cfg(feature = "otlp")]
use std::time::Duration;

/// The proxy to reach `url` by.
pub(super) fn to(url: &str, proxy: Option<&ProxyUrl>) -> Result<Option<Proxy>, ClientError> {
    let here = Url::parse(url)
        .ok()
        .is_some_and(|url| url.host_str().is_some_and(is_loopback));
    let Some(ProxyUrl { url, credentials }) = proxy.filter(|_| !here) else {
        return Ok(None);
    };
    let proxy = Proxy::all(url.clone()).map_err(ClientError::Http)?;
    Ok(Some(match credentials {
        Some((user, password)) => proxy.basic_auth(user.expose_secret(), password.expose_secret()),
        None => proxy,
    }))
}

/// What the exporter sends with.
#[cfg(feature = "otlp")]
pub type CollectorClient = reqwest::blocking::Client;

/// Nothing is exported.
#[cfg(not(feature = "otlp"))]
pub type CollectorClient = ();

/// The client for `otlp.endpoint`; none where that is not set.
#[cfg(feature = "otlp")]
pub fn collector_client(
    otlp: &crate::config::OtlpSection,
) -> Result<Option<CollectorClient>, ClientError> {
    let Some(endpoint) = &otlp.endpoint else {
        return Ok(None);
    };
    // The TLS of a client that is given none is the process's provider's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let proxy = to(endpoint, otlp.proxy.as_ref())?;
    let make = move || {
        let builder = match proxy {
            Some(proxy) => CollectorClient::builder().proxy(proxy),
            None => CollectorClient::builder().no_proxy(),
        };
        builder.timeout(export_timeout()).build()
    };
    // The blocking client starts a runtime of its own, which it may not inside of another.
    let made = std::thread::spawn(make).join();
    let made = made.expect("making a client does not panic");
    made.map(Some).map_err(ClientError::Http)
}

/// What stands for the client of `otlp.endpoint`, which this build cannot export to.
#[cfg(not(feature = "otlp"))]
pub fn collector_client(
    otlp: &crate::config::OtlpSection,
) -> Result<Option<CollectorClient>, ClientError> {
    Ok(otlp.endpoint.as_ref().map(|_| ()))
}

/// OpenTelemetry's own setting, in milliseconds; its specification's default is 10 s.
#[cfg(feature = "otlp")]
fn export_timeout() -> Duration {
    let variables = [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];
    let set = variables
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let millis = set.and_then(|millis| millis.parse().ok());
    millis.map_or(Duration::from_secs(10), Duration::from_millis)
}
