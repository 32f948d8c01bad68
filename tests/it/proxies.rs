//! The real program and the proxies it is given: by its settings, which it uses, and by the
//! environment's variables, which it does not, for the API and the collector alike.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::support::stage::{PATIENCE, Stage};

/// Names that lead nowhere by themselves.
const API: &str = "api.example.test";
#[cfg(feature = "otlp")]
const COLLECTOR: &str = "collector.example.test";

/// `user:pa/ss`, as HTTP Basic sends it.
const AUTHORIZATION: &str = "Basic dXNlcjpwYS9zcw==";

/// A proxy for plain http, which answers for the collector itself.
#[derive(Debug, Clone)]
struct Proxy {
    sandbox: String,
    client: reqwest::Client,
    /// The host of each URL that was asked for with the right password, or `nobody`.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn before(stage: &Stage) -> (Self, SocketAddr) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let this = Self {
            sandbox: stage.sandbox.base_url().trim_end_matches("/v1").to_owned(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            asked: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(pass_on).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (this, address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn pass_on(
    State(this): State<Proxy>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let given = headers.remove("proxy-authorization");
    let known = given.is_some_and(|given| given == AUTHORIZATION);
    let host = match uri.host() {
        Some(host) if known => host.to_owned(),
        _ => "nobody".to_owned(),
    };
    this.asked.lock().unwrap().push(host.clone());
    if host != API {
        return (StatusCode::OK, Bytes::new());
    }
    headers.remove("host");
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", this.sandbox);
    let call = this.client.request(method, url).headers(headers).body(body);
    let Ok(answer) = call.send().await else {
        return (StatusCode::BAD_GATEWAY, Bytes::new());
    };
    let status = answer.status();
    (status, answer.bytes().await.unwrap_or_default())
}

fn through(stage: &Stage, trap: SocketAddr) -> Command {
    let mut command = stage.process();
    command
        .env("RENAME_WORKER_API__BASE_URL", format!("http://{API}/v1"))
        .env("RENAME_WORKER_API__ALLOW_INSECURE", "true");
    #[cfg(feature = "otlp")]
    command
        .env(
            "RENAME_WORKER_OTLP__ENDPOINT",
            format!("http://{COLLECTOR}:4318"),
        )
        .env("OTEL_BSP_SCHEDULE_DELAY", "50");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        let url = format!("http://user:pa%2fss@{trap}");
        command.env(name, &url).env(name.to_ascii_lowercase(), &url);
    }
    command
}

async fn end(child: &mut Child) {
    let id = child.id().expect("it runs").to_string();
    let told = Command::new("kill")
        .args(["-s", "TERM", &id])
        .status()
        .await;
    assert!(told.is_ok_and(|status| status.success()), "no signal");
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert!(ended.expect("it ends").expect("it is our child").success());
}

#[tokio::test]
async fn api_and_collector_are_reached_by_the_settings_proxy_and_not_by_the_environment_s() {
    let stage = Stage::set(|_| {}).await;
    let (proxy, address) = Proxy::before(&stage).await;
    let (trap, trap_address) = Proxy::before(&stage).await;
    let url = format!("http://user:pa%2fss@{address}");
    let mut command = through(&stage, trap_address);
    command.env("RENAME_WORKER_API__PROXY", &url);
    #[cfg(feature = "otlp")]
    command.env("RENAME_WORKER_OTLP__PROXY", &url);
    let mut worker = command.spawn().expect("the worker starts");
    stage.user("old");
    stage.rename("old", "new", None).await;
    assert_eq!(stage.event().await["type"], "user.renamed");
    // The last spans are sent before it ends.
    end(&mut worker).await;
    let asked = proxy.asked();
    assert!(asked.iter().any(|host| host == API), "{asked:?}");
    #[cfg(feature = "otlp")]
    assert!(asked.iter().any(|host| host == COLLECTOR), "{asked:?}");
    assert!(!asked.iter().any(|host| host == "nobody"), "{asked:?}");
    assert_eq!(trap.asked(), [""; 0]);
}

#[tokio::test]
async fn the_environment_s_proxies_alone_lead_nowhere() {
    let stage = Stage::set(|_| {}).await;
    let (trap, address) = Proxy::before(&stage).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = through(&stage, address);
    command
        .env("RENAME_WORKER_HOLD__FAILURES", "1")
        .stderr(std::fs::File::create(&log).unwrap());
    let mut worker = command.spawn().expect("the worker starts");
    stage.user("old");
    stage.rename("old", "new", None).await;
    let said = || std::fs::read_to_string(&log).unwrap();
    let tried = async {
        // It holds once a call has failed to connect.
        while !said().contains("hold") {
            tokio::task::yield_now().await;
        }
    };
    let tried = tokio::time::timeout(PATIENCE, tried).await;
    assert!(tried.is_ok(), "{}", said());
    end(&mut worker).await;
    assert_eq!(trap.asked(), [""; 0]);
    assert!(said().contains("HTTPS_PROXY"), "{}", said());
    assert!(!said().contains("pa%2fss"), "{}", said());
}
