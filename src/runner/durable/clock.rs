//! The deadlines of one command on this process's monotonic clock, and the pauses between its sessions.
//!
//! The age of the claim is taken from the API server's clock once, when this process begins. From then on, a clock that jumps
//! changes nothing.

use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::CommandExecution;
use crate::execution::{Deadlines, Limits, Pace};
use crate::fleet::lock;

/// Time that an orderly end of a session gets before the step is cut off. Both notice the deadline at the same moment.
const OVERDUE: Duration = Duration::from_secs(2);

/// The clock of one command. Its step in progress and whoever ends that step share it.
pub(super) struct Clock {
    begun: Instant,
    /// The same moment, by the API server's clock.
    begun_time: Timestamp,
    /// How old the claim was then.
    age: Duration,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    deadlines: Deadlines,
    pace: Pace,
    cancel_noticed: Option<Timestamp>,
}

impl Clock {
    /// Of a claimed execution, as it was stored. `now` is the time by the API server's clock.
    pub fn new(execution: &CommandExecution, limits: Limits, is_taken_over: bool, now: Timestamp) -> Self {
        let claimed = execution.claim().map(|claim| claim.dispatched_time.0);
        let since_claim = |time: Timestamp| {
            claimed.and_then(|claimed| Duration::try_from(time.duration_since(claimed)).ok()).unwrap_or_default()
        };
        let age = since_claim(now);
        let status = execution.status.as_ref();
        let mut deadlines = Deadlines::new(limits);
        if is_taken_over {
            deadlines.note_takeover(age);
        } else {
            deadlines.note_sent(age);
        }
        if let Some(started) = status.and_then(|status| status.start_time.as_ref()) {
            deadlines.note_stored_start(since_claim(started.0).min(age));
        }
        let cancel_noticed = status.and_then(|status| status.stop_requested_time.as_ref()).map(|time| time.0);
        if let Some(noticed) = cancel_noticed {
            deadlines.note_stop(since_claim(noticed).min(age));
        }
        let state = State { deadlines, pace: Pace::default(), cancel_noticed };
        Self { begun: Instant::now(), begun_time: now, age, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Time since the claim.
    pub fn now(&self) -> Duration {
        self.age.saturating_add(self.begun.elapsed())
    }

    /// The moment that is so long after the claim.
    fn at(&self, since_claim: Duration) -> Instant {
        let wait = since_claim.saturating_sub(self.age);
        // Longer than any deadline: what cannot be said as a moment is not waited for in any case.
        self.begun.checked_add(wait).unwrap_or_else(|| self.begun + Duration::from_secs(86_400 * 365))
    }

    /// Until when the command is followed, as far as is known now.
    pub fn end(&self) -> Instant {
        self.at(lock(&self.state).deadlines.end())
    }

    /// When a stop request of our own is due; None before the start was confirmed.
    pub fn stop_due(&self) -> Option<Instant> {
        lock(&self.state).deadlines.stop_due().map(|due| self.at(due))
    }

    /// When it was noticed that somebody wants the command to stop.
    pub fn cancel_noticed(&self) -> Option<Timestamp> {
        lock(&self.state).cancel_noticed
    }

    pub fn note_sent(&self) {
        let now = self.now();
        lock(&self.state).deadlines.note_sent(now);
    }

    /// The machine says that it has started the command so long ago, by its own clock.
    pub fn note_started(&self, ago: Duration) {
        let at = self.now().saturating_sub(ago);
        lock(&self.state).deadlines.note_started(at);
        self.changed.notify_one();
    }

    /// A stop request was decided on.
    pub fn note_stop(&self) {
        let now = self.now();
        lock(&self.state).deadlines.note_stop(now);
        self.changed.notify_one();
    }

    pub fn note_cancel(&self) {
        let since = self.begun.elapsed();
        lock(&self.state).cancel_noticed.get_or_insert_with(|| {
            // Only the end of time is later than what can be added.
            SignedDuration::try_from(since)
                .ok()
                .and_then(|since| self.begun_time.checked_add(since).ok())
                .unwrap_or(self.begun_time)
        });
        self.note_stop();
    }

    /// So many new bytes of output arrived, which makes so many in all that count.
    pub fn note_bytes(&self, new: u64, in_all: u64) {
        let mut state = lock(&self.state);
        state.deadlines.note_received(in_all);
        state.pace.note_bytes(new);
    }

    /// The journal moved forward.
    pub fn note_step(&self) {
        lock(&self.state).pace.note_step();
    }

    /// A session has ended.
    pub fn note_session(&self, lasted: Duration) {
        lock(&self.state).pace.note_session(lasted);
    }

    /// The pause before the next session.
    pub fn pause(&self) -> Duration {
        let now = self.now();
        lock(&self.state).pace.pause(now)
    }

    /// What something comes to; None if the deadline is over before.
    pub async fn in_time<T>(&self, cancel: &CancellationToken, something: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = something => Some(done),
            () = self.over(cancel) => None,
        }
    }

    /// Waits for the deadline, and notices a cancellation. Bytes that arrive move the deadline, so it is read again.
    pub async fn over(&self, cancel: &CancellationToken) {
        loop {
            let end = self.end() + OVERDUE;
            if Instant::now() >= end {
                return;
            }
            tokio::select! {
                () = cancel.cancelled(), if self.cancel_noticed().is_none() => self.note_cancel(),
                () = self.changed.notified() => {}
                () = sleep_until(end) => {}
            }
        }
    }
}

/// Returns a duration as the launcher counts it, in hundredths of a second.
pub(super) fn centiseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis() / 10).unwrap_or(u64::MAX)
}
