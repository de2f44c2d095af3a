//! Deletes expired sessions of the gateway.
//!
//! The gateway itself refuses expired sessions, so a deletion that is late harms nothing. A list at fixed times is
//! enough, and needs no memory for the sessions.
//!
//! # Guarantees
//! - Several processes may run this task. A session is deleted once, and a later session of the same name is not.
//! - Without the CRD or the right to list sessions, Writ works on, and logs it once.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, ClusterError};
use crate::telemetry::{BackgroundTask, health};

/// Interval between sweeps. A sweep without sessions is one short request for each served namespace.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum time between heartbeats: the interval, and several calls with a deadline of 10 s each.
const MAX_SILENCE: Duration = Duration::from_secs(120);

/// Deletes expired sessions until `stop` is cancelled.
pub async fn run(cluster: Cluster, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_failure = None;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let heartbeat = || health().heartbeat_within(BackgroundTask::Sessions, MAX_SILENCE);
        let Some(result) = stop.run_until_cancelled(cluster.delete_expired_sessions(heartbeat)).await else { return };
        match &result {
            Ok(0) => {}
            Ok(sessions) => tracing::info!(sessions, "gateway sessions deleted: they expired"),
            Err(error) if last_failure != Some(error.category()) => log_failure(error),
            Err(error) => tracing::debug!(%error, "expired gateway sessions not deleted"),
        }
        last_failure = result.err().map(|error| error.category());
    }
}

fn log_failure(error: &ClusterError) {
    tracing::warn!(
        %error,
        "expired gateway sessions not deleted; apply the CRDs and the roles of this version (chart, crds/, deploy/)"
    );
}
