//! The bearer token for an account: given in the settings, or got from Get Token and kept.
//!
//! A kept token is renewed ahead of its expiry and after a 401, by one request however many calls
//! wait for it; those that waited share its failure as well. Whether and when to try again after a
//! failure is `core`'s decision.

mod asked;
mod grant;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use reqwest::header::HeaderValue;
use secrecy::ExposeSecret as _;

use super::http::Http;
use crate::config::{Api, Credentials, Secret};
use crate::core::answer::NoToken;
use crate::core::request::AccountId;
use asked::Asked;

/// Every account's tokens.
pub(super) struct Tokens {
    /// For accounts that have none of their own.
    default: Option<Source>,
    accounts: BTreeMap<AccountId, Source>,
}

/// A token as a header, and which one in its source's line it is.
#[derive(Clone)]
pub(super) struct Bearer {
    header: HeaderValue,
    generation: u64,
}

enum Source {
    Given(Given),
    Asked(Asked),
}

impl Bearer {
    fn new(token: &str, generation: u64) -> Option<Self> {
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        header.set_sensitive(true);
        Some(Self { header, generation })
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl Tokens {
    pub(super) fn new(api: &Api) -> Self {
        let accounts = api.accounts.iter();
        Self {
            default: api.credentials.as_ref().map(Source::new),
            accounts: accounts
                .map(|(account, credentials)| (account.clone(), Source::new(credentials)))
                .collect(),
        }
    }

    /// The account's token, got anew if need be.
    pub(super) async fn bearer(&self, http: &Http, account: &AccountId) -> Result<Bearer, NoToken> {
        match self.source(account)? {
            Source::Given(given) => given.current(),
            Source::Asked(asked) => asked.bearer(http, account).await,
        }
    }

    /// Another token after `refused` was answered by a 401; none if there is no other to be had.
    pub(super) async fn renewed(
        &self,
        http: &Http,
        account: &AccountId,
        refused: &Bearer,
    ) -> Result<Option<Bearer>, NoToken> {
        match self.source(account)? {
            Source::Given(given) => given.other_than(refused),
            Source::Asked(asked) => asked.renewed(http, account, refused).await.map(Some),
        }
    }

    fn source(&self, account: &AccountId) -> Result<&Source, NoToken> {
        let own = self.accounts.get(account);
        own.or(self.default.as_ref()).ok_or(NoToken::Missing)
    }
}

impl Source {
    fn new(credentials: &Credentials) -> Self {
        match credentials {
            Credentials::Token(secret) => Self::Given(Given {
                secret: secret.clone(),
                read: Mutex::new(None),
            }),
            Credentials::Client { id, secret } => Self::Asked(Asked::new(id, secret)),
        }
    }
}

/// A token as it is, inline or in a file.
struct Given {
    secret: Secret,
    read: Mutex<Option<ReadToken>>,
}

struct ReadToken {
    bearer: Bearer,
    /// How the file looked when it was read.
    stamp: Option<Stamp>,
}

/// What tells a file that was written from one that was not: one look at it instead of reading it
/// at each call. A write that this misses is found by the 401 that follows.
type Stamp = (SystemTime, u64);

impl Given {
    fn current(&self) -> Result<Bearer, NoToken> {
        let mut read = locked(&self.read);
        let stamp = self.stamp()?;
        match &*read {
            Some(known) if known.stamp == stamp => Ok(known.bearer.clone()),
            _ => self.read_anew(&mut read, stamp),
        }
    }

    fn other_than(&self, refused: &Bearer) -> Result<Option<Bearer>, NoToken> {
        let mut read = locked(&self.read);
        let stamp = self.stamp()?;
        let bearer = self.read_anew(&mut read, stamp)?;
        Ok((bearer.generation != refused.generation).then_some(bearer))
    }

    fn read_anew(
        &self,
        read: &mut Option<ReadToken>,
        stamp: Option<Stamp>,
    ) -> Result<Bearer, NoToken> {
        let secret = self.secret.read().map_err(|_| NoToken::Missing)?;
        let generation = read.as_ref().map_or(0, |known| known.bearer.generation);
        let mut bearer = Bearer::new(secret.expose_secret(), generation).ok_or(NoToken::Missing)?;
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

    fn stamp(&self) -> Result<Option<Stamp>, NoToken> {
        let Secret::File(path) = &self.secret else {
            return Ok(None);
        };
        let seen = std::fs::metadata(path).map_err(|_| NoToken::Missing)?;
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
        let bearer = Bearer::new("hush", 0).unwrap();
        assert!(!format!("{:?}", bearer.header()).contains("hush"));
    }
}
