//! Computes the deadlines of a claimed command in Durable mode, and the pauses between the sessions for this command.
//! Writ enforces each deadline itself, so a machine gains no time by false, late or repeated reports.
//!
//! All times are durations since the claim. Only these two reports of a machine move a deadline:
//!
//! 1. The confirmed start. Only the first report counts, and its time is at most one `run` (see below) after the launch
//!    or the last adoption, whichever is later.
//! 2. Received output, which moves the end by one second for each [`MIN_RATE`] bytes, up to the rule's output limit.
//!
//! ```text
//! run  = timeoutSeconds + drainSeconds + END_GRACE + unreachable   unreachable: writ serve --unreachable-seconds
//! base = the start that is stored, else the confirmed start, else when the launch was sent, else the claim
//! end  = base + run + received / MIN_RATE                          not before TAKEOVER after the last adoption
//! stop = the first stop request + stop timeout                     writ serve --stop-seconds; includes FINAL_POLL
//! ```

use std::time::Duration;

use crate::backoff::Backoff;

/// Time between the signals TERM and KILL when the machine's watchdog ends a command.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// Time for the machine's watchdog to end a command that exceeded its limits, and to report the end. After this time,
/// Writ itself sends a stop request.
pub const END_GRACE: Duration = Duration::from_secs(35);
/// Minimum time for a holder, after it adopted a claim, to read the journal and to deliver a stop request.
pub const TAKEOVER: Duration = Duration::from_secs(120);
/// Maximum duration of the final request. Writ sends this request after the deadline, to learn if the command ended.
pub const FINAL_POLL: Duration = Duration::from_secs(20);
/// Minimum rate of output, in bytes per second. If output arrives at this rate or faster, Writ reads it to its end,
/// even after the deadline.
pub const MIN_RATE: u64 = 32 << 10;

/// Limits of one command, from its decision and from the flags of `writ serve`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Timeout of the command (`decision.timeoutSeconds`).
    pub timeout: Duration,
    /// Maximum wait for output after the exit of the command (`decision.output.drainSeconds`).
    pub drain: Duration,
    /// Maximum size of the output, in bytes (`decision.output.maximumBytes`).
    pub maximum_bytes: u64,
    /// Maximum time for which Writ waits for an unreachable machine, after timeout, drain and [`END_GRACE`].
    pub unreachable_timeout: Duration,
    /// Maximum time from a stop request to the end of the execution. After this time the execution finishes, whatever
    /// the machine reports.
    pub stop_timeout: Duration,
}

impl Limits {
    /// Returns the maximum duration of a run, from its start. Includes the time that Writ waits for an unreachable
    /// machine.
    fn run(&self) -> Duration {
        self.until_stop().saturating_add(self.unreachable_timeout)
    }

    /// Returns the maximum time from the start of the command until the machine has ended the command.
    fn until_stop(&self) -> Duration {
        self.timeout.saturating_add(self.drain).saturating_add(END_GRACE)
    }
}

/// Deadlines of one command. Each deadline is a duration since the claim.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadlines {
    limits: Limits,
    sent: Option<Duration>,
    stored_start: Option<Duration>,
    started: Option<Duration>,
    stop: Option<Duration>,
    taken_over: Option<Duration>,
    received: u64,
}

impl Deadlines {
    /// Returns the deadlines of a command that was claimed and not launched yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Records the time at which the holder sends the launch. Only the first launch of a holder counts.
    pub fn note_sent(&mut self, at: Duration) {
        self.sent.get_or_insert(at);
    }

    /// Records the confirmed start that the status already has.
    pub fn note_stored_start(&mut self, at: Duration) {
        self.stored_start.get_or_insert(at);
    }

    /// Records the confirmed start. Only the first report to this holder counts. `at` is the time that the machine
    /// measured. If `at` is outside of the following range, the nearest end of the range counts:
    ///
    /// - Earliest time: the holder's launch.
    /// - Latest time: [`Limits::run`] after the launch or the adoption, whichever is later.
    pub fn note_started(&mut self, at: Duration) {
        let sent = self.sent.unwrap_or_default();
        let latest = sent.max(self.taken_over.unwrap_or_default()).saturating_add(self.limits.run());
        self.started.get_or_insert(at.max(sent).min(latest));
    }

    /// Records a stop request from a user or from Writ itself. Only the earliest request counts.
    pub fn note_stop(&mut self, at: Duration) {
        self.stop = Some(self.stop.map_or(at, |stop| stop.min(at)));
    }

    /// Records that this holder adopted the claim from another holder.
    pub fn note_takeover(&mut self, at: Duration) {
        self.taken_over = Some(at);
    }

    /// Records the number of output bytes received so far. Bytes over the rule's output limit do not count.
    pub fn note_received(&mut self, bytes: u64) {
        self.received = self.received.max(bytes).min(self.limits.maximum_bytes);
    }

    /// Returns true if there was a stop request.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Returns the time at which Writ itself sends a stop request, because the machine did not end the command in time.
    /// Returns `None` until the machine has confirmed the start to this holder.
    ///
    /// The time counts from the start that the machine measured. A wrong clock of Writ therefore cannot end a healthy
    /// command.
    pub fn stop_due(&self) -> Option<Duration> {
        self.started.map(|started| started.saturating_add(self.limits.until_stop()))
    }

    /// Returns the time at which Writ stops following the command. If Writ does not know the command's end by then,
    /// Writ sends a final request of at most [`FINAL_POLL`].
    pub fn end(&self) -> Duration {
        let base = self.stored_start.or(self.started).or(self.sent).unwrap_or_default();
        let run = base.saturating_add(self.limits.run()).max(self.at_takeover(TAKEOVER));
        let run = run.saturating_add(Duration::from_millis(self.received.saturating_mul(1000) / MIN_RATE));
        let Some(stop) = self.stop else { return run };
        let patience = self.limits.stop_timeout;
        // The stop timeout includes `FINAL_POLL`. At least half of the stop timeout remains for following the command.
        let followed = patience.saturating_sub(FINAL_POLL).max(patience / 2);
        run.min(stop.saturating_add(followed).max(self.at_takeover(TAKEOVER.min(followed))))
    }

    fn at_takeover(&self, patience: Duration) -> Duration {
        self.taken_over.map_or(Duration::ZERO, |at| at.saturating_add(patience))
    }
}

/// Pauses between the sessions for one command. Only progress of the command and long sessions shorten the pauses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    failures: u32,
    sessions: u32,
    /// Time at which the average rate allows the next session. Each session adds [`SESSION_EVERY`]. Received output
    /// subtracts [`SESSION_EVERY`] for each [`BYTES_OF_SESSION`].
    paid: Duration,
    /// Number of received bytes since the last full [`BYTES_OF_SESSION`].
    bytes: u64,
}

/// Pause after the first failure. The pause doubles with each failure, up to [`MAX_BACKOFF`].
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF: Backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
/// Average interval between sessions.
const SESSION_EVERY: Duration = Duration::from_secs(10);
/// Number of sessions that may start faster than the average rate, for example while a machine restarts.
const EARLY_SESSIONS: u32 = 20;
/// Number of received output bytes that allow one more session: the size of the launcher's smallest output frame. A
/// large output therefore arrives even if each session delivers only one frame.
const BYTES_OF_SESSION: u64 = 16 << 10;
/// Minimum pause after [`EARLY_SESSIONS`] sessions, even if the command makes progress.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Minimum duration of a long session. After a long session, the pauses start again from the shortest pause.
const LONG_SESSION: Duration = Duration::from_secs(60);

impl Pace {
    /// Returns the pause before the next session, and counts this next session.
    pub fn pause(&mut self, now: Duration) -> Duration {
        let doubled = BACKOFF.delay(self.failures, 0.0);
        self.failures = self.failures.saturating_add(1);
        let due = self.paid.saturating_sub(SESSION_EVERY.saturating_mul(EARLY_SESSIONS));
        self.sessions = self.sessions.saturating_add(1);
        let shortest = if self.sessions > EARLY_SESSIONS { MIN_BACKOFF } else { Duration::ZERO };
        let pause = doubled.max(due.saturating_sub(now)).max(shortest);
        self.paid = self.paid.max(now).saturating_add(SESSION_EVERY);
        pause
    }

    /// Records new bytes of output.
    pub fn note_bytes(&mut self, bytes: u64) {
        self.failures = 0;
        self.bytes = self.bytes.saturating_add(bytes);
        let sessions = u32::try_from(self.bytes / BYTES_OF_SESSION).unwrap_or(u32::MAX);
        self.bytes %= BYTES_OF_SESSION;
        self.paid = self.paid.saturating_sub(SESSION_EVERY.saturating_mul(sessions));
    }

    /// Records that the state of the journal advanced. The pauses then start again from the shortest pause.
    pub fn note_step(&mut self) {
        self.failures = 0;
    }

    /// Records the end of a session.
    pub fn note_session(&mut self, lasted: Duration) {
        if lasted >= LONG_SESSION {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests;
