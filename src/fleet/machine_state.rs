//! State of one Machine in this process: its settings, its last probe, and the pause after a failure. The queue of the
//! machine and the controller of Machines read this state. Callers pass the current time.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::api::Machine;
use crate::backoff::Backoff;
use crate::execution::LaunchProblem;
use crate::machine::{MachineObservation, ProbeResult};

use super::counts::ReportedCounts;
use super::jitter::jitter;

/// Pause after the first failure to reach a machine. The pause doubles up to [`MAX_BACKOFF`].
pub(crate) const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Maximum pause between attempts while executions wait.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Pauses between attempts. Writ extends each pause by a random part, at most a quarter of the pause, so that attempts
/// on machines that failed together do not start together.
const BACKOFF: Backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF).with_jitter(0.25);

/// Fields of the Machine's spec that the queue needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    /// UID and generation of the Machine that these settings come from.
    uid: Option<String>,
    generation: Option<i64>,
    /// Maximum number of commands that run on the machine concurrently, at least 1.
    pub max_concurrent: usize,
    /// True if no command may start on the machine (`spec.suspend`).
    pub is_suspended: bool,
}

/// Change that a newly read Machine makes to the stored settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SettingsChange {
    /// No change that matters to the queue.
    None,
    /// The maximum number of concurrent commands has changed, or this was the first read.
    Capacity,
    /// `spec.suspend` has changed. The statuses of queued executions report the suspension.
    Suspension,
}

/// State of one Machine in this process.
#[derive(Debug, Default)]
pub(crate) struct MachineState {
    /// `None` until the first read of the Machine. No command starts before the first read.
    pub settings: Option<Settings>,
    /// The last observation.
    pub observation: Option<MachineObservation>,
    /// Number of consecutive failed observations.
    pub failures: u32,
    /// Random number in 0..1, new for each observation. The number spreads the probes of different machines over time.
    pub jitter: f64,
    /// True while a probe runs.
    is_probing: bool,
    /// End of the last probe.
    pub probed: Option<Instant>,
    /// Number of consecutive probes without an observation, including a running probe. A probe observes nothing if the
    /// API server does not answer.
    pub inconclusive_probes: u32,
    /// The counts that the Machine's status contains.
    pub counts: ReportedCounts,
    /// Last time at which the machine was in order, by the API server's clock.
    last_online: Option<Timestamp>,
    /// Set while the machine is unreachable or unusable.
    pub backoff: Option<AttemptBackoff>,
}

/// The pause after a failure.
#[derive(Clone, Debug)]
pub(crate) struct AttemptBackoff {
    /// The last failure.
    pub problem: LaunchProblem,
    /// True if the machine needs manual repair. Only probes then connect. Executions wait, because a failed attempt
    /// to connect would end them.
    pub needs_person: bool,
    failures: u32,
    /// Time of the first failure in the current series. A change of `needs_person` starts a new series.
    since: Instant,
    /// The moment of `since`, by the API server's clock.
    since_time: Timestamp,
    /// End of the pause.
    pub until: Instant,
}

impl Settings {
    fn of(machine: &Machine) -> Self {
        Self {
            uid: machine.metadata.uid.clone(),
            generation: machine.metadata.generation,
            max_concurrent: max_concurrent(machine),
            is_suspended: machine.spec.suspend,
        }
    }
}

/// Returns the maximum number of commands that run on the machine concurrently, at least 1.
pub(crate) fn max_concurrent(machine: &Machine) -> usize {
    usize::try_from(machine.spec.max_concurrent).unwrap_or(1).max(1)
}

impl MachineState {
    /// Stores the settings of a Machine that was just read. Ignores a read that is older than the stored settings. A
    /// new UID resets the state, because the former Machine was deleted.
    pub fn configure(&mut self, machine: &Machine) -> SettingsChange {
        let settings = Settings::of(machine);
        let Some(known) = self.settings.take() else {
            self.settings = Some(settings);
            return SettingsChange::Capacity;
        };
        if known.uid == settings.uid && known.generation > settings.generation {
            self.settings = Some(known);
            return SettingsChange::None;
        }
        if known.uid != settings.uid {
            *self = Self { is_probing: self.is_probing, probed: self.probed, ..Self::default() };
        }
        let change = if known.is_suspended != settings.is_suspended {
            SettingsChange::Suspension
        } else if known.max_concurrent != settings.max_concurrent {
            SettingsChange::Capacity
        } else {
            SettingsChange::None
        };
        self.settings = Some(settings);
        change
    }

    /// If no probe is running, marks a probe as running and returns true.
    pub fn start_probe(&mut self) -> bool {
        if self.is_probing {
            return false;
        }
        self.is_probing = true;
        // The probe counts as inconclusive until an observation resets the count.
        self.inconclusive_probes = self.inconclusive_probes.saturating_add(1);
        true
    }

    /// Marks a probe as ended.
    pub fn end_probe(&mut self, now: Instant) {
        self.is_probing = false;
        self.probed = Some(now);
    }

    /// Records an observation. If the machine is in order, its queue may use the machine again.
    pub fn record(&mut self, observation: MachineObservation, machine: &Machine) {
        self.inconclusive_probes = 0;
        match &observation.result {
            ProbeResult::Online { .. } => {
                self.failures = 0;
                self.mark_online(observation.at);
                self.backoff = None;
            }
            ProbeResult::Failed(problem) => {
                self.failures = self.failures.saturating_add(1);
                // Another process, or this process before a restart, can have reported a time after `last_online`.
                let reported = machine.status.as_ref().and_then(|status| status.last_seen_time.as_ref());
                self.last_online = self.last_online.max(reported.map(|time| time.0));
                if let Some(backoff) = &mut self.backoff {
                    backoff.problem = problem.clone();
                }
            }
        }
        self.jitter = jitter();
        self.observation = Some(observation);
    }

    /// Returns true if the last observation was a failure.
    pub fn has_problem(&self) -> bool {
        self.observation.as_ref().is_some_and(|observation| matches!(observation.result, ProbeResult::Failed(_)))
    }

    /// Records that an attempt reached the machine at `now`. Changes nothing if the machine needs manual repair,
    /// because the connection of the attempt can be older than the fault.
    pub fn mark_reachable(&mut self, now: Timestamp) {
        if !self.needs_person() {
            self.backoff = None;
            self.mark_online(now);
        }
    }

    fn mark_online(&mut self, now: Timestamp) {
        self.last_online = self.last_online.max(Some(now));
    }

    /// Returns true if the machine needs manual repair.
    pub fn needs_person(&self) -> bool {
        self.backoff.as_ref().is_some_and(|backoff| backoff.needs_person)
    }

    /// Returns true if the execution was created at or after the last time at which the machine was in order. Compares
    /// both times in whole seconds. Also returns true if the machine was never in order.
    pub fn is_created_since_online(&self, created: Timestamp) -> bool {
        self.last_online.is_none_or(|online| created.as_second() >= online.as_second())
    }

    /// Returns true if the machine was already unreachable before `since`. Returns false if the machine needs manual
    /// repair.
    pub fn was_unreachable_before(&self, since: Option<Instant>) -> bool {
        let backoff = self.backoff.as_ref().filter(|backoff| !backoff.needs_person);
        backoff.is_some_and(|backoff| since.is_some_and(|since| backoff.since < since))
    }

    /// Returns true if an attempt may connect. After a failure, an attempt may connect only if:
    ///
    /// - the machine needs no manual repair,
    /// - the pause has passed, and
    /// - no other attempt is connecting.
    pub fn allows_attempt(&self, connecting: usize, now: Instant) -> bool {
        self.backoff.as_ref().is_none_or(|backoff| !backoff.needs_person && now >= backoff.until && connecting == 0)
    }

    /// Records a failed attempt. Returns the pause until the next attempt.
    pub fn start_backoff(
        &mut self,
        problem: LaunchProblem,
        needs_person: bool,
        now: Instant,
        now_time: Timestamp,
    ) -> Duration {
        let failures = self.backoff.as_ref().map_or(0, |backoff| backoff.failures);
        let pause = BACKOFF.delay(failures, jitter());
        let same = self.backoff.as_ref().filter(|backoff| backoff.needs_person == needs_person);
        let (since, since_time) = same.map_or((now, now_time), |backoff| (backoff.since, backoff.since_time));
        let failures = failures.saturating_add(1);
        self.backoff = Some(AttemptBackoff { problem, needs_person, failures, since, since_time, until: now + pause });
        pause
    }

    /// Drops a pause that has passed. If the machine needs manual repair, the pause stays until a probe finds the
    /// machine in order.
    pub fn forget_old_backoff(&mut self, now: Instant) {
        if self.backoff.as_ref().is_some_and(|backoff| !backoff.needs_person && now >= backoff.until) {
            self.backoff = None;
        }
    }
}

impl AttemptBackoff {
    /// Returns true if `created` is at or before the first failure plus `margin`.
    pub fn began_before(&self, created: Timestamp, margin: Duration) -> bool {
        self.since_time.checked_add(margin).map_or(true, |known| created <= known)
    }
}
