//! Dintero's two calls: `change_username` and Get Token, and what a fault makes of them.

use std::borrow::Cow;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::calls::{CallGuard, CallOutcome, SandboxCallKind};
use super::fault::FaultKind;
use super::faults::FaultHit;
use super::listener::RequestContext;
use super::responses;
use super::responses::SandboxResponse;
use super::route::SandboxRoute;
use super::users::AppliedRename;
use super::{SandboxState, control, locked};
use crate::core::model::request::{AccountId, BadUsername, Username};

/// The longest body read: a name of 255 characters is 3 KiB when each is escaped as two `\uXXXX`.
const BODY_MAX: usize = 16 * 1024;

/// The endpoint, and `/_sandbox` beside it.
pub(super) fn routes() -> Router<RequestContext> {
    control::routes().fallback(answer)
}

async fn answer(State(at): State<RequestContext>, request: Request) -> SandboxResponse {
    let (head, body) = request.into_parts();
    match SandboxRoute::of(&head.method, head.uri.path()) {
        SandboxRoute::ChangeUsername { account, username } => {
            change_username(&at, account, &username, &head.headers, body).await
        }
        SandboxRoute::Token { account } => token(&at, account, &head.headers, body).await,
        SandboxRoute::NotPost => {
            let told = StatusCode::METHOD_NOT_ALLOWED;
            let answer = other(&at, told, "method_not_allowed", "only POST is taken here");
            with_header(answer, header::ALLOW, "POST")
        }
        SandboxRoute::NotText => {
            let told = StatusCode::BAD_REQUEST;
            other(&at, told, "invalid_request", "the username is not UTF-8")
        }
        SandboxRoute::Unknown => {
            let told = StatusCode::NOT_FOUND;
            other(&at, told, "not_found", "there is nothing at this path")
        }
    }
}

/// What is no call of Dintero's; no fault strikes it.
fn other(at: &RequestContext, status: StatusCode, code: &str, message: &str) -> SandboxResponse {
    let begun = at.shared.calls.begin(SandboxCallKind::Other);
    begun.end(CallOutcome::Status(status.as_u16()));
    responses::error(status, code, message, &[])
}

async fn change_username(
    at: &RequestContext,
    account: &str,
    username: &str,
    headers: &HeaderMap,
    body: HttpBody,
) -> SandboxResponse {
    let body = axum::body::to_bytes(body, BODY_MAX).await;
    let wanted = body.as_ref().map_or(Err(TOO_LONG), |body| new_name(body));
    let kind = if wanted.as_deref() == Ok(username) {
        SandboxCallKind::Confirm
    } else {
        SandboxCallKind::Rename
    };
    let begun = at.shared.calls.begin(kind);
    let strike = at.shared.faults.apply(kind, account, Some(username));
    at.shared.latency.pass().await;
    let call = SandboxCall {
        account,
        bearer: bearer(headers),
        wanted: wanted.as_deref().unwrap_or(username),
    };
    let rename = || rename(&at.shared, &call, username, &wanted);
    conclude(at, begun, strike, &call, rename).await
}

async fn token(
    at: &RequestContext,
    account: &str,
    headers: &HeaderMap,
    body: HttpBody,
) -> SandboxResponse {
    let body = axum::body::to_bytes(body, BODY_MAX)
        .await
        .unwrap_or_default();
    let begun = at.shared.calls.begin(SandboxCallKind::Token);
    let strike = at
        .shared
        .faults
        .apply(SandboxCallKind::Token, account, None);
    at.shared.latency.pass().await;
    let call = SandboxCall {
        account,
        bearer: None,
        wanted: "",
    };
    let grant = || grant(&at.shared, account, headers, &body);
    conclude(at, begun, strike, &call, grant).await
}

/// What a fault needs to know of a call.
struct SandboxCall<'a> {
    account: &'a str,
    bearer: Option<&'a str>,
    /// The name that a true answer would carry.
    wanted: &'a str,
}

/// Does what was asked and answers it, or what the fault wants instead.
async fn conclude(
    at: &RequestContext,
    begun: CallGuard<'_>,
    strike: Option<FaultHit>,
    call: &SandboxCall<'_>,
    act: impl Fn() -> SandboxResponse,
) -> SandboxResponse {
    let Some(mut strike) = strike else {
        return recorded(begun, act());
    };
    let applied = strike.applied.then(&act);
    match strike.kind {
        FaultKind::Status {
            status,
            body,
            retry_after,
        } => recorded(begun, responses::fault(status, body, retry_after)),
        FaultKind::Slow(delay) => {
            tokio::time::sleep(delay).await;
            recorded(begun, applied.unwrap_or_else(act))
        }
        FaultKind::Gate => {
            // It can't fail: the faults outlive every call.
            let _ = strike.changes.changed().await;
            recorded(begun, applied.unwrap_or_else(act))
        }
        FaultKind::Timeout(time) => {
            begun.end(CallOutcome::Silence);
            tokio::time::sleep(time).await;
            match at.abort_connection().await {}
        }
        FaultKind::Reset | FaultKind::Refuse => {
            begun.end(CallOutcome::Reset);
            match at.abort_connection().await {}
        }
        FaultKind::Cut => {
            begun.end(CallOutcome::Reset);
            responses::cut(call.wanted)
        }
        FaultKind::Garbage(garbage) => recorded(begun, responses::garbage(garbage, call.wanted)),
        FaultKind::Expired => {
            if let Some(token) = call.bearer {
                at.shared.tokens.expire(token);
            }
            recorded(begun, unauthorized("the token has expired"))
        }
    }
}

fn recorded(begun: CallGuard<'_>, answer: SandboxResponse) -> SandboxResponse {
    begun.end(CallOutcome::Status(answer.status().as_u16()));
    answer
}

#[derive(Deserialize)]
struct ChangeUsername<'a> {
    #[serde(borrow)]
    username: Cow<'a, str>,
}

const TOO_LONG: &str = "the body is too long";

/// The new name in a body, or what is wrong with it.
fn new_name(body: &Bytes) -> Result<Cow<'_, str>, &'static str> {
    let body: ChangeUsername<'_> = serde_json::from_slice(body)
        .map_err(|_| "the body is no JSON object with a `username` of text")?;
    match Username::parse(&body.username) {
        Ok(_) => Ok(body.username),
        Err(BadUsername::Empty) => Err("`username` has at least 1 character"),
        Err(_) => Err("`username` has at most 255 characters"),
    }
}

/// The true answer to `change_username`.
fn rename(
    shared: &SandboxState,
    call: &SandboxCall<'_>,
    username: &str,
    wanted: &Result<Cow<'_, str>, &'static str>,
) -> SandboxResponse {
    let good = |token| shared.tokens.is_good(token, call.account, Instant::now());
    match call.bearer {
        None => return unauthorized("a Bearer token is needed"),
        Some(token) if !good(token) => return unauthorized("the token is not good here"),
        Some(_) => {}
    }
    let Ok(account) = AccountId::parse(call.account) else {
        return invalid(BAD_ACCOUNT);
    };
    if Username::parse(username).is_err() {
        return invalid("the username in the path has 1 to 255 characters");
    }
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(wrong) => return invalid(wrong),
    };
    let now = crate::clock::now();
    let renamed = locked(&shared.table).rename(&account, username, wanted, now);
    // The names in these messages are on purpose: a caller that logs them shows it in its tests.
    match renamed {
        AppliedRename::Applied(user) | AppliedRename::Same(user) => {
            responses::user(&account, &user, shared.bare_users)
        }
        AppliedRename::UnknownUser => responses::error(
            StatusCode::NOT_FOUND,
            "user_not_found",
            &format!("there is no user {username}"),
            &[],
        ),
        AppliedRename::NameTaken => responses::error(
            StatusCode::CONFLICT,
            "username_taken",
            &format!("the username {wanted} is taken"),
            &[],
        ),
    }
}

#[derive(Deserialize)]
struct GrantForm<'a> {
    #[serde(borrow)]
    grant_type: Cow<'a, str>,
    #[serde(borrow)]
    audience: Cow<'a, str>,
}

/// The true answer to Get Token.
fn grant(
    shared: &SandboxState,
    account: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> SandboxResponse {
    let Ok(account) = AccountId::parse(account) else {
        return invalid(BAD_ACCOUNT);
    };
    let Some((id, secret)) = basic(headers) else {
        return with_header(
            unauthorized("HTTP Basic credentials are needed"),
            header::WWW_AUTHENTICATE,
            "Basic",
        );
    };
    let Ok(grant) = serde_json::from_slice::<GrantForm<'_>>(body) else {
        return invalid("the body is no JSON object with `grant_type` and `audience`");
    };
    if grant.grant_type != "client_credentials" {
        return invalid("`grant_type` is `client_credentials`");
    }
    if !grant.audience.ends_with(&format!("/accounts/{account}")) {
        return invalid("`audience` ends with the account that the token is for");
    }
    match shared.tokens.issue(&account, &id, &secret, Instant::now()) {
        Some(token) => {
            let token = json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": shared.tokens.lifetime().as_secs(),
            });
            responses::json(StatusCode::OK, &token)
        }
        None => unauthorized("the client or its secret is not known"),
    }
}

const BAD_ACCOUNT: &str = "the account id is P or T and eight digits";

fn invalid(wrong: &str) -> SandboxResponse {
    responses::error(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        "the request is not valid",
        &[wrong.to_owned()],
    )
}

fn unauthorized(wrong: &str) -> SandboxResponse {
    let answer = responses::error(StatusCode::UNAUTHORIZED, "unauthorized", wrong, &[]);
    with_header(answer, header::WWW_AUTHENTICATE, "Bearer")
}

fn with_header(
    mut answer: SandboxResponse,
    name: header::HeaderName,
    value: &'static str,
) -> SandboxResponse {
    let value = header::HeaderValue::from_static(value);
    answer.headers_mut().insert(name, value);
    answer
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    credentials(headers, "bearer")
}

/// Id and secret of HTTP Basic.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let decoded = BASE64.decode(credentials(headers, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

fn credentials<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case(wanted)
        .then_some(credentials.trim())
}
