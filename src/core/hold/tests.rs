//! The hold as a table and by properties.

use super::*;
use proptest::prelude::*;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

fn account(id: &str) -> AccountId {
    AccountId::parse(id).unwrap()
}

fn answer(hold: &mut Hold, sign: Sign, request: u64, probe: bool, now: Timestamp) -> Change {
    let account = account("T12345678");
    hold.on(
        Event::Answered {
            sign,
            request,
            account: &account,
            failed_before: None,
            probe,
        },
        now,
    )
    .unwrap()
}

/// A request that failed before, then, fails again.
fn fails_again(hold: &mut Hold, request: u64, before: Timestamp, now: Timestamp) -> Change {
    let account = account("T12345678");
    let event = Event::Answered {
        sign: Sign::Transient,
        request,
        account: &account,
        failed_before: Some(before),
        probe: false,
    };
    hold.on(event, now).unwrap()
}

#[test]
fn ten_transient_failures_in_a_row_hold_and_one_answer_between_them_does_not() {
    let mut hold = Hold::new(HoldSettings::default());
    for request in 0..9 {
        assert_eq!(
            answer(&mut hold, Sign::Transient, request, false, at(0)),
            Change::None
        );
    }
    answer(&mut hold, Sign::Alive, 9, false, at(0));
    for request in 0..9 {
        assert_eq!(
            answer(&mut hold, Sign::Transient, request, false, at(0)),
            Change::None
        );
    }
    assert_eq!(
        answer(&mut hold, Sign::Transient, 1, false, at(0)),
        Change::Held(Cause::Api)
    );
    assert_eq!(hold.probe_at(), Some(at(1000)));
}

#[test]
fn requests_that_failed_while_others_did_not_hold_nobody_when_they_fail_again() {
    let mut hold = Hold::new(HoldSettings::default());
    answer(&mut hold, Sign::Alive, 99, false, at(1000));
    for request in 0..100 {
        let change = fails_again(&mut hold, request, at(900), at(2000));
        assert_eq!(change, Change::None);
    }
    // But no one of them is failed for good meanwhile: it may be the API after all.
    assert!(hold.suspects_the_api(7));
}

#[test]
fn requests_that_have_failed_before_hold_once_nobody_else_is_answered_between() {
    let mut hold = Hold::new(HoldSettings::default());
    answer(&mut hold, Sign::Alive, 99, false, at(1000));
    for request in 0..10 {
        // The API went down since the others were answered: the first of these cannot know.
        let change = fails_again(&mut hold, request, at(900), at(2000));
        assert_eq!(change, Change::None);
    }
    for request in 0..9 {
        let change = fails_again(&mut hold, request, at(2000), at(3000));
        assert_eq!(change, Change::None);
    }
    let change = fails_again(&mut hold, 9, at(2000), at(3000));
    assert_eq!(change, Change::Held(Cause::Api));
}

#[test]
fn probes_come_after_1_2_4_up_to_60_seconds_and_at_most_60_in_half_an_hour() {
    let mut hold = Hold::new(HoldSettings::default());
    for request in 0..10 {
        answer(&mut hold, Sign::Transient, request, false, at(0));
    }
    let mut probes = Vec::new();
    while let Some(due) = hold.probe_at().filter(|&due| due <= at(1_800_000)) {
        probes.push(due.as_second());
        hold.on(Event::ProbeStarted, due).unwrap();
        answer(&mut hold, Sign::Transient, 1, true, due);
    }
    assert_eq!(probes[..7], [1, 3, 7, 15, 31, 63, 123]);
    assert!(probes.len() <= 60, "{}", probes.len());
}

#[test]
fn the_first_answer_that_is_not_transient_resumes() {
    for sign in [Sign::Alive, Sign::Throttled(None), Sign::Forbidden] {
        let mut hold = Hold::new(HoldSettings {
            failures: 1,
            ..HoldSettings::default()
        });
        answer(&mut hold, Sign::Transient, 1, false, at(0));
        hold.on(Event::ProbeStarted, at(1000)).unwrap();
        assert_eq!(
            answer(&mut hold, sign, 2, true, at(1100)),
            Change::Resumed,
            "{sign:?}"
        );
        assert_eq!(hold.cause(), None);
    }
}

#[test]
fn refused_credentials_hold_at_once_and_many_forbidden_in_a_row_do() {
    let mut hold = Hold::new(HoldSettings::default());
    assert_eq!(
        answer(&mut hold, Sign::BadCredentials, 1, false, at(0)),
        Change::Held(Cause::Credentials)
    );
    let mut hold = Hold::new(HoldSettings::default());
    for request in 0..9 {
        assert_eq!(
            answer(&mut hold, Sign::Forbidden, request, false, at(0)),
            Change::None
        );
    }
    assert_eq!(
        answer(&mut hold, Sign::Forbidden, 9, false, at(0)),
        Change::Held(Cause::Credentials)
    );
}

#[test]
fn one_accounts_bad_credentials_do_not_hold_the_others() {
    let mut hold = Hold::new(HoldSettings::default());
    answer(&mut hold, Sign::Alive, 1, false, at(0));
    let other = account("P12345678");
    let event = Event::Answered {
        sign: Sign::BadCredentials,
        request: 2,
        account: &other,
        failed_before: None,
        probe: false,
    };
    assert_eq!(
        hold.on(event, at(0)),
        Ok(Change::PauseAccount(ACCOUNT_PAUSE))
    );
    assert_eq!(hold.cause(), None);
}

#[test]
fn a_single_bad_request_does_not_make_the_api_suspect() {
    let mut hold = Hold::new(HoldSettings::default());
    answer(&mut hold, Sign::Transient, 7, false, at(0));
    answer(&mut hold, Sign::Transient, 7, false, at(0));
    assert!(!hold.suspects_the_api(7));
    assert!(hold.suspects_the_api(8));
    answer(&mut hold, Sign::Transient, 8, false, at(0));
    assert!(hold.suspects_the_api(7));
}

#[test]
fn an_event_that_cannot_happen_is_an_error_and_changes_nothing() {
    let mut hold = Hold::new(HoldSettings::default());
    answer(&mut hold, Sign::Transient, 7, false, at(0));
    let before = hold.state().clone();
    assert_eq!(hold.on(Event::ProbeStarted, at(0)), Err(IllegalTransition));
    assert_eq!(hold.on(Event::ProbeMissed, at(0)), Err(IllegalTransition));
    assert_eq!(*hold.state(), before);
}

fn any_sign() -> impl Strategy<Value = Sign> {
    prop_oneof![
        Just(Sign::Alive),
        Just(Sign::Transient),
        Just(Sign::Throttled(None)),
        Just(Sign::Forbidden),
        Just(Sign::BadCredentials),
    ]
}

proptest! {
    #[test]
    fn a_held_worker_always_knows_when_it_looks_again(
        signs in proptest::collection::vec((any_sign(), 0u64..5, any::<bool>()), 0..200),
    ) {
        let mut hold = Hold::new(HoldSettings::default());
        let mut now = at(0);
        for (sign, request, miss) in signs {
            let probing = if let Some(due) = hold.probe_at() {
                prop_assert!(due <= later(now, Duration::from_secs(60)));
                now = due;
                if miss {
                    hold.on(Event::ProbeMissed, now).unwrap();
                } else {
                    hold.on(Event::ProbeStarted, now).unwrap();
                }
                !miss
            } else {
                false
            };
            answer(&mut hold, sign, request, probing, now);
            prop_assert_eq!(hold.cause().is_some(), hold.probe_at().is_some());
        }
    }
}
