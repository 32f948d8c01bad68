use super::*;
use crate::core::model::request::{AccountId, Username};

const OURS: Uuid = Uuid::from_u128(1);
const THEIRS: Uuid = Uuid::from_u128(2);

fn request(user_id: Option<Uuid>) -> RenameRequest {
    RenameRequest {
        request_id: Uuid::nil(),
        account_id: AccountId::parse("T12345678").unwrap(),
        username: Username::parse("old").unwrap(),
        new_username: Username::parse("new").unwrap(),
        user_id,
        requested_at: None,
        requested_by: None,
        not_after: None,
    }
}

fn named(name: &str, id: Option<Uuid>) -> ApiResponse {
    let username = name.into();
    ApiResponse::User(UserRecord { username, id })
}

fn status(status: u16) -> ApiResponse {
    ApiResponse::Refused(ErrorResponse {
        status,
        ..ErrorResponse::default()
    })
}

fn coded(code: &str) -> ApiResponse {
    ApiResponse::Refused(ErrorResponse {
        status: 400,
        code: Some(code.into()),
        retry_after: None,
    })
}

fn taken() -> ProvisionalFailure {
    ProvisionalFailure {
        reason: Reason::UsernameTaken,
        http_status: Some(409),
        detail: "the new username is taken".into(),
    }
}

fn not_found() -> ProvisionalFailure {
    ProvisionalFailure {
        reason: Reason::UserNotFound,
        http_status: Some(404),
        detail: "no user has this username".into(),
    }
}

/// A verdict in few words.
fn in_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Ask(CallStep::Verify) => "ask whose the old name is".into(),
        Verdict::Ask(CallStep::Rename) => "rename".into(),
        Verdict::Ask(CallStep::ConfirmOld(pending)) => {
            format!("ask for the old name, else {}", pending.reason.as_str())
        }
        Verdict::Ask(CallStep::ConfirmNewAlone(pending)) => {
            format!(
                "ask for the new name alone, else {}",
                pending.reason.as_str()
            )
        }
        Verdict::Ask(CallStep::ConfirmNew(pending)) => {
            format!("ask for the new name, else {}", pending.reason.as_str())
        }
        Verdict::Renamed {
            how, confirmed_by, ..
        } => format!("{} by {}", how.as_str(), confirmed_by.as_str()),
        Verdict::Failed(pending) => format!("failed {}", pending.reason.as_str()),
        Verdict::Retry(retry) => {
            let mut words = "retry".to_owned();
            if retry.maybe_applied {
                words += ", maybe applied";
            }
            if retry.leaves_open {
                words += ", open";
            }
            words
        }
        Verdict::BadCredentials { .. } => "bad credentials".into(),
    }
}

/// The circumstances of a row.
#[derive(Clone, Copy)]
struct CallCase {
    user_id: Option<Uuid>,
    maybe_applied: bool,
    verify_before: bool,
}

const FRESH: CallCase = CallCase {
    user_id: None,
    maybe_applied: false,
    verify_before: true,
};
const DOUBTED: CallCase = CallCase {
    maybe_applied: true,
    ..FRESH
};
const FRESH_WITH_ID: CallCase = CallCase {
    user_id: Some(OURS),
    ..FRESH
};
const DOUBTED_WITH_ID: CallCase = CallCase {
    user_id: Some(OURS),
    ..DOUBTED
};
const DOUBTED_CHECKED_AFTER: CallCase = CallCase {
    verify_before: false,
    ..DOUBTED_WITH_ID
};

fn judged(step: &CallStep, answer: &ApiResponse, when: CallCase) -> String {
    let request = request(when.user_id);
    let case = CallContext {
        request: &request,
        maybe_applied: when.maybe_applied,
        verify_before: when.verify_before,
    };
    in_words(&judge(step, answer, case))
}

/// Each row: an answer, and the verdict on it.
fn holds(step: &CallStep, when: CallCase, rows: &[(ApiResponse, &str)]) {
    for (answer, expected) in rows {
        assert_eq!(
            judged(step, answer, when),
            *expected,
            "{step:?}, {answer:?}"
        );
    }
}

/// What is the same for every call, whatever was tried before.
fn holds_for_all_in_passing(step: &CallStep, sent: &str) {
    for when in [FRESH, DOUBTED, FRESH_WITH_ID, DOUBTED_WITH_ID] {
        let not_applied = [
            status(408),
            status(425),
            status(429),
            ApiResponse::Silence(TransportError::Connect),
            ApiResponse::NoToken(TokenError::Unavailable),
        ];
        let passing = if step.confirms() {
            "retry, open"
        } else {
            "retry"
        };
        for answer in not_applied {
            assert_eq!(judged(step, &answer, when), passing, "{step:?}, {answer:?}");
        }
        let unclear = [
            status(500),
            status(502),
            status(503),
            status(504),
            status(302),
            ApiResponse::Malformed { status: 200 },
            ApiResponse::Silence(TransportError::Timeout),
            ApiResponse::Silence(TransportError::Reset),
            named("somebody else", None),
        ];
        for answer in unclear {
            assert_eq!(judged(step, &answer, when), sent, "{step:?}, {answer:?}");
        }
        let refused = [
            status(401),
            ApiResponse::NoToken(TokenError::Missing),
            ApiResponse::NoToken(TokenError::Refused { status: 403 }),
        ];
        for answer in refused {
            let verdict = judged(step, &answer, when);
            assert_eq!(verdict, "bad credentials", "{step:?}, {answer:?}");
        }
    }
}

#[test]
fn only_a_rename_whose_answer_is_lost_may_have_been_applied() {
    holds_for_all_in_passing(&CallStep::Rename, "retry, maybe applied");
    holds_for_all_in_passing(&CallStep::Verify, "retry");
    holds_for_all_in_passing(&CallStep::ConfirmOld(taken()), "retry, open");
    holds_for_all_in_passing(&CallStep::ConfirmNew(not_found()), "retry, open");
    holds_for_all_in_passing(&CallStep::ConfirmNewAlone(taken()), "retry, open");
}

#[test]
fn a_first_rename_is_taken_at_its_word() {
    let rows = [
        (named("new", None), "applied by answer"),
        (named("new", Some(THEIRS)), "applied by answer"),
        (status(400), "failed rejected"),
        (status(422), "failed rejected"),
        (status(418), "failed rejected"),
        (coded("username_taken"), "failed username_taken"),
        (coded("Already_Exists"), "failed username_taken"),
        (coded("malformed"), "failed rejected"),
        (status(403), "failed forbidden"),
        (status(404), "failed user_not_found"),
        (status(409), "failed username_taken"),
    ];
    holds(&CallStep::Rename, FRESH, &rows);
}

#[test]
fn a_rename_after_an_unclear_one_is_never_failed_without_asking() {
    let rows = [
        (named("new", None), "applied by answer"),
        (status(400), "ask for the old name, else rejected"),
        (status(422), "ask for the old name, else rejected"),
        (
            coded("username_taken"),
            "ask for the old name, else username_taken",
        ),
        (status(403), "ask for the old name, else forbidden"),
        (status(404), "ask for the new name, else user_not_found"),
        (status(409), "ask for the old name, else username_taken"),
    ];
    holds(&CallStep::Rename, DOUBTED, &rows);
}

#[test]
fn a_rename_of_another_user_than_asked_for_is_told_as_such() {
    let rows = [
        (named("new", Some(OURS)), "applied by answer"),
        (named("new", None), "applied by answer"),
        (named("new", Some(THEIRS)), "failed user_mismatch"),
    ];
    holds(&CallStep::Rename, FRESH_WITH_ID, &rows);
    holds(&CallStep::Rename, DOUBTED_CHECKED_AFTER, &rows);
    let request = request(Some(OURS));
    let case = CallContext {
        request: &request,
        maybe_applied: false,
        verify_before: false,
    };
    let verdict = judge(&CallStep::Rename, &named("new", Some(THEIRS)), case);
    let Verdict::Failed(pending) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(&*pending.detail, APPLIED_TO_OTHER_USER);
}

#[test]
fn the_old_name_is_checked_before_it_is_renamed() {
    let both = [
        (named("old", Some(OURS)), "rename"),
        (named("OLD", Some(OURS)), "rename"),
        (named("old", None), "rename"),
        (status(409), "rename"),
    ];
    holds(&CallStep::Verify, FRESH_WITH_ID, &both);
    holds(&CallStep::Verify, DOUBTED_WITH_ID, &both);
    let fresh = [
        (named("old", Some(THEIRS)), "failed user_mismatch"),
        (status(404), "failed user_not_found"),
        (status(403), "failed forbidden"),
        (status(400), "failed rejected"),
    ];
    holds(&CallStep::Verify, FRESH_WITH_ID, &fresh);
    let doubted = [
        (
            named("old", Some(THEIRS)),
            "ask for the new name, else user_mismatch",
        ),
        (status(404), "ask for the new name, else user_not_found"),
        (status(403), "ask for the old name, else forbidden"),
        (status(400), "ask for the old name, else rejected"),
    ];
    holds(&CallStep::Verify, DOUBTED_WITH_ID, &doubted);
}

#[test]
fn an_old_name_that_still_exists_shows_that_nothing_was_applied() {
    let step = CallStep::ConfirmOld(taken());
    let rows = [
        (named("old", None), "failed username_taken"),
        (named("Old", None), "failed username_taken"),
        (status(409), "failed username_taken"),
        (status(404), "ask for the new name, else username_taken"),
    ];
    holds(&step, DOUBTED, &rows);
    let with_id = [
        (named("old", Some(OURS)), "failed username_taken"),
        (
            named("old", Some(THEIRS)),
            "ask for the new name, else username_taken",
        ),
    ];
    holds(&step, DOUBTED_WITH_ID, &with_id);
}

#[test]
fn a_new_name_that_exists_shows_that_an_earlier_try_was_applied() {
    let step = CallStep::ConfirmNew(not_found());
    let rows = [
        (named("new", None), "already_applied by name"),
        (named("new", Some(THEIRS)), "already_applied by name"),
        (status(409), "already_applied by name"),
        (status(404), "failed user_not_found"),
    ];
    holds(&step, DOUBTED, &rows);
    let with_id = [
        (named("new", Some(OURS)), "already_applied by user_id"),
        (named("new", None), "already_applied by name"),
        (named("new", Some(THEIRS)), "failed user_not_found"),
        (status(409), "already_applied by name"),
        (status(404), "failed user_not_found"),
    ];
    holds(&step, DOUBTED_WITH_ID, &with_id);
    // Unchecked, the earlier try may have renamed whoever bore the old name.
    let checked_after = [(named("new", Some(THEIRS)), "failed user_mismatch")];
    holds(&step, DOUBTED_CHECKED_AFTER, &checked_after);
}

#[test]
fn a_name_that_was_taken_a_moment_ago_and_is_free_now_is_tried_again() {
    let step = CallStep::ConfirmNew(taken());
    holds(&step, DOUBTED, &[(status(404), "retry")]);
}

#[test]
fn a_question_that_is_refused_permanently_is_put_of_the_other_name_and_then_no_more() {
    for when in [DOUBTED, DOUBTED_WITH_ID, DOUBTED_CHECKED_AFTER] {
        for refused in [400, 402, 405, 410, 418, 422, 451] {
            let old = [(
                status(refused),
                "ask for the new name alone, else username_taken",
            )];
            holds(&CallStep::ConfirmOld(taken()), when, &old);
            let new = [(status(refused), "failed outcome_unknown")];
            holds(&CallStep::ConfirmNew(not_found()), when, &new);
            holds(&CallStep::ConfirmNewAlone(not_found()), when, &new);
        }
    }
}

#[test]
fn a_question_that_is_forbidden_is_put_again_since_credentials_may_be_the_cause() {
    for step in [
        CallStep::ConfirmOld(taken()),
        CallStep::ConfirmNew(not_found()),
        CallStep::ConfirmNewAlone(not_found()),
    ] {
        let rows = [(status(403), "retry, open")];
        holds(&step, DOUBTED, &rows);
        holds(&step, DOUBTED_WITH_ID, &rows);
    }
}

#[test]
fn the_new_name_alone_tells_by_an_id_or_by_its_absence_and_else_nothing() {
    let step = CallStep::ConfirmNewAlone(not_found());
    let without_id = [
        (named("new", None), "failed outcome_unknown"),
        (named("new", Some(THEIRS)), "failed outcome_unknown"),
        (status(409), "failed outcome_unknown"),
        (status(404), "failed user_not_found"),
    ];
    holds(&step, DOUBTED, &without_id);
    let with_id = [
        (named("new", Some(OURS)), "already_applied by user_id"),
        (named("NEW", Some(OURS)), "already_applied by user_id"),
        (named("new", None), "failed outcome_unknown"),
        (named("new", Some(THEIRS)), "failed user_not_found"),
        (status(409), "failed outcome_unknown"),
        (status(404), "failed user_not_found"),
    ];
    holds(&step, DOUBTED_WITH_ID, &with_id);
    let checked_after = [(named("new", Some(THEIRS)), "failed user_mismatch")];
    holds(&step, DOUBTED_CHECKED_AFTER, &checked_after);
    holds(
        &CallStep::ConfirmNewAlone(taken()),
        DOUBTED,
        &[(status(404), "retry")],
    );
}

#[test]
fn a_name_in_the_apis_own_spelling_is_the_new_name_and_is_told_as_the_api_spells_it() {
    let case = CallContext {
        request: &request(None),
        maybe_applied: false,
        verify_before: true,
    };
    for (answered, told) in [("new", None), ("NEW", Some("NEW")), ("n\u{ef}w", None)] {
        let verdict = judge(&CallStep::Rename, &named(answered, None), case);
        match verdict {
            Verdict::Renamed { username, .. } => {
                assert_eq!(username.as_ref().map(Username::reveal), told, "{answered}");
            }
            Verdict::Retry(retry) => assert!(retry.maybe_applied && answered == "n\u{ef}w"),
            other => panic!("{answered}: {other:?}"),
        }
    }
}

#[test]
fn an_unknown_outcome_says_that_the_rename_may_have_taken_effect() {
    let pending = unknown("the API did not answer in time", None);
    assert_eq!(pending.reason, Reason::OutcomeUnknown);
    assert!(
        pending.detail.contains("may have taken effect"),
        "{}",
        pending.detail
    );
}

#[test]
fn retry_after_is_handed_on() {
    for code in [408, 425, 429, 503] {
        let wait = Duration::from_secs(7);
        let answer = ApiResponse::Refused(ErrorResponse {
            status: code,
            code: None,
            retry_after: Some(wait),
        });
        let request = request(None);
        let case = CallContext {
            request: &request,
            maybe_applied: false,
            verify_before: true,
        };
        let verdict = judge(&CallStep::Rename, &answer, case);
        let Verdict::Retry(retry) = verdict else {
            panic!("{code}: {verdict:?}")
        };
        assert_eq!(
            (retry.not_before, retry.http_status),
            (Some(wait), Some(code))
        );
    }
}

#[test]
fn a_failure_decided_without_a_call_is_confirmed_where_a_try_may_have_been_applied() {
    let late = || ProvisionalFailure {
        reason: Reason::DeadlineExceeded,
        http_status: None,
        detail: "late".into(),
    };
    assert_eq!(
        in_words(&failure(late(), false)),
        "failed deadline_exceeded"
    );
    assert_eq!(
        in_words(&failure(late(), true)),
        "ask for the old name, else deadline_exceeded"
    );
}

#[test]
fn a_try_begins_with_the_check_only_where_an_id_is_given_and_checked_before() {
    let with_id = request(Some(OURS));
    assert_eq!(first_step(&with_id, true), CallStep::Verify);
    assert_eq!(first_step(&with_id, false), CallStep::Rename);
    assert_eq!(first_step(&request(None), true), CallStep::Rename);
}

#[test]
fn each_answer_tells_of_the_apis_health() {
    for (answer, expected) in [
        (named("new", None), HealthSignal::Alive),
        (status(400), HealthSignal::Alive),
        (status(404), HealthSignal::Alive),
        (status(409), HealthSignal::Alive),
        (status(403), HealthSignal::Forbidden),
        (status(401), HealthSignal::BadCredentials),
        (
            ApiResponse::NoToken(TokenError::Missing),
            HealthSignal::BadCredentials,
        ),
        (status(429), HealthSignal::Throttled(None)),
        (status(408), HealthSignal::Transient),
        (status(425), HealthSignal::Transient),
        (status(500), HealthSignal::Transient),
        (status(302), HealthSignal::Transient),
        (
            ApiResponse::Malformed { status: 200 },
            HealthSignal::Transient,
        ),
        (
            ApiResponse::Silence(TransportError::Connect),
            HealthSignal::Transient,
        ),
        (
            ApiResponse::Silence(TransportError::Timeout),
            HealthSignal::Transient,
        ),
        (
            ApiResponse::NoToken(TokenError::Unavailable),
            HealthSignal::Transient,
        ),
    ] {
        assert_eq!(sign(&answer), expected, "{answer:?}");
    }
}

#[test]
fn questions_are_counted_by_what_they_found() {
    let request = request(Some(OURS));
    let asked = |step: &CallStep, answer: &ApiResponse| confirmation(step, answer, &request);
    let new = CallStep::ConfirmNew(not_found());
    for (answer, expected) in [
        (named("new", Some(OURS)), Confirmation::Found),
        (named("new", None), Confirmation::Found),
        (status(409), Confirmation::Found),
        (named("new", Some(THEIRS)), Confirmation::Mismatch),
        (status(404), Confirmation::Absent),
        (named("somebody else", None), Confirmation::Unclear),
        (status(503), Confirmation::Unclear),
    ] {
        assert_eq!(asked(&new, &answer), Some(expected), "{answer:?}");
    }
    assert_eq!(asked(&CallStep::Rename, &named("new", Some(OURS))), None);
}
