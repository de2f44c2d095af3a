//! The environment of a login does not affect the launcher. The processes of the launcher show other users neither the
//! command's words nor the nonce, the UID or the script.

use std::path::Path;
use std::time::{Duration, Instant};

use writ::launcher::{self, Answer, ExitOutcome};

use crate::machine::{Kind, Machine, nonce, sh, uid, with_each_login};

/// Runs a short command, a long one that is stopped with a process outside of its session, and all other requests.
fn lives(machine: &Machine, context: &str) {
    let said = machine.run(&sh("echo out; echo err >&2; exit 7"));
    assert_eq!(said.ended().outcome, ExitOutcome::Exited(7), "{context}");
    assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]), "{context}");
    let said = machine.run(&sh("echo one; sleep 0.6; echo two"));
    assert_eq!(said.stdout, b"one\ntwo\n", "{context}");
    let stopped = uid();
    let mut session = machine.start(&stopped, &sh("echo begun; setsid sleep 300 & setsid sleep 301 & wait"));
    session.until(|said| !said.stdout.is_empty());
    assert!(matches!(machine.poll(&stopped), Answer::Running(_)), "{context}");
    assert_eq!(machine.stop(&stopped), Answer::Stopped { processes_left: Some(0) }, "{context}");
    let ended = session.finish().ended().clone();
    assert!(ended.stopped && ended.processes_left == Some(0), "{context}: {ended:?}");
    let closed = uid();
    assert_eq!(machine.close(&closed), Answer::Tombstoned, "{context}");
    let left = machine.ask(|nonce, facts| launcher::unacknowledged(nonce, facts, 100));
    assert!(matches!(left, Answer::Unacknowledged(uids) if uids.len() == 3), "{context}");
    assert_eq!(machine.ask(|nonce, facts| launcher::acknowledge(nonce, facts, &[&stopped])), Answer::Done, "{context}");
    assert_eq!(machine.ask(|nonce, facts| launcher::prune(nonce, facts, 30)), Answer::Done, "{context}");
}

/// Returns the names of everything that a shell could run: its builtins and all programs.
fn every_command() -> Vec<String> {
    let builtins = std::process::Command::new("bash").args(["-c", "compgen -b"]).output().unwrap().stdout;
    let mut names: Vec<String> = String::from_utf8(builtins).unwrap().lines().map(str::to_owned).collect();
    for folder in ["/bin", "/usr/bin", "/sbin", "/usr/sbin"] {
        names.extend(
            Path::new(folder).read_dir().unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()),
        );
    }
    names.sort();
    names.dedup();
    // The login shell itself runs `exec`. A function of this name would run instead of the launcher.
    names.retain(|name| name != "exec" && !name.contains(['=', '%']));
    names
}

#[test]
fn no_exported_function_runs_in_the_launcher() {
    for kind in [Kind::BashThenDash, Kind::Bash] {
        let mut machine = Machine::new(kind);
        let marker = machine.home.path().join("MARK");
        for name in every_command() {
            let body = format!("() {{ builtin echo {name} >>{}; builtin return 1; }}", marker.display());
            machine.login_environment.push((format!("BASH_FUNC_{name}%%"), body));
        }
        lives(&machine, &format!("{kind:?}"));
        let ran = std::fs::read_to_string(&marker).unwrap_or_default();
        assert!(ran.is_empty(), "{kind:?}: {ran}");
    }
}

/// Some shells read aliases even if they execute a text.
#[test]
fn no_alias_of_the_login_steers_the_launcher() {
    with_each_login(|kind| {
        let mut machine = Machine::new(kind);
        let (start, separator) = match kind {
            Kind::BashThenDash | Kind::Bash => ("shopt -s expand_aliases", "="),
            Kind::Tcsh => ("", " "),
            _ => ("", "="),
        };
        let names = ["cat", "read", "set", "unset", "echo", "export", "eval", "grep", "sleep", "kill", "dd"];
        let aliases = names.map(|name| format!("alias {name}{separator}'echo steered'"));
        if machine.set_startup(&format!("{start}\n{}", aliases.join("\n"))) {
            lives(&machine, &format!("{kind:?}"));
        }
    });
}

/// From a bug report: a `grep` with colours hides the processes that the launcher must end.
#[test]
fn a_grep_that_colours_hides_no_process() {
    let mut machine = Machine::new(Kind::Bash);
    let body = "() { command grep --color=always \"$@\"; }";
    machine.login_environment.push(("BASH_FUNC_grep%%".to_owned(), body.to_owned()));
    machine.login_environment.push(("BASH_FUNC_command%%".to_owned(), "() { return 1; }".to_owned()));
    lives(&machine, "grep");
}

#[test]
fn no_variable_of_the_login_steers_the_launcher() {
    with_each_login(|kind| {
        let mut machine = Machine::new(kind);
        let marker = machine.home.path().join("MARK");
        let script = machine.home.path().join("script");
        std::fs::write(&script, format!("touch {}\n", marker.display())).unwrap();
        let script = script.to_str().unwrap();
        let bash = matches!(kind, Kind::BashThenDash | Kind::Bash);
        for (name, value) in [
            ("TMOUT", "1"),
            ("IFS", "Wo1r\n"),
            ("GREP_OPTIONS", "--color=always -v"),
            ("GREP_COLORS", "mt=01;31"),
            ("POSIXLY_CORRECT", "1"),
            ("CDPATH", "/tmp:/"),
            ("ENV", script),
            ("LC_ALL", "xx_YY.UTF-8"),
            ("LANG", "de_DE.UTF-8"),
            ("PATH", "/nowhere"),
            ("SHELL", "/bin/sh"),
            ("PS4", "+ WRIT2: "),
            // Variables that only another kind of shell sets.
            ("BASH_VERSION", if bash { "" } else { "5.2" }),
            ("KSH_VERSION", "93"),
            // Variables of the launcher, with short and long names.
            ("_A", "x"),
            ("_h", "x"),
            ("_n", "x"),
            ("_state", "S"),
            ("_later", "exit"),
        ] {
            machine.login_environment.push((name.to_owned(), value.to_owned()));
        }
        if bash {
            let options =
                "allexport:braceexpand:errexit:nounset:noglob:noclobber:pipefail:verbose:xtrace:monitor:posix";
            machine.login_environment.push(("SHELLOPTS".to_owned(), options.to_owned()));
            machine
                .login_environment
                .push(("BASHOPTS".to_owned(), "expand_aliases:xpg_echo:nullglob:dotglob".to_owned()));
        }
        lives(&machine, &format!("{kind:?}"));
        assert!(!marker.exists(), "{kind:?}");
        // The command gets the variables of the login, except those that Writ removes or sets.
        let said = machine.run(&sh("echo \"$TMOUT $LANG $GREP_COLORS $LC_ALL ${CDPATH-none}\""));
        assert_eq!(String::from_utf8_lossy(&said.stdout), "1 de_DE.UTF-8 mt=01;31 C none\n", "{kind:?}");
    });
}

/// The login shell is the one in the user database. SHELL may differ, by `set SHELL /bin/sh` in config.fish or by
/// SetEnv in sshd_config.
#[test]
fn the_login_shell_is_not_what_the_variable_says() {
    with_each_login(|kind| {
        let mut machine = Machine::new(kind);
        for shell in ["/bin/sh", "/bin/fish", "/no/such", ""] {
            machine.login_environment = vec![("SHELL".to_owned(), shell.to_owned())];
            machine.facts = machine.probe(None);
            assert_eq!(
                machine.facts.login_shell_is_posix,
                matches!(kind, Kind::Dash | Kind::Busybox),
                "{kind:?} {shell}"
            );
            assert_eq!(machine.run(&sh("echo hello")).stdout, b"hello\n", "{kind:?} {shell}");
        }
        // Two entries have the same user number, so either shell may be the login shell.
        let passwd = machine.home.path().join("passwd");
        let entry = std::fs::read_to_string(&passwd).unwrap();
        let number = entry.split(':').nth(2).unwrap().to_owned();
        std::fs::write(&passwd, format!("{entry}other:x:{number}:0::/:/usr/bin/python3\n")).unwrap();
        machine.facts = machine.probe(None);
        assert!(!machine.facts.login_shell_is_posix, "{kind:?}");
        std::fs::write(&passwd, "").unwrap();
        machine.facts = machine.probe(None);
        assert!(!machine.facts.login_shell_is_posix, "{kind:?}");
        assert_eq!(machine.run(&sh("echo hello")).stdout, b"hello\n", "{kind:?}");
        std::fs::write(&passwd, entry).unwrap();
    });
}

/// Other users can read the arguments of a process. Only its own user and root can read its environment.
#[test]
fn no_process_shows_words_nonce_uid_or_script() {
    with_each_login(|kind| {
        let mut machine = Machine::new(kind);
        // If the login exports a name that the launcher uses, the launcher's value would be in the environment of its
        // processes.
        let names = ["_h", "_n", "_l", "_s", "_a", "_r"].map(str::to_owned).into_iter();
        let short = (b'A'..=b'Z').map(|letter| format!("_{}", char::from(letter)));
        machine.login_environment.extend(names.chain(short).map(|name| (name, "x".to_owned())));
        let (nonce, uid) = (nonce(), uid());
        let word = format!("frobnicate{}", uuid::Uuid::new_v4().simple());
        let mut decision = sh("echo begun; exec sleep 2");
        decision.argv.push(word.clone());
        let request = machine.launching(&nonce, &uid, &decision);
        let nonce_text = String::from_utf8(request.stdin.clone()).unwrap().split(' ').nth(1).unwrap().to_owned();
        let mut session = machine.session(&nonce, request);
        session.until(|said| !said.stdout.is_empty());
        let until = Instant::now() + Duration::from_millis(800);
        let mut looked = 0;
        while Instant::now() < until {
            // The poll adds the processes of a second request.
            if looked == 3 {
                machine.poll(&uid);
            }
            looked += 1;
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == std::process::id().to_string() {
                    continue;
                }
                let read = |file: &str| {
                    String::from_utf8_lossy(&std::fs::read(entry.path().join(file)).unwrap_or_default()).into_owned()
                };
                let (arguments, environment) = (read("cmdline"), read("environ"));
                for secret in [word.as_str(), &nonce_text, "watch_on", "_state", uid.as_str()] {
                    assert!(!arguments.contains(secret), "{kind:?}: {secret} in the arguments {arguments:?}");
                }
                assert!(!environment.contains(&nonce_text), "{kind:?}: {arguments:?} {environment:?}");
                if environment.contains(uid.as_str()) {
                    assert!(arguments.starts_with("sleep"), "{kind:?}: {arguments:?}");
                }
            }
        }
        assert_eq!(session.finish().ended().outcome, ExitOutcome::Exited(0), "{kind:?}");
    });
}
