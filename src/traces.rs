//! Sends spans about executions to a collector, by OpenTelemetry's protocol (HTTP, protobuf).
//!
//! # Guarantees
//! - Without a collector, each span takes only one atomic read.
//! - With a collector, spans wait in a bounded queue. If the queue is full, new spans are dropped. A slow or
//!   unreachable collector therefore delays nothing.
//! - No span contains arguments, output or the requester.
//!
//! All spans have the target `writ_trace` and are no log lines. The trace ID of an execution is its UID without the
//! dashes, in all `writ serve` processes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::telemetry::{SPANS, metrics};

/// Maximum number of spans in the queue. This is enough for about 300 executions, and takes about 2 MiB of memory.
const MAX_QUEUED_SPANS: usize = 2048;
/// Maximum number of spans in one request to the collector.
const MAX_BATCH_SPANS: usize = 256;
/// Time for which Writ gathers spans before it sends them in one request.
const BATCH_WINDOW: Duration = Duration::from_secs(2);
/// Deadline for one request to the collector.
const DEADLINE: Duration = Duration::from_secs(5);
/// Path of the collector's URL for spans, defined by the protocol.
const PATH: &str = "/v1/traces";

/// Exporter that sends spans until it is dropped.
pub struct TraceExporter {
    provider: SdkTracerProvider,
}

impl TraceExporter {
    /// Sends the remaining spans, for at most `deadline`.
    pub async fn shut_down(self, deadline: Duration) {
        // This call waits for a thread that needs the current runtime, so the call must not block the runtime.
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(deadline));
        let _ = tokio::time::timeout(deadline, ended).await;
    }
}

/// Starts sending spans to a collector. Returns the layer that gathers the spans, and the exporter. The environment
/// variable `OTEL_EXPORTER_OTLP_HEADERS` can set headers.
///
/// # Errors
/// The URL of the collector is not usable.
pub fn start(collector: &str) -> anyhow::Result<(impl Layer<Registry> + use<>, TraceExporter)> {
    let client = Client::new()?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        // This build supports only HTTP with protobuf. OpenTelemetry's environment variables perhaps belong to another
        // program, so these calls override the variables.
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint(collector)?)
        .with_timeout(DEADLINE)
        .build()
        .context("setup of the exporter failed (--otlp-endpoint)")?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUED_SPANS)
        .with_max_export_batch_size(MAX_BATCH_SPANS)
        .with_scheduled_delay(BATCH_WINDOW)
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_resource(Resource::builder().with_service_name("writ").build())
        .build();
    Ok((layer(&provider), TraceExporter { provider }))
}

fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("writ"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(SPANS, tracing::Level::INFO))
}

fn endpoint(collector: &str) -> anyhow::Result<String> {
    let url = url::Url::parse(collector).context("the URL of the collector is not valid (--otlp-endpoint)")?;
    anyhow::ensure!(
        matches!(url.scheme(), "http" | "https") && url.has_host(),
        "the URL of the collector must be http://HOST:PORT or https://HOST:PORT (--otlp-endpoint)"
    );
    let base = collector.trim_end_matches('/');
    Ok(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") })
}

/// Puts a span into the trace of an execution.
pub fn set_execution_trace(span: &tracing::Span, uid: &str) {
    if span.is_disabled() {
        return;
    }
    let Ok(uid) = uuid::Uuid::try_parse(uid) else { return };
    let (high, low) = uid.as_u64_pair();
    // ID of a parent span that does not exist. All processes compute the same ID from the UID, so that their spans form
    // one trace.
    let parent = SpanId::from(if low == 0 { high } else { low });
    let execution =
        SpanContext::new(TraceId::from(uid.as_u128()), parent, TraceFlags::SAMPLED, true, TraceState::default());
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(execution));
}

/// HTTP client of the exporter. Requests run in the runtime of this process, because the thread that gathers spans has
/// no runtime.
struct Client {
    client: reqwest::Client,
    runtime: Handle,
    /// True if the last request failed, so that Writ logs consecutive failures only once.
    failing: AtomicBool,
}

impl Client {
    fn new() -> anyhow::Result<Self> {
        // The call fails if a crypto provider is already installed. The client then uses the installed provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("setup of the HTTP client for the collector failed")?;
        Ok(Self { client, runtime: Handle::current(), failing: AtomicBool::new(false) })
    }

    fn report(&self, problem: Option<&str>) {
        metrics().traces_exported(if problem.is_some() { "failed" } else { "sent" });
        let failed_before = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed_before => {
                tracing::warn!(error = problem, "spans dropped: the collector (--otlp-endpoint) did not accept them");
            }
            None if failed_before => tracing::info!("spans sent to the collector again"),
            _ => {}
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

async fn send(client: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
    let (parts, body) = request.into_parts();
    let sent = client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
    let answer = sent.send().await?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = answer.status();
    // Writ does not need the body, and does not read it, because the body can be endless.
    Ok(response)
}

impl HttpClient for Client {
    fn send_bytes<'client, 'future>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'client: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let answer = self.runtime.spawn(send(self.client.clone(), request)).await;
            let answer = match answer {
                Ok(answer) => answer.map_err(|error| error.without_url().to_string()),
                Err(error) => Err(error.to_string()),
            };
            match &answer {
                Ok(response) if response.status().is_success() => self.report(None),
                Ok(response) => self.report(Some(&format!("status {}", response.status()))),
                Err(problem) => self.report(Some(problem)),
            }
            Ok(answer?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_its_address_or_in_full() {
        for given in ["http://collector:4318", "http://collector:4318/", "http://collector:4318/v1/traces"] {
            assert_eq!(endpoint(given).unwrap(), "http://collector:4318/v1/traces");
        }
        for wrong in ["collector:4318", "grpc://collector", "", "http://"] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
