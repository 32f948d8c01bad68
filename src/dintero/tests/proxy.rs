//! A proxy on the way: by CONNECT to https, by whole URLs to plain http, and never to this machine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::server::{ServerReaction, ok, serve};
use super::tls::{TestAuthority, ca_file};
use super::*;
use crate::config::ProxyUrl;
use crate::core::model::api_response::TransportError;

/// A name that leads nowhere by itself.
const ELSEWHERE: &str = "api.example.test";

/// Passes on to one address whatever it is asked for, by whoever has the password.
struct TestProxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

/// `user:pa/ss`, as HTTP Basic sends it.
const AUTHORIZATION: &str = "proxy-authorization: basic dxnlcjpwys9zcw==";

impl TestProxy {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            heads: Arc::default(),
        };
        let heads = proxy.heads.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let heads = heads.clone();
                tokio::spawn(async move { pass_on(client, target, &heads).await });
            }
        });
        proxy
    }

    fn url(&self, user_info: &str) -> ProxyUrl {
        let url = format!("http://{user_info}@{}", self.address);
        ProxyUrl::parse(&url).unwrap()
    }

    /// The first lines of what was asked for.
    fn asked(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        let first = |head: &String| head.lines().next().unwrap().to_owned();
        heads.iter().map(first).collect()
    }
}

async fn pass_on(mut client: TcpStream, target: SocketAddr, heads: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        if client.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let may = head.to_ascii_lowercase().contains(AUTHORIZATION);
    let connects = head.starts_with("CONNECT ");
    heads.lock().unwrap().push(head);
    if !may {
        let no = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        client.write_all(no.as_bytes()).await.ok();
        return;
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    if connects {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    } else {
        server.write_all(&bytes).await.unwrap();
    }
    tokio::io::copy_bidirectional(&mut client, &mut server)
        .await
        .ok();
}

#[tokio::test]
async fn https_goes_through_the_proxy_s_tunnel() {
    let authority = TestAuthority::new();
    let address = authority.serve_as(ELSEWHERE).await;
    let proxy = TestProxy::to(address).await;
    let mut api = api(&format!("https://{ELSEWHERE}/v1"));
    let (_dir, path) = ca_file(&authority.pem());
    api.ca_file = Some(path);
    api.proxy = Some(proxy.url("user:pa%2fss"));
    let (client, _) = client_of(&api);
    assert_eq!(
        client.change_username(&rename("old", "new")).await,
        user("new")
    );
    assert_eq!(proxy.asked(), [format!("CONNECT {ELSEWHERE}:443 HTTP/1.1")]);

    // Without the tunnel the API was not reached, so nothing can have been applied.
    api.proxy = Some(proxy.url("user:wrong"));
    let (client, _) = client_of(&api);
    let not_sent = ApiResponse::Silence(TransportError::Connect);
    assert_eq!(
        client.change_username(&rename("old", "new")).await,
        not_sent
    );
}

#[tokio::test]
async fn plain_http_is_asked_of_the_proxy_by_its_whole_url() {
    let server = serve(|_| async { ServerReaction::Send(ok("new")) }).await;
    let address = server.base_url["http://".len()..].trim_end_matches("/v1");
    let proxy = TestProxy::to(address.parse().unwrap()).await;
    let mut api = api(&format!("http://{ELSEWHERE}/v1"));
    api.proxy = Some(proxy.url("user:pa%2fss"));
    let (client, _) = client_of(&api);
    assert_eq!(
        client.change_username(&rename("old", "new")).await,
        user("new")
    );
    let asked = proxy.asked();
    assert!(
        asked[0].starts_with(&format!("POST http://{ELSEWHERE}/v1/accounts/")),
        "{asked:?}"
    );

    // Refused by the proxy, not by the API.
    api.proxy = Some(proxy.url("user:wrong"));
    let (client, _) = client_of(&api);
    let not_sent = ApiResponse::Silence(TransportError::Connect);
    assert_eq!(
        client.change_username(&rename("old", "new")).await,
        not_sent
    );
}

#[tokio::test]
async fn what_is_on_this_machine_is_called_without_the_proxy() {
    let server = serve(|_| async { ServerReaction::Send(ok("new")) }).await;
    let proxy = TestProxy::to(([127, 0, 0, 1], 9).into()).await;
    let mut api = api(&server.base_url);
    api.proxy = Some(proxy.url("user:pa%2fss"));
    let (client, _) = client_of(&api);
    assert_eq!(
        client.change_username(&rename("old", "new")).await,
        user("new")
    );
    assert_eq!(proxy.asked(), [""; 0]);
}
