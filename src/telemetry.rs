//! Metrics and health of this process. `operations` serves them.
//!
//! # Guarantees
//! - The number of series is bounded, because users cannot choose the value of a label. No label contains the name of
//!   an execution, machine, rule, user or namespace.
//! - Counting an event takes one hash and one atomic addition. Only the first use of a series, and a request to the
//!   gateway, allocate memory.
//! - No decision of Writ depends on metrics or health.
//!
//! The metrics and the health are global, because about thirty places use them, even destructors.

mod gateway;
mod health;
mod labels;
mod metrics;
mod process;

use std::sync::LazyLock;

pub use gateway::{GatewayMetrics, RequestInProgress};
pub use health::{BackgroundTask, HEARTBEAT_INTERVAL, Health, Report, Watch};
pub use labels::Purpose;
pub use metrics::Metrics;
pub use process::resident_bytes;

/// Target of all spans. Spans go to the collector (see `traces`). Spans are not log lines.
pub const SPANS: &str = "writ_trace";

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
static HEALTH: LazyLock<Health> = LazyLock::new(Health::default);

/// Returns the metrics of this process.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// Returns the health of this process.
pub fn health() -> &'static Health {
    &HEALTH
}
