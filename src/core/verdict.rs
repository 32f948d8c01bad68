//! What an answer means: one table, from what was asked and what came back to a verdict.
//!
//! A try of a request is a short dialogue with the API ([`Step`]): perhaps a check of whose name it
//! is, the rename, and, where an earlier try may have been applied, questions by self-rename that
//! make the outcome certain. This module leaves out *when* to try again (`retry`) and what a row of
//! failures means for everybody (`hold`).

use std::time::Duration;

use uuid::Uuid;

use super::answer::{Answer, CallKind, NoToken, Refusal, Silence, User};
use super::outcome::{ConfirmedBy, How, MAYBE_ELSEWHERE, Reason, TOOK_EFFECT_ELSEWHERE};
use super::request::RenameRequest;

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
pub enum Step {
    /// Self-rename of the old name: does it belong to the `user_id` that may be renamed?
    Verify,
    /// The rename itself.
    Rename,
    /// Self-rename of the old name: if it still exists, no earlier try was applied.
    ConfirmOld(Pending),
    /// Self-rename of the new name: if it exists (and is the user's), an earlier try was applied.
    ConfirmNew(Pending),
}

/// The failure that will be told unless an earlier try turns out to have been applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub reason: Reason,
    pub http_status: Option<u16>,
    pub detail: Box<str>,
}

/// Which of a request's two names a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Old,
    New,
}

impl Step {
    #[must_use]
    pub const fn kind(&self) -> CallKind {
        match self {
            Self::Rename => CallKind::Rename,
            Self::Verify | Self::ConfirmOld(_) | Self::ConfirmNew(_) => CallKind::Confirm,
        }
    }

    /// The name in the call's path.
    #[must_use]
    pub const fn path_name(&self) -> Which {
        match self {
            Self::Verify | Self::Rename | Self::ConfirmOld(_) => Which::Old,
            Self::ConfirmNew(_) => Which::New,
        }
    }

    const fn confirms(&self) -> bool {
        matches!(self, Self::ConfirmOld(_) | Self::ConfirmNew(_))
    }
}

/// What to do about an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Ask on, within the same try.
    Ask(Step),
    Renamed {
        how: How,
        confirmed_by: ConfirmedBy,
        user_id: Option<Uuid>,
    },
    Failed(Pending),
    /// Try again later.
    Retry(Retry),
    /// The API refuses our credentials: the request did nothing wrong and spent no attempt.
    BadCredentials,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// This very call may have been applied.
    pub maybe_applied: bool,
    /// `Retry-After`.
    pub not_before: Option<Duration>,
    /// The status, for the failed event should this have been the last try.
    pub http_status: Option<u16>,
    /// What went wrong, for a person.
    pub what: &'static str,
    /// The question is answered, but so that no later one will be answered better: a definite
    /// refusal of a self-rename. After enough of them a person must look.
    pub undecidable: bool,
}

/// What an answer tells of the API's health, whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
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
pub fn sign(answer: &Answer) -> Sign {
    match answer {
        Answer::User(_) => Sign::Alive,
        Answer::Garbled { .. } | Answer::Silence(_) | Answer::NoToken(NoToken::Unavailable) => {
            Sign::Transient
        }
        Answer::NoToken(NoToken::Missing | NoToken::Refused { .. }) => Sign::BadCredentials,
        Answer::Refused(refusal) => match refusal.status {
            401 => Sign::BadCredentials,
            403 => Sign::Forbidden,
            429 => Sign::Throttled(refusal.retry_after),
            408 | 425 => Sign::Transient,
            400..=499 => Sign::Alive,
            _ => Sign::Transient,
        },
    }
}

/// The first step of a try.
#[must_use]
pub fn first_step(request: &RenameRequest, verify_before: bool) -> Step {
    if verify_before && request.user_id.is_some() {
        Step::Verify
    } else {
        Step::Rename
    }
}

/// What a failure that was decided without asking comes to: told at once, or only after the API has
/// said that no earlier try was applied.
#[must_use]
pub fn failure(pending: Pending, maybe_applied: bool) -> Verdict {
    if maybe_applied {
        Verdict::Ask(Step::ConfirmOld(pending))
    } else {
        Verdict::Failed(pending)
    }
}

/// Whom a question is about, and what is known already.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    pub request: &'a RenameRequest,
    /// An earlier try may have been applied.
    pub maybe_applied: bool,
    /// `user_id` is checked before the call, so only a race could rename another user.
    pub verify_before: bool,
}

/// The table of contract section 5.
#[must_use]
pub fn judge(step: &Step, answer: &Answer, case: Case<'_>) -> Verdict {
    match answer {
        Answer::NoToken(NoToken::Missing | NoToken::Refused { .. }) => Verdict::BadCredentials,
        Answer::NoToken(NoToken::Unavailable) => {
            retry(false, None, "no token could be had from the API")
        }
        Answer::Silence(Silence::Connect) => {
            retry(false, None, "no connection to the API could be made")
        }
        Answer::Silence(Silence::Timeout) => {
            retry(sent_rename(step), None, "the API did not answer in time")
        }
        Answer::Silence(Silence::Reset) => retry(
            sent_rename(step),
            None,
            "the connection broke before the answer came",
        ),
        Answer::Garbled { status } => garbled(step, *status),
        Answer::User(user) => user_came(step, user, case),
        Answer::Refused(refusal) => refused(step, refusal, case.maybe_applied),
    }
}

/// How a self-rename's answer counts in the metrics; nothing for a rename's.
#[must_use]
pub fn confirmation(step: &Step, answer: &Answer, request: &RenameRequest) -> Option<Confirmation> {
    if step.kind() == CallKind::Rename {
        return None;
    }
    let asked = named(step, request);
    Some(match answer {
        Answer::User(user) if !same_name(&user.username, asked) => Confirmation::Unclear,
        Answer::User(user) => match (request.user_id, user.id) {
            (Some(wanted), Some(found)) if wanted != found => Confirmation::Mismatch,
            _ => Confirmation::Found,
        },
        Answer::Refused(Refusal { status: 409, .. }) => Confirmation::Found,
        Answer::Refused(Refusal { status: 404, .. }) => Confirmation::Absent,
        _ => Confirmation::Unclear,
    })
}

fn user_came(step: &Step, user: &User, case: Case<'_>) -> Verdict {
    let request = case.request;
    let other_id = matches!((request.user_id, user.id), (Some(w), Some(f)) if w != f);
    if let Step::Rename = step {
        return if *user.username != *request.new_username.reveal() {
            retry(
                true,
                Some(200),
                "the API answered 200 with another user name",
            )
        } else if other_id {
            // Only a race after the check can do this; the detail says that it took effect.
            Verdict::Failed(Pending {
                reason: Reason::UserMismatch,
                http_status: Some(200),
                detail: TOOK_EFFECT_ELSEWHERE.into(),
            })
        } else {
            Verdict::Renamed {
                how: How::Applied,
                confirmed_by: ConfirmedBy::Answer,
                user_id: user.id.or(request.user_id),
            }
        };
    }
    if !same_name(&user.username, named(step, request)) {
        return retry(
            false,
            Some(200),
            "the API answered 200 with another user name",
        );
    }
    match step {
        Step::Rename => unreachable!("handled above"),
        Step::Verify if other_id => {
            let mismatch = Pending {
                reason: Reason::UserMismatch,
                http_status: Some(200),
                detail:
                    "username belongs to a user with another id than user_id; nothing was renamed"
                        .into(),
            };
            if case.maybe_applied {
                Verdict::Ask(Step::ConfirmNew(mismatch))
            } else {
                Verdict::Failed(mismatch)
            }
        }
        Step::Verify => Verdict::Ask(Step::Rename),
        // The old name is somebody else's by now, so it says nothing of our user.
        Step::ConfirmOld(pending) if other_id => Verdict::Ask(Step::ConfirmNew(pending.clone())),
        Step::ConfirmOld(pending) => Verdict::Failed(pending.clone()),
        Step::ConfirmNew(pending) if other_id && case.verify_before => {
            Verdict::Failed(pending.clone())
        }
        // Unchecked, an earlier try may well have renamed whoever bore the old name.
        Step::ConfirmNew(_) if other_id => Verdict::Failed(Pending {
            reason: Reason::UserMismatch,
            http_status: Some(200),
            detail: MAYBE_ELSEWHERE.into(),
        }),
        Step::ConfirmNew(_) => Verdict::Renamed {
            how: How::AlreadyApplied,
            confirmed_by: if request.user_id.is_some() && user.id.is_some() {
                ConfirmedBy::UserId
            } else {
                ConfirmedBy::Name
            },
            user_id: user.id.or(request.user_id),
        },
    }
}

fn refused(step: &Step, refusal: &Refusal, maybe_applied: bool) -> Verdict {
    let status = refusal.status;
    match status {
        401 => Verdict::BadCredentials,
        429 => Verdict::Retry(Retry {
            not_before: refusal.retry_after,
            ..transient(false, Some(status), "the API asks to slow down")
        }),
        408 | 425 => Verdict::Retry(Retry {
            not_before: refusal.retry_after,
            ..transient(
                false,
                Some(status),
                "the API was not ready to take the call",
            )
        }),
        404 => absent(step, maybe_applied),
        409 => exists(step, refusal, maybe_applied),
        400 if *step == Step::Rename && says_taken(refusal) => exists(step, refusal, maybe_applied),
        // A question that is refused stays open: the API was not asked what we meant to ask.
        400..=499 if step.confirms() => Verdict::Retry(Retry {
            undecidable: true,
            ..transient(
                false,
                Some(status),
                "the API refuses the self-rename that would confirm",
            )
        }),
        403 => failure(pending(Reason::Forbidden, refusal), maybe_applied),
        400..=499 => failure(pending(Reason::Rejected, refusal), maybe_applied),
        500..=599 => Verdict::Retry(Retry {
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
fn absent(step: &Step, maybe_applied: bool) -> Verdict {
    let not_found = || Pending {
        reason: Reason::UserNotFound,
        http_status: Some(404),
        detail: "no user has this username".into(),
    };
    match step {
        Step::Verify | Step::Rename if maybe_applied => Verdict::Ask(Step::ConfirmNew(not_found())),
        Step::Verify | Step::Rename => Verdict::Failed(not_found()),
        Step::ConfirmOld(pending) => Verdict::Ask(Step::ConfirmNew(pending.clone())),
        // "Taken" a moment ago and free now: whoever had it gave it up, so the rename may do.
        Step::ConfirmNew(pending) if pending.reason == Reason::UsernameTaken => {
            retry(false, Some(404), "the new name was taken and is free again")
        }
        Step::ConfirmNew(pending) => Verdict::Failed(pending.clone()),
    }
}

/// 409: for a rename, the new name is taken; for a self-rename, the name exists.
fn exists(step: &Step, refusal: &Refusal, maybe_applied: bool) -> Verdict {
    match step {
        Step::Verify => Verdict::Ask(Step::Rename),
        Step::Rename => failure(pending(Reason::UsernameTaken, refusal), maybe_applied),
        Step::ConfirmOld(pending) => Verdict::Failed(pending.clone()),
        // It exists and its id is not told: a failure must never be told of what took effect.
        Step::ConfirmNew(_) => Verdict::Renamed {
            how: How::AlreadyApplied,
            confirmed_by: ConfirmedBy::Name,
            user_id: None,
        },
    }
}

fn garbled(step: &Step, status: u16) -> Verdict {
    retry(
        sent_rename(step),
        Some(status),
        "the API answered with success, but not with a user",
    )
}

fn pending(reason: Reason, refusal: &Refusal) -> Pending {
    let what = match reason {
        Reason::UsernameTaken => "the new username is taken",
        Reason::Forbidden => "the API forbids the rename",
        _ => "the API rejected the rename",
    };
    Pending {
        reason,
        http_status: Some(refusal.status),
        detail: match &refusal.code {
            Some(code) => format!("{what} ({code})").into(),
            None => what.into(),
        },
    }
}

fn says_taken(refusal: &Refusal) -> bool {
    refusal.code.as_deref().is_some_and(|code| {
        let code = code.to_ascii_lowercase();
        TAKEN_CODES.contains(&code.as_str())
    })
}

/// Only a rename changes anything; a self-rename whose answer is lost leaves no doubt behind.
fn sent_rename(step: &Step) -> bool {
    *step == Step::Rename
}

fn retry(maybe_applied: bool, http_status: Option<u16>, what: &'static str) -> Verdict {
    Verdict::Retry(transient(maybe_applied, http_status, what))
}

const fn transient(maybe_applied: bool, http_status: Option<u16>, what: &'static str) -> Retry {
    Retry {
        maybe_applied,
        not_before: None,
        http_status,
        what,
        undecidable: false,
    }
}

fn named<'a>(step: &Step, request: &'a RenameRequest) -> &'a str {
    match step.path_name() {
        Which::Old => request.username.reveal(),
        Which::New => request.new_username.reveal(),
    }
}

/// Whether a self-rename's answer speaks of the name asked about. The API may store names in
/// another case than it was given, so case is no difference here; a wholly other name is.
fn same_name(answered: &str, asked: &str) -> bool {
    answered == asked || answered.to_lowercase() == asked.to_lowercase()
}

#[cfg(test)]
mod tests;
