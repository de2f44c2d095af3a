//! Output that other processes still hold after the command's end, and output that does not fit.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use writ::api::execution_status::DecisionRecord;
use writ::launcher::{self, Answer, Ended, ExitOutcome, Missing, Offsets, RequestRefusal};

use crate::lab::say;
use crate::machine::{Kind, Machine, decision, everywhere, is_root, make_executable, sh, uid, with_each_login};

/// Returns a decision with a maximum wait for the end of the output, in seconds.
fn draining(script: &str, seconds: u32) -> DecisionRecord {
    let mut decision = sh(script);
    decision.output.drain_seconds = seconds;
    decision
}

/// Kills the processes that a record names.
fn end_holders(ended: &Ended) {
    for holder in &ended.holders {
        let _ = Command::new("kill").args(["-9", &holder.process.to_string()]).status();
    }
}

/// A filter that the command started writes after the command's end. All of these bytes are output.
#[test]
fn what_a_filter_of_the_command_still_writes_is_output() {
    let bash = "/bin/bash";
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for round in 0..25 {
            let (filter, pause) = if round % 5 == 0 { ("sleep 0.3; cat", "") } else { ("cat", "sleep 0.01;") };
            let script = format!("exec > >({filter}) 2>&1; echo step 1; {pause} echo ERROR: disk full; exit 3");
            let said = machine.run(&decision(&[bash, "-c", &script]));
            assert_eq!(said.ended().outcome, ExitOutcome::Exited(3), "{kind:?}");
            assert_eq!(String::from_utf8_lossy(&said.stdout), "step 1\nERROR: disk full\n", "{kind:?} {round}");
            assert!(!said.ended().output_incomplete(), "{kind:?}");
        }
        let log = machine.home.path().join("deploy.log");
        let script = format!(
            "exec > >(tee -a {}) 2>&1; for i in $(seq 200); do echo $i; done; sleep 1; echo ERROR; exit 3",
            log.display()
        );
        let said = machine.run(&decision(&[bash, "-c", &script]));
        let expected: String = (1..=200).map(|number| format!("{number}\n")).collect::<String>() + "ERROR\n";
        assert_eq!(
            (said.ended().outcome, String::from_utf8_lossy(&said.stdout)),
            (ExitOutcome::Exited(3), expected.into())
        );
        assert!(!said.ended().output_incomplete(), "{kind:?}");
    });
}

#[test]
fn an_output_that_is_still_held_is_incomplete_and_names_who_holds_it() {
    with_each_login(|kind| {
        let machine = Machine::new(kind);
        for seconds in [0, 1] {
            for early in ["", "sleep 0.5; "] {
                let script = format!("echo started; {early}setsid sleep 300 & exit 5");
                let said = machine.run(&draining(&script, seconds));
                let ended = said.ended();
                assert_eq!(
                    (ended.outcome, ended.missing),
                    (ExitOutcome::Exited(5), Some(Missing::Held)),
                    "{kind:?} {seconds}"
                );
                assert_eq!((said.stdout.as_slice(), ended.was_ended), (&b"started\n"[..], false), "{kind:?}");
                let names: Vec<&str> = ended.holders.iter().map(|holder| holder.name.as_str()).collect();
                assert_eq!(names, ["sleep"], "{kind:?}");
                end_holders(ended);
            }
        }
        // No process holds the output. The launcher does not wait, and no output is missing.
        let said = machine.run(&draining("echo out; exit 5", 60));
        assert!(!said.ended().output_incomplete(), "{kind:?}");
    });
}

#[test]
fn names_of_holders_cannot_be_taken_for_anything_else() {
    let machine = Machine::new(Kind::Dash);
    let program = machine.home.path().join("9:D S 0 0 1 0\n-");
    std::fs::copy("/bin/sleep", &program).unwrap();
    make_executable(&program);
    let script = format!("'{0}' 300 & '{0}' 300 & exit 5", program.display());
    let said = machine.run(&draining(&script, 0));
    let names: Vec<&str> = said.ended().holders.iter().map(|holder| holder.name.as_str()).collect();
    assert_eq!(names, ["9_D_S_0_0_1_0", "9_D_S_0_0_1_0"], "{:?}", said.ended());
    end_holders(said.ended());
}

#[test]
fn of_many_holders_some_are_named() {
    let machine = Machine::new(Kind::Dash);
    let said = machine.run(&draining("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 7301 & done; exit 5", 0));
    let ended = said.ended();
    assert_eq!((ended.holders.len(), ended.missing), (launcher::MAX_HOLDERS, Some(Missing::Held)));
    // The record does not name all holders, so `pkill` ends them.
    let ended = Command::new("pkill").args(["-9", "-f", "^sleep 7301$"]).status();
    assert!(ended.is_ok_and(|status| status.success()));
}

/// Returns the number of disk blocks of the launcher's files. Removed files that a process of this machine still has
/// open count, too.
fn blocks(machine: &Machine) -> u64 {
    let mut files = std::collections::BTreeMap::new();
    let home = machine.home.path().to_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for open in std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let target = std::fs::read_link(open.path()).unwrap_or_default();
            if target.to_string_lossy().starts_with(home)
                && let Ok(file) = std::fs::metadata(open.path())
            {
                files.insert(file.ino(), file.blocks());
            }
        }
    }
    for entry in std::fs::read_dir(&machine.facts.directory).unwrap().flatten() {
        let file = entry.metadata().unwrap();
        files.insert(file.ino(), file.blocks());
    }
    files.values().sum()
}

/// A service holds the output of the command that started it, and continues to write.
#[test]
fn what_a_service_writes_after_the_record_fills_nothing() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let ticks = machine.home.path().join("ticks");
        let writes = format!(
            "(while :; do head -c 1048576 /dev/zero; echo >>{}; sleep 0.05; done) & echo started; exit 0",
            ticks.display()
        );
        let said = machine.launch(&uid, &draining(&writes, 1));
        let ended = said.ended().clone();
        assert_eq!((ended.outcome, ended.missing), (ExitOutcome::Exited(0), Some(Missing::Held)), "{kind:?}");
        assert!(said.stdout.windows(8).any(|part| part == b"started\n"));
        for acknowledged in [false, true] {
            if acknowledged {
                assert_eq!(machine.ask(|nonce, facts| launcher::acknowledge(nonce, facts, &[&uid])), Answer::Done);
            }
            let count = || std::fs::read(&ticks).unwrap().len();
            let (before, wrote) = (blocks(&machine), count());
            while count() < wrote + 10 {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(blocks(&machine), before, "{kind:?} {acknowledged}");
        }
        assert_eq!(machine.run(&sh("echo hello")).stdout, b"hello\n", "{kind:?}: the next one runs");
        end_holders(&ended);
    });
}

/// The service continues to run after the launcher no longer stores its output.
#[test]
fn a_service_that_outlives_its_command_is_not_ended() {
    let machine = Machine::new(Kind::BashThenDash);
    let ticks = machine.home.path().join("ticks");
    let script = format!(
        "(i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo tick; echo >>{}; sleep 0.1; done) & exit 0",
        ticks.display()
    );
    let said = machine.run(&draining(&script, 0));
    assert_eq!(said.ended().missing, Some(Missing::Held));
    while std::fs::read(&ticks).unwrap().len() < 30 {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_stop_while_the_output_is_awaited_ends_the_holders() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let mut session = machine.start(&uid, &draining("echo out; setsid sleep 300 & exit 5", 60));
        session.until(|said| !said.stdout.is_empty());
        while !machine.journal(&uid).contains("\nP 5 ") {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(machine.stop(&uid), Answer::Stopped { processes_left: Some(0) }, "{kind:?}");
        let said = session.finish();
        assert_eq!(
            (said.ended().outcome, said.ended().output_incomplete()),
            (ExitOutcome::Exited(5), false),
            "{kind:?}"
        );
    });
}

#[test]
fn the_limit_of_the_output_is_exact_to_a_block() {
    const LIMIT: u64 = 1_048_576;
    everywhere(|kind| {
        let machine = Machine::new(kind);
        for (script, is_over) in [
            ("head -c 1048576 /dev/zero; exit 3", false),
            ("head -c 1048577 /dev/zero; exit 3", true),
            ("head -c 1050000 /dev/zero; exit 3", true),
            ("head -c 600000 /dev/zero; head -c 600000 /dev/zero >&2; exit 3", true),
            ("sleep 0.4; head -c 1048577 /dev/zero; sleep 0.4; exit 3", true),
            ("cat /dev/zero", true),
            ("cat /dev/zero >&2", true),
            ("trap '' PIPE TERM; cat /dev/zero", true),
        ] {
            let uid = uid();
            let mut decision = sh(script);
            decision.output.maximum_bytes = i64::try_from(LIMIT).unwrap();
            let said = machine.launch(&uid, &decision);
            let ended = said.ended();
            assert_eq!((ended.over_limit, ended.timed_out), (is_over, false), "{kind:?} {script} {ended:?}");
            for ending in ["o", "e"] {
                let length = std::fs::metadata(machine.file(&uid, ending)).unwrap().len();
                assert!(length <= LIMIT + 512, "{kind:?} {script}: {length}");
            }
            if !is_over {
                assert_eq!((ended.outcome, ended.lengths.stdout), (ExitOutcome::Exited(3), LIMIT), "{kind:?}");
                assert!(!ended.output_incomplete());
            }
            if script.contains("cat") {
                assert!(ended.was_ended && ended.processes_left == Some(0), "{kind:?} {script} {ended:?}");
            }
        }
    });
}

/// As under ssh, the command has the limits of its login, and its output is not a file.
#[test]
fn a_file_size_limit_of_the_login_does_not_cut_the_output_silently() {
    for kind in [Kind::BashThenDash, Kind::Bash, Kind::Zsh] {
        let mut machine = Machine::new(kind);
        let unit = if kind == Kind::Zsh { 512 } else { 1_024 };
        machine.set_startup(&format!("ulimit -S -f {}", 1_048_576 / unit));
        let said = machine.run(&sh("ulimit -S -f; head -c 3000000 /dev/zero; exit 4"));
        let ended = said.ended();
        assert_eq!(
            (ended.outcome, said.stdout.len(), ended.missing),
            (ExitOutcome::Exited(4), 3_000_005, None),
            "{kind:?}"
        );
        assert!(said.stdout.starts_with(b"2048\n"), "{kind:?}: the command has the limit of the login");
        machine.set_startup(&format!("ulimit -S -f {0}; ulimit -H -f {0}", 524_288 / unit));
        let said = machine.run(&sh("head -c 3000000 /dev/zero; exit 4"));
        let ended = said.ended();
        assert_eq!((ended.outcome, ended.missing), (ExitOutcome::Exited(4), Some(Missing::FileSizeLimit)), "{kind:?}");
        assert_eq!((said.stdout.len(), ended.lengths.stdout), (524_288, 524_288), "{kind:?}");
    }
}

/// As under ssh, a process can open the output by name as well as by number.
#[test]
fn the_output_can_be_opened_by_name() {
    let script = "echo one; echo two > /dev/stderr; echo three | tee /dev/stderr; echo four >/dev/stdout; \
                  echo five >/proc/self/fd/1; echo six >>/dev/fd/2; cp \"$0\" /dev/stdout; exit 0";
    with_each_login(|kind| {
        for machine in [Machine::new(kind), Machine::not_as_root(kind)] {
            let file = machine.home.path().join("file");
            std::fs::write(&file, "data\n").unwrap();
            let mut decision = sh(script);
            decision.argv.push(file.to_str().unwrap().to_owned());
            let said = machine.run(&decision);
            assert_eq!(said.ended().outcome, ExitOutcome::Exited(0), "{kind:?} {said:?}");
            assert_eq!(String::from_utf8_lossy(&said.stdout), "one\nthree\nfour\nfive\ndata\n", "{kind:?}");
            assert_eq!(String::from_utf8_lossy(&said.stderr), "two\nthree\nsix\n", "{kind:?}");
            assert!(!said.ended().output_incomplete());
        }
    });
}

/// Some shells store here-documents in files. For these shells, a program creates the pipes.
#[test]
fn where_a_here_document_is_a_file_the_pipes_are_made_otherwise() {
    let mut machine = Machine::new(Kind::Bash);
    machine.login_environment.push(("BASH_COMPAT".to_owned(), "5.0".to_owned()));
    let uid = uid();
    let said = machine.launch(&uid, &sh("echo out; echo err >/dev/stderr; exit 6"));
    assert_eq!(said.ended().outcome, ExitOutcome::Exited(6));
    assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let said = machine.run(&draining("echo out; sleep 300 & exit 6", 0));
    assert_eq!(said.ended().missing, Some(Missing::Held));
    end_holders(said.ended());
    let names: Vec<_> =
        Path::new(&machine.facts.directory).read_dir().unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(['1', '2'])), "{names:?}");
}

/// A command on a full disk continues, and the record reports the missing output.
#[test]
fn a_disk_that_fills_up_stops_no_command() {
    if !is_root() {
        say::note("this needs root, for a small disk: passed over");
        return;
    }
    everywhere(|kind| {
        let mut machine = Machine::new(kind);
        let path = machine.home.path().join("disk");
        let _disk = crate::files::Disk::mount(&path);
        machine.facts = machine.probe(path.to_str());
        for script in ["head -c 3000000 /dev/zero; exit 5", "sleep 0.4; head -c 3000000 /dev/zero; sleep 0.4; exit 5"] {
            // The watchdog of the previous execution has its file open until it wakes up.
            let (uid, said) = loop {
                let uid = uid();
                let said = machine.launch(&uid, &sh(script));
                if *said.answer() != Answer::Refused(RequestRefusal::DiskFull) {
                    break (uid, said);
                }
            };
            let ended = said.ended();
            assert_eq!(
                (ended.outcome, ended.missing),
                (ExitOutcome::Exited(5), Some(Missing::DiskFull)),
                "{kind:?} {script}"
            );
            assert!(said.stdout.len() as u64 == ended.lengths.stdout && said.stdout.iter().all(|byte| *byte == 0));
            assert_eq!(machine.attach(&uid, Offsets::default()).finish().ended().outcome, ExitOutcome::Exited(5));
            assert_eq!(machine.ask(|nonce, facts| launcher::acknowledge(nonce, facts, &[&uid])), Answer::Done);
        }
    });
}
