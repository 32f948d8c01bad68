//! One account's trouble, and what others notice of it: nothing.

use super::*;

const SICK: &str = "T00000001";
const WELL: &str = "P00000002";

/// A request of this account that shares no name with any other.
fn of(account: &str, number: u128) -> RenameRequest {
    RenameRequest {
        account_id: AccountId::parse(account).unwrap(),
        ..alone(number)
    }
}

/// Two accounts are known, both well.
fn desk(rules: SchedulerConfig) -> SchedulerFixture {
    let mut desk = SchedulerFixture::with(rules);
    for account in [SICK, WELL] {
        succeed(&mut desk, account, 1_000);
    }
    desk
}

fn succeed(desk: &mut SchedulerFixture, account: &str, number: u128) {
    let (job, effects) = desk.deliver(of(account, number));
    assert_eq!(effects, [rename(job)], "of {account}");
    told_renamed(&desk.answer(job, renamed(&format!("new-{number}"))));
    desk.end(job);
}

/// A request of the sick account goes away, for so many milliseconds.
fn deferred_for(effects: &[Effect]) -> Duration {
    match copied(effects).0 {
        Destination::Ladder { wait, .. } => wait,
        Destination::Tail => panic!("{effects:?}"),
    }
}

#[test]
fn refused_credentials_of_one_account_hold_it_and_no_other() {
    let mut desk = desk(SchedulerConfig::default());
    let (job, _) = desk.deliver(of(SICK, 1));
    assert_eq!(desk.answer(job, status(401)), []);
    assert_eq!(desk.machine.held(), None);
    let [held] = &desk.machine.held_accounts()[..] else {
        panic!("one is held")
    };
    assert_eq!(
        (held.account.as_str(), held.cause),
        (SICK, HoldCause::Credentials)
    );
    assert_eq!(desk.machine.held_count(HoldCause::Credentials), 1);
    // Another request of it waits, too, and is called no more than the first; the other account goes on.
    let (other, effects) = desk.deliver(of(SICK, 2));
    assert_eq!(effects, []);
    assert_eq!(desk.machine.counts().waiting, 2);
    succeed(&mut desk, WELL, 3);
    // One of them probes when it is time; the other waits for the next probe.
    assert_eq!(desk.wait(Duration::from_secs(1)), [rename(job)]);
    assert_eq!(desk.answer(job, status(401)), []);
    let effects = desk.wait(Duration::from_secs(2));
    assert!(effects.contains(&rename(job)), "{effects:?}");
    let (_, carried) = copied(&effects);
    assert_eq!(carried.attempts, 0);
    assert_eq!(deferred_for(&effects), Duration::from_secs(4));
    desk.confirm(other, PublishPart::Copy);
    // The first answer that is not refused resumes it.
    told_renamed(&desk.answer(job, renamed("new-1")));
    assert_eq!(desk.machine.held_accounts(), []);
}

#[test]
fn an_account_that_fails_is_held_after_ten_failures_and_the_others_go_on() {
    let mut desk = desk(SchedulerConfig::default());
    for number in 0..10 {
        let (job, effects) = desk.deliver(of(SICK, number));
        assert_eq!(effects, [rename(job)]);
        desk.answer(job, status(503));
    }
    assert_eq!(desk.machine.held(), None);
    assert_eq!(desk.machine.held_count(HoldCause::Api), 1);
    let (job, effects) = desk.deliver(of(SICK, 20));
    assert_eq!(effects, [], "it is not called");
    assert!(desk.machine.request(job).is_some());
    succeed(&mut desk, WELL, 21);
}

#[test]
fn a_403_of_an_account_whose_credentials_are_refused_fails_nobody() {
    let mut desk = desk(SchedulerConfig::default());
    let jobs: Vec<JobId> = (0..12)
        .map(|number| desk.deliver(of(SICK, number)).0)
        .collect();
    for &job in &jobs[..9] {
        let effects = desk.answer(job, status(403));
        assert!(matches!(published(&effects), PublishEffect::Letter(_)));
    }
    for &job in &jobs[9..] {
        assert_eq!(desk.answer(job, status(403)), [], "it waits");
    }
    assert_eq!(desk.machine.held_count(HoldCause::Credentials), 1);
    assert_eq!(desk.machine.held(), None);
}

#[test]
fn calls_are_started_account_by_account() {
    let mut desk = desk(SchedulerConfig {
        concurrency: 1,
        account_share: 1.0,
        ..SchedulerConfig::default()
    });
    let flood: Vec<JobId> = (0..3)
        .map(|number| desk.deliver(of(SICK, number)).0)
        .collect();
    let (other, _) = desk.deliver(of(WELL, 10));
    let effects = desk.answer(flood[0], renamed("new-0"));
    assert!(effects.contains(&rename(flood[1])), "{effects:?}");
    let effects = desk.answer(flood[1], renamed("new-1"));
    assert!(effects.contains(&rename(other)), "{effects:?}");
}

#[test]
fn past_its_share_an_account_waits_elsewhere_about_as_long_as_its_turn_is_away() {
    let mut desk = desk(SchedulerConfig {
        concurrency: 2,
        ..SchedulerConfig::default()
    });
    // One try of it takes a second.
    let (job, _) = desk.deliver(of(SICK, 1));
    desk.wait(Duration::from_secs(1));
    desk.answer(job, renamed("new-1"));
    desk.end(job);
    let share = desk.machine.rules.share();
    assert_eq!(share, 7, "half of the prefetch of 14");
    for number in 0..share {
        let (_, effects) = desk.deliver(of(SICK, 100 + number as u128));
        assert!(
            !effects
                .iter()
                .any(|effect| matches!(effect, Effect::Publish { .. }))
        );
    }
    let waits: Vec<Duration> = (0..3)
        .map(|number| deferred_for(&desk.deliver(of(SICK, 200 + number)).1))
        .collect();
    assert!(waits.is_sorted() && waits[0] < waits[2], "{waits:?}");
    assert!(waits[2] < Duration::from_secs(5), "{waits:?}");
    // The other account's requests stay.
    let (_, effects) = desk.deliver(of(WELL, 300));
    assert_eq!(effects, []);
}

#[test]
fn an_account_that_is_alone_may_take_everything() {
    let mut desk = SchedulerFixture::of(2);
    for number in 0..14 {
        let (_, effects) = desk.deliver(of(SICK, number));
        assert!(
            !effects
                .iter()
                .any(|effect| matches!(effect, Effect::Publish { .. }))
        );
    }
}

#[test]
fn when_too_many_are_away_fairness_gives_way_to_progress() {
    let mut desk = desk(SchedulerConfig {
        concurrency: 2,
        max_deferred: 10,
        ..SchedulerConfig::default()
    });
    let mut away = 0;
    for number in 0..40 {
        let (job, effects) = desk.deliver(of(SICK, number));
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publish { .. }))
        {
            desk.confirm(job, PublishPart::Copy);
            away += 1;
        }
    }
    assert_eq!(away, 10);
}

/// The worker is held, since two accounts fail.
fn held_by_two() -> SchedulerFixture {
    let mut desk = desk(SchedulerConfig::default());
    for number in 0..10 {
        let account = if number < 5 { SICK } else { "T00000003" };
        let (job, _) = desk.deliver(of(account, number));
        desk.answer(job, status(503));
    }
    assert_eq!(desk.machine.held(), Some(HoldCause::Api));
    for job in 2..12 {
        desk.confirm(JobId(job), PublishPart::Copy);
    }
    desk
}

#[test]
fn a_held_worker_probes_at_once_with_a_request_of_an_account_that_has_not_failed() {
    let mut desk = held_by_two();
    // Those of accounts that fail are moved on, more of them each time.
    for (round, most) in [1_u16, 2, 4].into_iter().enumerate() {
        for number in 0..u128::from(most) {
            let number = 100 * (round as u128 + 1) + number;
            let (job, effects) =
                desk.deliver_as(of(SICK, number), AttemptHistory::default(), 0, true);
            assert_eq!(copied(&effects).0, Destination::Tail);
            desk.confirm(job, PublishPart::Copy);
        }
        let found = u32::from(most);
        let effects = desk.say(JobEvent::Fetched { found });
        assert_eq!(effects, [fetch(SourceQueue::Requests, 2 * most)]);
    }
    let (well, effects) = desk.deliver_as(of(WELL, 500), AttemptHistory::default(), 0, true);
    assert_eq!(effects, [rename(well)]);
    let (_, effects) = desk.deliver_as(of(WELL, 501), AttemptHistory::default(), 0, true);
    assert_eq!(copied(&effects).0, Destination::Tail, "one probe at a time");
    desk.say(JobEvent::Fetched { found: 2 });
    let effects = desk.answer(well, renamed("new-500"));
    assert!(effects.contains(&Effect::Consume(ConsumeScope::All)));
    assert_eq!(desk.machine.held(), None);
}

#[test]
fn a_hold_that_begins_while_an_earlier_fetch_is_under_way_waits_for_its_end() {
    let mut desk = held_by_two();
    // The hold ends by a call that was fetched, while more of that fetch may come.
    let (well, _) = desk.deliver_as(of(WELL, 500), AttemptHistory::default(), 0, true);
    desk.answer(well, renamed("new-500"));
    assert_eq!(desk.machine.held(), None);
    let fetches = |effects: &[Effect]| {
        let fetch = |effect: &&Effect| matches!(effect, Effect::Fetch { .. });
        effects.iter().filter(fetch).count()
    };
    let mut fetched = 0;
    for number in 600..700 {
        let account = if number % 2 == 0 { SICK } else { "T00000003" };
        let (job, effects) = desk.deliver(of(account, number));
        fetched += fetches(&effects);
        if desk.machine.request(job).is_some() && effects == [rename(job)] {
            fetched += fetches(&desk.answer(job, status(503)));
        }
        if desk.machine.held().is_some() {
            break;
        }
    }
    assert_eq!(desk.machine.held(), Some(HoldCause::Api));
    assert_eq!(fetched, 0, "the broker still answers the one before");
}

#[test]
fn probes_of_a_held_worker_go_to_different_accounts() {
    let mut desk = held_by_two();
    desk.say(JobEvent::Fetched { found: 0 });
    desk.wait(Duration::from_secs(1));
    // The account whose failure began the hold is not the one to ask first.
    let (last, effects) = desk.deliver_as(of("T00000003", 100), AttemptHistory::default(), 0, true);
    assert_eq!(copied(&effects).0, Destination::Tail);
    desk.say(JobEvent::Fetched { found: 1 });
    // Had it been fetched beside others, and one of them ended the session, it would count against all.
    let effects = desk.confirm(last, PublishPart::Copy);
    assert!(
        effects.contains(&fetch(SourceQueue::Requests, 2)),
        "{effects:?}"
    );
    let (probe, effects) = desk.deliver_as(of(SICK, 101), AttemptHistory::default(), 0, true);
    assert_eq!(effects, [rename(probe)]);
}
