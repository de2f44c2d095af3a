use std::cell::Cell;

use super::*;

const ALL: Bounds = Bounds { before: 0, after: 0, limit: MAX_MATCHES };

fn search(pattern: &str, bounds: Bounds, chunks: &[&[u8]]) -> Vec<Match> {
    let mut search = Search::new(compile(pattern).unwrap(), bounds, 0);
    chunks.iter().for_each(|chunk| search.push(chunk, || false));
    search.finish().0
}

fn lines(matches: &[Match]) -> Vec<(u64, &str)> {
    matches.iter().map(|found| (found.offset, found.line.as_str())).collect()
}

#[test]
fn a_line_over_chunk_borders_is_found_once_with_its_offset() {
    let whole = b"one\ntwo error 1\r\nthree\nerror 2";
    for size in 1..=whole.len() {
        let chunks: Vec<&[u8]> = whole.chunks(size).collect();
        let found = search("err[o]r", ALL, &chunks);
        assert_eq!(lines(&found), [(4, "two error 1"), (23, "error 2")], "{size}");
        assert_eq!(found[0].match_offset, 8);
    }
}

#[test]
fn anchors_mean_the_line_and_not_the_chunk() {
    let chunks: [&[u8]; 3] = [b"x", b"a\nab", b"\nba\n"];
    assert_eq!(lines(&search("^a", ALL, &chunks)), [(3, "ab")]);
    assert_eq!(lines(&search("a$", ALL, &chunks)), [(0, "xa"), (6, "ba")]);
}

#[test]
fn context_overlaps_and_ends_with_the_stream() {
    let bounds = Bounds { before: 2, after: 2, limit: 10 };
    let found = search("[24]", bounds, &[b"1\n2\n3\n4\n5"]);
    assert_eq!(lines(&found), [(2, "2"), (6, "4")]);
    assert_eq!((found[0].before.clone(), found[0].after.clone()), (vec!["1".to_owned()], vec!["3".into(), "4".into()]));
    assert_eq!((found[1].before.clone(), found[1].after.clone()), (vec!["2".into(), "3".into()], vec!["5".to_owned()]));
}

#[test]
fn the_limit_ends_the_search_after_the_last_context() {
    let bounds = Bounds { before: 0, after: 1, limit: 2 };
    let mut search = Search::new(compile("a").unwrap(), bounds, 100);
    search.push(b"a\na\n", || false);
    assert!(!search.is_full());
    search.push(b"a\nb\na\n", || false);
    assert!(search.is_full());
    let (found, searched) = search.finish();
    assert_eq!((lines(&found), searched), (vec![(100, "a"), (102, "a")], 6));
    assert_eq!(found[1].after, ["a"]);
}

#[test]
fn a_long_line_is_cut_in_the_answer_and_searched_in_parts() {
    let long = [b"x".repeat(MAX_LINE + 100), b"needle\nnext".to_vec()].concat();
    let found = search("needle", ALL, &[&long]);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].offset, found[0].match_offset), (MAX_LINE as u64, MAX_LINE as u64 + 100));
    let found = search("^xx", ALL, &[&"\u{20ac}".repeat(2000).into_bytes(), b"\n", &b"x".repeat(5000)]);
    assert_eq!(found[0].line.len(), MAX_SHOWN);
    let found = search("\u{20ac}", ALL, &["\u{20ac}".repeat(2000).as_bytes()]);
    assert_eq!(found[0].line, "\u{20ac}".repeat(MAX_SHOWN / 3));
}

#[test]
fn the_answer_is_bounded_even_if_each_line_matches() {
    let line = [b"\xff".repeat(MAX_SHOWN), b"\n".to_vec()].concat();
    let mut search = Search::new(compile(".*").unwrap(), ALL, 0);
    for _ in 0..1000 {
        search.push(&line, || false);
    }
    assert!(search.is_full());
    let (found, _) = search.finish();
    let size: usize = found.iter().map(|found| found.line.len()).sum();
    assert!(size < MAX_ANSWER + 3 * MAX_SHOWN, "{size}");
}

#[test]
fn a_late_search_ends_between_lines_and_counts_what_it_searched() {
    let mut search = Search::new(compile("a").unwrap(), ALL, 0);
    let left = Cell::new(2);
    search.push(b"a1\na2\na3\na4", || {
        left.set(left.get() - 1);
        left.get() < 0
    });
    let (found, searched) = search.finish();
    assert_eq!((lines(&found), searched), (vec![(0, "a1"), (3, "a2")], 6));
}

#[test]
fn missing_bytes_separate_lines() {
    let mut search = Search::new(compile("ab|cd").unwrap(), Bounds { before: 1, after: 1, limit: 9 }, 0);
    search.push(b"cd a", || false);
    search.skip_to(10);
    search.push(b"b\ncd\n", || false);
    let (found, _) = search.finish();
    assert_eq!(lines(&found), [(0, "cd a"), (12, "cd")]);
    assert!(found[0].after.is_empty() && found[1].before == ["b"]);
}

#[test]
fn a_pattern_that_is_no_pattern_or_too_large_is_refused() {
    let nested = format!("{}a{}", "(".repeat(200), ")".repeat(200));
    let long = "a".repeat(MAX_PATTERN + 1);
    for pattern in ["", "(", "[", "a{99999}", "((a{100}){100}){100}", r"\w{1000}", "(?P<x>", &nested, &long] {
        let error = compile(pattern).unwrap_err();
        assert!(error.status.as_u16() == 422 && error.body.message.starts_with("grep "), "{pattern}: {error:?}");
        assert!(!error.body.message.contains('\n'), "{pattern}: {error:?}");
    }
    for pattern in ["a", r"\w+@\w+", r"(?i)error|warn", "\u{e9}", r"\d{1,3}(\.\d{1,3}){3}", r"\bfoo\b"] {
        compile(pattern).unwrap();
    }
}
