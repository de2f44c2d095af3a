//! Open connections to one machine, for commands and for jumps to other machines.
//!
//! A connection is valid for one [`ResolvedMachine::pool_key`]. If the Machine, a jump host or one of their Secrets
//! changes, the next task opens another connection.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::connect_failure::ConnectFailure;
use super::lock::lock;
use super::pooled_connection::{Open, PooledConnection, ProxyConnection, SessionPermit};
use super::resolved_machine::ResolvedMachine;

/// Connections by pool key.
type Entries = Mutex<HashMap<String, Arc<PoolEntry>>>;

/// The connections of one machine.
#[derive(Default)]
pub(crate) struct ConnectionPool {
    /// Connections for commands.
    sessions: Entries,
    /// Connections to this machine as a jump host. These connections need no permits, because sshd does not count
    /// forwarded connections as sessions.
    proxies: Entries,
    /// Resolved Machine of the last connection, without secrets.
    last_spec: Mutex<Option<Arc<ResolvedMachine>>>,
    /// Pool keys of the connections on which the machine has executed a request.
    executed: Mutex<HashSet<String>>,
    /// False until a task first requests a connection. `invalidate` and `take_unused` skip a pool that is not used yet.
    is_used: AtomicBool,
}

/// The connections for one pool key.
#[derive(Default)]
struct PoolEntry {
    connections: Mutex<Vec<Arc<PooledConnection>>>,
    /// Locked while a task opens a connection. Tasks that arrive meanwhile share the connection or its failure.
    opening: tokio::sync::Mutex<Option<SharedFailure>>,
}

/// Reason for a failed connect, and the time of the failure.
struct SharedFailure {
    at: Instant,
    failure: ConnectFailure,
}

impl SharedFailure {
    /// Returns the failure, with the current time. Returns `None` if other tasks do not share this failure
    /// ([`ConnectFailure::shared`]).
    fn new(failure: &ConnectFailure) -> Option<Self> {
        Some(Self { at: Instant::now(), failure: failure.shared()? })
    }

    /// Returns the failure if the connect failed at or after `began`, the start of the task's wait.
    fn since(&self, began: Instant) -> Option<ConnectFailure> {
        if self.at >= began { self.failure.shared() } else { None }
    }
}

impl ConnectionPool {
    /// Returns a permit for one session. If no open connection has a free session, `connect` opens another connection.
    /// If `at` (`IP:PORT`) is set, uses an open connection only if it leads to this address.
    ///
    /// # Errors
    /// The failure of `connect`, in this task or in the task that this task waited for.
    pub async fn acquire(
        &self,
        pool_key: &str,
        at: Option<&str>,
        connect: impl AsyncFnOnce() -> Result<Open, ConnectFailure>,
    ) -> Result<SessionPermit, ConnectFailure> {
        self.is_used.store(true, Ordering::Release);
        let entry = Arc::clone(lock(&self.sessions).entry(pool_key.to_owned()).or_default());
        if let Some(permit) = entry.try_acquire(at) {
            return Ok(permit);
        }
        let began = Instant::now();
        let mut last_failure = entry.opening.lock().await;
        // Another task can have connected or failed while this task waited.
        if let Some(permit) = entry.try_acquire(at) {
            return Ok(permit);
        }
        if let Some(failure) = last_failure.as_ref().and_then(|failure| failure.since(began)) {
            return Err(failure);
        }
        let open = connect().await.inspect_err(|failure| *last_failure = SharedFailure::new(failure))?;
        let (connection, permit) = PooledConnection::with_permit(open).await;
        lock(&entry.connections).push(connection);
        Ok(permit)
    }

    /// Returns a connection to use as a jump host. If no connection is open, `connect` opens a connection.
    ///
    /// # Errors
    /// The same as for [`Self::acquire`].
    pub async fn acquire_proxy(
        &self,
        pool_key: &str,
        connect: impl AsyncFnOnce() -> Result<Open, ConnectFailure>,
    ) -> Result<ProxyConnection, ConnectFailure> {
        self.is_used.store(true, Ordering::Release);
        let entry = Arc::clone(lock(&self.proxies).entry(pool_key.to_owned()).or_default());
        let began = Instant::now();
        let mut last_failure = entry.opening.lock().await;
        if let Some(connection) = entry.first_open() {
            return Ok(ProxyConnection::new(connection));
        }
        if let Some(failure) = last_failure.as_ref().and_then(|failure| failure.since(began)) {
            return Err(failure);
        }
        let open = connect().await.inspect_err(|failure| *last_failure = SharedFailure::new(failure))?;
        let connection = Arc::new(PooledConnection::new(open));
        lock(&entry.connections).push(Arc::clone(&connection));
        Ok(ProxyConnection::new(connection))
    }

    /// Returns a permit on an open connection, or `None` if no open connection has a free session.
    pub fn try_acquire(&self, pool_key: &str) -> Option<SessionPermit> {
        let entry = Arc::clone(lock(&self.sessions).get(pool_key)?);
        entry.try_acquire(None)
    }

    /// Returns the maximum number of concurrent commands on the open connections. Counts only connections on which the
    /// machine has executed a request.
    pub fn room(&self, pool_key: &str) -> usize {
        lock(&self.sessions).get(pool_key).map_or(0, |entry| entry.room())
    }

    /// Returns true if the machine has executed a request on a connection with this pool key.
    pub fn has_executed(&self, pool_key: &str) -> bool {
        lock(&self.executed).contains(pool_key)
    }

    /// Records that the machine has executed a request on a connection with this pool key.
    pub fn record_executed(&self, pool_key: &str) {
        let mut executed = lock(&self.executed);
        if !executed.contains(pool_key) {
            executed.insert(pool_key.to_owned());
        }
    }

    /// Returns the resolved Machine of the last connection.
    pub fn last_spec(&self) -> Option<Arc<ResolvedMachine>> {
        lock(&self.last_spec).clone()
    }

    /// Stores the resolved Machine of the last connection, without secrets.
    pub fn remember_spec(&self, resolved: &ResolvedMachine) {
        *lock(&self.last_spec) = Some(Arc::new(resolved.without_secrets()));
    }

    /// Removes the connections to or through the Machine with this UID, except connections of the generation
    /// `except_generation`. Returns the idle connections, which the caller must close. A connection in use is closed
    /// when its last permit is released.
    pub fn invalidate(&self, uid: &str, except_generation: Option<i64>) -> Vec<Arc<PooledConnection>> {
        if !self.is_used.load(Ordering::Acquire) {
            return Vec::new();
        }
        let current = except_generation.map(|generation| format!("{uid}/{generation}/"));
        let stays = |key: &str| !key.contains(uid) || current.as_ref().is_some_and(|current| key.contains(current));
        let mut last_spec = lock(&self.last_spec);
        if last_spec.as_ref().is_some_and(|resolved| !stays(&resolved.pool_key())) {
            *last_spec = None;
        }
        drop(last_spec);
        lock(&self.executed).retain(|key| stays(key));
        let mut removed = Vec::new();
        for entries in [&self.sessions, &self.proxies] {
            lock(entries).retain(|key, entry| {
                let stays = stays(key);
                if !stays {
                    removed.append(&mut lock(&entry.connections));
                }
                stays
            });
        }
        removed.retain(|connection| Arc::strong_count(connection) == 1);
        removed
    }

    /// Returns the time of the last use of each open connection that no task uses.
    pub fn unused_since(&self) -> Vec<Instant> {
        if !self.is_used.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut unused = unused_since(&self.sessions);
        unused.append(&mut unused_since(&self.proxies));
        unused
    }

    /// Removes and returns the closed connections, and the unused connections whose last use was at `last_use` or
    /// before. The caller must close the returned connections.
    pub fn take_unused(&self, last_use: Instant) -> Vec<Arc<PooledConnection>> {
        if !self.is_used.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut idle = take_unused(&self.sessions, last_use);
        idle.append(&mut take_unused(&self.proxies, last_use));
        let open: HashSet<String> = lock(&self.sessions).keys().cloned().collect();
        let mut last_spec = lock(&self.last_spec);
        if last_spec.as_ref().is_some_and(|resolved| !open.contains(&resolved.pool_key())) {
            *last_spec = None;
        }
        idle
    }

    /// Removes and returns all connections. The caller must close these connections.
    pub fn take_all(&self) -> Vec<Arc<PooledConnection>> {
        let entries = [&self.sessions, &self.proxies].map(|entries| lock(entries).drain().collect::<Vec<_>>());
        entries.iter().flatten().flat_map(|(_, entry)| lock(&entry.connections).drain(..).collect::<Vec<_>>()).collect()
    }

    /// Returns two numbers of open connections: for commands, and for use as a jump host.
    pub fn open_counts(&self) -> (usize, usize) {
        (count_open(&self.sessions), count_open(&self.proxies))
    }
}

/// Closes connections concurrently. Each close has a deadline.
pub(crate) async fn close_all(connections: &[Arc<PooledConnection>]) {
    futures::future::join_all(connections.iter().map(|connection| connection.close())).await;
}

fn count_open(entries: &Entries) -> usize {
    let count =
        |entry: &Arc<PoolEntry>| lock(&entry.connections).iter().filter(|connection| !connection.is_closed()).count();
    lock(entries).values().map(count).sum()
}

fn unused_since(entries: &Entries) -> Vec<Instant> {
    let unused = |entry: &Arc<PoolEntry>| -> Vec<Instant> {
        let connections = lock(&entry.connections);
        let unused = connections.iter().filter(|connection| !is_held(connection) && !connection.is_closed());
        unused.map(|connection| connection.last_used()).collect()
    };
    lock(entries).values().flat_map(unused).collect()
}

/// Returns true if a task uses this connection of a pool.
fn is_held(connection: &Arc<PooledConnection>) -> bool {
    Arc::strong_count(connection) > 1
}

fn take_unused(entries: &Entries, last_use: Instant) -> Vec<Arc<PooledConnection>> {
    let mut idle = Vec::new();
    lock(entries).retain(|_, entry| {
        let mut connections = lock(&entry.connections);
        connections.retain(|connection| {
            let stays = !connection.is_closed() && (is_held(connection) || connection.last_used() > last_use);
            if !stays {
                idle.push(Arc::clone(connection));
            }
            stays
        });
        // If another task holds the entry, that task is opening a connection, so the entry stays.
        !connections.is_empty() || Arc::strong_count(entry) > 1
    });
    idle
}

impl PoolEntry {
    fn first_open(&self) -> Option<Arc<PooledConnection>> {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| !connection.is_closed());
        connections.first().map(Arc::clone)
    }

    /// Returns the maximum number of concurrent commands on the open connections. Counts only connections on which the
    /// machine has executed a request.
    fn room(&self) -> usize {
        lock(&self.connections).iter().filter(|connection| connection.is_executing()).map(|it| it.room()).sum()
    }

    /// Returns a permit on an open connection. If `at` is set, the connection must lead to this address. Drops closed
    /// connections.
    fn try_acquire(&self, at: Option<&str>) -> Option<SessionPermit> {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| !connection.is_closed());
        connections.iter().find_map(|connection| PooledConnection::try_acquire(connection, at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 8 machines are behind a jump host that drops packets. All 8 attempts must fail within the time of one attempt.
    #[tokio::test]
    async fn tasks_that_wait_for_a_dead_jump_host_share_its_failure() {
        let pool = ConnectionPool::default();
        let started = Instant::now();
        let attempt = || {
            pool.acquire_proxy("hop", async || {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(ConnectFailure::Unreachable("silence".to_owned()))
            })
        };
        let all = futures::future::join_all((0..8).map(|_| attempt())).await;
        assert!(all.iter().all(Result::is_err));
        assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    }
}
