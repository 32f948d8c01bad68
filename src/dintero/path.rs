//! The endpoints' URLs. A username becomes exactly one path segment, whatever it holds.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use super::ClientError;
use crate::core::model::request::{AccountId, BadUsername, Username};

/// Everything but RFC 3986's unreserved characters. More than a segment needs encoded, but no
/// client, proxy or server on the way has an opinion of its own about these.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where the endpoints are.
pub(super) struct ApiPaths {
    /// The base URL and `/accounts/`.
    accounts: Box<str>,
}

impl ApiPaths {
    pub(super) fn new(base_url: &str) -> Result<Self, ClientError> {
        let base = Url::parse(base_url).map_err(|_| ClientError::BaseUrl("is no absolute URL"))?;
        let fault = if !matches!(base.scheme(), "http" | "https") {
            Some("is neither http nor https")
        } else if !base.username().is_empty() || base.password().is_some() {
            Some("carries credentials: give them in the settings of their own")
        } else if base.query().is_some() || base.fragment().is_some() {
            Some("has a query or a fragment")
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(ClientError::BaseUrl(fault));
        }
        let base = base.as_str().trim_end_matches('/');
        Ok(Self {
            accounts: format!("{base}/accounts/").into(),
        })
    }

    pub(super) fn is_https(&self) -> bool {
        self.accounts.starts_with("https:")
    }

    pub(super) fn change_username(
        &self,
        account: &AccountId,
        username: &Username,
    ) -> Result<Url, BadUsername> {
        if !username.fits_path() {
            return Err(BadUsername::DotSegment);
        }
        let name = username.reveal();
        // Enough for most names at once: one grows only when most of it needs encoding.
        let mut text = String::with_capacity(self.accounts.len() + name.len() * 3 / 2 + 64);
        text.push_str(&self.accounts);
        text.push_str(account.as_str());
        text.push_str("/auth/users/");
        text.extend(utf8_percent_encode(name, ENCODED));
        text.push_str("/change_username");
        Ok(parsed(&text))
    }

    pub(super) fn token(&self, account: &AccountId) -> Url {
        parsed(&format!("{}{}/auth/token", self.accounts, account.as_str()))
    }
}

fn parsed(text: &str) -> Url {
    Url::parse(text).expect("a valid base and unreserved characters make a valid URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(name: &str) -> String {
        let paths = ApiPaths::new("https://api.dintero.com/v1").unwrap();
        let account = AccountId::parse("T12345678").unwrap();
        let name = Username::parse(name).unwrap();
        let url = paths.change_username(&account, &name).unwrap();
        url.path().to_owned()
    }

    #[test]
    fn every_awkward_name_is_one_segment() {
        for (name, segment) in [
            ("ola@example.com", "ola%40example.com"),
            ("a/b", "a%2Fb"),
            ("../../token", "..%2F..%2Ftoken"),
            ("50%", "50%25"),
            ("%2e", "%252e"),
            ("%2E%2e", "%252E%252e"),
            ("a?b#c", "a%3Fb%23c"),
            ("a b+c", "a%20b%2Bc"),
            ("a\\b;c", "a%5Cb%3Bc"),
            ("\t\r\n\0", "%09%0D%0A%00"),
            ("Åse", "%C3%85se"),
            ("...", "..."),
            (" .", "%20."),
            ("~-._", "~-._"),
        ] {
            let expected = format!("/v1/accounts/T12345678/auth/users/{segment}/change_username");
            assert_eq!(path_of(name), expected, "{name:?}");
        }
    }

    #[test]
    fn dot_segments_make_no_url() {
        let paths = ApiPaths::new("http://127.0.0.1:1").unwrap();
        let account = AccountId::parse("P12345678").unwrap();
        for dots in [".", ".."] {
            let name = Username::parse(dots).unwrap();
            assert_eq!(
                paths.change_username(&account, &name),
                Err(BadUsername::DotSegment)
            );
        }
    }

    #[test]
    fn a_base_url_that_cannot_be_built_on_is_refused() {
        for bad in [
            "api.dintero.com",
            "ftp://a/v1",
            "https://u:p@a/v1",
            "https://a/v1?x=1",
            "https://a/v1#x",
        ] {
            assert!(
                matches!(ApiPaths::new(bad), Err(ClientError::BaseUrl(_))),
                "{bad}"
            );
        }
        let slashed = ApiPaths::new("http://127.0.0.1:8/v1/").unwrap();
        assert_eq!(
            slashed
                .token(&AccountId::parse("P12345678").unwrap())
                .as_str(),
            "http://127.0.0.1:8/v1/accounts/P12345678/auth/token"
        );
    }
}
