//! A server by hand: it speaks just enough HTTP/1.1 to answer as told, and can break off anywhere.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What a client sent.
#[derive(Debug, Clone)]
pub struct ReceivedCall {
    /// The request line and the headers.
    pub head: String,
    pub body: String,
}

impl ReceivedCall {
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn is_get_token(&self) -> bool {
        self.path().ends_with("/auth/token")
    }
}

/// How a request is answered.
pub enum ServerReaction {
    /// These bytes, and the connection stays.
    Send(String),
    /// The same, of bytes that are no text.
    SendBytes(Vec<u8>),
    /// These bytes, and the connection is closed.
    SendAndClose(String),
    /// These bytes, and silence.
    SendAndHang(String),
    /// The connection is torn down.
    Reset,
}

pub struct FakeServer {
    pub base_url: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<ReceivedCall>>>,
}

type ServerScript = Arc<dyn Fn(ReceivedCall) -> BoxFuture<'static, ServerReaction> + Send + Sync>;

/// Serves until the runtime ends.
pub async fn serve<F>(script: impl Fn(ReceivedCall) -> F + Send + Sync + 'static) -> FakeServer
where
    F: Future<Output = ServerReaction> + Send + 'static,
{
    let script: ServerScript = Arc::new(move |request| Box::pin(script(request)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = FakeServer {
        base_url: format!("http://{}/v1", listener.local_addr().unwrap()),
        connections: Arc::default(),
        requests: Arc::default(),
    };
    let (connections, requests) = (server.connections.clone(), server.requests.clone());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.fetch_add(1, Ordering::Relaxed);
            let (script, requests) = (script.clone(), requests.clone());
            tokio::spawn(async move { connection(stream, &script, &requests).await });
        }
    });
    server
}

async fn connection(
    mut stream: TcpStream,
    script: &ServerScript,
    requests: &Mutex<Vec<ReceivedCall>>,
) {
    while let Some(request) = read_request(&mut stream).await {
        requests.lock().unwrap().push(request.clone());
        match script(request).await {
            ServerReaction::Send(bytes) => stream.write_all(bytes.as_bytes()).await.unwrap(),
            ServerReaction::SendBytes(bytes) => stream.write_all(&bytes).await.unwrap(),
            ServerReaction::SendAndClose(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                return;
            }
            ServerReaction::SendAndHang(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                std::future::pending::<()>().await;
            }
            ServerReaction::Reset => {
                // Closed with a wish to linger for no time, a connection is reset.
                stream.set_zero_linger().unwrap();
                return;
            }
        }
    }
}

/// The next request, or none when the client has left.
pub async fn read_request(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Option<ReceivedCall> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let request = ReceivedCall {
                head: head.into(),
                body: body.into(),
            };
            let length = request.header("content-length").unwrap_or("0");
            if request.body.len() == length.parse::<usize>().unwrap() {
                return Some(request);
            }
        }
    }
}

impl FakeServer {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> Vec<ReceivedCall> {
        self.requests.lock().unwrap().clone()
    }

    pub fn get_tokens(&self) -> usize {
        let requests = self.requests();
        requests.iter().filter(|r| r.is_get_token()).count()
    }
}

/// A whole response.
pub fn response(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {length}\r\n\r\n{body}")
}

pub fn ok(username: &str) -> String {
    response(200, &format!(r#"{{"username":"{username}"}}"#))
}
