//! Get Token: what is asked, and what each answer to it comes to.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::BearerToken;
use crate::config::Secret;
use crate::core::model::api_response::{TokenError, TransportError};
use crate::core::model::request::AccountId;
use crate::dintero::encoding::BodyError;
use crate::dintero::http::{HttpClient, HttpReply};
use crate::dintero::{HttpCallKind, HttpStatus};

/// What the token is for, before the account's id: always the API's public name, wherever
/// `api.base_url` reaches it.
const AUDIENCE: &str = "https://api.dintero.com/v1/accounts/";

/// The lifetime of a token that came without a credible one. A 401 renews it anyway.
const LIFETIME_UNKNOWN: Duration = Duration::from_mins(1);

/// The longest lifetime that is believed: what Get Token is documented to give.
const LIFETIME_MAX: Duration = Duration::from_hours(24);

/// What Get Token is asked with.
pub(super) struct ClientCredentials {
    pub(super) id: String,
    pub(super) secret: Secret,
}

/// What Get Token gave. It has no `Debug`, so that the token never prints.
pub(super) struct GrantSettings {
    pub(super) token: String,
    pub(super) lifetime: Duration,
}

impl ClientCredentials {
    pub(super) async fn get_token(
        &self,
        http: &HttpClient,
        account: &AccountId,
    ) -> Result<GrantSettings, TokenError> {
        let secret = self.secret.read().map_err(|_| TokenError::Missing)?;
        let pair = format!("{}:{}", self.id, secret.expose_secret());
        let mut basic = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))
            .expect("base64 fits a header");
        basic.set_sensitive(true);
        let body = serde_json::to_vec(&TokenRequest {
            grant_type: "client_credentials",
            audience: &format!("{AUDIENCE}{account}"),
        })
        .expect("two strings serialise");
        let started = Instant::now();
        let reply = http
            .post(http.paths.token(account), basic, body, None)
            .await;
        let (status, result) = outcome(reply);
        http.observer
            .call_ended(HttpCallKind::Token, status, started.elapsed());
        result
    }
}

/// Get Token's request.
#[derive(Serialize)]
struct TokenRequest<'a> {
    grant_type: &'a str,
    audience: &'a str,
}

/// What Get Token came to.
fn outcome(
    reply: Result<HttpReply, TransportError>,
) -> (HttpStatus, Result<GrantSettings, TokenError>) {
    let reply = match reply {
        Ok(reply) => reply,
        Err(silence) => return (silence.into(), Err(TokenError::Unavailable)),
    };
    let status = reply.status;
    if !reply.is_success() {
        let none = match status {
            408 | 425 | 429 => TokenError::Unavailable,
            400..=499 => TokenError::Refused { status },
            _ => TokenError::Unavailable,
        };
        return (HttpStatus::Code(status), Err(none));
    }
    match reply.body {
        Ok(body) => match granted(&body) {
            Some(grant) => (HttpStatus::Code(status), Ok(grant)),
            None => (HttpStatus::Garbled, Err(TokenError::Unavailable)),
        },
        Err(BodyError::TooLong | BodyError::Encoded) => {
            (HttpStatus::Garbled, Err(TokenError::Unavailable))
        }
        Err(BodyError::Lost(silence)) => (silence.into(), Err(TokenError::Unavailable)),
    }
}

fn granted(body: &[u8]) -> Option<GrantSettings> {
    #[derive(Deserialize)]
    struct TokenFields<'a> {
        #[serde(borrow)]
        access_token: Cow<'a, str>,
        #[serde(borrow)]
        expires_in: Option<&'a RawValue>,
    }
    let TokenFields {
        access_token,
        expires_in,
    } = serde_json::from_slice(body).ok()?;
    // A token that no header can carry is none.
    BearerToken::new(&access_token, 0).filter(|_| !access_token.is_empty())?;
    let seconds = expires_in.and_then(|raw| raw.get().trim_matches('"').parse::<f64>().ok());
    Some(GrantSettings {
        token: access_token.into_owned(),
        lifetime: lifetime(seconds),
    })
}

fn lifetime(seconds: Option<f64>) -> Duration {
    match seconds {
        Some(seconds) if seconds >= 1.0 => {
            Duration::from_secs_f64(seconds.min(LIFETIME_MAX.as_secs_f64()))
        }
        _ => LIFETIME_UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_that_is_not_credible_is_short_and_none_is_endless() {
        for (body, seconds) in [
            (r#"{"access_token":"t","expires_in":86400}"#, 86_400.0),
            (r#"{"access_token":"t","expires_in":60.5}"#, 60.5),
            (r#"{"access_token":"t","expires_in":"600"}"#, 600.0),
            (r#"{"access_token":"t","expires_in":1e300}"#, 86_400.0),
            (r#"{"access_token":"t","expires_in":0}"#, 60.0),
            (r#"{"access_token":"t","expires_in":-5}"#, 60.0),
            (r#"{"access_token":"t","expires_in":null}"#, 60.0),
            (r#"{"access_token":"t","expires_in":"soon"}"#, 60.0),
            (r#"{"access_token":"t","expires_in":{}}"#, 60.0),
            (r#"{"access_token":"t","token_type":"Bearer"}"#, 60.0),
        ] {
            let GrantSettings { token, lifetime } = granted(body.as_bytes()).unwrap();
            assert_eq!(token, "t");
            assert_eq!(lifetime, Duration::from_secs_f64(seconds), "{body}");
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":"a\nb"}"#,
        ] {
            assert!(granted(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn get_tokens_refusals_are_told_from_its_absence() {
        for (status, none) in [
            (400, TokenError::Refused { status: 400 }),
            (401, TokenError::Refused { status: 401 }),
            (404, TokenError::Refused { status: 404 }),
            (408, TokenError::Unavailable),
            (425, TokenError::Unavailable),
            (429, TokenError::Unavailable),
            (302, TokenError::Unavailable),
            (503, TokenError::Unavailable),
        ] {
            let reply = HttpReply {
                status,
                retry_after: None,
                body: Ok("{}".into()),
            };
            let (told, result) = outcome(Ok(reply));
            assert_eq!((told, result.err()), (HttpStatus::Code(status), Some(none)));
        }
    }
}
