//! Traces: a request's W3C trace context is taken up, carried on to the API and the events, and,
//! where `otlp.endpoint` is set, the worker's own part is recorded and exported.
//!
//! Spans follow OpenTelemetry's conventions for messaging and HTTP, but where they would carry a
//! username: the path is told as a template, the routing key and the message's ids, which upstream
//! chooses freely, are left out. Without an exporter nothing is recorded and the context is passed
//! on as it came.

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "trace/noop.rs"]
mod otlp;

pub mod context;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use url::Url;
use uuid::Uuid;

use self::context::TraceContext;
pub use self::otlp::{BadExporter, HttpClient};
use self::otlp::{Exporter, Span};
use crate::config::{AmqpUrl, RetryDelays, Settings};
use crate::core::model::api_response::{ApiResponse, CallKind, TokenError, TransportError};
use crate::core::model::outcome::Outcome;
use crate::core::model::request::{AccountId, RenameRequest};

/// The call's path with nobody's name in it, and the span's name made of it.
const TEMPLATE: &str = "/accounts/{aid}/auth/users/{username}/change_username";
const CALL: &str = "POST /accounts/{aid}/auth/users/{username}/change_username";

/// How long the last spans may take to be sent at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// What a span is to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SpanKind {
    Consumer,
    Producer,
    Client,
}

type SpanAttribute = (&'static str, AttributeValue);

#[derive(Debug, Clone, PartialEq, Eq)]
enum AttributeValue {
    Word(&'static str),
    Text(String),
    Int(i64),
    Bool(bool),
}

/// Begins the traces of requests; clones share the exporter.
#[derive(Debug, Clone)]
pub struct RequestTracer(Option<Arc<TracerInner>>);

#[derive(Debug)]
struct TracerInner {
    exporter: Exporter,
    broker: ServerAddress,
    api: ServerAddress,
    /// `api.base_url`, for the redacted URL.
    base_url: String,
    requests: String,
    /// What the consumer's span is called.
    process: String,
    retries: Vec<String>,
    events: String,
    dead_letters: String,
}

#[derive(Debug, Default)]
struct ServerAddress {
    address: Option<String>,
    port: Option<i64>,
}

/// A delivered message, as far as its trace wants to know.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryAttributes<'a> {
    pub traceparent: Option<&'a str>,
    pub redelivered: bool,
    pub body_size: usize,
}

/// One request's part of its trace, from delivery to ack.
#[derive(Debug)]
pub struct RequestTrace {
    came_with: Option<TraceContext>,
    recorded: Option<RecordedSpan>,
}

#[derive(Debug)]
struct RecordedSpan {
    shared: Arc<TracerInner>,
    span: Span,
    account: Option<AccountId>,
    /// Renames asked for so far, under this delivery.
    renames: i64,
}

/// Something done for a request: a call, a publish.
#[derive(Debug)]
pub struct StepTrace {
    came_with: Option<TraceContext>,
    span: Option<Span>,
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishAttributes {
    Event {
        event_type: &'static str,
    },
    DeadLetter,
    /// Into a wait queue, by its place in the ladder, or to the tail of the due queue.
    Copy {
        step: Option<usize>,
    },
}

impl RequestTracer {
    /// Records nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Exports to `otlp.endpoint`; records nothing where that is not set.
    /// It sends with what `client` makes.
    pub fn new<C: HttpClient + 'static>(
        settings: &Settings,
        version: &'static str,
        client: Option<C>,
    ) -> Result<Self, BadExporter> {
        let (Some(endpoint), Some(client)) = (&settings.otlp.endpoint, client) else {
            return Ok(Self::off());
        };
        let broker = settings.amqp.url.read().ok();
        let broker = broker.and_then(|url| ServerAddress::of_broker(url.expose_secret()));
        let prefix = &settings.amqp.prefix;
        let steps = settings.retry.ladder.steps().iter();
        let wait = |&step| format!("{prefix}.wait.{}", RetryDelays::label(step));
        Ok(Self(Some(Arc::new(TracerInner {
            exporter: Exporter::new(endpoint, version, client)?,
            broker: broker.unwrap_or_default(),
            api: ServerAddress::of(&settings.api.base_url, 443),
            base_url: settings.api.base_url.clone(),
            requests: format!("{prefix}.requests"),
            process: format!("process {prefix}.requests"),
            retries: steps.map(wait).collect(),
            events: format!("{prefix}.events"),
            dead_letters: format!("{prefix}.dead-letters"),
        }))))
    }

    #[must_use]
    pub fn request(&self, delivered: DeliveryAttributes<'_>) -> RequestTrace {
        let came_with = delivered.traceparent.and_then(TraceContext::parse);
        let recorded = self.0.as_ref().map(|shared| {
            let mut attributes = shared.messaging("process", "process", shared.requests.clone());
            attributes.push(("messaging.message.body.size", int(delivered.body_size)));
            attributes.push((
                "rename.redelivered",
                AttributeValue::Bool(delivered.redelivered),
            ));
            let name = shared.process.clone().into();
            RecordedSpan {
                span: shared
                    .exporter
                    .root(came_with, SpanKind::Consumer, name, attributes),
                shared: Arc::clone(shared),
                account: None,
                renames: 0,
            }
        });
        RequestTrace {
            came_with,
            recorded,
        }
    }

    /// Sends what is left. Blocks for a few seconds at most.
    pub fn shutdown(&self) {
        if let Some(shared) = &self.0 {
            shared.exporter.shutdown(FLUSH_TIMEOUT);
        }
    }
}

impl RequestTrace {
    /// It turned out to be a valid request.
    pub fn read(&mut self, request: &RenameRequest) {
        if let Some(recorded) = &mut self.recorded {
            let (id, account) = (request.request_id.to_string(), &request.account_id);
            recorded
                .span
                .set(("rename.request_id", AttributeValue::Text(id)));
            recorded.span.set((
                "rename.account_id",
                AttributeValue::Text(account.to_string()),
            ));
            recorded.account = Some(account.clone());
        }
    }

    /// The trace's id, for the log.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        let recorded = self
            .recorded
            .as_ref()
            .and_then(|recorded| recorded.span.context());
        Some(recorded.or(self.came_with)?.trace_id_text())
    }

    /// A call to the API begins.
    pub fn call(&mut self, kind: CallKind) -> StepTrace {
        self.step(|recorded| {
            let attributes = recorded.call(kind);
            if kind == CallKind::Rename {
                recorded.renames += 1;
            }
            recorded.shared.exporter.child(
                &recorded.span,
                SpanKind::Client,
                CALL.into(),
                attributes,
            )
        })
    }

    /// Something is published for it.
    pub fn publish(&mut self, what: PublishAttributes) -> StepTrace {
        self.step(|recorded| {
            let shared = &recorded.shared;
            // By the conventions, exchange and routing key where there is an exchange.
            let (to, destination) = match what {
                PublishAttributes::Event { event_type } => {
                    (&shared.events, format!("{}:{event_type}", shared.events))
                }
                PublishAttributes::DeadLetter => {
                    (&shared.dead_letters, shared.dead_letters.clone())
                }
                PublishAttributes::Copy { step } => {
                    let retry = step.and_then(|step| shared.retries.get(step));
                    let queue = retry.unwrap_or(&shared.requests);
                    (queue, queue.clone())
                }
            };
            let attributes = shared.messaging("publish", "send", destination);
            let name = format!("publish {to}").into();
            shared
                .exporter
                .child(&recorded.span, SpanKind::Producer, name, attributes)
        })
    }

    /// It has ended and is acknowledged.
    pub fn ended(&self, outcome: &Outcome) {
        let Some(RecordedSpan { span, .. }) = &self.recorded else {
            return;
        };
        let attempts = match outcome {
            Outcome::Renamed(renamed) => {
                span.set(("rename.outcome", AttributeValue::Word(renamed.how.as_str())));
                span.set((
                    "rename.confirmed_by",
                    AttributeValue::Word(renamed.confirmed_by.as_str()),
                ));
                renamed.attempts
            }
            Outcome::Failed(failed) => {
                span.set(("rename.outcome", AttributeValue::Word("failed")));
                span.set((
                    "rename.reason",
                    AttributeValue::Word(failed.reason.as_str()),
                ));
                span.fail(failed.reason.as_str().into());
                failed.attempts
            }
        };
        span.set(("rename.attempts", AttributeValue::Int(attempts.into())));
        span.end();
    }

    /// It leaves the worker without an end: it waits elsewhere, or comes again.
    pub fn left(&self, how: &'static str) {
        if let Some(RecordedSpan { span, .. }) = &self.recorded {
            span.set(("rename.outcome", AttributeValue::Word(how)));
            span.end();
        }
    }

    fn step(&mut self, start: impl FnOnce(&mut RecordedSpan) -> Span) -> StepTrace {
        StepTrace {
            came_with: self.came_with,
            span: self.recorded.as_mut().map(start),
        }
    }
}

impl StepTrace {
    /// What the peer is told.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let recorded = self.span.as_ref().and_then(Span::context);
        Some(recorded.or(self.came_with)?.to_string())
    }

    /// The published message's id, ours.
    pub fn message_id(&self, id: Uuid) {
        if let Some(span) = &self.span {
            span.set(("messaging.message.id", AttributeValue::Text(id.to_string())));
        }
    }

    /// The call was answered, or not.
    pub fn answered(self, answer: &ApiResponse) {
        let Some(span) = self.span else { return };
        let (status, error) = match answer {
            ApiResponse::User(_) => (Some(200), None),
            ApiResponse::Malformed { status } => (Some(*status), Some("garbled".into())),
            ApiResponse::Refused(refusal) => (
                Some(refusal.status),
                Some(refusal.status.to_string().into()),
            ),
            ApiResponse::Silence(silence) => (None, Some(error_type_of(*silence).into())),
            ApiResponse::NoToken(none) => (None, Some(no_token_word(none).into())),
        };
        if let Some(status) = status {
            span.set((
                "http.response.status_code",
                AttributeValue::Int(status.into()),
            ));
        }
        span_over(&span, error);
    }

    /// The broker has it, or not.
    pub fn published(self, confirmed: bool) {
        if let Some(span) = self.span {
            span_over(&span, (!confirmed).then_some("not_confirmed".into()));
        }
    }
}

impl RecordedSpan {
    fn call(&self, kind: CallKind) -> Vec<SpanAttribute> {
        let TracerInner { api, base_url, .. } = &*self.shared;
        let account = self.account.as_ref().map_or("", AccountId::as_str);
        let url = format!("{base_url}/accounts/{account}/auth/users/REDACTED/change_username");
        let word = match kind {
            CallKind::Rename => "rename",
            CallKind::Confirm => "confirm",
        };
        let mut attributes = vec![
            ("http.request.method", AttributeValue::Word("POST")),
            ("url.template", AttributeValue::Word(TEMPLATE)),
            ("url.full", AttributeValue::Text(url)),
            ("rename.call", AttributeValue::Word(word)),
        ];
        if kind == CallKind::Rename && self.renames > 0 {
            attributes.push((
                "http.request.resend_count",
                AttributeValue::Int(self.renames),
            ));
        }
        attributes.extend(api.attributes());
        attributes
    }
}

impl TracerInner {
    fn messaging(
        &self,
        name: &'static str,
        kind: &'static str,
        destination: String,
    ) -> Vec<SpanAttribute> {
        let mut attributes = vec![
            ("messaging.system", AttributeValue::Word("rabbitmq")),
            ("messaging.operation.name", AttributeValue::Word(name)),
            ("messaging.operation.type", AttributeValue::Word(kind)),
            (
                "messaging.destination.name",
                AttributeValue::Text(destination),
            ),
        ];
        attributes.extend(self.broker.attributes());
        attributes
    }
}

impl ServerAddress {
    fn of(url: &str, usual_port: u16) -> Self {
        let Ok(url) = Url::parse(url) else {
            return Self::default();
        };
        Self {
            address: url.host_str().map(str::to_owned),
            port: Some(url.port_or_known_default().unwrap_or(usual_port).into()),
        }
    }

    fn of_broker(url: &str) -> Option<Self> {
        let url = AmqpUrl::parse(url).ok()?;
        Some(Self {
            address: Some(url.host),
            port: Some(url.port.into()),
        })
    }

    fn attributes(&self) -> impl Iterator<Item = SpanAttribute> {
        let address = self
            .address
            .clone()
            .map(|address| ("server.address", AttributeValue::Text(address)));
        let port = self
            .port
            .map(|port| ("server.port", AttributeValue::Int(port)));
        address.into_iter().chain(port)
    }
}

fn span_over(span: &Span, error: Option<Cow<'static, str>>) {
    if let Some(error) = error {
        span.fail(error);
    }
    span.end();
}

const fn error_type_of(silence: TransportError) -> &'static str {
    match silence {
        TransportError::Connect => "connect",
        TransportError::Timeout => "timeout",
        TransportError::Reset => "reset",
    }
}

const fn no_token_word(none: &TokenError) -> &'static str {
    match none {
        TokenError::Missing => "no_token",
        TokenError::Refused { .. } => "token_refused",
        TokenError::Unavailable => "token_unavailable",
    }
}

fn int(size: usize) -> AttributeValue {
    AttributeValue::Int(i64::try_from(size).unwrap_or(i64::MAX))
}
