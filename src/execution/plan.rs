//! Plans the next step of an execution. [`plan`] checks the phase and the claim, then tries small functions in order.
//! The first function that returns a plan decides.

use std::time::Duration;

use kube::ResourceExt as _;

use crate::api::conditions::ConditionType;
use crate::api::{
    CommandExecution, CommandExecutionStatus, ExecutionMode, Machine, Phase, RUN_AGAIN_ANNOTATION, Reason,
};
use crate::policy::{self, Decision, Request, Verdict};

use super::creation::creation;
use super::status::{with_decision, with_phase};
use super::{
    AllowedWait, HolderFact, IMMEDIATE_START_TOLERANCE, LaunchProblem, MachineFact, Observed, PriorExecutionFact,
    RunnerFact, SHOW_PROGRESS_AFTER,
};
use super::{receipt, space};

/// Requeue delay for an execution whose decision depends on the requester, while the requester is not verified.
const REQUEUE_IDENTITY: Duration = Duration::from_secs(3);
/// Requeue delay for an execution whose receipt cannot be read.
const REQUEUE_RECEIPT: Duration = Duration::from_secs(10);
/// Requeue delay for a claimed execution whose holder is perhaps lost.
const REQUEUE_HOLDER: Duration = Duration::from_secs(5);
/// Maximum wait for the client of an interactive execution, from the creation of the execution.
const CLIENT_GRACE: Duration = Duration::from_secs(30);

/// Message of an execution that Writ has read but not decided yet.
const UNDECIDED: &str = "not decided yet: Writ waits some seconds for the Machine, for a rule that allows the request, or for a check of the requester";

/// Writes and side effects that Writ must carry out for one execution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Status to store, with the observed resourceVersion. `None` if the stored status stays.
    pub status: Option<CommandExecutionStatus>,
    /// True if Writ must add the finalizer before it stores the status. Writ then cannot miss a later deletion.
    pub needs_finalizer: bool,
    /// Side effects to carry out after the status is stored.
    pub effects: Vec<SideEffect>,
    /// Delay until the next reconcile. `None` if only a change triggers a reconcile.
    pub requeue: Option<Duration>,
}

impl Plan {
    /// Returns true if Writ must put the execution into the queue of its machine.
    pub fn enqueues(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, SideEffect::Enqueue { .. }))
    }
}

/// Effect outside of the status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SideEffect {
    /// Put the execution into the queue of its machine.
    Enqueue {
        /// Longest wait that the execution accepts.
        wait: AllowedWait,
    },
    /// Remove the execution from the queue and from the runner.
    Withdraw,
    /// Adopt the claim of a lost holder: read the command's journal on its machine.
    Adopt,
    /// Send a stop request to the running command.
    Cancel,
    /// Publish a Kubernetes event.
    Publish(EventNotice),
}

/// Event about an execution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventNotice {
    /// Reason of the status, which is also the reason of the event.
    pub reason: Reason,
    /// True if the event is a warning.
    pub warning: bool,
    /// Message of the event.
    pub message: String,
}

impl EventNotice {
    /// Returns the event for a status. The event is a warning if somebody should check the execution. A successful
    /// command has no event, because the status reports it, and an event costs as much as a write of the status.
    pub fn of(status: &CommandExecutionStatus) -> Option<Self> {
        let reason = status.reason?;
        let warning = match status.phase {
            Phase::Succeeded if reason == Reason::Completed => return None,
            Phase::Succeeded => false,
            // A cancellation is a warning only if the command may still run.
            Phase::Cancelled => reason == Reason::RemoteMayStillRun,
            phase => phase.is_finished() || reason == Reason::MachineMisconfigured,
        };
        // Events use the message of a condition, which contains no output, because more users may read events than
        // executions.
        let ready = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready.as_str());
        let message = ready.map(|condition| condition.message.clone()).or_else(|| status.message.clone());
        Some(Self { reason, warning, message: message.unwrap_or_default() })
    }
}

/// Returns the plan for an execution. Every combination of facts has a plan.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let phase = observed.execution.phase();
    if phase.is_finished() {
        return match observed.runner {
            RunnerFact::Idle => Plan::default(),
            _ => Plan { effects: vec![SideEffect::Withdraw], ..Plan::default() },
        };
    }
    // A claim counts even if the phase does not show it. Without this rule, the command could start twice.
    if observed.execution.is_claimed() {
        return plan_claimed(observed);
    }
    if observed.runner == RunnerFact::Owned {
        return Plan::default();
    }
    let plan = reject_restored_copy(observed)
        .or_else(|| finish_already_executed(observed))
        .or_else(|| finish_cancelled(observed))
        .or_else(|| finish_refused(observed))
        .or_else(|| finish_expired(observed))
        .or_else(|| wait_for_receipt(observed))
        .unwrap_or_else(|| evaluate_policy(observed));
    with_creation_record(observed, plan)
}

/// Adds a status write for the creation record to a plan that only waits, so that later changes of the metadata are
/// irrelevant. Other plans need no such write, because their status or the claim stores the record.
fn with_creation_record(observed: &Observed<'_>, mut plan: Plan) -> Plan {
    let is_stored = observed.execution.status.as_ref().is_some_and(|status| status.creation.is_some());
    if plan.status.is_none() && plan.effects.is_empty() && observed.runner == RunnerFact::Idle && !is_stored {
        let mut status = observed.execution.status.clone().unwrap_or_default();
        status.creation = Some(creation(observed.execution));
        // The default status reports that no `writ serve` has read the execution, which is no longer true.
        if status.reason == Some(Reason::WaitingForController) {
            status.reason = None;
            status.message = Some(UNDECIDED.to_owned());
        }
        plan.status = Some(status);
    }
    plan
}

/// Plans a claimed execution. If its holder is lost and the machine has a journal of the command, Writ adopts the
/// claim. If its holder is lost and there is no journal, Writ finishes the execution with an unknown outcome.
fn plan_claimed(observed: &Observed<'_>) -> Plan {
    match (observed.holder, &observed.runner) {
        // During an adoption the runner already owns the execution, although the claim still names the previous holder.
        (_, RunnerFact::Owned) => Plan {
            effects: if observed.execution.is_cancelled_or_deleted() { vec![SideEffect::Cancel] } else { vec![] },
            ..Plan::default()
        },
        (HolderFact::MayBeAlive, _) => Plan { requeue: Some(REQUEUE_HOLDER), ..Plan::default() },
        (HolderFact::Own | HolderFact::Expired, _) if has_remote_journal(observed.execution) => {
            Plan { effects: vec![SideEffect::Adopt], requeue: Some(REQUEUE_HOLDER), ..Plan::default() }
        }
        (HolderFact::Own | HolderFact::Expired, _) => finish(
            observed,
            Phase::OutcomeUnknown,
            Reason::HolderLost,
            "the holder of the claim is gone (stopped, crashed or disconnected): the command may have run and may still run; \
             check the machine, then create a new CommandExecution to run it again",
        ),
    }
}

/// Returns true if the machine has a journal of the command. Another holder can then adopt the claim.
fn has_remote_journal(execution: &CommandExecution) -> bool {
    let has_remote = execution.status.as_ref().is_some_and(|status| status.remote.is_some());
    has_remote && execution.claim().is_some_and(|claim| claim.mode == ExecutionMode::Durable)
}

/// Rejects an execution that was restored from a backup, because its command may have run already. The annotation
/// [`RUN_AGAIN_ANNOTATION`] allows a second run. This check covers clusters whose admission policies do not refuse
/// copies.
fn reject_restored_copy(observed: &Observed<'_>) -> Option<Plan> {
    let creation = creation(observed.execution);
    let is_copy = observed.execution.phase() == Phase::Pending && creation.restored_copy;
    (is_copy && !creation.run_again).then(|| {
        let message = format!(
            "the execution was created with Writ's finalizer, so it is a copy and its command may have run already; to run it, \
             create it without the finalizer, or with the annotation {RUN_AGAIN_ANNOTATION}: \"true\""
        );
        reject(observed, Reason::RestoredCopy, &message)
    })
}

/// Finishes an execution without sending anything, if an earlier execution of the same name and spec finished. Machine,
/// policy and deadline do not change this result.
fn finish_already_executed(observed: &Observed<'_>) -> Option<Plan> {
    let PriorExecutionFact::Known(known) = &observed.prior_execution else { return None };
    let mut plan = finish(observed, known.spec.phase, Reason::AlreadyExecuted, &receipt::message(known));
    if let Some(status) = &mut plan.status {
        status.first_execution = Some(receipt::first_execution(known));
    }
    plan.needs_finalizer = true;
    Some(plan)
}

/// Lets an execution wait while Writ cannot read its receipt, because the command perhaps ran before.
fn wait_for_receipt(observed: &Observed<'_>) -> Option<Plan> {
    let PriorExecutionFact::Unreadable(problem) = &observed.prior_execution else { return None };
    let mut plan = Plan { requeue: Some(requeue_delay(observed).min(REQUEUE_RECEIPT)), ..Plan::default() };
    if observed.runner != RunnerFact::Idle {
        plan.effects.push(SideEffect::Withdraw);
    }
    let current = observed.execution.status.as_ref().and_then(|status| status.reason);
    if current != Some(Reason::ReceiptUnreadable) {
        let message = format!("waits until Writ can check if the command was executed before: {problem}");
        let status = with_phase(observed.execution, Phase::Pending, Reason::ReceiptUnreadable, &message, observed.now);
        let notice = EventNotice::of(&status).map(|notice| EventNotice { warning: true, ..notice });
        plan.effects.extend(notice.map(SideEffect::Publish));
        plan.status = Some(status);
    }
    Some(plan)
}

fn finish_cancelled(observed: &Observed<'_>) -> Option<Plan> {
    observed.execution.is_cancelled_or_deleted().then(|| {
        let message = "cancelled before it started; nothing was sent";
        finish(observed, Phase::Cancelled, Reason::CancelledBeforeStart, message)
    })
}

/// Finishes an execution that the runner refused to start. Waiting would not help.
fn finish_refused(observed: &Observed<'_>) -> Option<Plan> {
    let RunnerFact::Refused(problem) = &observed.runner else { return None };
    let phase = match problem.reason {
        Reason::MachineOffline => Phase::Expired,
        Reason::ObjectTooLarge => Phase::Rejected,
        _ => Phase::LaunchFailed,
    };
    let LaunchProblem { reason, message } = problem;
    Some(match allowed_wait(observed).cause() {
        Some(cause) if *reason == Reason::MachineOffline => {
            let message = format!("the machine is offline, and {cause}: {message}; nothing was sent");
            finish(observed, phase, *reason, &message)
        }
        _ => finish(observed, phase, *reason, message),
    })
}

fn finish_expired(observed: &Observed<'_>) -> Option<Plan> {
    let seconds = observed.execution.spec.starting_deadline_seconds;
    let over = match (seconds, &observed.runner) {
        (0, RunnerFact::Idle) => age(observed) > IMMEDIATE_START_TOLERANCE,
        (0, RunnerFact::WaitingForSlot | RunnerFact::WaitingForMachine { .. }) => true,
        (0, _) => false,
        (seconds, _) => age(observed) >= Duration::from_secs(u64::from(seconds)),
    };
    let (reason, when) = match &observed.runner {
        _ if let PriorExecutionFact::Unreadable(problem) = &observed.prior_execution => (
            Reason::ReceiptUnreadable,
            format!("before Writ could check if the command was executed before: {problem}"),
        ),
        _ if is_suspended(observed) => (Reason::MachineSuspended, "while the machine was suspended".to_owned()),
        RunnerFact::WaitingForMachine { problem, needs_person: true } => {
            (Reason::MachineMisconfigured, format!("while the machine was misconfigured: {problem}"))
        }
        RunnerFact::WaitingForMachine { problem, .. } | RunnerFact::Connecting { problem: Some(problem), .. } => {
            (Reason::MachineOffline, format!("while the machine was offline: {problem}"))
        }
        RunnerFact::WaitingForSlot => {
            (Reason::StartingDeadlineExceeded, "while the execution waited for a slot of the machine".to_owned())
        }
        _ => (Reason::StartingDeadlineExceeded, "before the command started".to_owned()),
    };
    over.then(|| {
        let message = format!("startingDeadlineSeconds ({seconds}) expired {when}; nothing was sent");
        finish(observed, Phase::Expired, reason, &message)
    })
}

/// Matches the request against the Machine and the policy.
fn evaluate_policy(observed: &Observed<'_>) -> Plan {
    let request = match Request::parse(&observed.execution.spec) {
        Ok(request) => request,
        Err(error) => return reject(observed, Reason::Malformed, &error.to_string()),
    };
    let machine = match &observed.machine {
        MachineFact::Found(machine) => machine,
        MachineFact::Missing { nearest } => {
            return reject_after_grace(
                observed,
                Reason::MachineNotFound,
                &missing_machine_message(observed.execution, nearest.as_deref()),
            );
        }
        MachineFact::Unreadable(problem) => {
            let message = format!("the Machine cannot be read: {problem}");
            return reject(observed, Reason::MachineInvalid, &message);
        }
    };
    if let Some(problem) = machine.spec.problem() {
        return reject(observed, Reason::MachineInvalid, &problem);
    }
    match policy::decide(&observed.rules, &request, machine.labels(), observed.identity) {
        Verdict::Allow(decision) => {
            match space::problem(&observed.size, observed.execution.status.as_ref(), &decision) {
                Some(problem) => reject(observed, Reason::ObjectTooLarge, &problem),
                None => wait_for_client(observed).unwrap_or_else(|| plan_queued(observed, machine, &decision)),
            }
        }
        // The decision can change when the requester is verified, so the plan only requeues the execution.
        Verdict::Deny(denial) if denial.awaits_identity(observed.identity) => {
            Plan { requeue: Some(REQUEUE_IDENTITY), ..Plan::default() }
        }
        // A GitOps sync can apply the missing rule or the Machine's label a moment after the execution, so the plan
        // waits.
        Verdict::Deny(denial) if matches!(denial.reason, Reason::NoMatchingRule | Reason::NotPermitted) => {
            reject_after_grace(observed, denial.reason, &denial.message)
        }
        Verdict::Deny(denial) => reject(observed, denial.reason, &denial.message),
    }
}

/// Returns the message for a missing Machine. `nearest` is the most similar name of a Machine in the namespace.
fn missing_machine_message(execution: &CommandExecution, nearest: Option<&str>) -> String {
    let name = &execution.spec.machine_ref.name;
    let namespace = execution.namespace().unwrap_or_default();
    let meant = nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
    format!(
        "spec.machineRef.name: there is no Machine {name} in the namespace {namespace}{meant} (kubectl -n {namespace} get \
         machines lists those that exist); create another CommandExecution that names one of them, or create the Machine and then another \
         CommandExecution"
    )
}

/// Returns the plan for an interactive execution whose client is not connected to this process, or `None`.
///
/// The process with the client puts the execution into its queue, and reports phase Queued if the wait is long. Another
/// process therefore ends an execution for its missing client only if no process has queued it.
fn wait_for_client(observed: &Observed<'_>) -> Option<Plan> {
    if observed.execution.spec.session.is_none() || observed.has_client {
        return None;
    }
    let left = CLIENT_GRACE.saturating_sub(age(observed));
    let is_queued_elsewhere = observed.execution.phase() == Phase::Queued;
    Some(match observed.runner {
        RunnerFact::Idle if is_queued_elsewhere => Plan { requeue: Some(requeue_delay(observed)), ..Plan::default() },
        RunnerFact::Idle if !left.is_zero() => {
            Plan { requeue: Some(left + Duration::from_millis(10)), ..Plan::default() }
        }
        RunnerFact::Idle => {
            let seconds = CLIENT_GRACE.as_secs();
            let message =
                format!("no client connected to the interactive execution within {seconds} s; nothing was sent");
            finish(observed, Phase::LaunchFailed, Reason::NoSession, &message)
        }
        _ => {
            let message = "the client left before the command started; nothing was sent";
            finish(observed, Phase::LaunchFailed, Reason::NoSession, message)
        }
    })
}

/// Plans an allowed execution: Writ puts it into the queue of its machine, and the status names the reason for the
/// wait.
fn plan_queued(observed: &Observed<'_>, machine: &Machine, decision: &Decision) -> Plan {
    let limit = usize::try_from(machine.spec.queue_limit).unwrap_or(usize::MAX);
    // The limit applies only to new executions. A queued execution stays in the queue, even after a restart of Writ.
    let is_new = observed.runner == RunnerFact::Idle && observed.execution.phase() == Phase::Pending;
    if is_new && observed.queue.waiting >= limit && !observed.queue.has_free_slot {
        let message =
            format!("the queue of the machine is full, it has {limit} executions (queueLimit); try again later");
        return reject(observed, Reason::QueueFull, &message);
    }
    let wait = allowed_wait(observed);
    if let Some(cause) = wait.cause().filter(|_| machine.spec.suspend) {
        let message = format!("the machine is suspended, and {cause}; nothing was sent");
        return finish(observed, Phase::Expired, Reason::MachineSuspended, &message);
    }
    let mut plan = Plan { requeue: Some(requeue_delay(observed)), ..Plan::default() };
    // Each reconcile repeats the `Enqueue` effect, so that no execution is missing from the queue, for example after a
    // restart of Writ. The queue ignores an execution that it already contains.
    if matches!(observed.runner, RunnerFact::Idle | RunnerFact::WaitingForSlot | RunnerFact::WaitingForMachine { .. }) {
        plan.effects.push(SideEffect::Enqueue { wait });
    }
    let Some((reason, message)) = reason_for_wait(observed, machine, wait) else { return plan };
    let shown = observed.execution.phase() == Phase::Queued;
    // The status is written only if the reason changes, because the message may differ at each reconcile.
    if !(shown && observed.execution.status.as_ref().and_then(|status| status.reason) == Some(reason)) {
        let mut status = with_phase(observed.execution, Phase::Queued, reason, &message, observed.now);
        with_decision(&mut status, decision, observed.now);
        // A burst of hundreds of executions must not publish hundreds of events.
        if !matches!(reason, Reason::Connecting | Reason::WaitingForSlot) {
            plan.effects.extend(EventNotice::of(&status).map(SideEffect::Publish));
        }
        plan.status = Some(status);
    }
    plan
}

/// Returns the reason and the message for the status of an execution that waits. Returns `None` if the status needs no
/// reason, because the execution will probably start soon.
fn reason_for_wait(observed: &Observed<'_>, machine: &Machine, wait: AllowedWait) -> Option<(Reason, String)> {
    let shown = observed.execution.phase() == Phase::Queued;
    // Most executions of a burst get a slot soon. A write for each of them would delay the burst.
    let is_late = shown || age(observed) >= SHOW_PROGRESS_AFTER;
    let for_slot = || (Reason::WaitingForSlot, "waits for a free slot of the machine".to_owned());
    match &observed.runner {
        _ if machine.spec.suspend => {
            Some((Reason::MachineSuspended, "waits until the machine is no longer suspended".to_owned()))
        }
        // As soon as a slot is free, Writ makes an attempt for this execution, whatever the previous attempts found.
        RunnerFact::WaitingForMachine { .. } if wait.is_ended_by_failure() => is_late.then(for_slot),
        RunnerFact::WaitingForMachine { problem, needs_person: true } => {
            Some((Reason::MachineMisconfigured, format!("waits until the machine is fixed: {problem}")))
        }
        RunnerFact::WaitingForMachine { problem, .. } => {
            Some((Reason::MachineOffline, format!("waits for the machine: {problem}")))
        }
        RunnerFact::WaitingForSlot => is_late.then(for_slot),
        RunnerFact::Idle if wait > AllowedWait::Nothing && !observed.queue.has_free_slot => is_late.then(for_slot),
        RunnerFact::Connecting { since, .. } if *since >= SHOW_PROGRESS_AFTER && !shown => {
            Some((Reason::Connecting, "a connection to the machine is being opened, or its login is slow".to_owned()))
        }
        _ => None,
    }
}

/// Returns the delay until the next reconcile of a waiting execution. The delay ends at the deadline of the execution,
/// or after [`SHOW_PROGRESS_AFTER`] if Writ may have to report a slow start.
fn requeue_delay(observed: &Observed<'_>) -> Duration {
    let deadline = Duration::from_secs(u64::from(observed.execution.spec.starting_deadline_seconds));
    let left = deadline.saturating_sub(age(observed)).max(Duration::from_secs(1));
    // With phase Queued in the status, only the deadline matters. Hundreds of queued executions then cause few
    // reconciles.
    let is_shown = observed.execution.phase() == Phase::Queued;
    match observed.runner {
        RunnerFact::Idle | RunnerFact::Connecting { .. } | RunnerFact::WaitingForSlot if !is_shown => {
            left.min(SHOW_PROGRESS_AFTER)
        }
        _ => left,
    }
}

fn allowed_wait(observed: &Observed<'_>) -> AllowedWait {
    AllowedWait::from_spec(&observed.execution.spec)
}

fn is_suspended(observed: &Observed<'_>) -> bool {
    matches!(observed.machine, MachineFact::Found(machine) if machine.spec.suspend)
}

fn reject_after_grace(observed: &Observed<'_>, reason: Reason, message: &str) -> Plan {
    let may_wait = observed.execution.spec.starting_deadline_seconds > 0;
    let left = observed.grace_for_missing.saturating_sub(age(observed));
    if may_wait && !left.is_zero() {
        return Plan { requeue: Some(left + Duration::from_millis(10)), ..Plan::default() };
    }
    reject(observed, reason, message)
}

fn reject(observed: &Observed<'_>, reason: Reason, message: &str) -> Plan {
    finish(observed, Phase::Rejected, reason, &format!("{message} (nothing was sent)"))
}

fn finish(observed: &Observed<'_>, phase: Phase, reason: Reason, message: &str) -> Plan {
    let status = with_phase(observed.execution, phase, reason, message, observed.now);
    let mut effects = Vec::new();
    if observed.runner != RunnerFact::Idle {
        effects.push(SideEffect::Withdraw);
    }
    effects.extend(EventNotice::of(&status).map(SideEffect::Publish));
    Plan { status: Some(status), effects, ..Plan::default() }
}

fn age(observed: &Observed<'_>) -> Duration {
    observed.execution.age(observed.now).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
