//! `/_sandbox/…`: what happened, who is there, and what shall go wrong. The paths do what the
//! methods of [`super::Sandbox`] do, for callers in other processes.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fault::{ApiFault, FaultKind};
use super::listener::RequestContext;
use super::locked;
use super::users::NewUser;

/// The longest body taken here: a few hundred thousand users to seed.
const BODY_MAX: usize = 64 * 1024 * 1024;

const HELP: &str = "\
GET  /_sandbox/ledger?after=SEQ  the renames that took effect, JSON lines
GET  /_sandbox/calls             what was asked, by kind and by what was told
GET  /_sandbox/users             every user, JSON lines
POST /_sandbox/users             lets users be there: JSON lines {account_id, username, id?}
GET  /_sandbox/faults            the faults in force
PUT  /_sandbox/faults            a JSON array of faults, such as [\"503=0.05\", \"lost=x1\"]
POST /_sandbox/tokens/expire     revokes every token that was issued
";

pub(super) fn routes() -> Router<RequestContext> {
    Router::new()
        .route("/_sandbox", get(async || HELP))
        .route("/_sandbox/ledger", get(ledger))
        .route("/_sandbox/calls", get(calls))
        .route("/_sandbox/users", get(users).post(seed))
        .route("/_sandbox/faults", get(faults).put(set_faults))
        .route("/_sandbox/tokens/expire", post(expire))
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

#[derive(Deserialize)]
struct PageCursor {
    #[serde(default)]
    after: u64,
}

async fn ledger(
    State(at): State<RequestContext>,
    Query(PageCursor { after }): Query<PageCursor>,
) -> Response {
    let after = usize::try_from(after).unwrap_or(usize::MAX);
    let entries = {
        let table = locked(&at.shared.table);
        table.ledger().get(after..).unwrap_or_default().to_vec()
    };
    lines(&entries)
}

async fn calls(State(at): State<RequestContext>) -> Response {
    Json(at.shared.calls.now()).into_response()
}

async fn users(State(at): State<RequestContext>) -> Response {
    let users = locked(&at.shared.table).all();
    lines(&users)
}

async fn seed(State(at): State<RequestContext>, body: Bytes) -> Response {
    let seeds = serde_json::Deserializer::from_slice(&body)
        .into_iter::<NewUser>()
        .collect::<Result<Vec<_>, _>>();
    let seeds = match seeds {
        Ok(seeds) => seeds,
        Err(wrong) => return refused(&wrong.to_string()),
    };
    let now = crate::clock::now();
    let count = seeds.len();
    let mut table = locked(&at.shared.table);
    for seed in seeds {
        table.put(seed, now);
    }
    Json(json!({ "seeded": count })).into_response()
}

async fn faults(State(at): State<RequestContext>) -> Response {
    Json(at.shared.faults.in_force()).into_response()
}

async fn set_faults(State(at): State<RequestContext>, body: Bytes) -> Response {
    let texts: Vec<String> = match serde_json::from_slice(&body) {
        Ok(texts) => texts,
        Err(wrong) => return refused(&format!("a JSON array of faults is wanted: {wrong}")),
    };
    let faults = texts
        .iter()
        .map(|text| text.parse())
        .collect::<Result<Vec<ApiFault>, _>>();
    match faults {
        Err(wrong) => refused(&wrong.to_string()),
        Ok(faults)
            if at.can_refuse && faults.iter().any(|fault| fault.kind == FaultKind::Refuse) =>
        {
            refused("`refuse` would cut off this answer too: ask at the control address")
        }
        Ok(faults) => {
            at.shared.set_faults(faults).await;
            Json(at.shared.faults.in_force()).into_response()
        }
    }
}

async fn expire(State(at): State<RequestContext>) -> Response {
    Json(json!({ "expired": at.shared.tokens.expire_issued() })).into_response()
}

fn refused(wrong: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": wrong }))).into_response()
}

/// One JSON value a line.
fn lines(values: &[impl Serialize]) -> Response {
    let mut body = Vec::with_capacity(values.len() * 256);
    for value in values {
        // Writing to memory does not fail, and of ours nothing can fail to be JSON.
        let _ = serde_json::to_writer(&mut body, value);
        body.push(b'\n');
    }
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
