//! Flags of `writ serve` for the retention of finished executions.

use clap::Args;
use writ::cluster::{Cluster, EventPublisher};
use writ::controllers::retention::{Context, RetentionPolicy};
use writ::output::Store;

/// Maximum retention in seconds: 365 days, as for `spec.ttlSecondsAfterFinished`.
const MAX_SECONDS: i64 = 31_536_000;
/// Default of `--minimum-retention-seconds`: a day to find out what ran.
const DAY: u32 = 86_400;

#[derive(Args, Debug)]
pub struct RetentionFlags {
    /// Time to live, in seconds after the end, of executions without ttlSecondsAfterFinished, 0 to 31536000 [default:
    /// until somebody deletes them].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=MAX_SECONDS))]
    default_ttl_seconds: Option<u32>,

    /// Minimum retention, in seconds after the end, of executions whose rule has no minimumRetentionSeconds, 0 to
    /// 31536000. It also applies if ttlSecondsAfterFinished is shorter. For executions that no rule allowed, the
    ///           minimum is 300 at
    /// most. After this time Writ marks the execution (annotation writ.dev/retention-over). Until then the chart's
    /// admission policies refuse its deletion.
    #[arg(long, default_value_t = DAY, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=MAX_SECONDS))]
    minimum_retention_seconds: u32,

    /// Maximum number of ExecutionReceipts per namespace, 1 to 1000000. A receipt keeps the manifest of an expired
    /// execution from running again, and never expires. At the limit, executions are kept although they expired, with a
    /// warning.
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    receipt_limit: u64,
}

impl RetentionFlags {
    /// Returns the context of the controller of finished executions.
    pub fn context(&self, cluster: &Cluster, store: Option<Store>, events: &EventPublisher) -> Context {
        Context {
            cluster: cluster.clone(),
            store,
            events: events.clone(),
            policy: RetentionPolicy {
                default_ttl_seconds: self.default_ttl_seconds,
                minimum_seconds: self.minimum_retention_seconds,
            },
            receipt_limit: self.receipt_limit,
        }
    }
}
