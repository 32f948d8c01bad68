//! Tokens: given or got, rotated, renewed ahead of time and after a 401, by one request for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::sync::{Barrier, Notify};

use super::server::{FakeServer, ReceivedCall, ServerReaction, ok, response, serve};
use super::*;
use crate::core::model::api_response::TokenError;

fn with_client(base_url: &str) -> ApiSection {
    ApiSection {
        credentials: Some(CredentialsSection::Client {
            id: "id".into(),
            secret: Secret::inline("s:ecret"),
        }),
        ..api(base_url)
    }
}

/// The `n`th token that Get Token gives.
fn token(n: usize) -> String {
    response(
        200,
        &format!(r#"{{"access_token":"token-{n}","token_type":"Bearer","expires_in":86400}}"#),
    )
}

fn bears(request: &ReceivedCall, token: &str) -> bool {
    request.header("authorization") == Some(&format!("Bearer {token}"))
}

/// Get Token counts up, and calls are welcome with the `valid`th token only.
async fn serve_with_valid(valid: &Arc<AtomicUsize>) -> FakeServer {
    let (given, valid) = (AtomicUsize::new(0), valid.clone());
    serve(move |request| {
        let then = if request.is_get_token() {
            token(given.fetch_add(1, Ordering::Relaxed) + 1)
        } else if bears(
            &request,
            &format!("token-{}", valid.load(Ordering::Relaxed)),
        ) {
            ok("new")
        } else {
            response(401, "")
        };
        std::future::ready(ServerReaction::Send(then))
    })
    .await
}

#[tokio::test]
async fn get_token_is_asked_as_the_contract_says_and_once_an_account() {
    let server = serve_with_valid(&Arc::new(1.into())).await;
    let (client, told) = client_of(&with_client(&server.base_url));
    for _ in 0..3 {
        assert_eq!(
            client.change_username(&rename("old", "new")).await,
            user("new")
        );
    }
    let other = ApiCall {
        account: account("P87654321"),
        ..rename("old", "new")
    };
    // Its own token is the second one, which is not valid here, nor is the third.
    assert_eq!(client.change_username(&other).await, refused(401));

    let requests = server.requests();
    let asked: Vec<_> = requests.iter().filter(|r| r.is_get_token()).collect();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].path(), "/v1/accounts/T12345678/auth/token");
    assert_eq!(asked[1].path(), "/v1/accounts/P87654321/auth/token");
    // base64 of `id:s:ecret`
    assert_eq!(
        asked[0].header("authorization"),
        Some("Basic aWQ6czplY3JldA==")
    );
    assert_eq!(
        asked[0].body,
        r#"{"grant_type":"client_credentials","audience":"https://api.dintero.com/v1/accounts/T12345678"}"#
    );
    assert_eq!(told.all()[0], (HttpCallKind::Token, HttpStatus::Code(200)));
}

#[tokio::test]
async fn an_accounts_own_credentials_come_first_and_without_any_no_call_is_made() {
    let server = serve(async |_| ServerReaction::Send(ok("new"))).await;
    let mut api = api(&server.base_url);
    let own = CredentialsSection::Token(Secret::inline("own"));
    api.accounts.insert(account("T12345678"), own);
    let (client, _) = client_of(&api);
    client.change_username(&rename("old", "new")).await;
    assert!(bears(&server.requests()[0], "own"));

    api.credentials = None;
    let (client, told) = client_of(&api);
    let other = ApiCall {
        account: account("P87654321"),
        ..rename("old", "new")
    };
    assert_eq!(
        client.change_username(&other).await,
        ApiResponse::NoToken(TokenError::Missing)
    );
    assert!(told.all().is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn after_a_401_the_token_is_renewed_and_the_call_made_once_more() {
    let valid = Arc::new(AtomicUsize::new(1));
    let server = serve_with_valid(&valid).await;
    let (client, told) = client_of(&with_client(&server.base_url));
    let call = rename("old", "new");
    assert_eq!(client.change_username(&call).await, user("new"));
    valid.store(2, Ordering::Relaxed);
    assert_eq!(client.change_username(&call).await, user("new"));
    let (token, rename) = (HttpCallKind::Token, HttpCallKind::Rename);
    let (ok, unauthorised) = (HttpStatus::Code(200), HttpStatus::Code(401));
    assert_eq!(
        told.all(),
        [
            (token, ok),
            (rename, ok),
            (rename, unauthorised),
            (token, ok),
            (rename, ok)
        ]
    );
}

#[tokio::test]
async fn a_second_401_comes_back() {
    let server = serve_with_valid(&Arc::new(0.into())).await;
    let (client, _) = client_of(&with_client(&server.base_url));
    assert_eq!(
        client.change_username(&rename("old", "new")).await,
        refused(401)
    );
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_given_token_that_is_refused_is_not_tried_twice() {
    let server = serve(async |_| ServerReaction::Send(response(401, ""))).await;
    let (client, _) = client_of(&api(&server.base_url));
    assert_eq!(
        client.change_username(&rename("old", "new")).await,
        refused(401)
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_rotated_token_file_needs_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let server = serve(async |request| {
        if bears(&request, "right") {
            ServerReaction::Send(ok("new"))
        } else {
            ServerReaction::Send(response(401, ""))
        }
    })
    .await;
    let mut api = api(&server.base_url);
    api.credentials = Some(CredentialsSection::Token(Secret::File(path.clone())));
    let (client, _) = client_of(&api);
    let call = rename("old", "new");

    assert_eq!(
        client.change_username(&call).await,
        ApiResponse::NoToken(TokenError::Missing)
    );
    write(&path, "wrong\n");
    assert_eq!(client.change_username(&call).await, refused(401));
    // As long as the last one, and perhaps written within the same tick of the file system's
    // clock: the 401 finds it even so.
    write(&path, "right\n");
    assert_eq!(client.change_username(&call).await, user("new"));
    write(&path, "no\nheader");
    assert_eq!(
        client.change_username(&call).await,
        ApiResponse::NoToken(TokenError::Missing)
    );
}

#[tokio::test]
async fn however_many_wait_for_a_token_it_is_asked_for_once() {
    let server = serve_with_valid(&Arc::new(1.into())).await;
    let (client, _) = client_of(&with_client(&server.base_url));
    let call = rename("old", "new");
    // One thread: all 64 are under way before the server gets a turn.
    let answers = join_all((0..64).map(|_| client.change_username(&call))).await;
    assert!(answers.iter().all(|answer| *answer == user("new")));
    assert_eq!(server.get_tokens(), 1);
}

#[tokio::test]
async fn however_many_401s_come_at_once_the_token_is_renewed_once() {
    let (given, all_here) = (AtomicUsize::new(0), Arc::new(Barrier::new(64)));
    let server = serve(move |request| {
        let all_here = all_here.clone();
        let nth = given.fetch_add(usize::from(request.is_get_token()), Ordering::Relaxed) + 1;
        async move {
            if request.is_get_token() {
                ServerReaction::Send(token(nth))
            } else if bears(&request, "token-1") {
                all_here.wait().await;
                ServerReaction::Send(response(401, ""))
            } else {
                ServerReaction::Send(ok("new"))
            }
        }
    })
    .await;
    let (client, _) = client_of(&with_client(&server.base_url));
    let call = rename("old", "new");
    let answers = join_all((0..64).map(|_| client.change_username(&call))).await;
    assert!(answers.iter().all(|answer| *answer == user("new")));
    assert_eq!(server.get_tokens(), 2);
}

#[tokio::test]
async fn all_that_wait_share_a_failure_and_the_next_asks_anew() {
    for (status, none) in [
        (503, TokenError::Unavailable),
        (401, TokenError::Refused { status: 401 }),
    ] {
        let down = Arc::new(AtomicUsize::new(1));
        let is_down = down.clone();
        let server = serve(move |request| {
            let then = match (request.is_get_token(), is_down.load(Ordering::Relaxed)) {
                (true, 1) => response(status, r#"{"error":{"code":"NOPE"}}"#),
                (true, _) => token(1),
                (false, _) => ok("new"),
            };
            std::future::ready(ServerReaction::Send(then))
        })
        .await;
        let (client, _) = client_of(&with_client(&server.base_url));
        let call = rename("old", "new");
        let answers = join_all((0..64).map(|_| client.change_username(&call))).await;
        let expected = ApiResponse::NoToken(none);
        assert!(answers.iter().all(|answer| *answer == expected));
        assert_eq!(server.requests().len(), 1);

        down.store(0, Ordering::Relaxed);
        assert_eq!(client.change_username(&call).await, user("new"));
    }
}

#[tokio::test]
async fn whoever_waits_goes_on_when_the_one_who_asked_is_gone() {
    let (asked, arrived) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let arrives = arrived.clone();
    let server = serve(move |request| {
        let first = request.is_get_token() && asked.fetch_add(1, Ordering::Relaxed) == 0;
        let then = match (request.is_get_token(), first) {
            (true, true) => ServerReaction::SendAndHang(String::new()),
            (true, false) => ServerReaction::Send(token(1)),
            (false, _) => ServerReaction::Send(ok("new")),
        };
        if first {
            arrives.notify_one();
        }
        std::future::ready(then)
    })
    .await;
    let (client, _) = client_of(&with_client(&server.base_url));
    let call = rename("old", "new");
    let mut asking = Box::pin(client.change_username(&call));
    let mut waiting = Box::pin(client.change_username(&call));
    tokio::select! {
        _ = &mut asking => panic!("a token came from nowhere"),
        () = arrived.notified() => (),
    }
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(asking);
    assert_eq!(waiting.await, user("new"));
}

/// Moves the clock on; it runs by itself while sockets are in use.
async fn later(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_expiry_and_outlives_a_failed_renewal() {
    // Get Token gives one, fails, and gives another.
    let asked = AtomicUsize::new(0);
    let server = serve(move |request| {
        let then = if request.is_get_token() {
            match asked.fetch_add(1, Ordering::Relaxed) {
                1 => response(503, ""),
                nth => token(nth + 1),
            }
        } else {
            ok("new")
        };
        std::future::ready(ServerReaction::Send(then))
    })
    .await;
    let (client, _) = client_of(&with_client(&server.base_url));
    let call = rename("old", "new");
    let mut borne = Vec::new();
    // Got; still young; five minutes before its end the renewal fails; that rests; renewed.
    for wait in [0, 86_000, 150, 5, 10] {
        later(Duration::from_secs(wait)).await;
        assert_eq!(client.change_username(&call).await, user("new"));
        let last = server.requests().pop().unwrap();
        borne.push((
            last.header("authorization").unwrap()["Bearer ".len()..].to_owned(),
            server.get_tokens(),
        ));
    }
    let borne: Vec<_> = borne
        .iter()
        .map(|(token, asked)| (&**token, *asked))
        .collect();
    assert_eq!(
        borne,
        [
            ("token-1", 1),
            ("token-1", 1),
            ("token-1", 2),
            ("token-1", 2),
            ("token-3", 3)
        ]
    );
}
