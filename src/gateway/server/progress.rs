//! Progress of one connection: the phase between requests, and its deadline.
//!
//! hyper's own deadline for heads also counts the time in which a connection waits for its next request. So it would
//! either close waiting connections early, or allow slow heads. Writ therefore counts both times here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::room::Standing;

/// Phase of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// No request was complete yet.
    New,
    /// The connection waits for its next request.
    Idle,
    /// A part of the next request's head has arrived.
    Receiving,
    /// A request is in progress.
    Busy,
    /// The connection carries another protocol, such as WebSocket.
    Upgraded,
}

/// Progress of a connection.
#[derive(Debug)]
pub(super) struct Progress {
    head_deadline: Duration,
    idle_timeout: Duration,
    phase: Mutex<(Phase, Instant)>,
    changed: Notify,
}

impl Progress {
    /// Creates the progress of a new connection.
    pub(super) fn new(head_deadline: Duration, idle_timeout: Duration) -> Self {
        let phase = Mutex::new((Phase::New, Instant::now()));
        Self { head_deadline, idle_timeout, phase, changed: Notify::new() }
    }

    /// Records the end of the TLS handshake. The time for the first request starts here.
    pub(super) fn record_handshake(&self) {
        self.change(Phase::New, |_| true);
    }

    /// Records that bytes have arrived.
    pub(super) fn record_bytes(&self) {
        self.change(Phase::Receiving, |phase| phase == Phase::Idle);
    }

    /// Records the complete head of a request.
    pub(super) fn record_request(&self) {
        self.change(Phase::Busy, |phase| phase != Phase::Upgraded);
    }

    /// Records the end of an answer.
    pub(super) fn record_answer(&self) {
        self.change(Phase::Idle, |phase| phase == Phase::Busy);
    }

    /// Records that the connection carries another protocol from now on.
    pub(super) fn record_upgrade(&self) {
        self.change(Phase::Upgraded, |_| true);
    }

    /// Returns the state for the choice of the connection to replace.
    pub(super) fn standing(&self) -> Standing {
        match self.phase().0 {
            Phase::New => Standing::New,
            Phase::Idle | Phase::Receiving => Standing::Waiting,
            Phase::Busy | Phase::Upgraded => Standing::Busy,
        }
    }

    /// Waits until the deadline of a phase has passed.
    pub(super) async fn overdue(&self) {
        loop {
            match self.deadline() {
                Some(deadline) if deadline <= Instant::now() => return,
                Some(deadline) => {
                    let _ = timeout_at(deadline, self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let (phase, since) = *self.phase();
        match phase {
            Phase::New | Phase::Receiving => Some(since + self.head_deadline),
            Phase::Idle => Some(since + self.idle_timeout),
            Phase::Busy | Phase::Upgraded => None,
        }
    }

    fn change(&self, to: Phase, is_possible: impl FnOnce(Phase) -> bool) {
        let mut phase = self.phase();
        if is_possible(phase.0) {
            *phase = (to, Instant::now());
            self.changed.notify_one();
        }
    }

    fn phase(&self) -> MutexGuard<'_, (Phase, Instant)> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    /// Returns true if the deadline is `time` from now. The test has 5 s to get here.
    fn is_due_in(progress: &Progress, time: Duration) -> bool {
        let now = Instant::now();
        progress
            .deadline()
            .is_some_and(|deadline| deadline <= now + time && deadline + Duration::from_secs(5) > now + time)
    }

    #[test]
    fn the_bytes_of_a_first_request_do_not_prolong_its_deadline() {
        let progress = Progress::new(HEAD, IDLE);
        let deadline = progress.deadline();
        assert!(is_due_in(&progress, HEAD));
        progress.record_bytes();
        assert_eq!((progress.deadline(), progress.standing()), (deadline, Standing::New));
    }

    #[test]
    fn a_waiting_connection_has_more_time_than_a_head() {
        let progress = Progress::new(HEAD, IDLE);
        progress.record_request();
        assert_eq!((progress.deadline(), progress.standing()), (None, Standing::Busy));
        progress.record_bytes();
        progress.record_answer();
        assert_eq!(progress.standing(), Standing::Waiting);
        assert!(is_due_in(&progress, IDLE));
        progress.record_bytes();
        let deadline = progress.deadline();
        assert!(is_due_in(&progress, HEAD));
        progress.record_bytes();
        assert_eq!((progress.deadline(), progress.standing()), (deadline, Standing::Waiting));
    }

    #[test]
    fn an_upgraded_connection_has_no_deadline() {
        let progress = Progress::new(HEAD, IDLE);
        progress.record_request();
        progress.record_upgrade();
        progress.record_answer();
        progress.record_bytes();
        assert_eq!((progress.deadline(), progress.standing()), (None, Standing::Busy));
    }

    #[tokio::test]
    async fn a_deadline_that_starts_during_the_wait_counts() {
        let progress = Progress::new(HEAD, Duration::from_millis(20));
        progress.record_request();
        let answer = async {
            tokio::task::yield_now().await;
            progress.record_answer();
        };
        let both = async { tokio::join!(progress.overdue(), answer) };
        assert!(timeout_at(Instant::now() + Duration::from_secs(5), both).await.is_ok());
    }
}
