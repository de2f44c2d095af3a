//! One open connection to a machine, shared by the commands that run there.
//!
//! The facts of the machine ([`TimedFacts`]) are requested once for each connection. A task that loses its connection
//! opens another connection. In Durable mode, the command keeps running meanwhile.

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

/// Maximum number of concurrent commands on one connection. OpenSSH allows 10 sessions (MaxSessions), but frees closed
/// sessions late. In a test with 8 commands, 1 of 8 attempts to open a session failed. With 5 commands, no attempt
/// failed. Stop requests and clean-up also need sessions.
const SESSIONS_PER_CONNECTION: usize = 5;
/// Maximum time for opening a session.
pub(crate) const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Maximum number of retries if the machine has no free session, and the pause before the first retry. Each further
/// pause is twice as long as the previous pause.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// A connection in the pool of a machine.
pub(crate) struct PooledConnection {
    open: Open,
    /// True after the first call of `take_unrecorded`. The caller then records that this connection reached the
    /// machine.
    is_recorded: AtomicBool,
    facts: OnceCell<TimedFacts>,
    /// Error if the machine accepted the login, but refused the first session. All tasks that use the connection get
    /// this error.
    session_refusal: OnceLock<LauncherError>,
    permits: Arc<Semaphore>,
    /// True after the machine refused a further session. Becomes false when a session is released.
    is_full: AtomicBool,
    last_used: Mutex<Instant>,
}

/// An open connection, and the values that must live as long as the connection.
pub(crate) struct Open {
    /// The connection.
    pub connection: Connection,
    /// Connection of the jump host, if the connection uses a jump host.
    pub _outer: Option<ProxyConnection>,
    /// Handle that keeps the key decrypted, if the key was encrypted. Other connections then need no decryption.
    pub _key: Option<KeptOpen>,
}

/// A connection to a jump host, which carries connections to other machines.
#[derive(Clone)]
pub(crate) struct ProxyConnection(Arc<PooledConnection>);

/// The right to one session on a connection. Dropping the permit releases the session.
pub(crate) struct SessionPermit {
    pooled: Arc<PooledConnection>,
    _permit: OwnedSemaphorePermit,
}

impl PooledConnection {
    /// Returns a pooled connection with all its sessions free.
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

    /// Returns a pooled connection, and the first permit on it.
    #[expect(clippy::expect_used, reason = "nothing closes the semaphore")]
    pub async fn with_permit(open: Open) -> (Arc<Self>, SessionPermit) {
        let pooled = Arc::new(Self::new(open));
        let permit = Arc::clone(&pooled.permits).acquire_owned().await.expect("a semaphore that nobody closes");
        (Arc::clone(&pooled), SessionPermit { pooled, _permit: permit })
    }

    /// Returns a permit if the connection has a free session. If `at` (`IP:PORT`) is set, the connection must lead to
    /// this address.
    pub fn try_acquire(pooled: &Arc<Self>, at: Option<&str>) -> Option<SessionPermit> {
        if pooled.is_full.load(Ordering::Relaxed) || at.is_some_and(|at| pooled.open.connection.peer() != at) {
            return None;
        }
        let permit = Arc::clone(&pooled.permits).try_acquire_owned().ok()?;
        *lock(&pooled.last_used) = Instant::now();
        Some(SessionPermit { pooled: Arc::clone(pooled), _permit: permit })
    }

    /// Returns the maximum number of concurrent commands on the connection. This is the number of all permits. After
    /// the machine refused a further session, this is the number of permits in use.
    pub fn room(&self) -> usize {
        let free = if self.is_full.load(Ordering::Relaxed) { self.permits.available_permits() } else { 0 };
        SESSIONS_PER_CONNECTION - free.min(SESSIONS_PER_CONNECTION)
    }

    /// Returns true if the connection is open, and the machine has executed a request on this connection.
    pub fn is_executing(&self) -> bool {
        self.facts.initialized() && !self.is_closed()
    }

    /// Returns true if the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.open.connection.is_closed()
    }

    /// Returns the time of the last use.
    pub fn last_used(&self) -> Instant {
        *lock(&self.last_used)
    }

    /// Closes the connection, even if other tasks use it.
    pub async fn close(&self) {
        self.open.connection.close().await;
    }

    fn take_unrecorded(&self) -> bool {
        !self.is_recorded.swap(true, Ordering::Relaxed)
    }
}

impl ProxyConnection {
    /// Returns a connection that carries connections to other machines.
    pub fn new(pooled: Arc<PooledConnection>) -> Self {
        Self(pooled)
    }

    /// Returns the connection.
    pub fn connection(&self) -> &Connection {
        &self.0.open.connection
    }

    /// Returns true only for the first caller. This caller must record that the connection reached the machine.
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
    /// Returns the connection.
    pub fn connection(&self) -> &Connection {
        &self.pooled.open.connection
    }

    /// Closes a faulty connection, so that no task uses it any more.
    pub async fn discard(&self) {
        self.pooled.close().await;
    }

    /// Returns true only for the first caller. This caller must record that the connection reached the machine.
    pub fn take_unrecorded(&self) -> bool {
        self.pooled.take_unrecorded()
    }

    /// Opens a session. Waits briefly if the machine has no free session.
    ///
    /// # Errors
    /// The machine opens no session.
    pub async fn open(&self) -> Result<Session, ConnectError> {
        let opened = open_with_retry(self.connection()).await;
        if matches!(opened, Err(ConnectError::Busy(_))) {
            // The machine perhaps allows fewer sessions than usual (MaxSessions). Other tasks then use another
            // connection.
            self.pooled.is_full.store(true, Ordering::Relaxed);
        }
        let slack = self.pooled.facts.get().map_or(Duration::ZERO, TimedFacts::slack);
        opened.map(|mut session| {
            session.allow(slack);
            session
        })
    }

    /// Returns the facts that the machine reports, requested once for each connection. `directory` is the launcher's
    /// directory, if the Machine specifies a directory. All tasks on a connection pass the same value.
    ///
    /// # Errors
    /// The machine did not answer, or the answer does not come from a launcher.
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

/// Opens a session. Retries a few times if the machine has no free session.
///
/// # Errors
/// The machine opens no session.
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
