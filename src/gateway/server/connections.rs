//! The open connections, and their places.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::telemetry::metrics;

use super::limits::ServerLimits;
use super::progress::Progress;
use super::room::{Bounds, ClientBounds, Room, Seat, client_of, make_room};

/// The open connections of a server.
pub(super) struct Connections {
    limits: ServerLimits,
    bounds: Bounds,
    /// Cancelled when all connections must end at once.
    abort: CancellationToken,
    tracker: TaskTracker,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// Connections by their number, so the oldest is first.
    connections: BTreeMap<u64, Connection>,
}

struct Connection {
    client: IpAddr,
    progress: Arc<Progress>,
    closing: CancellationToken,
}

impl Connections {
    /// Creates an empty set of connections. `has_shared_address` is true if all connections come from one proxy.
    pub(super) fn new(limits: ServerLimits, has_shared_address: bool, abort: CancellationToken) -> Self {
        let client =
            ClientBounds { all: limits.max_connections_per_address, new: limits.max_new_connections_per_address };
        let bounds = Bounds { all: limits.max_connections, client: (!has_shared_address).then_some(client) };
        Self { limits, bounds, abort, tracker: TaskTracker::new(), open: Mutex::default() }
    }

    /// Returns a place for a new connection, or `None` if the connection must be refused. The connection that loses its
    /// place is closed.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = client_of(address);
        let mut open = self.open();
        let seat = |(id, connection): (&u64, &Connection)| Seat {
            id: *id,
            client: connection.client,
            standing: connection.progress.standing(),
        };
        let seats: Vec<Seat> = open.connections.iter().map(seat).collect();
        match make_room(&seats, client, self.bounds) {
            Room::Free => {}
            Room::Replaces(id) => {
                if let Some(replaced) = open.connections.remove(&id) {
                    replaced.closing.cancel();
                }
                metrics().gateway().connection_dropped("replaced");
            }
            Room::None => {
                metrics().gateway().connection_dropped("refused");
                return None;
            }
        }
        let id = open.next;
        open.next += 1;
        let progress = Arc::new(Progress::new(self.limits.head_deadline, self.limits.idle_timeout));
        let closing = self.abort.child_token();
        let connection = Connection { client, progress: Arc::clone(&progress), closing: closing.clone() };
        open.connections.insert(id, connection);
        metrics().gateway().connection_opened();
        let connections = Arc::clone(self);
        Some(Place { id, connections, progress, closing, _tracked: self.tracker.token() })
    }

    /// Waits until all connections have ended, also the upgraded ones.
    pub(super) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Returns the number of connections that have not ended.
    pub(super) fn count(&self) -> usize {
        self.tracker.len()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Place of an open connection. Dropping it makes the place free.
pub(super) struct Place {
    id: u64,
    connections: Arc<Connections>,
    progress: Arc<Progress>,
    closing: CancellationToken,
    _tracked: TaskTrackerToken,
}

impl Place {
    /// Returns the progress of the connection.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Returns a token that is cancelled if the connection must end at once.
    pub(super) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.id);
        metrics().gateway().connection_closed();
    }
}
