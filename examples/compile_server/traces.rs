//! Traces for an OpenTelemetry collector: a span for each request, around those of its parse, lookup,
//! queue and compile, as a part of the trace that the client names.

use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

const SERVICE: &str = "compile_server";

/// How long the collector may take to accept spans, each time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What sends spans, in the background and from a bounded queue: no request waits for it.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// To the collector at this URL, by OTLP over HTTP.
    pub(crate) fn to(url: &str) -> Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", url.trim_end_matches('/')))
            .with_timeout(TIMEOUT)
            .build()
            .context("cannot send traces")?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name(SERVICE).build());
        Ok(Self(provider.build()))
    }

    /// What hands on the spans of this program and of the library, whatever is logged.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let spans = Targets::new()
            .with_target("compile_server", Level::INFO)
            .with_target("pipeline_cache", Level::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_filter(spans)
    }

    /// Sends what is left, on a thread that may wait.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(TIMEOUT) {
            crate::http_server::console::say(format_args!("some traces were not sent: {error}"));
        }
    }
}

/// Makes the span a part of the trace that a request names, if it names one.
pub(crate) fn join(span: &Span, headers: &HeaderMap) {
    let named = TraceContextPropagator::new().extract(&Headers(headers));
    // It fails where nobody wants traces.
    let _ = span.set_parent(named);
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
