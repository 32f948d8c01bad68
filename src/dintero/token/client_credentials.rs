//! Tokens got from Get Token, one kept for each account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::grant::{ClientCredentials, GrantSettings};
use super::{BearerToken, locked};
use crate::config::Secret;
use crate::core::model::api_response::TokenError;
use crate::core::model::request::AccountId;
use crate::dintero::http::HttpClient;

/// A token is renewed when this share of its lifetime is over, or this long before its end,
/// whichever is later.
const RENEWED_AT: f64 = 0.9;
const RENEWED_BEFORE: Duration = Duration::from_mins(5);

/// How long a failed renewal of a token that is still good is let rest.
const RENEWAL_REST: Duration = Duration::from_secs(10);

/// Accounts whose tokens are kept at once. Each takes some 2 KiB, and the accounts come from
/// requests, so that without a bound a stream of made-up ones would fill the memory.
const ACCOUNTS_MAX: usize = 4_096;

/// A client's credentials, and the tokens got for them.
pub(super) struct ClientCredentialsTokens {
    credentials: ClientCredentials,
    slots: Mutex<HashMap<AccountId, Arc<CacheEntry>>>,
}

/// One account's token.
#[derive(Default)]
struct CacheEntry {
    /// Held for moments only.
    known: Mutex<CachedResult>,
    /// Held by the one who asks, while it asks.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct CachedResult {
    token: Option<CachedToken>,
    /// How many tokens were got.
    generation: u64,
    /// How many Get Tokens have ended.
    asked: u64,
    /// How the last one failed, if it did.
    failure: Option<TokenError>,
}

struct CachedToken {
    bearer: BearerToken,
    renew_at: Instant,
    expires_at: Instant,
}

impl ClientCredentialsTokens {
    pub(super) fn new(id: &str, secret: &Secret) -> Self {
        Self {
            credentials: ClientCredentials {
                id: id.into(),
                secret: secret.clone(),
            },
            slots: Mutex::default(),
        }
    }

    /// The account's token, got anew if it ages or there is none.
    pub(super) async fn bearer(
        &self,
        http: &HttpClient,
        account: &AccountId,
    ) -> Result<BearerToken, TokenError> {
        let slot = self.slot(account);
        slot.bearer(|| self.credentials.get_token(http, account))
            .await
    }

    /// Another token than the one that was refused.
    pub(super) async fn renewed(
        &self,
        http: &HttpClient,
        account: &AccountId,
        refused: &BearerToken,
    ) -> Result<BearerToken, TokenError> {
        let slot = self.slot(account);
        slot.forget(refused);
        slot.bearer(|| self.credentials.get_token(http, account))
            .await
    }

    fn slot(&self, account: &AccountId) -> Arc<CacheEntry> {
        let mut slots = locked(&self.slots);
        if let Some(slot) = slots.get(account) {
            return slot.clone();
        }
        if slots.len() >= ACCOUNTS_MAX {
            // Rare and cheap to recover from, so it need not be clever: keep what is in use.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry(account.clone()).or_default().clone()
    }
}

impl CacheEntry {
    async fn bearer<F>(&self, get_token: impl FnOnce() -> F) -> Result<BearerToken, TokenError>
    where
        F: Future<Output = Result<GrantSettings, TokenError>>,
    {
        let (good, seen) = {
            let known = locked(&self.known);
            let now = Instant::now();
            match &known.token {
                Some(kept) if now < kept.renew_at => return Ok(kept.bearer.clone()),
                Some(kept) if now < kept.expires_at => (Some(kept.bearer.clone()), known.asked),
                _ => (None, known.asked),
            }
        };
        let _asking = match good {
            // The first to see that the token ages renews it, the others go on with it meanwhile.
            Some(bearer) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_taken) => return Ok(bearer),
            },
            None => self.asking.lock().await,
        };
        if let Some(answer) = self.refreshed_since(seen) {
            return answer;
        }
        self.fetch(get_token()).await
    }

    /// What another call was told while this one waited.
    fn refreshed_since(&self, seen: u64) -> Option<Result<BearerToken, TokenError>> {
        let known = locked(&self.known);
        if known.asked == seen {
            return None;
        }
        match (&known.token, &known.failure) {
            (Some(kept), _) if Instant::now() < kept.expires_at => Some(Ok(kept.bearer.clone())),
            (_, Some(failure)) => Some(Err(failure.clone())),
            // Got, and refused again already.
            _ => None,
        }
    }

    async fn fetch(
        &self,
        get_token: impl Future<Output = Result<GrantSettings, TokenError>>,
    ) -> Result<BearerToken, TokenError> {
        let started = Instant::now();
        let result = get_token.await;
        let mut known = locked(&self.known);
        known.asked += 1;
        let got = result.and_then(|GrantSettings { token, lifetime }| {
            let bearer =
                BearerToken::new(&token, known.generation + 1).ok_or(TokenError::Unavailable)?;
            Ok((bearer, lifetime))
        });
        match got {
            Ok((bearer, lifetime)) => {
                known.generation = bearer.generation;
                known.failure = None;
                known.token = Some(CachedToken {
                    bearer: bearer.clone(),
                    renew_at: started + renewal(lifetime),
                    expires_at: started + lifetime,
                });
                Ok(bearer)
            }
            Err(failure) => {
                known.failure = Some(failure.clone());
                let now = Instant::now();
                match &mut known.token {
                    Some(kept) if now < kept.expires_at => {
                        kept.renew_at = now + RENEWAL_REST;
                        Ok(kept.bearer.clone())
                    }
                    _ => Err(failure),
                }
            }
        }
    }

    /// Forgets the token, unless it is another one already.
    fn forget(&self, refused: &BearerToken) {
        let mut known = locked(&self.known);
        let is_it = |kept: &CachedToken| kept.bearer.generation == refused.generation;
        known.token.take_if(|kept| is_it(kept));
    }
}

/// How long after it was asked for a token is renewed.
fn renewal(lifetime: Duration) -> Duration {
    lifetime
        .mul_f64(RENEWED_AT)
        .max(lifetime.saturating_sub(RENEWED_BEFORE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_token_is_renewed_five_minutes_ahead_and_a_short_one_at_nine_tenths() {
        for (lifetime, renewed) in [(86_400, 86_100), (3_600, 3_300), (600, 540), (60, 54)] {
            assert_eq!(
                renewal(Duration::from_secs(lifetime)),
                Duration::from_secs(renewed)
            );
        }
    }
}
