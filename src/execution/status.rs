//! Constructs all statuses of an execution, so that their phase, reason, message and conditions agree.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::conditions::{self, ConditionType};
use crate::api::execution_status::{Claim, MachineRecord, RemoteRecord};
use crate::api::{CommandExecution, CommandExecutionStatus, Phase, Reason};
use crate::policy;

use super::creation::creation;
use super::space::{MAX_MESSAGE_CHARACTERS, keep_length};

/// Mark at the end of a message that was cut.
const CUT: &str = " ... (cut)";

/// Returns a message for a status. Replaces control characters by spaces, because a machine can send them. Cuts the
/// message at the length limit and marks the cut.
pub fn storable(message: &str) -> String {
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    if message.chars().count() <= MAX_MESSAGE_CHARACTERS {
        return message.chars().map(printable).collect();
    }
    message.chars().map(printable).take(MAX_MESSAGE_CHARACTERS - CUT.len()).chain(CUT.chars()).collect()
}

/// Returns the status of `execution` in another phase, with the conditions of that phase.
pub(super) fn with_phase(
    execution: &CommandExecution,
    phase: Phase,
    reason: Reason,
    message: &str,
    now: Timestamp,
) -> CommandExecutionStatus {
    let mut status = execution.status.clone().unwrap_or_default();
    let now = not_before_recorded_times(execution, now);
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
        // The status can have a decision from the time in the queue. This decision is no longer valid.
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
        // Writ made no decision about this execution, so the condition Accepted is not set.
    } else if phase == Phase::Rejected {
        set(ConditionType::Accepted, false, &word, &message);
    } else if is_allowed && !is_accepted(execution) {
        set(ConditionType::Accepted, true, "Allowed", "a rule allows it");
    }
    set(ConditionType::Ready, phase == Phase::Succeeded, &word, &message);
    set(ConditionType::Reconciling, !phase.is_finished(), &word, &message);
    if phase.is_finished() {
        // This condition has no message, so that the result takes less space.
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

/// Records the decision, and the command as text, in a status.
pub(super) fn with_decision(status: &mut CommandExecutionStatus, decision: &policy::Decision, now: Timestamp) {
    status.command_line = Some(policy::display(&decision.argv));
    status.decision = Some(decision.record(MicroTime(now)));
}

/// Returns the latest of `now` and the times that the execution records. Clocks can differ or be set back, but a record
/// must not end before its start.
pub(super) fn not_before_recorded_times(execution: &CommandExecution, now: Timestamp) -> Timestamp {
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

/// Record of a claim.
#[derive(Clone, Debug)]
pub struct ClaimRecord {
    /// Claim: holder, token, mode and times.
    pub claim: Claim,
    /// Machine to which the command is sent.
    pub machine: MachineRecord,
    /// Location of the journal on the machine. `None` in Direct mode.
    pub remote: Option<RemoteRecord>,
}

/// Returns the status with a claim. After the claim is stored, its holder starts the command. Any other process must
/// read the journal on the machine before it sends the command.
pub fn with_claim(
    execution: &CommandExecution,
    decision: &policy::Decision,
    records: ClaimRecord,
    now: Timestamp,
) -> CommandExecutionStatus {
    let ClaimRecord { mut claim, machine, remote } = records;
    let now = not_before_recorded_times(execution, now);
    claim.dispatched_time = MicroTime(claim.dispatched_time.0.max(now));
    let message = format!("{} starts the command on {}", claim.holder, machine.address);
    let mut status = with_phase(execution, Phase::Dispatched, Reason::Claimed, &message, now);
    with_decision(&mut status, decision, now);
    status.machine = Some(machine);
    status.claim = Some(claim);
    status.remote = remote;
    status
}

/// Returns the status in which another holder adopts the claim, with a new token. Returns `None` if the execution has
/// no claim.
pub fn with_new_holder(
    execution: &CommandExecution,
    holder: &str,
    token: &str,
    now: Timestamp,
) -> Option<CommandExecutionStatus> {
    let claim = execution.claim()?;
    let status = execution.status.as_ref()?;
    let message = format!("{holder} adopted the claim of {}", claim.holder);
    let claim = Claim { token: token.to_owned(), holder: holder.to_owned(), ..claim.clone() };
    let reason = status.reason.unwrap_or(Reason::Claimed);
    let mut taken = with_phase(execution, status.phase, reason, &message, now);
    taken.claim = Some(claim);
    if execution.is_cancelled_or_deleted() {
        // The previous holder perhaps died before it stored the time of the stop request.
        taken.stop_requested_time.get_or_insert(MicroTime(now));
    }
    keep_length(status, &mut taken);
    Some(taken)
}

/// Returns the status of a claimed execution with the time at which Writ noticed the stop request.
pub fn with_stop_request(execution: &CommandExecution, noticed: Timestamp, now: Timestamp) -> CommandExecutionStatus {
    let phase = execution.phase();
    let reason = execution.status.as_ref().and_then(|status| status.reason).unwrap_or(Reason::Claimed);
    let mut status = with_phase(execution, phase, reason, "Writ asks the machine to stop the command", now);
    status.stop_requested_time = Some(MicroTime(noticed));
    if let Some(before) = &execution.status {
        keep_length(before, &mut status);
    }
    status
}

/// Returns the status of a claimed execution whose command was not started, because the login has a temporary problem.
pub fn with_login_wait(execution: &CommandExecution, problem: &str, now: Timestamp) -> CommandExecutionStatus {
    let message = format!("waits for the machine, which has not started the command: {problem}");
    let mut status = with_phase(execution, Phase::Dispatched, Reason::Claimed, &message, now);
    if let Some(before) = &execution.status {
        keep_length(before, &mut status);
    }
    status
}

/// Returns the status of a claimed execution after the machine confirmed the start.
pub fn with_start(execution: &CommandExecution, started: Timestamp, now: Timestamp) -> CommandExecutionStatus {
    let mut status = with_phase(execution, Phase::Running, Reason::Started, "the machine confirmed the start", now);
    status.start_time = Some(MicroTime(not_before_recorded_times(execution, started)));
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
        let execution = CommandExecution::new("x", crate::api::CommandExecutionSpec::with_command("say hello"));
        for phase in Phase::ALL {
            let status = with_phase(&execution, phase, Reason::Completed, "as it is", Timestamp::UNIX_EPOCH);
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
        let whole = "ä".repeat(MAX_MESSAGE_CHARACTERS);
        assert_eq!(storable(&whole), whole);
        let cut = storable(&format!("{whole}x"));
        assert_eq!(cut.chars().count(), MAX_MESSAGE_CHARACTERS);
        assert!(cut.ends_with("ä ... (cut)"));
    }
}
