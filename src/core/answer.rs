//! What the API said to one call, as facts. What they mean is [`super::verdict`]'s business.

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
pub enum Answer {
    /// 200 and a well-formed user.
    User(User),
    /// 200 (or another 2xx), but no well-formed user in it: HTML, truncated, over-long.
    Garbled { status: u16 },
    /// Any other status.
    Refused(Refusal),
    /// No answer: the request may have arrived (`sent`), or surely has not.
    Silence(Silence),
    /// The call was not made: there was no token for it.
    NoToken(NoToken),
}

/// An answer in a word or two, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gist {
    Status(u16),
    Garbled(u16),
    Silence(Silence),
    /// Get Token's answer.
    TokenRefused(u16),
    TokenUnavailable,
    NoCredentials,
}

impl std::fmt::Display for Gist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Garbled(status) => write!(f, "status {status} with something that is no user"),
            Self::Silence(Silence::Connect) => f.write_str("no connection"),
            Self::Silence(Silence::Timeout) => f.write_str("no answer in time"),
            Self::Silence(Silence::Reset) => f.write_str("the connection broke"),
            Self::TokenRefused(status) => write!(f, "Get Token answered {status}"),
            Self::TokenUnavailable => f.write_str("Get Token gave no answer to use"),
            Self::NoCredentials => {
                f.write_str("not asked: no credentials are set, or their file cannot be read")
            }
        }
    }
}

impl Answer {
    #[must_use]
    pub fn gist(&self) -> Gist {
        match self {
            Self::User(_) => Gist::Status(200),
            Self::Garbled { status } => Gist::Garbled(*status),
            Self::Refused(refusal) => Gist::Status(refusal.status),
            Self::Silence(silence) => Gist::Silence(*silence),
            Self::NoToken(NoToken::Missing) => Gist::NoCredentials,
            Self::NoToken(NoToken::Refused { status }) => Gist::TokenRefused(*status),
            Self::NoToken(NoToken::Unavailable) => Gist::TokenUnavailable,
        }
    }
}

/// The user in a 200.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// As the API spelt it.
    pub username: Box<str>,
    pub id: Option<Uuid>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A status that is no 2xx, and what its body and headers told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// `error.code`, if it is a short plain token (`[A-Za-z0-9_.-]{1,64}`); free text is dropped,
    /// since it may carry a username.
    pub code: Option<Box<str>>,
    /// `Retry-After`, already turned into a wait and capped.
    pub retry_after: Option<Duration>,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Silence {
    /// No connection: refused, unreachable, no name, failed TLS. Surely not applied.
    Connect,
    /// The answer did not come in time. Maybe applied.
    Timeout,
    /// The connection broke after the request was sent. Maybe applied.
    Reset,
}

/// Why there was no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoToken {
    /// None is configured for the account, or its file cannot be read.
    Missing,
    /// Get Token refused the credentials (any 4xx but 408, 425, 429).
    Refused { status: u16 },
    /// Get Token could not be asked, or failed in passing.
    Unavailable,
}
