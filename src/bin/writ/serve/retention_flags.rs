//! Flags of `writ serve` for the retention of finished executions.

use clap::Args;
use writ::cluster::{Cluster, EventPublisher};
use writ::controllers::retention::{Context, RetentionPolicy};
use writ::output::Store;

/// Maximum retention in seconds: 365 days, as for `spec.ttlSecondsAfterFinished`.
const MAX_SECONDS: i64 = 31_536_000;
/// Default of `--minimum-retention-seconds`: one day, so that users have time to read the execution.
const DAY: u32 = 86_400;

#[derive(Args, Debug)]
pub struct RetentionFlags {
    /// TTL of executions without ttlSecondsAfterFinished, in seconds from the end of the execution, 0 to 31536000
    /// [default: such executions stay until somebody deletes them].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=MAX_SECONDS))]
    default_ttl_seconds: Option<u32>,

    /// Minimum retention of executions whose rule has no minimumRetentionSeconds, in seconds from the end of the
    /// execution, 0 to 31536000. The minimum retention also applies if ttlSecondsAfterFinished is shorter. For
    /// executions that no rule allowed, the minimum retention is at most 300 seconds. After the minimum retention, Writ
    /// marks the execution (annotation writ.dev/retention-over). Until then, the chart's admission policies refuse the
    /// deletion of the execution.
    #[arg(long, default_value_t = DAY, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=MAX_SECONDS))]
    minimum_retention_seconds: u32,

    /// Maximum number of ExecutionReceipts per namespace, 1 to 1000000. After an execution expired, its receipt
    /// prevents a second run of the command if somebody applies the same manifest again. Receipts never expire. At this
    /// limit, Writ keeps expired executions and reports a warning.
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
