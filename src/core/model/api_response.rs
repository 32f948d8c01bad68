//! What the API said to one call, as facts. What they mean is [`crate::core::policy::verdict`]'s business.

use std::time::Duration;

use uuid::Uuid;

/// Which call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// The rename itself: current name to new name.
    Rename,
    /// A self-rename, the only way to ask whether a name exists and whose it is.
    Confirm,
}

/// What one call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiResponse {
    /// 200 and a well-formed user.
    User(UserRecord),
    /// 200 (or another 2xx), but no well-formed user in it: HTML, truncated, over-long.
    Malformed { status: u16 },
    /// Any other status.
    Refused(ErrorResponse),
    /// No answer: the request may have arrived (`sent`), or surely has not.
    Silence(TransportError),
    /// The call was not made: there was no token for it.
    NoToken(TokenError),
}

/// An answer in a word or two, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseSummary {
    Status(u16),
    Garbled(u16),
    Silence(TransportError),
    /// Get Token's answer.
    TokenRefused(u16),
    TokenUnavailable,
    NoCredentials,
}

impl std::fmt::Display for ResponseSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Garbled(status) => write!(f, "status {status} with something that is no user"),
            Self::Silence(TransportError::Connect) => f.write_str("no connection"),
            Self::Silence(TransportError::Timeout) => f.write_str("no answer in time"),
            Self::Silence(TransportError::Reset) => f.write_str("the connection broke"),
            Self::TokenRefused(status) => write!(f, "Get Token answered {status}"),
            Self::TokenUnavailable => f.write_str("Get Token gave no answer to use"),
            Self::NoCredentials => {
                f.write_str("not asked: no credentials are set, or their file cannot be read")
            }
        }
    }
}

impl ApiResponse {
    #[must_use]
    pub fn gist(&self) -> ResponseSummary {
        match self {
            Self::User(_) => ResponseSummary::Status(200),
            Self::Malformed { status } => ResponseSummary::Garbled(*status),
            Self::Refused(refusal) => ResponseSummary::Status(refusal.status),
            Self::Silence(silence) => ResponseSummary::Silence(*silence),
            Self::NoToken(TokenError::Missing) => ResponseSummary::NoCredentials,
            Self::NoToken(TokenError::Refused { status }) => ResponseSummary::TokenRefused(*status),
            Self::NoToken(TokenError::Unavailable) => ResponseSummary::TokenUnavailable,
        }
    }
}

/// The user in a 200.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// As the API spelt it.
    pub username: Box<str>,
    pub id: Option<Uuid>,
}

impl std::fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A status that is no 2xx, and what its body and headers told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorResponse {
    pub status: u16,
    /// `error.code`, if it is a short plain token (`[A-Za-z0-9_.-]{1,64}`); free text is dropped,
    /// since it may carry a username.
    pub code: Option<Box<str>>,
    /// `Retry-After`, already turned into a wait and capped.
    pub retry_after: Option<Duration>,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportError {
    /// No connection: refused, unreachable, no name, failed TLS. Surely not applied.
    Connect,
    /// The answer did not come in time. Maybe applied.
    Timeout,
    /// The connection broke after the request was sent. Maybe applied.
    Reset,
}

/// Why there was no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// None is configured for the account, or its file cannot be read.
    Missing,
    /// Get Token refused the credentials (any 4xx but 408, 425, 429).
    Refused { status: u16 },
    /// Get Token could not be asked, or failed in passing.
    Unavailable,
}
