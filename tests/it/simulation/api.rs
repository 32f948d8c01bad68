//! An API as far as the promises depend on it: a real table of users, and ways to fail before and
//! after a rename is applied.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng as _;
use rand::rngs::SmallRng;
use rename_worker::core::model::api_response::{
    ApiResponse, ErrorResponse, TokenError, TransportError, UserRecord,
};
use rename_worker::core::model::names::{folded, same_name};
use uuid::Uuid;

use super::plan::Users;

/// From, and to.
pub type Window = (Timestamp, Timestamp);

/// How unwell the API is.
#[derive(Debug, Clone, Default)]
pub struct Mood {
    /// Share of calls that fail without effect.
    pub fails: f64,
    /// Share of renames that are applied and whose answer is lost or garbled.
    pub loses_answers: f64,
    pub throttles: f64,
    /// Nothing but transient failures.
    pub outage: Option<Window>,
    /// Nothing but 401.
    pub refuses_credentials: Option<Window>,
    /// 401 for one account.
    pub refuses_account: Option<(String, Window)>,
    /// Nothing but transient failures for one account.
    pub fails_account: Option<(String, Window)>,
    /// Whether answers carry ids.
    pub tells_ids: bool,
    /// A self-rename of a name that exists is answered with 409.
    pub self_rename_conflicts: bool,
    /// Names come back in upper case.
    pub shouts: bool,
    /// A name that is kept in another form: each answer about it has one that is not it.
    pub keeps_otherwise: Option<String>,
    /// A name whose self-rename is refused as invalid.
    pub refuses_question: Option<String>,
}

#[derive(Debug)]
pub struct Call<'a> {
    pub request: usize,
    /// The worker's life it was made in.
    pub life: u64,
    pub account: &'a str,
    pub path: &'a str,
    pub name: &'a str,
    /// Meant as a rename, not as a question.
    pub rename: bool,
}

/// A rename that took effect.
#[derive(Debug)]
pub struct Applied {
    pub request: usize,
    pub life: u64,
    pub at: Timestamp,
    pub from: String,
    pub to: String,
    pub user: Uuid,
}

#[derive(Debug)]
pub struct Api {
    pub mood: Mood,
    pub users: Users,
    /// Who ever had which name.
    pub borne: BTreeSet<(String, String, Uuid)>,
    /// In order.
    pub applied: Vec<Applied>,
    pub calls: Vec<Timestamp>,
    /// Requests of which a rename's answer left it open whether it was applied.
    pub unclear: BTreeSet<usize>,
}

impl Mood {
    pub fn well_but_for_one_account(self) -> Self {
        Self {
            fails: 0.0,
            loses_answers: 0.0,
            throttles: 0.0,
            outage: None,
            refuses_credentials: None,
            keeps_otherwise: None,
            ..self
        }
    }

    /// Whether nothing goes wrong but for one account.
    pub fn is_well_but_for_one_account(&self) -> bool {
        let shares = [self.fails, self.loses_answers, self.throttles];
        shares.iter().all(|&share| share == 0.0)
            && self.outage.is_none()
            && self.refuses_credentials.is_none()
            && self.keeps_otherwise.is_none()
    }

    pub fn is_out(&self, now: Timestamp) -> bool {
        within(self.outage, now) || within(self.refuses_credentials, now)
    }
}

impl Api {
    pub fn new(users: Users, mood: Mood) -> Self {
        let borne = users
            .iter()
            .map(|((account, name), id)| (account.clone(), name.clone(), *id))
            .collect();
        Self {
            mood,
            users,
            borne,
            applied: Vec::new(),
            calls: Vec::new(),
            unclear: BTreeSet::new(),
        }
    }

    /// `path` is to be called `name` from now on.
    pub fn call(&mut self, call: &Call<'_>, now: Timestamp, rng: &mut SmallRng) -> ApiResponse {
        self.calls.push(now);
        let refuses_account = self
            .mood
            .refuses_account
            .as_ref()
            .filter(|(account, _)| account == call.account)
            .map(|(_, window)| *window);
        if within(self.mood.refuses_credentials, now) || within(refuses_account, now) {
            return if rng.random_bool(0.5) {
                refused(401)
            } else {
                ApiResponse::NoToken(TokenError::Refused { status: 401 })
            };
        }
        let fails_account = self
            .mood
            .fails_account
            .as_ref()
            .filter(|(account, _)| account == call.account)
            .map(|(_, window)| *window);
        let answer = if within(fails_account, now) {
            failure(rng)
        } else {
            self.answer(call, now, rng)
        };
        if call.rename && is_unclear(&answer, call.name) {
            self.unclear.insert(call.request);
        }
        answer
    }

    fn answer(&mut self, call: &Call<'_>, now: Timestamp, rng: &mut SmallRng) -> ApiResponse {
        if within(self.mood.outage, now) || rng.random_bool(self.mood.fails) {
            return failure(rng);
        }
        if rng.random_bool(self.mood.throttles) {
            let seconds = rng.random_range(0..20);
            return ApiResponse::Refused(ErrorResponse {
                status: 429,
                code: None,
                retry_after: rng.random_bool(0.7).then(|| Duration::from_secs(seconds)),
            });
        }
        let answer = self.apply(call, now);
        if call.rename && rng.random_bool(self.mood.loses_answers) {
            return lost(rng);
        }
        answer
    }

    fn apply(&mut self, call: &Call<'_>, now: Timestamp) -> ApiResponse {
        // It keeps one user for all spellings of a name.
        let from = (call.account.to_owned(), folded(call.path));
        let to = (call.account.to_owned(), folded(call.name));
        let Some(&id) = self.users.get(&from) else {
            return refused(404);
        };
        if from == to {
            if self.mood.refuses_question.as_ref() == Some(&from.1) {
                return refused(422);
            }
            if self.mood.self_rename_conflicts {
                return refused(409);
            }
        } else {
            if self.users.contains_key(&to) {
                return refused(409);
            }
            self.users.remove(&from);
            self.users.insert(to.clone(), id);
            self.borne.insert((to.0, to.1, id));
            self.applied.push(Applied {
                request: call.request,
                life: call.life,
                at: now,
                from: from.1,
                to: folded(call.name),
                user: id,
            });
        }
        let username = if self.mood.keeps_otherwise == Some(folded(call.name)) {
            "in-another-form".into()
        } else if self.mood.shouts {
            call.name.to_uppercase()
        } else {
            call.name.to_owned()
        };
        ApiResponse::User(UserRecord {
            username: username.into(),
            id: self.mood.tells_ids.then_some(id),
        })
    }
}

fn is_unclear(answer: &ApiResponse, name: &str) -> bool {
    match answer {
        ApiResponse::User(user) => !same_name(&user.username, name),
        ApiResponse::Malformed { .. }
        | ApiResponse::Silence(TransportError::Timeout | TransportError::Reset) => true,
        ApiResponse::Refused(refusal) => refusal.status >= 500,
        ApiResponse::Silence(TransportError::Connect) | ApiResponse::NoToken(_) => false,
    }
}

fn within(window: Option<Window>, now: Timestamp) -> bool {
    window.is_some_and(|(from, to)| from <= now && now < to)
}

fn refused(status: u16) -> ApiResponse {
    ApiResponse::Refused(ErrorResponse {
        status,
        ..ErrorResponse::default()
    })
}

/// A failure in passing, without effect.
fn failure(rng: &mut SmallRng) -> ApiResponse {
    match rng.random_range(0..6) {
        0 => ApiResponse::Silence(TransportError::Connect),
        1 => ApiResponse::Silence(TransportError::Timeout),
        2 => ApiResponse::Silence(TransportError::Reset),
        3 => ApiResponse::NoToken(TokenError::Unavailable),
        4 => ApiResponse::Malformed { status: 200 },
        _ => refused(503),
    }
}

/// What is seen of a rename that was applied.
fn lost(rng: &mut SmallRng) -> ApiResponse {
    match rng.random_range(0..5) {
        0 => ApiResponse::Silence(TransportError::Timeout),
        1 => ApiResponse::Silence(TransportError::Reset),
        2 => ApiResponse::Malformed { status: 200 },
        3 => ApiResponse::User(UserRecord {
            username: "somebody-else".into(),
            id: None,
        }),
        _ => refused(502),
    }
}
