//! Promises 1 to 4 of the contract against real faults: the real binary is killed, its broker
//! restarted, its connections cut and delayed, its answers lost, all from one seed.
//!
//! `FAULTS_SEED` repeats a run's requests and faults (not the machine's own timing), `FAULTS=long`
//! makes it long. See docs/reliability.md.

mod board;
mod check;
mod drain;
mod noticed;
mod plan;
mod process;
mod script;
mod table;

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rename_worker::broker::declare_topology;
use rename_worker::broker::topology::model::{QueueNames, TopologySettings};
use rename_worker::config::{self, Secret};
use rename_worker::demo::broker::DemoBroker;
use rename_worker::sandbox::{LatencyRange, Sandbox, SandboxOptions};
use tokio::sync::RwLock;
use tokio::time::Instant;
use uuid::Uuid;

use self::board::Board;
use self::check::{Findings, Left, check};
use self::plan::Plan;
use self::process::{Process, Said, Settings};
use self::script::{BACK_WITHIN, Done, Doses, PATIENCE, Scene, usual_faults};
use crate::support::amqp::{Raw, SOON};
use crate::support::proxy::Proxy;
use crate::support::{own_broker_or_skip, say, unique_prefix};

/// Each step of the ladder is used: the delays below end between them.
const LADDER: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Thousands of dead letters are read in seconds.
const READING: Duration = Duration::from_mins(2);

/// A broker that is up answers in milliseconds.
const GREETING: Duration = Duration::from_secs(10);

/// A run that hangs is ended; one of 2,000 requests takes a minute or two, and 150 s more where the
/// last ones wait for a place that is kept (see docs/reliability.md).
const LIMIT_PER_REQUEST: Duration = Duration::from_millis(600);

/// How often, and how soon, a broker that has greeted already is asked again.
const TRIES: usize = 10;
const AGAIN: Duration = Duration::from_millis(500);

/// Requests that are published and have no outcome yet: more than the worker calls at once, so that
/// it always has work, and few enough that every fault finds fresh ones.
const OUTSTANDING: usize = 100;

const SHORT: Doses = Doses {
    requests: 2_000,
    kills: 12,
    restarts: 3,
    broker_kills: 1,
    cuts: 24,
    delays: 3,
    api_cuts: 6,
    api_delays: 2,
    outages: 2,
};

const LONG: Doses = Doses {
    requests: 50_000,
    kills: 210,
    restarts: 12,
    broker_kills: 8,
    cuts: 260,
    delays: 30,
    api_cuts: 60,
    api_delays: 20,
    outages: 15,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and a broker of its own: make faults"]
async fn nothing_is_lost_doubled_or_told_wrongly_whatever_fails() {
    let Some(broker) = own_broker_or_skip("the faults").await else {
        return;
    };
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let long = variable("FAULTS").is_some_and(|form| form == "long");
    let seed = variable("FAULTS_SEED").map_or_else(fresh_seed, |seed| {
        seed.parse().expect("FAULTS_SEED is a number")
    });
    let doses = if long { LONG } else { SHORT };
    let again = format!(
        "FAULTS_SEED={seed} {}make faults",
        if long { "FAULTS=long " } else { "" }
    );
    say(&format!("faults: to run these again: {again}"));
    let begun = Instant::now();
    let run = Run::prepare(&broker, u64::from(seed), doses).await;
    let limit = LIMIT_PER_REQUEST * u32::try_from(doses.requests).expect("it fits");
    let played = tokio::time::timeout(limit, run.play()).await;
    let (done, mut findings) =
        played.unwrap_or_else(|_| panic!("it hangs; log: {}; again: {again}", run.log.display()));
    let said = Said::read(&run.log);
    judge_the_rest(&run, &done, &said, &mut findings);
    let table = table::draw(&run, &done, &said, &findings, begun.elapsed());
    say(&format!("\n{table}to run these again: {again}\n"));
    assert!(
        findings.violations.is_empty(),
        "{} violations:\n{}the workers' log: {}\nto run these again: {again}",
        findings.violations.len(),
        findings.listed(),
        run.log.display(),
    );
    let _ = std::fs::remove_file(&run.log);
    broker.stop().await;
}

/// What is wrong besides the outcomes.
fn judge_the_rest(run: &Run<'_>, done: &Done, said: &Said, findings: &mut Findings) {
    let violations = &mut findings.violations;
    for status in &done.ended_by_itself {
        violations.push(format!("a worker ended by itself: {status}"));
    }
    for back in done.back_after.iter().filter(|&&back| back > BACK_WITHIN) {
        violations.push(format!("consuming again only after {back:?}"));
    }
    if said.with_a_name > 0 {
        let lines = said.with_a_name;
        violations.push(format!("{lines} lines of the log have a username in them"));
    }
    // A run that broke less than it was to break has shown less than it says.
    let doses = &run.doses;
    for (what, did, dose) in [
        ("kills", done.kills, doses.kills),
        ("restarts", done.restarts, doses.restarts),
        ("kills of the broker", done.broker_kills, doses.broker_kills),
        ("cut connections", done.cut_connections, doses.cuts),
    ] {
        if did < dose {
            violations.push(format!("{did} {what} only, not {dose}"));
        }
    }
}

fn fresh_seed() -> u32 {
    let [.., a, b, c, d] = *Uuid::new_v4().as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

struct Run<'a> {
    broker: &'a DemoBroker,
    plan: Plan,
    doses: Doses,
    rng: SmallRng,
    sandbox: Sandbox,
    to_broker: Proxy,
    to_api: Proxy,
    settings: Settings,
    names: QueueNames,
    /// What the workers said; kept when something is wrong.
    log: PathBuf,
}

impl<'a> Run<'a> {
    async fn prepare(broker: &'a DemoBroker, seed: u64, doses: Doses) -> Self {
        let plan = Plan::draw(seed, doses.requests);
        let sandbox = Sandbox::start(SandboxOptions {
            users: plan.users.clone(),
            faults: usual_faults(),
            latency: LatencyRange {
                least: Duration::from_millis(2),
                most: Duration::from_millis(40),
            },
            seed,
            ..SandboxOptions::default()
        })
        .await
        .expect("a sandbox starts");
        let prefix = unique_prefix();
        let to_broker = Proxy::to(host_and_port(broker.url())).await;
        let to_api = Proxy::to(host_and_port(sandbox.base_url())).await;
        let amqp = config::AmqpSection {
            url: Secret::inline(broker.url()),
            prefix: prefix.clone(),
            ..config::Settings::default().amqp
        };
        declare_topology(&amqp, &TopologySettings::with_delays(&LADDER))
            .await
            .expect("the topology can be declared");
        let log = env::temp_dir().join(format!("faults-{prefix}.log"));
        Self {
            broker,
            plan,
            doses,
            rng: SmallRng::seed_from_u64(seed ^ 1),
            sandbox,
            settings: settings(&to_broker, &to_api, prefix.clone()),
            to_broker,
            to_api,
            names: QueueNames::new(&prefix),
            log,
        }
    }

    /// To the end; gives back what was done and what came of it.
    async fn play(&self) -> (Done, Findings) {
        let board = Board::new(&self.plan);
        let heard = format!("{}.heard", self.settings.prefix);
        let url = self.broker.url();
        board::bind(url, &self.names.events, &heard).await;
        let listening = tokio::spawn(board::listen(
            Arc::clone(&board),
            url.to_owned(),
            heard.clone(),
        ));
        let gate = RwLock::new(0);
        let scene = Scene {
            broker: self.broker,
            to_broker: &self.to_broker,
            to_api: &self.to_api,
            sandbox: &self.sandbox,
            board: &board,
            settings: &self.settings,
            log: &self.log,
            queue: &self.names.requests,
            gate: &gate,
        };
        let mut rng = self.rng.clone();
        let steps = self.doses.steps(&mut rng);
        let total = self.plan.asked.len();
        let (volleys, (mut worker, mut done)) = tokio::join!(
            self.publish(&board, &gate),
            scene.play(&steps, total, &mut rng)
        );
        scene.await_done(total, &mut worker).await;
        self.come_to_rest(&heard, worker, &mut done).await;
        let letters = self.letters().await;
        listening.abort();
        let findings = check(&Left {
            plan: &self.plan,
            board: &board,
            ledger: self.sandbox.ledger(),
            letters,
            volleys,
        });
        (done, findings)
    }

    /// Publishes everything in its order, links of chains as their turn comes. Gives back what was
    /// published together and how many disturbances there had been.
    async fn publish(&self, board: &Board, gate: &RwLock<u64>) -> Vec<(Vec<usize>, u64)> {
        let mut volleys = Vec::new();
        let mut units = self.plan.units.iter();
        let mut done = board.done();
        let mut published = 0;
        let mut raw: Option<(u64, Raw)> = None;
        while published < self.plan.asked.len() {
            let outstanding = published - *done.borrow_and_update();
            let unit = match board.take_ready() {
                Some(at) => Some(vec![at]),
                None if outstanding < OUTSTANDING => units.next().cloned(),
                None => None,
            };
            let Some(unit) = unit else {
                // There is too much under way, or what is left are links whose turn comes later.
                let _ = done.changed().await;
                continue;
            };
            // No broker goes away while it is held, so each is published exactly once.
            let absences = gate.read().await;
            let raw = match &raw {
                Some((before, raw)) if *before == *absences => raw,
                _ => &raw.insert((*absences, self.reach().await)).1,
            };
            if unit.len() > 1 {
                volleys.push((unit.clone(), board.disturbances()));
            }
            published += unit.len();
            for at in unit {
                let asked = &self.plan.asked[at];
                board.publish(asked.id);
                let properties = BasicProperties::default()
                    .with_correlation_id(asked.id.to_string().into())
                    .with_delivery_mode(2);
                let key = "rename.T12345678";
                let publishing = raw.publish(&self.names.requests, key, &asked.body, properties);
                let published = tokio::time::timeout(SOON, publishing).await;
                published.expect("the broker confirms a request");
            }
        }
        volleys
    }

    /// A broker that has just come up has been seen to take a connection and then to leave it be.
    async fn reach(&self) -> Raw {
        for _ in 0..TRIES {
            let connecting = Raw::try_connect(self.broker.url());
            if let Ok(Ok(raw)) = tokio::time::timeout(GREETING, connecting).await {
                return raw;
            }
            tokio::time::sleep(AGAIN).await;
        }
        panic!("the broker is up and does not answer");
    }

    /// Waits until nothing is under way any more, and stops the worker.
    async fn come_to_rest(&self, heard: &str, mut worker: Process, done: &mut Done) {
        let raw = self.reach().await;
        let mut queues = self.names.request_queues(&LADDER);
        let rest = async {
            let mut calm = 0;
            // What is between two queues is in none for a moment.
            while calm < 4 {
                let mut left = 0;
                for queue in &queues {
                    left += raw.queue_length(queue).await;
                }
                let in_hand = worker
                    .status()
                    .await
                    .map(|status| status["in_hand"].clone());
                let idle = left == 0 && in_hand.is_some_and(|in_hand| in_hand == 0);
                calm = if idle { calm + 1 } else { 0 };
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, rest).await;
        assert!(
            came.is_ok(),
            "it does not come to rest; log: {}",
            self.log.display()
        );
        if let Some(status) = worker.ended() {
            done.ended_by_itself.push(status.to_string());
        } else {
            worker.terminate().await;
            let status = worker.wait().await;
            assert!(status.success(), "the idle worker ended with {status}");
        }
        queues.push(heard.to_owned());
        for queue in &queues {
            assert_eq!(raw.queue_length(queue).await, 0, "{queue} is not empty");
        }
    }

    /// The correlation ids of the dead letters.
    async fn letters(&self) -> Vec<Option<String>> {
        let raw = self.reach().await;
        let count = raw.queue_length(&self.names.dead_letters).await;
        let count = usize::try_from(count).expect("they fit");
        let letters = raw.drain(&self.names.dead_letters, count, READING).await;
        letters
            .iter()
            .map(|letter| Some(letter.properties.correlation_id().as_ref()?.to_string()))
            .collect()
    }
}

fn settings(to_broker: &Proxy, to_api: &Proxy, prefix: String) -> Settings {
    let more = [
        ("API__TIMEOUT", "2s"),
        ("API__CONNECT_TIMEOUT", "1s"),
        ("CONSUMER__CONCURRENCY", "32"),
        ("RETRY__INITIAL_DELAY", "50ms"),
        ("RETRY__LOCAL_WAIT", "80ms"),
        ("RETRY__MAX_DELAY", "2s"),
        ("RETRY__LADDER", "300ms,1s,3s"),
        ("HOLD__FIRST_PROBE", "50ms"),
        ("HOLD__MAX_PROBE", "400ms"),
        ("LOG__FORMAT", "json"),
    ];
    Settings {
        amqp_url: format!("amqp://guest:guest@{}/%2f", to_broker.address),
        prefix,
        base_url: format!("http://{}/v1", to_api.address),
        more: more.map(|(key, value)| (key, value.to_owned())).to_vec(),
    }
}

/// Of a URL.
fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("//").map_or(url, |(_, rest)| rest);
    let place = rest.split('/').next().unwrap_or(rest);
    place.rsplit_once('@').map_or(place, |(_, place)| place)
}
