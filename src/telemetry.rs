//! Metrics and health of this process. `operations` serves them.
//!
//! # Guarantees
//! - Users cannot choose the value of a label (no label holds names of executions, machines, rules, users or
//!   namespaces). The number of series is therefore bounded.
//! - Counting an event takes one hash and one atomic addition. Only the first use of a series allocates memory.
//!
//! Metrics and health are global in the process: [`metrics()`] and [`health()`] return them. Functions do not receive
//! them as arguments, because about thirty places use them, from the API server's client to destructors. No decision
//! depends on metrics or health.

mod health;
mod labels;
mod metrics;
mod process;

use std::sync::LazyLock;

pub use health::{BackgroundTask, HEARTBEAT_INTERVAL, Health, Report, Watch};
pub use labels::Purpose;
pub use metrics::Metrics;

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
