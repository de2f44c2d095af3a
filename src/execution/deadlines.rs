//! Deadlines of a claimed command in Durable mode, and pauses between sessions. Writ enforces every limit that it gives
//! to a machine, so a machine that lies, stalls or repeats itself gains nothing.
//!
//! All times are durations since the claim. Reports of a machine do not move a deadline, with two bounded exceptions.
//! The confirmed start counts once, and at most one whole run after the launch or the last adoption. Received output
//! adds a second for each [`MIN_RATE`] bytes, up to the rule's output limit.
//!
//! ```text
//! run  = timeoutSeconds + drainSeconds + END_GRACE + unreachable   unreachable: writ serve --unreachable-seconds
//! base = the start that is stored, else the confirmed start, else when the launch was sent, else the claim
//! end  = base + run + received / MIN_RATE                          not before TAKEOVER after the last adoption
//! stop = the first stop request + stop timeout                     writ serve --stop-seconds; includes FINAL_POLL
//! ```

use std::time::Duration;

use crate::backoff::Backoff;

/// Time between TERM and KILL if the machine's watchdog ends a command.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// Time for the machine's watchdog to end a command and report its end, after the limits of the command. Then Writ
/// sends a stop request.
pub const END_GRACE: Duration = Duration::from_secs(35);
/// Minimum time of a holder after it adopted a claim, to read the journal and to deliver a stop request.
pub const TAKEOVER: Duration = Duration::from_secs(120);
/// Time after the deadline for the final request to the machine: did the command end?
pub const FINAL_POLL: Duration = Duration::from_secs(20);
/// Minimum rate of output, in bytes per second. Output that arrives at this rate or faster is read to its end, also
/// after the deadline.
pub const MIN_RATE: u64 = 32 << 10;

/// Limits of one command, from its decision and from the flags of `writ serve`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// `decision.timeoutSeconds`.
    pub timeout: Duration,
    /// `decision.output.drainSeconds`.
    pub drain: Duration,
    /// `decision.output.maximumBytes`.
    pub maximum_bytes: u64,
    /// Maximum time beyond the timeout during which the machine may be unreachable.
    pub unreachable_timeout: Duration,
    /// Time after a stop request at which the execution finishes, whatever the machine reports.
    pub stop_timeout: Duration,
}

impl Limits {
    /// Returns the longest run from its start, including the time for an unreachable machine.
    fn run(&self) -> Duration {
        self.until_stop().saturating_add(self.unreachable_timeout)
    }

    /// Returns the time from the start after which the machine must have ended the command.
    fn until_stop(&self) -> Duration {
        self.timeout.saturating_add(self.drain).saturating_add(END_GRACE)
    }
}

/// Deadlines of one command. Each is absolute: a duration since the claim.
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
    /// Returns the deadlines of a command that was only claimed.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Records that the holder sends the launch. Only the first launch of a holder counts.
    pub fn note_sent(&mut self, at: Duration) {
        self.sent.get_or_insert(at);
    }

    /// Records the confirmed start that another holder stored.
    pub fn note_stored_start(&mut self, at: Duration) {
        self.stored_start.get_or_insert(at);
    }

    /// Records the confirmed start, at the time that the machine measured. Only the first report to this holder counts.
    /// It is not before the holder's launch, and at most one run after the launch or the adoption.
    pub fn note_started(&mut self, at: Duration) {
        let sent = self.sent.unwrap_or_default();
        let latest = sent.max(self.taken_over.unwrap_or_default()).saturating_add(self.limits.run());
        self.started.get_or_insert(at.max(sent).min(latest));
    }

    /// Records a stop request, by a user or by Writ itself. The first one counts.
    pub fn note_stop(&mut self, at: Duration) {
        self.stop = Some(self.stop.map_or(at, |stop| stop.min(at)));
    }

    /// Records that another holder adopted the claim.
    pub fn note_takeover(&mut self, at: Duration) {
        self.taken_over = Some(at);
    }

    /// Records the number of bytes of output received so far that belong to the record.
    pub fn note_received(&mut self, bytes: u64) {
        self.received = self.received.max(bytes).min(self.limits.maximum_bytes);
    }

    /// Returns true if there was a stop request.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Returns the time at which Writ sends a stop request of its own, because the machine did not end the command in
    /// time. It counts from the start as the machine measured it, because a wrong clock of Writ must not end a healthy
    /// command. `None` before the machine has confirmed the start to this holder.
    pub fn stop_due(&self) -> Option<Duration> {
        self.started.map(|started| started.saturating_add(self.limits.until_stop()))
    }

    /// Returns the time at which Writ stops following the command. If the end is unknown then, Writ sends a final
    /// request, which may take [`FINAL_POLL`].
    pub fn end(&self) -> Duration {
        let base = self.stored_start.or(self.started).or(self.sent).unwrap_or_default();
        let run = base.saturating_add(self.limits.run()).max(self.at_takeover(TAKEOVER));
        let run = run.saturating_add(Duration::from_millis(self.received.saturating_mul(1000) / MIN_RATE));
        let Some(stop) = self.stop else { return run };
        let patience = self.limits.stop_timeout;
        // The final request is part of the stop timeout, unless the timeout is very short.
        let followed = patience.saturating_sub(FINAL_POLL).max(patience / 2);
        run.min(stop.saturating_add(followed).max(self.at_takeover(TAKEOVER.min(followed))))
    }

    fn at_takeover(&self, patience: Duration) -> Duration {
        self.taken_over.map_or(Duration::ZERO, |at| at.saturating_add(patience))
    }
}

/// Pauses between the sessions for one command. Only progress of the command shortens them, not reports of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    failures: u32,
    sessions: u32,
    /// Time at which all sessions so far are within the rate of one per [`SESSION_EVERY`].
    paid: Duration,
    /// Received bytes that do not count as an additional session yet.
    bytes: u64,
}

/// Pause after the first failure. It doubles up to [`MAX_BACKOFF`].
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF: Backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
/// Average interval between sessions.
const SESSION_EVERY: Duration = Duration::from_secs(10);
/// Number of sessions that may come sooner, for a bad network or a machine that restarts.
const EARLY_SESSIONS: u32 = 20;
/// Bytes of output (a smallest frame) that allow one more session, so that a large output arrives even if the
/// connection breaks often.
const BYTES_OF_SESSION: u64 = 16 << 10;
/// Shortest pause after the early sessions, whatever the progress.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Duration of a session after which the pauses start again from the shortest, because such sessions are rare.
const LONG_SESSION: Duration = Duration::from_secs(60);

impl Pace {
    /// Returns the pause before the next session, and counts that session.
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

    /// Records progress in the journal.
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
