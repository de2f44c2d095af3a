//! The state machine: one total match over the phase, and below it a chain of small rules of which the first that
//! has something to say wins.

use std::time::Duration;

use kube::ResourceExt as _;

use crate::api::conditions::ConditionType;
use crate::api::{
    CommandExecution, CommandExecutionStatus, ExecutionMode, Machine, Phase, RUN_AGAIN_ANNOTATION, Reason,
};
use crate::policy::{self, Decision, Identity, Request, Verdict};

use super::creation::creation;
use super::status::{moved, with_decision};
use super::{FirstFact, HolderFact, MachineFact, NOW_MEANS_WITHIN, Observed, SHOW_PROGRESS_AFTER, WorkFact};
use super::{receipt, room};

/// When to look again at what hangs on who asks, while that is not known.
const LOOK_AGAIN_AT_IDENTITY: Duration = Duration::from_secs(3);
/// When to look again at an execution of which it cannot be seen whether it was executed before.
const LOOK_AGAIN_AT_RECEIPT: Duration = Duration::from_secs(10);
/// When to look again at a claim whose holder may be lost.
const LOOK_AGAIN_AT_HOLDER: Duration = Duration::from_secs(5);

/// What the status of an execution says that was noticed and not decided yet.
const NOTICED: &str =
    "not decided yet: waits some seconds for its Machine, for a rule that allows it, or for who asks to be known";

/// What to do about one execution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The status to store, with the resourceVersion that was observed. None: leave it.
    pub status: Option<CommandExecutionStatus>,
    /// Whether the finalizer has to be on it before that is stored: whoever deletes it then must not be missed.
    pub protect: bool,
    /// What to do after the status is stored.
    pub effects: Vec<Effect>,
    /// When to look again if nothing happens before. None: when something happens.
    pub requeue: Option<Duration>,
}

/// Something to be done outside of the status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Put it into the queue of its machine.
    Enqueue {
        /// True if it may not wait: one attempt, now.
        urgent: bool,
    },
    /// Take it out of the queue, and forget what is known of it.
    Withdraw,
    /// Take over an execution whose holder is lost: look at its machine for what has become of it.
    Adopt,
    /// Tell the running command to stop.
    Cancel,
    /// Tell people, by a Kubernetes event.
    Publish(Notice),
}

/// An event about an execution.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// The reason, which also is the event's.
    pub reason: Reason,
    /// Whether it is a warning.
    pub warning: bool,
    /// The sentence.
    pub message: String,
}

impl Notice {
    /// The event that goes with a status: a warning where a person should look at it.
    pub fn of(status: &CommandExecutionStatus) -> Option<Self> {
        let reason = status.reason?;
        let warning = match status.phase {
            Phase::Succeeded => false,
            // Somebody wanted that; but not that it goes on.
            Phase::Cancelled => reason == Reason::RemoteMayStillRun,
            phase => phase.is_finished() || reason == Reason::MachineMisconfigured,
        };
        // The conditions say the same, without what the command wrote: more people may read events than executions.
        let ready = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready.as_str());
        let message = ready.map(|condition| condition.message.clone()).or_else(|| status.message.clone());
        Some(Self { reason, warning, message: message.unwrap_or_default() })
    }
}

/// Decides what to do. Total: every observation has a plan.
pub fn decide(observed: &Observed<'_>) -> Plan {
    let phase = observed.execution.phase();
    if phase.is_finished() {
        return match observed.work {
            WorkFact::Absent => Plan::default(),
            _ => Plan { effects: vec![Effect::Withdraw], ..Plan::default() },
        };
    }
    // A claim counts even where the phase does not say so: starting again is the one thing that may never happen.
    if observed.execution.is_claimed() {
        return claimed(observed);
    }
    if observed.work == WorkFact::Holding {
        return Plan::default();
    }
    let plan = copied(observed)
        .or_else(|| repeated(observed))
        .or_else(|| cancelled(observed))
        .or_else(|| not_started(observed))
        .or_else(|| expired(observed))
        .or_else(|| unreadable(observed))
        .unwrap_or_else(|| judged(observed));
    remembering_its_creation(observed, plan)
}

/// What waits before anything is written of it has what was so at its creation stored at once, so that what somebody makes
/// of its metadata meanwhile is of no account. What is enqueued has it stored with its claim, a moment later.
fn remembering_its_creation(observed: &Observed<'_>, mut plan: Plan) -> Plan {
    let is_stored = observed.execution.status.as_ref().is_some_and(|status| status.creation.is_some());
    if plan.status.is_none() && plan.effects.is_empty() && observed.work == WorkFact::Absent && !is_stored {
        let mut status = observed.execution.status.clone().unwrap_or_default();
        status.creation = Some(creation(observed.execution));
        // The default status says that nobody has noticed it.
        if status.reason == Some(Reason::WaitingForController) {
            status.reason = None;
            status.message = Some(NOTICED.to_owned());
        }
        plan.status = Some(status);
    }
    plan
}

/// A claimed execution belongs to its holder. The only thing to decide about it is whether the holder is lost, and then
/// whether its machine can still be asked.
fn claimed(observed: &Observed<'_>) -> Plan {
    match (observed.holder, &observed.work) {
        // Also while it is being taken over, and the claim still names the other one.
        (_, WorkFact::Holding) => Plan {
            effects: if observed.execution.is_unwanted() { vec![Effect::Cancel] } else { vec![] },
            ..Plan::default()
        },
        (HolderFact::MayBeAlive, _) => Plan { requeue: Some(LOOK_AGAIN_AT_HOLDER), ..Plan::default() },
        (HolderFact::Myself | HolderFact::Gone, _) if can_be_asked(observed.execution) => {
            Plan { effects: vec![Effect::Adopt], requeue: Some(LOOK_AGAIN_AT_HOLDER), ..Plan::default() }
        }
        (HolderFact::Myself | HolderFact::Gone, _) => finish(
            observed,
            Phase::OutcomeUnknown,
            Reason::HolderLost,
            "who had claimed this execution has lost it (stopped, died or cut off): the command may have run, and may \
             still run; look at the machine, then create a new CommandExecution if it is to run again",
        ),
    }
}

/// Whether the machine keeps a record of the command by which another holder can go on.
fn can_be_asked(execution: &CommandExecution) -> bool {
    let has_remote = execution.status.as_ref().is_some_and(|status| status.remote.is_some());
    has_remote && execution.claim().is_some_and(|claim| claim.mode == ExecutionMode::Durable)
}

/// A copy from a backup that the API server has marked: it may have run already. The policy that refuses such copies may be
/// missing.
fn copied(observed: &Observed<'_>) -> Option<Plan> {
    let creation = creation(observed.execution);
    let is_copy = observed.execution.phase() == Phase::Pending && creation.restored_copy;
    (is_copy && !creation.run_again).then(|| {
        let message = format!(
            "it was created with Writ's finalizer, so it is a copy of one that may have run already; create it without the \
             finalizer, or with the annotation {RUN_AGAIN_ANNOTATION}: \"true\", to run it"
        );
        reject(observed, Reason::RestoredCopy, &message)
    })
}

/// Another one of this name and spec was handled before: this one says so, and nothing is sent. First of all rules, as what
/// is true of the first one is true whatever has become of Machine, policy and deadline.
fn repeated(observed: &Observed<'_>) -> Option<Plan> {
    let FirstFact::Known(known) = &observed.first else { return None };
    let mut plan = finish(observed, known.spec.phase, Reason::AlreadyExecuted, &receipt::sentence(known));
    if let Some(status) = &mut plan.status {
        status.first_execution = Some(receipt::first(known));
    }
    plan.protect = true;
    Some(plan)
}

/// Nothing is started before it is known whether it was executed before.
fn unreadable(observed: &Observed<'_>) -> Option<Plan> {
    let FirstFact::Unreadable(problem) = &observed.first else { return None };
    let mut plan = Plan { requeue: Some(look_again(observed).min(LOOK_AGAIN_AT_RECEIPT)), ..Plan::default() };
    if observed.work != WorkFact::Absent {
        plan.effects.push(Effect::Withdraw);
    }
    let said = observed.execution.status.as_ref().and_then(|status| status.reason);
    if said != Some(Reason::ReceiptUnreadable) {
        let message = format!("waits until it can be seen whether it was executed before: {problem}");
        let status = moved(observed.execution, Phase::Pending, Reason::ReceiptUnreadable, &message, observed.now);
        let notice = Notice::of(&status).map(|notice| Notice { warning: true, ..notice });
        plan.effects.extend(notice.map(Effect::Publish));
        plan.status = Some(status);
    }
    Some(plan)
}

fn cancelled(observed: &Observed<'_>) -> Option<Plan> {
    observed.execution.is_unwanted().then(|| {
        let message = "cancelled before it started; nothing was sent";
        finish(observed, Phase::Cancelled, Reason::CancelledBeforeStart, message)
    })
}

/// What the runner found that waiting does not mend.
fn not_started(observed: &Observed<'_>) -> Option<Plan> {
    let WorkFact::Refused(problem) = &observed.work else { return None };
    let phase = match problem.reason {
        Reason::MachineOffline => Phase::Expired,
        Reason::ObjectTooLarge => Phase::Rejected,
        _ => Phase::LaunchFailed,
    };
    Some(finish(observed, phase, problem.reason, &problem.message))
}

fn expired(observed: &Observed<'_>) -> Option<Plan> {
    let seconds = observed.execution.spec.starting_deadline_seconds;
    let over = match (seconds, &observed.work) {
        (0, WorkFact::Absent) => age(observed) > NOW_MEANS_WITHIN,
        (0, WorkFact::WaitingForSlot | WorkFact::WaitingForMachine { .. }) => true,
        (0, _) => false,
        (seconds, _) => age(observed) >= Duration::from_secs(u64::from(seconds)),
    };
    let (reason, why) = match &observed.work {
        _ if let FirstFact::Unreadable(problem) = &observed.first => {
            (Reason::ReceiptUnreadable, format!("it could not be seen whether it was executed before: {problem}"))
        }
        _ if is_suspended(observed) => (Reason::MachineSuspended, "the machine is suspended".to_owned()),
        WorkFact::WaitingForMachine { problem, misconfigured: true } => {
            (Reason::MachineMisconfigured, format!("the machine cannot be used: {problem}"))
        }
        WorkFact::WaitingForMachine { problem, .. } | WorkFact::Connecting { problem: Some(problem), .. } => {
            (Reason::MachineOffline, format!("the machine is offline: {problem}"))
        }
        WorkFact::WaitingForSlot => {
            (Reason::StartingDeadlineExceeded, "it was still waiting for its turn on the machine".to_owned())
        }
        _ => (Reason::StartingDeadlineExceeded, "it was not started in time".to_owned()),
    };
    over.then(|| {
        let message = format!("startingDeadlineSeconds ({seconds}) are over and {why}; nothing was sent");
        finish(observed, Phase::Expired, reason, &message)
    })
}

/// Holds the request against machine and policy.
fn judged(observed: &Observed<'_>) -> Plan {
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
                &no_machine(observed.execution, nearest.as_deref()),
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
            match room::problem(&observed.size, observed.execution.status.as_ref(), &decision) {
                Some(problem) => reject(observed, Reason::ObjectTooLarge, &problem),
                None => queued(observed, machine, &decision),
            }
        }
        // It may be said otherwise once it is known who asks; until then nothing is decided for good.
        Verdict::Deny(denial)
            if observed.identity == Identity::Undecided
                && matches!(denial.reason, Reason::NotPermitted | Reason::Denied) =>
        {
            Plan { requeue: Some(LOOK_AGAIN_AT_IDENTITY), ..Plan::default() }
        }
        // The rule, or the label that it chooses by, may come in the same sync.
        Verdict::Deny(denial) if matches!(denial.reason, Reason::NoMatchingRule | Reason::NotPermitted) => {
            reject_after_grace(observed, denial.reason, &denial.message)
        }
        Verdict::Deny(denial) => reject(observed, denial.reason, &denial.message),
    }
}

/// What a requester is told whose Machine does not exist. `nearest` is the Machine that may be meant.
fn no_machine(execution: &CommandExecution, nearest: Option<&str>) -> String {
    let name = &execution.spec.machine_ref.name;
    let namespace = execution.namespace().unwrap_or_default();
    let meant = nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
    format!(
        "spec.machineRef.name: there is no Machine {name} in the namespace {namespace}{meant} (kubectl -n {namespace} get \
         machines lists those that exist); create another CommandExecution that names one of them, or create the Machine and then another \
         CommandExecution"
    )
}

/// An allowed execution: into the queue of its machine, and the status says what it waits for.
fn queued(observed: &Observed<'_>, machine: &Machine, decision: &Decision) -> Plan {
    let limit = usize::try_from(machine.spec.queue_limit).unwrap_or(usize::MAX);
    // What is in the queue by its own status stays there, also where this process has just come and knows nothing of it.
    let is_new = observed.work == WorkFact::Absent && observed.execution.phase() == Phase::Pending;
    if is_new && observed.queue.waiting >= limit && !observed.queue.has_free_slot {
        let message = format!("{limit} executions wait for the machine already (queueLimit); try again later");
        return reject(observed, Reason::QueueFull, &message);
    }
    let urgent = observed.execution.spec.starting_deadline_seconds == 0;
    let suspended = machine.spec.suspend;
    if urgent && suspended {
        let message = "the machine is suspended, and startingDeadlineSeconds is 0; nothing was sent";
        return finish(observed, Phase::Expired, Reason::MachineSuspended, message);
    }
    let mut plan = Plan { requeue: Some(look_again(observed)), ..Plan::default() };
    // An execution that waits already is not put in again; this one may have been dropped with its queue.
    if matches!(observed.work, WorkFact::Absent | WorkFact::WaitingForSlot | WorkFact::WaitingForMachine { .. }) {
        plan.effects.push(Effect::Enqueue { urgent });
    }
    let shown = observed.execution.phase() == Phase::Queued;
    let (reason, message) = match &observed.work {
        _ if suspended => (Reason::MachineSuspended, "waits until the machine is no longer suspended".to_owned()),
        WorkFact::WaitingForMachine { problem, misconfigured: true } => {
            (Reason::MachineMisconfigured, format!("waits until the machine is mended: {problem}"))
        }
        WorkFact::WaitingForMachine { problem, .. } => {
            (Reason::MachineOffline, format!("waits for the machine: {problem}"))
        }
        WorkFact::WaitingForSlot => (Reason::WaitingForSlot, "waits for a free slot of the machine".to_owned()),
        WorkFact::Absent if !urgent && !observed.queue.has_free_slot => {
            (Reason::WaitingForSlot, "waits for a free slot of the machine".to_owned())
        }
        WorkFact::Connecting { since, .. } if *since >= SHOW_PROGRESS_AFTER && !shown => {
            (Reason::Connecting, "a connection to the machine is being opened, or its login is slow".to_owned())
        }
        _ => return plan,
    };
    // Only a change of reason is worth a write: the sentence may differ each time.
    if !(shown && observed.execution.status.as_ref().and_then(|status| status.reason) == Some(reason)) {
        let mut status = moved(observed.execution, Phase::Queued, reason, &message, observed.now);
        with_decision(&mut status, decision, observed.now);
        // Waiting for one's turn is nothing that people have to be told; a burst of hundreds would tell nothing else.
        if !matches!(reason, Reason::Connecting | Reason::WaitingForSlot) {
            plan.effects.extend(Notice::of(&status).map(Effect::Publish));
        }
        plan.status = Some(status);
    }
    plan
}

/// When to look again at what waits: at its deadline, or soon where a start is under way that may have to be shown.
fn look_again(observed: &Observed<'_>) -> Duration {
    let deadline = Duration::from_secs(u64::from(observed.execution.spec.starting_deadline_seconds));
    let left = deadline.saturating_sub(age(observed)).max(Duration::from_secs(1));
    // Once that is said, only its deadline is left to be minded: hundreds that wait must cost the others nothing.
    let is_shown = observed.execution.phase() == Phase::Queued;
    match observed.work {
        WorkFact::Absent | WorkFact::Connecting { .. } if !is_shown => left.min(SHOW_PROGRESS_AFTER),
        _ => left,
    }
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
    let status = moved(observed.execution, phase, reason, message, observed.now);
    let mut effects = Vec::new();
    if observed.work != WorkFact::Absent {
        effects.push(Effect::Withdraw);
    }
    effects.extend(Notice::of(&status).map(Effect::Publish));
    Plan { status: Some(status), effects, ..Plan::default() }
}

fn age(observed: &Observed<'_>) -> Duration {
    observed.execution.age(observed.now).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
