//! Random replies.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Output of a command that has read the nonce and tries to forge a reply.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        3 => vec(any::<u8>(), 0..20),
        1 => "WRIT2:?[0-9a-f]{0,3}|W|\n|[a-z]{0,3}".prop_map(String::into_bytes),
        1 => Just(marked("@")),
        1 => Just(marked("@+\n")),
        1 => Just(marked("@.\n")),
        1 => Just(marked("@N\n@.\n")),
        1 => (0..100_u32, 0..100_u32).prop_map(|(offset, length)| marked(&format!("@C {offset} {length}\n"))),
        1 => Just(marked("@D S 0 0 1 0 - 0 0 1 - -\n@.\n")),
        1 => Just(MARK.as_bytes()[..MARK.len() - 1].to_vec()),
    ];
    vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// Text without the nonce.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        vec(any::<u8>(), 1..30),
        Just(b"W".to_vec()),
        Just(b"WRIT2:".to_vec()),
        Just(MARK.as_bytes()[..MARK.len() - 1].to_vec()),
        Just(MARK.replace('f', "e").into_bytes()),
        Just(b"C 0 10\n".to_vec()),
        Just(b"\n".to_vec()),
    ];
    let has_no_nonce = |noise: &Vec<u8>| !noise.windows(NONCE.len()).any(|part| part == NONCE.as_bytes());
    vec(part, 1..4).prop_map(|parts| parts.concat()).prop_filter("the nonce", has_no_nonce)
}

/// Pieces of a reply. Each piece has a flag (true for standard error) and a number of bytes.
fn pieces() -> impl Strategy<Value = Vec<(bool, usize)>> {
    vec((any::<bool>(), prop_oneof![1..4_usize, 1..100_usize]), 1..30)
}

fn read_pieces(sent: &Sent, pieces: &[(bool, usize)]) -> Said {
    let (mut reply, mut said) = (reply_from(Offsets::default()), Said::default());
    let mut rest = [&sent.stdout[..], &sent.stderr[..]];
    while rest.iter().any(|stream| !stream.is_empty()) {
        // Each round also reads a piece of each stream, so that the loop ends.
        for (is_stderr, size) in pieces.iter().chain(&[(false, 10), (true, 10)]) {
            let stream = rest[usize::from(*is_stderr)];
            let (piece, behind) = stream.split_at((*size).min(stream.len()));
            rest[usize::from(*is_stderr)] = behind;
            said.read(&mut reply, *is_stderr, piece);
        }
    }
    said
}

/// Returns the positions at which foreign text can be: after the first mark, but not inside a mark or its line.
fn positions(stream: &[u8]) -> Vec<usize> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < stream.len() {
        let line = stream[at..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let text = std::str::from_utf8(&stream[at + MARK.len()..at + line - 1]).unwrap();
        let length: usize =
            text.strip_prefix("C ").map_or(0, |frame| frame.split_once(' ').unwrap().1.parse().unwrap());
        all.extend(at + line..=at + line + length);
        at += line + length;
    }
    all
}

proptest! {
    /// The reader emits exactly the bytes of the command, for any frames, pieces and order of the streams.
    #[test]
    fn every_byte_of_every_output_comes(
        stdout in output(), stderr in output(), sizes in vec(0..60_usize, 0..5), runs in any::<bool>(), pieces in pieces(),
        noises in [text(), text()]
    ) {
        let mut sent = Sent::of(&stdout, &stderr, &sizes, runs);
        sent.stdout.splice(0..0, noises[0].clone());
        sent.stderr.splice(0..0, noises[1].clone());
        let said = read_pieces(&sent, &pieces);
        prop_assert_eq!(said.broken, vec![]);
        prop_assert!(said.complete && said.answers.len() == 1 + usize::from(runs));
        prop_assert_eq!((said.stdout, said.stderr), (stdout, stderr));
    }

    /// If foreign text is inserted at a possible position, the reader emits no wrong byte. The reply is complete only
    /// if the foreign text is at the end of a stream.
    #[test]
    fn text_of_others_is_no_output(
        stdout in text(), stderr in text(), sizes in vec(0..60_usize, 0..5), runs in any::<bool>(), pieces in pieces(),
        noise in text(), place in any::<prop::sample::Index>(), is_stderr in any::<bool>()
    ) {
        let mut sent = Sent::of(&stdout, &stderr, &sizes, runs);
        let stream = if is_stderr { &mut sent.stderr } else { &mut sent.stdout };
        let positions = positions(stream);
        let at = *place.get(&positions);
        let is_behind = at == stream.len();
        stream.splice(at..at, noise);
        let said = read_pieces(&sent, &pieces);
        prop_assert!(stdout.starts_with(&said.stdout) && stderr.starts_with(&said.stderr));
        prop_assert_eq!(said.complete, is_behind);
        prop_assert!(!said.complete || (said.stdout, said.stderr) == (stdout, stderr));
    }

    /// The result does not depend on the size of the pieces, even for a hostile reply. The reader emits no more bytes
    /// than it received.
    #[test]
    fn size_of_pieces_makes_no_difference(
        stdout in hostile(), stderr in hostile(), size in 1..50_usize, stderr_first in any::<bool>()
    ) {
        let all = read_in_pieces(&stdout, &stderr, usize::MAX, stderr_first);
        prop_assert_eq!(&all, &read_in_pieces(&stdout, &stderr, size, stderr_first));
        prop_assert!(all.stdout.len() <= stdout.len() && all.stderr.len() <= stderr.len());
        prop_assert!(all.answers.len() <= 2 && all.broken.len() <= 1);
    }
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("@".to_owned()),
        Just("\n".to_owned()),
        Just("@+\n".to_owned()),
        Just("@.\n".to_owned()),
        "WRIT2:[0-9]{0,12}",
        "@C [0-9] [0-9]\n[a-z]{0,9}",
        "@p? ?[ADLNKRXUPFQ]( [0-9AS]{1,3}){0,9}( -)?( -[TCKIG]{0,2})?( [0-9-])?\n",
        "@[ADL] S 0 0 1 [01] - ?[0-9]? ?[0-9]? ?1 - -\n",
        "[ -~]{0,20}",
    ];
    vec(part, 0..10).prop_map(|parts| marked(&parts.concat()))
}
