//! Computes the deadlines of one command, and the pauses between its sessions.
//!
//! The deadlines use the monotonic clock of this process. Writ reads the API server's clock only at the start of the
//! run, for the age of the claim. A later jump of the API server's clock therefore changes no deadline.

use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::CommandExecution;
use crate::execution::{Deadlines, Limits, Pace};
use crate::fleet::lock;

/// Time from the deadline until Writ aborts the running step. During this time, the session can still end by itself.
const OVERDUE: Duration = Duration::from_secs(2);

/// Clock of one command. The running step shares the clock with the code that ends the step at the deadline.
pub(super) struct Clock {
    begun: Instant,
    /// Time of `begun` by the API server's clock.
    begun_time: Timestamp,
    /// Age of the claim at `begun`.
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
    /// Returns the clock of a claimed execution. `execution` is the stored object, `now` the current time by the API
    /// server's clock.
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

    /// Returns the time since the claim.
    pub fn now(&self) -> Duration {
        self.age.saturating_add(self.begun.elapsed())
    }

    /// Converts a duration since the claim to a moment on the clock of this process.
    fn at(&self, since_claim: Duration) -> Instant {
        let wait = since_claim.saturating_sub(self.age);
        // If the moment exceeds the range of `Instant`, a year replaces it. No deadline is as long as a year.
        self.begun.checked_add(wait).unwrap_or_else(|| self.begun + Duration::from_secs(86_400 * 365))
    }

    /// Returns the time at which Writ stops following the command, per the current deadlines.
    pub fn end(&self) -> Instant {
        self.at(lock(&self.state).deadlines.end())
    }

    /// Returns the time at which Writ stops an overdue command. Returns `None` before the start is confirmed.
    pub fn stop_due(&self) -> Option<Instant> {
        lock(&self.state).deadlines.stop_due().map(|due| self.at(due))
    }

    /// Returns the time at which Writ noticed the request to cancel the command.
    pub fn cancel_noticed(&self) -> Option<Timestamp> {
        lock(&self.state).cancel_noticed
    }

    pub fn note_sent(&self) {
        let now = self.now();
        lock(&self.state).deadlines.note_sent(now);
    }

    /// Records that the machine started the command `ago` before now, by the machine's clock.
    pub fn note_started(&self, ago: Duration) {
        let at = self.now().saturating_sub(ago);
        lock(&self.state).deadlines.note_started(at);
        self.changed.notify_one();
    }

    /// Records the decision to stop the command.
    pub fn note_stop(&self) {
        let now = self.now();
        lock(&self.state).deadlines.note_stop(now);
        self.changed.notify_one();
    }

    pub fn note_cancel(&self) {
        let since = self.begun.elapsed();
        lock(&self.state).cancel_noticed.get_or_insert_with(|| {
            // The sum fails only if it exceeds the latest representable time.
            SignedDuration::try_from(since)
                .ok()
                .and_then(|since| self.begun_time.checked_add(since).ok())
                .unwrap_or(self.begun_time)
        });
        self.note_stop();
    }

    /// Records `new` bytes of output. `in_all` is the number of all received bytes.
    pub fn note_bytes(&self, new: u64, in_all: u64) {
        let mut state = lock(&self.state);
        state.deadlines.note_received(in_all);
        state.pace.note_bytes(new);
    }

    /// Records that the state of the journal advanced. The pauses then start again from the shortest pause.
    pub fn note_step(&self) {
        lock(&self.state).pace.note_step();
    }

    /// Records the end of a session.
    pub fn note_session(&self, lasted: Duration) {
        lock(&self.state).pace.note_session(lasted);
    }

    /// Returns the pause before the next session.
    pub fn pause(&self) -> Duration {
        let now = self.now();
        lock(&self.state).pace.pause(now)
    }

    /// Returns the result of `something`, or `None` if `something` still runs at [`OVERDUE`] after the deadline.
    pub async fn in_time<T>(&self, cancel: &CancellationToken, something: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = something => Some(done),
            () = self.over(cancel) => None,
        }
    }

    /// Waits until [`OVERDUE`] after the deadline, and records a cancellation during the wait. Reads the deadline
    /// repeatedly, because received bytes move the deadline.
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

/// Returns a duration in hundredths of a second, the unit of the launcher.
pub(super) fn centiseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis() / 10).unwrap_or(u64::MAX)
}
