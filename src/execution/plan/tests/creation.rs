//! The first status write stores the creation record. From then on Writ uses this record instead of the metadata.

use super::*;
use crate::api::RESTORED_ANNOTATION;
use crate::api::execution_status::CreationRecord;

fn stored(plan: &Plan) -> Option<CreationRecord> {
    plan.status.as_ref().and_then(|status| status.creation)
}

#[test]
fn waiting_execution_stores_its_creation_record_once() {
    let mut waiting = Situation::pending();
    waiting.machine = None;
    let plan = waiting.waits();
    assert_eq!(stored(&plan), Some(CreationRecord::default()));
    assert!(plan.requeue.is_some());
    waiting.execution.status = plan.status;
    assert_eq!(waiting.waits().status, None);
}

/// The default status reports that no `writ serve` has read the execution. The first plan replaces this message.
#[test]
fn read_execution_loses_the_default_message() {
    let mut waiting = Situation::pending();
    waiting.machine = None;
    let status = waiting.execution.status.as_mut().unwrap();
    status.observed_generation = Some(-1);
    status.reason = Some(Reason::WaitingForController);
    status.message = Some(crate::api::crds::NOT_NOTICED.to_owned());
    let status = waiting.plan().status.unwrap();
    assert_eq!((status.phase, status.reason, status.observed_generation), (Phase::Pending, None, Some(-1)));
    assert!(status.message.as_deref().is_some_and(|message| message.starts_with("not decided yet")));
    let mut enqueued_only = Situation::pending();
    enqueued_only.execution.status.as_mut().unwrap().reason = Some(Reason::WaitingForController);
    assert_eq!(enqueued_only.plan().status, None);
    enqueued_only
        .doing(RunnerFact::Connecting { since: Duration::from_secs(2), problem: None })
        .becomes(Phase::Queued, Reason::Connecting);
}

#[test]
fn whatever_is_written_first_has_it() {
    let mut situation = Situation::pending().asking("rm -rf /").aged(100);
    situation.execution.metadata.generate_name = Some("x-".to_owned());
    situation.execution.metadata.name = Some("x-x7k2p".to_owned());
    let plan = situation.becomes(Phase::Rejected, Reason::NoMatchingRule);
    assert!(stored(&plan).unwrap().name_generated);
}

#[test]
fn a_mark_that_comes_after_it_was_stored_cancels_nothing() {
    let mut marked = Situation::pending();
    marked.execution.metadata.annotations = Some([(RESTORED_ANNOTATION.to_owned(), "true".to_owned())].into());
    marked.execution.status.as_mut().unwrap().creation = Some(CreationRecord::default());
    assert!(enqueued(&marked.plan()));
}
