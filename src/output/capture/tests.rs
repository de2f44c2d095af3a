use super::*;

fn captured(chunks: &[&[u8]]) -> (String, StreamRecord) {
    let mut capture = Capture::default();
    for chunk in chunks {
        capture.push(chunk);
    }
    capture.finish()
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
    let mut capture = Capture::default();
    capture.push(b"first line\n");
    for _ in 0..1000 {
        capture.push(&[b'x'; 4096]);
    }
    capture.push(b"\nlast line\n");
    assert!(capture.head.len() <= INLINE_BYTES && capture.tail.len() <= INLINE_BYTES);
    let (text, record) = capture.finish();
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
        let mut capture = Capture::default();
        bytes.chunks(size).for_each(|chunk| capture.push(chunk));
        assert_eq!(capture.head, &bytes[..INLINE_BYTES], "chunks of {size}");
        assert!(capture.tail.iter().eq(&bytes[bytes.len() - INLINE_BYTES..]), "chunks of {size}");
    }
}
