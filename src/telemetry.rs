//! What this process tells of itself in numbers: metrics, and whether it is alive and ready. Served by `operations`.
//!
//! The promises kept here: no label has a value that users choose (no names of executions, machines, rules, users or
//! namespaces), so the number of series is bounded; to count something costs a hash and an atomic addition, and no
//! allocation but the first time.
//!
//! Both are one for a process, reached by [`metrics`] and [`health`] and not passed along: they are told from some thirty
//! places, from the API server's client to destructors, and nothing is ever decided by them.

mod health;
mod labels;
mod metrics;
mod process;

use std::sync::LazyLock;

pub use health::{BEAT, Health, Loop, Report, Watch};
pub use labels::Purpose;
pub use metrics::Metrics;

/// The target of all spans, which are for `traces` and are no log lines.
pub const SPANS: &str = "writ_trace";

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
static HEALTH: LazyLock<Health> = LazyLock::new(Health::default);

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// The health of this process.
pub fn health() -> &'static Health {
    &HEALTH
}
