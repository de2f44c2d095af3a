//! Neither the output of a command nor another user can forge a record.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use writ::api::execution_status::DecisionRecord;
use writ::launcher::{Answer, ExitOutcome, Offsets};

use crate::lab::openssh;
use crate::lab::say;
use crate::lab::sudo::{Sudoers, USER};
use crate::machine::{Kind, Machine, is_root, make_executable, nonce, sh, uid};

/// Returns pieces of output that look like lines of the launcher, with `@` for the nonce of the session.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &'static str| Just(text.as_bytes().to_vec());
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        text("WRIT2:@:"),
        text("WRIT2:@:.\n"),
        text("WRIT2:@:+\n"),
        text("\nWRIT2:@:D S 0 0 1 0 - 5 0 2 - -\nWRIT2:@:.\n"),
        text("WRIT2:@:D A 0 0 1 0 - 0 0 2 - - \n"),
        text("WRIT2:@:L A 0 0 1 0 0 boot\nWRIT2:@:.\n"),
        text("WRIT2:@:A S 0 0 1 2 3\nWRIT2:@:+\n"),
        text("WRIT2:@:C 0 5\nhello"),
        text("WRIT2:@:V\nWRIT2:@:.\n"),
        text("WRIT:@:D S 0 0 1 0 - 5 0 2 - -\n"),
        text("E 0 - 5 0 2 - -\n"),
        text("P 0 - 2\nE 0 - 5 0 2 - -\n"),
        text("Z 5\n"),
        text("\0\0\0"),
        prop::collection::vec(any::<u8>(), 60_000..140_000),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("WRIT_LAUNCHER_OUTPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(24),
        max_shrink_iters: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The record consists of the machine's journal and the exact bytes of the output. This holds for any bytes: read
    /// in one session, read live, and read again later.
    #[test]
    fn an_output_is_any_bytes_and_never_a_word_of_the_launcher(
        stdout in pieces(), stderr in pieces(), code in 1..=255_u8, is_live in any::<bool>(), kind in 0..4_usize,
    ) {
        let machine = Machine::new(crate::machine::KINDS[kind]);
        let (nonce, uid) = (nonce(), uid());
        let nonce_text = format!("{nonce:?}");
        let nonce_text = nonce_text.split('"').nth(1).expect("a nonce");
        let files = [("stdout", stdout), ("stderr", stderr)].map(|(name, bytes)| {
            let bytes: Vec<u8> = bytes.split(|byte| *byte == b'@').collect::<Vec<_>>().join(nonce_text.as_bytes());
            let path = machine.home.path().join(name);
            std::fs::write(&path, &bytes).expect("a file");
            (path, bytes)
        });
        let pause = if is_live { "sleep 0.4; " } else { "" };
        let [(out, stdout), (err, stderr)] = &files;
        let script = format!("cat {}; {pause}cat {} >&2; {pause}exit {code}", out.display(), err.display());
        let request = machine.launching(&nonce, &uid, &sh(&script));
        let said = machine.session(&nonce, request).finish();
        let ended = said.ended();
        prop_assert_eq!(ended.outcome, ExitOutcome::Exited(code));
        prop_assert!(said.stdout == *stdout && said.stderr == *stderr, "{:?}", ended);
        prop_assert!(!ended.output_incomplete() && !ended.started_by_other);
        let journal = machine.journal(&uid);
        let end = journal.lines().find_map(|line| line.strip_prefix("E ")).expect("an end");
        let expected = format!("{code} - {} {} ", stdout.len(), stderr.len());
        prop_assert!(end.starts_with(&expected), "{}", journal);
        let again = machine.attach(&uid, Offsets::default()).finish();
        prop_assert!(again.complete && again.stdout == *stdout && again.stderr == *stderr);
    }
}

/// Returns the duration of an attack: `WRIT_ATTACK_SECONDS`, default 6.
fn duration() -> Duration {
    let seconds = std::env::var("WRIT_ATTACK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    Duration::from_secs(seconds)
}

/// Returns true in the long form. These tests then run alone, and also attack the processes of their own user.
fn is_long() -> bool {
    std::env::var_os("WRIT_ATTACK_SECONDS").is_some()
}

/// Returns the text that every attack writes: ends, marks and journal lines, with each word that could be a nonce.
fn forgeries(known: &std::collections::BTreeSet<String>) -> Vec<u8> {
    let mut text = b"E 0 - 0 0 1 - -\nP 0 - 1\nZ 1\nK 1\nR 0\n".to_vec();
    for word in known {
        text.extend(
            format!("WRIT2:{word}:D S 0 0 1 0 - 0 0 2 - - \nWRIT2:{word}:.\nWRIT:{word}:D S 0 0 1 0 - 0 0 2 - -\n")
                .bytes(),
        );
    }
    text
}

/// Program of the attackers: this test program, as another user. It reads all of /proc that it can. It writes forgeries
/// into every file and pipe there that it can open, and into the launcher's directory. Without `WRIT_ATTACK_DIRECTORY`
/// it does nothing.
#[test]
fn attacker() {
    let Ok(directory) = std::env::var("WRIT_ATTACK_DIRECTORY") else { return };
    let stop = std::env::var("WRIT_ATTACK_STOP").expect("a file");
    let deadline = Instant::now() + duration() * 2 + Duration::from_secs(60);
    let mut known = std::collections::BTreeSet::new();
    let me = std::process::id().to_string();
    // Other tests have processes of the same users. In the short form, the attacker does not attack these processes.
    let attacks_own = std::env::var("WRIT_ATTACK_OWN").is_ok_and(|text| text == "true");
    let own = std::fs::metadata("/proc/self").expect("/proc").uid();
    while !std::path::Path::new(&stop).exists() && Instant::now() < deadline {
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
                || entry.file_name().to_string_lossy() == me
            {
                continue;
            }
            let owner = std::fs::metadata(entry.path()).map(|entry| entry.uid());
            if !attacks_own && owner.is_ok_and(|owner| owner == own) {
                continue;
            }
            for file in ["cmdline", "environ", "comm", "status", "stat"] {
                let text = std::fs::read(entry.path().join(file)).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                for word in text.split(|each: char| !each.is_ascii_hexdigit()).filter(|word| word.len() == 32) {
                    known.insert(word.to_owned());
                }
            }
            let forgery = forgeries(&known);
            let opens = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            for path in opens.map(|open| open.path()).chain([entry.path().join("mem")]) {
                // With O_NONBLOCK, the open never waits for a reader.
                let file = std::fs::OpenOptions::new().write(true).custom_flags(0o4000).open(&path);
                let _ = file.and_then(|mut file| file.write_all(&forgery));
            }
        }
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let file = std::fs::OpenOptions::new().append(true).open(entry.path());
            let _ = file.and_then(|mut file| file.write_all(&forgeries(&known)));
        }
        for name in ["x.j", "id"] {
            let _ = std::fs::write(format!("{directory}/{name}"), forgeries(&known));
        }
        known = known.into_iter().take(1_000).collect();
    }
}

/// Launches commands until the duration of the attack is over. Each command must end with exit code 9. Its output must
/// be `expected` or, if that is `None`, the bytes that the machine stored.
fn withstands(machine: &Machine, decision: &DecisionRecord, expected: Option<&[u8]>) {
    let until = Instant::now() + duration();
    let mut rounds = 0;
    while Instant::now() < until {
        rounds += 1;
        let uid = uid();
        let said = machine.launch(&uid, decision);
        let ended = said.ended();
        let context = format!("{rounds}: {ended:?}\n{}", machine.journal(&uid));
        assert_eq!((ended.outcome, ended.missing, ended.was_ended), (ExitOutcome::Exited(9), None, false), "{context}");
        let stored = std::fs::read(machine.file(&uid, "o")).expect("the output");
        assert!(said.stdout == expected.unwrap_or(&stored), "{context}: {:?}", String::from_utf8_lossy(&said.stdout));
        assert!(machine.journal(&uid).contains("\nE 9 - "), "{context}");
        assert!(
            matches!(machine.poll(&uid), Answer::Ended(again) if again.outcome == ExitOutcome::Exited(9)),
            "{context}"
        );
    }
    say::note(format_args!("{rounds} executions under attack"));
}

/// Copies this test program to a path where another user can execute it. Returns the path.
fn attacker_program(machine: &Machine) -> std::path::PathBuf {
    make_executable(machine.home.path());
    let program = machine.home.path().join("attacker");
    std::fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    make_executable(&program);
    program
}

/// An attacker without rights: another user, who reads /proc and writes into everything that this user can open.
#[test]
fn another_user_cannot_write_a_record() {
    if !is_root() {
        say::note("this needs root, for another user: passed over");
        return;
    }
    let login = openssh::prepare_root(false).expect("the laboratory's user");
    let machine = Machine::of(Kind::BashThenDash, Some(login.user));
    let program = attacker_program(&machine);
    let stop = machine.home.path().join("stop");
    let mut attacker = Command::new(&program)
        .args(["--exact", "untrusted::attacker"])
        .env("WRIT_ATTACK_DIRECTORY", &machine.facts.directory)
        .env("WRIT_ATTACK_STOP", &stop)
        .env("WRIT_ATTACK_OWN", is_long().to_string())
        .stdout(Stdio::null())
        .uid(65_534)
        .gid(65_534)
        .current_dir("/")
        .spawn()
        .expect("an attacker");
    withstands(&machine, &sh("echo begun; sleep 0.4; echo done; exit 9"), Some(b"begun\ndone\n"));
    std::fs::write(&stop, "").expect("a file");
    assert!(attacker.wait().expect("an end").success());
}

/// The attacker is the program that a rule runs as another user.
#[test]
fn the_program_of_run_as_cannot_write_a_record() {
    if !is_root() {
        say::note("this needs root, for sudo: passed over");
        return;
    }
    let login = openssh::prepare_root(false).expect("the laboratory's user");
    let machine = Machine::of(Kind::Dash, Some(login.user));
    let attacker = attacker_program(&machine);
    let stop = machine.home.path().join("stops");
    std::fs::create_dir(&stop).expect("a folder");
    std::fs::set_permissions(&stop, std::fs::Permissions::from_mode(0o777)).expect("permissions");
    let program = machine.home.path().join("program");
    // The attacker may write into the files of its own command. These bytes are output, and nothing else.
    let script = format!(
        "#!/bin/sh\necho begun\nWRIT_ATTACK_DIRECTORY={} WRIT_ATTACK_STOP={}/$$ WRIT_ATTACK_OWN={} {} --exact untrusted::attacker \
         >/dev/null 2>&1 3>&- &\nsleep 1\ntouch {}/$$\nwait\necho done\nexit 9\n",
        machine.facts.directory,
        stop.display(),
        is_long(),
        attacker.display(),
        stop.display()
    );
    std::fs::write(&program, script).expect("a program");
    make_executable(&program);
    let program = program.to_str().expect("UTF-8").to_owned();
    let rules = format!("{} ALL=({USER}) NOPASSWD: {program}\n", openssh::USER);
    let _sudoers = Sudoers::install(&rules).expect("rules that sudo takes");
    let mut decision = crate::machine::decision(&[&program]);
    decision.run_as = Some(USER.to_owned());
    withstands(&machine, &decision, None);
}

/// A process whose name looks like fields of /proc/PID/stat does not belong to the command. It hides no other process.
#[test]
fn a_name_that_looks_like_fields_hides_nothing_and_is_not_counted() {
    let machine = Machine::new(Kind::BashThenDash);
    let uid = uid();
    let mut session = machine.start(&uid, &sh("echo begun; exec sleep 300"));
    session.until(|said| !said.stdout.is_empty());
    let journal = machine.journal(&uid);
    let group = journal
        .lines()
        .find_map(|line| line.strip_prefix("S "))
        .expect("a start")
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let names = [format!(") S 1 {group} "), format!(") S 1 {group} \n"), format!(") S 1 1 {group} ")];
    let others: Vec<_> = names
        .iter()
        .filter(|name| name.len() <= 15)
        .map(|name| {
            let program = machine.home.path().join(name);
            std::fs::copy("/bin/sleep", &program).expect("a program");
            make_executable(&program);
            Command::new(&program).arg("300").env_clear().spawn().expect("a process")
        })
        .collect();
    assert!(others.len() >= 2);
    assert_eq!(machine.stop(&uid), Answer::Stopped { processes_left: Some(0) });
    assert_eq!(session.finish().ended().outcome, ExitOutcome::Signalled(15));
    for mut other in others {
        assert!(other.try_wait().expect("a state").is_none(), "it was ended, too");
        other.kill().expect("an end");
        other.wait().expect("an end");
    }
}
