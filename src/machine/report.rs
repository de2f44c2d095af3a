//! Turns an observation into the status of a Machine.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::conditions::{self, ConditionType};
use crate::api::machine_status::{KeyTrust, LoginKey, ObservedHostKey};
use crate::api::{Machine, MachinePhase, MachineStatus, Reason};
use crate::execution::{LaunchProblem, storable};

use super::observation::ProbeStage;
use super::{MachineObservation, ProbeResult, VerifiedKey};

/// Minimum interval between writes of the status of one Machine.
const MIN_WRITE_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum interval between writes if only `lastSeenTime` and `latencyMs` change.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);

/// Facts that determine the status of a Machine.
#[derive(Clone, Copy, Debug)]
pub struct ReportInput<'a> {
    /// The Machine, as just read from the API server.
    pub machine: &'a Machine,
    /// Last observation of the machine.
    pub observation: Option<&'a MachineObservation>,
    /// Number of running commands.
    pub running: usize,
    /// Number of queued executions.
    pub queued: usize,
    /// True if a change of `running` or `queued` alone is a reason to write the status.
    pub is_recount: bool,
    /// Time since this process last wrote the status. `None` if this process has not written it yet.
    pub since_write: Option<Duration>,
    /// Current time.
    pub now: Timestamp,
}

/// Status write and event that are due for a Machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Status to store. `None` if the stored status stays.
    pub status: Option<MachineStatus>,
    /// Event about the new status: its reason, a flag that is true for a warning, and its message.
    pub event: Option<(String, bool, String)>,
    /// True if only the numbers of running commands and queued executions change. Such a write does not delay other
    /// writes.
    pub is_count: bool,
    /// Delay until the next status write. Set if a write is due, but the minimum interval has not passed.
    pub retry_after: Option<Duration>,
}

/// Returns the status write and the event that are due for a Machine.
pub fn report(observed: &ReportInput<'_>) -> Report {
    let before = observed.machine.status.clone().unwrap_or_default();
    let described = build_status(observed, &before).or_else(|| observed.is_recount.then(|| before.clone()));
    let Some(mut status) = described else { return Report::default() };
    status.running = i64::try_from(observed.running).ok();
    status.queued = i64::try_from(observed.queued).ok();
    let says_something = is_significant_change(&before, &status);
    let due = if says_something {
        MIN_WRITE_INTERVAL
    } else if observed.is_recount && (before.running, before.queued) != (status.running, status.queued) {
        return Report { status: Some(status), is_count: true, ..Report::default() };
    } else if before.last_seen_time != status.last_seen_time {
        REFRESH_INTERVAL
    } else {
        return Report::default();
    };
    // The first write of this process is due at once, except if the write only refreshes a recent `lastSeenTime`.
    let age = last_seen_age(&before, observed.now).filter(|_| due == REFRESH_INTERVAL);
    match observed.since_write.or(age).and_then(|since| due.checked_sub(since)).filter(|left| !left.is_zero()) {
        Some(left) => Report { retry_after: Some(left), ..Report::default() },
        None => Report { event: event(&before, &status), status: Some(status), is_count: false, retry_after: None },
    }
}

fn last_seen_age(before: &MachineStatus, now: Timestamp) -> Option<Duration> {
    let seen = before.last_seen_time.as_ref()?;
    Duration::try_from(now.duration_since(seen.0)).ok()
}

/// Returns the status for the facts in `observed`. Returns `None` if no observation belongs to the current generation.
/// A suspended Machine and a Machine without probes need no observation.
fn build_status(observed: &ReportInput<'_>, before: &MachineStatus) -> Option<MachineStatus> {
    let machine = observed.machine;
    let mut status = before.clone();
    if machine.spec.suspend {
        let message = "spec.suspend is true: Writ opens no connection, and queued executions keep waiting";
        set_phase(&mut status, observed, MachinePhase::Suspended, "Suspended", message);
        conditions::remove(&mut status.conditions, ConditionType::Stalled);
        return Some(status);
    }
    let Some(observation) = observed.observation.filter(|observation| observation.is_current_for(machine)) else {
        return not_probed_status(observed, status);
    };
    match &observation.result {
        ProbeResult::Online { latency, key, login, system } => {
            set_phase(&mut status, observed, MachinePhase::Online, "Online", "commands can be started");
            status.message = refused_keys(login);
            status.login_key = Some(LoginKey::clone(login));
            record_host_key(&mut status.host_keys, key, observation.at);
            status.first_seen_time.get_or_insert(Time(observation.at));
            status.last_seen_time = Some(Time(observation.at));
            status.latency_ms = i64::try_from(latency.as_millis()).ok();
            if let Some(system) = system {
                status.system = Some(system.clone());
            }
        }
        ProbeResult::Failed(problem) => {
            let reason = format!("{:?}", problem.reason);
            set_phase(&mut status, observed, observation.result.phase(), &reason, &problem.message);
            set_stage_conditions(&mut status, observed, problem, &reason);
        }
    }
    Some(status)
}

/// Returns the message about keys of the Secret that the machine refused. During a rotation the message shows that the
/// machine does not accept the new key yet.
fn refused_keys(login: &LoginKey) -> Option<String> {
    let LoginKey { entry, fingerprint, refused } = login;
    (!refused.is_empty()).then(|| {
        storable(&format!(
            "commands can be started: the machine accepted {entry} of the Secret ({fingerprint}) and refused the keys before it \
             ({})",
            refused.join(", ")
        ))
    })
}

/// Returns the status of a Machine without probes, once for each generation. Some tools wait until `observedGeneration`
/// is current.
fn not_probed_status(observed: &ReportInput<'_>, mut status: MachineStatus) -> Option<MachineStatus> {
    let machine = observed.machine;
    if machine.spec.probe.interval_seconds > 0 || status.observed_generation == machine.metadata.generation {
        return None;
    }
    status.observed_generation = machine.metadata.generation;
    status.phase = Some(MachinePhase::Unknown);
    status.message = Some(
        "not probed, because spec.probe.intervalSeconds is 0: Writ connects when a command is about to run there"
            .to_owned(),
    );
    // These conditions belong to an earlier generation, so they are removed.
    for found in [
        ConditionType::Ready,
        ConditionType::Reachable,
        ConditionType::HostKeyVerified,
        ConditionType::Authenticated,
        ConditionType::Stalled,
    ] {
        conditions::remove(&mut status.conditions, found);
    }
    Some(status)
}

/// Sets the phase, the message, and the conditions that a status has in every phase.
fn set_phase(status: &mut MachineStatus, observed: &ReportInput<'_>, phase: MachinePhase, reason: &str, message: &str) {
    let generation = observed.machine.metadata.generation;
    let message = storable(message);
    status.observed_generation = generation;
    status.phase = Some(phase);
    let mut set = |type_, value| {
        conditions::set(&mut status.conditions, type_, value, reason, &message, generation, observed.now);
    };
    set(ConditionType::Ready, phase == MachinePhase::Online);
    if phase == MachinePhase::Online {
        for proved in [ConditionType::Reachable, ConditionType::HostKeyVerified, ConditionType::Authenticated] {
            set(proved, true);
        }
        conditions::remove(&mut status.conditions, ConditionType::Stalled);
    }
    status.message = Some(message);
}

/// Sets the conditions according to the stage at which the attempt failed.
fn set_stage_conditions(status: &mut MachineStatus, observed: &ReportInput<'_>, problem: &LaunchProblem, reason: &str) {
    let stage = ProbeStage::of(problem.reason);
    let generation = observed.machine.metadata.generation;
    let message = status.message.clone().unwrap_or_default();
    let steps = [
        (ConditionType::Reachable, ProbeStage::Connect),
        (ConditionType::HostKeyVerified, ProbeStage::HostKey),
        (ConditionType::Authenticated, ProbeStage::Login),
    ];
    for (type_, step) in steps {
        // The stages before the failed stage succeeded. The later stages are unknown, so Writ removes their conditions.
        match step.cmp(&stage) {
            std::cmp::Ordering::Less => {
                conditions::set(&mut status.conditions, type_, true, "Seen", "", generation, observed.now);
            }
            std::cmp::Ordering::Equal => {
                conditions::set(&mut status.conditions, type_, false, reason, &message, generation, observed.now);
            }
            std::cmp::Ordering::Greater => conditions::remove(&mut status.conditions, type_),
        }
    }
    // An offline machine can come back by itself. All other failures need manual action.
    if problem.reason == Reason::MachineOffline {
        conditions::remove(&mut status.conditions, ConditionType::Stalled);
    } else {
        let stalled = ConditionType::Stalled;
        conditions::set(&mut status.conditions, stalled, true, reason, &message, generation, observed.now);
    }
}

/// Records a verified host key in the status:
///
/// - A key with trust `FirstUse` is already in the status, and stays there.
/// - A key of `hostKeys` replaces all other keys.
/// - A key from an authority replaces only an earlier key from an authority. All other keys stay, because Writ needs
///   them if a user later removes the authority.
fn record_host_key(keys: &mut Vec<ObservedHostKey>, key: &VerifiedKey, now: Timestamp) {
    if key.trust == KeyTrust::FirstUse {
        return;
    }
    let is_same = |seen: &ObservedHostKey| seen.fingerprint == key.fingerprint;
    let first_seen_time = keys.iter().find(|seen| is_same(seen)).map_or(Time(now), |seen| seen.first_seen_time.clone());
    let (algorithm, fingerprint) = (key.algorithm.clone(), key.fingerprint.clone());
    let proved = ObservedHostKey { algorithm, fingerprint, trust: key.trust, first_seen_time };
    match key.trust {
        KeyTrust::Authority => keys.retain(|seen| seen.trust != KeyTrust::Authority),
        _ => keys.clear(),
    }
    keys.push(proved);
}

/// Returns true if the change matters to a user. All changes matter, except changes of times, latency and counts.
fn is_significant_change(before: &MachineStatus, now: &MachineStatus) -> bool {
    let words = |status: &MachineStatus| -> Vec<(String, String, String)> {
        let conditions = status.conditions.iter();
        conditions.map(|each| (each.type_.clone(), each.status.clone(), each.reason.clone())).collect()
    };
    before.phase != now.phase
        || before.message != now.message
        || before.observed_generation != now.observed_generation
        || before.host_keys != now.host_keys
        || before.login_key != now.login_key
        || before.system != now.system
        || words(before) != words(now)
}

fn event(before: &MachineStatus, now: &MachineStatus) -> Option<(String, bool, String)> {
    let ready = |status: &MachineStatus| {
        status.conditions.iter().find(|each| each.type_ == ConditionType::Ready.as_str()).cloned()
    };
    let is = ready(now)?;
    if ready(before).is_some_and(|was| was.reason == is.reason) {
        return None;
    }
    let is_warning = matches!(now.phase, Some(MachinePhase::Offline | MachinePhase::Misconfigured));
    Some((is.reason, is_warning, is.message))
}

#[cfg(test)]
mod tests;
