//! Who may call: the clients that Get Token knows and the tokens that are good.
//!
//! Tokens are opaque here, though Dintero's are JWTs: no caller may look into one.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::locked;
use crate::core::model::request::AccountId;

/// How many tokens are kept before the expired ones are swept out.
const SWEEP_AT: usize = 1024;

/// A client that Get Token knows.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    pub id: String,
    pub secret: SecretString,
    /// Only this account's tokens are given to it.
    pub account: Option<AccountId>,
}

#[derive(Debug)]
pub(super) struct IssuedTokens {
    lifetime: Duration,
    known: Mutex<IssuedToken>,
}

#[derive(Debug)]
struct IssuedToken {
    clients: Vec<OAuthClient>,
    good: HashMap<Box<str>, TokenGrant>,
}

/// For what a token is good.
#[derive(Debug)]
struct TokenGrant {
    /// None: for every account.
    account: Option<AccountId>,
    /// None: for ever.
    until: Option<Instant>,
}

impl IssuedTokens {
    pub(super) fn new(
        lifetime: Duration,
        clients: Vec<OAuthClient>,
        fixed: &[SecretString],
    ) -> Self {
        let tokens = Self {
            lifetime,
            known: Mutex::new(IssuedToken {
                clients,
                good: HashMap::new(),
            }),
        };
        for token in fixed {
            tokens.accept(token);
        }
        tokens
    }

    pub(super) const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub(super) fn set_clients(&self, clients: Vec<OAuthClient>) {
        locked(&self.known).clients = clients;
    }

    /// Takes a token as good for every account and for ever.
    pub(super) fn accept(&self, token: &SecretString) {
        let good = TokenGrant {
            account: None,
            until: None,
        };
        locked(&self.known)
            .good
            .insert(token.expose_secret().into(), good);
    }

    /// A new token of the account's for a client that is known.
    pub(super) fn issue(
        &self,
        account: &AccountId,
        id: &str,
        secret: &str,
        now: Instant,
    ) -> Option<String> {
        let known = &mut *locked(&self.known);
        known.clients.iter().find(|client| {
            client.id == id
                && client.secret.expose_secret() == secret
                && client.account.as_ref().is_none_or(|only| only == account)
        })?;
        if known.good.len() >= SWEEP_AT {
            known
                .good
                .retain(|_, good| good.until.is_none_or(|until| now < until));
        }
        let token = format!("sandbox.{}", Uuid::new_v4().simple());
        let good = TokenGrant {
            account: Some(account.clone()),
            until: Some(now + self.lifetime),
        };
        known.good.insert(token.as_str().into(), good);
        Some(token)
    }

    pub(super) fn is_good(&self, token: &str, account: &str, now: Instant) -> bool {
        locked(&self.known).good.get(token).is_some_and(|good| {
            good.account
                .as_ref()
                .is_none_or(|only| only.as_str() == account)
                && good.until.is_none_or(|until| now < until)
        })
    }

    /// Revokes a token that was issued; one accepted for ever stays good.
    pub(super) fn expire(&self, token: &str) {
        let good = &mut locked(&self.known).good;
        if good.get(token).is_some_and(|good| good.until.is_some()) {
            good.remove(token);
        }
    }

    pub(super) fn revoke(&self, token: &str) {
        locked(&self.known).good.remove(token);
    }

    /// Revokes every issued token, but none of those accepted for ever. Says how many.
    pub(super) fn expire_issued(&self) -> usize {
        let good = &mut locked(&self.known).good;
        let before = good.len();
        good.retain(|_, good| good.until.is_none());
        before - good.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str) -> AccountId {
        AccountId::parse(id).unwrap()
    }

    fn tokens(only: Option<&str>) -> IssuedTokens {
        let client = OAuthClient {
            id: "crm".to_owned(),
            secret: "hush".into(),
            account: only.map(account),
        };
        IssuedTokens::new(Duration::from_mins(1), vec![client], &["fixed".into()])
    }

    #[test]
    fn a_token_is_good_for_its_account_until_it_expires() {
        let now = Instant::now();
        let tokens = tokens(None);
        let token = tokens
            .issue(&account("T00000001"), "crm", "hush", now)
            .unwrap();
        assert!(tokens.is_good(&token, "T00000001", now));
        assert!(!tokens.is_good(&token, "T00000002", now));
        let later = now + Duration::from_mins(1);
        assert!(!tokens.is_good(&token, "T00000001", later));
        assert!(tokens.is_good("fixed", "T00000001", later));
    }

    #[test]
    fn only_a_known_client_gets_a_token_and_only_of_its_account() {
        let now = Instant::now();
        let tokens = tokens(Some("T00000001"));
        for (account_id, id, secret, given) in [
            ("T00000001", "crm", "hush", true),
            ("T00000002", "crm", "hush", false),
            ("T00000001", "crm", "hash", false),
            ("T00000001", "erp", "hush", false),
        ] {
            let token = tokens.issue(&account(account_id), id, secret, now);
            assert_eq!(token.is_some(), given, "{account_id} {id} {secret}");
        }
    }

    #[test]
    fn expiring_the_issued_leaves_the_fixed() {
        let now = Instant::now();
        let tokens = tokens(None);
        let token = tokens
            .issue(&account("T00000001"), "crm", "hush", now)
            .unwrap();
        assert_eq!(tokens.expire_issued(), 1);
        assert!(!tokens.is_good(&token, "T00000001", now));
        assert!(tokens.is_good("fixed", "T00000001", now));
        tokens.revoke("fixed");
        assert!(!tokens.is_good("fixed", "T00000001", now));
    }

    #[test]
    fn tokens_that_expired_are_swept_out() {
        let now = Instant::now();
        let mut tokens = tokens(None);
        tokens.lifetime = Duration::ZERO;
        for _ in 0..3 * SWEEP_AT {
            tokens
                .issue(&account("T00000001"), "crm", "hush", now)
                .unwrap();
        }
        assert!(locked(&tokens.known).good.len() <= SWEEP_AT);
    }
}
