//! Formats texts of machines, lists and times for messages.

use jiff::Timestamp;

/// Returns at most `limit` characters of the text of a machine, safe for a status, a log and a terminal. Replaces each
/// character that is not printable ASCII by `?`.
pub(super) fn printable(text: &str, limit: usize) -> String {
    let mut characters = text.chars().map(|character| match character {
        ' '..='~' => character,
        _ => '?',
    });
    let mut kept: String = characters.by_ref().take(limit).collect();
    if characters.next().is_some() {
        kept.push_str("...");
    }
    kept
}

/// Joins at most `limit` names to one text.
pub(super) fn join_limited(names: &[String], limit: usize) -> String {
    let shown: Vec<&str> = names.iter().take(limit).map(String::as_str).collect();
    match names.len().saturating_sub(limit) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Formats seconds since 1970 as a date. Returns the number itself if it is too large for a date (ssh-keygen's
/// "forever").
pub(super) fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    date.map_or_else(|| format!("second {seconds}"), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printable_is_a_question_mark_and_what_is_long_is_cut() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{e4}", 20), "a?[2Jb??");
        assert_eq!(printable("abcdef", 3), "abc...");
        assert_eq!(printable("abc", 3), "abc");
    }

    #[test]
    fn a_long_list_is_counted() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(join_limited(&names, 3), "a, b, c");
        assert_eq!(join_limited(&names, 1), "a and 2 more");
        assert_eq!(join_limited(&[], 1), "");
    }
}
