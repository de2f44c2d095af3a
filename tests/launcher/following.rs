//! A lost connection loses no output: the next session continues after the bytes that the client has.

use std::time::Duration;

use writ::launcher::{Answer, ExitOutcome, FrameSize, Offsets};

use crate::machine::{Machine, everywhere, sh, uid};
use crate::session::Said;

/// Script that writes lines of many lengths to both streams, for about two seconds.
const TALKS: &str = "i=0; while [ $i -lt 400 ]; do i=$((i + 1)); echo \"line $i of what it says\"; \
                     [ $((i % 3)) = 0 ] && echo \"complaint $i\" >&2; [ $((i % 4)) = 0 ] && sleep 0.01; done; exit 21";

fn spoken() -> (Vec<u8>, Vec<u8>) {
    let out: String = (1..=400).map(|number| format!("line {number} of what it says\n")).collect();
    let err: String =
        (1..=400).filter(|number| number % 3 == 0).map(|number| format!("complaint {number}\n")).collect();
    (out.into_bytes(), err.into_bytes())
}

#[test]
fn whoever_comes_back_gets_every_byte_once() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        // Each round cuts the session at another moment, after 900 times `cut` bytes of output.
        for cut in 1..6_usize {
            let uid = uid();
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let mut session = machine.start(&uid, &machine.noted(TALKS));
            let ended = loop {
                session.until(|said| said.complete || said.stdout.len() + said.stderr.len() >= 900 * cut);
                let complete = session.said.complete;
                let said: Said = session.hang_up();
                stdout.extend_from_slice(&said.stdout);
                stderr.extend_from_slice(&said.stderr);
                if complete {
                    break said.ended().clone();
                }
                session = machine.attach(&uid, Offsets { stdout: stdout.len() as u64, stderr: stderr.len() as u64 });
            };
            assert_eq!(ended.outcome, ExitOutcome::Exited(21));
            assert!((stdout, stderr) == spoken(), "{kind:?} {cut}");
            assert_eq!(machine.ran().len(), cut, "{kind:?}");
        }
    });
}

#[test]
fn what_nobody_reads_any_more_goes_on_and_leaves_nothing_behind() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let done = machine.home.path().join("done");
        let mut session =
            machine.start(&uid, &sh(&format!("echo one; sleep 1; yes | head -c 1000000; touch {}", done.display())));
        session.until(|said| !said.stdout.is_empty());
        drop(session);
        let said = machine.attach(&uid, Offsets { stdout: 4, stderr: 0 }).finish();
        assert_eq!((said.ended().outcome, said.stdout.len()), (ExitOutcome::Exited(0), 1_000_000), "{kind:?}");
        assert!(done.exists());
    });
}

/// The client reads no byte from the channel, but the channel stays open.
#[test]
fn a_reader_that_is_frozen_does_not_freeze_the_command() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let done = machine.home.path().join("done");
        let command = sh(&format!("sleep 0.5; head -c 3000000 /dev/zero; sleep 0.5; touch {}", done.display()));
        let frozen = machine.frozen(&uid, &command);
        while !done.exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = machine.attach(&uid, Offsets::default()).finish();
        assert_eq!((said.ended().outcome, said.stdout.len()), (ExitOutcome::Exited(0), 3_000_000), "{kind:?}");
        drop(frozen);
    });
}

#[test]
fn offsets_beyond_what_there_is_give_nothing() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        machine.launch(&uid, &sh("echo out"));
        let said = machine.attach(&uid, Offsets { stdout: 100, stderr: u64::MAX }).finish();
        assert_eq!((said.ended().lengths.stdout, said.stdout.len()), (4, 0), "{kind:?}");
        let said = machine.attach(&uid, Offsets { stdout: 2, stderr: 0 }).finish();
        assert_eq!(said.stdout, b"t\n");
    });
}

#[test]
fn a_supervisor_that_was_killed_is_a_loss_and_not_an_end() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let mut session = machine.start(&uid, &machine.noted("echo out; sleep 60"));
        session.until(|said| !said.stdout.is_empty());
        let journal = machine.journal(&uid);
        let start = journal.lines().find_map(|line| line.strip_prefix("S ")).expect("a start");
        let supervisor = start.split(' ').nth(1).expect("its supervisor");
        assert!(std::process::Command::new("kill").args(["-9", supervisor]).status().unwrap().success());
        let said = session.finish();
        assert!(matches!(said.answer(), Answer::Lost(lost) if !lost.rebooted), "{kind:?} {said:?}");
        assert!(matches!(machine.poll(&uid), Answer::Lost(_)));
        assert_eq!(said.stdout, b"out\n");
        // The exit code stays unknown, but a stop still ends the command.
        assert_eq!(machine.stop(&uid), Answer::Stopped { processes_left: Some(0) });
        let said = machine.attach(&uid, Offsets::default()).finish();
        let ended = said.ended();
        assert_eq!(
            (ended.outcome, ended.stopped, ended.processes_left),
            (ExitOutcome::Unknown, true, Some(0)),
            "{kind:?}"
        );
    });
}

/// Only whole frames count. On a connection that breaks often, a large frame never arrives whole.
#[test]
fn small_frames_get_through_a_line_that_breaks_often() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let said = machine.launch(&uid, &sh("head -c 300000 /dev/urandom; head -c 70001 /dev/urandom >&2"));
        let whole = (said.stdout, said.stderr);
        let smallest = FrameSize::default().smaller().smaller().smaller().smaller();
        assert_eq!(smallest, smallest.smaller());
        let (mut stdout, mut stderr, mut sessions) = (Vec::new(), Vec::new(), 0);
        loop {
            let from = Offsets { stdout: stdout.len() as u64, stderr: stderr.len() as u64 };
            let mut session = machine.attach_with(&uid, from, smallest);
            // The connection breaks after about 40,000 bytes.
            session.until(|said| said.complete || said.stdout.len() + said.stderr.len() > 40_000);
            let complete = session.said.complete;
            let said = session.hang_up();
            stdout.extend_from_slice(&said.stdout);
            stderr.extend_from_slice(&said.stderr);
            sessions += 1;
            if complete {
                break;
            }
        }
        assert!((stdout, stderr) == whole && sessions > 4, "{kind:?} {sessions}");
    });
}
