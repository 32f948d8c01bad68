use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::core::model::api_response::{ErrorResponse, TokenError, TransportError, UserRecord};
use crate::core::model::outcome::{AppliedBy, ConfirmedBy, Reason};
use crate::core::model::request::{AccountId, Username};
use crate::core::policy::retry::saturating_add;

const OURS: Uuid = Uuid::from_u128(7);

mod accounts;
mod lifecycle;
mod crowd;
mod endings;
mod following;

/// A machine, a clock, and whoever performs its effects.
struct SchedulerFixture {
    machine: Scheduler,
    now: Timestamp,
    next_job: u64,
    /// Where deliveries come from.
    source: SourceQueue,
}

impl SchedulerFixture {
    fn with(rules: SchedulerConfig) -> Self {
        let mut desk = Self {
            machine: Scheduler::new(rules),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            next_job: 0,
            source: SourceQueue::Requests,
        };
        assert_eq!(desk.say(JobEvent::Up), [Effect::Consume(ConsumeScope::All)]);
        desk
    }

    fn of(concurrency: usize) -> Self {
        Self::with(SchedulerConfig {
            concurrency,
            ..SchedulerConfig::default()
        })
    }

    /// What is to be done about it, but for the notes.
    fn say(&mut self, input: JobEvent) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.machine
            .handle(input, self.now, &mut || 0.5, &mut effects);
        effects.retain(|effect| !matches!(effect, Effect::Note(_)));
        effects
    }

    /// Time passes; the timer is heard if it comes.
    fn wait(&mut self, wait: Duration) -> Vec<Effect> {
        let until = saturating_add(self.now, wait);
        let mut effects = Vec::new();
        while let Some(at) = self.machine.next_timer().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            effects.extend(self.say(JobEvent::Timer));
        }
        self.now = until;
        effects
    }

    fn deliver(&mut self, request: RenameRequest) -> (JobId, Vec<Effect>) {
        self.deliver_as(request, AttemptHistory::default(), 0, false)
    }

    fn redeliver(&mut self, request: RenameRequest) -> (JobId, Vec<Effect>) {
        self.deliver_as(request, AttemptHistory::default(), 1, false)
    }

    fn deliver_as(
        &mut self,
        request: RenameRequest,
        carried: AttemptHistory,
        delivery_count: u32,
        fetched: bool,
    ) -> (JobId, Vec<Effect>) {
        let job = JobId(self.next_job);
        self.next_job += 1;
        let effects = self.say(JobEvent::Delivered(ArrivedRequest {
            job,
            request: Ok(Box::new(request)),
            carried,
            redelivered: delivery_count > 0,
            delivery_count,
            fetched,
            source: self.source,
            removed: None,
        }));
        (job, effects)
    }

    /// The worker is held, and fetches one request after which it is over with fetching.
    fn fetch(&mut self, request: RenameRequest) -> (JobId, Vec<Effect>) {
        let (job, mut effects) = self.deliver_as(request, AttemptHistory::default(), 0, true);
        effects.extend(self.say(JobEvent::Fetched { found: 1 }));
        (job, effects)
    }

    /// From `rename.undeliverable`.
    fn deliver_removed(
        &mut self,
        request: RenameRequest,
        cause: RemovalCause,
    ) -> (JobId, Vec<Effect>) {
        let job = JobId(self.next_job);
        self.next_job += 1;
        let effects = self.say(JobEvent::Delivered(ArrivedRequest {
            job,
            request: Ok(Box::new(request)),
            carried: AttemptHistory::default(),
            redelivered: false,
            delivery_count: 0,
            fetched: false,
            source: SourceQueue::Undeliverable,
            removed: Some(cause),
        }));
        (job, effects)
    }

    fn answer(&mut self, job: JobId, answer: ApiResponse) -> Vec<Effect> {
        self.say(JobEvent::Answered { job, answer })
    }

    fn confirm(&mut self, job: JobId, part: PublishPart) -> Vec<Effect> {
        self.say(JobEvent::Published {
            job,
            part,
            confirmed: true,
        })
    }

    /// A renamed request is told, acknowledged and over.
    fn end(&mut self, job: JobId) -> Vec<Effect> {
        let effects = self.confirm(job, PublishPart::Event);
        assert!(matches!(effects[..], [Effect::Ack { .. }]), "{effects:?}");
        self.say(JobEvent::Settled { job })
    }
}

fn request(number: u128, old: &str, new: &str) -> RenameRequest {
    RenameRequest {
        request_id: Uuid::from_u128(number),
        account_id: AccountId::parse("T12345678").unwrap(),
        username: Username::parse(old).unwrap(),
        new_username: Username::parse(new).unwrap(),
        user_id: None,
        requested_at: None,
        requested_by: None,
        not_after: None,
    }
}

/// One that shares no name with any other.
fn alone(number: u128) -> RenameRequest {
    request(number, &format!("old-{number}"), &format!("new-{number}"))
}

fn renamed(name: &str) -> ApiResponse {
    ApiResponse::User(UserRecord {
        username: name.into(),
        id: Some(OURS),
    })
}

fn status(status: u16) -> ApiResponse {
    ApiResponse::Refused(ErrorResponse {
        status,
        ..ErrorResponse::default()
    })
}

fn rename(job: JobId) -> Effect {
    Effect::Call {
        job,
        kind: CallKind::Rename,
        path_name: NameRole::Old,
    }
}

fn ask(job: JobId, path_name: NameRole) -> Effect {
    let kind = CallKind::Confirm;
    Effect::Call {
        job,
        kind,
        path_name,
    }
}

fn fetch(queue: SourceQueue, most: u16) -> Effect {
    Effect::Fetch { queue, most }
}

/// The one thing that is published.
fn published(effects: &[Effect]) -> &PublishEffect {
    let parcels: Vec<&PublishEffect> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish { parcel, .. } => Some(parcel),
            _ => None,
        })
        .collect();
    assert_eq!(parcels.len(), 1, "{effects:?}");
    parcels[0]
}

fn told_renamed(effects: &[Effect]) -> (AppliedBy, ConfirmedBy) {
    let PublishEffect::Event(Outcome::Renamed(renamed)) = published(effects) else {
        panic!("{effects:?}")
    };
    (renamed.how, renamed.confirmed_by)
}

/// The wait queue of a step, for so many milliseconds.
fn ladder(step: usize, milliseconds: u64) -> Destination {
    Destination::Ladder {
        step,
        wait: Duration::from_millis(milliseconds),
    }
}

fn copied(effects: &[Effect]) -> (Destination, &AttemptHistory) {
    let PublishEffect::Copy { to, carried } = published(effects) else {
        panic!("{effects:?}")
    };
    (*to, carried)
}

#[test]
fn a_renamed_request_is_told_confirmed_acknowledged_and_over() {
    let mut desk = SchedulerFixture::of(1);
    let (job, effects) = desk.deliver(request(1, "a", "b"));
    assert_eq!(effects, [rename(job)]);
    let effects = desk.answer(job, renamed("b"));
    assert_eq!(
        told_renamed(&effects),
        (AppliedBy::Applied, ConfirmedBy::Answer)
    );
    let effects = desk.confirm(job, PublishPart::Event);
    let [
        Effect::Ack {
            job: acknowledged,
            ended: Some(ended),
            settle: Some(AckBarrier::Sent),
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*acknowledged, job);
    assert!(matches!(ended.outcome, Outcome::Renamed(_)));
    assert_eq!(desk.say(JobEvent::Settled { job }), []);
    assert_eq!(desk.machine.counts(), JobCounts::default());
}

#[test]
fn a_request_with_a_user_id_is_checked_before_it_is_renamed() {
    let mut desk = SchedulerFixture::of(1);
    let (job, effects) = desk.deliver(RenameRequest {
        user_id: Some(OURS),
        ..request(1, "a", "b")
    });
    assert_eq!(effects, [ask(job, NameRole::Old)]);
    assert_eq!(desk.answer(job, renamed("a")), [rename(job)]);
}

#[test]
fn a_failure_is_a_dead_letter_first_and_then_an_event_and_then_an_ack() {
    let mut desk = SchedulerFixture::of(1);
    let (job, _) = desk.deliver(request(1, "a", "b"));
    let effects = desk.answer(job, status(404));
    let PublishEffect::Letter(failed) = published(&effects) else {
        panic!("{effects:?}")
    };
    assert_eq!(failed.reason, Reason::UserNotFound);
    let effects = desk.confirm(job, PublishPart::Letter);
    assert!(matches!(published(&effects), PublishEffect::Event(_)));
    let effects = desk.confirm(job, PublishPart::Event);
    assert!(matches!(effects[..], [Effect::Ack { .. }]));
}

#[test]
fn what_is_no_request_fails_without_a_call() {
    let mut desk = SchedulerFixture::of(1);
    let effects = desk.say(JobEvent::Delivered(ArrivedRequest {
        job: JobId(9),
        request: Err("not JSON".into()),
        carried: AttemptHistory::default(),
        redelivered: false,
        delivery_count: 0,
        fetched: false,
        source: SourceQueue::Requests,
        removed: None,
    }));
    let PublishEffect::Letter(failed) = published(&effects) else {
        panic!("{effects:?}")
    };
    assert_eq!(failed.reason, Reason::InvalidRequest);
}

#[test]
fn a_publish_that_is_refused_is_repeated_and_nothing_acknowledged_before() {
    let mut desk = SchedulerFixture::of(1);
    let (job, _) = desk.deliver(request(1, "a", "b"));
    desk.answer(job, renamed("b"));
    let refused = JobEvent::Published {
        job,
        part: PublishPart::Event,
        confirmed: false,
    };
    assert_eq!(desk.say(refused), []);
    let effects = desk.wait(Duration::from_secs(1));
    told_renamed(&effects);
    assert!(matches!(
        desk.confirm(job, PublishPart::Event)[..],
        [Effect::Ack { .. }]
    ));
}

#[test]
fn a_request_waits_here_for_a_while_and_then_in_the_ladder_with_its_history() {
    let mut desk = SchedulerFixture::of(1);
    let (job, _) = desk.deliver(request(1, "a", "b"));
    // Without a roll of luck the delays are 500 ms, 1 s, 2 s, 4 s.
    for wait in [500, 1_000, 2_000] {
        assert_eq!(desk.answer(job, status(503)), []);
        assert_eq!(desk.machine.counts().waiting, 1);
        assert_eq!(desk.machine.counts().in_flight, 0, "it holds no slot");
        assert_eq!(desk.wait(Duration::from_millis(wait)), [rename(job)]);
    }
    let effects = desk.answer(job, status(503));
    let (to, carried) = copied(&effects);
    assert_eq!(to, ladder(0, 4_000));
    assert_eq!((carried.attempts, carried.maybe_applied), (4, true));
    let carried = carried.clone();
    let effects = desk.confirm(job, PublishPart::Copy);
    let [
        Effect::Ack {
            ended: None,
            settle: None,
            ..
        },
    ] = effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(desk.machine.counts().in_hand, 0);
    // Its copy goes on where it was; the 404 is not taken at its word.
    let (job, effects) = desk.deliver_as(request(1, "a", "b"), carried, 0, false);
    assert_eq!(effects, [rename(job)]);
    assert_eq!(desk.answer(job, status(404)), [ask(job, NameRole::New)]);
    let effects = desk.answer(job, renamed("b"));
    assert_eq!(
        told_renamed(&effects),
        (AppliedBy::AlreadyApplied, ConfirmedBy::Name)
    );
}

#[test]
fn those_that_wait_do_not_keep_others_from_their_slots() {
    let mut desk = SchedulerFixture::of(2);
    for number in 0..6 {
        let (job, effects) = desk.deliver(alone(number));
        assert_eq!(effects, [rename(job)]);
        assert_eq!(desk.answer(job, status(503)), []);
        // An answer in between shows that the API is well.
        let (other, effects) = desk.deliver(alone(100 + number));
        assert_eq!(effects, [rename(other)]);
        desk.answer(other, renamed(&format!("new-{}", 100 + number)));
    }
    // Six wait in the worker, as many as there is room for; the next goes away at once.
    assert_eq!(desk.machine.counts().waiting, 6);
    let (job, _) = desk.deliver(alone(7));
    let effects = desk.answer(job, status(503));
    assert_eq!(copied(&effects).0, ladder(0, 500));
}

#[test]
fn no_more_calls_are_in_flight_than_allowed() {
    let mut desk = SchedulerFixture::of(2);
    let jobs: Vec<JobId> = (0..4).map(|number| desk.deliver(alone(number)).0).collect();
    assert_eq!(desk.machine.counts().in_flight, 2);
    let effects = desk.answer(jobs[0], renamed("new-0"));
    assert!(effects.contains(&rename(jobs[2])), "{effects:?}");
    assert_eq!(desk.machine.counts().in_flight, 2);
}

#[test]
fn one_that_shares_a_name_runs_once_the_ack_of_the_one_before_is_processed() {
    let mut desk = SchedulerFixture::of(8);
    let (first, _) = desk.deliver(request(1, "a", "b"));
    let (second, effects) = desk.deliver(request(2, "b", "c"));
    assert_eq!(effects, []);
    assert_eq!(desk.machine.counts().blocked_by_order, 1);
    desk.answer(first, renamed("b"));
    let effects = desk.confirm(first, PublishPart::Event);
    let [
        Effect::Ack {
            settle: Some(AckBarrier::Processed),
            ..
        },
    ] = effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(desk.say(JobEvent::Settled { job: first }), [rename(second)]);
}

#[test]
fn one_behind_a_deferred_request_follows_it_to_the_ladder() {
    let mut desk = SchedulerFixture::of(8);
    let (first, _) = desk.deliver(request(1, "a", "b"));
    let (second, _) = desk.deliver(request(2, "b", "c"));
    let answer = ApiResponse::Refused(ErrorResponse {
        status: 429,
        code: None,
        retry_after: Some(Duration::from_secs(20)),
    });
    let effects = desk.answer(first, answer);
    assert_eq!(copied(&effects).0, ladder(1, 20_000));
    let effects = desk.confirm(first, PublishPart::Copy);
    assert!(matches!(effects[0], Effect::Ack { job, .. } if job == first));
    let (to, carried) = copied(&effects);
    assert_eq!(to, ladder(1, 20_000));
    assert_eq!(carried.attempts, 0);
    assert!(matches!(
        desk.confirm(second, PublishPart::Copy)[..],
        [Effect::Ack { .. }]
    ));
}

#[test]
fn a_429_slows_the_account_and_no_other() {
    let mut desk = SchedulerFixture::of(8);
    let (first, _) = desk.deliver(alone(1));
    let answer = ApiResponse::Refused(ErrorResponse {
        status: 429,
        code: None,
        retry_after: Some(Duration::from_secs(1)),
    });
    assert_eq!(desk.answer(first, answer), []);
    let (second, effects) = desk.deliver(alone(2));
    assert_eq!(effects, []);
    let (other, effects) = desk.deliver(RenameRequest {
        account_id: AccountId::parse("P12345678").unwrap(),
        ..alone(3)
    });
    assert_eq!(effects, [rename(other)]);
    let effects = desk.wait(Duration::from_secs(1));
    assert!(effects.contains(&rename(first)) && effects.contains(&rename(second)));
}

#[test]
fn a_request_fails_when_its_time_has_passed_before_its_turn() {
    let mut desk = SchedulerFixture::of(1);
    let (first, _) = desk.deliver(alone(1));
    let not_after = Some(saturating_add(desk.now, Duration::from_secs(5)));
    desk.deliver(RenameRequest {
        not_after,
        ..alone(2)
    });
    desk.wait(Duration::from_secs(6));
    let effects = desk.answer(first, status(404));
    let failed = effects.iter().find_map(|effect| match effect {
        Effect::Publish {
            parcel: PublishEffect::Letter(failed),
            job,
        } if *job != first => Some(failed),
        _ => None,
    });
    assert_eq!(failed.unwrap().reason, Reason::DeadlineExceeded);
}

#[test]
fn a_twin_is_told_what_was_told_before() {
    let mut desk = SchedulerFixture::of(4);
    let (first, _) = desk.deliver(request(1, "a", "b"));
    let (twin, effects) = desk.deliver(request(1, "a", "b"));
    assert_eq!(effects, []);
    desk.answer(first, renamed("b"));
    let effects = desk.end(first);
    told_renamed(&effects);
    assert!(matches!(effects[..], [Effect::Publish { job, .. }] if job == twin));
}

#[test]
fn a_request_whose_fate_stays_open_ends_within_its_attempts_as_unknown() {
    let mut desk = SchedulerFixture::of(4);
    let carried = AttemptHistory {
        attempts: 11,
        maybe_applied: true,
        ..AttemptHistory::default()
    };
    let (job, _) = desk.deliver_as(alone(1), carried, 0, false);
    // The twelfth attempt fails too: was one of them applied?
    assert_eq!(desk.answer(job, status(503)), [ask(job, NameRole::Old)]);
    // That cannot be asked either, and nothing shows that the API is unwell beyond this request.
    let effects = desk.answer(job, status(503));
    let PublishEffect::Letter(failed) = published(&effects) else {
        panic!("{effects:?}")
    };
    assert_eq!(failed.reason, Reason::OutcomeUnknown);
    assert_eq!(failed.attempts, 12);
    assert!(failed.detail.contains("may have taken effect"));
}
