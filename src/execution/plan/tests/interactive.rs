//! Interactive executions: they start only where their client is connected.

use super::*;
use crate::api::SessionRequest;

fn interactive() -> Situation {
    let mut situation = Situation::pending();
    situation.execution.spec.session = Some(SessionRequest::default());
    let rule = WhitelistRule {
        name: "hello".to_owned(),
        match_text: Some("say hello".to_owned()),
        run: vec!["/bin/echo".to_owned(), "hello".to_owned()],
        interactive: true,
        ..WhitelistRule::default()
    };
    let spec = WhitelistSpec { rules: vec![rule], ..WhitelistSpec::default() };
    situation.rules = RuleSet::new(vec![compile(&Whitelist::new("web", spec)).into()]);
    situation
}

fn connected() -> Situation {
    Situation { has_client: true, ..interactive() }
}

#[test]
fn with_its_client_it_enters_the_queue() {
    assert!(connected().plan().enqueues());
}

#[test]
fn without_a_client_it_waits_30_seconds_and_starts_nothing() {
    let plan = interactive().aged(1).plan();
    assert!(!plan.enqueues(), "{plan:?}");
    assert!(plan.requeue.is_some_and(|after| after <= Duration::from_secs(30)), "{plan:?}");
    interactive().aged(30).becomes(Phase::LaunchFailed, Reason::NoSession);
}

#[test]
fn a_client_that_leaves_the_queue_ends_it() {
    let plan = interactive().doing(RunnerFact::WaitingForSlot).becomes(Phase::LaunchFailed, Reason::NoSession);
    assert!(plan.effects.contains(&SideEffect::Withdraw), "{plan:?}");
}

#[test]
fn an_execution_in_the_queue_of_another_process_is_left_alone() {
    let plan = interactive().in_phase(Phase::Queued).aged(45).plan();
    let stays = plan.status.as_ref().is_none_or(|status| status.phase == Phase::Queued);
    assert!(stays && !plan.enqueues() && plan.requeue.is_some(), "{plan:?}");
    // The deadline of its start counts everywhere.
    interactive()
        .in_phase(Phase::Queued)
        .with_deadline(60)
        .aged(61)
        .becomes(Phase::Expired, Reason::StartingDeadlineExceeded);
}

#[test]
fn a_refusal_by_the_policy_does_not_wait_for_the_client() {
    for situation in [interactive(), connected()] {
        let mut situation = situation.aged(11);
        situation.rules = rules("say hello");
        situation.becomes(Phase::Rejected, Reason::NotPermitted);
    }
}
