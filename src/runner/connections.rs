//! Connections to machines, kept and shared by those who run something there.
//!
//! A connection is good for one state of its Machine and its Secret: a change of either makes another one. What is known
//! of a machine (`Known`) is asked once for each connection. One that dies is found out by whoever uses it, who then asks
//! for another: in Durable mode that costs nothing but time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::ssh::{ConnectError, Connection, Session};
use crate::telemetry::{Purpose, metrics};

use super::asking::AskError;
use super::attempt::AttemptEnd;
use super::declared::Declared;
use super::lock;
use super::opening::KeptOpen;
use super::probing::{Known, probe};
use super::queue::MachineKey;

/// Commands at a time on one connection. OpenSSH allows ten sessions (MaxSessions) and frees them late: at 8 at a time one
/// open in 8 failed, at 5 none. What stops and cleans up needs room too.
const LINES: usize = 5;
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);
/// How often it is looked for such.
const SWEEP: Duration = Duration::from_secs(5);
/// How long opening a session may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// How often a machine that has no session to spare is asked again, and the pause before the first time; it doubles.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// All connections of this process.
#[derive(Default)]
pub(super) struct Connections {
    groups: Mutex<HashMap<String, Arc<Group>>>,
    /// Those that carry connections to what lies behind, apart from those for commands: sshd does not count what goes
    /// through among the sessions.
    carriers: Mutex<HashMap<String, Arc<Group>>>,
    /// By what each machine was reached last. The key itself is not kept.
    noted: Mutex<HashMap<MachineKey, Arc<Declared>>>,
    /// Identities of machines that have executed something: one for each Machine, until it changes.
    executed: Mutex<HashSet<String>>,
}

/// The connections for one state of a Machine and its Secret.
#[derive(Default)]
struct Group {
    members: Mutex<Vec<Arc<Member>>>,
    /// Held by who opens another one: those who come meanwhile share it, or what has kept him from it.
    opening: tokio::sync::Mutex<Option<Failure>>,
}

struct Member {
    open: Open,
    /// Whether it was told that the machine is there.
    is_told: AtomicBool,
    known: OnceCell<Known>,
    /// Why the machine executes nothing on it, if it let the login in and refused its first session. All who share it get
    /// this answer.
    turned_away: OnceLock<AskError>,
    lines: Arc<Semaphore>,
    /// Whether the machine had no session to spare on it, and none was given back since.
    is_full: AtomicBool,
    used: Mutex<Instant>,
}

/// Why no connection was opened, and when that was known.
struct Failure {
    at: Instant,
    end: AttemptEnd,
}

impl Failure {
    /// Notes why not, where others would meet the same.
    fn of(end: &AttemptEnd) -> Option<Self> {
        Some(Self { at: Instant::now(), end: end.of_others()? })
    }

    /// The same for somebody who began to wait at that time.
    fn since(&self, began: Instant) -> Option<AttemptEnd> {
        if self.at >= began { self.end.of_others() } else { None }
    }
}

/// An open connection, the one that it goes through, which must stay, and its key.
pub(super) struct Open {
    pub connection: Connection,
    pub _outer: Option<Carrier>,
    /// The key that it was made by, where it had to be opened: the next connection need not open it again.
    pub _key: Option<KeptOpen>,
}

/// A connection that carries others.
#[derive(Clone)]
pub(super) struct Carrier(Arc<Member>);

/// A place for one command on a connection, given back when it is dropped.
pub(super) struct Line {
    member: Arc<Member>,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    /// A place on a connection for this state of Machine and Secret (`identity`); `connect` opens one where there is none
    /// to share. Who looks for the host at one address (`at`, as `IP:PORT`) shares no connection to another one.
    pub async fn line(
        &self,
        identity: &str,
        at: Option<&str>,
        connect: impl AsyncFnOnce() -> Result<Open, AttemptEnd>,
    ) -> Result<Line, AttemptEnd> {
        let group = Arc::clone(lock(&self.groups).entry(identity.to_owned()).or_default());
        if let Some(line) = group.free_line(at) {
            return Ok(line);
        }
        let began = Instant::now();
        let mut failure = group.opening.lock().await;
        // Somebody else may have opened one meanwhile, or found that there is none.
        if let Some(line) = group.free_line(at) {
            return Ok(line);
        }
        if let Some(end) = failure.as_ref().and_then(|failure| failure.since(began)) {
            return Err(end);
        }
        let lines = Arc::new(Semaphore::new(LINES));
        let place = own_place(&lines).await;
        let open = connect().await.inspect_err(|end| *failure = Failure::of(end))?;
        let member = Arc::new(Member::new(open, lines));
        lock(&group.members).push(Arc::clone(&member));
        Ok(Line { member, _place: place })
    }

    /// A connection to go through; `connect` opens one where there is none.
    pub async fn carrier(
        &self,
        identity: &str,
        connect: impl AsyncFnOnce() -> Result<Open, AttemptEnd>,
    ) -> Result<Carrier, AttemptEnd> {
        let group = Arc::clone(lock(&self.carriers).entry(identity.to_owned()).or_default());
        let began = Instant::now();
        let mut failure = group.opening.lock().await;
        if let Some(member) = group.living() {
            return Ok(Carrier(member));
        }
        if let Some(end) = failure.as_ref().and_then(|failure| failure.since(began)) {
            return Err(end);
        }
        let open = connect().await.inspect_err(|end| *failure = Failure::of(end))?;
        let member = Arc::new(Member::new(open, Arc::new(Semaphore::new(LINES))));
        lock(&group.members).push(Arc::clone(&member));
        Ok(Carrier(member))
    }

    /// A place on a connection that is open.
    pub fn free_line(&self, identity: &str) -> Option<Line> {
        let group = Arc::clone(lock(&self.groups).get(identity)?);
        group.free_line(None)
    }

    /// For how many commands at a time the connections have room on which this machine executes.
    pub fn room(&self, identity: &str) -> usize {
        lock(&self.groups).get(identity).map_or(0, |group| group.room())
    }

    /// Whether this machine has executed something on a connection, as it is declared now.
    pub fn has_executed(&self, identity: &str) -> bool {
        lock(&self.executed).contains(identity)
    }

    /// This machine has executed something.
    pub fn note_executed(&self, identity: &str) {
        let mut executed = lock(&self.executed);
        if !executed.contains(identity) {
            executed.insert(identity.to_owned());
        }
    }

    /// By what a machine was reached last.
    pub fn noted(&self, machine: &MachineKey) -> Option<Arc<Declared>> {
        lock(&self.noted).get(machine).cloned()
    }

    /// Notes by what a machine was reached.
    pub fn note(&self, machine: MachineKey, declared: &Declared) {
        lock(&self.noted).insert(machine, Arc::new(declared.without_secrets()));
    }

    /// The Machine with this UID is no longer declared as it was: nobody is to use connections to or through it any more, but
    /// those by this generation. Those in use go when they are given back.
    pub fn forget(&self, uid: &str, but_for: Option<i64>) {
        let still = but_for.map(|generation| format!("{uid}/{generation}/"));
        let stays =
            |identity: &str| !identity.contains(uid) || still.as_ref().is_some_and(|still| identity.contains(still));
        lock(&self.noted).retain(|_, declared| stays(&declared.identity()));
        lock(&self.executed).retain(|identity| stays(identity));
        let mut members = Vec::new();
        // All of them at once: what is being closed must not be gone through by who comes meanwhile.
        for groups in [&self.groups, &self.carriers] {
            lock(groups).retain(|identity, group| {
                let stays = stays(identity);
                if !stays {
                    members.append(&mut lock(&group.members));
                }
                stays
            });
        }
        members.retain(|member| Arc::strong_count(member) == 1);
        // Whoever tells of the change does not wait for goodbyes. Each has a deadline.
        tokio::spawn(async move { close_all(&members).await });
    }

    /// Closes what nobody has used for a while, for as long as this process lives.
    pub async fn keep_tidy(&self) {
        loop {
            sleep(SWEEP).await;
            for groups in [&self.groups, &self.carriers] {
                for idle in take_idle(groups) {
                    idle.open.connection.close().await;
                }
            }
            let groups: HashSet<String> = lock(&self.groups).keys().cloned().collect();
            lock(&self.noted).retain(|_, declared| groups.contains(&declared.identity()));
        }
    }

    /// Brings the metric of open connections up to date.
    pub fn measure(&self) {
        for (purpose, groups) in [(Purpose::Commands, &self.groups), (Purpose::Jump, &self.carriers)] {
            let groups = lock(groups);
            let open = |group: &Arc<Group>| {
                lock(&group.members).iter().filter(|member| !member.open.connection.is_closed()).count()
            };
            metrics().connections(purpose, groups.values().map(open).sum());
        }
    }

    /// Closes all of them.
    pub async fn close(&self) {
        for groups in [&self.groups, &self.carriers] {
            let groups: Vec<Arc<Group>> = lock(groups).drain().map(|(_, group)| group).collect();
            let members: Vec<Arc<Member>> =
                groups.iter().flat_map(|group| lock(&group.members).drain(..).collect::<Vec<_>>()).collect();
            close_all(&members).await;
        }
    }
}

async fn close_all(members: &[Arc<Member>]) {
    futures::future::join_all(members.iter().map(|member| member.open.connection.close())).await;
}

fn take_idle(groups: &Mutex<HashMap<String, Arc<Group>>>) -> Vec<Arc<Member>> {
    let mut idle = Vec::new();
    lock(groups).retain(|_, group| {
        let mut members = lock(&group.members);
        members.retain(|member| {
            let keep = !member.is_idle(Arc::strong_count(member) > 1);
            if !keep {
                idle.push(Arc::clone(member));
            }
            keep
        });
        // Somebody who is opening one holds the group too.
        !members.is_empty() || Arc::strong_count(group) > 1
    });
    idle
}

#[expect(clippy::expect_used, reason = "the semaphore is never closed")]
async fn own_place(lines: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(lines).acquire_owned().await.expect("a semaphore that nobody closes")
}

impl Group {
    fn living(&self) -> Option<Arc<Member>> {
        let mut members = lock(&self.members);
        members.retain(|member| !member.open.connection.is_closed());
        members.first().map(Arc::clone)
    }

    /// For how many commands at a time there is room on the connections on which the machine executes.
    fn room(&self) -> usize {
        let members = lock(&self.members);
        let bearing = |member: &&Arc<Member>| member.known.initialized() && !member.open.connection.is_closed();
        members.iter().filter(bearing).map(|member| member.room()).sum()
    }

    /// A place on one of the connections that live, to this address if one is named; those that do not live are forgotten.
    fn free_line(&self, at: Option<&str>) -> Option<Line> {
        let mut members = lock(&self.members);
        members.retain(|member| !member.open.connection.is_closed());
        let fits = |member: &&Arc<Member>| {
            !member.is_full.load(Ordering::Relaxed) && at.is_none_or(|at| member.open.connection.at() == at)
        };
        members.iter().filter(fits).find_map(|member| {
            let place = Arc::clone(&member.lines).try_acquire_owned().ok()?;
            *lock(&member.used) = Instant::now();
            Some(Line { member: Arc::clone(member), _place: place })
        })
    }
}

impl Member {
    fn new(open: Open, lines: Arc<Semaphore>) -> Self {
        Self {
            open,
            is_told: AtomicBool::new(false),
            known: OnceCell::new(),
            turned_away: OnceLock::new(),
            lines,
            is_full: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
        }
    }

    /// How many commands it carries at most: one that is full carries those that it has.
    fn room(&self) -> usize {
        let free = if self.is_full.load(Ordering::Relaxed) { self.lines.available_permits() } else { 0 };
        LINES - free.min(LINES)
    }

    fn is_idle(&self, is_held: bool) -> bool {
        self.open.connection.is_closed() || (!is_held && lock(&self.used).elapsed() >= IDLE)
    }

    /// True once.
    fn is_news(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }
}

impl Carrier {
    pub fn connection(&self) -> &Connection {
        &self.0.open.connection
    }

    /// Whether nobody was told yet that the machine is there.
    pub fn is_news(&self) -> bool {
        self.0.is_news()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        *lock(&self.0.used) = Instant::now();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.member.is_full.store(false, Ordering::Relaxed);
        *lock(&self.member.used) = Instant::now();
    }
}

impl Line {
    pub fn connection(&self) -> &Connection {
        &self.member.open.connection
    }

    /// The connection does not do what it should: nobody is to use it any more.
    pub async fn give_up(&self) {
        self.member.open.connection.close().await;
    }

    /// Whether nobody was told yet that the machine is there.
    pub fn is_news(&self) -> bool {
        self.member.is_news()
    }

    /// Opens a session. Where the machine has none to spare for a moment, that moment is waited for.
    pub async fn open(&self) -> Result<Session, ConnectError> {
        let opened = open_patiently(self.connection()).await;
        if matches!(opened, Err(ConnectError::Busy(_))) {
            // It may allow fewer than usual (MaxSessions): others go by another connection.
            self.member.is_full.store(true, Ordering::Relaxed);
        }
        let slack = self.member.known.get().map_or(Duration::ZERO, Known::slack);
        opened.map(|mut session| {
            session.allow(slack);
            session
        })
    }

    /// What the machine says of itself, asked once for each connection. `directory` is the launcher's folder, where the
    /// Machine names one; it is the same for all who share a connection.
    pub async fn known(&self, directory: Option<&str>) -> Result<&Known, AskError> {
        let Member { known, turned_away, .. } = &*self.member;
        let asking = async || {
            if let Some(error) = turned_away.get() {
                return Err(error.clone());
            }
            let answer = probe(self.connection(), self.open().await?, directory).await;
            if let Err(error @ (AskError::TurnedAway(_) | AskError::Refused(_))) = &answer {
                let _ = turned_away.set(error.clone());
            }
            answer
        };
        known.get_or_try_init(asking).await
    }
}

/// Opens a session; where the machine has none to spare, a few more times.
pub(super) async fn open_patiently(connection: &Connection) -> Result<Session, ConnectError> {
    let mut tries = 0;
    loop {
        let opened = connection.open(OPEN_DEADLINE).await;
        metrics().session(opened.as_ref().map_or_else(ConnectError::category, |_| "opened"));
        match opened {
            Err(ConnectError::Busy(message)) if tries < BUSY_TRIES => {
                tracing::debug!(message, "the machine has no session to spare; trying again");
                sleep(BUSY_PAUSE.saturating_mul(1 << tries)).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 machines behind a jump host that swallows packets: each must learn of it in the time of one attempt.
    #[tokio::test]
    async fn who_waits_for_a_dead_jump_host_shares_its_failure() {
        let connections = Connections::default();
        let started = Instant::now();
        let attempt = || {
            connections.carrier("hop", async || {
                sleep(Duration::from_millis(100)).await;
                Err(AttemptEnd::Offline("silence".to_owned()))
            })
        };
        let all = futures::future::join_all((0..8).map(|_| attempt())).await;
        assert!(all.iter().all(Result::is_err));
        assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    }
}
