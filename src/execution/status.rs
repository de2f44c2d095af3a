//! Statuses, built in one place so that phase, reason, message and conditions never disagree.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::conditions::{self, ConditionType};
use crate::api::execution_status::{Claim, MachineRecord, RemoteRecord};
use crate::api::{CommandExecution, CommandExecutionStatus, Phase, Reason};
use crate::policy;

use super::creation::creation;
use super::room::keep_length;

/// The longest message in a status, in characters (the CRD's bound for it). What machines say goes into messages, so
/// they have to be cut.
pub const MAXIMUM_MESSAGE_CHARACTERS: usize = 2048;

/// What is put behind a message that was cut.
const CUT: &str = " ... (cut)";

/// A message as it can be stored: no control characters for whoever prints it, as what machines say may be in it, and no more
/// than the bound; whoever reads it sees where it was cut.
pub fn storable(message: &str) -> String {
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    if message.chars().count() <= MAXIMUM_MESSAGE_CHARACTERS {
        return message.chars().map(printable).collect();
    }
    message.chars().map(printable).take(MAXIMUM_MESSAGE_CHARACTERS - CUT.len()).chain(CUT.chars()).collect()
}

/// The status of `execution` moved to another phase, with the conditions that go with it.
pub(super) fn moved(
    execution: &CommandExecution,
    phase: Phase,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> CommandExecutionStatus {
    let mut status = execution.status.clone().unwrap_or_default();
    let now = not_before_what_is_recorded(execution, now);
    let generation = execution.metadata.generation;
    let message = storable(message);
    status.creation = Some(creation(execution));
    status.observed_generation = generation;
    status.phase = phase;
    status.reason = Some(reason);
    if phase == Phase::Queued && status.queued_time.is_none() {
        status.queued_time = Some(MicroTime(now));
    }
    if phase == Phase::Rejected {
        // What was allowed while it was queued is not any more.
        (status.decision, status.command_line) = (None, None);
    }
    if phase.is_finished() {
        status.reserved = None;
        status.completion_time = Some(MicroTime(now));
    }
    let word = format!("{reason:?}");
    let is_allowed = matches!(phase, Phase::Queued | Phase::Dispatched | Phase::LaunchFailed);
    let mut set = |type_, value, reason: &str, message: &str| {
        conditions::set(&mut status.conditions, type_, value, reason, message, generation, now);
    };
    if reason == Reason::AlreadyExecuted {
        // Nothing was decided about this one.
    } else if phase == Phase::Rejected {
        set(ConditionType::Accepted, false, &word, &message);
    } else if is_allowed && !is_accepted(execution) {
        set(ConditionType::Accepted, true, "Allowed", "a rule allows it");
    }
    set(ConditionType::Ready, phase == Phase::Succeeded, &word, &message);
    set(ConditionType::Reconciling, !phase.is_finished(), &word, &message);
    if phase.is_finished() {
        // The others repeat the message. Room for the result is kept in each claim, so this one does without.
        set(ConditionType::Finished, true, phase.as_str(), "");
    }
    if phase.is_finished() && phase != Phase::Succeeded {
        set(ConditionType::Stalled, true, &word, &message);
    } else {
        conditions::remove(&mut status.conditions, ConditionType::Stalled);
    }
    status.message = Some(message);
    status
}

/// Records what was decided in a status, and in short what is to be executed.
pub(super) fn with_decision(status: &mut CommandExecutionStatus, decision: &policy::Decision, now: Timestamp) {
    status.command_line = Some(policy::display(&decision.argv));
    status.decision = Some(decision.record(MicroTime(now)));
}

/// `now`, or the latest time that is recorded already. Two processes know the API server's clock to a fraction of a second
/// only, and it may be set back: no record says that an execution ended before it began.
pub(super) fn not_before_what_is_recorded(execution: &CommandExecution, now: Timestamp) -> Timestamp {
    let created = execution.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let status = execution.status.as_ref();
    let queued = status.and_then(|status| Some(status.queued_time.as_ref()?.0));
    let claimed = status.and_then(|status| Some(status.claim.as_ref()?.dispatched_time.0));
    let started = status.and_then(|status| Some(status.start_time.as_ref()?.0));
    [created, queued, claimed, started].into_iter().flatten().fold(now, Timestamp::max)
}

fn is_accepted(execution: &CommandExecution) -> bool {
    execution
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .any(|condition| condition.type_ == ConditionType::Accepted.as_str() && condition.status == "True")
}

/// What is recorded with a claim.
#[derive(Clone, Debug)]
pub struct ClaimRecords {
    /// Who is responsible.
    pub claim: Claim,
    /// Where it is sent.
    pub machine: MachineRecord,
    /// What its start hangs on there; None in Direct mode.
    pub remote: Option<RemoteRecord>,
}

/// The status with a claim: the point of no return. Its holder starts the command after this is stored, and nobody
/// else does before they have asked the machine.
pub fn claimed(
    execution: &CommandExecution,
    decision: &policy::Decision,
    records: ClaimRecords,
    now: Timestamp,
) -> CommandExecutionStatus {
    let ClaimRecords { mut claim, machine, remote } = records;
    let now = not_before_what_is_recorded(execution, now);
    claim.dispatched_time = MicroTime(claim.dispatched_time.0.max(now));
    let message = format!("{} starts it on {}", claim.holder, machine.address);
    let mut status = moved(execution, Phase::Dispatched, Reason::Claimed, &message, now);
    with_decision(&mut status, decision, now);
    status.machine = Some(machine);
    status.claim = Some(claim);
    status.remote = remote;
    status
}

/// The status of a claimed execution that another holder takes over, with a token of its own. None where there is no
/// claim to take over.
pub fn taken_over(
    execution: &CommandExecution,
    holder: &str,
    token: &str,
    now: Timestamp,
) -> Option<CommandExecutionStatus> {
    let claim = execution.claim()?;
    let status = execution.status.as_ref()?;
    let message = format!("{holder} took it over from {}", claim.holder);
    let claim = Claim { token: token.to_owned(), holder: holder.to_owned(), ..claim.clone() };
    let reason = status.reason.unwrap_or(Reason::Claimed);
    let mut taken = moved(execution, status.phase, reason, &message, now);
    taken.claim = Some(claim);
    if execution.is_unwanted() {
        // Whoever had the claim may have noticed it, and not lived to store that.
        taken.stop_requested_time.get_or_insert(MicroTime(now));
    }
    keep_length(status, &mut taken);
    Some(taken)
}

/// The same status, with the time at which it was noticed that the command is to be stopped.
pub fn stopping(execution: &CommandExecution, noticed: Timestamp, now: Timestamp) -> CommandExecutionStatus {
    let phase = execution.phase();
    let reason = execution.status.as_ref().and_then(|status| status.reason).unwrap_or(Reason::Claimed);
    let mut status = moved(execution, phase, reason, "the machine is asked to stop the command", now);
    status.stop_requested_time = Some(MicroTime(noticed));
    if let Some(before) = &execution.status {
        keep_length(before, &mut status);
    }
    status
}

/// The status of a claimed execution whose login did not start it, for a reason that passes.
pub fn waits_for_login(execution: &CommandExecution, problem: &str, now: Timestamp) -> CommandExecutionStatus {
    let message = format!("waits for the machine, which has not started it: {problem}");
    let mut status = moved(execution, Phase::Dispatched, Reason::Claimed, &message, now);
    if let Some(before) = &execution.status {
        keep_length(before, &mut status);
    }
    status
}

/// The status of a claimed execution whose start the machine confirmed.
pub fn running(execution: &CommandExecution, started: Timestamp, now: Timestamp) -> CommandExecutionStatus {
    let mut status = moved(execution, Phase::Running, Reason::Started, "the machine confirmed the start", now);
    status.start_time = Some(MicroTime(not_before_what_is_recorded(execution, started)));
    if let Some(before) = &execution.status {
        keep_length(before, &mut status);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_finished_and_nothing_before_it_is() {
        let execution = CommandExecution::new("x", crate::api::CommandExecutionSpec::asking_for("say hello"));
        for phase in Phase::ALL {
            let status = moved(&execution, phase, Reason::Completed, "as it is", Timestamp::UNIX_EPOCH);
            let finished = status.conditions.iter().find(|condition| condition.type_ == "Finished");
            assert_eq!(finished.is_some(), phase.is_finished(), "{phase:?}");
            if let Some(finished) = finished {
                let words = (finished.status.as_str(), finished.reason.as_str(), finished.message.as_str());
                assert_eq!(words, ("True", phase.as_str(), ""));
            }
        }
    }

    #[test]
    fn a_message_that_is_too_long_says_that_it_was_cut() {
        assert_eq!(storable("a\u{1b}b\nc"), "a b c");
        let whole = "ä".repeat(MAXIMUM_MESSAGE_CHARACTERS);
        assert_eq!(storable(&whole), whole);
        let cut = storable(&format!("{whole}x"));
        assert_eq!(cut.chars().count(), MAXIMUM_MESSAGE_CHARACTERS);
        assert!(cut.ends_with("ä ... (cut)"));
    }
}
