//! Traces: a trace context that comes with a request goes on to the API and to the event, recorded
//! in between where there is a collector, and nobody's name is in it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rename_worker::config::Settings;
use rename_worker::sandbox::{ApiFault, Sandbox};
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::support::amqp::Message;
use crate::support::collector::{Collector, Seen};
use crate::support::stage::{ACCOUNT, PATIENCE, Stage};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PUBLISHER: &str = "00f067aa0ba902b7";

fn came_with() -> String {
    format!("00-{TRACE}-{PUBLISHER}-01")
}

/// Stands before the sandbox and notes each call's `traceparent`.
#[derive(Debug, Clone)]
struct Listener {
    sandbox: String,
    client: reqwest::Client,
    heard: Arc<Mutex<Vec<Option<String>>>>,
}

impl Listener {
    /// Before this sandbox; the worker is to call `http://<the address>/v1`.
    async fn before(sandbox: &Sandbox) -> (Self, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let this = Self {
            sandbox: sandbox.base_url().trim_end_matches("/v1").to_owned(),
            client: reqwest::Client::new(),
            heard: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let routes = Router::new().fallback(pass_on).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (this, url)
    }

    /// The traceparents of the calls, without those to Get Token.
    fn heard(&self) -> Vec<Option<String>> {
        self.heard.lock().unwrap().clone()
    }
}

async fn pass_on(
    State(this): State<Listener>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    if uri.path().ends_with("/change_username") {
        let traceparent = headers
            .get("traceparent")
            .map(|value| value.to_str().unwrap().to_owned());
        this.heard.lock().unwrap().push(traceparent);
    }
    headers.remove("host");
    let url = format!("{}{uri}", this.sandbox);
    let call = this.client.request(method, url).headers(headers).body(body);
    let Ok(answer) = call.send().await else {
        return (StatusCode::BAD_GATEWAY, Bytes::new());
    };
    let status = answer.status();
    (status, answer.bytes().await.unwrap_or_default())
}

/// A stage whose worker calls through a listener, and perhaps exports.
async fn stage(collector: Option<&Collector>) -> (Stage, Listener) {
    let mut stage = Stage::set(|_| {}).await;
    let (listener, url) = Listener::before(&stage.sandbox).await;
    stage.settings.api.base_url = url;
    export_to(&mut stage.settings, collector);
    (stage, listener)
}

fn export_to(settings: &mut Settings, collector: Option<&Collector>) {
    settings.otlp.endpoint = collector.map(|collector| format!("http://{}", collector.address));
}

async fn ask(stage: &Stage, traceparent: &str, from: &str, to: &str) -> Uuid {
    let id = Uuid::new_v4();
    let body =
        json!({"request_id": id, "account_id": ACCOUNT, "username": from, "new_username": to});
    let mut headers = FieldTable::default();
    headers.insert(
        "traceparent".into(),
        AMQPValue::LongString(traceparent.into()),
    );
    let properties = BasicProperties::default().with_headers(headers);
    stage.publish(body.to_string().as_bytes(), properties).await;
    id
}

async fn event(stage: &Stage) -> Message {
    stage.raw.drain(&stage.events, 1, PATIENCE).await.remove(0)
}

fn one<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

#[tokio::test]
async fn a_trace_goes_from_the_request_through_the_call_to_the_event() {
    let collector = Collector::start().await;
    let (stage, listener) = stage(Some(&collector)).await;
    stage.user("ola@example.com");
    let worker = stage.worker().await;
    let request = ask(&stage, &came_with(), "ola@example.com", "kari@example.com").await;
    let event = event(&stage).await;
    let prefix = stage.settings.amqp.prefix.clone();
    stage.strike(worker).await;

    let spans = collector.spans(3, PATIENCE).await;
    let process = one(&spans, &format!("process {prefix}.requests"));
    let call = one(
        &spans,
        "POST /accounts/{aid}/auth/users/{username}/change_username",
    );
    let publish = one(&spans, &format!("publish {prefix}.events"));
    assert!(
        spans
            .iter()
            .all(|span| span.trace_id == TRACE && !span.failed),
        "{spans:#?}"
    );
    assert_eq!(
        (process.kind, &*process.parent),
        (SpanKind::Consumer, PUBLISHER)
    );
    assert_eq!(
        (call.kind, &call.parent),
        (SpanKind::Client, &process.span_id)
    );
    assert_eq!(
        (publish.kind, &publish.parent),
        (SpanKind::Producer, &process.span_id)
    );

    assert_eq!(process.text("messaging.system"), "rabbitmq");
    assert_eq!(process.text("messaging.operation.type"), "process");
    assert_eq!(
        process.text("messaging.destination.name"),
        format!("{prefix}.requests")
    );
    assert_eq!(process.text("rename.request_id"), request.to_string());
    assert_eq!(process.text("rename.outcome"), "applied");
    assert_eq!(call.text("http.request.method"), "POST");
    assert_eq!(call.text("http.response.status_code"), "200");
    assert_eq!(call.text("server.address"), "127.0.0.1");
    assert!(
        call.text("url.full")
            .ends_with("/T12345678/auth/users/REDACTED/change_username")
    );
    assert_eq!(publish.text("messaging.operation.type"), "send");
    assert_eq!(
        publish.text("messaging.destination.name"),
        format!("{prefix}.events:user.renamed")
    );
    assert_eq!(publish.text("messaging.message.id"), event.json()["id"]);

    let of = |span: &Seen| format!("00-{TRACE}-{}-01", span.span_id);
    assert_eq!(listener.heard(), [Some(of(call))]);
    assert_eq!(event.text_header("traceparent"), Some(of(publish)));
    assert_eq!(event.json()["traceparent"], of(publish));
}

#[tokio::test]
async fn a_trace_tells_failures_and_retries_and_nobodys_name() {
    let collector = Collector::start().await;
    let (stage, _) = stage(Some(&collector)).await;
    stage.user("ola@example.com");
    stage.user("taken@example.com");
    let worker = stage.worker().await;
    stage
        .sandbox
        .set_faults(["503=x1".parse::<ApiFault>().unwrap()])
        .await;
    ask(&stage, &came_with(), "ola@example.com", "taken@example.com").await;
    assert_eq!(
        event(&stage).await.json()["data"]["reason"],
        "username_taken"
    );
    stage.letters(1).await;
    let prefix = stage.settings.amqp.prefix.clone();
    stage.strike(worker).await;

    let spans = collector.spans(5, PATIENCE).await;
    let process = one(&spans, &format!("process {prefix}.requests"));
    assert!(process.failed);
    assert_eq!(process.text("rename.reason"), "username_taken");
    assert!(!one(&spans, &format!("publish {prefix}.dead-letters")).failed);
    let mut calls: Vec<_> = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Client)
        .map(|call| {
            let word = |key| call.text(key);
            (
                word("http.request.resend_count"),
                word("rename.call"),
                word("error.type"),
            )
        })
        .collect();
    calls.sort();
    let call = |resend: &str, kind: &str, error: &str| {
        (resend.to_owned(), kind.to_owned(), error.to_owned())
    };
    assert_eq!(
        calls[0],
        call("", "confirm", ""),
        "an earlier try may have been applied"
    );
    assert!(calls.contains(&call("", "rename", "503")), "{calls:?}");
    assert!(calls.contains(&call("1", "rename", "409")), "{calls:?}");

    let told = String::from_utf8_lossy(&collector.bytes()).into_owned();
    for name in ["ola", "taken@", "example.com"] {
        assert!(!told.contains(name), "{name} is in a trace");
    }
}

#[tokio::test]
async fn without_a_collector_the_context_is_passed_on_as_it_came() {
    let (stage, listener) = stage(None).await;
    stage.user("old");
    let worker = stage.worker().await;
    ask(&stage, &came_with(), "old", "new").await;
    let event = event(&stage).await;
    assert_eq!(event.text_header("traceparent"), Some(came_with()));
    assert_eq!(listener.heard(), [Some(came_with())]);
    stage.strike(worker).await;
}

#[tokio::test]
async fn what_is_no_trace_context_goes_nowhere() {
    let (stage, listener) = stage(None).await;
    stage.user("old");
    let worker = stage.worker().await;
    ask(
        &stage,
        "00-ola@example.com-00f067aa0ba902b7-01",
        "old",
        "new",
    )
    .await;
    let event = event(&stage).await;
    assert_eq!(event.text_header("traceparent"), None);
    assert_eq!(event.json().get("traceparent"), None);
    assert_eq!(listener.heard(), [None]);
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let (mut stage, _) = stage(None).await;
    stage.settings.otlp.endpoint = Some("http://127.0.0.1:9".to_owned());
    stage.user("old");
    let worker = stage.worker().await;
    ask(&stage, &came_with(), "old", "new").await;
    assert_eq!(event(&stage).await.json()["type"], "user.renamed");
    stage.strike(worker).await;
}
