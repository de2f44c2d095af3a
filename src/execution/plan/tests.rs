//! Tests of the state machine, one for each situation. The fixtures read as sentences:
//! `Situation::pending().with_deadline(0)`.

mod creation;
mod interactive;
mod receipts;
mod when_offline;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};

use super::*;
use crate::api::execution_status::{Claim, MachineRecord, ObjectRecord, RemoteRecord};
use crate::api::whitelist::{Effect as RuleEffect, Subject, SubjectKind};
use crate::api::{
    CommandExecution, CommandExecutionSpec, CommandExecutionStatus, ExecutionReceipt, MachineSpec, Whitelist,
    WhitelistRule, WhitelistSpec,
};
use crate::execution::{ObjectSize, QueueFact};
use crate::policy::{CompiledWhitelist, Identity, RuleSet, compile};

fn noon() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

struct Situation {
    execution: CommandExecution,
    machine: Option<Result<Machine, String>>,
    rules: RuleSet,
    identity: Identity<'static>,
    work: RunnerFact,
    has_client: bool,
    queue: QueueFact,
    holder: HolderFact,
    age: Duration,
    first: Result<Option<ExecutionReceipt>, String>,
    size: ObjectSize,
}

impl Situation {
    fn pending() -> Self {
        let spec = CommandExecutionSpec::with_command("say hello");
        let metadata = ObjectMeta {
            name: Some("x".to_owned()),
            namespace: Some("team".to_owned()),
            uid: Some("uid-x".to_owned()),
            generation: Some(1),
            creation_timestamp: Some(Time(noon())),
            ..ObjectMeta::default()
        };
        let machine = Machine::new(
            "web-1",
            MachineSpec { queue_limit: 10, ..MachineSpec::new("192.0.2.1", "deploy", "web-ssh") },
        );
        Self {
            execution: CommandExecution { metadata, spec, status: Some(CommandExecutionStatus::default()) },
            machine: Some(Ok(machine)),
            rules: rules("say hello"),
            identity: Identity::Unknown,
            work: RunnerFact::Idle,
            has_client: false,
            queue: QueueFact { waiting: 0, has_free_slot: true },
            holder: HolderFact::Own,
            age: Duration::from_secs(1),
            first: Ok(None),
            size: ObjectSize::default(),
        }
    }

    fn claimed_by(holder: HolderFact) -> Self {
        let mut situation = Self::pending().in_phase(Phase::Dispatched);
        let status = situation.execution.status.as_mut().unwrap();
        status.claim = Some(Claim {
            token: "t".to_owned(),
            holder: "somebody".to_owned(),
            mode: ExecutionMode::Direct,
            dispatched_time: MicroTime(noon()),
            not_after_time: None,
        });
        status.machine = Some(MachineRecord {
            name: "web-1".to_owned(),
            uid: "m".to_owned(),
            generation: 1,
            address: "192.0.2.1:22".to_owned(),
            user: "deploy".to_owned(),
            host_key_fingerprint: "SHA256:x".to_owned(),
        });
        situation.holder = holder;
        situation
    }

    fn durably(mut self) -> Self {
        let status = self.execution.status.as_mut().unwrap();
        status.claim.as_mut().unwrap().mode = ExecutionMode::Durable;
        status.remote = Some(RemoteRecord {
            directory: "/home/deploy/.local/state/writ".to_owned(),
            directory_id: "word".to_owned(),
            boot_id: "boot".to_owned(),
            not_after_uptime_ms: 1000,
        });
        self
    }

    fn in_phase(mut self, phase: Phase) -> Self {
        self.execution.status.as_mut().unwrap().phase = phase;
        self
    }

    fn aged(mut self, seconds: u64) -> Self {
        self.age = Duration::from_secs(seconds);
        self
    }

    fn with_deadline(mut self, seconds: u32) -> Self {
        self.execution.spec.starting_deadline_seconds = seconds;
        self
    }

    fn doing(mut self, work: RunnerFact) -> Self {
        self.work = work;
        self
    }

    fn asking(mut self, command: &str) -> Self {
        self.execution.spec.command = Some(command.to_owned());
        self
    }

    fn plan(&self) -> Plan {
        plan(&Observed {
            execution: &self.execution,
            size: self.size,
            prior_execution: match &self.first {
                Ok(None) => PriorExecutionFact::None,
                Ok(Some(receipt)) => PriorExecutionFact::Known(receipt),
                Err(problem) => PriorExecutionFact::Unreadable(problem.clone()),
            },
            machine: match &self.machine {
                None => MachineFact::Missing { nearest: Some("web-1".to_owned()) },
                Some(Ok(machine)) => MachineFact::Found(machine),
                Some(Err(problem)) => MachineFact::Unreadable(problem.clone()),
            },
            rules: self.rules.clone(),
            identity: self.identity,
            runner: self.work.clone(),
            has_client: self.has_client,
            queue: self.queue,
            holder: self.holder,
            grace_for_missing: Duration::from_secs(10),
            now: noon() + SignedDuration::try_from(self.age).unwrap(),
        })
    }

    #[track_caller]
    fn becomes(&self, phase: Phase, reason: Reason) -> Plan {
        let plan = self.plan();
        let status = plan.status.as_ref().expect("a new status");
        assert_eq!((status.phase, status.reason), (phase, Some(reason)), "{:?}", status.message);
        plan
    }

    #[track_caller]
    fn waits(&self) -> Plan {
        let plan = self.plan();
        // The plan may store the creation record, so the comparison ignores it.
        let without = |status: &CommandExecutionStatus| CommandExecutionStatus { creation: None, ..status.clone() };
        let before = self.execution.status.as_ref().map(without);
        assert!(plan.status.is_none() || plan.status.as_ref().map(without) == before, "{:?}", plan.status);
        assert!(plan.effects.is_empty(), "{:?}", plan.effects);
        plan
    }
}

fn rules(text: &str) -> RuleSet {
    let rule = WhitelistRule {
        name: "hello".to_owned(),
        match_text: Some(text.to_owned()),
        run: vec!["/bin/echo".to_owned(), "hello".to_owned()],
        ..WhitelistRule::default()
    };
    RuleSet::new(vec![
        compile(&Whitelist::new("web", WhitelistSpec { rules: vec![rule], ..WhitelistSpec::default() })).into(),
    ])
}

fn enqueued(plan: &Plan) -> bool {
    plan.effects.iter().any(|effect| matches!(effect, SideEffect::Enqueue { .. }))
}

fn condition<'a>(plan: &'a Plan, name: &str) -> Option<&'a str> {
    let status = plan.status.as_ref()?;
    status.conditions.iter().find(|condition| condition.type_ == name).map(|condition| condition.status.as_str())
}

#[test]
fn an_allowed_execution_with_a_free_slot_is_enqueued_without_a_write() {
    let plan = Situation::pending().plan();
    assert_eq!(plan.status, None);
    assert_eq!(plan.effects, [SideEffect::Enqueue { wait: AllowedWait::Machine }]);
}

/// In a burst, most executions get a slot within 2 s. A write for each of them would cost more than it tells.
#[test]
fn a_wait_for_a_slot_is_written_only_after_two_seconds() {
    let mut situation = Situation::pending();
    situation.queue = QueueFact { waiting: 3, has_free_slot: false };
    for work in [RunnerFact::Idle, RunnerFact::WaitingForSlot] {
        situation.work = work;
        let plan = situation.plan();
        assert_eq!(plan.status, None);
        assert_eq!(plan.effects, [SideEffect::Enqueue { wait: AllowedWait::Machine }]);
        assert!(plan.requeue.is_some_and(|again| again <= Duration::from_secs(2)), "{:?}", plan.requeue);
    }
    situation.work = RunnerFact::WaitingForMachine { problem: "refused".to_owned(), needs_person: false };
    situation.becomes(Phase::Queued, Reason::MachineOffline);
}

#[test]
fn an_allowed_execution_without_a_free_slot_is_queued_and_says_so() {
    let mut situation = Situation::pending().aged(2);
    situation.queue = QueueFact { waiting: 3, has_free_slot: false };
    let plan = situation.becomes(Phase::Queued, Reason::WaitingForSlot);
    assert!(enqueued(&plan));
    let status = plan.status.as_ref().unwrap();
    assert_eq!(status.decision.as_ref().unwrap().argv, ["/bin/echo", "hello"]);
    assert!(status.queued_time.is_some() && status.completion_time.is_none());
    assert_eq!(condition(&plan, "Accepted"), Some("True"));
    assert_eq!(condition(&plan, "Reconciling"), Some("True"));
    assert_eq!(condition(&plan, "Ready"), Some("False"));
    assert_eq!(condition(&plan, "Stalled"), None);
}

#[test]
fn an_execution_that_is_queued_already_is_not_written_again_for_the_same_reason() {
    let mut situation = Situation::pending().in_phase(Phase::Queued).doing(RunnerFact::WaitingForSlot);
    situation.execution.status.as_mut().unwrap().reason = Some(Reason::WaitingForSlot);
    assert_eq!(situation.plan().status, None);
    situation.work = RunnerFact::WaitingForMachine { problem: "refused".to_owned(), needs_person: false };
    situation.becomes(Phase::Queued, Reason::MachineOffline);
}

#[test]
fn the_execution_over_the_queue_limit_is_rejected() {
    let mut situation = Situation::pending();
    situation.queue = QueueFact { waiting: 10, has_free_slot: false };
    situation.becomes(Phase::Rejected, Reason::QueueFull);
    situation.work = RunnerFact::WaitingForSlot;
    assert!(enqueued(&situation.plan()) && situation.plan().status.is_none(), "one of the ten stays");
    let late = situation.aged(2).plan();
    assert!(late.status.is_some_and(|status| status.phase == Phase::Queued), "one of the ten stays");
}

#[test]
fn a_command_that_no_rule_lists_is_waited_for_then_rejected() {
    let situation = Situation::pending().asking("rm -rf /");
    assert!(situation.waits().requeue.is_some_and(|again| again >= Duration::from_secs(9)));
    let plan = Situation::pending().asking("rm -rf /").aged(10).becomes(Phase::Rejected, Reason::NoMatchingRule);
    assert_eq!(condition(&plan, "Accepted"), Some("False"));
    assert_eq!(condition(&plan, "Stalled"), Some("True"));
    assert!(!enqueued(&plan));
}

#[test]
fn a_deadline_of_zero_never_waits_for_a_rule() {
    Situation::pending().asking("rm -rf /").with_deadline(0).becomes(Phase::Rejected, Reason::NoMatchingRule);
}

#[test]
fn a_missing_machine_is_waited_for_then_rejected() {
    let mut situation = Situation::pending();
    situation.machine = None;
    situation.waits();
    let plan = situation.aged(10).becomes(Phase::Rejected, Reason::MachineNotFound);
    let message = plan.status.unwrap().message.unwrap();
    for part in ["spec.machineRef.name", "did you mean web-1?", "get machines"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn a_machine_or_policy_that_cannot_be_read_allows_nothing() {
    let mut situation = Situation::pending();
    situation.machine = Some(Err("bad port".to_owned()));
    situation.becomes(Phase::Rejected, Reason::MachineInvalid);
    let mut situation = Situation::pending();
    let record = ObjectRecord { name: "web".to_owned(), uid: "uid-web".to_owned(), generation: 1 };
    situation.rules = RuleSet::new(vec![CompiledWhitelist::unreadable(record, "bad rule").into()]);
    situation.becomes(Phase::Rejected, Reason::PolicyBroken);
}

#[test]
fn deny_rejects_at_once_and_missing_objects_are_waited_for() {
    let deny = |effect, subjects: bool| {
        let rule = WhitelistRule {
            name: "r".to_owned(),
            effect: Some(effect),
            match_text: Some("say hello".to_owned()),
            run: vec!["/bin/echo".to_owned()],
            subjects: subjects.then(|| {
                vec![Subject {
                    kind: SubjectKind::User,
                    name: "jane".to_owned(),
                    namespace: None,
                    unknown_fields: Default::default(),
                }]
            }),
            ..WhitelistRule::default()
        };
        RuleSet::new(vec![
            compile(&Whitelist::new("web", WhitelistSpec { rules: vec![rule], ..WhitelistSpec::default() })).into(),
        ])
    };
    let mut situation = Situation::pending();
    situation.rules = deny(RuleEffect::Deny, false);
    situation.becomes(Phase::Rejected, Reason::Denied);
    let mut situation = Situation::pending();
    situation.rules = deny(RuleEffect::Allow, true);
    situation.waits();
    situation.aged(11).becomes(Phase::Rejected, Reason::NotPermitted);
    // As long as the requester is not verified, a decision that depends on the requester is not final.
    for effect in [RuleEffect::Deny, RuleEffect::Allow] {
        let mut situation = Situation::pending().aged(11);
        situation.rules = deny(effect, true);
        situation.identity = Identity::Undecided;
        assert!(situation.waits().requeue.is_some());
        situation.identity = Identity::Unknown;
        assert!(situation.plan().status.is_some());
    }
}

#[test]
fn a_request_that_is_not_well_formed_is_rejected_at_once() {
    Situation::pending().asking("say\nhello").becomes(Phase::Rejected, Reason::Malformed);
    let mut both = Situation::pending();
    both.execution.spec.argv = Some(vec!["/bin/echo".to_owned()]);
    both.becomes(Phase::Rejected, Reason::Malformed);
}

#[test]
fn a_policy_that_changed_while_it_was_queued_counts() {
    let mut situation = Situation::pending().in_phase(Phase::Queued).doing(RunnerFact::WaitingForSlot).aged(20);
    situation.rules = rules("say goodbye");
    let plan = situation.becomes(Phase::Rejected, Reason::NoMatchingRule);
    assert!(plan.effects.contains(&SideEffect::Withdraw));
}

#[test]
fn a_deadline_that_is_over_expires_and_says_why() {
    let waiting = |work| Situation::pending().in_phase(Phase::Queued).doing(work).aged(300);
    let plan = waiting(RunnerFact::WaitingForSlot).becomes(Phase::Expired, Reason::StartingDeadlineExceeded);
    assert!(plan.effects.contains(&SideEffect::Withdraw));
    waiting(RunnerFact::WaitingForMachine { problem: "refused".to_owned(), needs_person: false })
        .becomes(Phase::Expired, Reason::MachineOffline);
    waiting(RunnerFact::Idle).becomes(Phase::Expired, Reason::StartingDeadlineExceeded);
    let again = RunnerFact::Connecting { since: Duration::from_secs(1), problem: Some("refused".to_owned()) };
    waiting(again).becomes(Phase::Expired, Reason::MachineOffline);
}

#[test]
fn a_deadline_of_zero_means_one_attempt_now() {
    let now = || Situation::pending().with_deadline(0);
    assert_eq!(now().plan().effects, [SideEffect::Enqueue { wait: AllowedWait::Nothing }]);
    assert_eq!(now().doing(RunnerFact::Connecting { since: Duration::ZERO, problem: None }).plan().status, None);
    now().doing(RunnerFact::WaitingForSlot).becomes(Phase::Expired, Reason::StartingDeadlineExceeded);
    let offline = LaunchProblem { reason: Reason::MachineOffline, message: "refused".to_owned() };
    now().doing(RunnerFact::Refused(offline)).becomes(Phase::Expired, Reason::MachineOffline);
    // If Writ restarts an hour later, Writ must not start an execution that requested an immediate start.
    now().aged(3600).becomes(Phase::Expired, Reason::StartingDeadlineExceeded);
}

#[test]
fn refused_start_is_a_failed_launch() {
    let problem = LaunchProblem { reason: Reason::HostKeyMismatch, message: "another key".to_owned() };
    let plan =
        Situation::pending().doing(RunnerFact::Refused(problem)).becomes(Phase::LaunchFailed, Reason::HostKeyMismatch);
    assert!(plan.effects.contains(&SideEffect::Withdraw));
    assert_eq!(plan.status.unwrap().exit_code, None);
}

#[test]
fn a_cancelled_execution_that_has_not_started_never_does() {
    for phase in [Phase::Pending, Phase::Queued] {
        let mut situation = Situation::pending().in_phase(phase).doing(RunnerFact::WaitingForSlot);
        situation.execution.spec.cancel_requested = true;
        let plan = situation.becomes(Phase::Cancelled, Reason::CancelledBeforeStart);
        assert!(plan.effects.contains(&SideEffect::Withdraw));
    }
}

#[test]
fn a_cancelled_execution_that_runs_is_told_to_its_task() {
    let mut situation = Situation::claimed_by(HolderFact::Own).doing(RunnerFact::Owned);
    situation.execution.spec.cancel_requested = true;
    let plan = situation.plan();
    assert_eq!((plan.status, plan.effects), (None, vec![SideEffect::Cancel]));
}

#[test]
fn a_claim_that_is_held_is_left_alone() {
    Situation::claimed_by(HolderFact::Own).doing(RunnerFact::Owned).waits();
    assert!(Situation::claimed_by(HolderFact::MayBeAlive).waits().requeue.is_some());
}

#[test]
fn a_claim_that_was_left_behind_is_unknown_and_never_started_again() {
    for situation in [Situation::claimed_by(HolderFact::Expired), Situation::claimed_by(HolderFact::Own)] {
        let plan = situation.becomes(Phase::OutcomeUnknown, Reason::HolderLost);
        assert!(!enqueued(&plan));
        assert_eq!(plan.status.unwrap().exit_code, None);
    }
}

#[test]
fn a_durable_claim_that_was_left_behind_is_taken_over() {
    for situation in [Situation::claimed_by(HolderFact::Expired), Situation::claimed_by(HolderFact::Own)] {
        let plan = situation.durably().plan();
        assert_eq!((plan.status, plan.effects), (None, vec![SideEffect::Adopt]));
        assert!(plan.requeue.is_some(), "in case that it does not come to it");
    }
    Situation::claimed_by(HolderFact::MayBeAlive).durably().waits();
    let under_way = Situation::claimed_by(HolderFact::Expired).durably().doing(RunnerFact::Owned);
    assert_eq!(under_way.plan(), Plan::default());
}

#[test]
fn a_claim_counts_whatever_the_phase_says() {
    for phase in Phase::ALL {
        for work in [RunnerFact::Idle, RunnerFact::WaitingForSlot, RunnerFact::Owned] {
            for holder in [HolderFact::Own, HolderFact::MayBeAlive, HolderFact::Expired] {
                let situation = Situation::claimed_by(holder).in_phase(phase).doing(work.clone());
                assert!(!enqueued(&situation.plan()), "{phase:?} {work:?} {holder:?}");
            }
        }
    }
}

#[test]
fn a_finished_execution_never_changes() {
    for phase in Phase::ALL.into_iter().filter(|phase| phase.is_finished()) {
        let mut situation = Situation::pending().in_phase(phase).aged(100_000);
        situation.execution.spec.cancel_requested = true;
        situation.waits();
        let leftover = situation.doing(RunnerFact::WaitingForSlot).plan();
        assert_eq!((leftover.status, leftover.effects), (None, vec![SideEffect::Withdraw]));
    }
}

#[test]
fn a_claim_under_way_is_not_written_over() {
    Situation::pending().doing(RunnerFact::Owned).aged(400).waits();
}

#[test]
fn a_connection_that_takes_long_is_shown() {
    let connecting = |seconds| RunnerFact::Connecting { since: Duration::from_secs(seconds), problem: None };
    assert_eq!(Situation::pending().doing(connecting(1)).plan().status, None);
    Situation::pending().doing(connecting(2)).becomes(Phase::Queued, Reason::Connecting);
}

#[test]
fn a_clock_that_is_behind_the_api_server_s_does_no_harm() {
    let mut situation = Situation::pending();
    situation.execution.metadata.creation_timestamp = Some(Time(noon() + SignedDuration::from_hours(1)));
    assert!(enqueued(&situation.plan()));
}

#[test]
fn a_copy_from_a_backup_that_is_marked_is_rejected_unless_it_is_to_run_again() {
    use crate::api::{RESTORED_ANNOTATION, RUN_AGAIN_ANNOTATION};
    let annotated = |run_again: Option<&str>| {
        let mut copy = Situation::pending();
        let marks = [(RESTORED_ANNOTATION, Some("true")), (RUN_AGAIN_ANNOTATION, run_again)];
        let marks = marks.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        copy.execution.metadata.annotations = Some(marks.collect());
        copy
    };
    for run_again in [None, Some(""), Some("false")] {
        annotated(run_again).becomes(Phase::Rejected, Reason::RestoredCopy);
    }
    assert!(enqueued(&annotated(Some("true")).plan()));
}

#[test]
fn object_without_space_for_its_result_is_rejected() {
    let mut full = Situation::pending();
    full.size = ObjectSize { total: 1_500_000, labels: 1_490_000, ..ObjectSize::default() };
    let message = full.becomes(Phase::Rejected, Reason::ObjectTooLarge).status.unwrap().message.unwrap();
    assert!(message.contains("labels 1490000") && message.contains("nothing was sent"), "{message}");
    full.size.total = 1_400_000;
    assert!(enqueued(&full.plan()));
    // If the API server itself refuses the claim as too large, the execution is rejected too.
    let problem = LaunchProblem { reason: Reason::ObjectTooLarge, message: "no room".to_owned() };
    Situation::pending().doing(RunnerFact::Refused(problem)).becomes(Phase::Rejected, Reason::ObjectTooLarge);
}
