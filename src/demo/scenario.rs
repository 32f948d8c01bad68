//! What is played: who is there, what is asked for, and how each request must end.
//!
//! Most requests are fine, some name people twice (the second waits for the first), and some fail
//! in every way that a request can fail for good. The same script each time.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use uuid::Uuid;

use crate::core::model::outcome::Reason;
use crate::core::model::request::AccountId;
use crate::sandbox::{
    ApiFault, CallFilter, FaultBody, FaultKind, LatencyRange, NewUser, RetryAfter, people,
};

/// Two customers of Dintero's test environment.
const ACCOUNTS: [&str; 2] = ["T12345678", "T87654321"];

/// Users of each account. The first are renamed, the last [`STAYING`] keep their names.
const USERS: usize = 320;

/// Users of each account whose names others want in vain.
const STAYING: usize = 40;

/// How many of the renamed users of each account are renamed a second time.
const TWICE: usize = 151;

/// Usernames that the API refuses to change begin so.
const PROTECTED: &str = "admin.";

/// Chosen once; it has no meaning.
const SEED: u64 = 20_261_124;

/// All that is played.
#[derive(Debug)]
pub struct Scenario {
    pub users: Vec<NewUser>,
    pub requests: Vec<ScenarioRequest>,
}

/// A request, and how it must end.
#[derive(Debug, Clone)]
pub struct ScenarioRequest {
    pub account: &'static str,
    /// None where the body does not tell it.
    pub request_id: Option<Uuid>,
    pub body: Vec<u8>,
    /// None is renamed.
    pub fails: Option<Reason>,
}

/// What goes wrong at the API meanwhile. None of it changes how a request must end.
pub fn faults() -> Vec<ApiFault> {
    vec![
        ApiFault::status(403).prefix(PROTECTED),
        ApiFault::lost().share(0.02).on(CallFilter::Rename),
        ApiFault::status(503).share(0.03),
        ApiFault::new(FaultKind::Status {
            status: 429,
            body: FaultBody::Json,
            retry_after: Some(RetryAfter::Seconds(1)),
        })
        .next(3),
        ApiFault::new(FaultKind::Expired).next(1),
    ]
}

/// As slow as a service in another town.
pub const LATENCY: LatencyRange = LatencyRange {
    least: Duration::from_millis(10),
    most: Duration::from_millis(40),
};

pub fn script() -> Scenario {
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut users = Vec::new();
    let mut lines: Vec<VecDeque<ScenarioRequest>> = Vec::new();
    for account in ACCOUNTS {
        let cast = ScenarioBuilder::new(account, &mut random);
        lines.push(cast.fine(&mut random));
        lines.push(cast.failing_users(&mut random));
        users.extend(cast.people);
    }
    Scenario {
        users,
        requests: interleave(lines, &mut random),
    }
}

/// Mixes the lines, each in its own order.
fn interleave(
    mut lines: Vec<VecDeque<ScenarioRequest>>,
    random: &mut SmallRng,
) -> Vec<ScenarioRequest> {
    let mut turns: Vec<usize> = lines
        .iter()
        .enumerate()
        .flat_map(|(line, scripted)| std::iter::repeat_n(line, scripted.len()))
        .collect();
    turns.shuffle(random);
    turns
        .into_iter()
        .filter_map(|line| lines[line].pop_front())
        .collect()
}

/// The people of one account.
struct ScenarioBuilder {
    account: &'static str,
    people: Vec<NewUser>,
}

impl ScenarioBuilder {
    fn new(account: &'static str, random: &mut SmallRng) -> Self {
        let Ok(id) = AccountId::parse(account) else {
            unreachable!("the accounts above are well-formed");
        };
        let mut cast: Vec<NewUser> = people(&id, USERS).collect();
        cast.extend((1..=3).map(|number| NewUser {
            account_id: id.clone(),
            username: format!("{PROTECTED}{number}@example.com").into(),
            id: None,
        }));
        for person in &mut cast {
            person.id = Some(draw_id(random));
        }
        Self {
            account,
            people: cast,
        }
    }

    /// Renames that succeed: everybody's first, some people's second behind it. Every other one
    /// says which user it means.
    fn fine(&self, random: &mut SmallRng) -> VecDeque<ScenarioRequest> {
        let movers = &self.people[..USERS - STAYING];
        let first = movers.iter().enumerate().map(|(number, person)| {
            let known = person.id.filter(|_| number % 2 == 0);
            let new = format!("person.{number}@new.example.com");
            (person.username.to_string(), new, known)
        });
        let second = movers[..TWICE].iter().enumerate().map(|(number, person)| {
            let old = format!("person.{number}@new.example.com");
            let new = format!("person.{number}@newer.example.com");
            (old, new, person.id.filter(|_| number % 3 == 0))
        });
        first
            .chain(second)
            .map(|(old, new, user_id)| {
                let id = draw_id(random);
                let mut request = self.request(id, &old, &new);
                if let Some(user_id) = user_id {
                    request["user_id"] = json!(user_id);
                }
                self.scripted(Some(id), request.to_string(), None)
            })
            .collect()
    }

    /// Requests that fail for good, each for its reason.
    fn failing_users(&self, random: &mut SmallRng) -> VecDeque<ScenarioRequest> {
        let mut all = Vec::new();
        let stayers = &self.people[USERS - STAYING..USERS];
        for (number, stayer) in stayers.iter().enumerate() {
            let nobody = format!("nobody.{number}@example.com");
            let never = format!("never.{number}@example.com");
            let stays = stayer.username.to_string();
            let next = stayers[(number + 1) % STAYING].username.to_string();
            match number % 4 {
                0 | 1 => {
                    all.push(self.failing(random, &stays, &next, Reason::UsernameTaken, &[]));
                    all.push(self.failing(random, &nobody, &never, Reason::UserNotFound, &[]));
                }
                2 => {
                    let other = draw_id(random).to_string();
                    let more = [("user_id", other.as_str())];
                    all.push(self.failing(random, &stays, &never, Reason::UserMismatch, &more));
                }
                _ => {
                    let more = [("not_after", "2020-01-01T00:00:00Z")];
                    all.push(self.failing(random, &stays, &never, Reason::DeadlineExceeded, &more));
                }
            }
        }
        for number in 1..=3 {
            let old = format!("{PROTECTED}{number}@example.com");
            let new = format!("boss.{number}@example.com");
            all.push(self.failing(random, &old, &new, Reason::Forbidden, &[]));
        }
        all.extend(self.invalid(random));
        all.shuffle(random);
        all.into()
    }

    /// What upstream systems send by mistake.
    fn invalid(&self, random: &mut SmallRng) -> Vec<ScenarioRequest> {
        let reason = Some(Reason::InvalidRequest);
        let whole = |random: &mut SmallRng, old: &str, new: &str| {
            let id = draw_id(random);
            (id, self.request(id, old, new))
        };
        let mut all = vec![
            // Which account an unreadable body means cannot be told; it is made to differ.
            self.scripted(
                None,
                format!("<rename account=\"{}\"/>", self.account),
                reason,
            ),
            self.scripted(
                None,
                format!("{{\"account_id\": \"{}\",", self.account),
                reason,
            ),
        ];
        let (id, mut request) = whole(random, "somebody@example.com", "x");
        request["new_username"] = json!("x".repeat(256));
        all.push(self.scripted(Some(id), request.to_string(), reason));
        let (id, request) = whole(random, "..", "parent@example.com");
        all.push(self.scripted(Some(id), request.to_string(), reason));
        let (id, mut request) = whole(random, "somebody@example.com", "x@example.com");
        request["account_id"] = json!("12345678");
        all.push(self.scripted(Some(id), request.to_string(), reason));
        let (id, mut request) = whole(random, "somebody@example.com", "x@example.com");
        request["username"] = json!(42);
        all.push(self.scripted(Some(id), request.to_string(), reason));
        all
    }

    fn failing(
        &self,
        random: &mut SmallRng,
        old: &str,
        new: &str,
        reason: Reason,
        more: &[(&str, &str)],
    ) -> ScenarioRequest {
        let id = draw_id(random);
        let mut request = self.request(id, old, new);
        for &(field, value) in more {
            request[field] = json!(value);
        }
        self.scripted(Some(id), request.to_string(), Some(reason))
    }

    fn request(&self, id: Uuid, old: &str, new: &str) -> serde_json::Value {
        json!({
            "request_id": id,
            "account_id": self.account,
            "username": old,
            "new_username": new,
            "requested_by": "demo",
        })
    }

    fn scripted(
        &self,
        request_id: Option<Uuid>,
        body: String,
        fails: Option<Reason>,
    ) -> ScenarioRequest {
        ScenarioRequest {
            account: self.account,
            request_id,
            body: body.into_bytes(),
            fails,
        }
    }
}

fn draw_id(random: &mut SmallRng) -> Uuid {
    uuid::Builder::from_random_bytes(random.random()).into_uuid()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn the_script_has_some_of_everything_and_is_the_same_each_time() {
        let script = script();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for scripted in &script.requests {
            let end = scripted.fails.map_or("renamed", Reason::as_str);
            *counts.entry(end).or_default() += 1;
        }
        insta::assert_debug_snapshot!(counts, @r#"
        {
            "deadline_exceeded": 20,
            "forbidden": 6,
            "invalid_request": 12,
            "renamed": 862,
            "user_mismatch": 20,
            "user_not_found": 40,
            "username_taken": 40,
        }
        "#);
        let bodies = |script: &Scenario| -> Vec<Vec<u8>> {
            script.requests.iter().map(|r| r.body.clone()).collect()
        };
        assert_eq!(bodies(&script), bodies(&super::script()));
    }

    #[test]
    fn no_two_requests_are_one() {
        let script = script();
        let bodies: HashSet<_> = script.requests.iter().map(|r| &r.body).collect();
        assert_eq!(bodies.len(), script.requests.len());
        let ids: HashSet<_> = script
            .requests
            .iter()
            .filter_map(|r| r.request_id)
            .collect();
        let told = script.requests.iter().filter(|r| r.request_id.is_some());
        assert_eq!(ids.len(), told.count());
    }
}
