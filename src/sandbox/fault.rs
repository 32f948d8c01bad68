//! One fault: what goes wrong, how often and for whom.
//!
//! Which fault strikes a given call is [`super::faults`]'s business, performing it `api`'s, and how
//! a person writes one down `notation`'s.

use std::time::Duration;

use super::calls::SandboxCallKind;
use crate::core::model::request::AccountId;

/// What `slow` waits when `delay` is not given: longer than any healthy call, shorter than a
/// sensible timeout.
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// How long `timeout` stays silent when `for` is not given: longer than any client's timeout.
pub(super) const SILENT: Duration = Duration::from_mins(2);

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiFault {
    pub kind: FaultKind,
    pub often: Frequency,
    pub on: CallFilter,
    pub account: Option<AccountId>,
    /// Only calls about a current name that begins so.
    pub prefix: Option<Box<str>>,
    /// What was asked for takes effect before the fault is told.
    pub applied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// Answers this status, whatever was asked.
    Status {
        status: u16,
        body: FaultBody,
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
    Garbage(MalformedBody),
    /// 401, and the token in the call is revoked.
    Expired,
    /// Waits until the faults are changed, then answers truly.
    Gate,
    /// No connection is taken and the present ones are broken.
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultBody {
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
pub enum MalformedBody {
    Html,
    Truncated,
    OtherName,
    Flood,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Frequency {
    Always,
    /// This share of the calls, 0 to 1.
    Share(f64),
    /// The next calls, this many.
    Next(u32),
}

/// Which calls can be struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFilter {
    /// Renames and confirms.
    Call,
    Rename,
    Confirm,
    Token,
    All,
}

/// Ways to say a fault in Rust; the notation says the same.
impl ApiFault {
    #[must_use]
    pub const fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            often: Frequency::Always,
            on: CallFilter::Call,
            account: None,
            prefix: None,
            applied: false,
        }
    }

    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::new(FaultKind::Status {
            status,
            body: FaultBody::Json,
            retry_after: None,
        })
    }

    /// The rename takes effect and its answer is lost with the connection.
    #[must_use]
    pub fn lost() -> Self {
        Self::new(FaultKind::Reset).applied()
    }

    #[must_use]
    pub fn outage() -> Self {
        Self::status(503).on(CallFilter::All)
    }

    #[must_use]
    pub fn share(mut self, share: f64) -> Self {
        self.often = Frequency::Share(share.clamp(0.0, 1.0));
        self
    }

    #[must_use]
    pub fn next(mut self, count: u32) -> Self {
        self.often = Frequency::Next(count);
        self
    }

    #[must_use]
    pub fn on(mut self, on: CallFilter) -> Self {
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
    pub(super) fn matches(
        &self,
        kind: SandboxCallKind,
        account: &str,
        username: Option<&str>,
    ) -> bool {
        let kind_fits = match self.on {
            CallFilter::All => true,
            CallFilter::Call => matches!(kind, SandboxCallKind::Rename | SandboxCallKind::Confirm),
            CallFilter::Rename => kind == SandboxCallKind::Rename,
            CallFilter::Confirm => kind == SandboxCallKind::Confirm,
            CallFilter::Token => kind == SandboxCallKind::Token,
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
