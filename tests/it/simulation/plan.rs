//! What is decided before a life begins: its users, its requests, its faults.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng as _;
use rand::rngs::SmallRng;
use rename_worker::core::model::request::{AccountId, RenameRequest, Username};
use rename_worker::core::policy::retry::RetrySettings;
use rename_worker::core::scheduler::SchedulerConfig;
use uuid::Uuid;

use super::api::{Mood, Window};

pub type Users = BTreeMap<(String, String), Uuid>;

/// A whole life, as far as it can be told in advance.
#[derive(Debug)]
pub struct Plan {
    pub start: Timestamp,
    pub rules: SchedulerConfig,
    /// Workers that share the queue.
    pub workers: usize,
    pub users: Users,
    pub requests: Vec<Planned>,
    /// When upstream publishes which request; some are published twice.
    pub published: Vec<(Duration, usize)>,
    pub mood: Mood,
    pub faults: Faults,
}

/// One request of a life.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Nothing for a message that is no request.
    pub request: Option<RenameRequest>,
    /// It kills the worker whenever that begins to work on it.
    pub poison: bool,
    /// It ends every session that it is delivered in, before the worker can read it.
    pub unreadable: bool,
    pub published_twice: bool,
}

/// How often what will go wrong, at random moments.
#[derive(Debug, Default)]
pub struct Faults {
    pub kills: u32,
    pub cuts: u32,
    /// Publishes that the broker refuses.
    pub refusals: u32,
    /// Times that the broker takes no publishes for a while.
    pub alarms: u32,
    pub drains: u32,
    /// Every session is cut so long after its first delivery, so many times.
    pub short_sessions: Option<(Duration, u32)>,
    /// The chance of one at any step.
    pub rate: f64,
}

impl Faults {
    pub const fn are_none(&self) -> bool {
        self.kills + self.cuts + self.refusals + self.alarms + self.drains == 0
            && self.short_sessions.is_none()
    }
}

/// Only the first is ever in trouble of its own.
pub const ACCOUNTS: [&str; 2] = ["T00000001", "P00000002"];
/// Longer than a request is tried in some of the lives.
const LONG: Duration = Duration::from_secs(3 * 3600);

const NAMES: [&str; 7] = ["ada", "bob", "cid", "dan", "eva", "fay", "gus"];

impl Plan {
    pub fn random(rng: &mut SmallRng) -> Self {
        let start = start();
        let rules = SchedulerConfig {
            concurrency: *pick(&[1, 2, 8], rng),
            verify_before: rng.random_bool(0.7),
            requests_per_second: rng
                .random_bool(0.1)
                .then(|| 5.try_into().expect("not zero")),
            retry: RetrySettings {
                max_attempts: *pick(&[12, 12, 12, 3, 1], rng),
                max_elapsed: Duration::from_secs(*pick(&[24 * 3600, 24 * 3600, 600], rng)),
                ..RetrySettings::default()
            },
            ..SchedulerConfig::default()
        };
        let mut users = Users::new();
        for account in ACCOUNTS {
            for name in NAMES {
                if rng.random_bool(0.6) {
                    users.insert((account.to_owned(), name.to_owned()), uuid(rng));
                }
            }
        }
        let mut requests: Vec<_> = (0..rng.random_range(4..=24))
            .map(|_| random_request(&users, start, rng))
            .collect();
        let mut published = upstream(&mut requests, rng);
        let mood = random_mood(start, rng);
        if let Some((_, (from, to))) = mood.refuses_account
            && later(from, LONG) < to
        {
            keep_the_other_account_busy(&mut requests, &mut published, rng);
        }
        let faults = random_faults(&mut requests, rng);
        Self {
            start,
            rules,
            workers: if rng.random_bool(0.15) { 2 } else { 1 },
            users,
            requests,
            published,
            mood,
            faults,
        }
    }

    /// So many requests that share no name, all waiting when the API goes down for so long.
    pub fn outage(requests: usize, length: Duration, rng: &mut SmallRng) -> Self {
        let start = start();
        let account = ACCOUNTS[0];
        let mut users = Users::new();
        let requests: Vec<_> = (0..requests)
            .map(|number| {
                let id = uuid(rng);
                let (old, new) = (format!("old-{number}"), format!("new-{number}"));
                users.insert((account.to_owned(), old.clone()), id);
                let user_id = rng.random_bool(0.5).then_some(id);
                Planned {
                    request: Some(request(account, (&old, &new), user_id, None, rng)),
                    poison: false,
                    unreadable: false,
                    published_twice: false,
                }
            })
            .collect();
        let end = later(start, length);
        Self {
            start,
            rules: SchedulerConfig::default(),
            workers: 1,
            users,
            published: (0..requests.len()).map(|n| (Duration::ZERO, n)).collect(),
            requests,
            mood: Mood {
                outage: Some((start, end)),
                ..Mood::default()
            },
            faults: Faults::default(),
        }
    }
}

/// What goes wrong in a life, and what is special about one of its requests.
fn random_faults(requests: &mut [Planned], rng: &mut SmallRng) -> Faults {
    let violent = rng.random_bool(0.6);
    let mut up_to = |most: u32| {
        if violent {
            rng.random_range(0..=most)
        } else {
            0
        }
    };
    let mut faults = Faults {
        kills: up_to(4),
        cuts: up_to(3),
        alarms: up_to(2),
        drains: up_to(1),
        refusals: 0,
        short_sessions: None,
        rate: 0.0,
    };
    faults.refusals = rng.random_range(0..3);
    faults.rate = *pick(&[0.05, 0.01], rng);
    let special = if violent { rng.random_range(0..10) } else { 10 };
    if special == 0 {
        pick_mut(requests, rng).poison = true;
        // Killed three times while it tells of poison, no worker could tell.
        faults.kills = faults.kills.min(2);
    } else if special == 1 {
        pick_mut(requests, rng).unreadable = true;
    } else if special == 2 {
        let after = Duration::from_millis(rng.random_range(5..500));
        faults.short_sessions = Some((after, rng.random_range(2..60)));
    }
    faults
}

/// Any moment will do.
fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn random_request(users: &Users, start: Timestamp, rng: &mut SmallRng) -> Planned {
    let account = *pick(&ACCOUNTS, rng);
    let (old, new) = (*pick(&NAMES, rng), *pick(&NAMES, rng));
    let new = if old == new && rng.random_bool(0.9) {
        "new"
    } else {
        new
    };
    let not_after = rng
        .random_bool(0.05)
        .then(|| later(start, Duration::from_secs(rng.random_range(0..60))));
    let known = users.get(&(account.to_owned(), old.to_owned())).copied();
    let mut spelt = |name: &str| {
        if rng.random_bool(0.05) {
            name.to_uppercase()
        } else {
            name.to_owned()
        }
    };
    let names = (spelt(old), spelt(new));
    let user_id = match rng.random_range(0..10) {
        0..6 => known,
        // Another user's, who is not to be renamed by this.
        6 => users.values().nth(rng.random_range(0..7)).copied(),
        _ => None,
    };
    let request = request(account, (&names.0, &names.1), user_id, not_after, rng);
    Planned {
        request: rng.random_bool(0.97).then_some(request),
        poison: false,
        unreadable: false,
        published_twice: false,
    }
}

fn request(
    account: &str,
    (old, new): (&str, &str),
    user_id: Option<Uuid>,
    not_after: Option<Timestamp>,
    rng: &mut SmallRng,
) -> RenameRequest {
    RenameRequest {
        request_id: uuid(rng),
        account_id: AccountId::parse(account).expect("valid"),
        username: Username::parse(old).expect("valid"),
        new_username: Username::parse(new).expect("valid"),
        user_id,
        requested_at: None,
        requested_by: None,
        not_after,
    }
}

fn upstream(requests: &mut [Planned], rng: &mut SmallRng) -> Vec<(Duration, usize)> {
    let span = *pick(&[0u64, 250, 5_000], rng);
    let mut at = 0;
    let mut published = Vec::new();
    for (number, planned) in requests.iter_mut().enumerate() {
        at += rng.random_range(0..=span);
        published.push((Duration::from_millis(at), number));
        if rng.random_bool(0.03) {
            planned.published_twice = true;
            let again = at + rng.random_range(0..60_000);
            published.push((Duration::from_millis(again), number));
        }
    }
    published
}

fn random_mood(start: Timestamp, rng: &mut SmallRng) -> Mood {
    let window = |rng: &mut SmallRng| -> Window {
        let from = later(start, Duration::from_millis(rng.random_range(0..5_000)));
        let length = Duration::from_secs(*pick(&[2, 60, 60, 300, 1_800, 6 * 3600], rng));
        (from, later(from, length))
    };
    let mood = Mood {
        fails: *pick(&[0.0, 0.05, 0.3], rng),
        loses_answers: *pick(&[0.0, 0.1, 0.5], rng),
        throttles: *pick(&[0.0, 0.05, 0.2], rng),
        outage: rng.random_bool(0.25).then(|| window(rng)),
        refuses_credentials: rng.random_bool(0.1).then(|| window(rng)),
        refuses_account: rng
            .random_bool(0.1)
            .then(|| (ACCOUNTS[0].to_owned(), longer(window(rng), rng))),
        fails_account: rng
            .random_bool(0.1)
            .then(|| (ACCOUNTS[0].to_owned(), window(rng))),
        tells_ids: rng.random_bool(0.8),
        self_rename_conflicts: rng.random_bool(0.2),
        shouts: rng.random_bool(0.1),
        keeps_otherwise: rng
            .random_bool(0.15)
            .then(|| (*pick(&NAMES, rng)).to_owned()),
        refuses_question: rng
            .random_bool(0.15)
            .then(|| (*pick(&NAMES, rng)).to_owned()),
    };
    let is_neighbour_sick = mood.fails_account.is_some() || mood.refuses_account.is_some();
    if is_neighbour_sick && rng.random_bool(0.5) {
        return mood.well_but_for_one_account();
    }
    mood
}

/// One account's credentials may be refused for longer than any request is tried.
fn longer((from, to): Window, rng: &mut SmallRng) -> Window {
    let more = if rng.random_bool(0.2) {
        LONG
    } else {
        Duration::ZERO
    };
    (from, later(to, more))
}

/// Requests that the API answers all the while, so that it refuses only the one account.
fn keep_the_other_account_busy(
    requests: &mut Vec<Planned>,
    published: &mut Vec<(Duration, usize)>,
    rng: &mut SmallRng,
) {
    for minute in 0..30 {
        let names = (format!("nobody-{minute}"), format!("somebody-{minute}"));
        let request = request(ACCOUNTS[1], (&names.0, &names.1), None, None, rng);
        published.push((Duration::from_secs(minute * 60), requests.len()));
        requests.push(Planned {
            request: Some(request),
            poison: false,
            unreadable: false,
            published_twice: false,
        });
    }
}

pub fn later(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).expect("within time")
}

fn uuid(rng: &mut SmallRng) -> Uuid {
    Uuid::from_u128(rng.random())
}

fn pick<'a, T>(from: &'a [T], rng: &mut SmallRng) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

fn pick_mut<'a, T>(from: &'a mut [T], rng: &mut SmallRng) -> &'a mut T {
    let index = rng.random_range(0..from.len());
    &mut from[index]
}
