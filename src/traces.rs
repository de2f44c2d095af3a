//! Spans of what is done for an execution, sent to a collector by OpenTelemetry's protocol (HTTP, protobuf).
//!
//! The promises kept here: without a collector a span costs the reading of one number; with one, spans wait in a bounded
//! queue and are dropped where it is full, so that a collector that is slow or away delays nothing; no span has arguments,
//! output or who asked in it. All spans have the target `writ_trace` and are no log lines.
//!
//! The trace of an execution has the execution's UID as its ID, without the dashes: who has the object finds the trace, and
//! what different processes did for it stands in one.

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

/// Spans that may wait: of some 300 executions, about 2 MiB.
const QUEUE: usize = 2048;
/// Spans in one request.
const BATCH: usize = 256;
/// How long they are gathered.
const GATHER: Duration = Duration::from_secs(2);
/// How long the collector may take for one request.
const DEADLINE: Duration = Duration::from_secs(5);
/// Where a collector takes spans, by the protocol.
const PATH: &str = "/v1/traces";

/// Sends spans while it is kept.
pub struct Exporting {
    provider: SdkTracerProvider,
}

impl Exporting {
    /// Sends what is left, and waits so long for that.
    pub async fn end(self, deadline: Duration) {
        // It waits for a thread of its own, which needs this runtime.
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(deadline));
        let _ = tokio::time::timeout(deadline, ended).await;
    }
}

/// Sends spans to a collector: what takes them, and what keeps that up. Its headers may be said in
/// `OTEL_EXPORTER_OTLP_HEADERS`.
///
/// # Errors
/// The URL is none that can be used.
pub fn export(collector: &str) -> anyhow::Result<(impl Layer<Registry> + use<>, Exporting)> {
    let client = Client::new()?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        // Not what the environment says, which may be meant for others: there is no other one in this build.
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint(collector)?)
        .with_timeout(DEADLINE)
        .build()
        .context("spans cannot be sent (--otlp-endpoint)")?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(GATHER)
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_resource(Resource::builder().with_service_name("writ").build())
        .build();
    Ok((layer(&provider), Exporting { provider }))
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
    let url = url::Url::parse(collector).context("the collector's URL cannot be read (--otlp-endpoint)")?;
    anyhow::ensure!(
        matches!(url.scheme(), "http" | "https") && url.has_host(),
        "the collector's URL must be http://HOST:PORT or https://HOST:PORT (--otlp-endpoint)"
    );
    let base = collector.trim_end_matches('/');
    Ok(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") })
}

/// Puts a span into the trace of an execution.
pub fn of_execution(span: &tracing::Span, uid: &str) {
    if span.is_disabled() {
        return;
    }
    let Ok(uid) = uuid::Uuid::try_parse(uid) else { return };
    let (high, low) = uid.as_u64_pair();
    // There is no such span: all processes that do something for the execution stand beside each other below it.
    let parent = SpanId::from(if low == 0 { high } else { low });
    let execution =
        SpanContext::new(TraceId::from(uid.as_u128()), parent, TraceFlags::SAMPLED, true, TraceState::default());
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(execution));
}

/// Sends requests in this process's runtime: the thread that gathers spans is in none.
struct Client {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether the last request failed, so that it is told once.
    failing: AtomicBool,
}

impl Client {
    fn new() -> anyhow::Result<Self> {
        // It fails where one is installed: then that one is it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("a client for the collector cannot be made")?;
        Ok(Self { client, runtime: Handle::current(), failing: AtomicBool::new(false) })
    }

    fn tell(&self, problem: Option<&str>) {
        metrics().traces_exported(if problem.is_some() { "failed" } else { "sent" });
        let failed_before = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed_before => {
                tracing::warn!(
                    error = problem,
                    "spans could not be sent to the collector (--otlp-endpoint); they are dropped"
                );
            }
            None if failed_before => tracing::info!("spans are sent to the collector again"),
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
    // What it says besides is of no use, and may be without end.
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
                Ok(response) if response.status().is_success() => self.tell(None),
                Ok(response) => self.tell(Some(&format!("it answered {}", response.status()))),
                Err(problem) => self.tell(Some(problem)),
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
