//! What is sent, and what each way of answering, or of not answering, comes to.

use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use super::server::{ServerReaction, ok, response, serve};
use super::*;
use crate::core::model::api_response::TransportError;

/// What one rename comes to at a server that answers as told, and how often it was asked.
async fn answer_to(
    then: fn() -> ServerReaction,
) -> (ApiResponse, Vec<(HttpCallKind, HttpStatus)>, usize) {
    let server = serve(move |_| std::future::ready(then())).await;
    let mut api = api(&server.base_url);
    api.timeout = Duration::from_millis(200);
    let (client, told) = client_of(&api);
    let answer = client.change_username(&rename("old", "new")).await;
    (answer, told.all(), server.requests().len())
}

/// What the server does then, made anew for each case.
type MakeThen = fn() -> ServerReaction;

#[tokio::test]
async fn a_call_is_what_the_contract_says() {
    let server = serve(async |_| ServerReaction::Send(ok("new@example.com"))).await;
    let (client, told) = client_of(&api(&server.base_url));
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let call = ApiCall {
        kind: CallKind::Confirm,
        traceparent: Some(traceparent.into()),
        ..rename("old@example.com", "new@example.com")
    };

    assert_eq!(client.change_username(&call).await, user("new@example.com"));

    let request = &server.requests()[0];
    assert_eq!(
        request.head.lines().next().unwrap(),
        "POST /v1/accounts/T12345678/auth/users/old%40example.com/change_username HTTP/1.1"
    );
    let agent = format!("rename-worker/{}", env!("CARGO_PKG_VERSION"));
    for (header, value) in [
        ("authorization", "Bearer sesame"),
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", &agent),
        ("traceparent", traceparent),
    ] {
        assert_eq!(request.header(header), Some(value), "{header}");
    }
    assert_eq!(request.body, r#"{"username":"new@example.com"}"#);
    assert_eq!(told.all(), [(HttpCallKind::Confirm, HttpStatus::Code(200))]);
}

#[tokio::test]
async fn a_trace_context_that_fits_no_header_is_left_out() {
    let server = serve(async |_| ServerReaction::Send(ok("new"))).await;
    let (client, _) = client_of(&api(&server.base_url));
    let call = ApiCall {
        traceparent: Some("00-\r\nx-evil: 1".into()),
        ..rename("old", "new")
    };
    assert_eq!(client.change_username(&call).await, user("new"));
    assert_eq!(server.requests()[0].header("traceparent"), None);
    assert_eq!(server.requests()[0].header("x-evil"), None);
}

#[tokio::test]
async fn calls_one_after_another_share_a_connection() {
    let server = serve(async |_| ServerReaction::Send(ok("new"))).await;
    let (client, _) = client_of(&api(&server.base_url));
    for _ in 0..20 {
        assert_eq!(
            client.change_username(&rename("old", "new")).await,
            user("new")
        );
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn calls_at_once_have_a_connection_each_and_keep_them() {
    let all_here = Arc::new(Barrier::new(64));
    let server = serve(move |_| {
        let all_here = all_here.clone();
        async move {
            all_here.wait().await;
            ServerReaction::Send(ok("new"))
        }
    })
    .await;
    let (client, _) = client_of(&api(&server.base_url));
    let call = rename("old", "new");
    for _ in 0..3 {
        let answers = join_all((0..64).map(|_| client.change_username(&call))).await;
        assert!(answers.iter().all(|answer| *answer == user("new")));
    }
    assert_eq!(server.connections(), 64);
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_its_wish_to_wait() {
    let then = || {
        ServerReaction::Send(
            "HTTP/1.1 429 Slow Down\r\nretry-after: 7\r\ncontent-length: 31\r\n\r\n\
             {\"error\":{\"code\":\"RATE_LIMIT\"}}"
                .into(),
        )
    };
    let (answer, told, _) = answer_to(then).await;
    let expected = ErrorResponse {
        status: 429,
        code: Some("RATE_LIMIT".into()),
        retry_after: Some(Duration::from_secs(7)),
    };
    assert_eq!(answer, ApiResponse::Refused(expected));
    assert_eq!(told, [(HttpCallKind::Rename, HttpStatus::Code(429))]);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in ["301", "302", "303", "307", "308"] {
        let server = serve(move |_| async move {
            ServerReaction::Send(format!(
                "HTTP/1.1 {status} Elsewhere\r\nlocation: /v2\r\ncontent-length: 0\r\n\r\n"
            ))
        })
        .await;
        let (client, _) = client_of(&api(&server.base_url));
        let answer = client.change_username(&rename("old", "new")).await;
        assert_eq!(answer, refused(status.parse().unwrap()));
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn what_is_lost_after_sending_is_unclear_and_never_sent_twice() {
    let cases: [(&str, MakeThen, TransportError); 7] = [
        (
            "hang",
            || ServerReaction::SendAndHang(String::new()),
            TransportError::Timeout,
        ),
        (
            "hang in the body",
            || ServerReaction::SendAndHang(ok("new").replace('}', "")),
            TransportError::Timeout,
        ),
        (
            "close",
            || ServerReaction::SendAndClose(String::new()),
            TransportError::Reset,
        ),
        ("reset", || ServerReaction::Reset, TransportError::Reset),
        (
            "close in the head",
            || ServerReaction::SendAndClose("HTTP/1.1 200 O".into()),
            TransportError::Reset,
        ),
        (
            "close in the body",
            || ServerReaction::SendAndClose(ok("new").replace('}', "")),
            TransportError::Reset,
        ),
        (
            "no HTTP",
            || ServerReaction::SendAndClose("SSH-2.0-hi\r\n".into()),
            TransportError::Reset,
        ),
    ];
    for (name, then, silence) in cases {
        let (answer, told, requests) = answer_to(then).await;
        assert_eq!(answer, ApiResponse::Silence(silence), "{name}");
        assert_eq!(told, [(HttpCallKind::Rename, silence.into())], "{name}");
        assert_eq!(requests, 1, "{name}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_after_the_request_is_not_tried_anew() {
    let server = serve(async |request| {
        if request.path().contains("first") {
            ServerReaction::Send(ok("new"))
        } else {
            ServerReaction::Reset
        }
    })
    .await;
    let (client, _) = client_of(&api(&server.base_url));
    assert_eq!(
        client.change_username(&rename("first", "new")).await,
        user("new")
    );
    let answer = client.change_username(&rename("second", "new")).await;
    assert_eq!(answer, ApiResponse::Silence(TransportError::Reset));
    assert_eq!((server.requests().len(), server.connections()), (2, 1));
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    // It takes connections and never answers a handshake.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute_port = mute.local_addr().unwrap().port();
    for base_url in [
        format!("http://127.0.0.1:{port}/v1"),
        "http://nowhere.invalid/v1".into(),
        format!("https://127.0.0.1:{mute_port}/v1"),
    ] {
        let mut api = api(&base_url);
        api.connect_timeout = Duration::from_millis(300);
        let (client, told) = client_of(&api);
        let answer = client.change_username(&rename("old", "new")).await;
        assert_eq!(
            answer,
            ApiResponse::Silence(TransportError::Connect),
            "{base_url}"
        );
        assert_eq!(told.all(), [(HttpCallKind::Rename, HttpStatus::Connect)]);
    }
}

/// A body of that many bytes that is a user.
fn padded(length: usize) -> String {
    let user = r#"{"username":"new","pad":""}"#;
    user.replace("\"\"", &format!("\"{}\"", "x".repeat(length - user.len())))
}

fn in_chunks(body: &str) -> String {
    let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for chunk in body.as_bytes().chunks(1000) {
        let chunk = str::from_utf8(chunk).unwrap();
        write!(text, "{:x}\r\n{chunk}\r\n", chunk.len()).unwrap();
    }
    text + "0\r\n\r\n"
}

#[tokio::test]
async fn a_body_is_read_up_to_64_kib() {
    const LIMIT: usize = 64 * 1024;
    let garbled = ApiResponse::Malformed { status: 200 };
    let cases: [(&str, MakeThen, ApiResponse); 6] = [
        (
            "all",
            || ServerReaction::Send(response(200, &padded(LIMIT))),
            user("new"),
        ),
        (
            "all, chunked",
            || ServerReaction::Send(in_chunks(&padded(LIMIT))),
            user("new"),
        ),
        (
            "one more",
            || ServerReaction::Send(response(200, &padded(LIMIT + 1))),
            garbled.clone(),
        ),
        (
            "one more, chunked",
            || ServerReaction::Send(in_chunks(&padded(LIMIT + 1))),
            garbled.clone(),
        ),
        (
            "100 KiB, never ended",
            || ServerReaction::SendAndHang(in_chunks(&padded(100 * 1024)).replace("0\r\n\r\n", "")),
            garbled,
        ),
        (
            "too long a refusal",
            || ServerReaction::Send(response(404, &padded(LIMIT + 1))),
            refused(404),
        ),
    ];
    for (name, then, expected) in cases {
        assert_eq!(answer_to(then).await.0, expected, "{name}");
    }
}

#[tokio::test]
async fn a_200_that_is_no_user_is_garbled() {
    let (answer, told, _) =
        answer_to(|| ServerReaction::Send(response(200, "<html>Sign in</html>"))).await;
    assert_eq!(answer, ApiResponse::Malformed { status: 200 });
    assert_eq!(told, [(HttpCallKind::Rename, HttpStatus::Garbled)]);
}

/// A 200 with a user, as a server sends it that compresses whatever it is asked for.
fn compressed(encoding: &str, body: &[u8]) -> ServerReaction {
    let mut bytes = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(body, flate2::Compression::fast());
    std::io::Read::read_to_end(&mut encoder, &mut bytes).unwrap();
    let length = bytes.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {length}\r\n\r\n"
    );
    ServerReaction::SendBytes([head.into_bytes(), bytes].concat())
}

#[tokio::test]
async fn an_answer_that_comes_compressed_all_the_same_is_read() {
    let (answer, told, _) = answer_to(|| compressed("gzip", br#"{"username":"new"}"#)).await;
    assert_eq!(answer, user("new"));
    assert_eq!(told, [(HttpCallKind::Rename, HttpStatus::Code(200))]);
    // What it says of itself is not believed, and what it unfolds to is bounded.
    let garbled = ApiResponse::Malformed { status: 200 };
    let (answer, ..) = answer_to(|| compressed("br", br#"{"username":"new"}"#)).await;
    assert_eq!(answer, garbled);
    let (answer, ..) = answer_to(|| compressed("gzip", &vec![b' '; 128 * 1024])).await;
    assert_eq!(answer, garbled);
}
