use std::net::SocketAddr;

use axum::routing::get;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Connections at once, in these tests.
const MAX: usize = 8;

/// Longer than anything here takes, even beside a build.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer that no socket's buffers hold.
const LARGE: usize = 64 * 1024 * 1024;

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

async fn start() -> SocketAddr {
    let large = Bytes::from(vec![b'x'; LARGE]);
    let routes = Router::new()
        .route("/livez", get(|| async { "yes" }))
        .route("/large", get(move || async move { large }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(AdminServer::new(routes, MAX).run(listener));
    at
}

/// A connection on which this was sent.
async fn send(at: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    // It may be closed to make room for another before all is sent.
    let _ = stream.write_all(bytes).await;
    stream
}

/// Everything that comes until the server closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // A reset is a close as well.
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("closed");
    bytes
}

/// The first bytes of an answer on this connection.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 12];
    let read = stream.read_exact(&mut bytes);
    let read = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("an answer");
    read.expect("an answer");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn assert_alive(at: SocketAddr) {
    assert_eq!(answer(&mut send(at, LIVEZ).await).await, "HTTP/1.1 200");
}

#[tokio::test]
async fn a_probe_gets_through_beside_whatever_hangs_on_the_port() {
    for hanging in [
        &b""[..],
        b"G",
        b"GET /livez HTTP/1.1\r\nhost: x\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
        b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n",
        LIVEZ,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let at = start().await;
        let mut flood = Vec::new();
        for _ in 0..MAX * 20 {
            flood.push(send(at, hanging).await);
        }
        assert_alive(at).await;
        // All but the newest have been closed; reading ends only then.
        let newest = flood.split_off(flood.len() - MAX);
        for stream in &mut flood {
            rest(stream).await;
        }
        drop(newest);
    }
}

#[tokio::test]
async fn one_that_asks_again_and_again_is_kept_while_idle_ones_go() {
    let at = start().await;
    let mut busy = send(at, LIVEZ).await;
    let mut idle = Vec::new();
    for _ in 0..MAX * 5 {
        let mut answer = [0; 1024];
        let read = tokio::time::timeout(PATIENCE, busy.read(&mut answer)).await;
        assert!(read.expect("an answer").expect("it is open") > 0);
        idle.push(send(at, b"").await);
        busy.write_all(LIVEZ).await.unwrap();
    }
    assert_eq!(answer(&mut busy).await, "HTTP/1.1 200");
}

#[tokio::test]
async fn a_head_beyond_the_bounds_is_refused_before_it_is_read_whole() {
    let at = start().await;
    let long = format!("GET /livez HTTP/1.1\r\nx: {}", "a".repeat(4 * BUFFER));
    let many = format!(
        "GET /livez HTTP/1.1\r\n{}\r\n",
        "x: y\r\n".repeat(HEADERS_MAX + 1)
    );
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(4 * BUFFER));
    for head in [long, many, path] {
        let mut stream = send(at, head.as_bytes()).await;
        let said = rest(&mut stream).await;
        // An answer may be lost to the reset that follows unread bytes.
        let refused = said.is_empty() || said.starts_with(b"HTTP/1.1 4");
        assert!(refused, "{}", String::from_utf8_lossy(&said));
    }
    assert_alive(at).await;
}

#[tokio::test(start_paused = true)]
async fn who_sends_no_whole_head_in_time_is_closed() {
    let at = start().await;
    for begun in [&b""[..], b"G", b"GET /livez HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = send(at, begun).await;
        let from = Instant::now();
        rest(&mut stream).await;
        assert!(from.elapsed() >= HEAD_TIMEOUT, "{:?}", from.elapsed());
    }
    // A byte now and then does not prolong it.
    let mut stream = send(at, b"GET /livez HTTP/1.1\r\nx: ").await;
    let from = Instant::now();
    while stream.write_all(b"a").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(from.elapsed() < PATIENCE, "it is still open");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_an_answer_is_closed() {
    let at = start().await;
    let mut stream = send(at, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(3 * REQUEST_TIMEOUT).await;
    assert!(rest(&mut stream).await.len() < LARGE);
}
