//! Executions with a receipt, and receipts that cannot be read.

use super::*;
use crate::execution::ReceiptKey;

/// Returns the receipt of an earlier execution with the name and spec of `Situation::pending()`.
fn receipt(phase: &str, exit_code: Option<i64>) -> ExecutionReceipt {
    let mut first = Situation::pending().execution;
    first.metadata.uid = Some("uid-first".to_owned());
    first.status = serde_json::from_value(serde_json::json!({
        "phase": phase, "reason": "Completed", "exitCode": exit_code, "completionTime": "2026-11-20T12:00:00.000000Z",
    }))
    .unwrap();
    ReceiptKey::of(&first).unwrap().receipt(&first).unwrap()
}

#[test]
fn repeated_execution_finishes_like_the_first() {
    for phase in Phase::ALL.into_iter().filter(|phase| phase.is_finished()) {
        let mut situation = Situation::pending();
        situation.first = Ok(Some(receipt(phase.as_str(), Some(0))));
        let plan = situation.becomes(phase, Reason::AlreadyExecuted);
        assert!(plan.needs_finalizer && !enqueued(&plan));
        let status = plan.status.as_ref().unwrap();
        let first = status.first_execution.as_ref().unwrap();
        assert_eq!((first.uid.as_str(), first.exit_code), ("uid-first", Some(0)));
        assert_eq!(
            (status.exit_code, &status.start_time, &status.claim, &status.decision),
            (None, &None, &None, &None)
        );
        assert!(status.message.as_ref().unwrap().contains("uid-first"));
        let has_succeeded = phase == Phase::Succeeded;
        assert_eq!(condition(&plan, "Ready"), Some(if has_succeeded { "True" } else { "False" }));
        assert_eq!(condition(&plan, "Stalled"), (!has_succeeded).then_some("True"));
        assert_eq!(condition(&plan, "Reconciling"), Some("False"));
        assert_eq!(condition(&plan, "Accepted"), None, "nothing was decided about this one");
    }
}

#[test]
fn prior_execution_wins_over_all_other_rules() {
    let mut situation = Situation::pending().asking("say\nhello").aged(100_000);
    situation.first = Ok(Some(receipt("Succeeded", None)));
    situation.machine = None;
    situation.execution.spec.cancel_requested = true;
    situation.becomes(Phase::Succeeded, Reason::AlreadyExecuted);
    situation.work = RunnerFact::WaitingForSlot;
    assert!(situation.plan().effects.contains(&SideEffect::Withdraw));
}

#[test]
fn receipt_is_ignored_after_claim_and_end() {
    let mut situation = Situation::claimed_by(HolderFact::Own).doing(RunnerFact::Owned);
    situation.first = Ok(Some(receipt("Succeeded", None)));
    situation.waits();
    let mut situation = Situation::pending().in_phase(Phase::Failed);
    situation.first = Ok(Some(receipt("Succeeded", None)));
    situation.waits();
}

#[test]
fn while_it_cannot_be_seen_whether_it_was_executed_before_nothing_goes_on_and_its_deadline_counts() {
    let mut situation = Situation::pending();
    situation.first = Err("writ may not access it".to_owned());
    let plan = situation.becomes(Phase::Pending, Reason::ReceiptUnreadable);
    assert!(!enqueued(&plan) && !plan.needs_finalizer && plan.requeue.is_some());
    assert!(plan.effects.iter().any(|effect| matches!(effect, SideEffect::Publish(notice) if notice.warning)));
    assert_eq!(condition(&plan, "Reconciling"), Some("True"));
    // The reason is already in the status, so the plan does not write it again.
    situation.execution.status = plan.status;
    assert!(situation.waits().requeue.is_some());
    let over = Situation { age: Duration::from_secs(300), ..situation };
    over.becomes(Phase::Expired, Reason::ReceiptUnreadable);
    let mut cancelled = Situation { first: Err(String::new()), ..Situation::pending() };
    cancelled.execution.spec.cancel_requested = true;
    cancelled.becomes(Phase::Cancelled, Reason::CancelledBeforeStart);
    let queued = Situation { first: Err(String::new()), ..Situation::pending().doing(RunnerFact::WaitingForSlot) };
    assert_eq!(queued.plan().effects.first(), Some(&SideEffect::Withdraw));
}
