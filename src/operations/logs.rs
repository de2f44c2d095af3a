//! Logs. Objects are named, by namespace, name and UID.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::traces::{self, Exporting};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged where `RUST_LOG` says nothing. kube_client warns with the whole body of an answer that it cannot
/// decode, which may be a status with its output; russh warns with what the machine says. Spans are for traces alone.
const DEFAULT_FILTER: &str = "warn,kube_client=error,russh=off,writ=info,writ_trace=off";

/// Starts logging to standard error. `RUST_LOG` (for example `writ=debug`) says how much; default: `info` for Writ,
/// `warn` for most of the libraries. Asking for more of `kube_client` and `russh` by name may put objects and what
/// machines say into the log. Where a collector is given, spans are sent there for as long as what comes back is kept.
///
/// # Errors
/// The collector's URL is none that can be used.
pub fn start_logs(format: LogFormat, collector: Option<&str>) -> anyhow::Result<Option<Exporting>> {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    // What is asked for comes last, and so wins; what is not named stays as it is.
    let filter =
        EnvFilter::try_new(format!("{DEFAULT_FILTER},{asked}")).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    };
    let mut layers = vec![lines];
    let exporting = collector.map(traces::export).transpose()?.map(|(spans, exporting)| {
        layers.push(spans.boxed());
        exporting
    });
    tracing_subscriber::registry().with(layers).init();
    Ok(exporting)
}
