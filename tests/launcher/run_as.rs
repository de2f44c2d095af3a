//! Commands as another user, by sudo. These tests need root, to install sudo rules and to create the other user.

use writ::api::execution_status::DecisionRecord;
use writ::launcher::{Answer, ExitOutcome, NotStarted, Offsets};

use crate::lab::openssh;
use crate::lab::say;
use crate::lab::sudo::{Sudoers, USER};
use crate::machine::{KINDS, Kind, Machine, decision, make_executable, uid};

/// Prints its user name. With `stay`, it ignores TERM. With `forge`, it prints an error message of sudo.
const PROGRAM: &str = "#!/bin/sh\ncase $1 in forge*) echo sudo: a password is required >&2; exit 1 ;; esac\nid -un\ncase $1 in stay) trap '' TERM; while :; do sleep 0.1; done ;; go) exit 3 ;; wait) exec sleep 600 ;; esac\n";

struct Other {
    machine: Machine,
    program: String,
    _sudoers: Sudoers,
}

impl Other {
    fn new(kind: Kind, may_kill: bool) -> Option<Self> {
        let kill = if may_kill { ", /bin/kill" } else { "" };
        Self::with_rules(kind, |login, program| format!("{login} ALL=({USER}) NOPASSWD: {program} *{kill}\n"))
    }

    /// Installs the sudoers rules that `rules` returns for the login user and the program.
    fn with_rules(kind: Kind, rules: impl Fn(&str, &str) -> String) -> Option<Self> {
        if !openssh::is_root() {
            say::note("this needs root, for sudo: passed over");
            return None;
        }
        let login = openssh::prepare_root(false).expect("the laboratory's user");
        let machine = Machine::of(kind, Some(login.user));
        make_executable(machine.home.path());
        let program = machine.home.path().join("program");
        std::fs::write(&program, PROGRAM).expect("a program");
        make_executable(&program);
        let program = program.to_str().expect("UTF-8").to_owned();
        let _sudoers = Sudoers::install(&rules(openssh::USER, &program)).expect("rules that sudo takes");
        Some(Self { machine, program, _sudoers })
    }

    fn decision(&self, how: &str) -> DecisionRecord {
        let mut decision = decision(&[&self.program, how]);
        decision.run_as = Some(USER.to_owned());
        decision
    }
}

#[test]
fn a_command_runs_as_its_user_and_can_be_ended_where_sudo_allows_it() {
    for kind in KINDS {
        let Some(other) = Other::new(kind, true) else { return };
        let machine = &other.machine;
        let said = machine.run(&other.decision("go"));
        assert_eq!(said.ended().outcome, ExitOutcome::Exited(3), "{kind:?}");
        assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("{USER}\n"));
        for (how, outcome) in [("stay", ExitOutcome::Signalled(9)), ("wait", ExitOutcome::Signalled(15))] {
            let uid = uid();
            let mut session = machine.start(&uid, &other.decision(how));
            session.until(|said| !said.stdout.is_empty());
            assert_eq!(machine.stop(&uid), Answer::Stopped { processes_left: Some(0) }, "{kind:?} {how}");
            let said = session.finish();
            assert_eq!((said.ended().outcome, said.ended().processes_left), (outcome, Some(0)), "{kind:?} {how}");
        }
    }
}

#[test]
fn what_sudo_does_not_allow_is_not_started_and_never_is() {
    for kind in KINDS {
        let Some(other) = Other::new(kind, false) else { return };
        let mut refused = other.decision("go");
        refused.argv = vec!["/bin/echo".to_owned(), "ran".to_owned()];
        let uid = uid();
        for _ in 0..2 {
            let said = other.machine.launch(&uid, &refused);
            assert_eq!(*said.answer(), Answer::NotStarted(NotStarted::SudoRefused), "{kind:?}");
        }
        assert_eq!(other.machine.poll(&uid), Answer::NotStarted(NotStarted::SudoRefused));
    }
}

/// sudo may require a password for `sudo -l` and none for the command.
#[test]
fn a_question_that_sudo_refuses_does_not_keep_a_command_from_running() {
    for listpw in ["always", "all"] {
        for kind in KINDS {
            let rules = |login: &str, program: &str| {
                format!(
                    "Defaults:{login} listpw={listpw}\n{login} ALL=(root) /bin/ls\n\
                     {login} ALL=({USER}) NOPASSWD: {program} *\n"
                )
            };
            let Some(other) = Other::with_rules(kind, rules) else { return };
            let said = other.machine.run(&other.decision("go"));
            assert_eq!(said.ended().outcome, ExitOutcome::Exited(3), "{kind:?} {listpw}");
            assert!(!said.ended().refused_by_sudo, "{kind:?} {listpw}");
            // A command that sudo does not allow still does not run.
            let mut refused = other.decision("go");
            refused.argv = vec!["/bin/echo".to_owned(), "ran".to_owned()];
            let said = other.machine.run(&refused);
            assert_eq!((said.ended().outcome, &*said.stdout), (ExitOutcome::Exited(1), &b""[..]), "{kind:?} {listpw}");
            assert!(said.ended().refused_by_sudo, "{kind:?} {listpw}: {said:?}");
        }
    }
}

/// A sudoers rule without NOPASSWD. If sudo itself printed nothing, the launcher does not treat output of the program
/// as a message of sudo.
#[test]
fn a_password_that_sudo_wants_is_told_from_an_exit_code() {
    for kind in KINDS {
        let Some(other) = Other::with_rules(kind, |login, program| format!("{login} ALL=({USER}) {program} *\n"))
        else {
            return;
        };
        let said = other.machine.run(&other.decision("go"));
        assert!(said.ended().refused_by_sudo && said.stdout.is_empty(), "{kind:?}: {said:?}");
        drop(other);
        let Some(other) = Other::new(kind, false) else { return };
        for how in ["forge", "forge-more"] {
            let said = other.machine.run(&other.decision(how));
            assert_eq!(said.ended().outcome, ExitOutcome::Exited(1), "{kind:?} {how}");
            assert!(!said.ended().refused_by_sudo, "{kind:?} {how}: {said:?}");
        }
    }
}

#[test]
fn what_sudo_says_is_told() {
    for kind in KINDS {
        let rules = |login: &str, program: &str| {
            format!("Defaults:{login} requiretty\n{login} ALL=({USER}) NOPASSWD: {program} *\n")
        };
        let Some(other) = Other::with_rules(kind, rules) else { return };
        let uid = uid();
        for _ in 0..2 {
            let said = other.machine.launch(&uid, &other.decision("go"));
            let Answer::NotStarted(NotStarted::SudoSaid(words)) = said.answer() else { panic!("{kind:?}: {said:?}") };
            assert!(words.contains("tty"), "{kind:?}: {words}");
        }
    }
}

#[test]
fn what_may_not_be_killed_is_said_to_be_left() {
    let Some(other) = Other::new(Kind::Dash, false) else { return };
    let uid = uid();
    let mut decision = other.decision("stay");
    decision.timeout_seconds = 1;
    let mut session = other.machine.start(&uid, &decision);
    session.until(|said| !said.stdout.is_empty());
    drop(session);
    let said = other.machine.attach(&uid, Offsets::default()).finish();
    let ended = said.ended();
    assert!(ended.timed_out && ended.processes_left.is_some_and(|left| left > 0), "{ended:?}");
    std::process::Command::new("pkill").args(["-KILL", "-u", USER, "-f", &other.program]).status().expect("pkill");
}
