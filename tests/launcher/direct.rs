//! The text of a command in Direct mode, in real shells. It waits for the permission, and executes nothing without it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin};
use std::time::{Duration, Instant};

use writ::policy::{StandardInput, marked_command_line};

use crate::machine::{Kind, Machine, sh, with_each_login};

const NONCE: &str = "0123456789abcdef0123456789abcdef";
const READY: (&str, &str) = ("WRIT3", "ready");
/// Start of the machine's output, before the output of the command.
const MARKS: &str = "WRIT3:ready\nWRIT3:0123456789abcdef0123456789abcdef\n";

/// Login shell that executes the text.
struct Login {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Login {
    fn new(machine: &Machine, before: &str, script: &str) -> Self {
        let mut child = machine.direct(before, &marked_command_line(&sh(script), READY, StandardInput::Empty));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// Sends text. A write to a shell that has ended fails, and the failure is ignored.
    fn send(&mut self, text: &str) {
        let _ = self.stdin.as_mut().unwrap().write_all(text.as_bytes());
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Closes the input. Returns the remaining output and the exit code.
    fn rest(mut self) -> (String, Option<i32>) {
        drop(self.stdin.take());
        let mut rest = Vec::new();
        self.stdout.read_to_end(&mut rest).unwrap();
        let code = self.child.wait().unwrap().code();
        (String::from_utf8_lossy(&rest).into_owned(), code)
    }
}

/// Returns the arguments of all processes, which other users can read.
fn all_arguments() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|words| String::from_utf8_lossy(&words).into_owned())
        .collect()
}

#[test]
fn a_command_starts_with_the_permission_and_has_an_empty_input() {
    with_each_login(|kind| {
        let mut machine = Machine::new(kind);
        machine.login_environment.push(("TMOUT".to_owned(), "1".to_owned()));
        let marker = machine.home.path().join("ran");
        let script = format!("echo >{}; cat; echo \"$TMOUT\"; exit 4", marker.display());
        let mut login = Login::new(&machine, "", &script);
        login.send("\n\nexit 93\n");
        assert_eq!(login.line(), "WRIT3:ready\n", "{kind:?}");
        // TMOUT lets a shell read for 1 s, and this pause is longer.
        std::thread::sleep(Duration::from_millis(1200));
        assert!(!marker.exists(), "{kind:?}: it was not told to start");
        login.send(&format!("\n{NONCE}\nnothing of this is read\n"));
        let (rest, code) = login.rest();
        assert_eq!((rest, code), (format!("WRIT3:{NONCE}\n1\n"), Some(4)), "{kind:?}");
        assert!(marker.exists(), "{kind:?}");
    });
}

#[test]
fn no_argument_holds_the_nonce() {
    with_each_login(|kind| {
        let machine = Machine::new(kind);
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let mut login = Login::new(&machine, "", "echo $$; exec sleep 1");
        assert_eq!(login.line(), "WRIT3:ready\n", "{kind:?}");
        login.send(&format!("{nonce}\n"));
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until {
            assert!(!all_arguments().iter().any(|words| words.contains(&nonce)), "{kind:?}");
        }
        assert_eq!(login.line(), format!("WRIT3:{nonce}\n"), "{kind:?}");
        assert_eq!(login.rest().1, Some(0), "{kind:?}");
    });
}

#[test]
fn without_the_whole_permission_nothing_is_executed() {
    with_each_login(|kind| {
        let machine = Machine::new(kind);
        let marker = machine.home.path().join("ran");
        let script = format!("echo >{}", marker.display());
        let more = format!("{NONCE}0\n");
        for input in ["", "\n\n", &NONCE[1..], "yes\n", &more, &format!("{}\n", &NONCE[1..])] {
            let mut login = Login::new(&machine, "", &script);
            login.send(input);
            let (rest, code) = login.rest();
            assert_eq!((rest.as_str(), code), ("WRIT3:ready\n", Some(93)), "{kind:?} {input:?}");
            assert!(!marker.exists(), "{kind:?} {input:?}");
        }
    });
}

/// If nobody can receive the marks, or if no permission can arrive, the text does not report that it is ready.
#[test]
fn what_goes_elsewhere_is_not_ready() {
    for kind in [Kind::Dash, Kind::BashThenDash, Kind::Bash, Kind::Busybox, Kind::Zsh, Kind::Ksh] {
        let machine = Machine::new(kind);
        let log = machine.home.path().join("log");
        let (marker, input) = (machine.home.path().join("ran"), machine.home.path().join("input"));
        // The file that the shell reads contains the permission. A user who can write that file must not start the
        // command.
        std::fs::write(&input, format!("{NONCE}\n")).unwrap();
        for before in [
            "exec >/dev/null; ".to_owned(),
            format!("exec >>{}; ", log.display()),
            "exec </dev/null; ".to_owned(),
            format!("exec <{}; ", input.display()),
            "exec <&-; ".to_owned(),
        ] {
            let mut login = Login::new(&machine, &before, &format!("echo >{}", marker.display()));
            login.send(&format!("{NONCE}\n"));
            let (rest, code) = login.rest();
            assert!(rest.is_empty() && code != Some(0), "{kind:?} {before}: {rest:?} {code:?}");
            assert!(!marker.exists(), "{kind:?} {before}");
        }
        assert_eq!(std::fs::read_to_string(&log).unwrap_or_default(), "", "{kind:?}");
    }
}

/// The start-up file reads the first lines of the input.
#[test]
fn a_start_up_file_that_reads_gets_empty_answers() {
    for kind in [Kind::Dash, Kind::BashThenDash, Kind::Bash, Kind::Busybox, Kind::Zsh, Kind::Ksh] {
        let machine = Machine::new(kind);
        let mut login = Login::new(&machine, "read a; read b; echo \"$a$b.\"; ", "echo out");
        login.send(&"\n".repeat(64));
        assert_eq!(login.line(), ".\n", "{kind:?}");
        assert_eq!(login.line(), "WRIT3:ready\n", "{kind:?}");
        login.send(&format!("{NONCE}\n"));
        assert_eq!(login.rest(), (format!("WRIT3:{NONCE}\nout\n"), Some(0)), "{kind:?}");
    }
}

/// Functions, options and variables of the login do not affect the wait.
#[test]
fn nothing_of_the_login_steers_the_wait() {
    for kind in [Kind::BashThenDash, Kind::Bash] {
        let mut machine = Machine::new(kind);
        for name in ["read", "echo", "test"] {
            let body = "() { builtin echo steered; builtin return 1; }".to_owned();
            machine.login_environment.push((format!("BASH_FUNC_{name}%%"), body));
        }
        machine.login_environment.push(("SHELLOPTS".to_owned(), "allexport:errexit:nounset:xtrace:posix".to_owned()));
        machine.login_environment.push(("_n".to_owned(), "x".to_owned()));
        let mut login = Login::new(&machine, "", "echo \"${_n-none}\"");
        login.send(&format!("\n{NONCE}\n"));
        let (rest, code) = login.rest();
        assert!(rest.starts_with(MARKS) && code == Some(0), "{kind:?}: {rest:?} {code:?}");
    }
}
