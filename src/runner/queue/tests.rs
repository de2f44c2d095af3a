use jiff::Timestamp;

use super::*;
use crate::api::machine_status::KeyTrust;
use crate::api::{Machine, MachineSpec};
use crate::fleet::{INITIAL_BACKOFF, MAX_BACKOFF};
use crate::machine::{MachineObservation, ProbeResult, VerifiedKey};

pub(super) fn machine() -> MachineKey {
    ("team".to_owned(), "web-1".to_owned())
}

pub(super) fn work(name: &str, second: i64) -> QueuedExecution {
    QueuedExecution {
        key: ExecutionKey { namespace: "team".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") },
        machine: "web-1".to_owned(),
        created: Timestamp::from_second(second).unwrap(),
        wait: AllowedWait::Machine,
        requester: String::new(),
        is_interactive: false,
    }
}

pub(super) fn urgent(name: &str, second: i64) -> QueuedExecution {
    QueuedExecution { wait: AllowedWait::Nothing, ..work(name, second) }
}

/// Time of the API server in all tests, in seconds.
pub(super) const TIME: i64 = 1_000;

pub(super) fn at(instant: Instant) -> Now {
    Now { instant, time: Timestamp::from_second(TIME).unwrap() }
}

pub(super) fn spec(max_concurrent: u32, suspend: bool) -> Machine {
    let mut machine = Machine::new("web-1", MachineSpec::new("192.0.2.1", "deploy", "web-ssh"));
    machine.metadata.namespace = Some("team".to_owned());
    machine.metadata.uid = Some("uid".to_owned());
    (machine.spec.max_concurrent, machine.spec.suspend) = (max_concurrent, suspend);
    machine
}

/// Returns the queues of a machine that runs at most two commands concurrently.
pub(super) fn queues(queued: Vec<QueuedExecution>) -> MachineQueues {
    queues_of(&spec(2, false), queued)
}

pub(super) fn queues_of(machine: &Machine, queued: Vec<QueuedExecution>) -> MachineQueues {
    let mut queues = MachineQueues::new(Arc::new(Machines::new().0));
    configure(&queues, machine);
    for queued in queued {
        queues.add(queued, at(Instant::now()));
    }
    queues
}

pub(super) fn configure(queues: &MachineQueues, machine: &Machine) {
    queues.registry.entry(&self::machine()).state().configure(machine);
}

/// Records a probe that finds the machine in order.
pub(super) fn online(queues: &MachineQueues, second: i64) {
    let key = VerifiedKey { algorithm: String::new(), fingerprint: String::new(), trust: KeyTrust::Pinned };
    let seen = ProbeResult::Online { latency: Duration::ZERO, key, login: Box::default(), system: None };
    let at = Timestamp::from_second(second).unwrap();
    queues.registry.record(&spec(2, false), MachineObservation { uid: None, generation: None, at, result: seen });
}

pub(super) fn unreachable(message: &str) -> Option<ConnectFailure> {
    Some(ConnectFailure::Unreachable(message.to_owned()))
}

pub(super) fn another_key() -> Option<ConnectFailure> {
    let problem = LaunchProblem { reason: Reason::HostKeyMismatch, message: "another key".to_owned() };
    Some(ConnectFailure::Refused { problem, affects_machine: true })
}

#[track_caller]
pub(super) fn is_refused(queues: &MachineQueues, name: &str) {
    let fact = fact(queues, name, Instant::now());
    assert!(
        matches!(&fact, RunnerFact::Refused(problem) if problem.reason == Reason::HostKeyMismatch),
        "{name}: {fact:?}"
    );
}

#[track_caller]
pub(super) fn waits_for_repair(queues: &MachineQueues, name: &str) {
    let waits = RunnerFact::WaitingForMachine { problem: "another key".to_owned(), needs_person: true };
    assert_eq!(fact(queues, name, Instant::now()), waits, "{name}");
}

pub(super) fn fact(queues: &MachineQueues, name: &str, now: Instant) -> RunnerFact {
    queues.facts(&work(name, 0).key, "web-1", now).0
}

#[track_caller]
pub(super) fn starts(queues: &mut MachineQueues, now: Instant) -> QueuedExecution {
    queues.next(&machine(), false, now).expect("something may start").0
}

#[track_caller]
pub(super) fn starts_nothing(queues: &mut MachineQueues, now: Instant) {
    let next = queues.next(&machine(), false, now);
    assert!(next.is_none(), "{:?} may not start", next.map(|(work, _)| work.key.name));
}

#[test]
fn the_oldest_goes_first_and_what_may_not_wait_before_all() {
    let now = Instant::now();
    let mut queues = queues(vec![work("young", 30), work("old", 10), urgent("now", 40)]);
    assert_eq!(starts(&mut queues, now).key.name, "now");
    assert_eq!(starts(&mut queues, now).key.name, "old");
    starts_nothing(&mut queues, now);
    assert_eq!(fact(&queues, "young", now), RunnerFact::WaitingForSlot);
}

#[test]
fn a_slot_is_free_again_only_when_its_task_has_settled() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2), work("c", 3)]);
    let a = starts(&mut queues, now);
    starts(&mut queues, now);
    queues.mark_claiming(&a.key);
    queues.mark_connected(&machine(), at(now));
    starts_nothing(&mut queues, now);
    assert_eq!(fact(&queues, "a", now), RunnerFact::Owned);
    queues.finish(a, None, at(now));
    assert_eq!(starts(&mut queues, now).key.name, "c");
    assert_eq!(fact(&queues, "a", now), RunnerFact::Idle);
}

#[test]
fn the_same_execution_is_not_queued_twice() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("a", 1)]);
    starts(&mut queues, now);
    queues.add(work("a", 1), at(now));
    starts_nothing(&mut queues, now);
}

#[test]
fn at_most_four_connections_to_a_machine_are_in_the_making() {
    let now = Instant::now();
    let many = (0..10).map(|index| work(&format!("w{index}"), index)).collect();
    let mut queues = queues_of(&spec(64, false), many);
    for _ in 0..MAX_CONNECTING {
        starts(&mut queues, now);
    }
    starts_nothing(&mut queues, now);
    queues.mark_connected(&machine(), at(now));
    starts(&mut queues, now);
}

#[test]
fn a_machine_that_is_not_reached_is_left_alone_then_tried_by_one() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2), work("c", 3)]);
    let a = starts(&mut queues, now);
    let result = queues.finish(a, unreachable("refused"), at(now));
    assert_eq!(result.wake.len(), 3, "all who wait are to say so");
    let pause = result.dispatch_after.unwrap();
    assert!(pause >= INITIAL_BACKOFF && pause <= INITIAL_BACKOFF * 2);
    starts_nothing(&mut queues, now);
    assert_eq!(
        fact(&queues, "b", now),
        RunnerFact::WaitingForMachine { problem: "refused".to_owned(), needs_person: false }
    );
    let later = now + pause;
    assert_eq!(starts(&mut queues, later).key.name, "a", "it has kept its place");
    starts_nothing(&mut queues, later);
    queues.mark_connected(&machine(), at(now));
    assert_eq!(starts(&mut queues, later).key.name, "b");
}

#[test]
fn the_pause_grows_to_its_bound_and_ends_with_success() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let mut last = Duration::ZERO;
    for _ in 0..12 {
        let a = starts(&mut queues, now + Duration::from_secs(1000));
        last = queues.finish(a, unreachable("refused"), at(now)).dispatch_after.unwrap();
    }
    assert!(last >= MAX_BACKOFF && last <= MAX_BACKOFF.mul_f64(1.25));
    starts(&mut queues, now + Duration::from_secs(1000));
    queues.mark_connected(&machine(), at(now));
    queues.add(work("b", 2), at(now));
    assert_eq!(starts(&mut queues, now).key.name, "b");
}

#[test]
fn what_may_not_wait_tries_an_offline_machine_at_once_and_is_refused() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    queues.finish(a, unreachable("refused"), at(now));
    queues.add(urgent("now", 9), at(now));
    let urgent = starts(&mut queues, now);
    assert_eq!(urgent.key.name, "now");
    queues.finish(urgent, unreachable("refused"), at(now));
    assert!(
        matches!(fact(&queues, "now", now), RunnerFact::Refused(problem) if problem.reason == Reason::MachineOffline)
    );
}

#[test]
fn a_refusal_is_kept_until_it_is_fetched() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    let key = a.key.clone();
    let problem = LaunchProblem { reason: Reason::CredentialsNotFound, message: "none".to_owned() };
    let end = ConnectFailure::Refused { problem: problem.clone(), affects_machine: false };
    let result = queues.finish(a, Some(end), at(now));
    assert_eq!((result.wake, result.dispatch_after), (vec![key.clone()], None));
    assert_eq!(fact(&queues, "a", now), RunnerFact::Refused(problem));
    queues.withdraw(&key, now);
    assert_eq!(fact(&queues, "a", now), RunnerFact::Idle);
}

#[test]
fn refusals_that_nobody_fetches_are_forgotten() {
    let now = Instant::now();
    let later = now + FORGET_REFUSALS_AFTER;
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    for then in [now, later] {
        let next = starts(&mut queues, then);
        let problem = LaunchProblem { reason: Reason::CredentialsNotFound, message: "none".to_owned() };
        queues.finish(next, Some(ConnectFailure::Refused { problem, affects_machine: false }), at(then));
    }
    assert_eq!(queues.executions.len(), 1);
}

#[test]
fn a_withdrawn_execution_does_not_start_and_a_running_one_is_not_touched() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    let a = starts(&mut queues, now);
    queues.withdraw(&work("b", 2).key, now);
    starts_nothing(&mut queues, now);
    queues.mark_claiming(&a.key);
    queues.withdraw(&a.key, now);
    assert_eq!(fact(&queues, "a", now), RunnerFact::Owned);
}

#[test]
fn a_cancel_reaches_the_task_in_every_state_of_it() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let (a, cancel) = queues.next(&machine(), false, now).unwrap();
    queues.mark_claiming(&a.key);
    queues.cancel(&a.key);
    assert!(cancel.is_cancelled());
}

#[test]
fn nothing_is_kept_of_a_machine_with_nothing_to_do() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    queues.mark_connected(&machine(), at(now));
    queues.finish(a, None, at(now));
    assert!(queues.queues.is_empty() && queues.executions.is_empty());
}

#[test]
fn a_task_that_ends_before_it_was_connected_gives_everything_back() {
    let now = Instant::now();
    let many = (0..12).map(|index| work(&format!("w{index}"), index)).collect();
    let mut queues = queues_of(&spec(64, false), many);
    for _ in 0..12 {
        let next = starts(&mut queues, now);
        queues.finish(next, Some(ConnectFailure::Obsolete), at(now));
    }
    assert!(queues.queues.is_empty() && queues.executions.is_empty());
}

#[test]
fn a_machine_whose_work_was_withdrawn_while_it_was_left_alone_is_forgotten_after_the_pause() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    let key = a.key.clone();
    let pause = queues.finish(a, unreachable("refused"), at(now)).dispatch_after.unwrap();
    queues.withdraw(&key, now);
    starts_nothing(&mut queues, now + pause);
    assert!(queues.queues.is_empty() && queues.executions.is_empty());
    assert!(queues.facts(&key, "web-1", now + pause).1.has_free_slot);
}

#[test]
fn who_has_much_waiting_takes_turns_with_who_has_little() {
    let now = Instant::now();
    let of =
        |requester: &str, name: &str, second| QueuedExecution { requester: requester.to_owned(), ..work(name, second) };
    let mut works: Vec<QueuedExecution> = (0..100).map(|index| of("flood", &format!("f{index:02}"), index)).collect();
    works.extend([of("jane", "j0", 200), of("jane", "j1", 201), of("joe", "o0", 150)]);
    let mut queues = queues_of(&spec(1, false), works);
    let mut order = Vec::new();
    for _ in 0..8 {
        let work = starts(&mut queues, now);
        order.push(work.key.name.clone());
        queues.mark_connected(&machine(), at(now));
        queues.finish(work, None, at(now));
        if order.len() == 6 {
            // A requester that adds one execution after another does not overtake the other requesters.
            queues.add(of("joe", "o1", 300), at(now));
        }
    }
    assert_eq!(order, ["f00", "o0", "j0", "f01", "j1", "f02", "o1", "f03"]);
}

#[test]
fn whoever_was_connecting_when_the_machine_was_lost_is_told_and_who_tries_again_is_not() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    let (a, b) = (starts(&mut queues, now), starts(&mut queues, now));
    let first = now + Duration::from_secs(4);
    assert_eq!(queues.finish(a, unreachable("silence"), at(first)).wake.len(), 1);
    assert_eq!(queues.finish(b, unreachable("silence"), at(first)).wake.len(), 1, "its status says that it connects");
    let later = first + Duration::from_secs(60);
    let again = starts(&mut queues, later);
    assert_eq!(queues.finish(again, unreachable("silence"), at(later)).wake, vec![], "its status says that it waits");
}

/// A machine can refuse further connections, for example because of a limit of sessions. A queued execution then waits
/// until a running command ends.
#[test]
fn it_is_remembered_how_many_a_machine_bore_that_allowed_no_further_connection() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    let a = starts(&mut queues, now);
    queues.mark_claiming(&a.key);
    queues.mark_connected(&machine(), at(now));
    let b = starts(&mut queues, now);
    queues.finish(b, Some(ConnectFailure::Full { room: 1, problem: "no".to_owned() }), at(now));
    assert_eq!(fact(&queues, "b", now), RunnerFact::WaitingForSlot);
    starts_nothing(&mut queues, now);
    // After `REMEMBER_ROOM`, the queue tries one more connection.
    let later = now + REMEMBER_ROOM;
    let b = starts(&mut queues, later);
    queues.finish(b, Some(ConnectFailure::Full { room: 1, problem: "no".to_owned() }), at(later));
    starts_nothing(&mut queues, later);
    queues.finish(a, None, at(later));
    assert_eq!(starts(&mut queues, later).key.name, "b");
}
