//! One fault: what goes wrong, how often and for whom.
//!
//! Which fault strikes a given call is [`super::faults`]'s business, performing it `api`'s, and how
//! a person writes one down `notation`'s.

use std::time::Duration;

use super::calls::CallKind;
use crate::core::request::AccountId;

/// What `slow` waits when `delay` is not given: longer than any healthy call, shorter than a
/// sensible timeout.
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// How long `timeout` stays silent when `for` is not given: longer than any client's timeout.
pub(super) const SILENT: Duration = Duration::from_mins(2);

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: Kind,
    pub often: Often,
    pub on: On,
    pub account: Option<AccountId>,
    /// Only calls about a current name that begins so.
    pub prefix: Option<Box<str>>,
    /// What was asked for takes effect before the fault is told.
    pub applied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Answers this status, whatever was asked.
    Status {
        status: u16,
        body: Body,
        retry_after: Option<RetryAfter>,
    },
    /// Waits, then answers truly.
    Slow(Duration),
    /// Stays silent, then breaks the connection.
    Timeout(Duration),
    /// Breaks the connection without an answer.
    Reset,
    /// Breaks the connection in the middle of a 200's body.
    Cut,
    /// A 200 that is no user.
    Garbage(Garbage),
    /// 401, and the token in the call is revoked.
    Expired,
    /// Waits until the faults are changed, then answers truly.
    Gate,
    /// No connection is taken and the present ones are broken.
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Json,
    Html,
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    Seconds(u32),
    /// An HTTP date this many seconds ahead.
    Date(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    Html,
    Truncated,
    OtherName,
    Flood,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Often {
    Always,
    /// This share of the calls, 0 to 1.
    Share(f64),
    /// The next calls, this many.
    Next(u32),
}

/// Which calls can be struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Renames and confirms.
    Call,
    Rename,
    Confirm,
    Token,
    All,
}

/// Ways to say a fault in Rust; the notation says the same.
impl Fault {
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            often: Often::Always,
            on: On::Call,
            account: None,
            prefix: None,
            applied: false,
        }
    }

    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::new(Kind::Status {
            status,
            body: Body::Json,
            retry_after: None,
        })
    }

    /// The rename takes effect and its answer is lost with the connection.
    #[must_use]
    pub fn lost() -> Self {
        Self::new(Kind::Reset).applied()
    }

    #[must_use]
    pub fn outage() -> Self {
        Self::status(503).on(On::All)
    }

    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.often = Often::Share(share.clamp(0.0, 1.0));
        self
    }

    #[must_use]
    pub fn next(mut self, count: u32) -> Self {
        self.often = Often::Next(count);
        self
    }

    #[must_use]
    pub fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }

    #[must_use]
    pub fn account(mut self, account: AccountId) -> Self {
        self.account = Some(account);
        self
    }

    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    #[must_use]
    pub fn applied(mut self) -> Self {
        self.applied = true;
        self
    }

    /// Whether a call is of those that this fault can strike.
    pub(super) fn concerns(&self, kind: CallKind, account: &str, username: Option<&str>) -> bool {
        let kind_fits = match self.on {
            On::All => true,
            On::Call => matches!(kind, CallKind::Rename | CallKind::Confirm),
            On::Rename => kind == CallKind::Rename,
            On::Confirm => kind == CallKind::Confirm,
            On::Token => kind == CallKind::Token,
        };
        kind_fits
            && self
                .account
                .as_ref()
                .is_none_or(|only| only.as_str() == account)
            && self
                .prefix
                .as_deref()
                .is_none_or(|prefix| username.is_some_and(|name| name.starts_with(prefix)))
    }
}
