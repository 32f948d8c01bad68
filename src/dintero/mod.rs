//! The API client: one call in, one [`ApiResponse`] out. The only room that knows reqwest.
//!
//! It fetches tokens, encodes names into paths, bounds every wait and every body, and turns what
//! comes back into facts. What the facts mean, when to try again and how fast to call are `core`'s
//! decisions: nothing here retries, but for the one renewed token after a 401.
//!
//! Connections are HTTP/1.1, kept alive, one a call in flight. Redirects are not followed (a POST
//! that wanders is no rename), and cookies are not kept. The settings alone name a proxy:
//! `HTTP_PROXY` and its kin are not obeyed, here or by the exporter of traces.

mod answer;
mod encoding;
mod http;
mod path;
mod proxy;
mod tls;
mod token;

#[cfg(test)]
mod tests;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::Serialize;

use crate::config;
use crate::core::model::api_response::{ApiResponse, CallKind, ErrorResponse, TransportError};
use crate::core::model::request::{AccountId, Username};
use http::HttpClient;
pub use proxy::collector_client;
use token::{BearerToken, TokenSet};

/// The client. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct ApiClient {
    inner: Arc<ClientInner>,
}

struct ClientInner {
    http: HttpClient,
    tokens: TokenSet,
}

/// One call to be made.
#[derive(Debug, Clone)]
pub struct ApiCall {
    pub kind: CallKind,
    pub account: AccountId,
    /// The current name, which goes into the path.
    pub username: Username,
    /// The name to be, which goes into the body; a confirmation's is the current one.
    pub new_username: Username,
    /// W3C trace context, passed on as it is.
    pub traceparent: Option<Box<str>>,
}

/// Told of every HTTP exchange, also of those that a call makes by the way.
pub trait CallObserver: Send + Sync + 'static {
    fn call_ended(&self, kind: HttpCallKind, status: HttpStatus, took: Duration);
}

/// What an exchange was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpCallKind {
    Rename,
    Confirm,
    Token,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpStatus {
    Code(u16),
    Timeout,
    Connect,
    Reset,
    /// A 2xx whose body is not what was asked for.
    Garbled,
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("api.base_url {0}")]
    BaseUrl(&'static str),
    #[error("api.ca_file {0}")]
    CaFile(#[from] config::pem::BadPem),
    #[error(
        "this machine has no trusted certificates: install its ca-certificates package, \
         or set SSL_CERT_FILE or api.ca_file"
    )]
    NoRoots,
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot set up the HTTP client")]
    Http(#[source] reqwest::Error),
}

impl ApiClient {
    /// A client for up to `concurrency` calls at once. Connects to nothing yet.
    pub fn new(
        api: &config::ApiSection,
        concurrency: usize,
        observer: impl CallObserver,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            inner: Arc::new(ClientInner {
                http: HttpClient::new(api, concurrency, Arc::new(observer))?,
                tokens: TokenSet::new(api),
            }),
        })
    }

    /// Makes one call. After a 401 it gets a new token and tries once more, if another is to be
    /// had; the answer to that is returned whatever it is.
    ///
    /// Each exchange is bounded by `api.timeout`, so the whole is by four times that.
    pub async fn change_username(&self, call: &ApiCall) -> ApiResponse {
        let ClientInner { http, tokens } = &*self.inner;
        let bearer = match tokens.bearer(http, &call.account).await {
            Ok(bearer) => bearer,
            Err(none) => return ApiResponse::NoToken(none),
        };
        let answer = self.exchange(call, &bearer).await;
        if !matches!(
            answer,
            ApiResponse::Refused(ErrorResponse { status: 401, .. })
        ) {
            return answer;
        }
        match tokens.renewed(http, &call.account, &bearer).await {
            Ok(Some(renewed)) => self.exchange(call, &renewed).await,
            Ok(None) => answer,
            Err(none) => ApiResponse::NoToken(none),
        }
    }

    async fn exchange(&self, call: &ApiCall, bearer: &BearerToken) -> ApiResponse {
        let http = &self.inner.http;
        let Ok(url) = http.paths.change_username(&call.account, &call.username) else {
            return never_sent();
        };
        let body = serde_json::to_vec(&CallBody {
            username: call.new_username.reveal(),
        })
        .expect("a string serialises");
        let traceparent = call
            .traceparent
            .as_deref()
            .and_then(|text| HeaderValue::from_str(text).ok());
        let started = tokio::time::Instant::now();
        let reply = http.post(url, bearer.header(), body, traceparent).await;
        let status = reply.as_ref().map_or(0, |reply| reply.status);
        let answer = answer::to_change_username(reply, crate::clock::now());
        http.observer.call_ended(
            call.kind.into(),
            HttpStatus::of(&answer, status),
            started.elapsed(),
        );
        answer
    }
}

/// A name that no path can carry is refused as the API would have to. Requests are checked when
/// they are read, so nothing that was published gets here.
fn never_sent() -> ApiResponse {
    ApiResponse::Refused(ErrorResponse {
        status: 400,
        code: Some("username_fits_no_path".into()),
        retry_after: None,
    })
}

/// The request's body.
#[derive(Serialize)]
struct CallBody<'a> {
    username: &'a str,
}

impl HttpCallKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rename => "rename",
            Self::Confirm => "confirm",
            Self::Token => "token",
        }
    }
}

impl From<CallKind> for HttpCallKind {
    fn from(kind: CallKind) -> Self {
        match kind {
            CallKind::Rename => Self::Rename,
            CallKind::Confirm => Self::Confirm,
        }
    }
}

impl HttpStatus {
    fn of(answer: &ApiResponse, status: u16) -> Self {
        match answer {
            ApiResponse::Malformed { .. } => Self::Garbled,
            ApiResponse::Silence(silence) => (*silence).into(),
            ApiResponse::User(_) | ApiResponse::Refused(_) | ApiResponse::NoToken(_) => {
                Self::Code(status)
            }
        }
    }
}

impl From<TransportError> for HttpStatus {
    fn from(silence: TransportError) -> Self {
        match silence {
            TransportError::Connect => Self::Connect,
            TransportError::Timeout => Self::Timeout,
            TransportError::Reset => Self::Reset,
        }
    }
}

impl fmt::Display for HttpStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{code}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Connect => f.write_str("connect"),
            Self::Reset => f.write_str("reset"),
            Self::Garbled => f.write_str("garbled"),
        }
    }
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
