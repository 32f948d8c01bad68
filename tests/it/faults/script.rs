//! What goes wrong in a run: drawn from the seed, spread evenly over the requests.

use std::path::PathBuf;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rename_worker::demo::broker::DemoBroker;
use rename_worker::sandbox::{
    ApiFault, CallFilter, FaultBody, FaultKind, MalformedBody, RetryAfter, Sandbox,
};
use tokio::sync::{RwLock, watch};
use tokio::time::Instant;

use super::board::Board;
use super::process::{Process, Settings};
use crate::support::proxy::Proxy;

/// The longest that may pass in silence: a place in a line is kept for 150 s after a connection is
/// lost (`core::scheduler::name_order`). All else takes far less.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// What is to be 2 s on a machine with nothing else to do; past this, it is wrong on any.
pub const BACK_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked whether the worker consumes.
const GLANCE: Duration = Duration::from_millis(25);

/// So many things go wrong one right after the other; between bursts is time for what only a calm
/// time can show.
const BURST: usize = 4;

/// The requests that end between two steps of a burst.
const WITHIN_BURST: usize = 8;

/// A broker that is up greets in milliseconds.
const GREETING: Duration = Duration::from_secs(2);

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    KillWorker,
    RestartBroker,
    /// Without warning.
    KillBroker,
    CutBroker,
    DelayBroker,
    CutApi,
    DelayApi,
    ApiOutage,
}

/// How many of each.
#[derive(Debug, Clone, Copy)]
pub struct Doses {
    pub requests: usize,
    pub kills: usize,
    pub restarts: usize,
    pub broker_kills: usize,
    pub cuts: usize,
    pub delays: usize,
    pub api_cuts: usize,
    pub api_delays: usize,
    pub outages: usize,
}

impl Doses {
    /// In an order that the seed decides.
    pub fn steps(&self, rng: &mut SmallRng) -> Vec<Step> {
        let mut steps = Vec::new();
        for (step, count) in [
            (Step::KillWorker, self.kills),
            (Step::RestartBroker, self.restarts),
            (Step::KillBroker, self.broker_kills),
            (Step::CutBroker, self.cuts),
            (Step::DelayBroker, self.delays),
            (Step::CutApi, self.api_cuts),
            (Step::DelayApi, self.api_delays),
            (Step::ApiOutage, self.outages),
        ] {
            steps.resize(steps.len() + count, step);
        }
        steps.shuffle(rng);
        steps
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    pub kills: usize,
    pub restarts: usize,
    pub broker_kills: usize,
    pub cut_connections: usize,
    pub delays: usize,
    pub api_cut_connections: usize,
    pub api_delays: usize,
    pub outages: usize,
    /// Calls that a fault struck until the last outage began; see [`struck`].
    pub api_faults: u64,
    /// From when the broker took connections again to when the worker consumed.
    pub back_after: Vec<Duration>,
    pub ended_by_itself: Vec<String>,
}

/// Everything that can be hurt.
pub struct Scene<'a> {
    pub broker: &'a DemoBroker,
    pub to_broker: &'a Proxy,
    pub to_api: &'a Proxy,
    pub sandbox: &'a Sandbox,
    pub board: &'a Board,
    pub settings: &'a Settings,
    pub log: &'a PathBuf,
    pub queue: &'a str,
    /// How often the broker was away. Held for writing while it is; who publishes holds it for
    /// reading.
    pub gate: &'a RwLock<u64>,
}

/// Faults of single calls, all the time.
pub fn usual_faults() -> Vec<ApiFault> {
    let answer = |status, retry_after| {
        ApiFault::new(FaultKind::Status {
            status,
            body: FaultBody::Json,
            retry_after,
        })
    };
    vec![
        ApiFault::lost().on(CallFilter::Rename).share(0.04),
        ApiFault::new(FaultKind::Reset).share(0.02),
        ApiFault::new(FaultKind::Cut).applied().share(0.01),
        ApiFault::status(503).share(0.03),
        ApiFault::status(500).applied().share(0.01),
        answer(429, Some(RetryAfter::Seconds(1))).share(0.002),
        ApiFault::new(FaultKind::Garbage(MalformedBody::Html)).share(0.005),
        ApiFault::new(FaultKind::Garbage(MalformedBody::Truncated))
            .applied()
            .share(0.005),
        ApiFault::new(FaultKind::Expired).share(0.003),
        ApiFault::new(FaultKind::Slow(Duration::from_millis(400))).share(0.01),
    ]
}

/// Calls that the faults now in force have struck.
pub fn struck(sandbox: &Sandbox) -> u64 {
    sandbox.faults().iter().map(|fault| fault.struck).sum()
}

impl Scene<'_> {
    /// Performs the steps in bursts, each when its share of the requests is done.
    pub async fn play(&self, steps: &[Step], total: usize, rng: &mut SmallRng) -> (Process, Done) {
        let mut worker = Process::start(self.settings, self.log);
        let mut done = Done::default();
        for (number, &step) in steps.iter().enumerate() {
            // The last tenth is left for what the faults held up.
            let bursts = steps.len() / BURST + 2;
            let begin = total * 9 / 10 * (number / BURST + 1) / bursts;
            let due = begin + number % BURST * WITHIN_BURST;
            self.await_done(due, &mut worker).await;
            let pause = Duration::from_millis(rng.random_range(0..60));
            tokio::time::sleep(pause).await;
            worker = self.perform(step, worker, &mut done, rng).await;
        }
        (worker, done)
    }

    /// Waits until so many requests have an outcome, as long as more and more have.
    pub async fn await_done(&self, count: usize, worker: &mut Process) {
        let mut done = self.board.done();
        while *done.borrow_and_update() < count {
            if tokio::time::timeout(PATIENCE, done.changed()).await.is_ok() {
                continue;
            }
            let status = worker.status().await;
            let untold = self.board.untold();
            panic!(
                "no request ended for {PATIENCE:?}: {} of {count} have an outcome; the worker \
                 ended: {:?}, its status: {status:?}; without an outcome: {:?}; its log: {}",
                *self.board.done().borrow(),
                worker.ended(),
                untold.iter().take(5).collect::<Vec<_>>(),
                self.log.display()
            );
        }
    }

    async fn perform(
        &self,
        step: Step,
        mut worker: Process,
        done: &mut Done,
        rng: &mut SmallRng,
    ) -> Process {
        if let Some(status) = worker.ended() {
            done.ended_by_itself.push(status.to_string());
            worker = Process::start(self.settings, self.log);
        }
        match step {
            Step::KillWorker => {
                self.board.kill();
                done.ended_by_itself
                    .extend(worker.kill().await.map(|status| status.to_string()));
                done.kills += 1;
                // Now and then it stays away for a while.
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
                worker = Process::start(self.settings, self.log);
                self.board.kill();
            }
            Step::RestartBroker | Step::KillBroker => self.restart_broker(step, done).await,
            Step::CutBroker => {
                // Half of the time, what is under way before the cut is lost.
                let stalled = rng.random_bool(0.5).then(|| rng.random_range(1..150));
                self.board.disturb();
                done.cut_connections += self.cut_broker(stalled.map(Duration::from_millis)).await;
                self.board.disturb();
            }
            Step::DelayBroker => {
                done.delays += 1;
                self.delay(self.to_broker, rng).await;
            }
            Step::CutApi => {
                self.until_open(self.to_api).await;
                done.api_cut_connections += self.to_api.cut();
            }
            Step::DelayApi => {
                done.api_delays += 1;
                self.delay(self.to_api, rng).await;
            }
            Step::ApiOutage => {
                done.outages += 1;
                done.api_faults += struck(self.sandbox);
                self.sandbox.set_faults([ApiFault::outage()]).await;
                tokio::time::sleep(Duration::from_millis(rng.random_range(300..1500))).await;
                done.api_faults += struck(self.sandbox);
                self.sandbox.set_faults(usual_faults()).await;
            }
        }
        worker
    }

    /// Says how many connections there were, which is at least one.
    async fn cut_broker(&self, stalled: Option<Duration>) -> usize {
        loop {
            self.until_open(self.to_broker).await;
            if let Some(stalled) = stalled {
                self.to_broker.stall();
                tokio::time::sleep(stalled).await;
            }
            let cut = self.to_broker.cut();
            self.to_broker.flow();
            // The only one may have ended by itself meanwhile.
            if cut > 0 {
                return cut;
            }
        }
    }

    async fn delay(&self, proxy: &Proxy, rng: &mut SmallRng) {
        proxy.stall();
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..2500))).await;
        proxy.flow();
    }

    async fn until_open(&self, proxy: &Proxy) {
        let open = async {
            while proxy.open() == 0 {
                tokio::time::sleep(GLANCE).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, open).await;
        assert!(came.is_ok(), "the worker opens no connection");
    }

    /// Measures how long the worker takes to be back.
    async fn restart_broker(&self, step: Step, done: &mut Done) {
        let mut gate = self.gate.write().await;
        self.board.disturb();
        let is_back = watch::Sender::new(false);
        let hurt = async {
            self.hurt_broker(step, done).await;
            is_back.send_replace(true);
        };
        let measured = tokio::join!(hurt, self.back_after_absence(is_back.subscribe())).1;
        done.back_after.push(measured);
        self.board.disturb();
        *gate += 1;
    }

    async fn hurt_broker(&self, step: Step, done: &mut Done) {
        let hurt = if step == Step::KillBroker {
            done.broker_kills += 1;
            match self.broker.kill().await {
                Ok(()) => self.broker.start_again().await,
                error => error,
            }
        } else {
            done.restarts += 1;
            self.broker.restart().await
        };
        hurt.expect("the broker comes back");
    }

    /// Watches the broker go and come: how long after that the queue has a consumer again.
    async fn back_after_absence(&self, mut is_back: watch::Receiver<bool>) -> Duration {
        let url = self.broker.url();
        let watching = async {
            // It is gone once our own connection is; lapin may miss that, but not for ever.
            if let Some(connection) = try_connect(url).await {
                while connection.status().connected() && !*is_back.borrow_and_update() {
                    tokio::time::sleep(GLANCE).await;
                }
            }
            let mut since = None;
            loop {
                let Some(connection) = try_connect(url).await else {
                    tokio::time::sleep(GLANCE).await;
                    continue;
                };
                let since = since.get_or_insert_with(Instant::now);
                while connection.status().connected() {
                    if consumers(&connection, self.queue).await > 0 {
                        return since.elapsed();
                    }
                    tokio::time::sleep(GLANCE).await;
                }
            }
        };
        let back = tokio::time::timeout(PATIENCE, watching).await;
        back.expect("the worker consumes again")
    }
}

/// A broker that is starting may take a connection and never greet: then another is made.
async fn try_connect(url: &str) -> Option<Connection> {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    tokio::time::timeout(GREETING, connecting).await.ok()?.ok()
}

async fn consumers(connection: &Connection, queue: &str) -> u32 {
    let asked = async {
        let channel = connection.create_channel().await.ok()?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::durable()
        };
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .ok()?;
        let _ = channel.close(200, "OK".into()).await;
        Some(declared.consumer_count())
    };
    let asked = tokio::time::timeout(GREETING, asked).await;
    asked.ok().flatten().unwrap_or(0)
}
