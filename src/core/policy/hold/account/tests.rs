//! An account's hold as a table and by properties.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SETTINGS: HoldSettings = HoldSettings {
    failures: 10,
    first_probe: Duration::from_secs(1),
    max_probe: Duration::from_secs(60),
};

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

fn answered(sign: HealthSignal, request: u64, probe: bool) -> AccountEvent {
    AccountEvent::Answered {
        sign,
        request,
        failed_before: None,
        probe,
    }
}

fn answer(
    hold: &mut AccountHold,
    sign: HealthSignal,
    probe: bool,
    now: Timestamp,
) -> AccountChange {
    hold.on(answered(sign, 1, probe), &SETTINGS, now)
}

/// Held for this cause since 1970 began.
fn held_for(cause: HoldCause) -> AccountHold {
    let mut hold = AccountHold::default();
    let sign = match cause {
        HoldCause::Api => HealthSignal::Transient,
        HoldCause::Credentials => HealthSignal::BadCredentials,
    };
    while hold.trouble().is_none() {
        answer(&mut hold, sign, false, at(0));
    }
    hold
}

#[test]
fn each_sign_begins_a_hold_after_its_number_of_failures() {
    for (sign, failures, cause) in [
        (HealthSignal::Transient, 10, HoldCause::Api),
        (HealthSignal::Forbidden, 10, HoldCause::Credentials),
        (HealthSignal::BadCredentials, 1, HoldCause::Credentials),
    ] {
        let mut hold = AccountHold::default();
        for _ in 1..failures {
            assert_eq!(answer(&mut hold, sign, false, at(0)), AccountChange::None);
        }
        let change = answer(&mut hold, sign, false, at(0));
        assert_eq!(change, AccountChange::Held(cause), "{sign:?}");
        assert_eq!(hold.probe_at(), Some(at(1_000)));
    }
}

#[test]
fn a_success_in_between_begins_the_count_again_and_a_429_does_not() {
    for (between, held) in [
        (HealthSignal::Alive, false),
        (HealthSignal::Throttled(None), true),
    ] {
        let mut hold = AccountHold::default();
        for _ in 0..9 {
            answer(&mut hold, HealthSignal::Transient, false, at(0));
        }
        answer(&mut hold, between, false, at(0));
        let change = answer(&mut hold, HealthSignal::Transient, false, at(0));
        assert_eq!(
            change == AccountChange::Held(HoldCause::Api),
            held,
            "{between:?}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row a case")]
fn what_an_answer_does_to_a_held_account() {
    use AccountChange::{None, Resumed};
    use HealthSignal::{Alive, BadCredentials, Forbidden, Throttled, Transient};
    use HoldCause::{Api, Credentials};
    // The cause that it is held for, the answer, whether a probe's: the change, the cause afterwards,
    // and when the next probe is due.
    for (cause, sign, probe, change, then, probe_at) in [
        (Api, Alive, false, Resumed(Api), Option::None, Option::None),
        (
            Api,
            Throttled(Option::None),
            false,
            Resumed(Api),
            Option::None,
            Option::None,
        ),
        (Api, Transient, false, None, Some(Api), Some(1_000)),
        (Api, Forbidden, false, None, Some(Api), Some(1_000)),
        (Api, BadCredentials, false, None, Some(Api), Some(1_000)),
        (Api, Alive, true, Resumed(Api), Option::None, Option::None),
        (Api, Transient, true, None, Some(Api), Some(3_000)),
        (
            Api,
            Forbidden,
            true,
            Resumed(Api),
            Option::None,
            Option::None,
        ),
        (
            Api,
            BadCredentials,
            true,
            None,
            Some(Credentials),
            Some(3_000),
        ),
        (
            Credentials,
            Alive,
            true,
            Resumed(Credentials),
            Option::None,
            Option::None,
        ),
        (
            Credentials,
            Transient,
            true,
            None,
            Some(Credentials),
            Some(3_000),
        ),
        (
            Credentials,
            Forbidden,
            true,
            None,
            Some(Credentials),
            Some(3_000),
        ),
        (
            Credentials,
            BadCredentials,
            true,
            None,
            Some(Credentials),
            Some(3_000),
        ),
        (
            Credentials,
            Forbidden,
            false,
            None,
            Some(Credentials),
            Some(1_000),
        ),
    ] {
        let mut hold = held_for(cause);
        if probe {
            hold.on(AccountEvent::ProbeStarted, &SETTINGS, at(1_000));
            assert_eq!(hold.probe_at(), Option::None);
        }
        let case = (cause, sign, probe);
        assert_eq!(
            answer(&mut hold, sign, probe, at(1_000)),
            change,
            "{case:?}"
        );
        assert_eq!(
            hold.trouble().map(|trouble| trouble.cause),
            then,
            "{case:?}"
        );
        assert_eq!(hold.probe_at(), probe_at.map(at), "{case:?}");
    }
}

#[test]
fn probes_come_after_1_2_4_up_to_60_seconds() {
    let mut hold = held_for(HoldCause::Api);
    let mut probes = Vec::new();
    while let Some(due) = hold.probe_at().filter(|&due| due <= at(200_000)) {
        probes.push(due.as_second());
        hold.on(AccountEvent::ProbeStarted, &SETTINGS, due);
        answer(&mut hold, HealthSignal::Transient, true, due);
    }
    assert_eq!(probes, [1, 3, 7, 15, 31, 63, 123, 183]);
}

#[test]
fn an_account_that_is_refused_and_answered_by_turns_is_probed_less_and_less_often() {
    let mut hold = AccountHold::default();
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..8 {
        answer(&mut hold, HealthSignal::BadCredentials, false, now);
        let due = hold.probe_at().unwrap();
        waits.push(due.duration_since(now).as_secs());
        now = due;
        hold.on(AccountEvent::ProbeStarted, &SETTINGS, now);
        answer(&mut hold, HealthSignal::Alive, true, now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    // After a minute without trouble it begins with a second again.
    now = saturating_add(now, Duration::from_secs(61));
    answer(&mut hold, HealthSignal::BadCredentials, false, now);
    assert_eq!(
        hold.probe_at(),
        Some(saturating_add(now, Duration::from_secs(1)))
    );
}

#[test]
fn those_that_may_not_be_called_come_back_when_the_next_probe_is_due() {
    let mut hold = held_for(HoldCause::Api);
    assert_eq!(hold.come_back_at(&SETTINGS, at(200)), Some(at(1_000)));
    hold.on(AccountEvent::ProbeStarted, &SETTINGS, at(1_000));
    assert_eq!(hold.come_back_at(&SETTINGS, at(1_000)), Some(at(3_000)));
    assert_eq!(AccountHold::default().come_back_at(&SETTINGS, at(0)), None);
}

#[test]
fn a_lost_probe_is_followed_by_another_within_seconds() {
    let mut hold = held_for(HoldCause::Api);
    for _ in 0..10 {
        let due = hold.probe_at().unwrap();
        hold.on(AccountEvent::ProbeStarted, &SETTINGS, due);
        answer(&mut hold, HealthSignal::Transient, true, due);
    }
    let due = hold.probe_at().unwrap();
    hold.on(AccountEvent::ProbeStarted, &SETTINGS, due);
    hold.on(AccountEvent::ProbeLost, &SETTINGS, due);
    assert_eq!(
        hold.probe_at(),
        Some(saturating_add(due, Duration::from_secs(5)))
    );
}

#[test]
fn a_request_is_spared_only_where_its_account_fails_beyond_it() {
    let mut hold = AccountHold::default();
    let fail = |hold: &mut AccountHold, request| {
        hold.on(
            answered(HealthSignal::Transient, request, false),
            &SETTINGS,
            at(0),
        );
    };
    fail(&mut hold, 7);
    fail(&mut hold, 7);
    assert!(!hold.spares(7, None, false) && hold.spares(8, None, false));
    fail(&mut hold, 8);
    assert!(hold.spares(7, None, false));
    // It was spared before, and the account has been answered since.
    answer(&mut hold, HealthSignal::Alive, false, at(2_000));
    fail(&mut hold, 8);
    assert!(!hold.spares(7, Some(at(1_000)), true));
    assert!(hold.spares(7, Some(at(3_000)), true));
}

#[test]
fn requests_that_failed_while_others_did_not_hold_nobody_when_they_fail_again() {
    let mut hold = AccountHold::default();
    answer(&mut hold, HealthSignal::Alive, false, at(1_000));
    for request in 0..100 {
        let event = AccountEvent::Answered {
            sign: HealthSignal::Transient,
            request,
            failed_before: Some(at(900)),
            probe: false,
        };
        assert_eq!(hold.on(event, &SETTINGS, at(2_000)), AccountChange::None);
    }
}

fn any_sign() -> impl Strategy<Value = HealthSignal> {
    prop_oneof![
        Just(HealthSignal::Alive),
        Just(HealthSignal::Transient),
        Just(HealthSignal::Throttled(None)),
        Just(HealthSignal::Forbidden),
        Just(HealthSignal::BadCredentials),
    ]
}

proptest! {
    #[test]
    fn a_held_account_is_probed_again_within_a_minute_whatever_is_answered(
        steps in proptest::collection::vec((any_sign(), any::<bool>(), any::<bool>()), 0..200),
    ) {
        let mut hold = AccountHold::default();
        let mut now = at(0);
        for (sign, probe, lost) in steps {
            if let Some(due) = hold.probe_at() {
                prop_assert!(due <= saturating_add(now, Duration::from_secs(60)));
                now = now.max(due);
                hold.on(AccountEvent::ProbeStarted, &SETTINGS, now);
                if lost {
                    hold.on(AccountEvent::ProbeLost, &SETTINGS, now);
                    continue;
                }
                // A probe's answer comes, whatever else does before.
                answer(&mut hold, sign, false, now);
                answer(&mut hold, sign, true, now);
            } else {
                answer(&mut hold, sign, probe, now);
            }
            prop_assert_eq!(hold.trouble().is_some(), hold.probe_at().is_some());
        }
    }
}
