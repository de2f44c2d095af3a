//! Until when Writ follows a claimed command in Durable mode, and how often it asks the machine. Every limit that a machine
//! is asked to keep is kept here too, so a machine that lies, stalls or repeats itself gains nothing.
//!
//! All times are durations since the claim. Nothing that a machine says moves a deadline, with two exceptions, both bounded:
//! the confirmed start (once, and at most one whole run after the launch or the last takeover) and received output (a second
//! for each [`LOWEST_RATE`] bytes, up to the rule's output limit).
//!
//! ```text
//! run  = timeoutSeconds + drainSeconds + END_GRACE + patience      patience: writ serve --unreachable-seconds
//! base = the start that is stored, else the confirmed start, else when the launch was sent, else the claim
//! end  = base + run + received / LOWEST_RATE                       not before TAKEOVER after the last takeover
//! stop = the first stop request + stop patience                    writ serve --stop-seconds; includes LAST_LOOK
//! ```

use std::time::Duration;

/// Time between TERM and KILL, where the machine's watchdog ends a command.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// Time for the machine's own watchdog to end a command and report that, after the limits of the command. Then Writ sends a
/// stop request.
pub const END_GRACE: Duration = Duration::from_secs(35);
/// Time that a holder which takes a claim over has at least: to read what the machine has recorded in the meantime, and to
/// deliver a stop request.
pub const TAKEOVER: Duration = Duration::from_secs(120);
/// Time for the last question, behind the deadline: did the command end?
pub const LAST_LOOK: Duration = Duration::from_secs(20);
/// Output that arrives at this rate or faster, in bytes for each second, is read to its end, also behind the deadline.
pub const LOWEST_RATE: u64 = 32 << 10;

/// Limits of one command, from its decision and from the flags of `writ serve`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// `decision.timeoutSeconds`.
    pub timeout: Duration,
    /// `decision.output.drainSeconds`.
    pub drain: Duration,
    /// `decision.output.maximumBytes`.
    pub maximum_bytes: u64,
    /// How long, beyond its timeout, the machine may be out of reach.
    pub patience: Duration,
    /// How long after a stop request the execution ends, whatever the machine says.
    pub stop_patience: Duration,
}

impl Limits {
    /// Longest run from its start, with the patience for a machine that is out of reach.
    fn run(&self) -> Duration {
        self.until_stop().saturating_add(self.patience)
    }

    /// Time from the start after which the machine must have ended the command.
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
    /// Of a command that was claimed, and of which nothing else is known.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The holder sends the launch. Only the first launch of a holder counts.
    pub fn note_sent(&mut self, at: Duration) {
        self.sent.get_or_insert(at);
    }

    /// Another holder has stored when the machine confirmed the start.
    pub fn note_stored_start(&mut self, at: Duration) {
        self.stored_start.get_or_insert(at);
    }

    /// The machine confirmed the start, which was at this time if what it measured is right. Only what this holder hears
    /// first counts: not before its own launch, and not beyond one run after that or after the takeover.
    pub fn note_started(&mut self, at: Duration) {
        let sent = self.sent.unwrap_or_default();
        let latest = sent.max(self.taken_over.unwrap_or_default()).saturating_add(self.limits.run());
        self.started.get_or_insert(at.max(sent).min(latest));
    }

    /// Somebody wants the command to stop, or Writ has decided to stop it. The first time counts.
    pub fn note_stop(&mut self, at: Duration) {
        self.stop = Some(self.stop.map_or(at, |stop| stop.min(at)));
    }

    /// Another holder took the claim over.
    pub fn note_takeover(&mut self, at: Duration) {
        self.taken_over = Some(at);
    }

    /// Number of bytes of output that were received so far, and count for the record.
    pub fn note_received(&mut self, bytes: u64) {
        self.received = self.received.max(bytes).min(self.limits.maximum_bytes);
    }

    /// Whether a stop was noted.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// When Writ sends a stop request of its own, because the machine did not end the command in time. It counts from the
    /// start as the machine measures it: a clock of Writ's that is wrong must not end a healthy command. None before the
    /// machine has confirmed the start to this holder.
    pub fn stop_due(&self) -> Option<Duration> {
        self.started.map(|started| started.saturating_add(self.limits.until_stop()))
    }

    /// When Writ stops following the command. What it does not know then, it asks once more, for [`LAST_LOOK`].
    pub fn end(&self) -> Duration {
        let base = self.stored_start.or(self.started).or(self.sent).unwrap_or_default();
        let run = base.saturating_add(self.limits.run()).max(self.at_takeover(TAKEOVER));
        let run = run.saturating_add(Duration::from_millis(self.received.saturating_mul(1000) / LOWEST_RATE));
        let Some(stop) = self.stop else { return run };
        let patience = self.limits.stop_patience;
        // The last look is a part of the patience, unless that is very short.
        let followed = patience.saturating_sub(LAST_LOOK).max(patience / 2);
        run.min(stop.saturating_add(followed).max(self.at_takeover(TAKEOVER.min(followed))))
    }

    fn at_takeover(&self, patience: Duration) -> Duration {
        self.taken_over.map_or(Duration::ZERO, |at| at.saturating_add(patience))
    }
}

/// Pauses between the sessions for one command. Words of the machine change nothing; progress does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    failures: u32,
    sessions: u32,
    /// When all sessions so far are paid for, at one in [`SESSION_EVERY`].
    paid: Duration,
    /// Bytes that were not changed into sessions yet.
    bytes: u64,
}

/// The pause after the first failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// One session for each such time, on average.
const SESSION_EVERY: Duration = Duration::from_secs(10);
/// Sessions that may come sooner: a bad line, and a machine that restarts.
const EARLY_SESSIONS: u32 = 20;
/// So many bytes of output (a smallest frame) are worth one more session: a line that breaks often still gets a large output
/// through.
const BYTES_OF_SESSION: u64 = 16 << 10;
/// The shortest pause behind the early sessions, whatever the progress.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// A session that lasted so long starts the pauses anew: it is rare by itself.
const LONG_SESSION: Duration = Duration::from_secs(60);

impl Pace {
    /// The pause before the next session, which is counted.
    pub fn pause(&mut self, now: Duration) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let due = self.paid.saturating_sub(SESSION_EVERY.saturating_mul(EARLY_SESSIONS));
        self.sessions = self.sessions.saturating_add(1);
        let shortest = if self.sessions > EARLY_SESSIONS { SHORTEST_PAUSE } else { Duration::ZERO };
        let pause = doubled.max(due.saturating_sub(now)).max(shortest);
        self.paid = self.paid.max(now).saturating_add(SESSION_EVERY);
        pause
    }

    /// New bytes of output were received.
    pub fn note_bytes(&mut self, bytes: u64) {
        self.failures = 0;
        self.bytes = self.bytes.saturating_add(bytes);
        let sessions = u32::try_from(self.bytes / BYTES_OF_SESSION).unwrap_or(u32::MAX);
        self.bytes %= BYTES_OF_SESSION;
        self.paid = self.paid.saturating_sub(SESSION_EVERY.saturating_mul(sessions));
    }

    /// The journal moved forward.
    pub fn note_step(&mut self) {
        self.failures = 0;
    }

    /// A session has ended.
    pub fn note_session(&mut self, lasted: Duration) {
        if lasted >= LONG_SESSION {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests;
