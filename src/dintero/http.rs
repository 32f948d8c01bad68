//! One HTTP exchange: a POST out, a status and a bounded body back, within one deadline. It asks for
//! bodies as they are; one that comes compressed all the same is taken, see [`encoding`].
//!
//! It sends each request once. reqwest's own retries are off, so that a retry can never hide a
//! call that may have been applied; hyper-util's remain, which take another connection only when
//! the one from the pool closed before any byte of the request was written.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER,
};
use reqwest::{Method, Request, StatusCode, Url};
use tokio::time::{Instant, timeout_at};

use super::encoding::{BODY_MAX, BodyError};
use super::path::ApiPaths;
use super::{CallObserver, ClientError, encoding, proxy, tls};
use crate::config;
use crate::core::model::api_response::TransportError;

const USER_AGENT: &str = concat!("rename-worker/", env!("CARGO_PKG_VERSION"));

/// How long an unused connection is kept. Shorter than the idle limits of common load balancers
/// (60 s and more), since a call on a connection that is just being closed ends unclear.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The way to the API.
pub(super) struct HttpClient {
    client: reqwest::Client,
    timeout: Duration,
    pub(super) paths: ApiPaths,
    pub(super) observer: Arc<dyn CallObserver>,
}

/// What came back.
pub(super) struct HttpReply {
    pub(super) status: u16,
    pub(super) retry_after: Option<HeaderValue>,
    pub(super) body: Result<Bytes, BodyError>,
}

impl HttpClient {
    pub(super) fn new(
        api: &config::ApiSection,
        concurrency: usize,
        observer: Arc<dyn CallObserver>,
    ) -> Result<Self, ClientError> {
        let paths = ApiPaths::new(&api.base_url)?;
        let headers = HeaderMap::from_iter([(ACCEPT, JSON), (ACCEPT_ENCODING, IDENTITY)]);
        let builder = match proxy::to(&api.base_url, api.proxy.as_ref())? {
            Some(proxy) => reqwest::Client::builder().proxy(proxy),
            // Those of the environment are not obeyed either.
            None => reqwest::Client::builder().no_proxy(),
        };
        let client = builder
            .tls_backend_preconfigured(tls::config(paths.is_https(), api.ca_file.as_deref())?)
            .http1_only()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .connect_timeout(api.connect_timeout)
            .pool_max_idle_per_host(concurrency)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // `max_retries_per_request(0)` also saves a copy of every request.
            .retry(reqwest::retry::never().max_retries_per_request(0))
            .build()
            .map_err(ClientError::Http)?;
        Ok(Self {
            client,
            timeout: api.timeout,
            paths,
            observer,
        })
    }

    /// Sends a JSON body. An error means that no status came; after one, all that can go wrong is
    /// the body.
    pub(super) async fn post(
        &self,
        url: Url,
        authorization: HeaderValue,
        body: Vec<u8>,
        traceparent: Option<HeaderValue>,
    ) -> Result<HttpReply, TransportError> {
        let mut request = Request::new(Method::POST, url);
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(traceparent) = traceparent {
            headers.insert(TRACEPARENT, traceparent);
        }
        *request.body_mut() = Some(body.into());

        let deadline = Instant::now() + self.timeout;
        let mut response = match timeout_at(deadline, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(transport_error(&error)),
            Err(_elapsed) => return Err(TransportError::Timeout),
        };
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            // A proxy on the way says so instead of passing the request on.
            return Err(TransportError::Connect);
        }
        let body = timeout_at(deadline, read(&mut response))
            .await
            .unwrap_or(Err(BodyError::Lost(TransportError::Timeout)))
            .and_then(|body| encoding::decoded(body, response.headers().get(CONTENT_ENCODING)));
        Ok(HttpReply {
            status: response.status().as_u16(),
            retry_after: response.headers_mut().remove(RETRY_AFTER),
            body,
        })
    }
}

impl HttpReply {
    pub(super) fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}

/// The whole body, without a copy when it came in one piece, as most do.
async fn read(response: &mut reqwest::Response) -> Result<Bytes, BodyError> {
    let announced = response.content_length().unwrap_or(0);
    if announced > BODY_MAX as u64 {
        return Err(BodyError::TooLong);
    }
    let Some(first) = chunk(response).await? else {
        return Ok(Bytes::new());
    };
    let mut whole = CappedBody::One(first);
    loop {
        if whole.len() > BODY_MAX {
            return Err(BodyError::TooLong);
        }
        match chunk(response).await? {
            Some(next) => whole = whole.with(&next),
            None => return Ok(whole.into_bytes()),
        }
    }
}

async fn chunk(response: &mut reqwest::Response) -> Result<Option<Bytes>, BodyError> {
    let chunk = response.chunk().await;
    chunk.map_err(|error| BodyError::Lost(transport_error(&error)))
}

enum CappedBody {
    One(Bytes),
    Many(BytesMut),
}

impl CappedBody {
    fn len(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    fn with(self, next: &[u8]) -> Self {
        let mut bytes = match self {
            Self::One(first) => BytesMut::from(first),
            Self::Many(bytes) => bytes,
        };
        bytes.extend_from_slice(next);
        Self::Many(bytes)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}

/// Only what surely happened before the request was sent counts as [`TransportError::Connect`]; in doubt
/// the request may have been applied.
fn transport_error(error: &reqwest::Error) -> TransportError {
    // A timeout while connecting is both.
    if error.is_connect() || error.is_builder() {
        TransportError::Connect
    } else if error.is_timeout() {
        TransportError::Timeout
    } else {
        TransportError::Reset
    }
}
