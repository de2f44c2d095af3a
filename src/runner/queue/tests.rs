use jiff::Timestamp;

use super::*;

fn machine() -> MachineKey {
    ("team".to_owned(), "web-1".to_owned())
}

fn work(name: &str, second: i64) -> Work {
    Work {
        key: ExecutionKey { namespace: "team".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") },
        machine: "web-1".to_owned(),
        created: Timestamp::from_second(second).unwrap(),
        urgent: false,
        max_concurrent: 2,
        suspended: false,
        requester: String::new(),
    }
}

fn urgent(name: &str, second: i64) -> Work {
    Work { urgent: true, ..work(name, second) }
}

fn queues(works: Vec<Work>) -> Queues {
    let mut queues = Queues::default();
    for work in works {
        queues.add(work);
    }
    queues
}

fn fact(queues: &Queues, name: &str, now: Instant) -> WorkFact {
    queues.facts(&work(name, 0).key, "web-1", now).0
}

#[track_caller]
fn starts(queues: &mut Queues, now: Instant) -> Work {
    queues.next(&machine(), false, now).expect("something may start").0
}

#[track_caller]
fn starts_nothing(queues: &mut Queues, now: Instant) {
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
    assert_eq!(fact(&queues, "young", now), WorkFact::WaitingForSlot);
}

#[test]
fn a_slot_is_free_again_only_when_its_task_has_settled() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2), work("c", 3)]);
    let a = starts(&mut queues, now);
    starts(&mut queues, now);
    queues.hold(&a.key);
    queues.connected(&machine());
    starts_nothing(&mut queues, now);
    assert_eq!(fact(&queues, "a", now), WorkFact::Holding);
    queues.settle(a, AttemptEnd::Done, now);
    assert_eq!(starts(&mut queues, now).key.name, "c");
    assert_eq!(fact(&queues, "a", now), WorkFact::Absent);
}

#[test]
fn the_same_execution_is_not_queued_twice() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("a", 1)]);
    starts(&mut queues, now);
    queues.add(work("a", 1));
    starts_nothing(&mut queues, now);
}

#[test]
fn at_most_four_connections_to_a_machine_are_in_the_making() {
    let now = Instant::now();
    let many = (0..10).map(|index| Work { max_concurrent: 64, ..work(&format!("w{index}"), index) }).collect();
    let mut queues = queues(many);
    for _ in 0..MAXIMUM_CONNECTING {
        starts(&mut queues, now);
    }
    starts_nothing(&mut queues, now);
    queues.connected(&machine());
    starts(&mut queues, now);
}

#[test]
fn a_machine_that_is_not_reached_is_left_alone_then_tried_by_one() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2), work("c", 3)]);
    let a = starts(&mut queues, now);
    let settled = queues.settle(a, AttemptEnd::Offline("refused".to_owned()), now);
    assert_eq!(settled.wake.len(), 3, "all who wait are to say so");
    let pause = settled.pump_after.unwrap();
    assert!(pause >= FIRST_PAUSE && pause <= FIRST_PAUSE * 2);
    starts_nothing(&mut queues, now);
    assert_eq!(
        fact(&queues, "b", now),
        WorkFact::WaitingForMachine { problem: "refused".to_owned(), misconfigured: false }
    );
    let later = now + pause;
    assert_eq!(starts(&mut queues, later).key.name, "a", "it has kept its place");
    starts_nothing(&mut queues, later);
    queues.connected(&machine());
    assert_eq!(starts(&mut queues, later).key.name, "b");
}

#[test]
fn the_pause_grows_to_its_bound_and_ends_with_success() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let mut last = Duration::ZERO;
    for _ in 0..12 {
        let a = starts(&mut queues, now + Duration::from_secs(1000));
        last = queues.settle(a, AttemptEnd::Offline("refused".to_owned()), now).pump_after.unwrap();
    }
    assert!(last >= LONGEST_PAUSE && last <= LONGEST_PAUSE.mul_f64(1.25));
    starts(&mut queues, now + Duration::from_secs(1000));
    queues.connected(&machine());
    queues.add(work("b", 2));
    assert_eq!(starts(&mut queues, now).key.name, "b");
}

#[test]
fn what_may_not_wait_tries_an_offline_machine_at_once_and_is_refused() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    queues.settle(a, AttemptEnd::Offline("refused".to_owned()), now);
    queues.add(urgent("now", 9));
    let urgent = starts(&mut queues, now);
    assert_eq!(urgent.key.name, "now");
    queues.settle(urgent, AttemptEnd::Offline("refused".to_owned()), now);
    assert!(
        matches!(fact(&queues, "now", now), WorkFact::Refused(problem) if problem.reason == Reason::MachineOffline)
    );
}

#[test]
fn a_refusal_is_kept_until_it_is_fetched() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    let key = a.key.clone();
    let problem = LaunchProblem { reason: Reason::CredentialsNotFound, message: "none".to_owned() };
    let end = AttemptEnd::Refused { problem: problem.clone(), machine_at_fault: false };
    let settled = queues.settle(a, end, now);
    assert_eq!((settled.wake, settled.pump_after), (vec![key.clone()], None));
    assert_eq!(fact(&queues, "a", now), WorkFact::Refused(problem));
    queues.withdraw(&key, now);
    assert_eq!(fact(&queues, "a", now), WorkFact::Absent);
}

#[test]
fn refusals_that_nobody_fetches_are_forgotten() {
    let now = Instant::now();
    let later = now + FORGET_REFUSALS_AFTER;
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    for at in [now, later] {
        let next = starts(&mut queues, at);
        let problem = LaunchProblem { reason: Reason::CredentialsNotFound, message: "none".to_owned() };
        queues.settle(next, AttemptEnd::Refused { problem, machine_at_fault: false }, at);
    }
    assert_eq!(queues.works.len(), 1);
}

#[test]
fn a_withdrawn_execution_does_not_start_and_a_running_one_is_not_touched() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    let a = starts(&mut queues, now);
    queues.withdraw(&work("b", 2).key, now);
    starts_nothing(&mut queues, now);
    queues.hold(&a.key);
    queues.withdraw(&a.key, now);
    assert_eq!(fact(&queues, "a", now), WorkFact::Holding);
}

#[test]
fn a_cancel_reaches_the_task_in_every_state_of_it() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let (a, cancel) = queues.next(&machine(), false, now).unwrap();
    queues.hold(&a.key);
    queues.cancel(&a.key);
    assert!(cancel.is_cancelled());
}

#[test]
fn nothing_is_kept_of_a_machine_with_nothing_to_do() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    queues.connected(&machine());
    queues.settle(a, AttemptEnd::Done, now);
    assert!(queues.machines.is_empty() && queues.works.is_empty());
}

#[test]
fn a_task_that_ends_before_it_was_connected_gives_everything_back() {
    let now = Instant::now();
    let many = (0..12).map(|index| Work { max_concurrent: 64, ..work(&format!("w{index}"), index) }).collect();
    let mut queues = queues(many);
    for _ in 0..12 {
        let next = starts(&mut queues, now);
        queues.settle(next, AttemptEnd::Obsolete, now);
    }
    assert!(queues.machines.is_empty() && queues.works.is_empty());
}

#[test]
fn a_machine_whose_work_was_withdrawn_while_it_was_left_alone_is_forgotten_after_the_pause() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1)]);
    let a = starts(&mut queues, now);
    let key = a.key.clone();
    let pause = queues.settle(a, AttemptEnd::Offline("refused".to_owned()), now).pump_after.unwrap();
    queues.withdraw(&key, now);
    starts_nothing(&mut queues, now + pause);
    assert!(queues.machines.is_empty() && queues.works.is_empty());
    assert!(queues.facts(&key, "web-1", now + pause).1.has_free_slot);
}

#[test]
fn those_who_wait_are_told_of_a_refusal_that_they_would_meet_too() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2), work("c", 3)]);
    let a = starts(&mut queues, now);
    let problem = LaunchProblem { reason: Reason::HostKeyMismatch, message: "another key".to_owned() };
    let settled = queues.settle(a, AttemptEnd::Refused { problem, machine_at_fault: true }, now);
    assert_eq!(settled.wake.len(), 3);
    assert!(matches!(fact(&queues, "b", now), WorkFact::WaitingForMachine { .. }));
}

#[test]
fn who_has_much_waiting_takes_turns_with_who_has_little() {
    let now = Instant::now();
    let of = |requester: &str, name: &str, second| Work {
        requester: requester.to_owned(),
        max_concurrent: 1,
        ..work(name, second)
    };
    let mut works: Vec<Work> = (0..100).map(|index| of("flood", &format!("f{index:02}"), index)).collect();
    works.extend([of("jane", "j0", 200), of("jane", "j1", 201), of("joe", "o0", 150)]);
    let mut queues = queues(works);
    let mut order = Vec::new();
    for _ in 0..8 {
        let work = starts(&mut queues, now);
        order.push(work.key.name.clone());
        queues.connected(&machine());
        queues.settle(work, AttemptEnd::Done, now);
        if order.len() == 6 {
            // Who comes again one at a time is not served before who waits all the time.
            queues.add(of("joe", "o1", 300));
        }
    }
    assert_eq!(order, ["f00", "o0", "j0", "f01", "j1", "f02", "o1", "f03"]);
}

#[test]
fn what_a_person_has_to_mend_is_tried_by_nobody_who_waits() {
    let now = Instant::now();
    let later = now + Duration::from_secs(3600);
    let mut queues = queues(vec![work("a", 1), work("b", 2), urgent("now", 0)]);
    let first = starts(&mut queues, now);
    assert_eq!(first.key.name, "now");
    let problem = LaunchProblem { reason: Reason::HostKeyMismatch, message: "another key".to_owned() };
    queues.settle(first, AttemptEnd::Refused { problem, machine_at_fault: true }, now);
    assert!(queues.is_misconfigured(&machine()));
    starts_nothing(&mut queues, later);
    assert_eq!(
        fact(&queues, "a", later),
        WorkFact::WaitingForMachine { problem: "another key".to_owned(), misconfigured: true }
    );
    queues.reached(&machine());
    assert_eq!(starts(&mut queues, later).key.name, "a");
    assert_eq!(starts(&mut queues, later).key.name, "b");
}

#[test]
fn on_a_suspended_machine_nothing_starts_and_all_that_waits_is_counted() {
    let now = Instant::now();
    let suspended = |name, second| Work { suspended: true, ..work(name, second) };
    let mut queues = queues(vec![suspended("a", 1), suspended("b", 2)]);
    starts_nothing(&mut queues, now);
    assert_eq!(queues.busy(&machine()), (0, 2));
    let (_, queue) = queues.facts(&work("c", 3).key, "web-1", now);
    assert!(!queue.has_free_slot);
    // What is put in again says that it is over.
    queues.add(work("b", 2));
    assert_eq!(starts(&mut queues, now).key.name, "a");
}

/// Up to 4 are connecting when the first meets another host key: it ends that one (lifecycle.md), the rest waits.
#[test]
fn another_host_key_ends_only_the_first_that_met_it() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    let (first, second) = (starts(&mut queues, now), starts(&mut queues, now));
    let end = || {
        let problem = LaunchProblem { reason: Reason::HostKeyMismatch, message: "another key".to_owned() };
        AttemptEnd::Refused { problem, machine_at_fault: true }
    };
    queues.settle(first, end(), now);
    queues.settle(second, end(), now);
    assert_eq!(
        fact(&queues, "b", now),
        WorkFact::WaitingForMachine { problem: "another key".to_owned(), misconfigured: true }
    );
}

#[test]
fn whoever_was_connecting_when_the_machine_was_lost_is_told_and_who_tries_again_is_not() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    let (a, b) = (starts(&mut queues, now), starts(&mut queues, now));
    let lost = || AttemptEnd::Offline("silence".to_owned());
    let first = now + Duration::from_secs(4);
    assert_eq!(queues.settle(a, lost(), first).wake.len(), 1);
    assert_eq!(queues.settle(b, lost(), first).wake.len(), 1, "its status says that it connects");
    let later = first + Duration::from_secs(60);
    let again = starts(&mut queues, later);
    assert_eq!(queues.settle(again, lost(), later).wake, vec![], "its status says that it waits");
}

/// A limit of sessions, for one: what waits goes by the connections that there are.
#[test]
fn it_is_remembered_how_many_a_machine_bore_that_allowed_no_further_connection() {
    let now = Instant::now();
    let mut queues = queues(vec![work("a", 1), work("b", 2)]);
    let a = starts(&mut queues, now);
    queues.hold(&a.key);
    queues.connected(&machine());
    let b = starts(&mut queues, now);
    queues.settle(b, AttemptEnd::Full { room: 1, problem: "no".to_owned() }, now);
    assert_eq!(fact(&queues, "b", now), WorkFact::WaitingForSlot);
    starts_nothing(&mut queues, now);
    // Later one more is tried.
    let later = now + REMEMBER_ROOM;
    let b = starts(&mut queues, later);
    queues.settle(b, AttemptEnd::Full { room: 1, problem: "no".to_owned() }, later);
    starts_nothing(&mut queues, later);
    queues.settle(a, AttemptEnd::Done, later);
    assert_eq!(starts(&mut queues, later).key.name, "b");
}
