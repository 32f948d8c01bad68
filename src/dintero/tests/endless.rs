//! Answers that never end: each is given up after a bounded number of bytes, long before the
//! timeout, and counts as lost after the request was sent.

use super::server::{Then, ok, serve};
use super::*;
use crate::core::answer::{NoToken, Silence};
use crate::dintero::transport::RECEIVED_MAX;

/// Longer than anything here takes, even beside a build.
const PATIENCE: Duration = Duration::from_secs(60);

/// What sockets on loopback may hold of what was sent and not read; in bytes, above the kernel's
/// largest buffers of both ends.
const IN_BUFFERS: usize = 16 * 1024 * 1024;

/// Begins an answer and goes on without end.
fn endless() -> Vec<(&'static str, String, String, Answer)> {
    let lost = || Answer::Silence(Silence::Reset);
    let head = "HTTP/1.1 200 OK\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let user = r#"{"username":"new"}"#;
    let body = format!("{chunked}{:x}\r\n{user}\r\n", user.len());
    let many = |one: &str| one.repeat(200);
    let none = String::new;
    vec![
        ("100", none(), many("HTTP/1.1 100 Continue\r\n\r\n"), lost()),
        (
            "102",
            none(),
            many("HTTP/1.1 102 Processing\r\n\r\n"),
            lost(),
        ),
        (
            "103 with headers",
            none(),
            many("HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nx: y\r\n\r\n"),
            lost(),
        ),
        ("status line", "HTTP/1.1 200 ".into(), many("OK"), lost()),
        ("one header", format!("{head}x: "), many("y"), lost()),
        ("many headers", head.into(), many("x: y\r\n"), lost()),
        (
            "announced body",
            format!("{head}content-length: 99999999999\r\n\r\n"),
            many("y"),
            Answer::Garbled { status: 200 },
        ),
        (
            "body until the end",
            format!("{head}\r\n"),
            many("y"),
            Answer::Garbled { status: 200 },
        ),
        (
            "chunks",
            chunked.into(),
            many("5\r\nyyyyy\r\n"),
            Answer::Garbled { status: 200 },
        ),
        (
            "chunk extension",
            format!("{chunked}1;x="),
            many("y"),
            lost(),
        ),
        ("trailers", format!("{body}0\r\n"), many("x: y\r\n"), lost()),
        ("one trailer", format!("{body}0\r\nx: "), many("y"), lost()),
    ]
}

fn patient_api(base_url: &str) -> Api {
    Api {
        // What ends it must not be this.
        timeout: Duration::from_secs(300),
        ..api(base_url)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_is_given_up_after_a_bounded_number_of_bytes() {
    for (what, first, again, expected) in endless() {
        let server = serve(move |_| {
            let then = Then::SendEndlessly(first.clone(), again.clone());
            async move { then }
        })
        .await;
        let (client, _) = client_of(&patient_api(&server.base_url));
        let call = rename("old", "new");
        let answer = tokio::time::timeout(PATIENCE, client.change_username(&call));
        assert_eq!(answer.await.expect(what), expected, "{what}");
        let sent = tokio::time::timeout(PATIENCE, server.endless()).await;
        let sent = sent.expect(what);
        assert!(sent <= RECEIVED_MAX + IN_BUFFERS, "{what}: {sent} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_endpoint_that_never_ends_is_given_up_as_well() {
    let server = serve(async |_| {
        Then::SendEndlessly(String::new(), "HTTP/1.1 100 Continue\r\n\r\n".repeat(200))
    })
    .await;
    let api = Api {
        credentials: Some(Credentials::Client {
            id: "client".into(),
            secret: Secret::inline("secret"),
        }),
        ..patient_api(&server.base_url)
    };
    let (client, _) = client_of(&api);
    let call = rename("old", "new");
    let answer = tokio::time::timeout(PATIENCE, client.change_username(&call)).await;
    let answer = answer.expect("it is given up");
    assert_eq!(answer, Answer::NoToken(NoToken::Unavailable));
}

#[tokio::test]
async fn a_few_informational_heads_before_the_answer_are_read_over() {
    let server = serve(async |_| {
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(20);
        Then::Send(format!("{interim}{}", ok("new")))
    })
    .await;
    let (client, _) = client_of(&api(&server.base_url));
    // More answers on one connection than one of them may have bytes.
    let calls = 2 * RECEIVED_MAX / 1000;
    for _ in 0..calls {
        let answer = client.change_username(&rename("old", "new")).await;
        assert_eq!(answer, user("new"));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_drips_is_given_up_at_the_timeout() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    let slow_body =
        "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n".to_owned() + &ok("new").repeat(1000);
    for dripping in [interim, slow_body, ok("new")] {
        let server = serve(move |_| {
            let then = Then::Drip(dripping.clone(), Duration::from_millis(10));
            async move { then }
        })
        .await;
        let api = Api {
            timeout: Duration::from_millis(200),
            ..api(&server.base_url)
        };
        let (client, _) = client_of(&api);
        let answer = client.change_username(&rename("old", "new")).await;
        assert_eq!(answer, Answer::Silence(Silence::Timeout));
    }
}
