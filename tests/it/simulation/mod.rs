//! The core under a simulated broker, a simulated API and a virtual clock: thousands of random
//! lives, each checked against the promises of the contract.
//!
//! A life that breaks a promise prints its seed and the command that lives it again, step by step:
//! `SIMULATION_SEED=<seed> cargo test --test it simulation -- --nocapture`. `SIMULATION_LIVES` sets
//! how many lives there are.

mod api;
mod broker;
mod check;
mod plan;
mod shell;
mod world;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rename_worker::core::model::outcome::{Outcome, Reason};

use self::plan::{Plan, later};
use self::world::World;

/// As many lives as the project promises; each has 4 to 24 requests.
const LIVES: u64 = 10_000;

#[test]
fn ten_thousand_random_lives_keep_every_promise() {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        let seed = seed.parse().expect("SIMULATION_SEED is a number");
        let violations = live(seed, true);
        assert!(
            violations.is_empty(),
            "seed {seed}:\n{}",
            violations.join("\n")
        );
        return;
    }
    let lives = std::env::var("SIMULATION_LIVES").map_or(LIVES, |n| n.parse().expect("a number"));
    let failures = live_all(lives);
    for (seed, violations) in &failures {
        println!("seed {seed}:\n  {}", violations.join("\n  "));
        println!(
            "  live it again: SIMULATION_SEED={seed} cargo test --test it simulation -- --nocapture"
        );
    }
    assert!(failures.is_empty(), "lives broke their promises");
    let seen = REASONS.lock().expect("no life panicked while it held this");
    for reason in Reason::ALL.map(Reason::as_str) {
        assert!(
            lives < LIVES || seen.contains(reason),
            "no life ended with {reason}"
        );
    }
}

/// The reasons that requests ended with in any of the lives.
static REASONS: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

#[test]
fn an_outage_of_half_an_hour_leaves_every_waiting_request_unharmed() {
    const REQUESTS: usize = 1_000;
    const OUTAGE: Duration = Duration::from_secs(1_800);
    let mut rng = SmallRng::seed_from_u64(1);
    let plan = Plan::outage(REQUESTS, OUTAGE, &mut rng);
    let over = later(plan.start, OUTAGE);
    let mut world = World::new(plan, rng, false);
    world.live();
    println!("{}", world.summary());

    assert_eq!(check::violations(&world), Vec::<String>::new());
    let renamed = world.broker.events.iter();
    let renamed = renamed.filter(|told| matches!(told.outcome, Outcome::Renamed(_)));
    assert_eq!(renamed.count(), REQUESTS);
    assert_eq!(world.broker.events.len(), REQUESTS, "no failed event");
    assert_eq!(world.broker.letters.len(), 0, "no dead letter");
    let &(_, before) = world.holds.first().expect("it held");
    let in_flight = world.rules.concurrency;
    assert!(before <= in_flight + 10, "{before} calls found it out");
    // Calls that were about to be made when the tenth failed are no probes.
    let probes = world.notes["ProbeFailed"];
    assert!(probes <= 60, "{probes} probes");
    let calls = check::calls_until(&world, before, over);
    assert!(calls <= 60 + 1, "{calls} calls");
    let ended = world.now.duration_since(over);
    assert!(ended.as_secs() < 120, "back to work {ended} after");
}

/// Lives them on every core, up to some failures.
fn live_all(lives: u64) -> Vec<(u64, Vec<String>)> {
    const ENOUGH: usize = 3;
    let next = AtomicU64::new(0);
    let live_on = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= lives || failures.len() >= ENOUGH {
                return failures;
            }
            let violations = live(seed, false);
            if !violations.is_empty() {
                failures.push((seed, violations));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(live_on)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a life panicked"))
            .collect()
    })
}

fn live(seed: u64, trace: bool) -> Vec<String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let plan = Plan::random(&mut rng);
    let mut world = World::new(plan, rng, trace);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.live()));
    if trace {
        println!("{}", world.summary());
        for worker in world.workers.iter().filter(|_| !world.at_rest) {
            println!("{:?}", worker.machine);
        }
    }
    let reasons = world.broker.letters.iter();
    REASONS
        .lock()
        .expect("no life panicked while it held this")
        .extend(reasons.map(|(_, failed)| failed.reason.as_str()));
    match lived {
        Ok(()) => check::violations(&world),
        Err(_) => vec!["it panicked".to_owned()],
    }
}
