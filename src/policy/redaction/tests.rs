use proptest::prelude::*;

use super::*;

fn compiled(patterns: &[&str]) -> Redaction {
    let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Redaction::compile(&patterns).unwrap_or_else(|error| panic!("{error}"))
}

fn redacted(patterns: &[&str], line: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    compiled(patterns).line_redactor().redact(line, &mut output);
    output
}

#[track_caller]
fn shows(patterns: &[&str], line: &str, expected: &str) {
    assert_eq!(String::from_utf8(redacted(patterns, line.as_bytes())).unwrap(), expected, "{patterns:?} on {line:?}");
}

#[track_caller]
fn refused(pattern: &str) -> PatternError {
    match Redaction::compile(&["fine".to_owned(), pattern.to_owned()]) {
        Err(RedactionError::Pattern { position: 1, problem }) => problem,
        other => panic!("{pattern:?}: {other:?}"),
    }
}

#[test]
fn what_a_pattern_matches_is_replaced_and_the_rest_stays() {
    shows(&[r"token=\S+"], "a token=hunter2 b token=x", "a *** b ***");
    shows(&["secret"], "nothing here", "nothing here");
    shows(&["secret"], "", "");
    shows(&["(?i)password: .*"], "PASSWORD: a b c", "***");
    shows(&[], "token=hunter2", "token=hunter2");
}

#[test]
fn matches_that_overlap_or_touch_become_one_so_that_none_hides_another() {
    // Both patterns are matched with the original line, so no part of a match remains.
    shows(&["abc", "bcd"], "xabcdx", "x***x");
    shows(&["bcd", "abc"], "xabcdx", "x***x");
    shows(&["ab", "cd"], "xabcdx", "x***x");
    shows(&["[0-9]"], "pin 1234.", "pin ***.");
    shows(&["a.*z", "m"], "-a m z- m", "-***- ***");
    shows(&["m", "a.*z"], "a m z", "***");
    // Patterns are not matched with the replacements of other patterns.
    shows(&["a", r"\*+"], "a*b", "***b");
}

#[test]
fn the_ends_of_the_line_are_anchors_also_before_a_carriage_return() {
    shows(&["^key"], "key key", "*** key");
    shows(&["key$"], "key key", "key ***");
    shows(&["^.+$"], "key key\r", "***\r");
    shows(&[r"=\S+$"], "a=b\r\r", "a***\r\r");
    shows(&["^b"], "a\rb", "a\rb");
    shows(&[r"\bkey\b"], "keykey key", "keykey ***");
}

#[test]
fn any_byte_is_matched_by_what_takes_any() {
    assert_eq!(redacted(&[r"p=\S+"], b"p=\xff\x00\xc3 q"), b"*** q");
    assert_eq!(redacted(&["p=.+"], b"a p=\xff \x00\xc3("), b"a ***");
    assert_eq!(redacted(&[r"\xff"], b"\xfe\xff\xfe"), b"\xfe***\xfe");
    assert_eq!(redacted(&["key"], b"\xff\x00key\x00"), b"\xff\x00***\x00");
    // Case folding applies only to ASCII, so other bytes stay unchanged.
    assert_eq!(redacted(&["(?i)k"], "Kk\u{212a}".as_bytes()), "***\u{212a}".as_bytes());
}

#[test]
fn a_pattern_that_admits_the_empty_text_is_refused() {
    for pattern in ["a*", "a?", "^", "$", r"\b", "(|a)", "a|", "(?:)", "a{0,3}", "(?i)", "^$", "a*?", "(a*)+"] {
        assert_eq!(refused(pattern), PatternError::MatchesEmpty, "{pattern}");
    }
}

#[test]
fn a_pattern_that_does_not_parse_is_refused() {
    for pattern in ["(", "a)", "[a", "a{2,1}", "*", "(?<n>a", r"(a)\1", "(?=a)b", "(?<!a)b", r"\q"] {
        assert!(matches!(refused(pattern), PatternError::Syntax { .. }), "{pattern}");
    }
    assert!(matches!(refused(&format!("{}a{}", "(".repeat(40), ")".repeat(40))), PatternError::Syntax { .. }));
}

#[test]
fn a_pattern_that_is_too_large_is_refused_before_it_costs_anything() {
    for pattern in ["a{100000}", "(?:(?:a{1000}){1000}){1000}", "(?:a{0,1000}b){0,1000}c", "[a-z]{4000}"] {
        assert_eq!(refused(pattern), PatternError::TooLarge, "{pattern}");
    }
    assert_eq!(refused(""), PatternError::Length);
    assert_eq!(refused(&"a".repeat(257)), PatternError::Length);
    compiled(&[&"a".repeat(256), "[A-Za-z0-9_-]{100,}", r"(?i)[a-f0-9]{64,96}"]);
    let many = vec!["a".to_owned(); MAXIMUM_PATTERNS + 1];
    assert_eq!(Redaction::compile(&many).unwrap_err(), RedactionError::TooManyPatterns);
}

#[test]
fn a_pattern_that_would_never_be_found_is_refused() {
    for pattern in [r"BEGIN KEY\n.*", r"a[\n]b", r"(a|b\x0a)", r"a(?:\r\n)+b"] {
        assert_eq!(refused(pattern), PatternError::SpansLines, "{pattern}");
    }
    for pattern in ["[a&&b]", "x[^\\x00-\\xff]"] {
        assert_eq!(refused(pattern), PatternError::MatchesNothing, "{pattern}");
    }
    for pattern in [r"\pL", "(?u).", r"(?u)\w+", r"a(?u:\b)", r"a(?u:\s)"] {
        assert_eq!(refused(pattern), PatternError::Unicode, "{pattern}");
    }
    assert_eq!(refused("caf\u{e9}"), PatternError::Unprintable { position: 3, byte: 0xc3 });
    assert_eq!(refused("a\nb"), PatternError::Unprintable { position: 1, byte: b'\n' });
    // A class that contains the newline still matches its other members.
    shows(&[r"a[\s]b", r"c[^x]d"], "a b c-d", "*** ***");
}

#[test]
fn a_problem_is_told_with_its_place_and_what_to_do() {
    let problem = Redaction::compile(&["fine".to_owned(), "a)".to_owned()]).unwrap_err().to_string();
    assert_eq!(problem, "redact[1] is not a regular expression as Rust's regex crate takes it: unopened group at 1");
    let problem = Redaction::compile(&["a*".to_owned()]).unwrap_err().to_string();
    assert!(problem.starts_with("redact[0] admits the empty text") && problem.contains("`+`"), "{problem}");
    assert!(!refused("a{100000}").to_string().contains("{{"));
}

#[test]
fn after_very_many_matches_the_rest_of_the_line_is_replaced() {
    let line = "a-".repeat(MATCHES);
    shows(&["a"], &line[..line.len() - 1], &["***"; MATCHES].join("-"));
    shows(&["a"], &format!("{line}nothing"), &["***"; MATCHES].join("-"));
    // Another pattern still matches to the left of the replaced rest.
    shows(&["a", "b"], &format!("b_{line}"), &format!("***_{}", ["***"; MATCHES].join("-")));
}

#[test]
fn a_line_that_would_take_the_square_of_its_length_is_replaced_from_there_on() {
    // Each match is short, but each search reads to the end of the line for a longer match.
    let started = std::time::Instant::now();
    let line = "a-".repeat(32 << 10);
    let searches = 1 + MAX_SEARCH_BYTES / line.len();
    shows(&["a.*z|a"], &line, &vec!["***"; searches].join("-"));
    // The maximum applies to all patterns together. Each later pattern finds one match, then the rest of the line is
    // replaced.
    shows(&["a.*z|a"; MAXIMUM_PATTERNS], &line, "***");
    // The search takes far less than 20 s. Without the maximum, it would take minutes.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn what_a_search_remembers_is_bounded_whatever_it_meets() {
    // The automaton of this pattern can reach 2^60 states. Random text therefore needs more states than the cache can
    // hold.
    let redaction = compiled(&["[ab]*a[ab]{60}z"]);
    let mut lines = redaction.line_redactor();
    let mut state = 12345u64;
    let line = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state >> 40 & 1) as u8
    });
    let line: Vec<u8> = line.take(64 << 10).collect();
    let mut output = Vec::new();
    lines.redact(&line, &mut output);
    assert_eq!(output, line);
    let memory: usize = lines.searches.iter().map(|(_, cache)| cache.memory_usage()).sum();
    assert!(memory <= 300 << 10, "{memory}");
}

/// Redacts plain texts with a simple method: marks every byte of each occurrence as covered.
fn by_hand(texts: &[&str], line: &str) -> String {
    let mut covered = vec![false; line.len()];
    for text in texts {
        let mut at = 0;
        while let Some(found) = line[at..].find(text) {
            covered[at + found..at + found + text.len()].fill(true);
            at += found + text.len();
        }
    }
    let mut shown = String::new();
    for (index, character) in line.char_indices() {
        if !covered[index] {
            shown.push(character);
        } else if index == 0 || !covered[index - 1] {
            shown.push_str("***");
        }
    }
    shown
}

proptest! {
    #[test]
    fn every_occurrence_is_replaced_and_nothing_else(
        texts in proptest::collection::vec("[abc]{1,4}", 1..5),
        line in "[abc\r\\* ]{0,60}[abc ]",
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let shown = String::from_utf8(redacted(&texts, line.as_bytes())).unwrap();
        prop_assert_eq!(shown, by_hand(&texts, &line));
    }

    #[test]
    fn no_pattern_and_no_line_is_met_with_a_panic_or_with_what_it_matches(
        pattern in r"[ -~]{1,24}",
        line in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(redaction) = Redaction::compile(&[pattern]) {
            let mut output = Vec::new();
            redaction.line_redactor().redact(&line, &mut output);
            prop_assert!(output == line || output.windows(3).any(|three| three == REDACTED));
        }
    }
}
