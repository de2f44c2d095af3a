use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;

use super::*;
use crate::api::execution_status::{ObjectRecord, OutputBounds};

/// Program that prints its directory, the number of its words, its words and its environment, with a byte 0 after each
/// item.
const RECORD: &str = r#"readlink -z "/proc/$$/cwd"; printf '%s\0' "$#" "$@"; cat "/proc/$$/environ""#;

fn decision(argv: &[&str]) -> DecisionRecord {
    DecisionRecord {
        whitelist: ObjectRecord { name: "web".to_owned(), uid: String::new(), generation: 1 },
        rule: "r".to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
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

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Returns an sh process, not started yet, that executes the text of the decision.
fn shell(decision: &DecisionRecord) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command_line(decision));
    shell
}

fn output(decision: &DecisionRecord) -> Output {
    shell(decision).output().unwrap()
}

/// Parsed output of [`RECORD`].
struct Seen {
    directory: String,
    words: Vec<String>,
    environment: Vec<String>,
}

impl Seen {
    fn of(output: &Output) -> Self {
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let mut fields = text.split_terminator('\0').map(str::to_owned);
        let directory = fields.next().unwrap();
        let count: usize = fields.next().unwrap().parse().unwrap();
        let words = fields.by_ref().take(count).collect();
        Self { directory, words, environment: fields.collect() }
    }

    fn has(&self, name: &str) -> Option<&str> {
        let mut values = self.environment.iter().filter_map(|each| each.strip_prefix(name)?.strip_prefix('='));
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }
}

#[test]
fn a_plain_command_is_executed_by_env_with_its_path_and_locale() {
    let line = command_line(&decision(&["/bin/echo", "a b", "", "$(id); `id` \"x\" *"]));
    assert_eq!(
        line,
        "exec '/usr/bin/env' '-uLANGUAGE' '-uLD_AUDIT' '-uLD_LIBRARY_PATH' '-uLD_PRELOAD' '-uGCONV_PATH' '-uBASHOPTS' '-uBASH_ENV' \
         '-uCDPATH' '-uENV' '-uFPATH' '-uGLOBIGNORE' '-uIFS' '-uPS4' '-uSHELLOPTS' '-uZDOTDIR' '-uJAVA_TOOL_OPTIONS' \
         '-uNODE_OPTIONS' '-uPERL5DB' '-uPERL5LIB' '-uPERL5OPT' '-uPERLLIB' '-uPYTHONHOME' '-uPYTHONINSPECT' \
         '-uPYTHONPATH' '-uPYTHONUSERBASE' '-uRUBYLIB' '-uRUBYOPT' \
         'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' 'LC_ALL=C' \
         '/bin/echo' 'a b' '' '$(id); `id` \"x\" *'"
    );
}

#[test]
fn with_everything_set_each_part_is_where_it_can_be_nothing_else() {
    let plain = command_line(&decision(&[]));
    let start = plain.strip_suffix(" './'").unwrap();
    let mut all = decision(&["/usr/bin/systemctl", "restart", "x"]);
    all.environment = variables(&[("A", "1"), ("B", "it's")]);
    all.working_directory = Some("/srv/a b".to_owned());
    let enter = r#"'/bin/sh' '-c' 'cd "$1" || exit 126; shift; exec "$@"' 'writ' '/srv/a b'"#;
    let program = "'/usr/bin/systemctl' 'restart' 'x'";
    assert_eq!(command_line(&all), format!(r"{start} 'A=1' 'B=it'\''s' {enter} {program}"));
    all.run_as = Some("deploy".to_owned());
    let sudo = r"'sudo' '-n' '-u' 'deploy' 'A=1' 'B=it'\''s' '--'";
    assert_eq!(command_line(&all), format!("{start} {enter} {sudo} {program}"));
}

#[test]
fn what_shells_mind_in_single_quotes_stands_between_them() {
    let line = command_line(&decision(&["/bin/echo", "it's", r"a\", "!!"]));
    assert!(line.ends_with(r"'/bin/echo' 'it'\''s' 'a'\\'' ''\!''\!''"), "{line}");
}

/// Runs the built command lines as sshd does (`$SHELL -c LINE`), with each shell of the list that is installed.
#[test]
fn every_login_shell_passes_every_printable_word_on() {
    let special = ["'", "\\", "!", "$", "`", "\"", "*", "~", "#", "{", "}", "=", " ", "-", "a", "^", "%", "n", ";"];
    let single = (b' '..=b'~').map(|byte| char::from(byte).to_string());
    let pairs = special.iter().flat_map(|left| special.map(|right| format!("{left}{right}")));
    let hard = [
        "'\\''", "it's", "!!", "!$", "!-1", "!{a}", "\\!", "'!'", "a\\", "\\\\", "\\\\'", "'\\", "$'\\n'", "^a^b",
        "\\047", "%s",
    ];
    let triples = ["'", "\\", "!"]
        .map(|first| ["'", "\\", "!"].map(|second| ["'", "\\", "!"].map(|third| [first, second, third].concat())));
    let words = single.chain(pairs).chain(hard.map(str::to_owned)).chain(triples.into_iter().flatten().flatten());
    let words: Vec<String> = words.chain([r"'\!".repeat(1000)]).collect();
    let mut decision = decision(&["/bin/sh", "-c", RECORD, "sh"]);
    decision.argv.extend(words.clone());
    decision.environment = variables(&[("X", r"it's \!a\")]);
    let lines = [command_line(&decision), marked_command_line(&decision, ("a", "b"), StandardInput::Empty)];
    let permission = "0123456789abcdef".repeat(2);
    let mut tried = Vec::new();
    for shell in ["sh", "dash", "bash", "busybox", "zsh", "ksh", "ksh93", "mksh", "fish", "tcsh", "csh", "yash"] {
        for line in &lines {
            let mut command = Command::new(shell);
            command.args((shell == "busybox").then_some("sh")).args(["-c", line]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let Ok(mut child) = command.spawn() else { continue };
            // Only the line with a script reads the permission. The command of the other line can end before this
            // write, and the write then fails. The test ignores this failure.
            let _ = child.stdin.take().expect("a pipe").write_all(format!("{permission}\n").as_bytes());
            let mut output = child.wait_with_output().expect("output");
            let marks = format!("a:b\na:{permission}\n");
            let marked = output.stdout.strip_prefix(marks.as_bytes()).map(<[u8]>::to_vec);
            assert_eq!(marked.is_some(), line == &lines[1], "{shell}: {output:?}");
            output.stdout = marked.unwrap_or(output.stdout);
            let seen = Seen::of(&output);
            assert_eq!(seen.words, words, "{shell}");
            assert_eq!(seen.has("X"), Some(r"it's \!a\"), "{shell}");
            tried.push(shell);
        }
    }
    assert!(tried.contains(&"sh"), "{tried:?}");
}

#[test]
fn what_a_session_has_set_does_not_steer_the_command() {
    let mut shell = shell(&decision(&["/bin/sh", "-c", RECORD, "sh"]));
    shell.envs(UNSET.iter().map(|name| (name, "/steered"))).env("PATH", "/steered").env("LC_ALL", "steered");
    let seen = Seen::of(&shell.output().unwrap());
    assert!(!seen.environment.iter().any(|each| each.contains("steered")), "{:?}", seen.environment);
    assert_eq!((seen.has("LC_ALL"), seen.has("PATH")), (Some("C"), PATH.strip_prefix("PATH=")));
}

#[test]
fn a_directory_that_cannot_be_entered_runs_nothing_and_is_exit_code_126() {
    let mut decision = decision(&["/bin/echo", "ran"]);
    for directory in ["/no/such/directory", "/etc/passwd", "-", "-P", "no-such", "/no\nsuch", "$HOME", "/\u{0301}"] {
        decision.working_directory = Some(directory.to_owned());
        let output = output(&decision);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(126), 0), "{directory}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("writ: ") && said.contains("cd"), "{directory}: {said}");
    }
}

#[test]
fn a_program_that_looks_like_a_variable_or_an_option_is_executed_as_a_program() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a=b", "-uHOME", "A=B C=D", "-"] {
        let program = folder.path().join(name);
        std::fs::write(&program, "#!/bin/sh\necho ran as \"${0##*/}\" with \"$@\"\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        for directory in [None, Some("/".to_owned())] {
            let mut decision = decision(&[program.to_str().unwrap(), "/bin/echo", "-x"]);
            decision.working_directory = directory;
            let said = String::from_utf8(output(&decision).stdout).unwrap();
            assert_eq!(said, format!("ran as {name} with /bin/echo -x\n"));
        }
        // A program name without a directory does not run. No shell searches the name in `PATH`, and no program reads
        // the name as an option.
        assert!(output(&decision(&[name, "/bin/echo", "ran"])).stdout.is_empty(), "{name}");
    }
}

#[test]
fn a_decision_without_a_program_runs_nothing() {
    let output = output(&decision(&[]));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(126), 0));
}

#[test]
fn a_variable_with_a_name_that_is_none_runs_nothing() {
    for name in ["", "-s", "-uroot", "A=B", "A B", "1A", "/bin/id", "A\n", "é", "PATH"] {
        let mut decision = decision(&["/bin/echo", "ran"]);
        decision.environment = variables(&[(name, "x")]);
        for run_as in [None, Some("root".to_owned())] {
            decision.run_as = run_as;
            let output = output(&decision);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(126), 0), "{name:?}");
            assert!(!command_line(&decision).contains("sudo"), "{name:?}");
        }
    }
}

/// Texts that shells interpret.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~\n\t]{0,20}",
        "['\\\\!$`\";&|<>(){}*?~#=\n -]{0,12}",
        "(-|--|-[a-z]|[A-Z]{1,4}=)[ -~]{0,8}",
        "[\u{1}-\u{2ff}\u{1f600}]{0,6}",
    ]
}

proptest! {
    /// A real shell passes on arbitrary words, environments and directories, byte for byte.
    #[test]
    fn a_shell_reads_everything_back(
        words in proptest::collection::vec(hostile(), 0..6),
        environment in proptest::collection::btree_map("X[A-Za-z0-9_]{0,6}", hostile(), 0..4),
        directory in proptest::option::of(hostile()),
    ) {
        let mut decision = decision(&["/bin/sh", "-c", RECORD, "sh"]);
        decision.argv.extend(words.clone());
        decision.environment = environment.clone();
        let folder = tempfile::tempdir().unwrap();
        let expected = match directory.map(|name| name.replace('/', "|")) {
            Some(name) => {
                let path = folder.path().canonicalize().unwrap().join(format!("d{name}"));
                std::fs::create_dir(&path).unwrap();
                path
            }
            None => std::env::current_dir().unwrap(),
        };
        let expected = expected.to_str().unwrap().to_owned();
        decision.working_directory = expected.starts_with(folder.path().to_str().unwrap()).then(|| expected.clone());
        let seen = Seen::of(&output(&decision));
        prop_assert_eq!(&seen.words, &words);
        prop_assert_eq!(&seen.directory, &expected);
        for (name, value) in &environment {
            prop_assert_eq!(seen.has(name), Some(value.as_str()));
        }
        prop_assert_eq!(seen.has("LC_ALL"), Some("C"));
    }
}

/// In Direct mode, a script precedes the unchanged text of [`command_line`]. With `runAs`, the script calls `sudo -l`
/// with the user and the program of the decision.
#[test]
fn the_text_of_direct_mode_waits_and_asks_sudo_for_what_it_will_execute() {
    let mut decision = decision(&["/bin/echo", "it's"]);
    let plain = marked_command_line(&decision, ("WRIT3", "ready"), StandardInput::Empty);
    let script = plain.strip_prefix("exec '/bin/sh' '-c' '").unwrap().split_once("' 'writ' 'WRIT3' 'ready' ").unwrap();
    assert_eq!(format!("exec {}", script.1), command_line(&decision));
    // The script contains no character that login shells read in different ways. Without `runAs`, the script does not
    // call sudo.
    assert!(!script.0.contains(['\'', '\\', '!', '\n']) && !script.0.contains("sudo"), "{}", script.0);
    decision.run_as = Some("deploy".to_owned());
    decision.environment = variables(&[("CHANNEL", "stable")]);
    let asking = marked_command_line(&decision, ("WRIT3", "ready"), StandardInput::Empty);
    let (script, rest) = asking.split_once("' 'writ' 'WRIT3' 'ready' 'deploy' '").unwrap();
    assert!(script.contains("sudo -n -l -u") && !script.contains("@PATH@") && !script.contains("@COUNT@"), "{script}");
    let (count, words) = rest.split_once("' ").unwrap();
    let words: Vec<&str> = words.split("' '").collect();
    assert_eq!(words[count.parse::<usize>().unwrap()], "/bin/echo", "{words:?}");
    assert!(asking.len() < 2500, "{} bytes: dropbear takes 9,000", asking.len());
}
