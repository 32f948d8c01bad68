//! The hold as a table and by properties.

use super::*;
use proptest::prelude::*;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

fn account(id: &str) -> AccountId {
    AccountId::parse(id).unwrap()
}

/// Facts of the only account there is.
const SOLE: AccountFacts = AccountFacts {
    is_sole: true,
    refused_for_all: true,
};
/// Facts of one account among others that are well.
const AMONG_OTHERS: AccountFacts = AccountFacts {
    is_sole: false,
    refused_for_all: false,
};

fn answer(hold: &mut WorkerHold, sign: HealthSignal, probe: bool, now: Timestamp) -> HoldChange {
    answer_given(hold, sign, SOLE, probe, now)
}

fn answer_given(
    hold: &mut WorkerHold,
    sign: HealthSignal,
    facts: AccountFacts,
    probe: bool,
    now: Timestamp,
) -> HoldChange {
    let account = account("T12345678");
    let event = HoldEvent::Answered {
        sign,
        account: &account,
        facts,
        failed_before: None,
        probe,
    };
    hold.on(event, now).unwrap()
}

/// An answer to one of several accounts.
fn answer_to(hold: &mut WorkerHold, number: usize, sign: HealthSignal) -> HoldChange {
    let account = account(&format!("T{number:08}"));
    let event = HoldEvent::Answered {
        sign,
        account: &account,
        facts: AMONG_OTHERS,
        failed_before: None,
        probe: false,
    };
    hold.on(event, at(0)).unwrap()
}

/// A request that failed before, then, fails again.
fn fails_again(hold: &mut WorkerHold, before: Timestamp, now: Timestamp) -> HoldChange {
    let account = account("T12345678");
    let event = HoldEvent::Answered {
        sign: HealthSignal::Transient,
        account: &account,
        facts: SOLE,
        failed_before: Some(before),
        probe: false,
    };
    hold.on(event, now).unwrap()
}

#[test]
fn ten_transient_failures_in_a_row_hold_and_one_answer_between_them_does_not() {
    let mut hold = WorkerHold::new(HoldSettings::default());
    for _ in 0..9 {
        assert_eq!(
            answer(&mut hold, HealthSignal::Transient, false, at(0)),
            HoldChange::None
        );
    }
    answer(&mut hold, HealthSignal::Alive, false, at(0));
    for _ in 0..9 {
        assert_eq!(
            answer(&mut hold, HealthSignal::Transient, false, at(0)),
            HoldChange::None
        );
    }
    assert_eq!(
        answer(&mut hold, HealthSignal::Transient, false, at(0)),
        HoldChange::Held(HoldCause::Api)
    );
    assert_eq!(hold.probe_at(), Some(at(1000)));
}

#[test]
fn requests_that_failed_while_others_did_not_hold_nobody_when_they_fail_again() {
    let mut hold = WorkerHold::new(HoldSettings::default());
    answer(&mut hold, HealthSignal::Alive, false, at(1000));
    for _ in 0..100 {
        let change = fails_again(&mut hold, at(900), at(2000));
        assert_eq!(change, HoldChange::None);
    }
}

#[test]
fn requests_that_have_failed_before_hold_once_nobody_else_is_answered_between() {
    let mut hold = WorkerHold::new(HoldSettings::default());
    answer(&mut hold, HealthSignal::Alive, false, at(1000));
    for _ in 0..10 {
        // The API went down since the others were answered: the first of these cannot know.
        let change = fails_again(&mut hold, at(900), at(2000));
        assert_eq!(change, HoldChange::None);
    }
    for _ in 0..9 {
        let change = fails_again(&mut hold, at(2000), at(3000));
        assert_eq!(change, HoldChange::None);
    }
    let change = fails_again(&mut hold, at(2000), at(3000));
    assert_eq!(change, HoldChange::Held(HoldCause::Api));
}

#[test]
fn probes_come_after_1_2_4_up_to_60_seconds_and_at_most_60_in_half_an_hour() {
    let mut hold = WorkerHold::new(HoldSettings::default());
    for _ in 0..10 {
        answer(&mut hold, HealthSignal::Transient, false, at(0));
    }
    let mut probes = Vec::new();
    while let Some(due) = hold.probe_at().filter(|&due| due <= at(1_800_000)) {
        probes.push(due.as_second());
        hold.on(HoldEvent::ProbeStarted, due).unwrap();
        answer(&mut hold, HealthSignal::Transient, true, due);
    }
    assert_eq!(probes[..7], [1, 3, 7, 15, 31, 63, 123]);
    assert!(probes.len() <= 60, "{}", probes.len());
}

#[test]
fn the_first_answer_that_is_not_transient_resumes() {
    for sign in [
        HealthSignal::Alive,
        HealthSignal::Throttled(None),
        HealthSignal::Forbidden,
    ] {
        let mut hold = WorkerHold::new(HoldSettings {
            failures: 1,
            ..HoldSettings::default()
        });
        answer(&mut hold, HealthSignal::Transient, false, at(0));
        hold.on(HoldEvent::ProbeStarted, at(1000)).unwrap();
        assert_eq!(
            answer_given(&mut hold, sign, AMONG_OTHERS, true, at(1100)),
            HoldChange::Resumed,
            "{sign:?}"
        );
        assert_eq!(hold.cause(), None);
    }
}

#[test]
fn credentials_that_are_refused_for_all_hold_at_once() {
    for sign in [HealthSignal::BadCredentials, HealthSignal::Forbidden] {
        let mut hold = WorkerHold::new(HoldSettings::default());
        let change = answer(&mut hold, sign, false, at(0));
        assert_eq!(change, HoldChange::Held(HoldCause::Credentials));
        // A probe that is refused, for whichever account, does not end it.
        for facts in [SOLE, AMONG_OTHERS] {
            let due = hold.probe_at().unwrap();
            hold.on(HoldEvent::ProbeStarted, due).unwrap();
            let change = answer_given(&mut hold, sign, facts, true, due);
            assert_eq!(change, HoldChange::ProbeFailed(HoldCause::Credentials));
        }
    }
}

#[test]
fn one_account_among_others_does_not_hold_them_whatever_it_is_answered() {
    for sign in [
        HealthSignal::BadCredentials,
        HealthSignal::Forbidden,
        HealthSignal::Transient,
    ] {
        let mut hold = WorkerHold::new(HoldSettings::default());
        for _ in 0..100 {
            assert_eq!(answer_to(&mut hold, 1, sign), HoldChange::None, "{sign:?}");
        }
    }
}

#[test]
fn several_accounts_that_fail_hold_unless_one_is_answered_between() {
    let mut hold = WorkerHold::new(HoldSettings::default());
    for _ in 0..20 {
        answer_to(&mut hold, 1, HealthSignal::Transient);
    }
    for _ in 0..4 {
        assert_eq!(
            answer_to(&mut hold, 2, HealthSignal::Transient),
            HoldChange::None
        );
    }
    let mut other = hold.clone();
    answer_to(&mut other, 3, HealthSignal::Alive);
    assert_eq!(
        answer_to(&mut other, 2, HealthSignal::Transient),
        HoldChange::None
    );
    assert_eq!(
        answer_to(&mut hold, 2, HealthSignal::Transient),
        HoldChange::Held(HoldCause::Api)
    );
}

#[test]
fn a_probe_for_an_account_whose_own_credentials_are_refused_does_not_resume() {
    let mut hold = WorkerHold::new(HoldSettings::default());
    for _ in 0..10 {
        answer(&mut hold, HealthSignal::Transient, false, at(0));
    }
    hold.on(HoldEvent::ProbeStarted, at(1_000)).unwrap();
    let account = account("T00000002");
    let event = HoldEvent::Answered {
        sign: HealthSignal::BadCredentials,
        account: &account,
        facts: AMONG_OTHERS,
        failed_before: None,
        probe: true,
    };
    let change = hold.on(event, at(1_000));
    assert_eq!(change, Ok(HoldChange::ProbeFailed(HoldCause::Api)));
}

#[test]
fn an_event_that_cannot_happen_is_an_error_and_changes_nothing() {
    let mut hold = WorkerHold::new(HoldSettings::default());
    answer(&mut hold, HealthSignal::Transient, false, at(0));
    let before = hold.state().clone();
    assert_eq!(
        hold.on(HoldEvent::ProbeStarted, at(0)),
        Err(IllegalTransition)
    );
    assert_eq!(
        hold.on(HoldEvent::ProbeMissed, at(0)),
        Err(IllegalTransition)
    );
    assert_eq!(*hold.state(), before);
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
    fn a_held_worker_always_knows_when_it_looks_again(
        signs in proptest::collection::vec((any_sign(), any::<bool>()), 0..200),
    ) {
        let mut hold = WorkerHold::new(HoldSettings::default());
        let mut now = at(0);
        for (sign, miss) in signs {
            let probing = if let Some(due) = hold.probe_at() {
                prop_assert!(due <= saturating_add(now, Duration::from_secs(60)));
                now = due;
                if miss {
                    hold.on(HoldEvent::ProbeMissed, now).unwrap();
                } else {
                    hold.on(HoldEvent::ProbeStarted, now).unwrap();
                }
                !miss
            } else {
                false
            };
            answer(&mut hold, sign, probing, now);
            prop_assert_eq!(hold.cause().is_some(), hold.probe_at().is_some());
        }
    }
}
