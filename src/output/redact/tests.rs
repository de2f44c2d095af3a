use proptest::prelude::*;

use super::*;

/// Two patterns that overlap, a pattern that matches up to the end of the line, and a pattern with anchors.
const PATTERNS: &[&str] = &["token=[a-c]+", "c+b", "key .*", r"^\S+;$"];

fn redaction(patterns: &[&str]) -> Redaction {
    let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Redaction::compile(&patterns).expect("patterns")
}

fn redactor(max_line_bytes: usize) -> Redactor {
    Redactor { max_line_bytes, ..Redactor::new(&redaction(PATTERNS)) }
}

fn passed(mut redactor: Redactor, chunks: &[&[u8]], truncated: bool) -> Vec<u8> {
    let mut output: Vec<u8> = chunks.iter().flat_map(|chunk| redactor.push(chunk).into_owned()).collect();
    output.extend(redactor.finish_stream(truncated));
    output
}

#[track_caller]
fn gives(chunks: &[&str], expected: &str) {
    let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
    let output = passed(redactor(MAX_LINE_BYTES), &chunks, false);
    assert_eq!(String::from_utf8(output).unwrap(), expected, "{chunks:?}");
}

/// Returns the expected output: splits a whole text by newlines and redacts each line.
fn by_hand(text: &[u8], max_line_bytes: usize) -> Vec<u8> {
    let mut lines = redaction(PATTERNS).line_redactor();
    let shown = text.split(|byte| *byte == b'\n').map(|line| {
        let mut output = Vec::new();
        if line.len() > max_line_bytes {
            let note = format!("*** [writ: a line of {} bytes was too long to be redacted]", line.len());
            output.extend(note.into_bytes());
        } else {
            lines.redact(line, &mut output);
        }
        output
    });
    shown.collect::<Vec<_>>().join(&b'\n')
}

#[test]
fn a_secret_that_is_cut_into_chunks_is_found() {
    gives(&["to", "ken=a", "bc", " rest\n"], "*** rest\n");
    gives(&["a\ntoken=a", "b\nb\n"], "a\n***\nb\n");
    gives(&["x", ";", "\r", "\n"], "***\r\n");
    gives(&["", "token=", "", "a", ""], "***");
}

#[test]
fn a_last_line_without_a_newline_is_redacted_too() {
    gives(&["one\ntoken=abc"], "one\n***");
    gives(&["one\nx;"], "one\n***");
    gives(&["one"], "one");
    gives(&[], "");
    gives(&["\n"], "\n");
}

#[test]
fn a_secret_is_not_looked_for_over_the_ends_of_lines() {
    gives(&["token=\nabc\n"], "token=\nabc\n");
    gives(&["key a\nb\n"], "***\nb\n");
}

#[test]
fn lines_that_are_complete_are_not_held_back() {
    let mut redactor = redactor(MAX_LINE_BYTES);
    assert_eq!(redactor.push(b"one\ntw").as_ref(), b"one\n");
    assert_eq!(redactor.push(b"o").as_ref(), b"");
    assert_eq!(redactor.push(b"\n\n").as_ref(), b"two\n\n");
    assert_eq!(redactor.finish_stream(false), b"");
}

#[test]
fn without_patterns_bytes_pass_as_they_come() {
    let mut redactor = Redactor::new(&Redaction::default());
    assert!(!redactor.redacts());
    let huge = vec![b'x'; 1 << 20];
    for bytes in [&b"token=ab"[..], b"c", b"\n", &huge] {
        assert!(matches!(redactor.push(bytes), Cow::Borrowed(same) if same == bytes));
    }
    assert_eq!((redactor.finish_stream(true), redactor.pending_line.capacity()), (Vec::new(), 0));
}

#[test]
fn a_line_that_is_too_long_is_replaced_whole_and_the_next_is_not() {
    let long = "token=a".repeat(3);
    let note = "*** [writ: a line of 21 bytes was too long to be redacted]";
    for text in [format!("{long}\nfine\n"), format!("fine\n{long}"), format!("{long}\n{long}\n")] {
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(4).collect();
        let output = String::from_utf8(passed(redactor(20), &chunks, false)).unwrap();
        assert_eq!(output, text.replace(&long, note));
    }
    let just = "x".repeat(20);
    assert_eq!(passed(redactor(20), &[just.as_bytes()], false), just.as_bytes());
}

#[test]
fn ten_mebibytes_without_a_newline_cost_no_more_than_a_line() {
    let mut redactor = redactor(MAX_LINE_BYTES);
    for _ in 0..1280 {
        assert!(redactor.push(&[b'a'; 8192]).is_empty());
        assert!(
            redactor.pending_line.len() <= MAX_LINE_BYTES && redactor.pending_line.capacity() <= 2 * MAX_LINE_BYTES
        );
    }
    assert_eq!(redactor.finish_stream(false), b"*** [writ: a line of 10485760 bytes was too long to be redacted]");
}

#[test]
fn a_last_line_that_was_cut_off_is_not_shown_as_it_may_be_half_of_a_secret() {
    // The truncated stream lacks the `b` of a text that the pattern `c+b` would match. Writ must therefore replace the
    // whole line.
    let output = passed(redactor(MAX_LINE_BYTES), &[b"one\nccc"], true);
    assert_eq!(output, b"one\n*** [writ: a line of 3 bytes was cut off before it could be redacted]");
    assert_eq!(passed(redactor(MAX_LINE_BYTES), &[b"one\n"], true), b"one\n");
    assert_eq!(passed(redactor(2), &[b"ccc"], true), passed(redactor(2), &[b"ccc"], false));
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&[u8]] = &[
        b"token=",
        b"abc",
        b"cc",
        b"b",
        b"key ",
        b";",
        b"\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\xff\xc3",
        b" ",
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    let word = prop::sample::select(WORDS);
    proptest::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn wherever_the_stream_is_cut_it_is_redacted_as_if_it_were_whole(
        text in text(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        max_line_bytes in prop_oneof![Just(MAX_LINE_BYTES), 1..40usize],
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|two| &text[two[0]..two[1]]).collect();
        let output = passed(redactor(max_line_bytes), &chunks, false);
        prop_assert_eq!(&output, &by_hand(&text, max_line_bytes));
        prop_assert_eq!(output, passed(redactor(max_line_bytes), &[&text], false));
    }

    #[test]
    fn whatever_the_bytes_are_every_newline_stays(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let newlines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(newlines(&passed(redactor(100), &[&bytes], false)), newlines(&bytes));
    }
}
