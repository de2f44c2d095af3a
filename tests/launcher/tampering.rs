//! Changes that commands and clocks can make to the launcher's files.

use std::time::{Duration, SystemTime};

use writ::launcher::{self, Answer, Lost};

use crate::machine::{Machine, everywhere, sh, uid};

fn make_old(path: &std::path::Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 86_400);
    std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
}

fn reap(machine: &Machine) {
    assert_eq!(machine.ask(|nonce, facts| launcher::prune(nonce, facts, 30)), Answer::Done);
}

/// `spec.execution.directory` may name a directory that contains other files, too.
#[test]
fn only_files_of_executions_are_forgotten() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let directory = std::path::Path::new(&machine.facts.directory);
        std::fs::create_dir(directory.join("build")).unwrap();
        for name in ["build/main.o", "build/0b0e8f5e-7a57-4c0c-9b5e-0d7f4b6f3a11.j", "main.o"] {
            std::fs::write(directory.join(name), "").unwrap();
            make_old(&directory.join(name));
        }
        reap(&machine);
        for name in ["build/main.o", "build/0b0e8f5e-7a57-4c0c-9b5e-0d7f4b6f3a11.j", "main.o"] {
            assert!(directory.join(name).exists(), "{kind:?}: {name}");
        }
    });
}

/// A machine without its own clock starts in 1970, and its time is corrected later.
#[test]
fn what_runs_is_not_forgotten_when_the_clock_is_set() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let decision = machine.noted("sleep 3");
        let mut session = machine.start(&uid, &decision);
        session.until(|said| !said.answers.is_empty());
        for ending in ["j", "o", "e"] {
            make_old(&machine.file(&uid, ending));
        }
        reap(&machine);
        let again = machine.launch(&uid, &decision);
        assert_eq!(machine.ran().len(), 1, "{kind:?}: started twice: {again:?}");
    });
}

/// The journal disappears while the command runs. The machine did not reboot.
#[test]
fn a_journal_that_vanishes_is_no_reboot() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let mut session = machine.start(&uid, &sh("sleep 2"));
        session.until(|said| !said.answers.is_empty());
        std::fs::remove_file(machine.file(&uid, "j")).unwrap();
        let said = session.finish();
        match said.answers.last() {
            Some(Answer::Lost(Lost { rebooted: false, .. })) => {}
            other => panic!("{kind:?}: {other:?}"),
        }
    });
}

/// A record with an end and without a start does not prove that the command never started.
#[test]
fn what_removed_its_own_journal_is_not_said_to_have_never_started() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let script = format!("sleep 0.5; rm {}; exit 7", machine.file(&uid, "j").display());
        let mut session = machine.start(&uid, &machine.noted(&script));
        session.until(|said| !said.answers.is_empty());
        drop(session);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(machine.ran().len(), 1);
        let journal = machine.journal(&uid);
        let answer = machine.close(&uid);
        assert!(
            !matches!(answer, Answer::Tombstoned | Answer::NotStarted(_)),
            "{kind:?}: it ran, and the journal is {journal:?}: {answer:?}"
        );
    });
}

/// A command that removes its journal cannot cause a second start of itself.
#[test]
fn what_took_its_journal_away_is_not_started_again() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let decision = machine.noted("sleep 3");
        let mut session = machine.start(&uid, &decision);
        session.until(|said| !said.answers.is_empty());
        std::fs::remove_file(machine.file(&uid, "j")).unwrap();
        let again = machine.launch(&uid, &decision);
        assert!(matches!(again.answer(), Answer::Lost(_)), "{kind:?}: {:?}", again.answers);
        assert!(matches!(machine.poll(&uid), Answer::Lost(_)), "{kind:?}");
        assert_eq!(machine.ran().len(), 1, "{kind:?}");
    });
}

/// The command removes the whole directory, with its own record and all others.
#[test]
fn a_command_that_removes_the_directory_is_not_said_to_have_never_started() {
    everywhere(|kind| {
        for before in ["", "sleep 0.6; "] {
            let machine = Machine::new(kind);
            let uid = uid();
            let script = format!("{before}rm -rf {}; echo out; exit 7", machine.facts.directory);
            let said = machine.launch(&uid, &machine.noted(&script));
            assert_eq!(machine.ran().len(), 1, "{kind:?}");
            assert!(matches!(said.answer(), Answer::Lost(Lost { rebooted: false, .. })), "{kind:?} {before}: {said:?}");
            let nonce = crate::machine::nonce();
            let later = machine.session(&nonce, launcher::poll(&nonce, &machine.facts, &uid)).finish();
            assert_eq!(*later.answer(), Answer::Refused(launcher::RequestRefusal::DirectoryUnsuitable), "{kind:?}");
        }
    });
}

#[test]
fn a_short_command_that_removes_its_journal_is_not_said_to_have_never_started() {
    everywhere(|kind| {
        let machine = Machine::new(kind);
        let uid = uid();
        let script = format!("rm {}; echo out; exit 7", machine.file(&uid, "j").display());
        let said = machine.launch(&uid, &machine.noted(&script));
        assert_eq!(machine.ran().len(), 1);
        assert!(
            !matches!(said.answer(), Answer::NotStarted(_) | Answer::Tombstoned),
            "{kind:?}: it ran: {:?}",
            said.answers
        );
        let later = machine.poll(&uid);
        assert!(!matches!(later, Answer::NotStarted(_) | Answer::Absent), "{kind:?}: it ran: {later:?}");
    });
}
