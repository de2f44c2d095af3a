//! Replacement of `traces` in a build without the feature `otlp`.

use std::convert::Infallible;
use std::time::Duration;

use tracing_subscriber::layer::Identity;

/// Exporter type without values, because this build cannot start an exporter.
pub struct TraceExporter(Infallible);

impl TraceExporter {
    /// Cannot be called, because no exporter exists.
    pub async fn shut_down(self, _deadline: Duration) {
        match self.0 {}
    }
}

/// Returns an error, because this build has no traces.
///
/// # Errors
/// Always.
pub fn start(_collector: &str) -> anyhow::Result<(Identity, TraceExporter)> {
    anyhow::bail!("this writ was built without traces (the feature `otlp`); remove --otlp-endpoint")
}

/// Does nothing.
pub fn set_execution_trace(_span: &tracing::Span, _uid: &str) {}
