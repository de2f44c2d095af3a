//! `runAs` on a real machine, with the sudoers lines from docs/guides/run-as.md. The tests need root. Without root,
//! there is no second user to run commands as.

use std::path::Path;

use super::{Machine, Ran, generated_words, hostile_words};
use crate::lab::sudo::{Sudoers, USER};
use crate::lab::{openssh, say};

const GUIDE: &str = include_str!("../../../docs/guides/run-as.md");

/// Machine whose sudo has the lines of the guide.
struct Fixture {
    machine: Machine,
    /// Path of a copy of the recording program. sudo allows it with two fixed arguments only.
    status: String,
    _sudoers: Sudoers,
}

impl Fixture {
    /// Returns a machine with the lines of one block of the guide. `None` without root.
    async fn with(block: &str) -> Option<Self> {
        if !openssh::is_root() {
            say::note("this needs root, for sudo: passed over");
            return None;
        }
        let machine = Machine::with(Path::new("/bin/sh"), &[("PERL5LIB", "/steered"), ("LANGUAGE", "de")]).await;
        let status = machine.add_program("status", super::RECORD);
        let (_, rest) = GUIDE.split_once(&format!("```{block}\n")).expect("a block of the guide");
        let (lines, _) = rest.split_once("```").expect("the end of the block");
        let rules = lines
            .replace("writ ALL=(deploy)", &format!("{} ALL=({USER})", machine.sshd.user()))
            .replace("/usr/local/bin/release", &machine.program)
            .replace("/usr/local/bin/status", &status);
        let sudoers = Sudoers::install(&rules).expect("rules that sudo takes");
        Some(Self { machine, status, _sudoers: sudoers })
    }

    async fn run(&self, user: &str, argv: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut decision = self.machine.decision(&[]);
        decision.argv = argv.iter().map(|word| (*word).to_owned()).collect();
        decision.run_as = Some(user.to_owned());
        decision.environment.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.machine.run(&decision).await
    }
}

#[tokio::test]
async fn what_sudo_allows_runs_as_the_other_user_byte_for_byte() {
    let Some(fixture) = Fixture::with("sudoers").await else { return };
    let words: Vec<String> = hostile_words().into_iter().chain(generated_words(200)).collect();
    for part in words.chunks(super::MOST_ARGUMENTS) {
        let mut decision = fixture.machine.decision(part);
        decision.run_as = Some(USER.to_owned());
        // A directory that only the login user can enter.
        let home = fixture.machine.sshd.home().canonicalize().expect("a home");
        decision.working_directory = home.to_str().map(str::to_owned);
        let seen = fixture.machine.seen(&decision).await;
        assert_eq!((seen.user.as_str(), seen.words.as_slice()), (USER, part));
        assert_eq!(Some(seen.directory.as_str()), home.to_str());
        assert_eq!((seen.value("LC_ALL"), seen.value("PERL5LIB"), seen.value("LANGUAGE")), (Some("C"), None, None));
        assert!(seen.value("PATH").is_some_and(|path| path.starts_with("/usr/local/sbin:")), "{:?}", seen.environment);
    }
}

#[tokio::test]
async fn a_variable_passes_where_sudo_keeps_it_and_another_runs_nothing() {
    let Some(fixture) = Fixture::with("sudoers").await else { return };
    for value in hostile_words() {
        let mut decision = fixture.machine.decision(&[]);
        decision.run_as = Some(USER.to_owned());
        decision.environment.insert("CHANNEL".to_owned(), value.clone());
        let seen = fixture.machine.seen(&decision).await;
        assert_eq!((seen.value("CHANNEL"), seen.user.as_str()), (Some(value.as_str()), USER));
    }
    for name in ["OTHER", "LD_PRELOAD"] {
        let ran = fixture.run(USER, &[&fixture.machine.program], &[(name, "x")]).await;
        ran.is_nothing(1, "not allowed to set the following environment variables");
    }
}

#[tokio::test]
async fn any_variable_of_the_rule_passes_where_sudo_has_setenv() {
    let Some(fixture) = Fixture::with("sudoers-setenv").await else { return };
    for part in hostile_words().chunks(32) {
        let mut decision = fixture.machine.decision(&["-u".to_owned(), "root".to_owned()]);
        decision.run_as = Some(USER.to_owned());
        decision.environment = part.iter().enumerate().map(|(i, word)| (format!("V_{i}"), word.clone())).collect();
        let seen = fixture.machine.seen(&decision).await;
        for (name, value) in &decision.environment {
            assert_eq!(seen.value(name), Some(value.as_str()), "{name}");
        }
        assert_eq!((seen.user.as_str(), seen.words.as_slice()), (USER, &decision.argv[1..]));
        assert_eq!(seen.value("PERL5LIB"), None, "the session's");
    }
}

#[tokio::test]
async fn what_sudo_does_not_allow_runs_nothing_and_is_exit_code_1_with_its_message() {
    let Some(fixture) = Fixture::with("sudoers").await else { return };
    let (record, status) = (fixture.machine.program.as_str(), fixture.status.as_str());
    let refused = "a password is required";
    fixture.run("root", &[record], &[]).await.is_nothing(1, refused);
    fixture.run("#0", &[record], &[]).await.is_nothing(1, refused);
    fixture.run(USER, &["/bin/echo", "ran"], &[]).await.is_nothing(1, refused);
    for arguments in [&[][..], &["web"], &["all", "web"], &["web", "all", "of"], &["web", "all", ""]] {
        fixture.run(USER, &[&[status], arguments].concat(), &[]).await.is_nothing(1, refused);
    }
    fixture.run("nobody-of-that-name", &[record], &[]).await.is_nothing(1, "unknown user");
    // sudo joins the words before it compares them, so the single word `web all` is allowed too.
    for arguments in [&["web", "all"][..], &["web all"]] {
        assert_eq!(fixture.run(USER, &[&[status], arguments].concat(), &[]).await.code, Some(0), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_program_that_runs_as_another_user_reports_its_own_end() {
    let Some(fixture) = Fixture::with("sudoers").await else { return };
    let end = "#!/bin/sh\ncase $1 in signal) kill -s TERM $$ ;; *) echo out; echo err >&2; exit 3 ;; esac\n";
    fixture.machine.add_program("record", end);
    let ran = fixture.run(USER, &[&fixture.machine.program], &[]).await;
    assert_eq!((ran.code, ran.stdout, ran.stderr), (Some(3), b"out\n".to_vec(), b"err\n".to_vec()));
    let ran = fixture.run(USER, &[&fixture.machine.program, "signal"], &[]).await;
    assert_eq!((ran.code, ran.signal.as_deref()), (None, Some("TERM")));
}
