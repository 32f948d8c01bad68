//! Many requests at once, in virtual time: how often each goes away for its turn, and how fast they end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;

/// What the broker and the API take, in milliseconds.
const CONFIRM: u64 = 3;
const ACK: u64 = 3;

/// Something that happens at a time, in the order of its number.
type CrowdEvent = Reverse<(Timestamp, u64)>;

enum CrowdStep {
    Input(JobEvent),
    /// The head of the wait queue of this step may have expired.
    Expire(usize),
    /// A copy is due again.
    Due(usize, AttemptHistory),
}

/// A queue of requests, workers' calls that take a time, and what is counted.
struct CrowdModel {
    desk: SchedulerFixture,
    requests: Vec<RenameRequest>,
    call: Duration,
    new: VecDeque<usize>,
    due: VecDeque<(usize, AttemptHistory)>,
    /// By step. Only the head of a queue expires, even if one behind it has to stay less long.
    wait: Vec<VecDeque<(Timestamp, usize, AttemptHistory)>>,
    /// Unacknowledged deliveries, and whether each came from the due queue.
    unacked: BTreeMap<JobId, (usize, bool)>,
    events: BinaryHeap<CrowdEvent>,
    what: BTreeMap<u64, CrowdStep>,
    next: u64,
    /// Copies of each request.
    copies: Vec<u32>,
    ended_at: Vec<Option<Timestamp>>,
    began_at: Timestamp,
}

impl CrowdModel {
    fn new(rules: SchedulerConfig, requests: Vec<RenameRequest>, call: Duration) -> Self {
        let desk = SchedulerFixture::with(rules);
        Self {
            began_at: desk.now,
            call,
            new: (0..requests.len()).collect(),
            due: VecDeque::new(),
            wait: vec![VecDeque::new(); RetrySettings::default().ladder.len()],
            unacked: BTreeMap::new(),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            next: 0,
            copies: vec![0; requests.len()],
            ended_at: vec![None; requests.len()],
            requests,
            desk,
        }
    }

    fn after(&mut self, wait: Duration, what: CrowdStep) {
        self.events
            .push(Reverse((saturating_add(self.desk.now, wait), self.next)));
        self.what.insert(self.next, what);
        self.next += 1;
    }

    fn say_in(&mut self, milliseconds: u64, input: JobEvent) {
        self.after(Duration::from_millis(milliseconds), CrowdStep::Input(input));
    }

    fn live(&mut self, until: Duration) {
        let end = saturating_add(self.began_at, until);
        loop {
            self.deliver();
            let timer = self.desk.machine.next_timer();
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let Some(at) = [timer, event].into_iter().flatten().min() else {
                return;
            };
            if at > end {
                return;
            }
            self.desk.now = self.desk.now.max(at);
            if event.is_none_or(|event| event > at) {
                self.say(JobEvent::Timer);
                continue;
            }
            let Some(Reverse((_, number))) = self.events.pop() else {
                return;
            };
            match self.what.remove(&number) {
                Some(CrowdStep::Input(input)) => self.say(input),
                Some(CrowdStep::Due(request, carried)) => self.due.push_back((request, carried)),
                Some(CrowdStep::Expire(step)) => self.expire(step),
                None => {}
            }
        }
    }

    fn expire(&mut self, step: usize) {
        let now = self.desk.now;
        while let Some((_, number, carried)) = self.wait[step].pop_front_if(|(at, ..)| *at <= now) {
            self.due.push_back((number, carried));
        }
    }

    fn deliver(&mut self) {
        let prefetch = usize::from(self.desk.machine.rules.prefetch());
        loop {
            let due = self.unacked.values().filter(|(_, is_due)| *is_due).count();
            let (number, carried, is_due) = if due < prefetch && !self.due.is_empty() {
                let (number, carried) = self.due.pop_front().unwrap();
                (number, carried, true)
            } else if self.unacked.len() - due < prefetch && !self.new.is_empty() {
                (
                    self.new.pop_front().unwrap(),
                    AttemptHistory::default(),
                    false,
                )
            } else {
                return;
            };
            let job = JobId(self.desk.next_job);
            self.unacked.insert(job, (number, is_due));
            let request = self.requests[number].clone();
            self.desk.source = if is_due {
                SourceQueue::Due
            } else {
                SourceQueue::Requests
            };
            let (_, effects) = self.desk.deliver_as(request, carried, 0, false);
            self.perform(effects);
        }
    }

    fn say(&mut self, input: JobEvent) {
        let effects = self.desk.say(input);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Call { job, .. } => {
                    let name = self.requests[self.unacked[&job].0].new_username.reveal();
                    let answer = renamed(name);
                    self.after(
                        self.call,
                        CrowdStep::Input(JobEvent::Answered { job, answer }),
                    );
                }
                Effect::Publish { job, parcel } => {
                    let number = self.unacked[&job].0;
                    let part = parcel.part();
                    if let PublishEffect::Copy { to, carried } = parcel {
                        self.copies[number] += 1;
                        let stored = Duration::from_millis(CONFIRM);
                        match to {
                            Destination::Tail => {
                                self.after(stored, CrowdStep::Due(number, carried));
                            }
                            Destination::Ladder { step, wait } => {
                                let at = saturating_add(self.desk.now, stored + wait);
                                self.wait[step].push_back((at, number, carried));
                                self.after(stored + wait, CrowdStep::Expire(step));
                            }
                        }
                    }
                    let confirmed = true;
                    let published = JobEvent::Published {
                        job,
                        part,
                        confirmed,
                    };
                    self.say_in(CONFIRM, published);
                }
                Effect::Ack { job, settle, ended } => {
                    let (number, _) = self.unacked.remove(&job).unwrap();
                    if ended.is_some() {
                        self.ended_at[number] = Some(self.desk.now);
                    }
                    if settle.is_some() {
                        self.say_in(ACK, JobEvent::Settled { job });
                    }
                }
                Effect::Consume(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn ended(&self) -> usize {
        self.ended_at.iter().flatten().count()
    }

    fn took(&self) -> Duration {
        let last = self.ended_at.iter().flatten().max().expect("one ended");
        Duration::try_from(last.duration_since(self.began_at)).unwrap()
    }

    /// How often a request went away: of all, and at most.
    fn deferrals(&self) -> (f64, u32) {
        let all: u32 = self.copies.iter().sum();
        let count = u32::try_from(self.copies.len()).unwrap();
        let most = self.copies.iter().max().copied().unwrap_or(0);
        (f64::from(all) / f64::from(count), most)
    }
}

fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Requests that rename a user to and fro.
fn of_one_name(count: u128) -> Vec<RenameRequest> {
    let names = |number: u128| {
        if number.is_multiple_of(2) {
            ("a", "b")
        } else {
            ("b", "a")
        }
    };
    (0..count)
        .map(|number| request(number, names(number).0, names(number).1))
        .collect()
}

#[test]
fn requests_of_one_name_go_away_a_few_times_and_end_at_the_pace_of_their_calls() {
    for (count, concurrency, call) in [(2_000, 64, 20), (2_000, 64, 110), (300, 8, 20)] {
        let rules = SchedulerConfig {
            concurrency,
            ..SchedulerConfig::default()
        };
        let mut crowd = CrowdModel::new(rules, of_one_name(count), millis(call));
        crowd.live(Duration::from_secs(3_600));
        let each = millis(call + CONFIRM + ACK);
        let ideal = each * u32::try_from(count).unwrap();
        let (mean, most) = crowd.deferrals();
        let pace = ideal.as_secs_f64() / crowd.took().as_secs_f64();
        let figures =
            format!("{count} x {call} ms: {mean:.2} deferrals, at most {most}, pace {pace:.2}");
        println!("{figures}");
        assert_eq!(crowd.ended() as u128, count, "{figures}");
        assert!(mean <= 3.0 && most <= 4 && pace >= 0.8, "{figures}");
    }
}

#[test]
fn a_flood_of_one_account_goes_away_a_few_times_and_loses_no_pace_and_delays_no_other() {
    let other = |number: u128| RenameRequest {
        account_id: AccountId::parse("P00000002").unwrap(),
        ..alone(number)
    };
    for (count, concurrency, call) in [(2_000, 8, 20), (10_000, 64, 100)] {
        let crowd_with = |share, others: u128| {
            let rules = SchedulerConfig {
                concurrency,
                account_share: share,
                ..SchedulerConfig::default()
            };
            // The other account was seen before, and has more requests behind the flood.
            let mut requests = vec![other(0)];
            requests.extend((1..=count).map(alone));
            requests.extend((count + 1..=count + others).map(other));
            let mut crowd = CrowdModel::new(rules, requests, millis(call));
            crowd.live(Duration::from_secs(3_600));
            crowd
        };
        let alone = crowd_with(1.0, 0);
        let crowd = crowd_with(0.5, 5);
        let behind = &crowd.ended_at[usize::try_from(count).unwrap() + 1..];
        let last = behind.iter().max().unwrap().expect("they ended");
        let last = last.duration_since(crowd.began_at).as_secs_f64();
        let (mean, most) = crowd.deferrals();
        let pace = alone.took().as_secs_f64() / crowd.took().as_secs_f64();
        let figures = format!(
            "{count} x {call} ms: {mean:.2} deferrals, at most {most}, pace {pace:.2}, others after {last:.1} s"
        );
        println!("{figures}");
        assert_eq!(crowd.ended(), crowd.requests.len(), "{figures}");
        assert!(
            mean <= 2.0 && most <= 2 && pace >= 0.95 && last < 2.0,
            "{figures}"
        );
    }
}
