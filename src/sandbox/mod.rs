//! The stand-in for Dintero's endpoint: a real table of users behind the real paths, a ledger of the
//! renames that took effect, and faults on request. For demos, tests and benchmarks only.
//!
//! It listens on loopback only and trusts whoever reaches it: `/_sandbox/…` has no password. Start one
//! with [`Sandbox::start`]; the handle does what the paths under `/_sandbox` do. It knows nothing of
//! RabbitMQ or of the worker.

mod responses;
mod api;
mod calls;
mod control;
mod listener;
mod fault;
mod faults;
mod fault_syntax;
mod fake_users;
mod route;
mod users;
mod tokens;

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::calls::{CallLog, CallOutcome, SandboxCallKind};
pub use self::fake_users::people;
pub use self::fault::{
    ApiFault, CallFilter, FaultBody, FaultKind, Frequency, MalformedBody, RetryAfter,
};
pub use self::fault_syntax::{BadFault, KEYS, KINDS};
pub use self::faults::FaultInForce;
pub use self::tokens::OAuthClient;
pub use self::users::{LedgerEntry, NewUser, SandboxUser};

use self::calls::CallCounter;
use self::faults::FaultTable;
use self::tokens::IssuedTokens;
use self::users::UserStore;
use crate::core::model::request::AccountId;

/// The client that is known when none is named.
pub const CLIENT_ID: &str = "sandbox-client";
/// Its secret; no secret at all, since it opens nothing but a sandbox.
pub const CLIENT_SECRET: &str = "sandbox-secret";
/// How long Dintero's tokens live.
pub const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Where the endpoint is served; port 0 takes any that is free. Loopback only.
    pub listen: SocketAddr,
    /// Where `/_sandbox/…` is served as well, so that it can be reached while `listen` is refusing.
    pub control: SocketAddr,
    pub users: Vec<NewUser>,
    /// Answers carry `username` and nothing else of a user.
    pub bare_users: bool,
    pub clients: Vec<OAuthClient>,
    /// Tokens that are good for every account and for ever.
    pub tokens: Vec<SecretString>,
    pub token_lifetime: Duration,
    pub faults: Vec<ApiFault>,
    pub latency: LatencyRange,
    /// Of the ids drawn and of the faults' shares: the same seed, the same run.
    pub seed: u64,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: any,
            control: any,
            users: Vec::new(),
            bare_users: false,
            clients: vec![OAuthClient {
                id: CLIENT_ID.to_owned(),
                secret: CLIENT_SECRET.into(),
                account: None,
            }],
            tokens: Vec::new(),
            token_lifetime: TOKEN_LIFETIME,
            faults: Vec::new(),
            latency: LatencyRange::default(),
            seed: 1,
        }
    }
}

/// How long every call takes at least, drawn evenly between the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencyRange {
    pub least: Duration,
    pub most: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a latency is a time such as 20ms, or two such as 20ms-80ms")]
pub struct BadLatency;

impl FromStr for LatencyRange {
    type Err = BadLatency;

    fn from_str(text: &str) -> Result<Self, BadLatency> {
        let time = |text: &str| humantime::parse_duration(text.trim()).map_err(|_| BadLatency);
        let (least, most) = match text.split_once('-') {
            Some((least, most)) => (time(least)?, time(most)?),
            None => (time(text)?, time(text)?),
        };
        if least > most {
            return Err(BadLatency);
        }
        Ok(Self { least, most })
    }
}

impl LatencyRange {
    async fn pass(self) {
        if self.most > Duration::ZERO {
            let time = rand::rng().random_range(self.least..=self.most);
            tokio::time::sleep(time).await;
        }
    }
}

/// Why no sandbox was started.
#[derive(Debug, thiserror::Error)]
pub enum SandboxStartError {
    #[error(
        "{0} is not a loopback address; the sandbox trusts whoever reaches it, so it stays on this machine"
    )]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// A running sandbox. It stops when this is dropped; [`Sandbox::shutdown`] also waits for the end.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<SandboxState>,
    base_url: String,
    control_url: String,
    doors: [JoinHandle<()>; 2],
    closing: DropGuard,
}

/// What every call sees.
#[derive(Debug)]
struct SandboxState {
    table: Mutex<UserStore>,
    tokens: IssuedTokens,
    faults: FaultTable,
    calls: CallCounter,
    latency: LatencyRange,
    bare_users: bool,
    /// Of the endpoint.
    door: listener::ConnectionState,
}

impl SandboxState {
    /// Puts these faults in the place of all before, and returns when they are in force.
    async fn set_faults(&self, faults: Vec<ApiFault>) {
        self.faults.set(faults);
        self.settled().await;
    }

    /// Waits until the door is as the faults want it.
    async fn settled(&self) {
        let refusing = *self.faults.refusing().borrow();
        self.door.until(refusing).await;
    }
}

impl Sandbox {
    pub async fn start(options: SandboxOptions) -> Result<Self, SandboxStartError> {
        let listener = listener::listen(options.listen).await?;
        let control = listener::listen(options.control).await?;
        let (address, control_address) =
            (listener::address(&listener)?, listener::address(&control)?);
        let mut table = UserStore::new(options.seed);
        let now = crate::clock::now();
        for seed in options.users {
            table.put(seed, now);
        }
        let shared = Arc::new(SandboxState {
            table: Mutex::new(table),
            tokens: IssuedTokens::new(options.token_lifetime, options.clients, &options.tokens),
            faults: FaultTable::new(options.seed, options.faults),
            calls: CallCounter::default(),
            latency: options.latency,
            bare_users: options.bare_users,
            door: listener::ConnectionState::default(),
        });
        let closing = CancellationToken::new();
        let endpoint = listener::SandboxListener {
            routes: api::routes(),
            shared: Arc::clone(&shared),
            closing: closing.clone(),
            refusing: Some(shared.faults.refusing()),
        };
        let aside = listener::SandboxListener {
            routes: control::routes(),
            shared: Arc::clone(&shared),
            closing: closing.clone(),
            refusing: None,
        };
        let doors = [
            tokio::spawn(endpoint.serve(listener)),
            tokio::spawn(aside.serve(control)),
        ];
        let sandbox = Self {
            shared,
            base_url: format!("http://{address}/v1"),
            control_url: format!("http://{control_address}/_sandbox"),
            doors,
            closing: closing.drop_guard(),
        };
        sandbox.shared.settled().await;
        Ok(sandbox)
    }

    /// What `api.base_url` is to be, without a slash at its end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Where `/_sandbox` answers even while the endpoint is refusing.
    #[must_use]
    pub fn control_url(&self) -> &str {
        &self.control_url
    }

    /// The renames that took effect, in the order of effect.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        locked(&self.shared.table).ledger().to_vec()
    }

    /// Every user, in no order, each with its id.
    #[must_use]
    pub fn users(&self) -> Vec<NewUser> {
        locked(&self.shared.table).all()
    }

    #[must_use]
    pub fn user(&self, account: &AccountId, username: &str) -> Option<SandboxUser> {
        locked(&self.shared.table).get(account, username).cloned()
    }

    /// Lets users be there. Who bears a name already stays, with the id that is given, if any.
    pub fn seed(&self, users: impl IntoIterator<Item = NewUser>) -> Vec<SandboxUser> {
        let mut table = locked(&self.shared.table);
        let now = crate::clock::now();
        users.into_iter().map(|seed| table.put(seed, now)).collect()
    }

    /// Takes a user away, as if deleted behind the caller's back.
    pub fn remove(&self, account: &AccountId, username: &str) -> Option<SandboxUser> {
        locked(&self.shared.table).remove(account, username)
    }

    /// Puts these faults in the place of all before, and returns when they are in force.
    pub async fn set_faults(&self, faults: impl IntoIterator<Item = ApiFault>) {
        self.shared.set_faults(faults.into_iter().collect()).await;
    }

    #[must_use]
    pub fn faults(&self) -> Vec<FaultInForce> {
        self.shared.faults.in_force()
    }

    #[must_use]
    pub fn calls(&self) -> CallLog {
        self.shared.calls.now()
    }

    /// Waits until the counts of calls are such.
    pub async fn calls_until(&self, such: impl FnMut(&CallLog) -> bool) -> CallLog {
        self.shared.calls.until(such).await
    }

    /// Revokes every token that Get Token gave. Says how many.
    pub fn expire_tokens(&self) -> usize {
        self.shared.tokens.expire_issued()
    }

    /// Takes a token as good for every account and for ever.
    pub fn accept_token(&self, token: &SecretString) {
        self.shared.tokens.accept(token);
    }

    pub fn revoke_token(&self, token: &str) {
        self.shared.tokens.revoke(token);
    }

    /// Puts these clients in the place of all before; tokens they got stay good.
    pub fn set_clients(&self, clients: Vec<OAuthClient>) {
        self.shared.tokens.set_clients(clients);
    }

    /// Answers what is under way for a moment, breaks off the rest, and ends.
    pub async fn shutdown(self) {
        let Self { doors, closing, .. } = self;
        drop(closing);
        for door in doors {
            // A door that panicked has nothing left to close.
            let _ = door.await;
        }
    }
}

/// The lock, also after a panic elsewhere: a test that panicked shall not hide what it saw.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
