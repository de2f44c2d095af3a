//! The flags of `writ serve` that say how long finished executions are kept, and how much stays of them.

use clap::Args;
use writ::cluster::{Cluster, EventPublisher};
use writ::controllers::retention::{Context, Keeping};
use writ::output::Store;

/// The most seconds: 365 days, as for `spec.ttlSecondsAfterFinished`.
const MOST: i64 = 31_536_000;
/// Default of `--minimum-retention-seconds`: who looks for what ran has a day to find it.
const DAY: u32 = 86_400;

#[derive(Args, Debug)]
pub struct Retaining {
    /// Seconds after its end for which an execution is kept that says no ttlSecondsAfterFinished [default: until somebody
    /// deletes it].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=MOST))]
    default_ttl_seconds: Option<u32>,

    /// Seconds after its end for which every execution is kept at least, whatever its ttlSecondsAfterFinished says, if the
    /// rule that allowed it has no minimumRetentionSeconds. What no rule allowed is kept for 300 at most. When they are
    /// over, Writ marks the execution (annotation writ.dev/retention-over); until then the chart's admission policies
    /// refuse that somebody deletes it.
    #[arg(long, default_value_t = DAY, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=MOST))]
    minimum_retention_seconds: u32,

    /// ExecutionReceipts that a namespace may have. They keep what its time to live deleted from being run again, and are
    /// never removed by time; where the limit is reached, executions stay instead, with a warning.
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    receipt_limit: u64,
}

impl Retaining {
    /// What the controller of finished executions needs.
    pub fn context(&self, cluster: &Cluster, store: Option<Store>, events: &EventPublisher) -> Context {
        Context {
            cluster: cluster.clone(),
            store,
            events: events.clone(),
            keeping: Keeping {
                default_ttl_seconds: self.default_ttl_seconds,
                minimum_seconds: self.minimum_retention_seconds,
            },
            receipt_limit: self.receipt_limit,
        }
    }
}
