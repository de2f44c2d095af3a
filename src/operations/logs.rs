//! Logs. Log lines identify objects by namespace, name and UID.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::traces::{self, TraceExporter};

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// Default filter, for all targets that `RUST_LOG` does not name. The reasons for the levels:
///
/// - If kube_client cannot decode an answer, it logs the whole body, which can contain output of a command.
/// - russh logs texts of the machine as warnings.
/// - Spans (`writ_trace`) are for traces only.
const DEFAULT_FILTER: &str = "warn,kube_client=error,russh=off,writ=info,writ_trace=off";

/// Starts logging to standard error. `RUST_LOG` (for example `writ=debug`) sets the levels. The default is `info` for
/// Writ and `warn` for most libraries.
///
/// If the URL `collector` is set, Writ also sends spans to the collector until the returned exporter is dropped.
///
/// # Caveats
/// With more detailed levels, `kube_client` can log objects, and `russh` can log texts that machines sent.
///
/// # Errors
/// The URL of the collector is not usable.
pub fn start_logs(format: LogFormat, collector: Option<&str>) -> anyhow::Result<Option<TraceExporter>> {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    // The last directive for a target has priority, so `RUST_LOG` comes last.
    let filter =
        EnvFilter::try_new(format!("{DEFAULT_FILTER},{asked}")).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    };
    let mut layers = vec![lines];
    let exporting = collector.map(traces::start).transpose()?.map(|(spans, exporting)| {
        layers.push(spans.boxed());
        exporting
    });
    tracing_subscriber::registry().with(layers).init();
    Ok(exporting)
}
