//! How a request ends, and what travels with it until then.

use jiff::Timestamp;
use uuid::Uuid;

use super::request::Username;

/// The one end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Renamed(Renamed),
    Failed(Failed),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    pub how: AppliedBy,
    pub confirmed_by: ConfirmedBy,
    pub user_id: Option<Uuid>,
    /// The new name as the API spells it, where it keeps names in a form of its own.
    pub username: Option<Username>,
    pub attempts: u32,
    pub completed_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub reason: Reason,
    /// For a person, and to group by: no usernames, no free text of the API's.
    pub detail: Box<str>,
    pub http_status: Option<u16>,
    pub attempts: u32,
    pub first_attempt_at: Option<Timestamp>,
    pub failed_at: Timestamp,
}

impl Failed {
    /// The rename may have taken effect, or took effect on another user than it was meant for.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        match self.reason {
            Reason::OutcomeUnknown => true,
            Reason::UserMismatch => {
                [APPLIED_TO_OTHER_USER, MAYBE_ELSEWHERE].contains(&&*self.detail)
            }
            _ => false,
        }
    }
}

/// The detail of a `user_mismatch` that was found only after the rename.
pub const APPLIED_TO_OTHER_USER: &str =
    "the rename took effect, but on a user with another id than user_id";

/// The detail of a `user_mismatch` whose rename was never seen to take effect, and may have.
pub const MAYBE_ELSEWHERE: &str = "new_username belongs to a user with another id than user_id; \
                                   an earlier try may have taken effect on it";

/// Whether this try did it, or an earlier one whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppliedBy {
    Applied,
    AlreadyApplied,
}

/// What the worker's word rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfirmedBy {
    /// The API's own answer to the rename.
    Answer,
    /// A self-rename of the new name whose answer carried the requested user's id.
    UserId,
    /// A self-rename of the new name; whose it is could not be told.
    Name,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    InvalidRequest,
    UserNotFound,
    UsernameTaken,
    Forbidden,
    Rejected,
    UserMismatch,
    /// The rename may have taken effect, and the API never made clear whether it did.
    OutcomeUnknown,
    DeadlineExceeded,
    RetriesExhausted,
    Poison,
}

impl AppliedBy {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::AlreadyApplied => "already_applied",
        }
    }
}

impl ConfirmedBy {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::UserId => "user_id",
            Self::Name => "name",
        }
    }
}

impl Reason {
    pub const ALL: [Self; 10] = [
        Self::InvalidRequest,
        Self::UserNotFound,
        Self::UsernameTaken,
        Self::Forbidden,
        Self::Rejected,
        Self::UserMismatch,
        Self::OutcomeUnknown,
        Self::DeadlineExceeded,
        Self::RetriesExhausted,
        Self::Poison,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UserNotFound => "user_not_found",
            Self::UsernameTaken => "username_taken",
            Self::Forbidden => "forbidden",
            Self::Rejected => "rejected",
            Self::UserMismatch => "user_mismatch",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Poison => "poison",
        }
    }
}

/// What earlier deliveries of a request left for the later ones; it travels in `x-rename-*` headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptHistory {
    pub attempts: u32,
    pub first_attempt_at: Option<Timestamp>,
    /// An earlier try, or a twin of this message, may have been applied.
    pub maybe_applied: bool,
    /// More than that: a rename was sent whose effect is unknown, or the message was delivered to a
    /// worker that never reported back. A request that only waited in the ladder is not unclear.
    pub unclear: bool,
    /// Since when its account's credentials have been refused, as far as this request has seen.
    pub refused_since: Option<Timestamp>,
    /// A worker published this message, to be tried later: the number it gave that copy.
    pub copy: Option<u64>,
    /// The replay this message belongs to: a person has sent its dead letter again.
    pub replay: Option<Uuid>,
}
