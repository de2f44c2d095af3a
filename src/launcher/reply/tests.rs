use proptest::prelude::*;

use super::*;
use crate::launcher::{Ended, Outcome, Running};

const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// What a reply has said.
#[derive(Debug, Default, PartialEq)]
struct Said {
    answers: Vec<Answer>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    broken: Option<Broken>,
    complete: bool,
}

/// Reads a reply in pieces of this size, standard error first or last.
fn read_in_pieces(stdout: &[u8], stderr: &[u8], size: usize, stderr_first: bool) -> Said {
    let mut reply = Reply::new(&Nonce(NONCE.to_owned()));
    let mut said = Said::default();
    for is_stderr in [stderr_first, !stderr_first] {
        for piece in if is_stderr { stderr } else { stdout }.chunks(size) {
            let mut sink = |item: Item<'_>| match item {
                Item::Answer(answer) => said.answers.push(answer),
                Item::Stdout(bytes) => said.stdout.extend_from_slice(bytes),
                Item::Stderr(bytes) => said.stderr.extend_from_slice(bytes),
                Item::Broken(broken) => said.broken = Some(broken),
            };
            if is_stderr { reply.stderr(piece, &mut sink) } else { reply.stdout(piece, &mut sink) }
        }
    }
    said.complete = reply.is_complete();
    said
}

fn whole(stdout: &[u8], stderr: &[u8]) -> Said {
    let said = read_in_pieces(stdout, stderr, usize::MAX, false);
    for size in [1, 2, 7, 64] {
        for stderr_first in [false, true] {
            let other = read_in_pieces(stdout, stderr, size, stderr_first);
            if said.broken.is_none() {
                assert_eq!(other, said, "{size}");
            } else {
                assert!(other.broken.is_some() && !other.complete);
            }
        }
    }
    said
}

fn marked(text: &str) -> Vec<u8> {
    text.replace('@', &format!("WRIT:{NONCE}:")).into_bytes()
}

#[test]
fn a_short_command_is_a_line_and_its_bytes() {
    let said = whole(&marked("hello WRIT:0 @D S 0 0 100 7 - 4 3 105 - -\nout\n"), &marked("motd@2\nerr"));
    let ended = Ended {
        attached: false,
        from: Offsets::default(),
        lengths: Offsets { stdout: 4, stderr: 3 },
        outcome: Outcome::Exited(7),
        started_centiseconds: 100,
        ended_centiseconds: 105,
        timed_out: false,
        over_limit: false,
        stopped: false,
        output_incomplete: false,
        output_gone: false,
        left: None,
    };
    assert_eq!(said.answers, [Answer::Ended(ended)]);
    assert_eq!((said.stdout.as_slice(), said.stderr.as_slice(), said.complete), (&b"out\n"[..], &b"err"[..], true));
}

#[test]
fn a_long_command_is_a_line_its_bytes_and_another_line() {
    let stdout = marked("@A A 2 0 100 120 4711\nt of WRIT:01 WRIT\n@D A 2 0 100 137 9 20 0 105 -TCKI 2\n");
    let said = whole(&stdout, &marked("@2\n"));
    let running = Running {
        attached: true,
        from: Offsets { stdout: 2, stderr: 0 },
        started_centiseconds: 100,
        now_centiseconds: 120,
        process_group: 4711,
    };
    assert_eq!(said.answers.first(), Some(&Answer::Running(running)));
    assert!(matches!(said.answers.last(), Some(Answer::Ended(ended))
        if ended.timed_out && ended.over_limit && ended.stopped && ended.output_incomplete
            && ended.left == Some(2) && ended.outcome == Outcome::Signalled(9)));
    assert_eq!((said.stdout.as_slice(), said.complete), (&b"t of WRIT:01 WRIT\n"[..], true));
}

#[test]
fn less_than_was_promised_is_not_complete() {
    for (stdout, stderr) in [
        ("", ""),
        ("@", ""),
        ("@N", ""),
        ("@D S 0 0 1 0 - 4 0 1 - -\nout", ""),
        ("@D S 0 0 1 0 - 4 1 1 - -\nout\n", "@2\n"),
        ("@D S 0 0 1 0 - 4 1 1 - -\nout\n", ""),
        ("@A S 0 0 1 1 1\nsome", "@2\n"),
        ("@A S 0 0 1 1 1\nsome@D S 0 0 1 0 - 5 0 1 - -\n", "@2\n"),
        ("@L A 0 0 1 5 0 boot\nsome", "@2\n"),
    ] {
        let said = whole(&marked(stdout), &marked(stderr));
        assert!(!said.complete && said.broken.is_none(), "{stdout}: {said:?}");
    }
}

#[test]
fn what_comes_behind_the_promised_is_dropped() {
    let said = whole(&marked("@D S 0 0 1 0 - 3 2 1 - -\nout@D S\n"), &marked("@2\ner"));
    assert_eq!((said.stdout.as_slice(), said.complete), (&b"out"[..], true));
    let said = read_in_pieces(&marked("@D S 0 0 1 0 - 3 2 1 - -\nout"), &marked("@2\nerr"), 100, false);
    assert_eq!((said.stderr.as_slice(), said.complete), (&b"er"[..], true));
}

#[test]
fn what_says_nothing_known_is_broken() {
    for stdout in [
        "@\n",
        "@E\n",
        "@N more\n",
        "@D\n",
        "@D S 0 0 1 256 - 4 0 1 - -\n",
        "@D S 0 0 1 0 0 4 0 1 - -\n",
        "@D S 0 0 1 0 128 4 0 1 - -\n",
        "@D S 0 0 1 0 - 4 0 1 -Z -\n",
        "@D S 0 0 1 0 - 4 0 1 T -\n",
        "@D S 0 0 1 0 - +4 0 1 - -\n",
        "@D S 0 0 1 0 - 18446744073709551616 0 1 - -\n",
        "@D S 5 0 1 0 - 4 0 1 - -\n",
        "@D B 0 0 1 0 - 4 0 1 - -\n",
        "@A S 0 0 1 1\n",
        "@A S 0 0 1 1 1\n@N\n",
        "@A S 0 0 1 1 1\n@A S 0 0 1 1 1\n",
        "@A S 0 0 1 1 1\nmore@D S 0 0 1 0 - 3 0 1 - -\n",
        "@L A 0 0 1 5 0 else\n",
        "@R else\n",
        "@X else\n",
        "@K -1\n",
        "@U ../x\n",
        "@P 7a 1 7a 1 0 relative\n",
        "@P 7a 1 7a 2 0 /x\n",
        "@P 7g 1 7a 1 0 /x\n",
        "@2\n",
        "@\u{ff}\n",
    ] {
        let said = whole(&marked(stdout), b"");
        assert!(said.broken.is_some() && !said.complete, "{stdout}: {said:?}");
    }
    assert_eq!(whole(b"", &marked("@3\n")).broken, Some(Broken::Line));
}

#[test]
fn every_other_answer_is_a_line() {
    for (line, answer) in [
        ("N", Answer::Absent),
        ("B", Answer::Starting),
        ("V", Answer::Tombstoned),
        ("Q", Answer::Done),
        ("U", Answer::Leftovers(Vec::new())),
        ("K 3", Answer::Stopped { left: Some(3) }),
        ("R late", Answer::Refused(crate::launcher::Refusal::Late)),
        ("R tool setsid", Answer::Refused(crate::launcher::Refusal::NoTool("setsid".to_owned()))),
    ] {
        let said = whole(&marked(&format!("@{line}\n")), b"");
        assert_eq!((said.answers.as_slice(), said.complete), (&[answer][..], true), "{line}");
    }
    // Without bytes, whatever the lengths.
    let said = whole(&marked("@p D A 0 0 1 0 - 4 5 1 - -\n"), b"");
    assert!(said.complete && matches!(said.answers.as_slice(), [Answer::Ended(ended)] if ended.lengths.stderr == 5));
}

#[test]
fn noise_and_lines_are_bounded() {
    let noise = vec![b'x'; MOST_NOISE + 1];
    assert_eq!(whole(&noise, b"").broken, Some(Broken::Noise));
    assert_eq!(whole(b"", &noise).broken, Some(Broken::Noise));
    let mut line = marked("@");
    line.resize(line.len() + LONGEST_LINE + 1, b'x');
    assert_eq!(whole(&line, b"").broken, Some(Broken::Line));
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("@".to_owned()),
        Just("\n".to_owned()),
        "WRIT:[0-9]{0,12}",
        "@[A-Zp2] ?[AS]( [0-9]{1,3}){0,9}( -)?( -[TCKIG]{0,2})?( [0-9-])?\n",
        "@p D A 0 0 1 0 - [0-9] [0-9] 1 - -\n",
        "@[AD] S 0 0 1 [01] - ?[0-9]? ?[0-9]? ?1 - -\n",
        "[ -~]{0,20}",
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| marked(&parts.concat()))
}

proptest! {
    /// Whatever comes, and however it is cut: the same is read, and no more is given out than came.
    #[test]
    fn what_is_read_does_not_hang_on_the_pieces(stdout in hostile(), stderr in hostile(), size in 1..50_usize) {
        let all = read_in_pieces(&stdout, &stderr, usize::MAX, false);
        let pieces = read_in_pieces(&stdout, &stderr, size, false);
        prop_assert_eq!(&all.answers, &pieces.answers);
        prop_assert_eq!(all.broken, pieces.broken);
        prop_assert_eq!(all.complete, pieces.complete);
        if all.broken.is_none() {
            prop_assert_eq!(&all.stdout, &pieces.stdout);
            prop_assert_eq!(&all.stderr, &pieces.stderr);
        }
        prop_assert!(all.stdout.len() <= stdout.len() && all.stderr.len() <= stderr.len());
        prop_assert!(all.answers.len() <= 2 && !(all.complete && all.broken.is_some()));
    }

    /// Output that looks like the mark, live: all of it comes.
    #[test]
    fn output_that_looks_like_the_mark_comes_whole(parts in proptest::collection::vec("WRIT:?[0-9a-f]{0,3}|W|\n|[a-z]{0,3}", 0..30), size in 1..20_usize) {
        let output = parts.concat().replace("WRIT:", &format!("WRIT:{}", NONCE.get(..31).unwrap()));
        let line = format!("@A S 0 0 1 1 1\n{output}@D S 0 0 1 0 - {} 0 1 - -\n", output.len());
        let said = read_in_pieces(&marked(&line), &marked("@2\n"), size, true);
        prop_assert_eq!(said.stdout, output.as_bytes());
        prop_assert!(said.complete);
    }
}
