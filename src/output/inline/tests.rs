use proptest::prelude::*;

use super::*;

const BOUND: usize = 8192;

#[test]
fn text_that_fits_is_shown_whole() {
    let inline = Inline::of("grüße\n".as_bytes(), b"", 8, BOUND);
    assert_eq!(inline, Inline { text: "grüße\n".to_owned(), encoding: Encoding::Utf8, truncated: false });
}

#[test]
fn bytes_that_are_not_utf8_are_shown_as_base64() {
    let inline = Inline::of(&[0xff, 0x00, 0x61], b"", 3, BOUND);
    assert_eq!(inline, Inline { text: "/wBh".to_owned(), encoding: Encoding::Base64, truncated: false });
}

#[test]
fn a_character_split_by_the_cut_is_left_out_and_the_rest_stays_text() {
    let head = "ä".repeat(BOUND);
    let tail = "ö".repeat(BOUND);
    // The bytes are cut in the middle of a character at both ends. The text must have only whole characters.
    let inline = Inline::of(&head.as_bytes()[..BOUND - 1], &tail.as_bytes()[1..BOUND], 1 << 20, BOUND);
    assert_eq!(inline.encoding, Encoding::Utf8);
    assert!(inline.text.starts_with('ä') && inline.text.ends_with('ö'));
}

#[test]
fn control_bytes_are_counted_as_json_writes_them() {
    let zeros = vec![0u8; BOUND / 6 + 1];
    let inline = Inline::of(&zeros, b"", zeros.len() as u64, BOUND);
    assert!(inline.truncated);
    assert!(json_length(&inline.text) <= BOUND);
}

#[test]
fn the_longest_count_still_fits() {
    let (head, tail) = ([0xff; BOUND], [0xfe; BOUND]);
    assert!(Inline::of(&head, &tail, u64::MAX, BOUND).text.len() <= BOUND);
    assert!(json_length(&Inline::of(&[b'a'; BOUND], &[b'b'; BOUND], u64::MAX, BOUND).text) <= BOUND);
}

#[test]
fn with_a_bound_of_nothing_nothing_is_shown_and_only_what_is_left_out_is_truncated() {
    let empty = |truncated| Inline { text: String::new(), encoding: Encoding::Utf8, truncated };
    assert_eq!(Inline::of(b"", b"", 0, 0), empty(false));
    assert_eq!(Inline::of(b"", b"", 5, 0), empty(true));
}

#[test]
fn a_bound_that_has_no_room_for_head_and_tail_leaves_the_line_between_them_or_nothing() {
    let (head, tail) = ([b'a'; 100], [b'b'; 100]);
    assert_eq!(Inline::of(&head, &tail, 1000, 100).text, "\n[writ: 1000 bytes left out here]\n");
    assert_eq!(Inline::of(&head[..20], &tail[..20], 1000, 20).text, "");
    assert_eq!(Inline::of(b"short", b"", 5, 20).text, "short", "what fits is shown");
}

proptest! {
    #[test]
    fn whatever_is_written_the_text_stays_within_its_bound(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40_000),
            proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'\n'), Just(0xc3), Just(0xa4)], 0..300),
        ],
        bound in prop_oneof![0..300usize, Just(BOUND), Just(2 * BOUND)],
    ) {
        let head = &bytes[..bytes.len().min(bound)];
        let rest = &bytes[head.len()..];
        let tail = &rest[rest.len().saturating_sub(bound)..];
        let inline = Inline::of(head, tail, bytes.len() as u64, bound);
        prop_assert!(serde_json::to_string(&inline.text).unwrap().len() <= bound + 2);
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
        let head = &bytes[..bytes.len().min(BOUND)];
        let rest = &bytes[head.len()..];
        let tail = &rest[rest.len().saturating_sub(BOUND)..];
        prop_assert_eq!(Inline::of(head, tail, bytes.len() as u64, BOUND).encoding, Encoding::Utf8);
    }
}
