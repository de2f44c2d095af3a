//! The client receives the bytes, the exit code and the signal of a command unchanged.

use writ::launcher::{Answer, ExitOutcome};

use crate::machine::{Kind, Machine, decision, everywhere, sh};

#[test]
fn a_short_command_is_answered_in_its_own_request() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let said = machine.run(&sh("echo out; echo err >&2; exit 7"));
        let ended = said.ended();
        assert_eq!(ended.outcome, ExitOutcome::Exited(7), "{kind:?}");
        assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]), "{kind:?}");
        assert!(!ended.started_by_other && !ended.timed_out && !ended.stopped && !ended.output_incomplete());
        let said = machine.run(&decision(&["/bin/true"]));
        assert_eq!((said.ended().outcome, said.stdout.len(), said.stderr.len()), (ExitOutcome::Exited(0), 0, 0));
    });
}

#[test]
fn a_long_command_is_followed_as_it_runs() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let said = machine.run(&sh("echo one; sleep 1; echo two >&2; echo two; sleep 0.3; exit 3"));
        assert!(matches!(said.answers.as_slice(), [Answer::Running(_), Answer::Ended(_)]), "{kind:?} {said:?}");
        assert_eq!(said.ended().outcome, ExitOutcome::Exited(3));
        assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"one\ntwo\n"[..], &b"two\n"[..]), "{kind:?}");
    });
}

/// Returns true if this process ignores a signal. Its commands then ignore the signal too. A shell that runs the tests
/// in the background (`make test &`) lets them ignore INT and QUIT.
fn is_ignored(signal: u8) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask of signals");
    u64::from_str_radix(mask.trim(), 16).expect("a mask of signals") & (1 << (signal - 1)) != 0
}

#[test]
fn every_exit_code_is_told_and_every_signal_that_the_shell_tells_of() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for code in [0, 1, 2, 126, 127, 128, 129, 130, 137, 141, 143, 254, 255] {
            let said = machine.run(&sh(&format!("exit {code}")));
            assert_eq!(said.ended().outcome, ExitOutcome::Exited(code), "{kind:?}");
        }
        // HUP, INT, QUIT, ABRT, KILL, USR1, SEGV, PIPE, ALRM, TERM
        for signal in [1, 2, 3, 6, 9, 10, 11, 13, 14, 15].into_iter().filter(|signal| !is_ignored(*signal)) {
            let said = machine.run(&sh(&format!("ulimit -c 0; kill -{signal} $$; sleep 60")));
            let outcome = said.ended().outcome;
            if matches!(signal, 2 | 13) {
                let either = [ExitOutcome::Exited(128 + signal), ExitOutcome::Signalled(signal)];
                assert!(either.contains(&outcome), "{kind:?} {signal} {outcome:?}");
            } else {
                assert_eq!(outcome, ExitOutcome::Signalled(signal), "{kind:?}");
            }
        }
    });
}

#[test]
fn output_comes_byte_for_byte() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let every: Vec<u8> = (0..=255).collect();
        for (times, pause) in [(1, ""), (1, "; sleep 0.5"), (300, ""), (40_000, "; sleep 0.5")] {
            let bytes = every.repeat(times);
            let file = machine.home.path().join("bytes");
            std::fs::write(&file, &bytes).unwrap();
            let said = machine.run(&sh(&format!("cat {0} & cat {0} >&2; wait{pause}", file.display())));
            assert_eq!(said.ended().lengths, said.offsets());
            assert!(said.stdout == bytes && said.stderr == bytes, "{kind:?} {times}");
        }
    });
}

#[test]
fn a_command_sees_what_a_plain_exec_would_show_it() {
    // Each program reports about itself. A shell would report through a child, which the test could observe during the
    // fork.
    let asks: [&[&str]; 6] = [
        &["/bin/grep", "-E", "^(Umask|SigBlk|SigIgn|NoNewPrivs|Seccomp):", "/proc/self/status"],
        &["/bin/ls", "/proc/self/fd"],
        &["/bin/readlink", "/proc/self/fd/0"],
        &["/bin/cat", "/proc/self/limits"],
        &["/bin/pwd"],
        &["/usr/bin/env"],
    ];
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for words in asks {
            let decision = decision(words);
            let lines = |text: Vec<u8>| {
                let text = String::from_utf8(text).unwrap();
                // Variables that shells or the launcher set.
                let ours = ["SHLVL=", "_=", "OLDPWD=", "PWD=", "WRIT_EXECUTION="];
                let lines = text.lines().filter(|line| !ours.iter().any(|each| line.starts_with(each)));
                lines.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
            };
            let plain = machine.plain(&writ::policy::command_line(&decision));
            assert_eq!(lines(machine.run(&decision).stdout), lines(plain), "{kind:?} {words:?}");
        }
        let said = machine.run(&sh("echo $WRIT_EXECUTION $$; ps -o sid=,pgid= -p $$"));
        let text = String::from_utf8(said.stdout).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!((words[0].len(), words[1], words[1]), (36, words[2], words[3]), "a session of its own: {text}");
    });
}

#[test]
fn words_arrive_as_they_were_decided_on_the_line_and_by_standard_input() {
    let hostile =
        ["", " ", "it's", "a\\", "!!", "$(id) `id` \"x\" *", "-n", "é\u{81}\u{88}", "two\nlines\n", "\\n", "~"];
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for filler in [0, 9_000] {
            let mut decision = sh("shift; printf '%s\\0' \"$@\"; printf '%s' \"$NAME\" >&2");
            let filler = "x".repeat(filler);
            decision.argv.extend(["sh", &filler].map(str::to_owned));
            decision.argv.extend(hostile.map(str::to_owned));
            decision.environment.insert("NAME".to_owned(), "it's \\ \" $HOME".to_owned());
            let said = machine.run(&decision);
            let expected: String = hostile.iter().map(|word| format!("{word}\0")).collect();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), expected, "{kind:?}");
            assert_eq!(String::from_utf8(said.stderr).unwrap(), "it's \\ \" $HOME");
        }
    });
}

#[test]
fn what_cannot_be_executed_says_so() {
    let machine = Machine::new(Kind::Dash);
    let said = machine.run(&decision(&["/no/such/program"]));
    assert_eq!(said.ended().outcome, ExitOutcome::Exited(127));
    assert!(String::from_utf8_lossy(&said.stderr).contains("/no/such/program"));
    let mut lost = sh("echo ran");
    lost.working_directory = Some("/no/such/folder".to_owned());
    let said = machine.run(&lost);
    assert_eq!((said.ended().outcome, said.stdout.len()), (ExitOutcome::Exited(126), 0));
}

#[test]
fn a_command_may_do_to_its_own_group_and_output_what_it_likes() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let said = machine.run(&sh("echo before; kill -9 0; echo after"));
        assert_eq!(
            (said.ended().outcome, said.stdout.as_slice()),
            (ExitOutcome::Signalled(9), &b"before\n"[..]),
            "{kind:?}"
        );
        let said = machine.run(&sh("echo before; sleep 0.5; kill -9 0; echo after"));
        assert_eq!(
            (said.ended().outcome, said.stdout.as_slice()),
            (ExitOutcome::Signalled(9), &b"before\n"[..]),
            "{kind:?}"
        );
        let said = machine.run(&sh("exec >&- 2>&-; sleep 0.5; exit 9"));
        assert_eq!((said.ended().outcome, said.stdout.len()), (ExitOutcome::Exited(9), 0));
        // A process that is left behind holds the output. The command has still ended.
        let said = machine.run(&sh("echo out; setsid sleep 3 & exit 0"));
        assert_eq!((said.ended().outcome, said.stdout.as_slice()), (ExitOutcome::Exited(0), &b"out\n"[..]));
    });
}

/// At that instant, the supervisor and the watchdog decide which of them answers. Exactly one answers.
#[test]
fn a_command_that_ends_as_the_watchdog_wakes_up_is_answered() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for round in 0..30 {
            let script = format!("echo out; sleep 0.{:03}; exit 4", 170 + round * 2);
            let said = machine.run(&sh(&script));
            assert_eq!(
                (said.ended().outcome, said.stdout.as_slice()),
                (ExitOutcome::Exited(4), &b"out\n"[..]),
                "{kind:?}"
            );
        }
    });
}
