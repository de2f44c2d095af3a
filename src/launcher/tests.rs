use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;

use super::*;
use crate::api::execution_status::{ObjectRecord, OutputBounds};

/// Every character that can separate the two copies of a script.
const SEPARATORS: &str = "\u{1c}\u{1d}\u{1e}\u{1f}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}\u{8}";
/// A script that prints its words, each followed by a NUL byte.
const PRINT_WORDS: &str = r#"printf "%s\\0" "$@"; exit"#;
/// Shells that must be able to read the requests.
const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

/// Returns the shells of [`SHELLS`] that this host has. Every host has a POSIX shell of some kind, and the tests on
/// machines install the others.
fn shells() -> Vec<&'static [&'static str]> {
    let is_installed = |shell: &&&[&str]| {
        let name = shell.first().unwrap();
        ["/bin", "/usr/bin"].iter().any(|folder| std::path::Path::new(folder).join(name).exists())
    };
    let found: Vec<_> = SHELLS.iter().filter(is_installed).copied().collect();
    assert!(!found.is_empty(), "none of {SHELLS:?} is installed");
    found
}

fn decision(argv: &[&str]) -> DecisionRecord {
    DecisionRecord {
        whitelist: ObjectRecord { name: "web".to_owned(), uid: String::new(), generation: 1 },
        rule: "r".to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        action_type: "custom".to_owned(),
        run_as: None,
        working_directory: None,
        environment: BTreeMap::new(),
        timeout_seconds: 86_400,
        interactive: false,
        record_input: false,
        output: OutputBounds::default(),
        redact: Vec::new(),
        minimum_retention_seconds: None,
        digest: String::new(),
        decided_time: MicroTime(Timestamp::UNIX_EPOCH),
    }
}

fn facts(login_shell_is_posix: bool) -> LauncherFacts {
    LauncherFacts {
        boot_id: "7a8a8b1f-5e0f-4b8e-8f0e-1a2b3c4d5e6f".to_owned(),
        uptime_centiseconds: 1,
        directory: "/var/lib/a-user-with-a-long-name/.local/state/writ".to_owned(),
        directory_id: "0b8e8b1f-5e0f-4b8e-8f0e-1a2b3c4d5e6f".to_owned(),
        login_shell_is_posix,
        kills_user_processes: false,
    }
}

fn nonce() -> Nonce {
    Nonce::new("0123456789abcdef0123456789abcdef").unwrap()
}

fn uid() -> Uid {
    Uid::new("5e8a8b1f-5e0f-4b8e-8f0e-1a2b3c4d5e6f").unwrap()
}

fn launched(facts: &LauncherFacts, decision: &DecisionRecord) -> ExecRequest {
    let boot_id = &facts.boot_id;
    let launched = Launch { uid: &uid(), decision, boot_id, not_after_centiseconds: u64::MAX, grace_centiseconds: 500 };
    launch(&nonce(), facts, &launched)
}

/// Returns requests of every kind. The requests about executions follow after the first three requests.
fn requests(nonce: &Nonce, facts: &LauncherFacts, uid: &Uid, word: &str) -> Vec<ExecRequest> {
    let many = vec![uid; 1000];
    let mut as_user = decision(&["/bin/echo", word]);
    (as_user.run_as, as_user.working_directory) = (Some("deploy".to_owned()), Some(format!("/srv/{word}")));
    let launched = |decision| {
        let boot_id = &facts.boot_id;
        launch(nonce, facts, &Launch { uid, decision, boot_id, not_after_centiseconds: 1, grace_centiseconds: 1 })
    };
    vec![
        inspect(nonce, None),
        inspect(nonce, Some(word)),
        super::system_info(nonce),
        launched(&decision(&[word])),
        launched(&as_user),
        attach(nonce, facts, uid, Offsets { stdout: u64::MAX, stderr: u64::MAX }, FrameSize::default()),
        poll(nonce, facts, uid),
        stop(nonce, facts, uid, u64::MAX),
        close(nonce, facts, uid),
        acknowledge(nonce, facts, &many),
        prune(nonce, facts, 30),
        unacknowledged(nonce, facts, 100),
    ]
}

/// Reads nonce, words and script from the standard input of a request. Does not use the code that writes requests.
/// Returns `None` if the request is empty.
fn read(request: &ExecRequest) -> Option<(String, Vec<String>, String)> {
    if request.stdin.is_empty() {
        return None;
    }
    assert!(!request.stdin.contains(&0), "a byte 0");
    let text = std::str::from_utf8(&request.stdin).unwrap();
    let (header, halves) = text.split_once('\n').unwrap();
    let [version, nonce, length, separator] = header.split(' ').collect::<Vec<_>>().try_into().unwrap();
    assert!(version == "WRIT2" && separator.len() == 1 && SEPARATORS.contains(separator), "{header:?}");
    let (first, second) = halves.split_once(separator).unwrap();
    assert!(first == second && first.len().to_string() == length, "{header:?}");
    assert!(!first.ends_with('\n'), "a shell drops that");
    let start = format!("#{nonce}\nset --");
    let (mut rest, mut words) = (first.strip_prefix(&start).unwrap(), Vec::new());
    while let Some(quoted) = rest.strip_prefix(" '") {
        let end = quoted.replace(r"'\''", "....").find('\'').unwrap();
        words.push(quoted[..end].replace(r"'\''", "'"));
        rest = &quoted[end + 1..];
    }
    Some((nonce.to_owned(), words, rest.strip_prefix('\n').unwrap().to_owned()))
}

fn words(request: &ExecRequest) -> Vec<String> {
    read(request).unwrap().1
}

/// Runs `line` in a shell with this standard input. Returns the output.
fn run(shell: &[&str], line: &str, stdin: &[u8]) -> Output {
    let (program, name) = shell.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(name).args(["-c", line]).env_clear().env("PATH", "/usr/bin:/bin");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A shell that refused a request does not read the rest. The write can then fail.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

/// The text of an exec request contains no nonce, UID, directory or word of a command.
#[test]
fn text_of_every_request_is_one_of_two_constants() {
    let nonces = [nonce(), Nonce::new("ffffffffffffffffffffffffffffffff").unwrap()];
    let uids = [uid(), Uid::new("x").unwrap()];
    let mut lines = [true, false].map(|login_shell_is_posix| {
        let mut lines = BTreeSet::new();
        for (nonce, uid) in nonces.iter().zip(&uids) {
            let mut facts = facts(login_shell_is_posix);
            for word in ["/x", "it's", &"x".repeat(100_000), "a\nb", "a\0b", SEPARATORS] {
                facts.directory = word.to_owned();
                let of_executions = requests(nonce, &facts, uid, word).into_iter().skip(3);
                lines.extend(of_executions.map(|request| request.command));
            }
        }
        lines
    });
    let [bare, wrapped] = &mut lines;
    let (bare, wrapped) = (bare.pop_first().unwrap(), wrapped.pop_first().unwrap());
    assert_eq!(lines, [const { BTreeSet::new() }; 2]);
    assert_eq!(wrapped, format!("exec /bin/sh -c '{bare}'"));
    // Before these requests, Writ does not know the login shell, so they start /bin/sh.
    for request in [inspect(&nonce(), None), inspect(&nonce(), Some("/x")), super::system_info(&nonce())] {
        assert_eq!(request.command, wrapped);
    }
    assert!(wrapped.len() < MAX_COMMAND_BYTES / 8, "{} bytes", wrapped.len());
}

#[test]
fn standard_input_holds_the_script_twice_and_its_words() {
    let (nonce, facts, uid) = (nonce(), facts(true), uid());
    let of_execution = |more: &[&str]| -> Vec<String> {
        let start = [&nonce.0, &facts.directory, &facts.directory_id, uid.as_str()];
        start.into_iter().chain(more.iter().copied()).map(str::to_owned).collect()
    };
    let mut decision = decision(&["/bin/it's", "", " \n", "-n", "é\u{1}\u{7f}"]);
    let largest = script::MAX_NUMBER.to_string();
    let request = launched(&facts, &decision);
    let (found, words, script) = read(&request).unwrap();
    assert_eq!((found, script.as_str()), (nonce.0.clone(), script::launch().trim_end()));
    let bounds = ["1", &largest, "8640000", "500", "67108864", "200", "-", "", "0"];
    let argv = decision.argv.iter().map(String::as_str);
    let more: Vec<&str> = [facts.boot_id.as_str()].into_iter().chain(bounds).chain(argv).collect();
    assert_eq!(words, of_execution(&more));

    decision.run_as = Some("deploy".to_owned());
    decision.working_directory = Some("/srv".to_owned());
    let words = self::words(&launched(&facts, &decision));
    assert_eq!(words[11..14], ["deploy", "/srv", &command_words(&decision).before_program.to_string()]);
    assert_eq!(words[14..], command_words(&decision).words);

    let at = |stdout, stderr| Offsets { stdout, stderr };
    let uids = [&uid, &uid];
    for (request, script, more) in [
        (
            attach(&nonce, &facts, &uid, at(3, u64::MAX), FrameSize::default().smaller()),
            script::attach(),
            vec!["follow", "3", &largest, "262144"],
        ),
        (poll(&nonce, &facts, &uid), script::attach(), vec!["poll", "0", "0"]),
        (stop(&nonce, &facts, &uid, u64::MAX), script::stop(), vec![&largest]),
        (close(&nonce, &facts, &uid), script::close(), vec![]),
    ] {
        assert_eq!(read(&request), Some((nonce.0.clone(), of_execution(&more), script.trim_end().to_owned())));
    }
    for (request, more) in [
        (acknowledge(&nonce, &facts, &uids), vec!["acknowledge", uid.as_str(), uid.as_str()]),
        (prune(&nonce, &facts, 0), vec!["reap", "2"]),
        (unacknowledged(&nonce, &facts, u32::MAX), vec!["leftovers", "100"]),
    ] {
        let mut words = of_execution(&more);
        words[3] = "-".to_owned();
        assert_eq!(read(&request), Some((nonce.0.clone(), words, script::cleanup().trim_end().to_owned())));
    }
    for (directory, sent) in [(None, ""), (Some("/x//"), "/x"), (Some("///"), "/"), (Some("/a b'\n"), "/a b'\n")] {
        let request = inspect(&nonce, directory);
        let words = vec![nonce.0.clone(), sent.to_owned()];
        assert_eq!(read(&request), Some((nonce.0.clone(), words, script::inspect().trim_end().to_owned())));
    }
}

#[test]
fn separator_is_a_character_that_no_word_has() {
    let facts = facts(true);
    for free in SEPARATORS.chars() {
        let all_others: String = SEPARATORS.chars().filter(|each| *each != free).collect();
        let request = launched(&facts, &decision(&["/bin/echo", &all_others]));
        assert!(request.stdin.starts_with(b"WRIT2 ") && request.stdin.contains(&(free as u8)));
        assert_eq!(words(&request).last(), Some(&all_others));
    }
    // If the texts of a request together contain every separator, the request is empty.
    let (some, others) = SEPARATORS.split_at(5);
    for request in [
        launched(&facts, &decision(&["/bin/echo", SEPARATORS])),
        launched(&facts, &decision(&["/bin/echo", some, others])),
        launched(&LauncherFacts { directory: some.to_owned(), ..facts.clone() }, &decision(&[others])),
        inspect(&nonce(), Some(SEPARATORS)),
    ] {
        assert!(request.stdin.is_empty());
    }
}

#[test]
fn word_with_a_byte_0_is_never_sent() {
    let facts = facts(true);
    let echo = ["/bin/echo", "a\0b"];
    let mut in_directory = decision(&["/bin/echo"]);
    in_directory.working_directory = Some("/a\0b".to_owned());
    let mut in_environment = decision(&["/bin/echo"]);
    in_environment.environment.insert("A".to_owned(), "a\0b".to_owned());
    for decision in [decision(&echo), in_directory, in_environment] {
        let words = words(&launched(&facts, &decision));
        assert!(words.iter().all(|word| word != "/bin/echo"), "{words:?}");
        assert_eq!(words[14..], NUL_GUARD, "it must say why it failed");
    }
    // Earlier checks refuse a NUL byte in these words. If a word still contains a NUL byte, the request is empty.
    let mut as_user = decision(&["/bin/echo"]);
    as_user.run_as = Some("a\0b".to_owned());
    let nul = || "a\0b".to_owned();
    let plain = decision(&["/bin/echo"]);
    for request in [
        launched(&LauncherFacts { directory: nul(), ..facts.clone() }, &plain),
        launched(&LauncherFacts { directory_id: nul(), ..facts.clone() }, &plain),
        launched(&LauncherFacts { boot_id: nul(), ..facts.clone() }, &plain),
        launched(&facts, &as_user),
        poll(&nonce(), &LauncherFacts { directory: nul(), ..facts }, &uid()),
        inspect(&nonce(), Some("/a\0b")),
    ] {
        assert!(request.stdin.is_empty());
    }
}

#[test]
fn nonces_and_uids_are_taken_only_in_their_form() {
    for text in ["0123456789abcdef0123456789abcdeF", "0", "", "0123456789abcdef0123456789abcde\n", &"0".repeat(33)] {
        assert!(Nonce::new(text).is_none(), "{text}");
    }
    for text in ["", "-a", "../x", "a/b", "a b", "a.j", "a\n", "a\0", "é", &"x".repeat(65)] {
        assert!(Uid::new(text).is_none(), "{text}");
    }
    assert!(Uid::new(&"x".repeat(64)).is_some());
}

#[test]
fn shells_read_each_word_as_it_was_decided() {
    let controls: String = ('\u{1}'..' ').chain(['\u{7f}']).filter(|each| *each != '\u{8}').collect();
    let ascii: String = (' '..='~').collect();
    let quotes = "'".repeat(50);
    let long = "x'\\\n".repeat(30_000);
    let words = [
        "",
        " ",
        "\n",
        "\n\n\n",
        "a\n",
        "'",
        "''",
        r"'\''",
        r"\",
        r"\\",
        r"\n",
        "*",
        "/*",
        "~",
        "$HOME",
        "`exit`",
        "$(exit)",
        "!!",
        "#",
        "-n",
        "--",
        "é\u{202e}\u{10ffff}\u{feff}",
        "\u{1}",
        "\u{1}\u{1}\u{7f}\u{7f}\u{1}",
        "WRIT2 x 1 \u{1c}",
        "' \nexit 7\n'",
        "\r",
        "\t",
        &controls,
        &ascii,
        &quotes,
        &long,
        "",
    ];
    let request = build_request(&nonce(), true, PRINT_WORDS, &words);
    let expected: Vec<u8> =
        [nonce().0.as_str()].iter().chain(&words).flat_map(|word| format!("{word}\0").into_bytes()).collect();
    let wrapped = self::build_request(&nonce(), false, PRINT_WORDS, &words);
    for shell in shells() {
        for request in [&request, &wrapped] {
            let output = run(shell, &request.command, &request.stdin);
            let position = expected.iter().zip(&output.stdout).position(|(left, right)| left != right);
            assert!(output.stdout == expected, "{shell:?}: {position:?} {output:?}");
            assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{shell:?}");
        }
    }
}

/// Returns true if the reply to this standard input is a refusal, and if no part of the script ran.
fn is_refused(shell: &[&str], line: &str, stdin: &[u8]) -> bool {
    let output = run(shell, line, stdin);
    output.status.code() == Some(93) && !output.stdout.windows(3).any(|part| part == b"RAN")
}

#[test]
fn request_that_is_not_whole_is_refused_and_not_evaluated() {
    let request = build_request(&nonce(), true, "echo RAN\nexit", &["it's\n\n", "\u{1c}é"]);
    let (line, whole) = (request.command.as_str(), request.stdin.as_slice());
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (first, second) = whole[header..].split_at((whole.len() - header) / 2);
    let half = (first, &second[1..]);
    assert_eq!(half.0, half.1);
    let separator = &second[..1];
    std::thread::scope(|scope| {
        for shell in shells() {
            scope.spawn(move || {
                assert_eq!(run(shell, line, whole).stdout, b"RAN\n", "{shell:?}");
                for end in 0..whole.len() {
                    assert!(is_refused(shell, line, &whole[..end]), "{shell:?}: cut at {end}");
                }
                // Simulates a background job that reads a part of the request or writes into the request.
                for at in (header..whole.len()).step_by(7) {
                    let (before, behind) = whole.split_at(at);
                    let lost = [before, &behind[1..]].concat();
                    let mixed = [before, b"\nx", behind].concat();
                    let changed = [before, &[behind[0] ^ 1], &behind[1..]].concat();
                    for other in [lost, mixed, changed] {
                        assert!(is_refused(shell, line, &other), "{shell:?}: at {at}");
                    }
                }
                let header = &whole[..header];
                for other in [
                    [header, first, separator, first, separator, first].concat(),
                    [header, first, separator].concat(),
                    [header, separator, first].concat(),
                    [header, first, first].concat(),
                    [header, separator].concat(),
                    [header, header, first, separator, first].concat(),
                    [first, separator, first].concat(),
                    [b"\n", whole].concat(),
                    [b"answer\n", whole].concat(),
                ] {
                    assert!(is_refused(shell, line, &other), "{shell:?}: {}", String::from_utf8_lossy(&other));
                }
            });
        }
    });
}

#[test]
fn refusal_of_a_cut_request_is_an_answer_if_its_nonce_came() {
    let request = build_request(&nonce(), true, "echo RAN\nexit", &[]);
    for shell in shells() {
        for (length, is_known) in [(request.stdin.len() - 1, true), (50, true), (20, false), (0, false)] {
            let output = run(shell, &request.command, &request.stdin[..length]);
            let (mut reply, mut answers) = (Reply::new(&nonce()), Vec::new());
            reply.stdout(&output.stdout, &mut |item| answers.push(format!("{item:?}")));
            let expected = if is_known {
                vec![format!("{:?}", ReplyEvent::Answer(Answer::Refused(RequestRefusal::Cut)))]
            } else {
                vec![]
            };
            assert_eq!((answers, reply.is_complete(), reply.has_begun()), (expected, is_known, is_known), "{shell:?}");
            assert_eq!(output.status.code(), Some(93));
        }
    }
}

proptest! {
    #[test]
    fn words_are_read_back_as_they_were_given(
        words in proptest::collection::vec(prop_oneof![any::<String>(), "['\\\\\n\u{1}-\u{8}\u{1c}-\u{1f}a]{0,8}"], 0..6)
    ) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let text = words.concat();
        let request = build_request(&nonce(), false, "true\n", &words);
        let cannot_be_said = text.contains('\0') || SEPARATORS.chars().all(|each| text.contains(each));
        prop_assert_eq!(request.stdin.is_empty(), cannot_be_said);
        if let Some((_, read, script)) = read(&request) {
            prop_assert_eq!(&read[1..], &words[..]);
            prop_assert_eq!(script, "true");
        }
    }
}
