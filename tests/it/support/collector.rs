//! A collector of traces, as the worker sees one: it takes OTLP over HTTP in protobuf.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as AnyValue};
use opentelemetry_proto::tonic::trace::v1::{
    Span, span::SpanKind, status::StatusCode as SpanStatus,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Taken {
    bodies: Mutex<Vec<Bytes>>,
    came: Notify,
}

/// Runs until the test's runtime ends.
#[derive(Debug, Clone)]
pub struct Collector {
    pub address: SocketAddr,
    taken: Arc<Taken>,
}

/// A span, as a test wants to read it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub trace_id: String,
    pub span_id: String,
    pub parent: String,
    pub name: String,
    pub kind: SpanKind,
    pub failed: bool,
    attributes: Vec<KeyValue>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let taken = Arc::new(Taken::default());
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&taken));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, taken }
    }

    /// Everything taken so far, undecoded.
    pub fn bytes(&self) -> Vec<u8> {
        self.taken.bodies.lock().expect("no panic").concat()
    }

    /// The spans taken so far, once there are `count`.
    pub async fn spans(&self, count: usize, within: Duration) -> Vec<Seen> {
        let mut found = Vec::new();
        let enough = async {
            loop {
                let came = self.taken.came.notified();
                found = self.decoded();
                if found.len() >= count {
                    return;
                }
                came.await;
            }
        };
        let came = tokio::time::timeout(within, enough).await;
        assert!(
            came.is_ok(),
            "{} of {count} spans came: {found:#?}",
            found.len()
        );
        found
    }

    fn decoded(&self) -> Vec<Seen> {
        let bodies = self.taken.bodies.lock().expect("no panic");
        let requests = bodies
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.clone()).expect("OTLP in protobuf"));
        let resources = requests.flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes
            .flat_map(|scope| scope.spans)
            .map(Seen::from)
            .collect()
    }
}

impl Seen {
    /// An attribute as text; empty where it is not there.
    pub fn text(&self, key: &str) -> String {
        let found = self
            .attributes
            .iter()
            .find(|attribute| attribute.key == key);
        match found.and_then(|attribute| attribute.value.clone()?.value) {
            Some(AnyValue::StringValue(text)) => text,
            Some(AnyValue::IntValue(number)) => number.to_string(),
            Some(AnyValue::BoolValue(truth)) => truth.to_string(),
            _ => String::new(),
        }
    }
}

impl From<Span> for Seen {
    fn from(span: Span) -> Self {
        let failed = |code: i32| code == SpanStatus::Error as i32;
        Self {
            kind: span.kind(),
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            failed: span.status.is_some_and(|status| failed(status.code)),
            attributes: span.attributes,
        }
    }
}

async fn take(State(taken): State<Arc<Taken>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if headers
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind != "application/x-protobuf")
    {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    taken.bodies.lock().expect("no panic").push(body);
    taken.came.notify_waiters();
    StatusCode::OK
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
