//! Executions with `whenOffline: Fail`: they wait for a slot, and not for a machine that is offline or suspended.

use super::*;
use crate::api::WhenOffline;

fn failing() -> Situation {
    let mut situation = Situation::pending();
    situation.execution.spec.when_offline = WhenOffline::Fail;
    situation
}

fn offline() -> RunnerFact {
    RunnerFact::WaitingForMachine { problem: "refused".to_owned(), needs_person: false }
}

fn message(plan: Plan) -> String {
    plan.status.unwrap().message.unwrap()
}

#[test]
fn queue_receives_the_allowed_wait() {
    assert_eq!(failing().plan().effects, [SideEffect::Enqueue { wait: AllowedWait::Slot }]);
    let now = failing().with_deadline(0).plan();
    assert_eq!(now.effects, [SideEffect::Enqueue { wait: AllowedWait::Nothing }]);
}

#[test]
fn failed_attempt_expires_the_execution_with_the_field_and_the_cause() {
    let problem = LaunchProblem { reason: Reason::MachineOffline, message: "refused".to_owned() };
    for phase in [Phase::Pending, Phase::Queued] {
        let tried = failing().in_phase(phase).doing(RunnerFact::Refused(problem.clone()));
        let plan = tried.becomes(Phase::Expired, Reason::MachineOffline);
        assert!(plan.effects.contains(&SideEffect::Withdraw));
        assert_eq!(message(plan), "the machine is offline, and whenOffline is Fail: refused; nothing was sent");
    }
    let now = failing().with_deadline(0).doing(RunnerFact::Refused(problem));
    assert!(message(now.becomes(Phase::Expired, Reason::MachineOffline)).contains("startingDeadlineSeconds is 0"));
}

#[test]
fn fault_that_needs_a_repair_fails_the_launch() {
    let problem = LaunchProblem { reason: Reason::HostKeyMismatch, message: "another key".to_owned() };
    let plan = failing().doing(RunnerFact::Refused(problem)).becomes(Phase::LaunchFailed, Reason::HostKeyMismatch);
    assert_eq!(message(plan), "another key");
}

#[test]
fn busy_machine_lets_it_wait_until_the_deadline() {
    let mut busy = failing().doing(RunnerFact::WaitingForSlot).aged(299);
    busy.queue = QueueFact { waiting: 3, has_free_slot: false };
    assert!(enqueued(&busy.becomes(Phase::Queued, Reason::WaitingForSlot)));
    busy.aged(300).becomes(Phase::Expired, Reason::StartingDeadlineExceeded);
}

/// All slots are in use while the machine is offline. The execution has not had its attempt, so it does not end yet.
#[test]
fn offline_machine_without_a_free_slot_lets_it_wait_for_the_slot() {
    for needs_person in [false, true] {
        let problem = "refused".to_owned();
        let waiting = failing().doing(RunnerFact::WaitingForMachine { problem, needs_person });
        assert_eq!(waiting.plan().status, None);
        waiting.aged(2).becomes(Phase::Queued, Reason::WaitingForSlot);
    }
    let late = failing().doing(offline()).aged(300).becomes(Phase::Expired, Reason::MachineOffline);
    assert!(message(late).contains("startingDeadlineSeconds (300) expired while the machine was offline: refused"));
}

#[test]
fn suspended_machine_expires_it_at_once() {
    for (phase, work) in
        [(Phase::Pending, RunnerFact::Idle), (Phase::Queued, RunnerFact::WaitingForSlot), (Phase::Queued, offline())]
    {
        let mut situation = failing().in_phase(phase).doing(work);
        let Some(Ok(machine)) = &mut situation.machine else { panic!("a machine") };
        machine.spec.suspend = true;
        let plan = situation.becomes(Phase::Expired, Reason::MachineSuspended);
        assert!(!enqueued(&plan));
        assert_eq!(message(plan), "the machine is suspended, and whenOffline is Fail; nothing was sent");
        situation.execution.spec.when_offline = WhenOffline::Wait;
        situation.becomes(Phase::Queued, Reason::MachineSuspended);
    }
}

#[test]
fn missing_machine_or_rule_is_waited_for_as_always() {
    let mut missing = failing();
    missing.machine = None;
    missing.waits();
    failing().asking("rm -rf /").waits();
    failing().asking("rm -rf /").aged(10).becomes(Phase::Rejected, Reason::NoMatchingRule);
}

/// After the claim, the command has perhaps started. `whenOffline` then ends nothing.
#[test]
fn claimed_execution_does_not_end_by_it() {
    for holder in [HolderFact::Own, HolderFact::MayBeAlive, HolderFact::Expired] {
        let mut claimed = Situation::claimed_by(holder).durably().doing(offline());
        let before = claimed.plan();
        claimed.execution.spec.when_offline = WhenOffline::Fail;
        let Some(Ok(machine)) = &mut claimed.machine else { panic!("a machine") };
        machine.spec.suspend = true;
        assert_eq!(claimed.plan(), before, "{holder:?}");
    }
}
