//! What is published in a run, and what must come of it: drawn from the seed alone.

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use rename_worker::core::model::request::AccountId;
use rename_worker::sandbox::NewUser;
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use crate::support::stage::ACCOUNT;

/// Every name begins so, and nothing else has it in it: a log with it has a name in it.
pub const NAME: &str = "nordmann";

/// What a request must end as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Renamed,
    /// With this reason.
    Failed(&'static str),
    /// Renamed, unless a kill or a cut fell between it and those published together with it.
    RenamedIfUndisturbed,
}

/// A request and its place among the others.
#[derive(Debug)]
pub struct Asked {
    /// Also its `correlation_id`, by which even what is no JSON is known again.
    pub id: Uuid,
    pub body: Vec<u8>,
    pub from: String,
    pub to: String,
    pub expected: Expected,
    /// The one to publish when the event of this one has come.
    pub next: Option<usize>,
}

/// A whole run.
#[derive(Debug)]
pub struct Plan {
    pub asked: Vec<Asked>,
    pub users: Vec<NewUser>,
    /// Published one after the other; those of one unit together, each in the name of the one before.
    pub units: Vec<Vec<usize>>,
    /// Each the whole of a chain of renames, in order.
    pub chains: Vec<Vec<usize>>,
}

impl Plan {
    pub fn draw(seed: u64, count: usize) -> Self {
        let mut drawing = Drawing {
            rng: SmallRng::seed_from_u64(seed),
            plan: Self {
                asked: Vec::with_capacity(count + 8),
                users: Vec::new(),
                units: Vec::new(),
                chains: Vec::new(),
            },
            names: 0,
        };
        while drawing.plan.asked.len() < count {
            drawing.one_more();
        }
        let mut plan = drawing.plan;
        plan.units.shuffle(&mut drawing.rng);
        plan
    }
}

struct Drawing {
    rng: SmallRng,
    plan: Plan,
    names: usize,
}

impl Drawing {
    fn one_more(&mut self) {
        // Shares in percent of the units; a chain or volley is several requests.
        match self.rng.random_range(0..100) {
            0..4 => self.chain(),
            4..7 => self.volley(),
            7..11 => self.unknown(),
            11..15 => self.taken(),
            15..18 => self.invalid(),
            18..20 => self.mismatched(),
            _ => self.independent(),
        }
    }

    fn independent(&mut self) {
        let (from, to) = (self.name(), self.name());
        let id = self.user(&from);
        let only = self.maybe(id);
        self.alone(&from, &to, only, Expected::Renamed);
    }

    fn unknown(&mut self) {
        let (from, to) = (self.name(), self.name());
        let nobody = self.uuid();
        let only = self.maybe(nobody);
        self.alone(&from, &to, only, Expected::Failed("user_not_found"));
    }

    fn taken(&mut self) {
        let (from, to) = (self.name(), self.name());
        let id = self.user(&from);
        self.user(&to);
        let only = self.maybe(id);
        self.alone(&from, &to, only, Expected::Failed("username_taken"));
    }

    fn mismatched(&mut self) {
        let (from, to) = (self.name(), self.name());
        self.user(&from);
        let other = self.uuid();
        self.alone(&from, &to, Some(other), Expected::Failed("user_mismatch"));
    }

    fn invalid(&mut self) {
        let (from, to) = (self.name(), self.name());
        self.user(&from);
        let at = self.alone(&from, &to, None, Expected::Failed("invalid_request"));
        let asked = &mut self.plan.asked[at];
        let mut body = json!({
            "request_id": asked.id, "account_id": ACCOUNT, "username": from, "new_username": to,
        });
        asked.body = match at % 4 {
            0 => b"not JSON".to_vec(),
            1 => {
                body["new_username"] = json!("..");
                body.to_string().into_bytes()
            }
            2 => {
                body["account_id"] = json!("nobody's");
                body.to_string().into_bytes()
            }
            _ => {
                body["new_username"] = Value::Null;
                body.to_string().into_bytes()
            }
        };
    }

    /// Renames of one user, each published after the one before has been told. None comes round to
    /// a former name: see the limits in docs/reliability.md.
    fn chain(&mut self) {
        let length = self.rng.random_range(3..=6);
        let links = self.in_a_row(length, Expected::Renamed);
        for pair in links.windows(2) {
            self.plan.asked[pair[0]].next = Some(pair[1]);
        }
        self.plan.units.push(vec![links[0]]);
        self.plan.chains.push(links);
    }

    /// Renames of one user, published together.
    fn volley(&mut self) {
        let length = self.rng.random_range(2..=4);
        let links = self.in_a_row(length, Expected::RenamedIfUndisturbed);
        self.plan.units.push(links);
    }

    fn in_a_row(&mut self, length: usize, expected: Expected) -> Vec<usize> {
        let names: Vec<String> = (0..=length).map(|_| self.name()).collect();
        let id = self.user(&names[0]);
        let only = self.maybe(id);
        names
            .windows(2)
            .map(|pair| self.ask(&pair[0], &pair[1], only, expected))
            .collect()
    }

    fn alone(&mut self, from: &str, to: &str, only: Option<Uuid>, expected: Expected) -> usize {
        let at = self.ask(from, to, only, expected);
        self.plan.units.push(vec![at]);
        at
    }

    fn ask(&mut self, from: &str, to: &str, only: Option<Uuid>, expected: Expected) -> usize {
        let id = self.uuid();
        let mut body = json!({
            "request_id": id, "account_id": ACCOUNT, "username": from, "new_username": to,
        });
        if let Some(only) = only {
            body["user_id"] = json!(only);
        }
        self.plan.asked.push(Asked {
            id,
            body: body.to_string().into_bytes(),
            from: from.to_owned(),
            to: to.to_owned(),
            expected,
            next: None,
        });
        self.plan.asked.len() - 1
    }

    /// A user to be there; its id.
    fn user(&mut self, name: &str) -> Uuid {
        let id = self.uuid();
        self.plan.users.push(NewUser {
            account_id: AccountId::parse(ACCOUNT).expect("an account"),
            username: name.into(),
            id: Some(id),
        });
        id
    }

    /// A name that nobody has yet; some are hard to carry in a path.
    fn name(&mut self) -> String {
        self.names += 1;
        let tail = ["", "@example.com", "/æøå", " +%2f?#"].choose(&mut self.rng);
        format!("{NAME}{}{}", self.names, tail.expect("there are some"))
    }

    fn maybe(&mut self, id: Uuid) -> Option<Uuid> {
        self.rng.random_bool(0.5).then_some(id)
    }

    fn uuid(&mut self) -> Uuid {
        Builder::from_random_bytes(self.rng.random()).into_uuid()
    }
}
