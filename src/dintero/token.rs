//! The bearer token for an account: given in the settings, or got from Get Token and kept.
//!
//! A kept token is renewed ahead of its expiry and after a 401, by one request however many calls
//! wait for it; those that waited share its failure as well. Whether and when to try again after a
//! failure is `core`'s decision.

mod client_credentials;
mod grant;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use reqwest::header::HeaderValue;
use secrecy::ExposeSecret as _;

use super::http::HttpClient;
use crate::config::{ApiSection, CredentialsSection, Secret};
use crate::core::model::api_response::TokenError;
use crate::core::model::request::AccountId;
use client_credentials::ClientCredentialsTokens;

/// Every account's tokens.
pub(super) struct TokenSet {
    /// For accounts that have none of their own.
    default: Option<TokenSource>,
    accounts: BTreeMap<AccountId, TokenSource>,
}

/// A token as a header, and which one in its source's line it is.
#[derive(Clone)]
pub(super) struct BearerToken {
    header: HeaderValue,
    generation: u64,
}

enum TokenSource {
    Given(StaticToken),
    Asked(ClientCredentialsTokens),
}

impl BearerToken {
    fn new(token: &str, generation: u64) -> Option<Self> {
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        header.set_sensitive(true);
        Some(Self { header, generation })
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl TokenSet {
    pub(super) fn new(api: &ApiSection) -> Self {
        let accounts = api.accounts.iter();
        Self {
            default: api.credentials.as_ref().map(TokenSource::new),
            accounts: accounts
                .map(|(account, credentials)| (account.clone(), TokenSource::new(credentials)))
                .collect(),
        }
    }

    /// The account's token, got anew if need be.
    pub(super) async fn bearer(
        &self,
        http: &HttpClient,
        account: &AccountId,
    ) -> Result<BearerToken, TokenError> {
        match self.source(account)? {
            TokenSource::Given(given) => given.current(),
            TokenSource::Asked(asked) => asked.bearer(http, account).await,
        }
    }

    /// Another token after `refused` was answered by a 401; none if there is no other to be had.
    pub(super) async fn renewed(
        &self,
        http: &HttpClient,
        account: &AccountId,
        refused: &BearerToken,
    ) -> Result<Option<BearerToken>, TokenError> {
        match self.source(account)? {
            TokenSource::Given(given) => given.refreshed_if_not(refused),
            TokenSource::Asked(asked) => asked.renewed(http, account, refused).await.map(Some),
        }
    }

    fn source(&self, account: &AccountId) -> Result<&TokenSource, TokenError> {
        let own = self.accounts.get(account);
        own.or(self.default.as_ref()).ok_or(TokenError::Missing)
    }
}

impl TokenSource {
    fn new(credentials: &CredentialsSection) -> Self {
        match credentials {
            CredentialsSection::Token(secret) => Self::Given(StaticToken {
                secret: secret.clone(),
                read: Mutex::new(None),
            }),
            CredentialsSection::Client { id, secret } => {
                Self::Asked(ClientCredentialsTokens::new(id, secret))
            }
        }
    }
}

/// A token as it is, inline or in a file.
struct StaticToken {
    secret: Secret,
    read: Mutex<Option<ReadToken>>,
}

struct ReadToken {
    bearer: BearerToken,
    /// How the file looked when it was read.
    stamp: Option<FileVersion>,
}

/// What tells a file that was written from one that was not: one look at it instead of reading it
/// at each call. A write that this misses is found by the 401 that follows.
type FileVersion = (SystemTime, u64);

impl StaticToken {
    fn current(&self) -> Result<BearerToken, TokenError> {
        let mut read = locked(&self.read);
        let stamp = self.stamp()?;
        match &*read {
            Some(known) if known.stamp == stamp => Ok(known.bearer.clone()),
            _ => self.reload(&mut read, stamp),
        }
    }

    fn refreshed_if_not(&self, refused: &BearerToken) -> Result<Option<BearerToken>, TokenError> {
        let mut read = locked(&self.read);
        let stamp = self.stamp()?;
        let bearer = self.reload(&mut read, stamp)?;
        Ok((bearer.generation != refused.generation).then_some(bearer))
    }

    fn reload(
        &self,
        read: &mut Option<ReadToken>,
        stamp: Option<FileVersion>,
    ) -> Result<BearerToken, TokenError> {
        let secret = self.secret.read().map_err(|_| TokenError::Missing)?;
        let generation = read.as_ref().map_or(0, |known| known.bearer.generation);
        let mut bearer =
            BearerToken::new(secret.expose_secret(), generation).ok_or(TokenError::Missing)?;
        if let Some(known) = read
            && known.bearer.header != bearer.header
        {
            bearer.generation += 1;
        }
        *read = Some(ReadToken {
            bearer: bearer.clone(),
            stamp,
        });
        Ok(bearer)
    }

    fn stamp(&self) -> Result<Option<FileVersion>, TokenError> {
        let Secret::File(path) = &self.secret else {
            return Ok(None);
        };
        let seen = std::fs::metadata(path).map_err(|_| TokenError::Missing)?;
        let written = seen.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Some((written, seen.len())))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding one; if it did, the values are still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_never_prints() {
        let bearer = BearerToken::new("hush", 0).unwrap();
        assert!(!format!("{:?}", bearer.header()).contains("hush"));
    }
}
