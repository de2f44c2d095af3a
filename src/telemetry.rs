//! Metrics and health of this process. `operations` serves them.
//!
//! # Guarantees
//! - No label has a value that users choose (no names of executions, machines, rules, users or namespaces), so the
//!   number of series is bounded.
//! - Counting costs a hash and an atomic addition. Only the first use of a series allocates.
//!
//! Both are process-wide, reached by [`metrics`] and [`health`] and not passed along. About thirty places report to
//! them, from the API server's client to destructors, and nothing is ever decided by them.

mod health;
mod labels;
mod metrics;
mod process;

use std::sync::LazyLock;

pub use health::{BackgroundTask, HEARTBEAT_INTERVAL, Health, Report, Watch};
pub use labels::Purpose;
pub use metrics::Metrics;

/// Target of all spans. Spans are for `traces` and are no log lines.
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
