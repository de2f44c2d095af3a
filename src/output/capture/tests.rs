use super::*;
use crate::api::execution_status::Encoding;

const INLINE_BYTES: usize = 8192;

fn capture(inline_bytes: usize, patterns: &[&str]) -> Capture {
    let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Capture::new(inline_bytes, &Redaction::compile(&patterns).expect("patterns"))
}

fn of(mut capture: Capture, chunks: &[&[u8]]) -> (String, StreamRecord) {
    for chunk in chunks {
        capture.push(chunk);
    }
    finish(capture)
}

fn finish(mut capture: Capture) -> (String, StreamRecord) {
    capture.finish_stream(false);
    capture.finish()
}

fn captured(chunks: &[&[u8]]) -> (String, StreamRecord) {
    of(capture(INLINE_BYTES, &[]), chunks)
}

#[test]
fn nothing_written_has_the_digest_of_nothing() {
    let (text, record) = captured(&[]);
    assert_eq!(text, "");
    assert_eq!(record.bytes, 0);
    assert_eq!(record.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert!(!record.truncated);
}

#[test]
fn short_output_is_kept_to_the_byte_however_it_is_cut_into_chunks() {
    let (text, record) = captured(&[b"he", b"", b"llo\n"]);
    assert_eq!(text, "hello\n");
    assert_eq!(record.bytes, 6);
    assert_eq!(record.sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
}

#[test]
fn huge_output_keeps_head_and_tail_and_counts_all_of_it() {
    let mut capture = capture(INLINE_BYTES, &[]);
    capture.push(b"first line\n");
    for _ in 0..1000 {
        capture.push(&[b'x'; 4096]);
    }
    capture.push(b"\nlast line\n");
    assert!(capture.head.len() <= INLINE_BYTES && capture.tail.len() <= INLINE_BYTES);
    let (text, record) = finish(capture);
    assert_eq!(record.bytes, 11 + 4096 * 1000 + 11);
    assert!(record.truncated);
    assert!(text.starts_with("first line\nxxx") && text.ends_with("xxx\nlast line\n"), "{text}");
    assert!(text.contains("bytes left out here]"));
}

#[test]
fn a_single_chunk_far_larger_than_the_bounds_keeps_its_two_ends() {
    let mut bytes = vec![b'-'; 1 << 20];
    bytes[0] = b'A';
    *bytes.last_mut().unwrap() = b'Z';
    let (text, record) = captured(&[&bytes]);
    assert_eq!(record.bytes, 1 << 20);
    assert!(text.starts_with('A') && text.ends_with('Z'));
}

#[test]
fn the_tail_is_the_end_of_the_stream_when_chunks_straddle_the_head() {
    let bytes: Vec<u8> = (0..30_000u32).map(|index| b'a' + (index % 26) as u8).collect();
    for size in [1, 7, 100, 8191, 8192, 8193, 20_000] {
        let mut capture = capture(INLINE_BYTES, &[]);
        bytes.chunks(size).for_each(|chunk| drop(capture.push(chunk)));
        assert_eq!(capture.head, &bytes[..INLINE_BYTES], "chunks of {size}");
        assert!(capture.tail.iter().eq(&bytes[bytes.len() - INLINE_BYTES..]), "chunks of {size}");
    }
}

#[test]
fn what_is_redacted_is_neither_shown_nor_counted_nor_digested() {
    let (text, record) = of(capture(INLINE_BYTES, &[r"token=\S+"]), &[b"a tok", b"en=hunter2 b\nc"]);
    assert_eq!(text, "a *** b\nc");
    let (plain, expected) = captured(&[b"a *** b\nc"]);
    assert_eq!((text, record.bytes, record.sha256), (plain, expected.bytes, expected.sha256));
    assert!(record.redacted && !expected.redacted);
}

#[test]
fn a_rule_with_patterns_says_so_where_none_matches_and_where_nothing_was_written() {
    for chunks in [&[b"plain\n".as_slice()] as &[&[u8]], &[]] {
        assert!(of(capture(INLINE_BYTES, &["secret"]), chunks).1.redacted);
    }
}

#[test]
fn secrets_that_are_redacted_at_the_cut_of_head_and_tail_do_not_come_back_in_either() {
    for length in 80..140 {
        let mut bytes = "x".repeat(length).into_bytes();
        bytes.extend_from_slice(b"hunter2 ");
        bytes.extend("y".repeat(400).into_bytes());
        bytes.extend_from_slice(b" hunter2");
        bytes.extend("z".repeat(length).into_bytes());
        let (text, record) = of(capture(400, &["hunter[0-9]"]), &[&bytes]);
        assert!(record.truncated && !text.contains("hunter") && !text.contains("unter2"), "{text}");
    }
}

#[test]
fn nothing_is_shown_with_a_bound_of_nothing_and_all_of_it_is_counted() {
    let (text, record) = of(capture(0, &[]), &[b"hello\n"]);
    let (_, whole) = captured(&[b"hello\n"]);
    assert_eq!((text.as_str(), record.truncated, record.encoding), ("", true, Encoding::Utf8));
    assert_eq!((record.bytes, record.sha256), (6, whole.sha256));
    assert!(!of(capture(0, &[]), &[]).1.truncated, "of nothing nothing is left out");
}

#[test]
fn a_bound_over_what_the_status_takes_is_that() {
    let (text, _) = of(capture(usize::MAX, &[]), &[&[b'a'; 100_000]]);
    assert!(text.len() <= MAXIMUM_INLINE_BYTES && text.len() > MAXIMUM_INLINE_BYTES - 200);
}

#[test]
fn ten_mebibytes_without_a_newline_are_held_no_more_than_a_line() {
    let mut capture = capture(INLINE_BYTES, &["secret"]);
    for _ in 0..160 {
        capture.push(&[b's'; 65_536]);
        assert!(capture.head.is_empty() && capture.tail.is_empty());
    }
    let (text, record) = finish(capture);
    assert_eq!(text, "*** [writ: a line of 10485760 bytes was too long to be redacted]");
    assert_eq!((record.bytes, record.truncated), (text.len() as i64, false));
}
