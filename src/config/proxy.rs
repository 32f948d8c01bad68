//! The proxy on the way to the API or the collector.
//!
//! Only the settings name one. The environment's own variables (`HTTPS_PROXY` and its kin) are
//! refused by the API's client and the exporter alike, since what a process happens to inherit
//! should not decide where tokens and usernames travel; that they are set is told.

use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::loopback::is_host;

/// A proxy that speaks HTTP, by itself or within TLS.
#[derive(Clone)]
pub struct ProxyUrl {
    /// Without user and password.
    pub url: Url,
    /// User and password for `Proxy-Authorization: Basic`.
    pub credentials: Option<(SecretString, SecretString)>,
}

/// What is wrong with a proxy's URL, to follow its key; it holds nothing of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadProxyUrl(&'static str);

impl ProxyUrl {
    pub fn parse(text: &str) -> Result<Self, BadProxyUrl> {
        let bad = |what| Err(BadProxyUrl(what));
        if text.chars().any(char::is_control) {
            return bad("holds a line break or another control character");
        }
        let Ok(mut url) = Url::parse(text) else {
            return bad(
                "is not a URL such as http://proxy:3128; if the user or password holds one of \
                 / ? # @ : % it must be written as %2f %3f %23 %40 %3a %25",
            );
        };
        if !matches!(url.scheme(), "http" | "https") {
            return bad("is not a proxy's URL; it must begin with http:// or https://");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return bad(
                "has a path, query or fragment; a proxy has a host and port only, and in user \
                 and password / ? # @ are written as %2f %3f %23 %40",
            );
        }
        if !url.host_str().is_some_and(is_host) {
            return bad("has a host that is neither a name nor an address");
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            let text = text.ok().filter(|text| !text.chars().any(char::is_control));
            text.map(|text| SecretString::from(text.into_owned()))
                .ok_or(BadProxyUrl(
                    "has a user or password that cannot be sent: it is not UTF-8 or has control \
                     characters once it is percent-decoded",
                ))
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decoded(user)?, decoded(password.unwrap_or_default())?)),
        };
        // A URL with a host can have both taken away.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { url, credentials })
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyUrl").finish_non_exhaustive()
    }
}

/// The environment's variables that other programs take a proxy from, in lower case.
const VARIABLES: [&str; 3] = ["https_proxy", "http_proxy", "all_proxy"];

/// Those of the variables that name a proxy, each as it is written.
pub(super) fn variables(env: &[(String, String)]) -> Vec<String> {
    let mut found: Vec<String> = env
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .filter(|(name, _)| VARIABLES.contains(&name.to_ascii_lowercase().as_str()))
        .map(|(name, _)| name.clone())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn user_and_password_are_decoded_and_taken_out_of_the_url() {
        let proxy = ProxyUrl::parse("http://bo%40b:p%2fw@proxy:3128").unwrap();
        assert_eq!(proxy.url.as_str(), "http://proxy:3128/");
        let (user, password) = proxy.credentials.unwrap();
        assert_eq!(user.expose_secret(), "bo@b");
        assert_eq!(password.expose_secret(), "p/w");
        assert!(
            ProxyUrl::parse("https://proxy")
                .unwrap()
                .credentials
                .is_none()
        );
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_a_word_of_it() {
        for url in [
            "",
            "hush:3128",
            "socks5://hush:1080",
            "http://hush:12/34@proxy",
            "http://hush:12\\34@proxy",
            "http://hush:12?34@proxy",
            "http://hush:12#34@proxy",
            "http://hush:%ff@proxy",
            "http://hush/path",
            "http://hu\nsh",
            "http://hush:99999",
        ] {
            let error = ProxyUrl::parse(url).unwrap_err().to_string();
            assert!(
                !error.contains("hush") && !error.contains("34@"),
                "{url}: {error}"
            );
        }
    }
}
