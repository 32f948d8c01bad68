//! Spans exported by OTLP over HTTP. Only here is OpenTelemetry known; without the cargo feature
//! `otlp`, [`absent`](super) stands in its place.
//!
//! The SDK's own settings are honoured (`OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS`). Spans wait in a bounded queue and are
//! dropped when it is full: tracing never holds up the work.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
pub use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::context::TraceContext;
use super::{AttributeValue, SpanAttribute, SpanKind};

/// Where a collector takes spans, under the endpoint's root.
const TRACES_PATH: &str = "/v1/traces";

/// Names this program where the environment does not.
const SERVICE_NAME: &str = "rename-worker";
const SERVICE_NAME_VARIABLE: &str = "OTEL_SERVICE_NAME";

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces to otlp.endpoint; is one of the variables OTEL_* set wrong?")]
pub struct BadExporter(#[from] opentelemetry_otlp::ExporterBuildError);

/// Records spans and sends them.
#[derive(Clone)]
pub struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A span that is being recorded; it ends when told to, or when dropped.
#[derive(Clone)]
pub struct Span(Context);

impl Exporter {
    pub fn new(
        endpoint: &str,
        version: &'static str,
        client: impl HttpClient + 'static,
    ) -> Result<Self, BadExporter> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(traces_url(endpoint))
            .build()?;
        let mut resource = Resource::builder().with_attributes([
            KeyValue::new("service.version", version),
            KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
        ]);
        if std::env::var_os(SERVICE_NAME_VARIABLE).is_none() {
            resource = resource.with_service_name(SERVICE_NAME);
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        let scope = InstrumentationScope::builder(SERVICE_NAME).with_version(version);
        let tracer = provider.tracer_with_scope(scope.build());
        Ok(Self { provider, tracer })
    }

    /// Starts a span under one that another process began, or a trace of its own.
    pub fn root(
        &self,
        parent: Option<TraceContext>,
        kind: SpanKind,
        name: Cow<'static, str>,
        attributes: Vec<SpanAttribute>,
    ) -> Span {
        let parent = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(remote(parent))
        });
        self.start(&parent, kind, name, attributes)
    }

    /// Starts a span under one of ours.
    pub fn child(
        &self,
        parent: &Span,
        kind: SpanKind,
        name: Cow<'static, str>,
        attributes: Vec<SpanAttribute>,
    ) -> Span {
        self.start(&parent.0, kind, name, attributes)
    }

    fn start(
        &self,
        parent: &Context,
        kind: SpanKind,
        name: Cow<'static, str>,
        attributes: Vec<SpanAttribute>,
    ) -> Span {
        let kind = match kind {
            SpanKind::Consumer => opentelemetry::trace::SpanKind::Consumer,
            SpanKind::Producer => opentelemetry::trace::SpanKind::Producer,
            SpanKind::Client => opentelemetry::trace::SpanKind::Client,
        };
        let builder = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_attributes(attributes.into_iter().map(key_value));
        let span = self.tracer.build_with_context(builder, parent);
        Span(parent.with_span(span))
    }

    /// Sends what is left, for at most this long. Blocks.
    pub fn shutdown(&self, within: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(within) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

impl Span {
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        let span = self.0.span();
        let context = span.span_context();
        TraceContext::new(
            u128::from_be_bytes(context.trace_id().to_bytes()),
            u64::from_be_bytes(context.span_id().to_bytes()),
            context.is_sampled(),
        )
    }

    pub fn set(&self, attribute: SpanAttribute) {
        self.0.span().set_attribute(key_value(attribute));
    }

    /// What it was for did not come about.
    pub fn fail(&self, why: Cow<'static, str>) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("error.type", why.clone()));
        span.set_status(Status::error(why));
    }

    pub fn end(&self) {
        self.0.span().end();
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.context()).finish()
    }
}

/// A collector's root gets the usual path; a path that is given is taken as it is.
fn traces_url(endpoint: &str) -> String {
    match url::Url::parse(endpoint) {
        Ok(url) if url.path() == "/" => format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/')),
        _ => endpoint.to_owned(),
    }
}

fn remote(context: TraceContext) -> SpanContext {
    let flags = if context.sampled() {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NOT_SAMPLED
    };
    SpanContext::new(
        TraceId::from_bytes(context.trace_id().to_be_bytes()),
        SpanId::from_bytes(context.span_id().to_be_bytes()),
        flags,
        true,
        TraceState::NONE,
    )
}

fn key_value((key, value): SpanAttribute) -> KeyValue {
    match value {
        AttributeValue::Word(word) => KeyValue::new(key, word),
        AttributeValue::Text(text) => KeyValue::new(key, text),
        AttributeValue::Int(number) => KeyValue::new(key, number),
        AttributeValue::Bool(truth) => KeyValue::new(key, truth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collectors_root_gets_the_usual_path() {
        for (endpoint, url) in [
            ("http://otel:4318", "http://otel:4318/v1/traces"),
            ("http://otel:4318/", "http://otel:4318/v1/traces"),
            ("https://otel/custom/path", "https://otel/custom/path"),
        ] {
            assert_eq!(traces_url(endpoint), url);
        }
    }
}
