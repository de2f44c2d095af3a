use super::*;
use crate::launcher::{Ended, ExitOutcome, Lost, Missing, RequestRefusal, Running};

mod arbitrary;
mod sent;

use sent::Sent;

const NONCE: &str = "0123456789abcdef0123456789abcdef";
const MARK: &str = "WRIT2:0123456789abcdef0123456789abcdef:";
/// An offset beyond any output of these tests.
const BEHIND_THE_END: u64 = 1 << 40;

/// Events of a reply, and a flag that is true if the reply is complete.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    answers: Vec<Answer>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    broken: Vec<ReplyError>,
    complete: bool,
}

impl Said {
    fn read(&mut self, reply: &mut Reply, is_stderr: bool, piece: &[u8]) {
        let mut sink = |item: ReplyEvent<'_>| {
            assert!(self.broken.is_empty(), "something behind {:?}", self.broken);
            match item {
                ReplyEvent::Answer(answer) => self.answers.push(answer),
                ReplyEvent::Stdout(bytes) => self.stdout.extend_from_slice(bytes),
                ReplyEvent::Stderr(bytes) => self.stderr.extend_from_slice(bytes),
                ReplyEvent::Malformed(broken) => self.broken.push(broken),
            }
        };
        if is_stderr {
            reply.stderr(piece, &mut sink)
        } else {
            reply.stdout(piece, &mut sink)
        }
        self.complete = reply.is_complete();
        assert!(!self.complete || self.broken.is_empty());
        for stream in [&reply.stdout, &reply.stderr] {
            let line = if let State::Line(line) = &stream.state { line.len() } else { 0 };
            assert!(stream.frame.len() as u64 <= MAX_FRAME && line <= MAX_LINE, "too much is held");
        }
    }
}

fn reply_from(from: Offsets) -> Reply {
    Reply::resuming(&Nonce(NONCE.to_owned()), from)
}

/// Reads a reply in pieces of `size` bytes. Reads standard error either before or after standard output.
fn read_in_pieces(stdout: &[u8], stderr: &[u8], size: usize, stderr_first: bool) -> Said {
    let (mut reply, mut said) = (reply_from(Offsets::default()), Said::default());
    for is_stderr in [stderr_first, !stderr_first] {
        for piece in if is_stderr { stderr } else { stdout }.chunks(size) {
            said.read(&mut reply, is_stderr, piece);
        }
    }
    said
}

/// Reads a reply, and checks that the size of the pieces makes no difference.
fn read_all(stdout: &[u8], stderr: &[u8]) -> Said {
    let [first, last] = [true, false].map(|stderr_first| {
        let said = read_in_pieces(stdout, stderr, usize::MAX, stderr_first);
        for size in [1, 2, 7, 64] {
            assert_eq!(read_in_pieces(stdout, stderr, size, stderr_first), said, "{size}");
        }
        said
    });
    if last.broken.is_empty() {
        assert_eq!(first, last, "the order of the streams makes a difference");
    }
    last
}

/// Replaces each `@` by the mark of the request.
fn marked(text: &str) -> Vec<u8> {
    text.replace('@', MARK).into_bytes()
}

fn read_text(stdout: &str, stderr: &str) -> Said {
    read_all(&marked(stdout), &marked(stderr))
}

fn ended(lengths: Offsets) -> Ended {
    Ended {
        started_by_other: false,
        from: Offsets::default(),
        lengths,
        outcome: ExitOutcome::Exited(7),
        started_centiseconds: Some(100),
        ended_centiseconds: Some(105),
        timed_out: false,
        over_limit: false,
        was_ended: false,
        stopped: false,
        refused_by_sudo: false,
        missing: None,
        holders: Vec::new(),
        output_removed: false,
        processes_left: None,
    }
}

#[test]
fn short_command_is_its_frames_and_an_answer() {
    let said = read_text("motd @C 0 4\nout\n@+\n@D S 0 0 100 7 - 4 3 105 - -\n@.\n", "motd\n@C 0 3\nerr@+\n@.\n");
    assert_eq!(said.answers, [Answer::Ended(ended(Offsets { stdout: 4, stderr: 3 }))]);
    assert_eq!((said.stdout.as_slice(), said.stderr.as_slice(), said.complete), (&b"out\n"[..], &b"err"[..], true));
    // Without output, standard error has only the last mark.
    let said = read_text("@D S 0 0 100 7 - 0 0 105 - -\n@.\n", "@.\n");
    assert_eq!((said.answers, said.complete), (vec![Answer::Ended(ended(Offsets::default()))], true));
}

/// A start-up file has redirected standard error. The reader must detect the missing standard error, even if a greeting
/// arrives instead.
#[test]
fn what_is_told_without_standard_error_is_known_to_lack_it() {
    for (stdout, stderr, is_without) in [
        ("@C 0 4\nout\n@+\n@D S 0 0 100 7 - 4 3 105 - -\n@.\n", "", true),
        ("@L S 0 0 - 0 0\n@.\n", "motd\n", true),
        ("@D S 0 0 100 7 - 0 3 105 - -\n@.\n", "@C 0 3\n", false),
        ("@D S 0 0 100 7 - 0 3 105 - -\n@.\n", "@C 0 3\nerr@.\n", false),
        ("@D S 0 0 100 7 - 0 3 105 - -\n", "", false),
        ("@p D S 0 0 100 7 - 0 3 105 - -\n@.\n", "", false),
        ("@N\n@.\n", "", false),
        ("@C 0 3\nerr@.\n", "", false),
    ] {
        let mut reply = reply_from(Offsets::default());
        reply.stdout(&marked(stdout), &mut |_| {});
        reply.stderr(&marked(stderr), &mut |_| {});
        assert_eq!(reply.is_without_stderr(), is_without, "{stdout} {stderr}");
        assert!(!(is_without && reply.is_complete()));
    }
}

#[test]
fn long_command_is_an_answer_its_frames_and_another_answer() {
    let said = read_text(
        "@A A 0 0 - 120 4711\n@+\n@C 0 2\n@\n@+\n@+\n@C 2 3\nabc@+\n@D A 0 0 - 137 9 5 0 105 -TCKRI 2 9 12:cat 13:a_b\n@.\n"
            .replace("C 0 2\n@\n", "C 0 2\n\n\n")
            .as_str(),
        "@.\n",
    );
    let running = Running {
        started_by_other: true,
        from: Offsets::default(),
        started_centiseconds: None,
        now_centiseconds: Some(120),
        process_group: 4711,
    };
    assert_eq!(said.answers.first(), Some(&Answer::Running(running)));
    assert!(matches!(said.answers.last(), Some(Answer::Ended(ended))
        if ended.timed_out && ended.over_limit && ended.stopped && ended.was_ended && ended.processes_left == Some(2)
            && ended.missing == Some(Missing::ReaderEnded) && ended.outcome == ExitOutcome::Signalled(9)
            && ended.holders.len() == 2));
    assert_eq!((said.answers.len(), said.stdout.as_slice(), said.complete), (2, &b"\n\nabc"[..], true));
    // A mark in a frame counts as output.
    let frame = format!("@C 0 {}\n{MARK}.\n{MARK}N\n@+\n@A S 0 0 1 1 1\n", 2 * MARK.len() + 4);
    assert_eq!(read_text(&frame, "").stdout, marked("@.\n@N\n"));
}

#[test]
fn lost_command_is_complete_with_what_there_is() {
    let said = read_text("@C 0 2\nab@+\n@L A 0 0 - 2 0 boot\n@.\n", "@.\n");
    let lost = Lost {
        rebooted: true,
        started_by_other: true,
        from: Offsets::default(),
        lengths: Offsets { stdout: 2, stderr: 0 },
        started_centiseconds: None,
    };
    assert_eq!((said.answers, said.complete), (vec![Answer::Lost(lost)], true));
}

#[test]
fn single_answer_counts_once_its_closing_mark_came() {
    for (line, answer) in [
        ("N", Answer::Absent),
        ("B", Answer::Starting),
        ("V", Answer::Tombstoned),
        ("Q", Answer::Done),
        ("U", Answer::Unacknowledged(Vec::new())),
        ("K 3", Answer::Stopped { processes_left: Some(3) }),
        ("K -", Answer::Stopped { processes_left: None }),
        ("R late", Answer::Refused(RequestRefusal::DeadlinePassed)),
        ("R cut", Answer::Refused(RequestRefusal::Cut)),
        ("R tool setsid", Answer::Refused(RequestRefusal::MissingTool("setsid".to_owned()))),
    ] {
        let said = read_text(&format!("@{line}\n@.\n"), "");
        assert_eq!((said.answers.as_slice(), said.complete), (&[answer.clone()][..], true), "{line}");
        let whole = marked(&format!("@{line}\n@.\n"));
        for end in 0..whole.len() {
            let said = read_in_pieces(&whole[..end], b"", usize::MAX, false);
            let has_mark = end >= whole.len() - 2;
            assert_eq!((said.answers.len(), said.complete), (usize::from(has_mark), false), "{line}: {end}");
        }
    }
    // The reply to a poll contains no output, whatever the lengths are.
    let said = read_text("@p D A 0 0 1 0 - 4 5 1 - -\n@.\n", "");
    assert!(said.complete && matches!(said.answers.as_slice(), [Answer::Ended(ended)] if ended.lengths.stderr == 5));
    assert!(read_text("@p A A 0 0 1 1 1\n@.\n", "").complete);
}

#[test]
fn reply_that_contradicts_itself_is_broken() {
    let line = [
        "@\n",
        "@E\n@.\n",
        "@N more\n",
        "@ N\n",
        "@C 0\n",
        "@C 0 1 \n",
        "@C 0 -1\n",
        "@C 0 18446744073709551616\n",
        "@\u{fffd}\n",
        // A second answer, or an answer that contradicts the previous answer.
        "@N\n@N\n@.\n",
        "@N\n@C 0 1\n",
        "@D S 0 0 1 0 - 0 0 1 - -\n@D S 0 0 1 0 - 0 0 1 - -\n",
        "@D S 0 0 1 0 - 3 0 1 - -\n@C 0 3\nout@.\n",
        "@D S 0 0 1 0 - 0 0 1 - -\n@A S 0 0 1 1 1\n",
        "@A S 0 0 1 1 1\n@A S 0 0 1 1 1\n",
        "@A S 0 0 1 1 1\n@N\n@.\n",
        "@A S 0 0 1 1 1\n@V\n@.\n",
        "@A S 0 0 1 1 1\n@R late\n@.\n",
        "@A S 0 0 1 1 1\n@p D A 0 0 1 0 - 0 0 1 - -\n@.\n",
        "@C 0 1\nx@N\n@.\n",
        "@C 0 1\nx@A S 0 0 1 1 1\n",
    ];
    let lengths = [
        "@C 1 1\nx",
        "@C 0 1048577\n",
        "@C 0 18446744073709551615\n",
        // Frames whose offset is wrong: the same frame twice, a gap between two frames, and an overlap of two frames.
        "@C 0 2\nab@C 0 2\nab@+\n",
        "@C 0 2\nab@C 3 2\nab@+\n",
        "@C 0 2\nab@C 1 2\nbc@+\n",
    ];
    let mixed = ["@N\nx@.\n", "@+\n\n@N\n", "@C 0 2\nabc@+\n", "@C 0 2\na@+\n@+\n", "@N\nWRIT2:0@.\n", "@N\nW@.\n"];
    let all = [(&line[..], ReplyError::Line), (&lengths, ReplyError::BadLengths), (&mixed, ReplyError::Mixed)];
    for (text, broken) in all.into_iter().flat_map(|(texts, broken)| texts.iter().map(move |text| (*text, broken))) {
        let said = read_text(text, "");
        assert_eq!((said.broken.as_slice(), said.complete), (&[broken][..], false), "{text}");
    }
    for (stdout, stderr, broken) in [
        // Standard error must not contain an answer, or a frame with a wrong offset.
        ("", "@N\n", ReplyError::Line),
        ("", "@D S 0 0 1 0 - 4 0 1 - -\n", ReplyError::Line),
        ("@A S 0 0 1 1 1\n@+\n", "@A S 0 0 1 1 1\n", ReplyError::Line),
        ("@A S 0 0 1 1 1\n@+\n", "@C 1 1\n", ReplyError::BadLengths),
        // More or fewer bytes than announced.
        ("@C 0 1\nx@D S 0 0 1 0 - 2 0 1 - -\n@.\n", "@.\n", ReplyError::BadLengths),
        ("@C 0 3\nout@D S 0 0 1 0 - 2 0 1 - -\n@.\n", "@.\n", ReplyError::BadLengths),
        ("@D S 0 0 1 0 - 0 1 1 - -\n@.\n", "@.\n", ReplyError::BadLengths),
        ("@D S 0 0 1 0 - 0 0 1 - -\n@.\n", "@C 0 1\nx@.\n", ReplyError::BadLengths),
        ("@L A 0 0 1 5 0 boot\n@.\n", "@.\n", ReplyError::BadLengths),
    ] {
        let said = read_text(stdout, stderr);
        assert_eq!((said.broken.as_slice(), said.complete), (&[broken][..], false), "{stdout} {stderr}");
    }
    let said = read_all(&[MARK.as_bytes(), b"N\xff\n"].concat(), b"");
    assert_eq!(said.broken, [ReplyError::Line]);
}

#[test]
fn bytes_behind_the_last_mark_are_ignored() {
    let behind = ["x", "@N\n@.\n", "@C 0 5\nabcde@+\n"];
    for behind in behind {
        let stdout = format!("@C 0 3\nout@+\n@D S 0 0 1 0 - 3 2 1 - -\n@.\n{behind}");
        let said = read_text(&stdout, &format!("@C 0 2\ner@.\n{behind}"));
        assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"out"[..], &b"er"[..]));
        assert!(said.complete && said.answers.len() == 1, "{said:?}");
    }
    let (mut reply, mut said) = (reply_from(Offsets::default()), Said::default());
    said.read(&mut reply, false, &marked("@N\n@.\n"));
    for _ in 0..160 {
        said.read(&mut reply, false, &[b'x'; 1 << 16]);
    }
    assert!(said.complete);
}

#[test]
fn end_without_an_answer_is_not_complete() {
    for (stdout, stderr) in [
        ("@.\n", "@.\n"),
        ("@+\n@.\n", "@.\n"),
        ("@A S 0 0 1 1 1\n@.\n", "@.\n"),
        ("@C 0 1\nx@.\n", "@.\n"),
        ("@D S 0 0 1 0 - 0 0 1 - -\n@.\n", ""),
        ("", "@.\n"),
    ] {
        let said = read_text(stdout, stderr);
        assert!(!said.complete && said.broken.is_empty(), "{stdout}: {said:?}");
    }
}

#[test]
fn noise_before_the_first_mark_is_skipped_up_to_its_bound() {
    let short = &MARK[..MARK.len() - 1];
    let other = MARK.replace('f', "e");
    for noise in
        ["motd\n", "W", short, &other, &format!("{short}{other}"), &format!("{short}{short}W"), "WRIT2:\u{fffd}\n"]
    {
        for (stdout, stderr) in [(noise, noise), (noise, ""), ("", noise)] {
            let stdout = format!("{stdout}@C 0 3\nout@+\n@D S 0 0 1 0 - 3 0 1 - -\n@.\n");
            let said = read_text(&stdout, &format!("{stderr}@.\n"));
            assert!(said.complete && said.stdout == b"out", "{noise}: {said:?}");
        }
    }
    // The bytes of the mark count as preamble too.
    let most = MAX_PREAMBLE - MARK.len();
    for pattern in ["x", short, "WRIT2:0123456789abcdefW"] {
        for (length, broken) in
            [(most, vec![]), (most + 1, vec![ReplyError::NoReplyFound]), (200_000, vec![ReplyError::NoReplyFound])]
        {
            let noise: Vec<u8> = pattern.bytes().cycle().take(length).collect();
            let (stdout, stderr) = ([&noise[..], &marked("@N\n@.\n")].concat(), [&noise[..], &marked("@.\n")].concat());
            let said = read_all(&stdout, b"");
            assert_eq!((said.broken, said.complete), (broken.clone(), broken.is_empty()), "{pattern} {length}");
            assert_eq!(read_all(b"", &stderr).broken, broken, "{pattern} {length}");
        }
    }
}

/// Returns standard output, standard error that is not UTF-8, and the reply that contains both.
fn sample(stdout: &str) -> (Vec<u8>, Vec<u8>, Sent) {
    let stdout = marked(stdout);
    let stderr = b"\xff\0err\n".to_vec();
    let sent = Sent::of(&stdout, &stderr, &[3, 0, 50], true);
    (stdout, stderr, sent)
}

#[test]
fn reply_cut_at_any_byte_is_not_complete_and_gives_a_prefix() {
    let (stdout, stderr, sent) = sample("out\n@.\nWRIT2:@C 0 5\n");
    assert!(read_all(&sent.stdout, &sent.stderr).complete);
    for stderr_first in [true, false] {
        for end in 0..sent.stdout.len() {
            let said = read_in_pieces(&sent.stdout[..end], &sent.stderr, usize::MAX, stderr_first);
            assert!(!said.complete && said.broken.is_empty() && stdout.starts_with(&said.stdout), "{end}: {said:?}");
            assert_eq!(said.stderr, stderr);
        }
        for end in 0..sent.stderr.len() {
            let said = read_in_pieces(&sent.stdout, &sent.stderr[..end], usize::MAX, stderr_first);
            assert!(!said.complete && said.broken.is_empty() && stderr.starts_with(&said.stderr), "{end}: {said:?}");
            assert_eq!(said.stdout, stdout);
        }
    }
}

/// Inserts foreign text without the nonce at each byte of a stream. The reader must emit only correct output.
#[test]
fn text_mixed_in_at_any_byte_gives_a_prefix_or_nothing() {
    let (stdout, stderr, sent) = sample("out\nWRIT2:C 0 5\nW+\n");
    let whole = read_all(&sent.stdout, &sent.stderr);
    let short = &MARK[..MARK.len() - 1];
    let long = "hello\n".repeat(100);
    for noise in ["\n", "x", "W", "hello\n", "WRIT2:", short, "\u{fffd}", &long] {
        for is_stderr in [false, true] {
            let stream = if is_stderr { &sent.stderr } else { &sent.stdout };
            for at in MARK.len()..=stream.len() {
                let mixed = [&stream[..at], noise.as_bytes(), &stream[at..]].concat();
                let said = match is_stderr {
                    false => read_in_pieces(&mixed, &sent.stderr, usize::MAX, false),
                    true => read_in_pieces(&sent.stdout, &mixed, usize::MAX, true),
                };
                assert!(stdout.starts_with(&said.stdout) && stderr.starts_with(&said.stderr), "{at}: {noise}");
                // If the foreign text is a newline before the last newline, the reply is still complete.
                assert_eq!(said.complete, mixed.starts_with(stream), "{at}: {noise}: {said:?}");
                assert!(!said.complete || said == whole);
            }
        }
    }
}

#[test]
fn output_from_offsets_begins_there_and_may_begin_behind_the_end() {
    let read = |from, stdout: &str, stderr: &str| {
        let (mut reply, mut said) = (reply_from(from), Said::default());
        said.read(&mut reply, true, &marked(stderr));
        said.read(&mut reply, false, &marked(stdout));
        said
    };
    let from = Offsets { stdout: 2, stderr: 1 };
    let said = read(from, "@C 2 2\nt\n@+\n@D A 2 1 1 0 - 4 2 1 - -\n@.\n", "@C 1 1\nr@+\n@.\n");
    assert!(said.complete && said.stdout == b"t\n" && said.stderr == b"r", "{said:?}");
    let said = read(from, "@D A 2 1 1 0 - 2 1 1 - -\n@.\n", "@.\n");
    assert!(said.complete && said.stdout.is_empty(), "{said:?}");
    for stdout in ["@C 0 2\nou", "@C 3 1\n\n", "@D A 2 1 1 0 - 4 1 1 - -\n@.\n"] {
        assert_eq!(read(from, stdout, "@.\n").broken, [ReplyError::BadLengths], "{stdout}");
    }
    for behind in [3, BEHIND_THE_END, u64::MAX] {
        let from = Offsets { stdout: behind, stderr: behind };
        let said = read(from, "@D A 2 1 1 0 - 2 1 1 - -\n@.\n", "@.\n");
        assert!(said.complete && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
        assert!(read(from, "@A A 2 1 1 1 1\n@D A 2 1 1 0 - 2 1 1 - -\n@.\n", "@.\n").complete);
        assert!(read(from, "@N\n@.\n", "").complete);
        assert_eq!(read(from, "@C 2 1\nx", "").broken, [ReplyError::BadLengths]);
    }
    // The reader must refuse a frame if the sum of its offset and its length exceeds 64 bits.
    let end = Offsets { stdout: u64::MAX, stderr: 0 };
    assert_eq!(read(end, "@C 18446744073709551615 1\nx@+\n", "").broken, [ReplyError::BadLengths]);
}

#[test]
fn endless_text_of_any_kind_is_bounded() {
    const PIECE: usize = 1 << 16;
    let endless = |start: &str, piece: &[u8]| {
        [false, true].map(|is_stderr| {
            let (mut reply, mut said) = (reply_from(Offsets::default()), Said::default());
            said.read(&mut reply, is_stderr, &marked(start));
            for _ in 0..160 {
                said.read(&mut reply, is_stderr, piece);
            }
            assert!(!said.complete && said.stdout.is_empty() && said.stderr.is_empty() && said.answers.is_empty());
            assert!(reply.stdout.frame.capacity() + reply.stderr.frame.capacity() <= 4 << 20);
            said.broken
        })
    };
    let letters = [b'x'; PIECE];
    assert_eq!(endless("", &letters), [[ReplyError::NoReplyFound]; 2]);
    assert_eq!(endless("@", &letters), [[ReplyError::Line]; 2]);
    assert_eq!(endless("@+\n", &letters), [[ReplyError::Mixed]; 2]);
    assert_eq!(endless("@C 0 1048576\n", &letters), [[ReplyError::Mixed]; 2]);
    // Marks without content cause no events, even if there are very many.
    assert_eq!(endless("", &marked("@+\n")), [const { Vec::<ReplyError>::new() }; 2]);
    assert_eq!(endless("", &marked("@C 0 0\n")), [const { Vec::<ReplyError>::new() }; 2]);
    // Only a line of more than `MAX_LINE` bytes is refused.
    let line = format!("@R tool {}", "x".repeat(MAX_LINE));
    let end = MARK.len() + MAX_LINE - 1;
    for (end, broken) in [(end, vec![]), (end + 1, vec![]), (end + 2, vec![ReplyError::Line])] {
        assert_eq!(read_in_pieces(&marked(&line)[..end], b"", 1000, false).broken, broken, "{end}");
    }
}

#[test]
fn output_of_many_frames_of_the_greatest_size_is_not_held() {
    let frame = vec![b'x'; 1 << 20];
    let (mut reply, mut said) = (reply_from(Offsets::default()), Said::default());
    for number in 0..12 {
        said.read(&mut reply, false, &marked(&format!("@C {} {}\n", number << 20, 1 << 20)));
        said.read(&mut reply, false, &frame);
        assert_eq!(said.stdout.len(), number << 20, "it counts with the mark behind it");
        assert!(reply.stdout.frame.capacity() <= 2 << 20);
    }
    said.read(&mut reply, false, &marked("@+\n"));
    assert_eq!(said.stdout.len(), 12 << 20);
}
