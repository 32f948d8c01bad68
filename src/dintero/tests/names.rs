//! Any name, through a real client, wire and router: it arrives whole and nowhere else.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::routing::post;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

/// What the router saw: the path's parameters where the endpoint was reached, and the raw path.
type SeenName = Arc<Mutex<Vec<(Option<(String, String)>, String)>>>;

async fn endpoint(
    State(seen): State<SeenName>,
    Path(parameters): Path<(String, String)>,
    uri: Uri,
) -> &'static str {
    seen.lock()
        .unwrap()
        .push((Some(parameters), uri.to_string()));
    r#"{"username":"new"}"#
}

async fn elsewhere(State(seen): State<SeenName>, uri: Uri) {
    seen.lock().unwrap().push((None, uri.to_string()));
}

async fn server(seen: SeenName) -> String {
    let router = Router::new()
        .route(
            "/v1/accounts/{aid}/auth/users/{username}/change_username",
            post(endpoint),
        )
        .fallback(elsewhere)
        .with_state(seen);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/v1")
}

/// Names of any characters, and of those that mean something in a URL.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(any::<char>(), 1..=255).prop_map(String::from_iter),
        r"[./%?#@+:;&= \\a-cA-F0-9]{1,40}",
        r"(\.|%2e|%2E|/|\\|%2f|\.\.){1,10}",
    ]
    .prop_filter("no path carries it", |name| !matches!(&**name, "." | ".."))
}

#[test]
fn any_name_arrives_whole_and_reaches_no_other_path() {
    let runtime = Runtime::new().unwrap();
    let seen = SeenName::default();
    let base_url = runtime.block_on(server(seen.clone()));
    let (client, _) = client_of(&api(&base_url));
    proptest!(ProptestConfig::with_cases(1_000), |(name in names())| {
        let answer = runtime.block_on(client.change_username(&rename(&name, "new")));
        prop_assert_eq!(answer, user("new"));
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let [(Some((account, username)), raw)] = &*seen else {
            return Err(TestCaseError::fail(format!("{seen:?}")));
        };
        prop_assert_eq!(account, "T12345678");
        prop_assert_eq!(username, &name);
        prop_assert_eq!(raw.split('/').count(), 8, "{}", raw);
    });
}

#[tokio::test]
async fn a_name_that_no_path_carries_is_never_sent() {
    let seen = SeenName::default();
    let base_url = server(seen.clone()).await;
    let (client, told) = client_of(&api(&base_url));
    for dots in [".", ".."] {
        let ApiResponse::Refused(refusal) = client.change_username(&rename(dots, "new")).await
        else {
            panic!("{dots} was answered");
        };
        assert_eq!(refusal.code.as_deref(), Some("username_fits_no_path"));
    }
    assert!(seen.lock().unwrap().is_empty());
    assert!(told.all().is_empty());
}
