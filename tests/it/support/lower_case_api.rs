//! An API that keeps usernames in a form of its own: composed and in lower case. It finds a user by
//! any spelling, answers with its own, and records its calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Json, Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Router, response::IntoResponse};
use icu_normalizer::ComposingNormalizerBorrowed;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// One call of `change_username`, with the names as they were sent.
#[derive(Debug, Clone)]
pub struct Call {
    pub from: String,
    pub to: String,
    pub status: u16,
    pub began: Instant,
    pub ended: Instant,
}

#[derive(Debug, Default)]
struct Table {
    /// By account and name, in the API's form.
    users: HashMap<(String, String), Uuid>,
    calls: Vec<Call>,
}

#[derive(Debug, Clone, Default)]
struct Shared {
    table: Arc<Mutex<Table>>,
    latency: Duration,
}

/// It ends when this is dropped.
pub struct LowerCaseApi {
    pub base_url: String,
    shared: Shared,
    _closing: DropGuard,
}

/// A name in the form that the API keeps.
pub fn in_its_form(name: &str) -> String {
    let composed = ComposingNormalizerBorrowed::new_nfc().normalize(name);
    composed.to_lowercase()
}

impl LowerCaseApi {
    /// Each call takes `latency` at least.
    pub async fn start(latency: Duration) -> Self {
        let shared = Shared {
            latency,
            ..Shared::default()
        };
        let routes = Router::new()
            .route("/v1/accounts/{account}/auth/token", post(token))
            .route(
                "/v1/accounts/{account}/auth/users/{username}/change_username",
                post(change_username),
            )
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let closing = CancellationToken::new();
        let guard = closing.clone().drop_guard();
        tokio::spawn(closing.run_until_cancelled_owned(async move {
            let _ = axum::serve(listener, routes).await;
        }));
        Self {
            base_url: format!("http://{address}/v1"),
            shared,
            _closing: guard,
        }
    }

    /// Adds a user; its id.
    pub fn user(&self, account: &str, name: &str) -> Uuid {
        let id = Uuid::new_v4();
        let key = (account.to_owned(), in_its_form(name));
        self.shared.lock().users.insert(key, id);
        id
    }

    /// The calls that have ended, in the order of their ends.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn rename(&mut self, account: String, from: &str, to: &str) -> (StatusCode, Value) {
        let error = |code: &str| json!({"error": {"code": code, "message": code}});
        let [from, to] = [from, to].map(in_its_form);
        let (from, to) = ((account.clone(), from), (account, to));
        let Some(&id) = self.users.get(&from) else {
            return (StatusCode::NOT_FOUND, error("user_not_found"));
        };
        if from != to {
            if self.users.contains_key(&to) {
                return (StatusCode::CONFLICT, error("username_taken"));
            }
            self.users.remove(&from);
            self.users.insert(to.clone(), id);
        }
        (StatusCode::OK, json!({"username": to.1, "id": id}))
    }
}

async fn token() -> Json<Value> {
    Json(json!({"access_token": "token", "token_type": "Bearer", "expires_in": 86400}))
}

async fn change_username(
    State(shared): State<Shared>,
    Path((account, from)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> impl IntoResponse {
    let began = Instant::now();
    tokio::time::sleep(shared.latency).await;
    let to = body["username"].as_str().unwrap_or_default().to_owned();
    let mut table = shared.lock();
    let (status, answer) = table.rename(account, &from, &to);
    table.calls.push(Call {
        from,
        to,
        status: status.as_u16(),
        began,
        ended: Instant::now(),
    });
    (status, Json(answer))
}
