use proptest::prelude::*;

use super::*;

#[test]
fn text_that_fits_is_shown_whole() {
    let inline = Inline::of("grüße\n".as_bytes(), b"", 8);
    assert_eq!(inline, Inline { text: "grüße\n".to_owned(), encoding: Encoding::Utf8, truncated: false });
}

#[test]
fn bytes_that_are_not_utf8_are_shown_as_base64() {
    let inline = Inline::of(&[0xff, 0x00, 0x61], b"", 3);
    assert_eq!(inline, Inline { text: "/wBh".to_owned(), encoding: Encoding::Base64, truncated: false });
}

#[test]
fn a_character_split_by_the_cut_is_left_out_and_the_rest_stays_text() {
    let head = "ä".repeat(INLINE_BYTES);
    let tail = "ö".repeat(INLINE_BYTES);
    // Cut in the middle of a character at both ends.
    let inline = Inline::of(&head.as_bytes()[..INLINE_BYTES - 1], &tail.as_bytes()[1..INLINE_BYTES], 1 << 20);
    assert_eq!(inline.encoding, Encoding::Utf8);
    assert!(inline.text.starts_with('ä') && inline.text.ends_with('ö'));
}

#[test]
fn control_bytes_are_counted_as_json_writes_them() {
    let zeros = vec![0u8; INLINE_BYTES / 6 + 1];
    let inline = Inline::of(&zeros, b"", zeros.len() as u64);
    assert!(inline.truncated);
    assert!(json_length(&inline.text) <= INLINE_BYTES);
}

#[test]
fn the_longest_count_still_fits() {
    let (head, tail) = ([0xff; INLINE_BYTES], [0xfe; INLINE_BYTES]);
    assert!(Inline::of(&head, &tail, u64::MAX).text.len() <= INLINE_BYTES);
    assert!(json_length(&Inline::of(&[b'a'; INLINE_BYTES], &[b'b'; INLINE_BYTES], u64::MAX).text) <= INLINE_BYTES);
}

proptest! {
    #[test]
    fn whatever_is_written_the_text_stays_within_its_bound(bytes in proptest::collection::vec(any::<u8>(), 0..40_000)) {
        let head = &bytes[..bytes.len().min(INLINE_BYTES)];
        let rest = &bytes[head.len()..];
        let tail = &rest[rest.len().saturating_sub(INLINE_BYTES)..];
        let inline = Inline::of(head, tail, bytes.len() as u64);
        prop_assert!(serde_json::to_string(&inline.text).unwrap().len() <= INLINE_BYTES + 2);
        if !inline.truncated {
            let shown = match inline.encoding {
                Encoding::Utf8 => inline.text.into_bytes(),
                Encoding::Base64 => STANDARD.decode(inline.text).unwrap(),
            };
            prop_assert_eq!(shown, bytes);
        }
    }

    #[test]
    fn text_is_never_called_binary(text in "\\PC{0,9000}") {
        let bytes = text.as_bytes();
        let head = &bytes[..bytes.len().min(INLINE_BYTES)];
        let rest = &bytes[head.len()..];
        let tail = &rest[rest.len().saturating_sub(INLINE_BYTES)..];
        prop_assert_eq!(Inline::of(head, tail, bytes.len() as u64).encoding, Encoding::Utf8);
    }
}
