//! One open connection to a machine, shared by the commands that run there.
//!
//! Facts about a machine ([`TimedFacts`]) are requested once for each connection. The user of a connection that died finds out,
//! and opens another one: in Durable mode that costs nothing but time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::ssh::{ConnectError, Connection, Session};
use crate::telemetry::metrics;

use super::credentials::KeptOpen;
use super::inspect::{TimedFacts, inspect};
use super::launcher_request::LauncherError;
use super::lock::lock;

/// Commands on one connection concurrently. OpenSSH allows ten sessions (MaxSessions) and frees them late: at 8 at a time one
/// open in 8 failed, at 5 none. Stop requests and clean-up need sessions, too.
const SESSIONS_PER_CONNECTION: usize = 5;
/// Time after which an unused connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that opening a session may take.
pub(crate) const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Tries if the machine has no free session, and the pause before the second one. It doubles.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A connection in the pool of a machine.
pub(crate) struct PooledConnection {
    open: Open,
    /// True once an observation of this connection was recorded.
    is_recorded: AtomicBool,
    facts: OnceCell<TimedFacts>,
    /// Why the machine executes nothing on this connection, if it accepted the login and refused the first session. All users
    /// of the connection get this answer.
    session_refusal: OnceLock<LauncherError>,
    permits: Arc<Semaphore>,
    /// True if the machine had no free session on it, until one is given back.
    is_full: AtomicBool,
    last_used: Mutex<Instant>,
}

/// An open connection with what it needs to stay open.
pub(crate) struct Open {
    /// The connection.
    pub connection: Connection,
    /// The connection that it goes through.
    pub _outer: Option<ProxyConnection>,
    /// The decrypted key, if the key was encrypted: the next connection need not decrypt it again.
    pub _key: Option<KeptOpen>,
}

/// A connection that carries others.
#[derive(Clone)]
pub(crate) struct ProxyConnection(Arc<PooledConnection>);

/// The right to one session on a connection. It is given back when it is dropped.
pub(crate) struct SessionPermit {
    pooled: Arc<PooledConnection>,
    _permit: OwnedSemaphorePermit,
}

impl PooledConnection {
    /// A new connection, whose sessions are all free.
    pub fn new(open: Open) -> Self {
        Self {
            open,
            is_recorded: AtomicBool::new(false),
            facts: OnceCell::new(),
            session_refusal: OnceLock::new(),
            permits: Arc::new(Semaphore::new(SESSIONS_PER_CONNECTION)),
            is_full: AtomicBool::new(false),
            last_used: Mutex::new(Instant::now()),
        }
    }

    /// A new connection, and the first permit on it.
    #[expect(clippy::expect_used, reason = "nothing closes the semaphore")]
    pub async fn with_permit(open: Open) -> (Arc<Self>, SessionPermit) {
        let pooled = Arc::new(Self::new(open));
        let permit = Arc::clone(&pooled.permits).acquire_owned().await.expect("a semaphore that nobody closes");
        (Arc::clone(&pooled), SessionPermit { pooled, _permit: permit })
    }

    /// Returns a permit if the connection has a free session and leads to this address (`IP:PORT`).
    pub fn try_acquire(pooled: &Arc<Self>, at: Option<&str>) -> Option<SessionPermit> {
        if pooled.is_full.load(Ordering::Relaxed) || at.is_some_and(|at| pooled.open.connection.peer() != at) {
            return None;
        }
        let permit = Arc::clone(&pooled.permits).try_acquire_owned().ok()?;
        *lock(&pooled.last_used) = Instant::now();
        Some(SessionPermit { pooled: Arc::clone(pooled), _permit: permit })
    }

    /// Returns the maximum number of commands that it carries. A full connection carries those that it has.
    pub fn room(&self) -> usize {
        let free = if self.is_full.load(Ordering::Relaxed) { self.permits.available_permits() } else { 0 };
        SESSIONS_PER_CONNECTION - free.min(SESSIONS_PER_CONNECTION)
    }

    /// Returns true if the machine executes on this connection, and the connection is open.
    pub fn is_executing(&self) -> bool {
        self.facts.initialized() && !self.is_closed()
    }

    /// Returns true if the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.open.connection.is_closed()
    }

    /// Returns true if the connection may be closed: it is closed already, or nobody used it for [`IDLE_TIMEOUT`].
    pub fn is_idle(&self, is_held: bool) -> bool {
        self.is_closed() || (!is_held && lock(&self.last_used).elapsed() >= IDLE_TIMEOUT)
    }

    /// Closes the connection, also if others use it.
    pub async fn close(&self) {
        self.open.connection.close().await;
    }

    fn take_unrecorded(&self) -> bool {
        !self.is_recorded.swap(true, Ordering::Relaxed)
    }
}

impl ProxyConnection {
    /// Goes through this connection.
    pub fn new(pooled: Arc<PooledConnection>) -> Self {
        Self(pooled)
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.0.open.connection
    }

    /// Returns true for the first caller only: that one records the observation.
    pub fn take_unrecorded(&self) -> bool {
        self.0.take_unrecorded()
    }
}

impl Drop for ProxyConnection {
    fn drop(&mut self) {
        *lock(&self.0.last_used) = Instant::now();
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.pooled.is_full.store(false, Ordering::Relaxed);
        *lock(&self.pooled.last_used) = Instant::now();
    }
}

impl SessionPermit {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.pooled.open.connection
    }

    /// Closes a connection that does not do what it should. Nobody uses it any more.
    pub async fn discard(&self) {
        self.pooled.close().await;
    }

    /// Returns true for the first caller only: that one records the observation.
    pub fn take_unrecorded(&self) -> bool {
        self.pooled.take_unrecorded()
    }

    /// Opens a session. Waits a moment if the machine has no free one.
    ///
    /// # Errors
    /// The machine opens none.
    pub async fn open(&self) -> Result<Session, ConnectError> {
        let opened = open_with_retry(self.connection()).await;
        if matches!(opened, Err(ConnectError::Busy(_))) {
            // It may allow fewer than usual (MaxSessions): others use another connection.
            self.pooled.is_full.store(true, Ordering::Relaxed);
        }
        let slack = self.pooled.facts.get().map_or(Duration::ZERO, TimedFacts::slack);
        opened.map(|mut session| {
            session.allow(slack);
            session
        })
    }

    /// Returns what the machine reports of itself, requested once for each connection. `directory` is the launcher's
    /// directory, if the Machine names one. It is the same for all users of a connection.
    ///
    /// # Errors
    /// The machine did not answer as a launcher does.
    pub async fn facts(&self, directory: Option<&str>) -> Result<&TimedFacts, LauncherError> {
        let PooledConnection { facts, session_refusal, .. } = &*self.pooled;
        let request = async || {
            if let Some(error) = session_refusal.get() {
                return Err(error.clone());
            }
            let answer = inspect(self.connection(), self.open().await?, directory).await;
            if let Err(error @ (LauncherError::SessionRefused(_) | LauncherError::Refused(_))) = &answer {
                let _ = session_refusal.set(error.clone());
            }
            answer
        };
        facts.get_or_try_init(request).await
    }
}

/// Opens a session. If the machine has no free one, a few more times.
///
/// # Errors
/// The machine opens none.
pub(crate) async fn open_with_retry(connection: &Connection) -> Result<Session, ConnectError> {
    let mut tries = 0;
    loop {
        let opened = connection.open(OPEN_DEADLINE).await;
        metrics().session(opened.as_ref().map_or_else(ConnectError::category, |_| "opened"));
        match opened {
            Err(ConnectError::Busy(message)) if tries < BUSY_TRIES => {
                tracing::debug!(error = message, "no free session on the machine; trying again");
                sleep(BUSY_PAUSE.saturating_mul(1 << tries)).await;
                tries += 1;
            }
            other => return other,
        }
    }
}
