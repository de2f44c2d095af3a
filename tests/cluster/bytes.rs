//! A machine receives the decision byte for byte, with every login shell. The tests use Writ's own command line and
//! Writ's own SSH client, against a real sshd. A program on the machine reads the received words from the kernel and
//! reports them.

mod run_as;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use writ::api::execution_status::{DecisionRecord, ObjectRecord, OutputBounds};
use writ::policy::command_line;
use writ::ssh::{Connection, SessionEvent};

use crate::keys::{log_in, pinned, start};
use crate::lab::packages::Package;
use crate::lab::{Sshd, SshdOptions};

/// Maximum bytes of one word that the policy admits.
const LONGEST_WORD: usize = 4096;
/// Maximum arguments of one command that the policy admits, in addition to the program.
const MOST_ARGUMENTS: usize = 63;
const DEADLINE: Duration = Duration::from_secs(60);
/// Program that records its user, directory, number of words, words and environment. Each field ends with a byte 0. The
/// words and the environment come from /proc. There, the words of the shell and of this file precede those of the
/// command.
const RECORD: &str = r#"#!/bin/sh
id -unz
readlink -z "/proc/$$/cwd"
printf '%s\0' "$#"
cat "/proc/$$/cmdline" "/proc/$$/environ"
"#;

/// Returns the most common login shells. docs/design/20261121-what-the-machine-reads.md lists more, which were tested
/// manually.
fn login_shells() -> [PathBuf; 4] {
    ["dash", "bash", "zsh", "busybox"].map(|name| {
        let [path] = Package::called(name).find_or_install([name]).expect("a shell");
        path
    })
}

/// A real sshd with the recording program, and a connection to it.
struct Machine {
    connection: Connection,
    sshd: Sshd,
    shell: PathBuf,
    program: String,
}

/// End and output of a command.
#[derive(Debug, Default)]
struct Ran {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    code: Option<u32>,
    signal: Option<String>,
}

/// Report of the recording program.
#[derive(Debug)]
struct Seen {
    user: String,
    directory: String,
    words: Vec<String>,
    environment: Vec<String>,
}

impl Machine {
    async fn with(shell: &Path, environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = SshdOptions { login_shell: Some(shell.to_owned()), environment, ..SshdOptions::default() };
        let sshd = start(&options);
        let connection = log_in(&sshd, &pinned(&sshd)).await.expect("a connection");
        let machine = Self { connection, shell: shell.to_owned(), program: String::new(), sshd };
        let program = machine.add_program("record", RECORD);
        Self { program, ..machine }
    }

    async fn each() -> Vec<Self> {
        let mut machines = Vec::new();
        for shell in login_shells() {
            machines.push(Self::with(&shell, &[]).await);
        }
        machines
    }

    /// Adds a program that every user may run. Only the user of the server may change it.
    fn add_program(&self, name: &str, text: &str) -> String {
        let path = self.sshd.home().with_file_name(name);
        std::fs::write(&path, text).expect("a program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program to run");
        path.to_str().expect("a UTF-8 path").to_owned()
    }

    /// Returns a decision to run the recording program with these words.
    fn decision(&self, words: &[String]) -> DecisionRecord {
        DecisionRecord {
            whitelist: ObjectRecord { name: "web".to_owned(), uid: String::new(), generation: 1 },
            rule: "record".to_owned(),
            argv: [std::slice::from_ref(&self.program), words].concat(),
            action_type: "custom".to_owned(),
            run_as: None,
            working_directory: None,
            environment: BTreeMap::new(),
            timeout_seconds: 30,
            interactive: false,
            record_input: false,
            output: OutputBounds::default(),
            redact: Vec::new(),
            minimum_retention_seconds: None,
            digest: String::new(),
            decided_time: MicroTime(Timestamp::UNIX_EPOCH),
        }
    }

    async fn run(&self, decision: &DecisionRecord) -> Ran {
        self.run_text(&command_line(decision)).await
    }

    async fn run_text(&self, text: &str) -> Ran {
        let mut session = self.connection.open(DEADLINE).await.expect("a session");
        session.exec(text).await.expect("the request is sent");
        let mut ran = Ran::default();
        let drained = async {
            loop {
                match session.next().await {
                    SessionEvent::Started | SessionEvent::Written => {}
                    SessionEvent::Stdout(bytes) => ran.stdout.extend(bytes),
                    SessionEvent::Stderr(bytes) => ran.stderr.extend(bytes),
                    SessionEvent::ExitCode(code) => ran.code = Some(code),
                    SessionEvent::Signal(signal) => ran.signal = Some(signal),
                    SessionEvent::Closed => break,
                    SessionEvent::Refused | SessionEvent::Lost => panic!("{} does not execute", self.shell.display()),
                }
            }
        };
        tokio::time::timeout(DEADLINE, drained).await.expect("the command ends");
        ran
    }

    /// Runs the recording program, which must succeed, and returns its report.
    async fn seen(&self, decision: &DecisionRecord) -> Seen {
        let ran = self.run(decision).await;
        let what = format!("{}: {ran:?}", self.shell.display());
        assert_eq!(ran.code, Some(0), "{what}");
        let text = String::from_utf8(ran.stdout).expect("UTF-8, as it was sent");
        let mut fields = text.split_terminator('\0').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_else(|| panic!("{what}"));
        let (user, directory, count) = (next(), next(), next().parse().expect("a number"));
        let words = fields.by_ref().skip(2).take(count).collect();
        Seen { user, directory, words, environment: fields.collect() }
    }
}

impl Seen {
    fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.environment.iter().filter_map(|each| each.strip_prefix(name)?.strip_prefix('='));
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }
}

impl Ran {
    /// Checks that no program ran, and that standard error has the reason.
    #[track_caller]
    fn is_nothing(&self, code: u32, said: &str) {
        assert!(self.code == Some(code) && self.stdout.is_empty(), "{said}: {self:?}");
        let stderr = String::from_utf8_lossy(&self.stderr);
        assert!(stderr.contains(said), "{said} is not in {stderr}");
    }
}

/// Returns words that a shell, env or sudo could misinterpret.
fn hostile_words() -> Vec<String> {
    let printable: String = (' '..='~').collect();
    let mut words: Vec<String> = printable.chars().map(String::from).collect();
    words.extend(printable.chars().map(|each| each.to_string().repeat(3)));
    words.push(printable);
    let table = "|  |a  b| a |-n|--|-|-c|-u|-i|$HOME|$$|${PATH}|$(id)|`id`|*|/etc/*|[a-z]|?|~|~root|!!|!x|'|''|'\\''|\\|\\\\|\
        \\n|a\\|'\\|\"|\"$HOME\"|#|a #b|{a,b}|{1..9}|=|A=B|=ls|;id|a;id|&|&&id|>x|<x|(id)|%s|%d\\n|^a^b|$'\\n'|:|@(a|b)|\
        a=(b)|\t|\n|a\nid|\r|\u{1}|\u{1b}[0m|\u{7f}|é|\u{81}|\u{85}|\u{2028}|\u{1f600}|if|exec|cd|NAME=value";
    words.extend(table.split('|').map(str::to_owned));
    words.extend(["|", "||id", "a|b", ""].map(str::to_owned));
    words
}

/// Returns the same words in each run, so that a failure can be reproduced.
fn generated_words(count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let word = prop_oneof![
        "[ -~]{0,40}",
        "['\\\\!$`\"#*?~;&|<>(){}= -]{0,16}",
        "[\u{1}-\u{2ff}\u{2028}\u{1f600}]{0,12}",
        "(-|--|-[a-z]|[A-Z]{1,4}=)[ -~]{0,8}",
    ];
    (0..count).map(|_| word.new_tree(&mut runner).expect("a word").current()).collect()
}

#[tokio::test]
async fn every_word_reaches_the_program_byte_for_byte_whatever_the_login_shell() {
    let mut words = hostile_words();
    words.extend(generated_words(200));
    for machine in Machine::each().await {
        let shell = machine.run_text(r#"readlink "/proc/$$/exe"; true"#).await.stdout;
        let name = machine.shell.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(String::from_utf8_lossy(&shell).contains(name), "{name} reads the text, not {shell:?}");
        for part in words.chunks(MOST_ARGUMENTS) {
            let seen = machine.seen(&machine.decision(part)).await;
            assert_eq!(seen.words, part, "{name}");
            assert_eq!(seen.user, machine.sshd.user());
        }
        for long in ["x", " ", "'", "\\", "$", "é"] {
            let words = vec![long.repeat(LONGEST_WORD / long.len()); 7];
            assert!(machine.seen(&machine.decision(&words)).await.words == words, "{name}: {long:?}");
        }
        // 63 words of 2000 bytes still fit into one request. The next test shows that 63 words of 2100 bytes do not.
        let words = vec!["y".repeat(2000); MOST_ARGUMENTS];
        assert!(machine.seen(&machine.decision(&words)).await.words == words, "{name}");
    }
}

#[tokio::test]
async fn more_text_than_linux_takes_runs_nothing() {
    for machine in Machine::each().await {
        let ran = machine.run(&machine.decision(&vec!["y".repeat(2100); MOST_ARGUMENTS])).await;
        assert!(ran.code != Some(0) && ran.stdout.is_empty(), "{ran:?}");
        ran.is_nothing(1, "Argument list too long");
    }
}

#[tokio::test]
async fn values_and_directories_reach_the_program_byte_for_byte() {
    let names =
        ["a b", "-P", "$HOME", "$(id)", "it's", "a\\b", "!!", "*", "~", "#", "{a,b}", "\"", "a\nb", "é", "A=B", "|"];
    let words: Vec<String> = hostile_words().into_iter().chain(generated_words(100)).collect();
    for machine in Machine::each().await {
        let name = machine.shell.display();
        for part in words.chunks(32) {
            let mut decision = machine.decision(&[]);
            decision.environment = part.iter().enumerate().map(|(i, word)| (format!("V_{i}"), word.clone())).collect();
            let seen = machine.seen(&decision).await;
            for (variable, value) in &decision.environment {
                assert_eq!(seen.value(variable), Some(value.as_str()), "{name}: {variable}");
            }
            assert_eq!((seen.value("LC_ALL"), seen.words.len()), (Some("C"), 0));
        }
        let home = machine.sshd.home().canonicalize().expect("a home");
        for directory in names.map(|name| home.join(name)) {
            std::fs::create_dir(&directory).expect("a directory");
            let mut decision = machine.decision(&["a b".to_owned(), String::new()]);
            decision.working_directory = directory.to_str().map(str::to_owned);
            decision.environment.insert("A".to_owned(), "-n --".to_owned());
            let seen = machine.seen(&decision).await;
            assert_eq!(Some(&seen.directory), decision.working_directory.as_ref(), "{name}");
            assert_eq!((seen.value("A"), seen.words.as_slice()), (Some("-n --"), &decision.argv[1..]), "{name}");
        }
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_entered_is_exit_code_126_and_nothing_runs() {
    for machine in Machine::each().await {
        let home = machine.sshd.home();
        std::fs::write(home.join("file"), "").expect("a file");
        for (directory, said) in [("missing", "writ: "), ("file", "writ: "), ("missing\n'$(id)", "writ: ")] {
            let mut decision = machine.decision(&[]);
            decision.working_directory = home.join(directory).to_str().map(str::to_owned);
            machine.run(&decision).await.is_nothing(126, said);
        }
        if machine.sshd.runs_as_root() {
            // A directory that only root can enter.
            let closed = home.with_file_name("closed");
            std::fs::create_dir(&closed).expect("a directory");
            std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("a closed directory");
            let mut decision = machine.decision(&[]);
            decision.working_directory = closed.to_str().map(str::to_owned);
            machine.run(&decision).await.is_nothing(126, "writ: ");
        }
    }
}

#[tokio::test]
async fn what_a_session_inherits_and_what_its_startup_files_say_does_not_steer_the_command() {
    for shell in login_shells() {
        let steer = "/var/lib/writ-lab/steered";
        let names = ["PATH", "LC_ALL", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "PERL5LIB", "PYTHONPATH"];
        let mut environment = names.map(|name| (name, steer)).to_vec();
        environment.extend([("CDPATH", "/"), ("LANGUAGE", "de"), ("KEPT", "by the session")]);
        let machine = Machine::with(&shell, &environment).await;
        let home = machine.sshd.home();
        // Startup files: .zshenv for zsh, and .bashrc for a bash that was built to read it under sshd.
        for file in [".zshenv", ".bashrc"] {
            let text = "cd() { echo steered; }\nexport LC_ALL=steered PATH=/steered:$PATH PYTHONPATH=/steered\n";
            std::fs::write(home.join(file), text).expect("a startup file");
            std::fs::set_permissions(home.join(file), std::fs::Permissions::from_mode(0o644)).expect("a readable one");
        }
        for directory in [None, Some("/usr/bin".to_owned())] {
            let mut decision = machine.decision(&["a".to_owned()]);
            decision.working_directory = directory.clone();
            let seen = machine.seen(&decision).await;
            let steered: Vec<_> = seen.environment.iter().filter(|each| each.contains("steered")).collect();
            assert!(steered.is_empty(), "{}: {steered:?}", shell.display());
            let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            assert_eq!((seen.value("PATH"), seen.value("LC_ALL")), (Some(path), Some("C")));
            // Writ leaves all other variables of the session unchanged.
            assert_eq!(seen.value("KEPT"), Some("by the session"));
            let home = home.canonicalize().expect("a home");
            assert_eq!(Path::new(&seen.directory), directory.map_or(home, PathBuf::from));
        }
    }
}

#[tokio::test]
async fn a_program_reports_its_own_end_also_from_a_directory() {
    for machine in Machine::each().await {
        for directory in [None, Some("/".to_owned())] {
            let ends = async |line: &str| {
                let mut decision = machine.decision(&[]);
                decision.argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
                decision.working_directory = directory.clone();
                let ran = machine.run(&decision).await;
                (ran.code, ran.signal)
            };
            assert_eq!(ends("exit 126").await, (Some(126), None));
            let (own, of_a_shell) = ((None, Some("TERM".to_owned())), (Some(128 + 15), None));
            let seen = ends("kill -s TERM $$").await;
            // Under ForceCommand (without root), some shells stay the parent of the program. sshd then reports the end
            // of the shell.
            let is_right = seen == own || (!machine.sshd.runs_as_root() && seen == of_a_shell);
            assert!(is_right, "{}: {seen:?}", machine.shell.display());
        }
    }
}
