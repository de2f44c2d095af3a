use super::*;

fn answer(line: &str) -> Option<Answer> {
    match read(line)? {
        ReplyLine::Answer { answer, .. } => Some(answer),
        ReplyLine::Frame { .. } | ReplyLine::Nothing | ReplyLine::Last => None,
    }
}

fn ending(rest: &str) -> Option<Ended> {
    match answer(&format!("D S 1 2 3 {rest}"))? {
        Answer::Ended(ended) => Some(ended),
        other => panic!("{other:?}"),
    }
}

#[test]
fn facts_are_cut_to_what_may_be_shown() {
    let long = "x".repeat(1000);
    let line = format!("F boot|we\u{1b}[31mb|x86_64|6.1|/bin/sh|\"Debian \u{202e}GNU|{long}\"");
    let Some(Answer::SystemInfo(said)) = answer(&line) else { panic!("no answer") };
    assert_eq!(said.hostname, "we[31mb");
    assert_eq!(said.os.len(), 255, "the quote at the start goes, the one at the end was cut off");
    assert!(said.os.starts_with("Debian GNU|xxx"));
    assert_eq!(answer("F only|four|words|here"), None);
}

#[test]
fn lines_that_are_no_answer_are_read() {
    assert!(matches!(read("+"), Some(ReplyLine::Nothing)) && matches!(read("."), Some(ReplyLine::Last)));
    assert!(matches!(read("C 0 1048576"), Some(ReplyLine::Frame { offset: 0, length: 1_048_576 })));
    let largest = format!("C {0} {0}", u64::MAX);
    assert!(matches!(read(&largest), Some(ReplyLine::Frame { offset: u64::MAX, length: u64::MAX })));
    for line in
        ["", " ", "+ ", "++", "..", ". ", " .", "C", "C ", "C 1", "C 1 ", "C  1 1", "C 1 1 1", "C +1 1", "C 1 -1"]
    {
        assert!(read(line).is_none(), "{line:?}");
    }
    assert!(read("C 18446744073709551616 1").is_none() && read("C 0 ١").is_none());
}

#[test]
fn probe_is_read_with_any_directory_that_can_be_used() {
    let Some(Answer::Inspected(facts)) = answer("P 7a-b 12 7c 1 0 /srv/a b | C 0 1") else { panic!("no answer") };
    assert_eq!((facts.boot_id.as_str(), facts.directory_id.as_str()), ("7a-b", "7c"));
    assert_eq!((facts.uptime_centiseconds, facts.login_shell_is_posix, facts.kills_user_processes), (12, true, false));
    assert_eq!(facts.directory, "/srv/a b | C 0 1");
    let long = "a".repeat(129);
    for rest in [
        "7a 1 7a 1 0 relative",
        "7a 1 7a 1 0 ",
        "7a 1 7a 1 0",
        "7a 1 7a 2 0 /x",
        "7a 1 7a 1 - /x",
        "7a - 7a 1 0 /x",
        "7g 1 7a 1 0 /x",
        " 1 7a 1 0 /x",
        "7a 1 ../x 1 0 /x",
        "7a 1 7a 1 0 /x\u{7f}",
        "7a 1 7a 1 0 /x\ty",
        "7a 1 7a 1 0 /x\u{85}",
        &format!("{long} 1 7a 1 0 /x"),
        &format!("7a 1 {long} 1 0 /x"),
    ] {
        assert_eq!(answer(&format!("P {rest}")), None, "{rest:?}");
    }
}

#[test]
fn end_is_read_with_its_code_signal_and_flags() {
    let ended = ending("0 - 4 5 6 - -").unwrap();
    assert_eq!((ended.from, ended.lengths), (Offsets { stdout: 1, stderr: 2 }, Offsets { stdout: 4, stderr: 5 }));
    assert_eq!((ended.started_centiseconds, ended.ended_centiseconds, ended.processes_left), (Some(3), Some(6), None));
    for (words, outcome) in [
        ("0 -", Some(ExitOutcome::Exited(0))),
        ("255 -", Some(ExitOutcome::Exited(255))),
        ("137 9", Some(ExitOutcome::Signalled(9))),
        ("255 127", Some(ExitOutcome::Signalled(127))),
        ("- -", Some(ExitOutcome::Unknown)),
        ("256 -", None),
        ("-1 -", None),
        ("+1 -", None),
        ("x -", None),
        ("- 9", None),
        ("x 9", None),
        ("1 0", None),
        ("1 128", None),
        ("1 +9", None),
    ] {
        assert_eq!(ending(&format!("{words} 0 0 0 - -")).map(|ended| ended.outcome), outcome, "{words}");
    }
    for (flags, shown) in [
        ("", (false, false, false, false, None, false)),
        ("T", (true, false, true, false, None, false)),
        ("C", (false, true, true, false, None, false)),
        ("K", (false, false, true, true, None, false)),
        ("O", (false, true, false, false, None, false)),
        ("G", (false, false, false, false, None, true)),
        ("I", (false, false, false, false, Some(Missing::Removed), false)),
        ("RI", (false, false, false, false, Some(Missing::ReaderEnded), false)),
        ("SRI", (false, false, false, false, Some(Missing::FileSizeLimit), false)),
        ("RF", (false, false, false, false, Some(Missing::DiskFull), false)),
        ("KTCFHG", (true, true, true, true, Some(Missing::Held), true)),
    ] {
        let ended = ending(&format!("1 - 0 0 0 -{flags} -")).unwrap();
        let Ended { timed_out, over_limit, was_ended, stopped, missing, output_removed, .. } = ended;
        assert_eq!((timed_out, over_limit, was_ended, stopped, missing, output_removed), shown, "{flags}");
    }
    for rest in ["1 - 0 0 0 T -", "1 - 0 0 0 -Z -", "1 - 0 0 0 -t -", "1 - 0 0 0 - +1", "1 - 0 0 0 -", "1 - 0 0 x - -"]
    {
        assert_eq!(ending(rest), None, "{rest}");
    }
}

#[test]
fn holders_are_read_by_number_and_name_and_are_bounded() {
    let holders = |held: &str| ending(&format!("1 - 0 0 0 -H - {held}")).map(|ended| ended.holders);
    let holder = |process, name: &str| Holder { process, name: name.to_owned() };
    assert_eq!(holders(""), Some(vec![]));
    assert_eq!(holders("-"), Some(vec![]));
    assert_eq!(holders("0"), Some(vec![]));
    assert_eq!(holders("2 12:cat 13:a.b_+-"), Some(vec![holder(12, "cat"), holder(13, "a.b_+-")]));
    let many = format!("99{}", " 1:x".repeat(99));
    assert_eq!(holders(&many).map(|all| all.len()), Some(MAX_HOLDERS));
    for held in ["x", "12:cat", "1 12", "1 12:", "1 x:cat", "1 12:c/t", "1 12:c:t", "1 12:é", "1 12:sixteenletters16"]
    {
        assert_eq!(holders(held), None, "{held}");
    }
}

#[test]
fn other_answers_are_read_in_their_form_only() {
    let tool = |name: &str| Some(Answer::Refused(RequestRefusal::MissingTool(name.to_owned())));
    assert_eq!(answer(&format!("R tool {}", "x".repeat(64))), tool(&"x".repeat(64)));
    assert_eq!(answer("R tool /usr/bin/\u{1b}env"), tool("/usr/bin/env"));
    for (line, refusal) in [
        ("R late", RequestRefusal::DeadlinePassed),
        ("R boot", RequestRefusal::Rebooted),
        ("R directory", RequestRefusal::DirectoryUnsuitable),
        ("R space", RequestRefusal::DiskFull),
        ("R unwritable", RequestRefusal::NotWritable),
        ("R proc", RequestRefusal::NoProc),
        ("R clock", RequestRefusal::NoClock),
        ("R cut", RequestRefusal::Cut),
    ] {
        assert_eq!(answer(line), Some(Answer::Refused(refusal)));
    }
    assert_eq!(answer("X sudo"), Some(Answer::NotStarted(NotStarted::SudoRefused)));
    assert_eq!(answer("X said a  b"), Some(Answer::NotStarted(NotStarted::SudoSaid("a b".to_owned()))));
    assert_eq!(answer("X space"), Some(Answer::NotStarted(NotStarted::DiskFull)));
    let uid = |text| Uid::new(text).unwrap();
    assert_eq!(answer("U a b-1"), Some(Answer::Unacknowledged(vec![uid("a"), uid("b-1")])));
    for line in [
        "R",
        "R else",
        "R late ",
        &format!("R tool {}", "x".repeat(65)),
        "X",
        "X else",
        "X said",
        "X sudo sudo",
        "K",
        "K -1",
        "K 1 1",
        "N more",
        "n",
        "U ../x",
        "U -a",
        "L A 0 0 1 5 0 else",
        "L A 0 0 1 5 0 boot boot",
        "L A 0 0 1 5",
        "L B 0 0 1 5 0",
        "L A - 0 1 5 0",
        "A S 0 0 1 1",
        "A S 0 0 1 1 -",
        "A s 0 0 1 1 1",
        "D",
        "D S 0 0 1",
        "E",
        "p",
        "p ",
        "p p N",
    ] {
        assert_eq!(answer(line), None, "{line:?}");
    }
    // An answer to a poll starts with `p` and has no output.
    for (line, has_bytes) in [("p L A 0 0 - 5 0", false), ("L A 0 0 - 5 0", true), ("p A A 0 0 1 1 1", false)] {
        assert!(matches!(read(line), Some(ReplyLine::Answer { bytes, .. }) if bytes == has_bytes), "{line}");
    }
}

#[test]
fn what_was_not_executed_is_told_with_its_reason() {
    assert_eq!(answer("R files"), Some(Answer::Refused(RequestRefusal::Files)));
    let said = RequestRefusal::Said("mkdir: cannot create directory".to_owned());
    assert_eq!(answer("R said mkdir: cannot create directory"), Some(Answer::Refused(said)));
    assert_eq!(answer("X files"), Some(Answer::NotStarted(NotStarted::Files)));
    assert!(
        matches!(answer("D S 0 0 1 1 - 0 29 2 -N -"), Some(Answer::Ended(ended)) if ended.refused_by_sudo && !ended.was_ended)
    );
}
