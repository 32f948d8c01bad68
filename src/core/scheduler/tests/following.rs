//! Those behind a request that went away wait about as long as it does, not ever longer.

use std::collections::VecDeque;

use super::*;

/// A queue that messages leave in order, each after its own wait.
struct LadderModel {
    queues: Vec<VecDeque<(Timestamp, usize, AttemptHistory)>>,
}

impl LadderModel {
    fn new() -> Self {
        Self {
            queues: vec![VecDeque::new(); RetrySettings::default().ladder.len()],
        }
    }

    fn next(&mut self) -> Option<(Timestamp, usize, AttemptHistory)> {
        let queue = self.queues.iter_mut().filter(|queue| !queue.is_empty());
        queue.min_by_key(|queue| queue[0].0)?.pop_front()
    }
}

/// A request that goes away, and those behind it, each sharing a name with the one before.
struct FollowerChain {
    desk: SchedulerFixture,
    ladder: LadderModel,
    names: Vec<String>,
    numbers: BTreeMap<JobId, usize>,
    /// The true time; the worker's clock is a little off.
    now: Timestamp,
    longest_steps: Vec<usize>,
    ended_at: Vec<Option<Timestamp>>,
}

impl FollowerChain {
    fn of(count: usize) -> Self {
        let desk = SchedulerFixture::of(64);
        Self {
            now: desk.now,
            desk,
            ladder: LadderModel::new(),
            names: (0..=count).map(|number| format!("n{number}")).collect(),
            numbers: BTreeMap::new(),
            longest_steps: vec![0; count],
            ended_at: vec![None; count],
        }
    }

    fn deliver(&mut self, number: usize, carried: AttemptHistory) -> (JobId, Vec<Effect>) {
        let (old, new) = (&self.names[number], &self.names[number + 1]);
        let request = request(number as u128, old, new);
        let (job, effects) = self.desk.deliver_as(request, carried, 0, false);
        self.numbers.insert(job, number);
        (job, effects)
    }

    fn perform(&mut self, effect: Effect) -> Vec<Effect> {
        match effect {
            Effect::Publish { job, parcel } => {
                let part = parcel.part();
                if let PublishEffect::Copy { to, carried } = parcel {
                    let number = self.numbers[&job];
                    let Destination::Ladder { step, wait } = to else {
                        panic!("{number} went to the tail")
                    };
                    self.longest_steps[number] = self.longest_steps[number].max(step);
                    let at = saturating_add(self.now, wait);
                    self.ladder.queues[step].push_back((at, number, carried));
                }
                self.desk.confirm(job, part)
            }
            Effect::Call { job, .. } => {
                let answer = renamed(&self.names[self.numbers[&job] + 1]);
                self.desk.answer(job, answer)
            }
            Effect::Ack { job, settle, .. } if settle.is_some() => {
                self.ended_at[self.numbers[&job]] = Some(self.now);
                self.desk.say(JobEvent::Settled { job })
            }
            Effect::Ack { .. } => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    /// Time passes until something happens; nothing, if nothing is left to happen.
    fn wait(&mut self) -> Option<Vec<Effect>> {
        if self
            .desk
            .machine
            .next_timer()
            .is_some_and(|at| at <= self.desk.now)
        {
            return Some(self.desk.say(JobEvent::Timer));
        }
        if let Some((at, number, carried)) = self.ladder.next() {
            // Whatever leaves the ladder takes a moment to arrive.
            self.now = self.now.max(saturating_add(at, Duration::from_millis(2)));
            self.desk.now = self.now;
            return Some(self.deliver(number, carried).1);
        }
        let at = self.desk.machine.next_timer()?;
        self.now = self.now.max(at);
        Some(Vec::new())
    }

    /// `clock` sets the worker's clock off before each event, in milliseconds.
    fn live(&mut self, mut pending: VecDeque<Effect>, clock: &[i64]) {
        for off in clock.iter().cycle().take(10_000) {
            let off = jiff::SignedDuration::from_millis(*off);
            self.desk.now = self.now.checked_add(off).unwrap();
            let more = match pending.pop_front() {
                Some(effect) => self.perform(effect),
                None => match self.wait() {
                    Some(effects) => effects,
                    None => return,
                },
            };
            pending.extend(more);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_follower_waits_about_as_long_as_the_one_before_it(
        step in 0usize..4,
        followers in 1usize..20,
        clock in prop::collection::vec(-40i64..40, 1..20),
    ) {
        let first = RetrySettings::default().ladder[step];
        let mut chain = FollowerChain::of(followers + 1);
        let start = chain.now;
        let jobs: Vec<JobId> = (0..=followers)
            .map(|number| chain.deliver(number, AttemptHistory::default()).0)
            .collect();
        let throttled = ApiResponse::Refused(ErrorResponse {
            status: 429,
            code: None,
            retry_after: Some(first),
        });
        let effects = chain.desk.answer(jobs[0], throttled);
        chain.live(effects.into(), &clock);
        let longest_steps = chain.longest_steps.iter().copied();
        for (number, (longest, ended_at)) in longest_steps.zip(&chain.ended_at).enumerate() {
            prop_assert!(longest <= step, "{number} went to step {longest}, the first to {step}");
            prop_assert!(ended_at.is_some(), "{number} did not end");
            let took = Duration::try_from(ended_at.unwrap().duration_since(start)).unwrap();
            // The slack: they come back one after the other, and one that comes back before the one
            // before it has ended may take a lap of the same step.
            let most = 2 * first + Duration::from_secs(10);
            prop_assert!(took <= most, "{number} took {took:?}, the first waited {first:?}");
        }
    }
}
