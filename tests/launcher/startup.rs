//! Start-up files of the login that read, ask and print. The launcher refuses the request or runs it unchanged. The
//! record contains only bytes of the command.

use writ::launcher::{Answer, ExitOutcome, REFUSED_CUT_EXIT_CODE, ReplyError, RequestRefusal};

use crate::machine::{Kind, Machine, decision, nonce, sh, uid, with_each_login};

/// Returns start-up files that read standard input, in the language of the shell.
fn readers(kind: Kind) -> Vec<String> {
    let heads = [1, 300, 700, 1_200, 1_800, 2_500, 20_000].map(|bytes| format!("head -c {bytes} >/dev/null"));
    let mut readers = heads.to_vec();
    match kind {
        Kind::Fish => readers.extend(["read line".to_owned(), "cat >/dev/null".to_owned()]),
        Kind::Tcsh => readers.extend(["set x = $<".to_owned(), "cat >/dev/null".to_owned()]),
        _ => readers.extend([
            "sleep 0.1; read -t 0 x && head -c 300 >/dev/null".to_owned(),
            "read line".to_owned(),
            "cat >/dev/null".to_owned(),
        ]),
    }
    readers
}

#[test]
fn a_startup_file_that_reads_standard_input_executes_nothing() {
    with_each_login(|kind| {
        let mut machine = Machine::new(kind);
        let marker = machine.home.path().join("MARK");
        let value = "A; touch MARK; ".repeat(270) + ";#";
        for reader in readers(kind) {
            if !machine.set_startup(&reader) {
                return;
            }
            let (nonce, uid) = (nonce(), uid());
            let request = machine.launching(&nonce, &uid, &decision(&["/bin/echo", &value]));
            let (said, exit_code) = machine.session(&nonce, request).exited();
            assert!(!marker.exists(), "{kind:?} {reader}: executed");
            // If the shell reads nothing, the request stays whole. An example is bash with `read -t 0` before any input
            // has arrived.
            if exit_code == Some(0) && reader.contains("read -t 0") {
                assert_eq!(said.ended().outcome, ExitOutcome::Exited(0), "{kind:?} {reader}");
                continue;
            }
            assert!(
                matches!(said.answers.as_slice(), [] | [Answer::Refused(RequestRefusal::Cut)]),
                "{kind:?} {reader}: {said:?}"
            );
            assert_eq!(exit_code, i32::try_from(REFUSED_CUT_EXIT_CODE).ok(), "{kind:?} {reader}: {said:?}");
            assert!(machine.journal(&uid).is_empty(), "{kind:?} {reader}");
        }
    });
}

/// With input from a terminal, this start-up file would wait.
#[test]
fn a_startup_file_that_asks_does_not_hang() {
    let mut machine = Machine::new(Kind::BashThenDash);
    machine.set_startup("read -p 'project? ' p; echo you said $p");
    let (nonce, uid) = (nonce(), uid());
    let request = machine.launching(&nonce, &uid, &decision(&["/bin/true"]));
    let (said, exit_code) = machine.session(&nonce, request).exited();
    assert_eq!(exit_code, i32::try_from(REFUSED_CUT_EXIT_CODE).ok(), "{said:?}");
}

/// A background job of the start-up file prints into the session. Its lines never become output of the command.
#[test]
fn what_a_startup_job_prints_is_no_output() {
    with_each_login(|kind| {
        let mut machine = Machine::new(kind);
        let job = "(for i in $(seq 60); do echo LATE; echo LATE >&2; sleep 0.02; done) &";
        let job = match kind {
            Kind::Fish => "sh -c 'for i in $(seq 60); do echo LATE; echo LATE >&2; sleep 0.02; done' &",
            Kind::Tcsh => "sh -c 'for i in `seq 60`; do echo LATE; echo LATE >&2; sleep 0.02; done' &",
            _ => job,
        };
        if !machine.set_startup(job) {
            return;
        }
        for round in 0..25 {
            let (expected, script) = match round % 3 {
                0 => (b"hello\n".to_vec(), "echo hello; echo hello >&2".to_owned()),
                1 => (b"ABCDE".to_vec(), "for x in A B C D E; do printf $x; printf $x >&2; sleep 0.1; done".to_owned()),
                _ => (vec![0; 1_000_000], "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2".to_owned()),
            };
            let (uid, said) = machine.run_and_read(&sh(&script), 12);
            for stream in [&said.stdout, &said.stderr] {
                assert!(expected.starts_with(stream), "{kind:?} {round}: {:?}", String::from_utf8_lossy(stream));
            }
            while !machine.journal(&uid).contains("\nE ") {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            // The output on the disk is correct in any case.
            assert_eq!(std::fs::read(machine.file(&uid, "o")).unwrap(), expected, "{kind:?} {round}");
            if said.complete {
                assert!(said.stdout == expected && said.stderr == expected, "{kind:?} {round}");
                assert!(!said.ended().output_incomplete());
            } else {
                assert!(
                    matches!(said.broken, Some(ReplyError::Mixed | ReplyError::Line)),
                    "{kind:?} {round}: {:?}",
                    said.broken
                );
            }
        }
    });
}

/// A login that prints text before the reply, on both streams.
#[test]
fn what_the_login_prints_is_passed_over() {
    with_each_login(|kind| {
        let mut machine = Machine::new(kind);
        let prints = "echo hello; echo WRIT2:; echo 'WRIT2:0123456789abcdef0123456789abcdef:.'; printf 'no newline'";
        if machine.set_startup(prints) {
            let said = machine.run(&sh("echo out; echo err >&2; exit 4"));
            assert_eq!(said.ended().outcome, ExitOutcome::Exited(4), "{kind:?}");
            assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]), "{kind:?}");
        }
    });
}

/// All requests of an execution, in each login shell.
#[test]
fn every_login_shell_runs_follows_stops_and_tells() {
    with_each_login(|kind| {
        let machine = Machine::new(kind);
        let said = machine.run(&sh("echo out; echo err >&2; exit 7"));
        assert_eq!(said.ended().outcome, ExitOutcome::Exited(7), "{kind:?}");
        assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]), "{kind:?}");
        let words = ["", "it's", "a\\", "!!", "$(id) `id` \"x\" *", "two\nlines\n", "é"];
        let mut printing = sh("shift; printf '%s\\0' \"$@\"");
        printing.argv.extend(["sh", "-"].iter().chain(&words).map(|word| (*word).to_owned()));
        let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
        assert_eq!(String::from_utf8(machine.run(&printing).stdout).unwrap(), expected, "{kind:?}");
        let uid = uid();
        let mut session = machine.start(&uid, &sh("echo begun; setsid sleep 300 & exec sleep 300"));
        session.until(|said| !said.stdout.is_empty());
        assert!(matches!(machine.poll(&uid), Answer::Running(_)), "{kind:?}");
        assert_eq!(machine.stop(&uid), Answer::Stopped { processes_left: Some(0) }, "{kind:?}");
        assert_eq!(session.finish().ended().outcome, ExitOutcome::Signalled(15), "{kind:?}");
    });
}
