//! Executions that do not wait for an offline machine (`whenOffline: Fail`).

use super::tests::*;
use super::*;

fn failing(name: &str, second: i64) -> QueuedExecution {
    QueuedExecution { wait: AllowedWait::Slot, ..work(name, second) }
}

fn after(now: Instant, seconds: u64) -> Instant {
    now + Duration::from_secs(seconds)
}

#[track_caller]
fn is_given_up(queues: &MachineQueues, name: &str) {
    let fact = fact(queues, name, Instant::now());
    let is_offline = matches!(&fact, RunnerFact::Refused(problem) if problem.reason == Reason::MachineOffline);
    assert!(is_offline, "{name}: {fact:?}");
}

#[test]
fn failed_attempt_ends_only_the_executions_that_do_not_wait() {
    let now = Instant::now();
    let mut queues = queues(vec![failing("fails", 1), work("waits", 2)]);
    let fails = starts(&mut queues, now);
    assert_eq!(fails.key.name, "fails");
    let result = queues.finish(fails, unreachable("refused"), at(now));
    assert_eq!(result.wake.len(), 2, "both statuses report it: {result:?}");
    is_given_up(&queues, "fails");
    let waits = RunnerFact::WaitingForMachine { problem: "refused".to_owned(), needs_person: false };
    assert_eq!(fact(&queues, "waits", now), waits);
}

/// The machine is offline, and the oldest execution waits for the end of the pause.
#[test]
fn offline_machine_is_tried_at_once_past_those_that_wait() {
    let now = Instant::now();
    let mut queues = queues(vec![work("waits", 1)]);
    let waits = starts(&mut queues, now);
    queues.finish(waits, unreachable("refused"), at(now));
    queues.add(failing("fails", 9), at(now));
    let fails = starts(&mut queues, now);
    assert_eq!(fails.key.name, "fails");
    starts_nothing(&mut queues, now);
    // The machine is back.
    queues.mark_connected(&machine(), at(now));
    assert_eq!(starts(&mut queues, now).key.name, "waits");
}

#[test]
fn repeated_failure_reports_the_end_to_its_execution() {
    let now = Instant::now();
    let mut queues = queues(vec![work("waits", 1)]);
    let waits = starts(&mut queues, now);
    queues.finish(waits, unreachable("refused"), at(now));
    let later = after(now, 1);
    queues.add(failing("fails", 9), at(later));
    let fails = starts(&mut queues, later);
    let key = fails.key.clone();
    assert_eq!(queues.finish(fails, unreachable("refused"), at(after(now, 2))).wake, [key]);
}

/// No priority: with a free choice, the oldest execution starts first.
#[test]
fn machine_in_order_keeps_the_order_of_creation() {
    let now = Instant::now();
    let mut queues = queues_of(&spec(1, false), vec![failing("young", 30), work("old", 10), failing("middle", 20)]);
    for name in ["old", "middle", "young"] {
        let next = starts(&mut queues, now);
        assert_eq!(next.key.name, name);
        queues.mark_connected(&machine(), at(now));
        queues.finish(next, None, at(now));
    }
}

#[test]
fn busy_machine_lets_it_wait_for_a_slot() {
    let now = Instant::now();
    let mut queues = queues_of(&spec(1, false), vec![work("runs", 1), failing("fails", 2)]);
    let runs = starts(&mut queues, now);
    queues.mark_claiming(&runs.key);
    queues.mark_connected(&machine(), at(now));
    starts_nothing(&mut queues, now);
    assert_eq!(fact(&queues, "fails", now), RunnerFact::WaitingForSlot);
    queues.finish(runs, None, at(now));
    assert_eq!(starts(&mut queues, now).key.name, "fails");
}

/// A burst on a machine that never answers needs two attempts, and not one for each execution.
#[test]
fn attempt_counts_for_all_that_were_queued_when_it_began() {
    let now = Instant::now();
    let mut queues = queues_of(&spec(1, false), vec![]);
    queues.add(failing("first", 1), at(now));
    let first = starts(&mut queues, now);
    for name in ["a", "b", "c"] {
        queues.add(failing(name, 1), at(after(now, 1)));
    }
    queues.add(work("waits", 1), at(after(now, 1)));
    queues.finish(first, unreachable("silence"), at(after(now, 10)));
    is_given_up(&queues, "first");
    // The first attempt began before these executions existed, so it does not count for them.
    let second = starts(&mut queues, after(now, 10));
    assert_eq!(second.key.name, "a");
    queues.add(failing("late", 1), at(after(now, 11)));
    let result = queues.finish(second, unreachable("silence"), at(after(now, 20)));
    for name in ["a", "b", "c"] {
        is_given_up(&queues, name);
        assert!(result.wake.iter().any(|key| key.name == name), "{result:?}");
    }
    assert_eq!(starts(&mut queues, after(now, 20)).key.name, "late");
    assert!(matches!(fact(&queues, "waits", now), RunnerFact::WaitingForMachine { .. }));
}

#[test]
fn machine_that_needs_repair_is_tried_and_fails_the_launch() {
    let now = Instant::now();
    let mut queues = queues(vec![work("found", 1)]);
    let found = starts(&mut queues, now);
    queues.finish(found, another_key(), at(now));
    assert_eq!(queues.add(failing("fails", TIME + 10), at(now)), Added::Queued);
    assert_eq!(queues.add(failing("same", TIME + 10), at(now)), Added::Queued);
    assert_eq!(queues.add(work("waits", TIME + 10), at(now)), Added::Queued);
    let fails = starts(&mut queues, now);
    assert_eq!(fails.key.name, "fails");
    queues.finish(fails, another_key(), at(now));
    is_refused(&queues, "fails");
    is_refused(&queues, "same");
    waits_for_repair(&queues, "waits");
}

/// A pause of the API server, and a machine with too many connections, are no failed attempts.
#[test]
fn other_failures_return_it_to_the_queue() {
    let now = Instant::now();
    let mut queues = queues(vec![failing("fails", 1)]);
    let full = || ConnectFailure::Full { room: 1, problem: "no".to_owned() };
    for failure in [ConnectFailure::RetryAfter(Duration::ZERO), full()] {
        let fails = starts(&mut queues, now);
        queues.finish(fails, Some(failure), at(now));
        assert_eq!(fact(&queues, "fails", now), RunnerFact::WaitingForSlot);
    }
}

/// The task of a running command finds a fault. That is no attempt of a queued execution.
#[test]
fn fault_of_a_running_command_ends_no_queued_execution() {
    let now = Instant::now();
    let mut queues = queues_of(&spec(1, false), vec![work("runs", 1), failing("fails", 2)]);
    let runs = starts(&mut queues, now);
    queues.mark_claiming(&runs.key);
    queues.mark_connected(&machine(), at(now));
    let problem = LaunchProblem { reason: Reason::ExecRequestRefused, message: "no shell".to_owned() };
    queues.mark_faulty(&machine(), &problem, at(now));
    assert!(matches!(fact(&queues, "fails", now), RunnerFact::WaitingForMachine { .. }));
    queues.finish(runs, None, at(now));
    assert_eq!(starts(&mut queues, now).key.name, "fails");
}

#[test]
fn startup_lets_only_urgent_executions_start() {
    let now = Instant::now();
    let mut queues = queues(vec![failing("fails", 1), work("waits", 2)]);
    assert!(queues.next(&machine(), true, now).is_none());
    queues.add(urgent("now", 3), at(now));
    assert_eq!(queues.next(&machine(), true, now).unwrap().0.key.name, "now");
    assert_eq!(starts(&mut queues, now).key.name, "fails");
}

#[test]
fn suspended_machine_is_not_tried() {
    let now = Instant::now();
    let mut queues = queues_of(&spec(2, true), vec![failing("fails", 1)]);
    starts_nothing(&mut queues, now);
}

#[test]
fn withdrawn_execution_is_not_tried_and_the_next_one_is() {
    let now = Instant::now();
    let mut queues = queues(vec![work("waits", 1)]);
    let waits = starts(&mut queues, now);
    queues.finish(waits, unreachable("refused"), at(now));
    for round in 0..3 {
        let fails = failing(&format!("fails-{round}"), 9);
        let key = fails.key.clone();
        queues.add(fails, at(now));
        queues.withdraw(&key, now);
        starts_nothing(&mut queues, now);
    }
    queues.add(failing("last", 9), at(now));
    assert_eq!(starts(&mut queues, now).key.name, "last");
}
