//! The open WebSockets and other long answers, which end when the process stops.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::telemetry::metrics;

/// Registry of the open WebSockets. hyper's graceful shutdown does not wait for WebSockets, so their tasks register
/// here. Clones share the registry.
#[derive(Clone, Debug)]
pub struct Sockets {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Sockets {
    /// Creates an empty registry. All sockets must close when `stop` is cancelled.
    pub fn for_stop(stop: CancellationToken) -> Self {
        Self { stop, tracker: TaskTracker::new() }
    }

    /// Registers a socket. Dropping the guard removes the socket.
    pub fn enter(&self) -> SocketGuard {
        metrics().gateway().socket_opened();
        SocketGuard { stop: self.stop.clone(), _tracked: self.tracker.token() }
    }

    /// Waits until all sockets are closed, for at most `deadline`. Returns true if all are closed.
    pub async fn closed(&self, deadline: Duration) -> bool {
        self.tracker.close();
        timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Guard of an open WebSocket. The task of the socket owns it.
#[derive(Debug)]
pub struct SocketGuard {
    stop: CancellationToken,
    _tracked: TaskTrackerToken,
}

impl SocketGuard {
    /// Returns a future that completes when the process stops. The task then closes the socket with code 1001.
    pub fn stopping(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        metrics().gateway().socket_closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn sockets_receive_the_stop_and_the_registry_waits_for_them() {
        let stop = CancellationToken::new();
        let sockets = Sockets::for_stop(stop.clone());
        let guard = sockets.enter();
        assert!(timeout(SHORT, guard.stopping()).await.is_err());
        stop.cancel();
        guard.stopping().await;
        assert!(!sockets.closed(SHORT).await);
        let late = sockets.enter();
        late.stopping().await;
        drop(guard);
        assert!(!sockets.closed(SHORT).await);
        drop(late);
        assert!(sockets.closed(Duration::from_secs(5)).await);
    }
}
