//! From what was seen to what the status says.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::conditions::{self, ConditionType};
use crate::api::machine_status::{KeyTrust, LoginKey, SeenHostKey};
use crate::api::{Machine, MachinePhase, MachineStatus, Reason};
use crate::execution::{LaunchProblem, storable};

use super::sight::Stage;
use super::{ProvedKey, Seen, Sight};

/// A status is written at most so often.
const BETWEEN_WRITES: Duration = Duration::from_secs(10);
/// When it was last seen, and how long that took, is written so often where nothing else is.
const REFRESH: Duration = Duration::from_secs(600);

/// All that is known of a Machine at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The Machine, read live.
    pub machine: &'a Machine,
    /// What was seen of it last.
    pub sight: Option<&'a Sight>,
    /// How many commands run there.
    pub running: usize,
    /// How many executions wait for it.
    pub queued: usize,
    /// Whether these numbers alone are worth a write.
    pub is_recount: bool,
    /// How long ago its status was written by this process; None: not yet.
    pub since_write: Option<Duration>,
    /// Now.
    pub now: Timestamp,
}

/// What to tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The status to store; None: leave it.
    pub status: Option<MachineStatus>,
    /// The event that goes with it: the word, whether it is a warning, the sentence.
    pub event: Option<(String, bool, String)>,
    /// Whether it tells nothing but how many run and wait. Such a write delays no other one.
    pub is_count: bool,
    /// When there will be something to write that it is too early for.
    pub again: Option<Duration>,
}

/// What to tell of a Machine.
pub fn report(observed: &Observed<'_>) -> Report {
    let before = observed.machine.status.clone().unwrap_or_default();
    let described = described(observed, &before).or_else(|| observed.is_recount.then(|| before.clone()));
    let Some(mut status) = described else { return Report::default() };
    status.running = i64::try_from(observed.running).ok();
    status.queued = i64::try_from(observed.queued).ok();
    let says_something = differs(&before, &status);
    let due = if says_something {
        BETWEEN_WRITES
    } else if observed.is_recount && (before.running, before.queued) != (status.running, status.queued) {
        return Report { status: Some(status), is_count: true, ..Report::default() };
    } else if before.last_seen_time != status.last_seen_time {
        REFRESH
    } else {
        return Report::default();
    };
    // What this process has not written yet is due, unless it only refreshes what another has written a moment ago.
    let age = last_seen_age(&before, observed.now).filter(|_| due == REFRESH);
    match observed.since_write.or(age).and_then(|since| due.checked_sub(since)).filter(|left| !left.is_zero()) {
        Some(left) => Report { again: Some(left), ..Report::default() },
        None => Report { event: event(&before, &status), status: Some(status), is_count: false, again: None },
    }
}

fn last_seen_age(before: &MachineStatus, now: Timestamp) -> Option<Duration> {
    let seen = before.last_seen_time.as_ref()?;
    Duration::try_from(now.duration_since(seen.0)).ok()
}

/// The status by what is known; None where nothing is known that would say anything.
fn described(observed: &Observed<'_>, before: &MachineStatus) -> Option<MachineStatus> {
    let machine = observed.machine;
    let mut status = before.clone();
    if machine.spec.suspend {
        let message = "spec.suspend is true: nothing connects, and what waits goes on waiting";
        turn(&mut status, observed, MachinePhase::Suspended, "Suspended", message);
        conditions::remove(&mut status.conditions, ConditionType::Stalled);
        return Some(status);
    }
    let Some(sight) = observed.sight.filter(|sight| sight.is_of(machine)) else { return unwatched(observed, status) };
    match &sight.seen {
        Seen::Online { latency, key, login, system } => {
            turn(&mut status, observed, MachinePhase::Online, "Online", "commands can be started");
            status.message = refused_keys(login);
            status.login_key = Some(LoginKey::clone(login));
            keep_key(&mut status.host_keys, key, sight.at);
            status.first_seen_time.get_or_insert(Time(sight.at));
            status.last_seen_time = Some(Time(sight.at));
            status.latency_ms = i64::try_from(latency.as_millis()).ok();
            if let Some(system) = system {
                status.system = Some(system.clone());
            }
        }
        Seen::Problem(problem) => {
            let reason = format!("{:?}", problem.reason);
            turn(&mut status, observed, sight.seen.phase(), &reason, &problem.message);
            explain(&mut status, observed, problem, &reason);
        }
    }
    Some(status)
}

/// What a person who rotates a key wants to know: the machine does not take the one that is to be used.
fn refused_keys(login: &LoginKey) -> Option<String> {
    let LoginKey { entry, fingerprint, refused } = login;
    (!refused.is_empty()).then(|| {
        storable(&format!(
            "commands can be started: let in by {entry} of the Secret ({fingerprint}); the machine refused what comes before it \
             there ({})",
            refused.join(", ")
        ))
    })
}

/// Where nobody looks before a command is to run there, there is nothing to wait for: said once for each generation, so that
/// tools that wait for the Machine do not wait for ever.
fn unwatched(observed: &Observed<'_>, mut status: MachineStatus) -> Option<MachineStatus> {
    let machine = observed.machine;
    if machine.spec.probe.interval_seconds > 0 || status.observed_generation == machine.metadata.generation {
        return None;
    }
    status.observed_generation = machine.metadata.generation;
    status.phase = Some(MachinePhase::Unknown);
    status.message = Some("looked at when a command is to run there (spec.probe.intervalSeconds is 0)".to_owned());
    // What was found of it as it was declared before.
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

/// Phase, message and the conditions that each phase has.
fn turn(status: &mut MachineStatus, observed: &Observed<'_>, phase: MachinePhase, reason: &str, message: &str) {
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

/// The conditions that say how far it came.
fn explain(status: &mut MachineStatus, observed: &Observed<'_>, problem: &LaunchProblem, reason: &str) {
    let stage = Stage::of(problem.reason);
    let generation = observed.machine.metadata.generation;
    let message = status.message.clone().unwrap_or_default();
    let steps = [
        (ConditionType::Reachable, Stage::Reach),
        (ConditionType::HostKeyVerified, Stage::HostKey),
        (ConditionType::Authenticated, Stage::Login),
    ];
    for (type_, step) in steps {
        // What was not tried this time is not known.
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
    // A machine that is away comes back by itself; all else waits for a person.
    if problem.reason == Reason::MachineOffline {
        conditions::remove(&mut status.conditions, ConditionType::Stalled);
    } else {
        let stalled = ConditionType::Stalled;
        conditions::set(&mut status.conditions, stalled, true, reason, &message, generation, observed.now);
    }
}

/// What was frozen on first use is there already, and stays: nothing is added for it here. Of what is pinned or vouched for
/// the latest is shown. What an authority vouches for takes nothing away: it would be forgotten with the authority.
fn keep_key(keys: &mut Vec<SeenHostKey>, key: &ProvedKey, now: Timestamp) {
    if key.trust == KeyTrust::FirstUse {
        return;
    }
    let is_same = |seen: &SeenHostKey| seen.fingerprint == key.fingerprint;
    let first_seen_time = keys.iter().find(|seen| is_same(seen)).map_or(Time(now), |seen| seen.first_seen_time.clone());
    let (algorithm, fingerprint) = (key.algorithm.clone(), key.fingerprint.clone());
    let proved = SeenHostKey { algorithm, fingerprint, trust: key.trust, first_seen_time };
    match key.trust {
        KeyTrust::Authority => keys.retain(|seen| seen.trust != KeyTrust::Authority),
        _ => keys.clear(),
    }
    keys.push(proved);
}

/// Whether a person would want to know: all but when it was seen, how long that took, and how many run and wait.
fn differs(before: &MachineStatus, now: &MachineStatus) -> bool {
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
