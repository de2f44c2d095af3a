//! Executions of a machine that needs manual repair: some executions end, and the other executions wait.

use super::tests::*;
use super::*;
use crate::fleet::SettingsChange;

/// The fault ends all four executions of one manifest: two connect, one is queued, and one is created 1 s after the
/// fault became known.
#[test]
fn executions_created_before_the_fault_was_known_end_alike() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", TIME), work("b", TIME), work("c", TIME)]);
    let (a, b) = (starts(&mut queues, now), starts(&mut queues, now));
    let result = queues.finish(a, another_key(), at(now));
    assert!(result.wake.iter().any(|key| key.name == "c"), "{result:?}");
    assert_eq!(queues.add(work("d", TIME + 1), at(now)), Added::Refused);
    queues.finish(b, another_key(), at(now));
    for name in ["a", "b", "c", "d"] {
        is_refused(&queues, name);
    }
}

/// Two executions are connecting, and only the first attempt finds the fault. The fault ends both executions.
#[test]
fn an_execution_that_returns_to_the_queue_of_a_faulty_machine_ends_as_the_others() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    let (a, b) = (starts(&mut queues, now), starts(&mut queues, now));
    queues.finish(a, another_key(), at(now));
    queues.finish(b, Some(ConnectFailure::RetryAfter(Duration::ZERO)), at(now));
    is_refused(&queues, "a");
    is_refused(&queues, "b");
}

#[test]
fn executions_created_after_the_fault_was_known_wait_for_the_repair_however_late_they_come() {
    let now = Instant::now();
    let later = now + Duration::from_secs(3600);
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    let key = a.key.clone();
    queues.finish(a, another_key(), at(now));
    queues.withdraw(&key, now);
    starts_nothing(&mut queues, later);
    assert!(queues.queues.is_empty(), "nothing is queued");
    assert_eq!(queues.add(work("b", TIME + 3), at(later)), Added::Queued);
    assert_eq!(queues.add(work("c", TIME + 3600), at(later)), Added::Queued);
    starts_nothing(&mut queues, later);
    waits_for_repair(&queues, "b");
    waits_for_repair(&queues, "c");
    online(&queues, TIME + 3601);
    assert_eq!(starts(&mut queues, later).key.name, "b");
    assert_eq!(starts(&mut queues, later).key.name, "c");
}

/// A changed host key does not end a whole queue. The execution that found the change waits too.
#[test]
fn executions_that_waited_while_the_machine_was_in_order_go_on_waiting() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2), work("c", 900)]);
    online(&queues, 500);
    let a = starts(&mut queues, now);
    let result = queues.finish(a, another_key(), at(now));
    assert!(result.wake.iter().any(|key| key.name == "b"), "its status reports the fault: {result:?}");
    waits_for_repair(&queues, "a");
    waits_for_repair(&queues, "b");
    is_refused(&queues, "c");
    // The machine was last online in second 500. Only executions from before this second wait for the repair.
    assert_eq!(queues.add(work("d", 500), at(now)), Added::Refused);
    assert_eq!(queues.add(work("e", 499), at(now)), Added::Queued);
    starts_nothing(&mut queues, now + Duration::from_secs(3600));
}

#[test]
fn an_execution_that_may_not_wait_tries_a_faulty_machine_at_once() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    queues.finish(a, another_key(), at(now));
    assert_eq!(queues.add(urgent("now", TIME + 10), at(now)), Added::Queued);
    let urgent = starts(&mut queues, now);
    queues.finish(urgent, another_key(), at(now));
    is_refused(&queues, "now");
}

#[test]
fn a_fault_is_forgotten_with_its_machine() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    queues.finish(a, another_key(), at(now));
    let mut recreated = spec(2, false);
    recreated.metadata.uid = Some("another".to_owned());
    configure(&queues, &recreated);
    queues.add(work("b", TIME + 10), at(now));
    assert_eq!(starts(&mut queues, now).key.name, "b");
}

#[test]
fn on_a_suspended_machine_nothing_starts_and_all_is_counted() {
    let now = Instant::now();
    let mut queues = queues_of(&spec(2, true), vec![work("a", 1), work("b", 2)]);
    starts_nothing(&mut queues, now);
    assert_eq!(queues.counts(&machine()), (0, 2));
    let (_, queue) = queues.facts(&work("c", 3).key, "web-1", now);
    assert!(!queue.has_free_slot);
    configure(&queues, &spec(2, false));
    assert_eq!(starts(&mut queues, now).key.name, "a");
}

#[test]
fn nothing_starts_before_the_machine_was_read() {
    let now = Instant::now();
    let mut queues = MachineQueues::new(Arc::new(Machines::new().0));
    queues.add(work("a", 1), at(now));
    starts_nothing(&mut queues, now);
    configure(&queues, &spec(1, false));
    assert_eq!(starts(&mut queues, now).key.name, "a");
}

/// A read of an older generation can arrive late. The settings of the newest generation stay.
#[test]
fn an_older_read_of_a_machine_changes_no_settings() {
    let queues = queues(vec![]);
    let generation = |generation, max_concurrent| {
        let mut machine = spec(max_concurrent, false);
        machine.metadata.generation = Some(generation);
        machine
    };
    let machine = queues.registry.entry(&machine());
    assert_eq!(machine.state().configure(&generation(5, 8)), SettingsChange::Capacity);
    assert_eq!(machine.state().configure(&generation(4, 1)), SettingsChange::None);
    assert_eq!(machine.state().configure(&generation(6, 8)), SettingsChange::None, "the same numbers");
    assert_eq!(machine.state().settings.as_ref().map(|settings| settings.max_concurrent), Some(8));
}
