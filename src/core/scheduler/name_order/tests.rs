use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::core::model::request::{AccountId, RenameRequest, Username};

/// The steps of a small ladder.
const STEPS: [u64; 3] = [5, 30, 120];

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn identity(number: usize, old: &str, new: &str) -> RequestIdentity {
    identity_in("T12345678", number, old, new)
}

fn identity_in(account: &str, number: usize, old: &str, new: &str) -> RequestIdentity {
    let request = RenameRequest {
        request_id: Uuid::from_u128(number as u128),
        account_id: AccountId::parse(account).unwrap(),
        username: Username::parse(old).unwrap(),
        new_username: Username::parse(new).unwrap(),
        user_id: None,
        requested_at: None,
        requested_by: None,
        not_after: None,
    };
    RequestIdentity::of(&request, None)
}

fn line() -> NameSequencer {
    NameSequencer::starting(0.5, start())
}

const SOURCE: ArrivalSource = ArrivalSource {
    queue: SourceQueue::Due,
    redelivered: false,
};

fn come(line: &mut NameSequencer, identity: RequestIdentity, copy: Option<u64>) -> Arrival {
    line.arrive(identity, copy, SOURCE, start())
}

/// It was in hand when the connection was lost.
fn void(line: &mut NameSequencer, ticket: OrderPosition) {
    let cut = line.last_cut();
    line.delivery_lost(ticket, SourceQueue::Requests, cut, start());
}

/// Arrives for the first time.
fn arrive(line: &mut NameSequencer, number: usize, old: &str, new: &str) -> OrderPosition {
    come(line, identity(number, old, new), None).ticket
}

fn exactly(delay: Duration) -> QueueStay {
    QueueStay {
        at_least: delay,
        at_most: delay,
    }
}

fn go_away(
    line: &mut NameSequencer,
    ticket: OrderPosition,
    delay: Option<Duration>,
    now: Timestamp,
) -> u64 {
    let stay = delay.map(exactly);
    let copy = line.begin_deferral(ticket, stay, now);
    line.deferral_confirmed(ticket, stay, now);
    copy
}

#[test]
fn a_chain_runs_link_by_link() {
    let mut line = line();
    let first = arrive(&mut line, 0, "a", "b");
    let second = arrive(&mut line, 1, "b", "c");
    let third = arrive(&mut line, 2, "c", "a");
    assert_eq!(line.eligibility(first), TurnDecision::Run);
    assert_eq!(line.eligibility(second), TurnDecision::Wait);
    assert_eq!(line.eligibility(third), TurnDecision::Wait);
    line.release(first);
    assert_eq!(line.take_unblocked(), vec![third, second]);
    assert_eq!(line.eligibility(second), TurnDecision::Run);
    assert_eq!(line.eligibility(third), TurnDecision::Wait);
    line.release(second);
    assert_eq!(line.eligibility(third), TurnDecision::Run);
}

#[test]
fn spellings_of_one_name_share_their_order_and_are_other_requests() {
    let mut line = line();
    let first = arrive(&mut line, 0, "ola", "\u{e5}se");
    let second = arrive(&mut line, 1, "A\u{30a}SE", "kari");
    let stranger = arrive(&mut line, 2, "ase", "per");
    assert_eq!(
        [first, second, stranger].map(|ticket| line.eligibility(ticket)),
        [TurnDecision::Run, TurnDecision::Wait, TurnDecision::Run]
    );
    assert_ne!(identity(0, "ola", "kari"), identity(0, "Ola", "kari"));
}

/// A request in hand that is acknowledged, another one, and one behind the first; then the connection
/// is lost, and what has become of the ack is not known.
fn cut() -> (NameSequencer, OrderPosition) {
    let mut line = line();
    line.takes_new(start());
    let acked = arrive(&mut line, 0, "a", "b");
    let other = arrive(&mut line, 1, "x", "y");
    line.on_disconnect(start());
    for ticket in [acked, other] {
        void(&mut line, ticket);
    }
    line.takes_new(start());
    let behind = arrive(&mut line, 2, "b", "c");
    assert!(matches!(
        line.eligibility(behind),
        TurnDecision::Follow { .. }
    ));
    (line, behind)
}

#[test]
fn what_was_acked_before_a_cut_is_given_up_once_the_rest_came_back_and_then_a_new_one() {
    use SourceQueue::{Due, Requests};
    let came = |line: &mut NameSequencer, number, names: (&str, &str), source| {
        line.arrive(identity(number, names.0, names.1), None, source, start());
    };
    let (mut line, behind) = cut();
    // New ones alone say nothing: the broker may not have found the connection lost yet.
    came(
        &mut line,
        3,
        ("k", "l"),
        ArrivalSource::new(Requests, false),
    );
    assert!(matches!(
        line.eligibility(behind),
        TurnDecision::Follow { .. }
    ));
    came(&mut line, 1, ("x", "y"), ArrivalSource::new(Requests, true));
    assert!(matches!(
        line.eligibility(behind),
        TurnDecision::Follow { .. }
    ));
    came(&mut line, 4, ("m", "n"), ArrivalSource::new(Due, false));
    assert!(
        matches!(line.eligibility(behind), TurnDecision::Follow { .. }),
        "of another queue"
    );
    came(
        &mut line,
        5,
        ("o", "p"),
        ArrivalSource::new(Requests, false),
    );
    assert_eq!(line.eligibility(behind), TurnDecision::Run);
}

#[test]
fn so_it_is_once_the_queue_falls_silent_though_there_is_room() {
    let after = |milliseconds| saturating_add(start(), Duration::from_millis(milliseconds));
    let is_run = |line: &mut NameSequencer, ticket| line.eligibility(ticket) == TurnDecision::Run;
    let (mut line, behind) = cut();
    line.has_room(true, after(60_000));
    assert!(!is_run(&mut line, behind), "none has come back");
    let other = identity(1, "x", "y");
    let back = ArrivalSource::new(SourceQueue::Requests, true);
    line.arrive(other, None, back, after(60_000));
    line.has_room(false, after(66_000));
    line.has_room(true, after(67_000));
    line.has_room(true, after(71_900));
    assert!(!is_run(&mut line, behind), "there was no room");
    line.has_room(true, after(72_000));
    assert!(is_run(&mut line, behind));
}

#[test]
fn after_a_second_cut_only_those_are_given_up_whose_return_had_begun() {
    for had_begun in [false, true] {
        let (mut line, behind) = cut();
        let other = identity(1, "x", "y");
        let back = ArrivalSource::new(SourceQueue::Requests, true);
        let ticket = if had_begun {
            line.arrive(other, None, back, start()).ticket
        } else {
            arrive(&mut line, 9, "q", "r")
        };
        line.on_disconnect(start());
        void(&mut line, ticket);
        line.takes_new(start());
        let identity = if had_begun {
            other
        } else {
            identity(9, "q", "r")
        };
        line.arrive(identity, None, back, start());
        line.arrive(
            self::identity(5, "o", "p"),
            None,
            ArrivalSource::new(SourceQueue::Requests, false),
            start(),
        );
        assert_eq!(line.eligibility(behind) == TurnDecision::Run, had_begun);
    }
}

#[test]
fn a_swap_by_way_of_a_third_name_keeps_its_order_and_others_do_not_wait() {
    let mut line = line();
    let aside = arrive(&mut line, 0, "a", "aside");
    let across = arrive(&mut line, 1, "b", "a");
    let back = arrive(&mut line, 2, "aside", "b");
    let other = arrive(&mut line, 3, "x", "y");
    assert_eq!(line.eligibility(other), TurnDecision::Run);
    assert_eq!(line.eligibility(across), TurnDecision::Wait);
    assert_eq!(line.eligibility(back), TurnDecision::Wait);
    line.release(aside);
    assert_eq!(line.eligibility(across), TurnDecision::Run);
    assert_eq!(line.eligibility(back), TurnDecision::Wait);
}

#[test]
fn names_of_different_accounts_are_different() {
    let mut line = line();
    arrive(&mut line, 0, "a", "b");
    let other = identity_in("P12345678", 1, "a", "b");
    let other = come(&mut line, other, None).ticket;
    assert_eq!(line.eligibility(other), TurnDecision::Run);
}

#[test]
fn those_behind_one_that_leaves_for_a_wait_queue_follow_it() {
    let mut line = line();
    let first = arrive(&mut line, 0, "a", "b");
    let second = arrive(&mut line, 1, "b", "c");
    let delay = Some(exactly(seconds(30)));
    let due = Some(DueReturn {
        at: saturating_add(start(), seconds(30)),
        delay: seconds(30),
    });
    line.begin_deferral(first, delay, start());
    assert_eq!(line.eligibility(second), TurnDecision::Follow { due });
    line.deferral_confirmed(first, delay, start());
    assert_eq!(line.take_unblocked(), vec![second]);
    assert_eq!(line.eligibility(second), TurnDecision::Follow { due });
    // It comes back, and its follower finds it there.
    let copy = line.holders[&first].copy;
    let back = come(&mut line, identity(0, "a", "b"), Some(copy));
    assert_eq!((back.ticket, back.is_twin), (first, false));
    assert_eq!(line.eligibility(second), TurnDecision::Wait);
}

#[test]
fn at_the_tail_one_follows_to_the_tail_but_does_not_turn_in_circles_there() {
    let mut line = line();
    let first = arrive(&mut line, 0, "a", "b");
    let second = arrive(&mut line, 1, "b", "c");
    go_away(&mut line, first, None, start());
    assert_eq!(line.eligibility(second), TurnDecision::Follow { due: None });
    let copy = go_away(&mut line, second, None, start());
    // The second is back, and the first, which left before it, is not.
    come(&mut line, identity(1, "b", "c"), Some(copy));
    let TurnDecision::Follow { due: Some(_) } = line.eligibility(second) else {
        panic!("it waits in a wait queue now")
    };
}

#[test]
fn a_place_is_given_up_only_when_something_that_came_well_after_it_is_back() {
    let mut line = line();
    let lost = arrive(&mut line, 0, "a", "b");
    let behind = arrive(&mut line, 1, "b", "c");
    let other = arrive(&mut line, 2, "x", "y");
    go_away(&mut line, lost, Some(seconds(5)), start());
    let bounce = |line: &mut NameSequencer, ticket, number, (old, new), now| {
        let copy = go_away(line, ticket, Some(seconds(5)), now);
        come(line, identity(number, old, new), Some(copy));
    };
    // Back when the first is due, and within the slack of it: it may still come.
    for late in [5, 20] {
        let now = saturating_add(start(), seconds(late));
        bounce(&mut line, behind, 1, ("b", "c"), now);
        assert!(
            matches!(line.eligibility(behind), TurnDecision::Follow { .. }),
            "{late}"
        );
    }
    // Any message shows how far the queue has been delivered.
    let now = saturating_add(start(), seconds(35));
    bounce(&mut line, other, 2, ("x", "y"), now);
    assert_eq!(line.eligibility(behind), TurnDecision::Run);
}

#[test]
fn after_a_cut_nothing_is_given_up_until_the_broker_must_have_found_out() {
    let mut line = line();
    let lost = arrive(&mut line, 0, "a", "b");
    let behind = arrive(&mut line, 1, "b", "c");
    let copy = go_away(&mut line, behind, None, start());
    line.on_disconnect(start());
    void(&mut line, lost);
    come(&mut line, identity(1, "b", "c"), Some(copy));
    // Nor before the queue that it was put back to is consumed again.
    for (after, lost) in [(100, false), (160, false), (300, false), (400, true)] {
        if after == 300 {
            line.takes_new(saturating_add(start(), seconds(200)));
        }
        let now = saturating_add(start(), seconds(after));
        let copy = go_away(&mut line, behind, Some(seconds(5)), now);
        come(&mut line, identity(1, "b", "c"), Some(copy));
        assert_eq!(
            line.eligibility(behind) == TurnDecision::Run,
            lost,
            "{after}"
        );
    }
}

#[test]
fn a_void_delivery_comes_back_to_its_place() {
    let mut line = line();
    let first = arrive(&mut line, 0, "a", "b");
    let second = arrive(&mut line, 1, "b", "c");
    line.on_disconnect(start());
    for ticket in [first, second] {
        void(&mut line, ticket);
    }
    // In whatever order.
    assert_eq!(arrive(&mut line, 1, "b", "c"), second);
    assert!(matches!(
        line.eligibility(second),
        TurnDecision::Follow { .. }
    ));
    assert_eq!(arrive(&mut line, 0, "a", "b"), first);
    assert_eq!(line.eligibility(first), TurnDecision::Run);
}

#[test]
fn a_twin_is_known_as_one_and_waits_for_the_first() {
    let mut line = line();
    let first = arrive(&mut line, 0, "a", "b");
    let twin = come(&mut line, identity(0, "a", "b"), None);
    assert!(twin.is_twin);
    assert_eq!(line.eligibility(twin.ticket), TurnDecision::Wait);
    line.release(first);
    assert_eq!(line.eligibility(twin.ticket), TurnDecision::Run);
    line.release(twin.ticket);
    assert!(!come(&mut line, identity(0, "a", "b"), None).is_twin);
}

#[test]
fn a_twin_of_one_that_is_away_takes_its_place_and_is_no_proof_of_its_way() {
    let mut line = line();
    let first = arrive(&mut line, 0, "a", "b");
    go_away(&mut line, first, Some(seconds(120)), start());
    let twin = come(&mut line, identity(0, "a", "b"), None);
    assert_eq!((twin.ticket, twin.is_twin), (first, true));
    assert_eq!(line.delivered_up_to, None);
}

#[test]
fn a_copy_number_tells_when_it_was_sent_and_no_other_workers_number_does() {
    let mut ours = CopyIds::starting(0.3, start());
    let theirs = CopyIds::starting(0.6, start()).next(start());
    let now = saturating_add(start(), seconds(40));
    let numbers: Vec<u64> = (0..100).map(|_| ours.next(now)).collect();
    assert!(numbers.is_sorted_by(|one, other| one < other));
    let sent = ours.sent_at(numbers[0]).unwrap();
    assert_eq!(sent, now);
    assert!(ours.sent_at(numbers[99]).unwrap() <= saturating_add(now, Duration::from_millis(7)));
    assert_eq!(ours.sent_at(theirs), None);
    assert_eq!(ours.sent_at(numbers[99] + 1), None);
    assert!(CopyIds::starting(1.0, start()).next(now) < i64::MAX.cast_unsigned());
}

/// What happens to the requests of the model.
#[derive(Debug, Clone)]
enum ModelStep {
    /// One that renames between two of a few names arrives.
    Arrive(u8, u8),
    /// One whose turn it is ends.
    Finish(u8),
    /// One whose turn it is goes away, to the tail or to a step of the ladder.
    Defer(u8, Option<usize>),
    /// The next message comes.
    Return,
    /// The connection is lost.
    Cut,
}

fn any_step() -> impl Strategy<Value = ModelStep> {
    prop_oneof![
        4 => (0u8..5, 0u8..5).prop_map(|(old, new)| ModelStep::Arrive(old, new)),
        3 => any::<u8>().prop_map(ModelStep::Finish),
        2 => (any::<u8>(), proptest::option::of(0usize..3)).prop_map(|(n, s)| ModelStep::Defer(n, s)),
        3 => Just(ModelStep::Return),
        1 => Just(ModelStep::Cut),
    ]
}

#[derive(Debug, Clone, Copy)]
enum ModelPlace {
    Here,
    /// In front of the queue.
    Front,
    /// In the queue from then on, with this number.
    Sent(Timestamp, u64),
    Ended,
}

/// A queue that keeps its order, one worker, and requests by their order of arrival.
#[derive(Debug)]
struct OrderModel {
    line: NameSequencer,
    now: Timestamp,
    requests: Vec<(RequestIdentity, [u8; 2], OrderPosition, ModelPlace)>,
}

impl OrderModel {
    fn take(&mut self, step: &ModelStep) {
        match *step {
            ModelStep::Arrive(old, new) => {
                let number = self.requests.len();
                let identity = identity(number, &old.to_string(), &new.to_string());
                let ticket = come(&mut self.line, identity, None).ticket;
                let request = (identity, [old, new], ticket, ModelPlace::Here);
                self.requests.push(request);
            }
            ModelStep::Finish(which) => {
                if let Some(number) = self.running(which) {
                    self.line.release(self.requests[number].2);
                    self.requests[number].3 = ModelPlace::Ended;
                }
            }
            ModelStep::Defer(which, step) => {
                if let Some(number) = self.running(which) {
                    self.send(number, step);
                }
            }
            ModelStep::Return => self.next_message(),
            ModelStep::Cut => {
                self.line.on_disconnect(self.now);
                for (_, _, ticket, place) in &mut self.requests {
                    if matches!(place, ModelPlace::Here) {
                        let cut = self.line.last_cut();
                        self.line
                            .delivery_lost(*ticket, SourceQueue::Requests, cut, self.now);
                        *place = ModelPlace::Front;
                    }
                }
            }
        }
        self.follow();
    }

    fn running(&mut self, which: u8) -> Option<usize> {
        let here: Vec<usize> = self.here().collect();
        let line = &mut self.line;
        let requests = &self.requests;
        let running: Vec<usize> = here
            .into_iter()
            .filter(|&number| line.eligibility(requests[number].2) == TurnDecision::Run)
            .collect();
        let count = running.len();
        (count > 0).then(|| running[usize::from(which) % count])
    }

    fn here(&self) -> impl Iterator<Item = usize> + '_ {
        let requests = self.requests.iter().enumerate();
        requests
            .filter(|(_, request)| matches!(request.3, ModelPlace::Here))
            .map(|(number, _)| number)
    }

    fn send(&mut self, number: usize, step: Option<usize>) {
        let delay = step.map(|step| seconds(STEPS[step]));
        let copy = go_away(&mut self.line, self.requests[number].2, delay, self.now);
        let entry = saturating_add(self.now, delay.unwrap_or_default());
        self.requests[number].3 = ModelPlace::Sent(entry, copy);
    }

    fn next_message(&mut self) {
        let order = |place: ModelPlace| match place {
            ModelPlace::Front => Some((Timestamp::MIN, 0)),
            ModelPlace::Sent(entry, copy) => Some((entry, copy)),
            ModelPlace::Here | ModelPlace::Ended => None,
        };
        let requests = self.requests.iter().enumerate();
        let next = requests
            .filter_map(|(number, request)| Some((order(request.3)?, number)))
            .min();
        let Some((_, number)) = next else { return };
        let (identity, _, ticket, place) = self.requests[number];
        let copy = if let ModelPlace::Sent(entry, copy) = place {
            self.now = self.now.max(entry);
            Some(copy)
        } else {
            None
        };
        let back = come(&mut self.line, identity, copy);
        assert_eq!(back.ticket, ticket, "it comes back to its place");
        self.requests[number].3 = ModelPlace::Here;
    }

    /// Those that are to follow do, as the machine sends them.
    fn follow(&mut self) {
        for number in self.here().collect::<Vec<_>>() {
            if let TurnDecision::Follow { due } = self.line.eligibility(self.requests[number].2) {
                let step = due.map(|due| {
                    let wait = due.wait(self.now);
                    let long_enough = STEPS.iter().position(|&step| seconds(step) >= wait);
                    long_enough.unwrap_or(STEPS.len() - 1)
                });
                self.send(number, step);
            }
        }
    }

    /// The rule itself: it is a request's turn when no earlier one that shares a name is left.
    fn rule_holds(&mut self) -> Result<(), TestCaseError> {
        for number in self.here().collect::<Vec<_>>() {
            let (_, names, ticket, _) = self.requests[number];
            let earlier = self.requests[..number].iter();
            let first = !earlier.clone().any(|(_, other, _, place)| {
                !matches!(place, ModelPlace::Ended) && other.iter().any(|name| names.contains(name))
            });
            let turn = self.line.eligibility(ticket);
            prop_assert_eq!(
                turn == TurnDecision::Run,
                first,
                "request {}: {:?}",
                number,
                turn
            );
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        let mut places = self.requests.iter().map(|request| request.3);
        places.all(|place| matches!(place, ModelPlace::Ended))
    }
}

proptest! {
    #[test]
    fn a_request_runs_when_no_earlier_one_of_its_names_is_left_and_never_else(
        steps in proptest::collection::vec(any_step(), 0..60),
    ) {
        let (line, now) = (line(), start());
        let mut model = OrderModel { line, now, requests: Vec::new() };
        for step in &steps {
            model.take(step);
            model.rule_holds()?;
        }
        // Left alone, all of them end, without turning in circles.
        let most = 20 * (model.requests.len() + 1);
        for _ in 0..most {
            while model.running(0).is_some() {
                model.take(&ModelStep::Finish(0));
                model.rule_holds()?;
            }
            if model.has_ended() {
                break;
            }
            model.take(&ModelStep::Return);
            model.rule_holds()?;
        }
        prop_assert!(model.has_ended(), "{:?}", model);
        prop_assert!(model.line.holders.is_empty());
        prop_assert!(model.line.lines.is_empty());
        prop_assert!(model.line.messages.is_empty());
    }
}
