//! What an answer means: one table, from what was asked and what came back to a verdict.
//!
//! A try of a request is a short dialogue with the API ([`CallStep`]): perhaps a check of whose name it
//! is, the rename, and, where an earlier try may have been applied, questions by self-rename that
//! make the outcome certain. This module leaves out *when* to try again (`retry`) and what failures
//! mean for the requests that follow (`policy::hold`).

use std::time::Duration;

use uuid::Uuid;

use crate::core::model::api_response::{
    ApiResponse, CallKind, ErrorResponse, TokenError, TransportError, UserRecord,
};
use crate::core::model::names::same_name;
use crate::core::model::outcome::{
    APPLIED_TO_OTHER_USER, AppliedBy, ConfirmedBy, MAYBE_ELSEWHERE, Reason,
};
use crate::core::model::request::{RenameRequest, Username};

/// Error codes of a 400 that say "this name is taken". An assumption: Dintero documents none.
const TAKEN_CODES: [&str; 6] = [
    "username_taken",
    "username_exists",
    "user_exists",
    "already_exists",
    "conflict",
    "duplicate",
];

/// Which call of the dialogue is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallStep {
    /// Self-rename of the old name: does it belong to the `user_id` that may be renamed?
    Verify,
    /// The rename itself.
    Rename,
    /// Self-rename of the old name: if it still exists, no earlier try was applied.
    ConfirmOld(ProvisionalFailure),
    /// Self-rename of the new name: if it exists (and is the user's), an earlier try was applied.
    ConfirmNew(ProvisionalFailure),
    /// The same after the API refused to be asked about the old name. That the new name exists says
    /// less then, since it may always have been another user's; only an id makes it certain.
    ConfirmNewAlone(ProvisionalFailure),
}

/// The failure that will be told unless an earlier try turns out to have been applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionalFailure {
    pub reason: Reason,
    pub http_status: Option<u16>,
    pub detail: Box<str>,
}

/// Which of a request's two names a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRole {
    Old,
    New,
}

impl CallStep {
    #[must_use]
    pub const fn kind(&self) -> CallKind {
        match self {
            Self::Rename => CallKind::Rename,
            Self::Verify | Self::ConfirmOld(_) | Self::ConfirmNew(_) | Self::ConfirmNewAlone(_) => {
                CallKind::Confirm
            }
        }
    }

    /// The name in the call's path.
    #[must_use]
    pub const fn path_name(&self) -> NameRole {
        match self {
            Self::Verify | Self::Rename | Self::ConfirmOld(_) => NameRole::Old,
            Self::ConfirmNew(_) | Self::ConfirmNewAlone(_) => NameRole::New,
        }
    }

    const fn confirms(&self) -> bool {
        matches!(
            self,
            Self::ConfirmOld(_) | Self::ConfirmNew(_) | Self::ConfirmNewAlone(_)
        )
    }
}

/// What to do about an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Ask on, within the same try.
    Ask(CallStep),
    Renamed {
        how: AppliedBy,
        confirmed_by: ConfirmedBy,
        user_id: Option<Uuid>,
        /// The new name as the API spells it, where it is not spelt as requested.
        username: Option<Username>,
    },
    Failed(ProvisionalFailure),
    /// Try again later.
    Retry(RetryAdvice),
    /// The API refuses our credentials: the request did nothing wrong and spent no attempt.
    BadCredentials {
        http_status: Option<u16>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryAdvice {
    /// This very call may have been applied.
    pub maybe_applied: bool,
    /// `Retry-After`.
    pub not_before: Option<Duration>,
    /// The status, for the failed event should this have been the last try.
    pub http_status: Option<u16>,
    /// What went wrong, for a person.
    pub what: &'static str,
    /// Whether an earlier try took effect was asked, and this is no answer to that.
    pub leaves_open: bool,
}

/// What an answer tells of the API's health, whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthSignal {
    /// It answers.
    Alive,
    /// It fails in passing.
    Transient,
    /// It answers, and asks this account to slow down.
    Throttled(Option<Duration>),
    /// It answers "forbidden": one user's matter, or our credentials'.
    Forbidden,
    /// It refuses our credentials.
    BadCredentials,
}

/// How a question by self-rename was answered, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Confirmation {
    Found,
    Absent,
    /// The name exists, and another user bears it.
    Mismatch,
    Unclear,
}

/// The API's health as this answer shows it.
#[must_use]
pub fn sign(answer: &ApiResponse) -> HealthSignal {
    match answer {
        ApiResponse::User(_) => HealthSignal::Alive,
        ApiResponse::Malformed { .. }
        | ApiResponse::Silence(_)
        | ApiResponse::NoToken(TokenError::Unavailable) => HealthSignal::Transient,
        ApiResponse::NoToken(TokenError::Missing | TokenError::Refused { .. }) => {
            HealthSignal::BadCredentials
        }
        ApiResponse::Refused(refusal) => match refusal.status {
            401 => HealthSignal::BadCredentials,
            403 => HealthSignal::Forbidden,
            429 => HealthSignal::Throttled(refusal.retry_after),
            408 | 425 => HealthSignal::Transient,
            400..=499 => HealthSignal::Alive,
            _ => HealthSignal::Transient,
        },
    }
}

/// The first step of a try.
#[must_use]
pub fn first_step(request: &RenameRequest, verify_before: bool) -> CallStep {
    if verify_before && request.user_id.is_some() {
        CallStep::Verify
    } else {
        CallStep::Rename
    }
}

/// What a failure that was decided without asking comes to: told at once, or only after the API has
/// said that no earlier try was applied.
#[must_use]
pub fn failure(pending: ProvisionalFailure, maybe_applied: bool) -> Verdict {
    if maybe_applied {
        Verdict::Ask(CallStep::ConfirmOld(pending))
    } else {
        Verdict::Failed(pending)
    }
}

/// The step that is really taken: where both names are one name but for their spelling, an API that
/// does not tell spellings apart would take a self-rename of the old one for a rename back to it.
#[must_use]
pub fn harmless(step: CallStep, request: &RenameRequest) -> CallStep {
    let (old, new) = (request.username.reveal(), request.new_username.reveal());
    match step {
        CallStep::ConfirmOld(pending) if old != new && same_name(old, new) => {
            CallStep::ConfirmNewAlone(pending)
        }
        step => step,
    }
}

/// Whom a question is about, and what is known already.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    pub request: &'a RenameRequest,
    /// An earlier try may have been applied.
    pub maybe_applied: bool,
    /// `user_id` is checked before the call, so only a race could rename another user.
    pub verify_before: bool,
}

/// The table of contract section 5.
#[must_use]
pub fn judge(step: &CallStep, answer: &ApiResponse, case: CallContext<'_>) -> Verdict {
    let mut verdict = meaning(step, answer, case);
    if let Verdict::Retry(retry) = &mut verdict {
        // A 404 is an answer, also where the rename is then tried again.
        retry.leaves_open = step.confirms() && retry.http_status != Some(404);
    }
    verdict
}

fn meaning(step: &CallStep, answer: &ApiResponse, case: CallContext<'_>) -> Verdict {
    match answer {
        ApiResponse::NoToken(TokenError::Missing) => Verdict::BadCredentials { http_status: None },
        ApiResponse::NoToken(TokenError::Refused { status }) => Verdict::BadCredentials {
            http_status: Some(*status),
        },
        ApiResponse::NoToken(TokenError::Unavailable) => {
            retry(false, None, "no token could be had from the API")
        }
        ApiResponse::Silence(TransportError::Connect) => {
            retry(false, None, "no connection to the API could be made")
        }
        ApiResponse::Silence(TransportError::Timeout) => {
            retry(sent_rename(step), None, "the API did not answer in time")
        }
        ApiResponse::Silence(TransportError::Reset) => retry(
            sent_rename(step),
            None,
            "the connection broke before the answer came",
        ),
        ApiResponse::Malformed { status } => on_malformed(step, *status),
        ApiResponse::User(user) => on_user(step, user, case),
        ApiResponse::Refused(refusal) => on_client_error(step, refusal, case.maybe_applied),
    }
}

/// How a self-rename's answer counts in the metrics; nothing for a rename's.
#[must_use]
pub fn confirmation(
    step: &CallStep,
    answer: &ApiResponse,
    request: &RenameRequest,
) -> Option<Confirmation> {
    if step.kind() == CallKind::Rename {
        return None;
    }
    let asked = named(step, request);
    Some(match answer {
        ApiResponse::User(user) if !same_name(&user.username, asked) => Confirmation::Unclear,
        ApiResponse::User(user) => match (request.user_id, user.id) {
            (Some(wanted), Some(found)) if wanted != found => Confirmation::Mismatch,
            _ => Confirmation::Found,
        },
        ApiResponse::Refused(ErrorResponse { status: 409, .. }) => Confirmation::Found,
        ApiResponse::Refused(ErrorResponse { status: 404, .. }) => Confirmation::Absent,
        _ => Confirmation::Unclear,
    })
}

fn rename_answered(user: &UserRecord, case: CallContext<'_>) -> Verdict {
    let request = case.request;
    let other_id = matches!((request.user_id, user.id), (Some(w), Some(f)) if w != f);
    if !same_name(&user.username, request.new_username.reveal()) {
        retry(
            true,
            Some(200),
            "the API answered 200 with another user name",
        )
    } else if other_id {
        // Only a race after the check can do this; the detail says that it took effect.
        Verdict::Failed(ProvisionalFailure {
            reason: Reason::UserMismatch,
            http_status: Some(200),
            detail: APPLIED_TO_OTHER_USER.into(),
        })
    } else {
        Verdict::Renamed {
            how: AppliedBy::Applied,
            confirmed_by: ConfirmedBy::Answer,
            user_id: user.id.or(request.user_id),
            username: spelt_otherwise(user, request),
        }
    }
}

fn on_user(step: &CallStep, user: &UserRecord, case: CallContext<'_>) -> Verdict {
    let request = case.request;
    let other_id = matches!((request.user_id, user.id), (Some(w), Some(f)) if w != f);
    if let CallStep::Rename = step {
        return rename_answered(user, case);
    }
    if !same_name(&user.username, named(step, request)) {
        return retry(
            false,
            Some(200),
            "the API answered 200 with another user name",
        );
    }
    match step {
        CallStep::Rename => unreachable!("handled above"),
        CallStep::Verify if other_id => {
            let mismatch = ProvisionalFailure {
                reason: Reason::UserMismatch,
                http_status: Some(200),
                detail:
                    "username belongs to a user with another id than user_id; nothing was renamed"
                        .into(),
            };
            if case.maybe_applied {
                Verdict::Ask(CallStep::ConfirmNew(mismatch))
            } else {
                Verdict::Failed(mismatch)
            }
        }
        CallStep::Verify => Verdict::Ask(CallStep::Rename),
        // The old name is somebody else's by now, so it says nothing of our user.
        CallStep::ConfirmOld(pending) if other_id => {
            Verdict::Ask(CallStep::ConfirmNew(pending.clone()))
        }
        CallStep::ConfirmOld(pending) => Verdict::Failed(pending.clone()),
        CallStep::ConfirmNew(pending) | CallStep::ConfirmNewAlone(pending)
            if other_id && case.verify_before =>
        {
            Verdict::Failed(pending.clone())
        }
        // Unchecked, an earlier try may well have renamed whoever bore the old name.
        CallStep::ConfirmNew(_) | CallStep::ConfirmNewAlone(_) if other_id => {
            Verdict::Failed(ProvisionalFailure {
                reason: Reason::UserMismatch,
                http_status: Some(200),
                detail: MAYBE_ELSEWHERE.into(),
            })
        }
        CallStep::ConfirmNewAlone(_) if request.user_id.is_none() || user.id.is_none() => {
            new_name_is_somebodys(200)
        }
        CallStep::ConfirmNew(_) | CallStep::ConfirmNewAlone(_) => Verdict::Renamed {
            how: AppliedBy::AlreadyApplied,
            confirmed_by: if request.user_id.is_some() && user.id.is_some() {
                ConfirmedBy::UserId
            } else {
                ConfirmedBy::Name
            },
            user_id: user.id.or(request.user_id),
            username: spelt_otherwise(user, request),
        },
    }
}

fn on_client_error(step: &CallStep, refusal: &ErrorResponse, maybe_applied: bool) -> Verdict {
    let status = refusal.status;
    match status {
        401 => Verdict::BadCredentials {
            http_status: Some(401),
        },
        429 => Verdict::Retry(RetryAdvice {
            not_before: refusal.retry_after,
            ..transient(false, Some(status), "the API asks to slow down")
        }),
        408 | 425 => Verdict::Retry(RetryAdvice {
            not_before: refusal.retry_after,
            ..transient(
                false,
                Some(status),
                "the API was not ready to take the call",
            )
        }),
        404 => on_not_found(step, maybe_applied),
        409 => on_conflict(step, refusal, maybe_applied),
        400 if *step == CallStep::Rename && is_username_taken(refusal) => {
            on_conflict(step, refusal, maybe_applied)
        }
        // It may be our credentials, so a later question may be answered.
        403 if step.confirms() => retry(
            false,
            Some(403),
            "the API forbids the self-rename that asks",
        ),
        400..=499 if step.confirms() => question_refused(step, status),
        403 => failure(pending(Reason::Forbidden, refusal), maybe_applied),
        400..=499 => failure(pending(Reason::Rejected, refusal), maybe_applied),
        500..=599 => Verdict::Retry(RetryAdvice {
            not_before: refusal.retry_after,
            ..transient(sent_rename(step), Some(status), "the API failed")
        }),
        _ => retry(
            sent_rename(step),
            Some(status),
            "the API answered with an unexpected status",
        ),
    }
}

/// 404: the name in the path does not exist.
fn on_not_found(step: &CallStep, maybe_applied: bool) -> Verdict {
    let not_found = || ProvisionalFailure {
        reason: Reason::UserNotFound,
        http_status: Some(404),
        detail: "no user has this username".into(),
    };
    match step {
        CallStep::Verify | CallStep::Rename if maybe_applied => {
            Verdict::Ask(CallStep::ConfirmNew(not_found()))
        }
        CallStep::Verify | CallStep::Rename => Verdict::Failed(not_found()),
        CallStep::ConfirmOld(pending) => Verdict::Ask(CallStep::ConfirmNew(pending.clone())),
        // "Taken" a moment ago and free now: whoever had it gave it up, so the rename may do.
        CallStep::ConfirmNew(pending) | CallStep::ConfirmNewAlone(pending)
            if pending.reason == Reason::UsernameTaken =>
        {
            retry(false, Some(404), "the new name was taken and is free again")
        }
        CallStep::ConfirmNew(pending) | CallStep::ConfirmNewAlone(pending) => {
            Verdict::Failed(pending.clone())
        }
    }
}

/// 409: for a rename, the new name is taken; for a self-rename, the name exists.
fn on_conflict(step: &CallStep, refusal: &ErrorResponse, maybe_applied: bool) -> Verdict {
    match step {
        CallStep::Verify => Verdict::Ask(CallStep::Rename),
        CallStep::Rename => failure(pending(Reason::UsernameTaken, refusal), maybe_applied),
        CallStep::ConfirmOld(pending) => Verdict::Failed(pending.clone()),
        // It exists and its id is not told: a failure must never be told of what took effect.
        CallStep::ConfirmNew(_) => Verdict::Renamed {
            how: AppliedBy::AlreadyApplied,
            confirmed_by: ConfirmedBy::Name,
            user_id: None,
            username: None,
        },
        CallStep::ConfirmNewAlone(_) => new_name_is_somebodys(409),
    }
}

/// A question that the API refuses permanently: the other name is still to be asked about. Where that
/// is refused too, asking again is no use, and those behind this request wait.
fn question_refused(step: &CallStep, status: u16) -> Verdict {
    match step {
        CallStep::ConfirmOld(pending) => Verdict::Ask(CallStep::ConfirmNewAlone(pending.clone())),
        _ => Verdict::Failed(unknown(
            "the API refuses the self-rename that asks",
            Some(status),
        )),
    }
}

fn new_name_is_somebodys(status: u16) -> Verdict {
    let what = "the API refuses to be asked about username, and new_username exists";
    Verdict::Failed(unknown(what, Some(status)))
}

/// The end of a request whose effect could not be found out.
#[must_use]
pub fn unknown(what: &str, http_status: Option<u16>) -> ProvisionalFailure {
    ProvisionalFailure {
        reason: Reason::OutcomeUnknown,
        http_status,
        detail: format!(
            "{what}; the rename may have taken effect: whether it did could not be found out"
        )
        .into(),
    }
}

/// The name in the answer, where an event must say it because it is not spelt as requested.
fn spelt_otherwise(user: &UserRecord, request: &RenameRequest) -> Option<Username> {
    let otherwise = *user.username != *request.new_username.reveal();
    otherwise
        .then(|| Username::parse(&user.username).ok())
        .flatten()
}

fn on_malformed(step: &CallStep, status: u16) -> Verdict {
    retry(
        sent_rename(step),
        Some(status),
        "the API answered with success, but not with a user",
    )
}

fn pending(reason: Reason, refusal: &ErrorResponse) -> ProvisionalFailure {
    let what = match reason {
        Reason::UsernameTaken => "the new username is taken",
        Reason::Forbidden => "the API forbids the rename",
        _ => "the API rejected the rename",
    };
    ProvisionalFailure {
        reason,
        http_status: Some(refusal.status),
        detail: match &refusal.code {
            Some(code) => format!("{what} ({code})").into(),
            None => what.into(),
        },
    }
}

fn is_username_taken(refusal: &ErrorResponse) -> bool {
    refusal.code.as_deref().is_some_and(|code| {
        let code = code.to_ascii_lowercase();
        TAKEN_CODES.contains(&code.as_str())
    })
}

/// Only a rename changes anything; a self-rename whose answer is lost leaves no doubt behind.
fn sent_rename(step: &CallStep) -> bool {
    *step == CallStep::Rename
}

fn retry(maybe_applied: bool, http_status: Option<u16>, what: &'static str) -> Verdict {
    Verdict::Retry(transient(maybe_applied, http_status, what))
}

const fn transient(
    maybe_applied: bool,
    http_status: Option<u16>,
    what: &'static str,
) -> RetryAdvice {
    RetryAdvice {
        maybe_applied,
        not_before: None,
        http_status,
        what,
        leaves_open: false,
    }
}

fn named<'a>(step: &CallStep, request: &'a RenameRequest) -> &'a str {
    match step.path_name() {
        NameRole::Old => request.username.reveal(),
        NameRole::New => request.new_username.reveal(),
    }
}

#[cfg(test)]
mod tests;
