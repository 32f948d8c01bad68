//! What comes from outside: outages, lost connections, alarms, drains, deaths.

use super::*;

const HOLDING: Effect = Effect::Consume(ConsumeScope::UndeliverableOnly);

/// A worker whose ten last calls failed; two requests wait in it.
fn held() -> SchedulerFixture {
    let mut desk = SchedulerFixture::of(4);
    for number in 0..10 {
        let (job, _) = desk.deliver(alone(number));
        let effects = desk.answer(job, ApiResponse::Silence(TransportError::Connect));
        assert_eq!(effects.contains(&HOLDING), number == 9);
        if number == 9 {
            let given_back = effects.iter().filter(|effect| {
                let Effect::Publish { parcel, .. } = effect else {
                    return false;
                };
                matches!(
                    parcel,
                    PublishEffect::Copy {
                        to: Destination::Tail,
                        ..
                    }
                )
            });
            assert_eq!(given_back.count(), 10, "all that waited, and the last");
        }
    }
    assert_eq!(desk.machine.held(), Some(HoldCause::Api));
    for job in 0..10 {
        desk.confirm(JobId(job), PublishPart::Copy);
    }
    assert_eq!(desk.machine.counts().in_hand, 0);
    // It looked for another account's request at once, and there was none.
    assert_eq!(desk.say(JobEvent::Fetched { found: 0 }), []);
    desk
}

/// There is no new request to probe with, so that the due ones are asked for.
fn look_in_due(desk: &mut SchedulerFixture) {
    let effects = desk.say(JobEvent::Fetched { found: 0 });
    assert_eq!(effects, [fetch(SourceQueue::Due, 1)]);
}

#[test]
fn ten_failures_in_a_row_hold_and_a_probe_that_is_answered_resumes() {
    let mut desk = held();
    assert_eq!(desk.wait(Duration::from_millis(900)), []);
    let look = [fetch(SourceQueue::Requests, 1)];
    let wait = Duration::from_millis(100);
    assert_eq!(desk.wait(wait), look);
    look_in_due(&mut desk);
    let (probe, effects) = desk.fetch(alone(20));
    assert_eq!(effects, [rename(probe)]);
    let effects = desk.answer(probe, status(503));
    assert_eq!(copied(&effects).0, Destination::Tail);
    desk.confirm(probe, PublishPart::Copy);
    // A look for other accounts' requests, and the next probe.
    assert_eq!(desk.wait(Duration::from_secs(1)), look);
    assert_eq!(desk.say(JobEvent::Fetched { found: 0 }), []);
    assert_eq!(desk.wait(Duration::from_secs(1)), look);
    look_in_due(&mut desk);
    let (probe, _) = desk.fetch(alone(21));
    let effects = desk.answer(probe, renamed("new-21"));
    assert!(
        effects.contains(&Effect::Consume(ConsumeScope::All)),
        "{effects:?}"
    );
    assert_eq!(desk.machine.held(), None);
    let (next, effects) = desk.deliver(alone(22));
    assert_eq!(effects, [rename(next)]);
}

#[test]
fn an_empty_queue_is_probed_again_soon() {
    let mut desk = held();
    desk.wait(Duration::from_secs(1));
    look_in_due(&mut desk);
    assert_eq!(desk.say(JobEvent::Fetched { found: 0 }), []);
    let look = fetch(SourceQueue::Requests, 1);
    assert_eq!(desk.wait(Duration::from_secs(1)), [look]);
}

#[test]
fn refused_credentials_hold_at_once_and_spend_no_attempt() {
    let mut desk = SchedulerFixture::of(4);
    let (job, _) = desk.deliver(alone(1));
    let effects = desk.answer(job, ApiResponse::NoToken(TokenError::Missing));
    assert!(effects.contains(&HOLDING));
    let (to, carried) = copied(&effects);
    assert_eq!((to, carried.attempts), (Destination::Tail, 0));
    assert_eq!(desk.machine.held(), Some(HoldCause::Credentials));
}

#[test]
fn a_drain_finishes_calls_and_gives_back_the_rest_in_order() {
    let mut desk = SchedulerFixture::of(1);
    let (calling, _) = desk.deliver(request(1, "a", "b"));
    let (blocked, _) = desk.deliver(request(2, "b", "c"));
    let (ready, _) = desk.deliver(alone(3));
    let effects = desk.say(JobEvent::Drain);
    assert_eq!(
        effects,
        [Effect::StopConsuming, Effect::GiveBack { job: ready }]
    );
    // What was on its way still arrives.
    let (late, effects) = desk.deliver(alone(4));
    assert_eq!(effects, [Effect::GiveBack { job: late }]);
    told_renamed(&desk.answer(calling, renamed("b")));
    let effects = desk.end(calling);
    assert_eq!(
        effects,
        [Effect::GiveBack { job: blocked }, Effect::Drained]
    );
}

#[test]
fn a_drain_keeps_the_history_of_one_in_backoff_in_the_ladder() {
    let mut desk = SchedulerFixture::of(1);
    let (waiting, _) = desk.deliver(alone(1));
    desk.answer(waiting, status(503));
    let effects = desk.say(JobEvent::Drain);
    let (to, carried) = copied(&effects);
    assert_eq!((to, carried.attempts), (ladder(0, 5_000), 1));
    let effects = desk.confirm(waiting, PublishPart::Copy);
    assert_eq!(effects.last(), Some(&Effect::Drained));
}

#[test]
fn an_answer_that_comes_while_disconnected_is_told_without_another_call() {
    let mut desk = SchedulerFixture::of(1);
    let (job, _) = desk.deliver(request(1, "a", "b"));
    assert_eq!(desk.say(JobEvent::Down), [Effect::ForgetAll]);
    assert_eq!(desk.answer(job, renamed("b")), []);
    assert_eq!(desk.say(JobEvent::Up), [Effect::Consume(ConsumeScope::All)]);
    let (_, effects) = desk.redeliver(request(1, "a", "b"));
    assert_eq!(
        told_renamed(&effects),
        (AppliedBy::Applied, ConfirmedBy::Answer)
    );
}

#[test]
fn a_request_that_comes_again_while_its_call_runs_is_not_called_twice() {
    let mut desk = SchedulerFixture::of(4);
    let (job, _) = desk.deliver(request(1, "a", "b"));
    desk.say(JobEvent::Down);
    desk.say(JobEvent::Up);
    let (heir, effects) = desk.redeliver(request(1, "a", "b"));
    assert_eq!(effects, []);
    let effects = desk.answer(job, renamed("b"));
    told_renamed(&effects);
    assert!(matches!(effects[..], [Effect::Publish { job, .. }] if job == heir));
    desk.end(heir);
    assert_eq!(desk.machine.counts(), JobCounts::default());
}

#[test]
fn a_lost_connection_loses_no_outcome_that_was_being_told() {
    for confirmed in [false, true] {
        let mut desk = SchedulerFixture::of(1);
        let (job, _) = desk.deliver(request(1, "a", "b"));
        desk.answer(job, renamed("b"));
        if confirmed {
            // Acknowledged, but the broker may not have read it.
            desk.confirm(job, PublishPart::Event);
        }
        desk.say(JobEvent::Down);
        desk.say(JobEvent::Up);
        let (again, effects) = desk.redeliver(request(1, "a", "b"));
        assert_eq!(
            told_renamed(&effects),
            (AppliedBy::Applied, ConfirmedBy::Answer)
        );
        desk.end(again);
        assert_eq!(desk.machine.counts(), JobCounts::default());
    }
}

#[test]
fn a_lost_connection_voids_what_waits_and_it_keeps_its_turn() {
    let mut desk = SchedulerFixture::of(4);
    let (first, _) = desk.deliver(request(1, "a", "b"));
    desk.answer(first, ApiResponse::Silence(TransportError::Timeout));
    desk.deliver(request(2, "b", "c"));
    desk.say(JobEvent::Down);
    assert_eq!(desk.machine.counts().in_hand, 0);
    desk.say(JobEvent::Up);
    // The second comes first: it goes after the first, which must come again.
    let (second, effects) = desk.redeliver(request(2, "b", "c"));
    assert_eq!(copied(&effects).0, ladder(0, 2_000));
    desk.confirm(second, PublishPart::Copy);
    let (again, effects) = desk.redeliver(request(1, "a", "b"));
    assert_eq!(effects, [rename(again)]);
    // It was delivered before, so its 409 is not taken at its word.
    assert_eq!(desk.answer(again, status(409)), [ask(again, NameRole::Old)]);
}

#[test]
fn a_copy_that_is_back_before_its_confirm_is_the_request_and_not_another() {
    let mut desk = SchedulerFixture::of(1);
    let (job, _) = desk.deliver(request(1, "a", "b"));
    let slow = ApiResponse::Refused(ErrorResponse {
        status: 429,
        code: None,
        retry_after: Some(Duration::from_secs(5)),
    });
    let carried = copied(&desk.answer(job, slow)).1.clone();
    desk.wait(Duration::from_secs(5));
    let (back, effects) = desk.deliver_as(request(1, "a", "b"), carried, 0, false);
    assert_eq!(effects, [rename(back)]);
    let effects = desk.confirm(job, PublishPart::Copy);
    assert!(matches!(effects[..], [Effect::Ack { job: acked, .. }] if acked == job));
    told_renamed(&desk.answer(back, renamed("b")));
}

#[test]
fn nothing_is_renamed_while_the_broker_takes_no_publishes() {
    let mut desk = SchedulerFixture::of(4);
    let (checked, effects) = desk.deliver(RenameRequest {
        user_id: Some(OURS),
        ..request(1, "a", "b")
    });
    assert_eq!(effects, [ask(checked, NameRole::Old)]);
    desk.say(JobEvent::Blocked(true));
    assert_eq!(desk.answer(checked, renamed("a")), []);
    let (other, effects) = desk.deliver(alone(2));
    assert_eq!(effects, []);
    let effects = desk.say(JobEvent::Blocked(false));
    assert_eq!(effects, [ask(checked, NameRole::Old), rename(other)]);
}

#[test]
fn a_session_that_ends_is_no_evidence_against_what_was_in_hand() {
    let mut desk = SchedulerFixture::of(4);
    for count in 0..17 {
        let (job, effects) = desk.deliver_as(alone(1), AttemptHistory::default(), count, false);
        assert_eq!(effects, [rename(job)], "after {count} ends of a session");
        // The call ends before the next session begins, and did not take effect.
        desk.say(JobEvent::Down);
        desk.answer(job, status(429));
        desk.say(JobEvent::Up);
        desk.wait(Duration::from_secs(3_600));
    }
    // The limit was used up by them, so that RabbitMQ moved the request away: it is tried all the same.
    let (job, effects) = desk.deliver_removed(alone(1), RemovalCause::DeliveryLimit);
    assert_eq!(effects, [rename(job)]);
    told_renamed(&desk.answer(job, renamed("new-1")));
    desk.end(job);
    // What had its outcome is forgotten, as after a restart: the broker's count alone speaks.
    let (job, effects) = desk.deliver_as(alone(2), AttemptHistory::default(), 14, false);
    assert_eq!(effects, [ask(job, NameRole::Old)]);
}

#[test]
fn what_rabbitmq_moved_away_ends_by_its_cause_unless_it_took_effect() {
    for (cause, reason) in [
        (RemovalCause::DeliveryLimit, Reason::Poison),
        (RemovalCause::Expired, Reason::DeadlineExceeded),
        (RemovalCause::Maxlen, Reason::Rejected),
        (RemovalCause::Rejected, Reason::Rejected),
    ] {
        let mut desk = SchedulerFixture::of(4);
        let (job, effects) = desk.deliver_removed(alone(1), cause);
        assert_eq!(effects, [ask(job, NameRole::Old)], "{cause:?}");
        let effects = desk.answer(job, renamed("old-1"));
        let PublishEffect::Letter(failed) = published(&effects) else {
            panic!("{effects:?}")
        };
        assert_eq!(failed.reason, reason, "{cause:?}");

        let request = RenameRequest {
            user_id: Some(OURS),
            ..alone(2)
        };
        let (job, _) = desk.deliver_removed(request, cause);
        let effects = desk.answer(job, status(404));
        assert_eq!(effects, [ask(job, NameRole::New)], "{cause:?}");
        told_renamed(&desk.answer(job, renamed("new-2")));
    }
}

#[test]
fn a_name_that_exists_makes_no_rename_of_what_was_moved_away_untried() {
    for (cause, guessed) in [
        (RemovalCause::Expired, true),
        (RemovalCause::Maxlen, true),
        (RemovalCause::Rejected, true),
        // It was delivered more than twenty times.
        (RemovalCause::DeliveryLimit, false),
    ] {
        let mut desk = SchedulerFixture::of(4);
        let (job, _) = desk.deliver_removed(alone(1), cause);
        desk.answer(job, status(404));
        let effects = desk.answer(job, renamed("new-1"));
        match published(&effects) {
            PublishEffect::Letter(failed) if guessed => {
                assert_eq!(failed.reason, Reason::OutcomeUnknown, "{cause:?}");
            }
            PublishEffect::Event(Outcome::Renamed(_)) if !guessed => {}
            other => panic!("{cause:?}: {other:?}"),
        }
    }
}

#[test]
fn what_rabbitmq_moved_away_never_leaves_the_worker_as_a_copy() {
    let mut desk = SchedulerFixture::of(4);
    let (job, _) = desk.deliver_removed(alone(1), RemovalCause::Expired);
    // Longer than a request waits in the worker otherwise.
    for _ in 0..5 {
        let effects = desk.answer(job, status(503));
        let effects = [effects, desk.wait(Duration::from_secs(3_600))].concat();
        assert_eq!(effects, [ask(job, NameRole::Old)]);
    }
    let effects = desk.answer(job, status(503));
    assert_eq!(effects, []);
    let effects = desk.say(JobEvent::Drain);
    let given_back = Effect::GiveBack { job };
    let expected = [Effect::StopConsuming, given_back, Effect::Drained];
    assert_eq!(effects, expected);
}

#[test]
fn while_too_many_requests_are_away_nothing_new_is_taken() {
    let mut desk = SchedulerFixture::with(SchedulerConfig {
        max_deferred: 10,
        ..SchedulerConfig::default()
    });
    let send_away = |desk: &mut SchedulerFixture, number| {
        let (job, _) = desk.deliver(alone(number));
        let limited = ApiResponse::Refused(ErrorResponse {
            status: 429,
            code: None,
            retry_after: Some(Duration::from_secs(60)),
        });
        desk.answer(job, limited);
        desk.confirm(job, PublishPart::Copy)
    };
    let scopes: Vec<Effect> = (0..10)
        .flat_map(|number| send_away(&mut desk, number))
        .filter(|effect| matches!(effect, Effect::Consume(_)))
        .collect();
    assert_eq!(scopes, [Effect::Consume(ConsumeScope::DueOnly)]);
    // A connection that comes back changes nothing about it.
    desk.say(JobEvent::Down);
    let effects = desk.say(JobEvent::Up);
    assert_eq!(effects, [Effect::Consume(ConsumeScope::DueOnly)]);
    // One comes back.
    let (_, effects) = desk.deliver_as(alone(0), AttemptHistory::default(), 0, false);
    assert!(
        effects.contains(&Effect::Consume(ConsumeScope::All)),
        "{effects:?}"
    );
}

#[test]
fn one_that_was_delivered_nearly_as_often_as_allowed_is_asked_about_and_ends_as_poison() {
    let mut desk = SchedulerFixture::of(4);
    let (_, effects) = desk.deliver_as(alone(1), AttemptHistory::default(), 14, false);
    assert_eq!(effects, [ask(JobId(0), NameRole::Old)]);
    let effects = desk.answer(JobId(0), renamed("old-1"));
    let PublishEffect::Letter(failed) = published(&effects) else {
        panic!("{effects:?}")
    };
    assert_eq!(failed.reason, Reason::Poison);
}

#[test]
fn one_that_dies_even_of_the_question_ends_unasked_before_the_broker_moves_it_away() {
    let mut desk = SchedulerFixture::of(4);
    let (_, effects) = desk.deliver_as(alone(1), AttemptHistory::default(), 17, false);
    let PublishEffect::Letter(failed) = published(&effects) else {
        panic!("{effects:?}")
    };
    assert_eq!(failed.reason, Reason::OutcomeUnknown);
}

#[test]
fn while_403_means_our_credentials_it_fails_nobody() {
    let mut desk = SchedulerFixture::of(16);
    let in_flight: Vec<JobId> = (0..12)
        .map(|number| desk.deliver(alone(number)).0)
        .collect();
    for &job in &in_flight[..9] {
        let effects = desk.answer(job, status(403));
        assert!(matches!(published(&effects), PublishEffect::Letter(_)));
        desk.confirm(job, PublishPart::Letter);
        desk.confirm(job, PublishPart::Event);
    }
    // The tenth in a row holds; it and those still in flight are not to blame.
    for &job in &in_flight[9..] {
        let effects = desk.answer(job, status(403));
        assert_eq!(copied(&effects).0, Destination::Tail);
        desk.confirm(job, PublishPart::Copy);
    }
    assert_eq!(desk.machine.held(), Some(HoldCause::Credentials));
    desk.say(JobEvent::Fetched { found: 0 });
    desk.wait(Duration::from_secs(1));
    look_in_due(&mut desk);
    let (probe, _) = desk.fetch(alone(20));
    let effects = desk.answer(probe, status(403));
    assert_eq!(copied(&effects).0, Destination::Tail);
    assert_eq!(desk.machine.held(), Some(HoldCause::Credentials));
}

#[test]
fn a_drain_gives_back_a_whole_chain_behind_the_last_call() {
    let mut desk = SchedulerFixture::of(1);
    let names = ["a", "b", "c", "d", "e"];
    let chain: Vec<JobId> = names
        .windows(2)
        .zip(1..)
        .map(|(pair, number)| desk.deliver(request(number, pair[0], pair[1])).0)
        .collect();
    desk.say(JobEvent::Drain);
    told_renamed(&desk.answer(chain[0], renamed("b")));
    let effects = desk.end(chain[0]);
    let given_back = chain[1..].iter().map(|&job| Effect::GiveBack { job });
    let expected: Vec<Effect> = given_back.chain([Effect::Drained]).collect();
    assert_eq!(effects, expected);
}
