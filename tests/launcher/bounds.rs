//! Limits that the launcher enforces on the machine by itself. The launcher ends commands that run too long or write
//! too much, and commands that Writ stops.

use std::time::Duration;

use writ::launcher::{Answer, ExitOutcome, Offsets};

use crate::machine::{Kind, Machine, everywhere, sh, uid};

#[test]
fn time_is_bounded_with_nobody_there() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        // The first command ends by TERM. The second ignores TERM. The third stops itself. The fourth has a grandchild
        // in its own session.
        let commands = [
            ("echo out; exec sleep 600", 15),
            ("trap '' TERM; echo out; while :; do sleep 0.1; done", 9),
            ("echo out; kill -STOP $$", 9),
            ("setsid sleep 600 & echo out; exec sleep 600", 15),
        ];
        let uids: Vec<_> = commands
            .map(|(command, _)| {
                let uid = uid();
                let mut decision = sh(command);
                decision.timeout_seconds = 1;
                let mut session = machine.start(&uid, &decision);
                session.until(|said| !said.stdout.is_empty());
                drop(session);
                uid
            })
            .to_vec();
        for (uid, (command, signal)) in uids.iter().zip(commands) {
            let said = machine.attach(uid, Offsets::default()).finish();
            let ended = said.ended();
            assert_eq!(
                (ended.outcome, ended.timed_out, ended.processes_left),
                (ExitOutcome::Signalled(signal), true, Some(0)),
                "{kind:?} {command}"
            );
            assert_eq!(said.stdout, b"out\n");
        }
    });
}

#[test]
fn time_is_bounded_without_the_supervisor() {
    let machine = Machine::new(Kind::Dash);
    let uid = uid();
    let mut decision = sh("echo out; exec sleep 600");
    decision.timeout_seconds = 2;
    let mut session = machine.start(&uid, &decision);
    session.until(|said| !said.stdout.is_empty());
    let journal = machine.journal(&uid);
    let start = journal.lines().find_map(|line| line.strip_prefix("S ")).expect("a start");
    let supervisor = start.split(' ').nth(1).expect("its supervisor");
    assert!(std::process::Command::new("kill").args(["-9", supervisor]).status().unwrap().success());
    let ended = loop {
        match machine.poll(&uid) {
            Answer::Ended(ended) => break ended,
            Answer::Lost(_) | Answer::Running(_) => std::thread::sleep(Duration::from_millis(100)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((ended.outcome, ended.timed_out, ended.processes_left), (ExitOutcome::Unknown, true, Some(0)));
}

#[test]
fn output_is_bounded() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let mut decision = sh("yes & yes >&2");
        decision.output.maximum_bytes = 10_000_000;
        let said = machine.run(&decision);
        let ended = said.ended();
        assert!(ended.over_limit && !ended.timed_out, "{kind:?} {ended:?}");
        assert!(said.stdout.len() + said.stderr.len() > 10_000_000 && ended.processes_left == Some(0));
    });
}

#[test]
fn stopping_ends_what_runs() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for (command, outcome) in [
            ("echo out; exec sleep 600", ExitOutcome::Signalled(15)),
            ("trap 'exit 6' TERM; echo out; while :; do sleep 0.1; done", ExitOutcome::Exited(6)),
            ("trap '' TERM; setsid sleep 600 & echo out; while :; do sleep 0.1; done", ExitOutcome::Signalled(9)),
        ] {
            let uid = uid();
            let mut session = machine.start(&uid, &sh(command));
            session.until(|said| !said.stdout.is_empty());
            assert_eq!(machine.stop(&uid), Answer::Stopped { processes_left: Some(0) }, "{kind:?} {command}");
            let said = session.finish();
            let ended = said.ended();
            assert_eq!(
                (ended.outcome, ended.stopped, ended.processes_left),
                (outcome, true, Some(0)),
                "{kind:?} {command}"
            );
            // A second stop reports that the command has ended.
            assert!(matches!(machine.stop(&uid), Answer::Ended(_)));
        }
    });
}

#[test]
fn stopping_what_has_not_started_closes_it_and_what_has_ended_stays_as_it_is() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let early = uid();
        assert_eq!(machine.stop(&early), Answer::Tombstoned);
        assert_eq!(*machine.launch(&early, &machine.noted("true")).answer(), Answer::Tombstoned);
        assert!(machine.ran().is_empty());
        let uid = uid();
        machine.launch(&uid, &sh("setsid sleep 3 & echo out"));
        assert!(matches!(machine.stop(&uid), Answer::Ended(ended) if !ended.stopped && ended.processes_left.is_none()));
    });
}

/// The launcher also ends a command that forks as fast as it can.
#[test]
fn a_command_that_starts_ever_new_processes_is_ended() {
    let machine = Machine::new(Kind::Dash);
    let uid = uid();
    let mut session = machine.start(&uid, &sh("trap '' TERM; echo out; while :; do sleep 5 & sleep 0.01; done"));
    session.until(|said| !said.stdout.is_empty());
    assert_eq!(machine.stop(&uid), Answer::Stopped { processes_left: Some(0) });
    assert_eq!(session.finish().ended().outcome, ExitOutcome::Signalled(9));
}

/// The journal records the start an instant before the command has its own session. A stop at that instant ends the
/// command, too.
#[test]
fn stopping_at_the_instant_of_the_start_ends_it() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for _ in 0..15 {
            let uid = uid();
            let session = machine.start(&uid, &sh("exec sleep 600"));
            while !machine.journal(&uid).contains("\nS ") {
                std::thread::yield_now();
            }
            assert_eq!(machine.stop(&uid), Answer::Stopped { processes_left: Some(0) }, "{kind:?}");
            let said = session.finish();
            assert!(said.ended().stopped && said.ended().outcome != ExitOutcome::Exited(0), "{kind:?} {said:?}");
        }
    });
}
