//! Every request ends: whatever the API answers it, while it answers others.

use super::*;
use crate::core::model::outcome::Failed;
use crate::core::policy::verdict;
use crate::core::policy::verdict::HealthSignal;

/// One request, followed through the ladder until it ends, while another account is answered.
struct FollowerCase {
    desk: SchedulerFixture,
    request: RenameRequest,
    /// Numbers the requests of the other account.
    others: u128,
    calls: u32,
    began_at: Timestamp,
}

impl FollowerCase {
    fn new(rules: SchedulerConfig, request: RenameRequest) -> Self {
        let desk = SchedulerFixture::with(rules);
        Self {
            began_at: desk.now,
            desk,
            request,
            others: 1_000,
            calls: 0,
        }
    }

    /// The API renames a user of another account.
    fn answer_another(&mut self) {
        self.others += 1;
        let other = RenameRequest {
            account_id: AccountId::parse("P12345678").unwrap(),
            ..alone(self.others)
        };
        let (job, effects) = self.desk.deliver(other);
        assert_eq!(effects, [rename(job)]);
        let name = format!("new-{}", self.others);
        told_renamed(&self.desk.answer(job, renamed(&name)));
        self.desk.end(job);
    }

    /// Answers each call as `answers` say, until the request ends or `most` calls have been made.
    fn end(&mut self, most: u32, answers: impl FnMut(&Effect) -> ApiResponse) -> Option<Outcome> {
        self.end_from(AttemptHistory::default(), most, answers)
    }

    fn end_from(
        &mut self,
        carried: AttemptHistory,
        most: u32,
        mut answers: impl FnMut(&Effect) -> ApiResponse,
    ) -> Option<Outcome> {
        let request = self.request.clone();
        let (mut job, mut effects) = self.desk.deliver_as(request, carried, 0, false);
        loop {
            match effects.pop() {
                Some(call @ Effect::Call { .. }) => {
                    if self.calls == most {
                        return None;
                    }
                    self.calls += 1;
                    self.answer_another();
                    let answer = answers(&call);
                    effects = self.desk.answer(job, answer);
                }
                Some(Effect::Publish { parcel, .. }) => match parcel {
                    PublishEffect::Letter(failed) => return Some(Outcome::Failed(failed)),
                    PublishEffect::Event(outcome) => return Some(outcome),
                    PublishEffect::Copy { to, carried } => {
                        self.desk.confirm(job, PublishPart::Copy);
                        if let Destination::Ladder { wait, .. } = to {
                            self.desk.wait(wait);
                        }
                        self.answer_another();
                        let request = self.request.clone();
                        (job, effects) = self.desk.deliver_as(request, carried, 0, false);
                    }
                },
                Some(other) => panic!("{other:?}"),
                None => {
                    let at = self.desk.machine.next_timer().expect("it waits");
                    let wait = Duration::try_from(at.duration_since(self.desk.now));
                    effects = self.desk.wait(wait.unwrap_or_default());
                }
            }
        }
    }

    fn took(&self) -> Duration {
        Duration::try_from(self.desk.now.duration_since(self.began_at)).unwrap()
    }
}

fn rules(max_attempts: u32, max_elapsed: Duration, verify_before: bool) -> SchedulerConfig {
    SchedulerConfig {
        retry: RetrySettings {
            max_attempts,
            max_elapsed,
            ..RetrySettings::default()
        },
        verify_before,
        ..SchedulerConfig::default()
    }
}

fn failed(outcome: Option<Outcome>) -> Failed {
    match outcome {
        Some(Outcome::Failed(failed)) => failed,
        other => panic!("{other:?}"),
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn any_answer() -> impl Strategy<Value = ApiResponse> {
    let user = |name: &'static str, id: Option<u128>| {
        Just(ApiResponse::User(UserRecord {
            username: name.into(),
            id: id.map(Uuid::from_u128),
        }))
    };
    prop_oneof![
        user("a", None),
        user("b", None),
        user("a", Some(7)),
        user("b", Some(7)),
        user("a", Some(8)),
        user("b", Some(8)),
        user("another form", Some(7)),
        user("another form", None),
        Just(ApiResponse::Malformed { status: 200 }),
        Just(ApiResponse::Malformed { status: 204 }),
        Just(ApiResponse::Silence(TransportError::Connect)),
        Just(ApiResponse::Silence(TransportError::Timeout)),
        Just(ApiResponse::Silence(TransportError::Reset)),
        Just(ApiResponse::NoToken(TokenError::Missing)),
        Just(ApiResponse::NoToken(TokenError::Unavailable)),
        (400u16..500).prop_map(|status| ApiResponse::NoToken(TokenError::Refused { status })),
        (300u16..600).prop_map(status),
        prop::sample::select(vec![400, 401, 403, 404, 408, 409, 422, 425, 429, 500, 503])
            .prop_map(status),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_the_api_answers_a_request_ends_within_its_attempts_and_its_time(
        answers in prop::collection::vec(any_answer(), 1..12),
        max_attempts in 1u32..6,
        with_id: bool,
        verify_before: bool,
        maybe_applied: bool,
        hours in 1u64..5,
    ) {
        let max_elapsed = Duration::from_secs(hours * 3600);
        let request = RenameRequest {
            user_id: with_id.then_some(OURS),
            ..request(1, "a", "b")
        };
        let mut follower = FollowerCase::new(rules(max_attempts, max_elapsed, verify_before), request);
        let carried = AttemptHistory { maybe_applied, ..AttemptHistory::default() };
        let (mut refused, mut forbidden) = (0, 0);
        let mut next = answers.iter().cycle();
        let outcome = follower.end_from(carried, 20_000, |_| {
            let answer = next.next().unwrap().clone();
            refused += u32::from(verdict::sign(&answer) == HealthSignal::BadCredentials);
            forbidden += u32::from(verdict::sign(&answer) == HealthSignal::Forbidden);
            answer
        });
        prop_assert!(outcome.is_some(), "it never ended");
        // A try is a check, the rename and two questions; one that is refused for its credentials
        // counts for none, nor do the probes of the hold that then begins, or after many 403: one soon,
        // then at most one a minute.
        let minutes = u32::try_from(follower.took().as_secs() / 60).unwrap();
        let may_be_held = refused > 0 || forbidden >= HoldSettings::default().failures;
        let probes = if may_be_held { minutes + 10 } else { 0 };
        let most = 4 * (max_attempts + 1 + 2 * refused + probes);
        prop_assert!(follower.calls <= most, "{} calls, {refused} refused", follower.calls);
        // It ends at the first try after that time, and the longest step of the ladder is an hour.
        let longest = max_elapsed + 2 * Duration::from_secs(3600);
        prop_assert!(follower.took() <= longest, "{:?}", follower.took());
    }

    /// With one answer to everything.
    #[test]
    fn one_answer_forever_ends_a_request_within_its_attempts(
        answer in any_answer(), with_id: bool, maybe_applied: bool,
    ) {
        let request = RenameRequest {
            user_id: with_id.then_some(OURS),
            ..request(1, "a", "b")
        };
        let mut follower = FollowerCase::new(rules(3, DAY, true), request);
        let carried = AttemptHistory { maybe_applied, ..AttemptHistory::default() };
        let outcome = follower.end_from(carried, 20_000, |_| answer.clone());
        prop_assert!(outcome.is_some(), "it never ended");
    }
}

#[test]
fn a_200_with_another_name_ends_as_unknown_within_its_attempts() {
    let mut follower = FollowerCase::new(rules(3, DAY, true), request(1, "a", "b "));
    let failed = failed(follower.end(50, |_| renamed("b")));
    assert_eq!(failed.reason, Reason::OutcomeUnknown);
    assert_eq!((failed.attempts, failed.http_status), (3, Some(200)));
    assert!(failed.detail.contains("may have taken effect"));
}

#[test]
fn an_account_whose_credentials_are_refused_is_told_so_once_its_time_is_over() {
    for answer in [
        status(401),
        ApiResponse::NoToken(TokenError::Missing),
        ApiResponse::NoToken(TokenError::Refused { status: 400 }),
    ] {
        let mut follower = FollowerCase::new(rules(1, DAY, true), request(1, "a", "b"));
        follower.answer_another();
        let failed = failed(follower.end(10_000, |_| answer.clone()));
        assert_eq!(failed.reason, Reason::Forbidden, "{answer:?}");
        assert_eq!(failed.attempts, 0);
        let took = follower.took();
        assert!(
            DAY <= took && took < DAY + Duration::from_secs(600),
            "{took:?}"
        );
    }
}

#[test]
fn one_that_may_have_taken_effect_is_never_told_as_forbidden() {
    let mut follower = FollowerCase::new(rules(12, DAY, true), request(1, "a", "b"));
    follower.answer_another();
    let mut first = true;
    let failed = failed(follower.end(10_000, |_| {
        let lost = std::mem::take(&mut first);
        if lost { status(502) } else { status(401) }
    }));
    assert_eq!(failed.reason, Reason::OutcomeUnknown);
}

#[test]
fn a_question_that_is_refused_permanently_lets_those_behind_go_on() {
    let mut desk = SchedulerFixture::of(8);
    let (first, _) = desk.redeliver(request(1, "a", "b"));
    let (second, effects) = desk.deliver(request(2, "b", "c"));
    assert_eq!(effects, []);
    assert_eq!(desk.answer(first, status(422)), [ask(first, NameRole::Old)]);
    assert_eq!(desk.answer(first, status(422)), [ask(first, NameRole::New)]);
    let effects = desk.answer(first, status(422));
    let PublishEffect::Letter(failed) = published(&effects) else {
        panic!("{effects:?}")
    };
    assert_eq!(failed.reason, Reason::OutcomeUnknown);
    desk.confirm(first, PublishPart::Letter);
    desk.confirm(first, PublishPart::Event);
    assert_eq!(desk.say(JobEvent::Settled { job: first }), [rename(second)]);
}

#[test]
fn a_rename_to_another_spelling_is_never_asked_about_by_the_old_one() {
    let mut desk = SchedulerFixture::of(1);
    let (job, _) = desk.redeliver(request(1, "Ola", "ola"));
    assert_eq!(desk.answer(job, status(409)), [ask(job, NameRole::New)]);
    let effects = desk.answer(job, renamed("ola"));
    let PublishEffect::Letter(failed) = published(&effects) else {
        panic!("{effects:?}")
    };
    assert_eq!(failed.reason, Reason::OutcomeUnknown);
    let (job, effects) = desk.redeliver(RenameRequest {
        user_id: Some(OURS),
        ..request(2, "Kari", "kari")
    });
    assert_eq!(effects, [ask(job, NameRole::Old)]);
    assert_eq!(desk.answer(job, status(403)), [ask(job, NameRole::New)]);
    let effects = desk.answer(job, renamed("kari"));
    assert_eq!(
        told_renamed(&effects),
        (AppliedBy::AlreadyApplied, ConfirmedBy::UserId)
    );
}

#[test]
fn a_probe_that_fails_in_passing_spends_no_attempt() {
    let mut desk = SchedulerFixture::with(SchedulerConfig {
        hold: HoldSettings {
            failures: 1,
            ..HoldSettings::default()
        },
        ..SchedulerConfig::default()
    });
    let (job, _) = desk.deliver(alone(1));
    let effects = desk.answer(job, status(503));
    let carried = copied(&effects).1.clone();
    assert_eq!(carried.attempts, 1);
    desk.confirm(job, PublishPart::Copy);
    desk.say(JobEvent::Fetched { found: 0 });
    desk.wait(Duration::from_secs(1));
    let effects = desk.say(JobEvent::Fetched { found: 0 });
    assert_eq!(effects, [fetch(SourceQueue::Due, 1)]);
    let (probe, effects) = desk.deliver_as(alone(1), carried, 0, true);
    assert_eq!(effects, [rename(probe)]);
    let effects = desk.answer(probe, status(503));
    assert_eq!(copied(&effects).1.attempts, 1);
}
