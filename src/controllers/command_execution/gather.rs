//! Gathers the facts about an execution, and plans its next step with them.
//!
//! Most executions only enter the queue of their machine. For them, [`plan_early`] needs no live read of the Machine and
//! of the Whitelists, because the runner reads both before the claim. Every other plan comes from [`plan_live`], which
//! reads both live.

use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use kube::runtime::reflector::Store;

use crate::api::{CommandExecution, ExecutionReceipt, Machine, Phase};
use crate::cluster::{ClusterError, Slim};
use crate::execution::{
    self, HolderFact, MachineFact, ObjectSize, Observed, Plan, PriorExecutionFact, ReceiptKey, RunnerFact,
    SHOW_PROGRESS_AFTER, SideEffect,
};
use crate::policy::RuleSet;

use super::context::{Context, key_of};

/// Metadata of a Machine, as the watch delivers it.
pub(super) type MachineMeta = Slim<Machine>;

/// Plan for an execution.
pub(super) struct Planned {
    pub plan: Plan,
    /// Metadata of the Machine that was used for the plan.
    pub machine: Option<ObjectMeta>,
    /// True if the plan comes from [`plan_early`] or [`plan_for_attempt`].
    pub is_early: bool,
}

/// Facts that a plan needs from other objects, apart from the rules.
struct Reads {
    machine: MachineRead,
    prior: PriorExecution,
    holder: HolderFact,
}

/// Result of reading the Machine of an execution.
enum MachineRead {
    Missing,
    Found(Box<Machine>),
    /// Writ cannot decode the Machine. Holds the decoder's message.
    Unreadable(String),
}

/// Receipt of a prior execution with the same name and spec.
enum PriorExecution {
    None,
    Known(Box<ExecutionReceipt>),
    /// The receipt cannot be read without manual action. Holds the error.
    Unreadable(String),
}

/// Returns the state of the execution in the runner.
fn work_of(live: &CommandExecution, context: &Context) -> RunnerFact {
    context.runner.facts(&key_of(live), &live.spec.machine_ref.name).0
}

/// Plans an execution that an attempt of this process is about to claim. The plan needs no reads, because the attempt
/// reads everything itself. Returns `None` if there is no such attempt, or if the status may have to report it.
pub(super) fn plan_for_attempt(live: &CommandExecution, context: &Context) -> Option<Planned> {
    let is_waiting = live.phase() == Phase::Pending && !live.is_claimed() && !live.is_cancelled_or_deleted();
    let requeue = match work_of(live, context) {
        RunnerFact::Owned if is_waiting => None,
        RunnerFact::Connecting { since, .. } if is_waiting => Some(SHOW_PROGRESS_AFTER.checked_sub(since)?),
        _ => return None,
    };
    Some(Planned { plan: Plan { requeue, ..Plan::default() }, machine: None, is_early: true })
}

/// Plans an execution that is new to the runner, with the rules of the latest read, and with the Machine of an open
/// connection. Returns `None` if this plan would do anything other than to enqueue the execution, because only
/// [`plan_live`] may decide anything else.
///
/// The receipt is read live. If there is no open connection, the Machine is also read live.
pub(super) async fn plan_early(
    live: &CommandExecution,
    size: ObjectSize,
    context: &Context,
) -> Result<Option<Planned>, ClusterError> {
    let namespace = live.namespace().unwrap_or_default();
    let machine_name = &live.spec.machine_ref.name;
    let is_new = live.phase() == Phase::Pending && !live.is_claimed();
    if !is_new || work_of(live, context) != RunnerFact::Idle {
        return Ok(None);
    }
    let Some(rules) = context.policies.last_known(&namespace) else { return Ok(None) };
    let machine = async {
        match context.runner.connected_machine(&namespace, machine_name) {
            Some(machine) => Ok(MachineRead::Found(Box::new(machine))),
            None => read_machine(context, &namespace, machine_name).await,
        }
    };
    let (machine, prior) = tokio::try_join!(machine, read_prior_execution(context, live))?;
    let reads = Reads { machine, prior, holder: HolderFact::Own };
    let plan = plan((live, size), &reads, rules, context, None).await;
    let only_enqueues = plan.status.is_none() && matches!(plan.effects.as_slice(), [SideEffect::Enqueue { .. }]);
    Ok(only_enqueues.then(|| Planned { plan, machine: reads.machine.into_metadata(), is_early: true }))
}

/// Plans with live reads of the Machine and of the Whitelists. `machines` is used only to suggest a Machine name that is
/// similar to a missing name.
pub(super) async fn plan_live(
    live: &CommandExecution,
    size: ObjectSize,
    context: &Context,
    machines: &Store<MachineMeta>,
) -> Result<Planned, ClusterError> {
    let namespace = live.namespace().unwrap_or_default();
    // After the claim, the plan no longer depends on the Machine and the Whitelists.
    let needs_reads = matches!(live.phase(), Phase::Pending | Phase::Queued);
    let work = work_of(live, context);
    // An execution that waits is decided by the same rules as a start. This avoids a list for each execution of a burst.
    let is_connecting = matches!(work, RunnerFact::Connecting { .. });
    let is_waiting = is_connecting || matches!(work, RunnerFact::WaitingForSlot | RunnerFact::WaitingForMachine { .. });
    let rules = async {
        if is_waiting {
            context.policies.confirmed(&namespace).await
        } else {
            context.policies.listed(&namespace).await
        }
    };
    let (machine, rules, prior) = if needs_reads {
        let machine = read_machine(context, &namespace, &live.spec.machine_ref.name);
        tokio::try_join!(machine, rules, read_prior_execution(context, live))?
    } else {
        (MachineRead::Missing, RuleSet::default(), PriorExecution::None)
    };
    let holder = match live.claim() {
        Some(claim) => context.holders.holder_fact(&claim.holder).await?,
        None => HolderFact::Own,
    };
    let reads = Reads { machine, prior, holder };
    let mut planned = plan((live, size), &reads, rules, context, Some(machines)).await;
    let ends = planned.status.as_ref().is_some_and(|status| status.phase.is_finished());
    if needs_reads && is_waiting && (ends || (!is_connecting && !planned.enqueues())) {
        // Perhaps a new Whitelist allows the execution.
        let rules = context.policies.listed(&namespace).await?;
        planned = plan((live, size), &reads, rules, context, Some(machines)).await;
    }
    Ok(Planned { plan: planned, machine: reads.machine.into_metadata(), is_early: false })
}

async fn plan(
    (live, size): (&CommandExecution, ObjectSize),
    reads: &Reads,
    rules: RuleSet,
    context: &Context,
    machines: Option<&Store<MachineMeta>>,
) -> Plan {
    let (namespace, machine_name) = (live.namespace().unwrap_or_default(), &live.spec.machine_ref.name);
    let identity = context.stamping.identity(live).await;
    let (runner, queue) = context.runner.facts(&key_of(live), machine_name);
    execution::plan(&Observed {
        execution: live,
        size,
        prior_execution: match &reads.prior {
            PriorExecution::None => PriorExecutionFact::None,
            PriorExecution::Known(receipt) => PriorExecutionFact::Known(receipt),
            PriorExecution::Unreadable(error) => PriorExecutionFact::Unreadable(error.clone()),
        },
        machine: match &reads.machine {
            MachineRead::Missing => MachineFact::Missing {
                nearest: machines.and_then(|machines| nearest(machines, &namespace, machine_name)),
            },
            MachineRead::Found(machine) => MachineFact::Found(machine),
            MachineRead::Unreadable(error) => MachineFact::Unreadable(error.clone()),
        },
        rules,
        identity,
        runner,
        has_client: context.runner.has_client(&namespace, &live.name_any()),
        queue,
        holder: reads.holder,
        grace_for_missing: context.grace_for_missing,
        now: context.cluster.now(),
    })
}

impl MachineRead {
    fn into_metadata(self) -> Option<ObjectMeta> {
        if let MachineRead::Found(machine) = self { Some(machine.metadata) } else { None }
    }
}

/// Returns the Machine name in `namespace` that is most similar to `name`, or `None` if no name is similar.
fn nearest(machines: &Store<MachineMeta>, namespace: &str, name: &str) -> Option<String> {
    let there = machines.state_filter(|machine| machine.namespace().as_deref() == Some(namespace));
    let mut names: Vec<String> = there.iter().map(|machine| machine.name_any()).collect();
    // Sorting makes the result deterministic if two names are equally similar.
    names.sort_unstable();
    execution::nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

/// Reads the receipt of a prior execution live. Writ stores the receipt before it deletes the prior execution, so a new
/// execution with the same name always finds the receipt. While an execution exists, no receipt of its name is new, so
/// Writ does not read the receipt again after the runner has accepted the execution.
async fn read_prior_execution(context: &Context, live: &CommandExecution) -> Result<PriorExecution, ClusterError> {
    let is_known = work_of(live, context) != RunnerFact::Idle;
    if live.phase() != Phase::Pending || live.is_claimed() || is_known {
        return Ok(PriorExecution::None);
    }
    let Some(key) = ReceiptKey::of(live) else { return Ok(PriorExecution::None) };
    match context.cluster.receipt(&key).await {
        Ok(receipt) => Ok(receipt.map_or(PriorExecution::None, |receipt| PriorExecution::Known(Box::new(receipt)))),
        Err(error @ (ClusterError::Unavailable { .. } | ClusterError::Conflict { .. })) => Err(error),
        Err(error) => {
            tracing::warn!(execution = %key_of(live), %error, "receipt cannot be read");
            Ok(PriorExecution::Unreadable(error.to_string()))
        }
    }
}

/// Reads the Machine live, and passes its settings to the runner.
async fn read_machine(context: &Context, namespace: &str, name: &str) -> Result<MachineRead, ClusterError> {
    match context.cluster.machine(namespace, name).await {
        Ok(machine) => {
            context.runner.configure(&machine);
            Ok(MachineRead::Found(Box::new(machine)))
        }
        Err(ClusterError::NotFound { .. }) => Ok(MachineRead::Missing),
        Err(ClusterError::Undecodable { message, .. }) => Ok(MachineRead::Unreadable(message)),
        Err(error) => Err(error),
    }
}
