//! The last line of standard error of a failed command, for `status.message`.
//!
//! # Guarantees
//!
//! The line comes from the text in the status, which is redacted by the patterns of the rule. If the whole last line
//! was redacted, or if the stream is not text, the message has no such line.

use crate::api::execution_status::{Encoding, StreamRecord};

/// Maximum length of the line, in bytes. The line is a small part of a status message (at most 2048 characters).
const MAX_LINE_BYTES: usize = 256;
/// Mark at the end of a line that was cut.
const CUT: &str = "...";
/// Replacement for redacted text (`policy::REDACTED`), as a string.
const REDACTED: &str = "***";
/// Start of a remark that Writ itself adds to a stream.
const REMARK: &str = "[writ: ";

/// Returns the last line that is not blank. Returns `None` if the stream is not UTF-8, if all lines are blank, or if
/// this line has no information.
pub(super) fn last_line(text: &str, record: &StreamRecord) -> Option<String> {
    if record.encoding != Encoding::Utf8 {
        return None;
    }
    let line: String = text.lines().rev().map(printable).find(|line| !line.is_empty())?;
    // A line that consists only of remarks, redacted text and punctuation has no information.
    let information = line.split(REMARK).next().unwrap_or_default().replace(REDACTED, "");
    if !information.contains(char::is_alphanumeric) {
        return None;
    }
    Some(cut(line))
}

/// Replaces control characters, and characters that change the display of text, by spaces.
fn printable(line: &str) -> String {
    let is_hidden = |each: char| {
        each.is_control()
            || matches!(each, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let line: String = line.chars().map(|each| if is_hidden(each) { ' ' } else { each }).collect();
    line.trim().to_owned()
}

fn cut(mut line: String) -> String {
    if line.len() > MAX_LINE_BYTES {
        let end = line.floor_char_boundary(MAX_LINE_BYTES - CUT.len());
        line.truncate(end);
        line.push_str(CUT);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<String> {
        last_line(text, &record(Encoding::Utf8))
    }

    fn record(encoding: Encoding) -> StreamRecord {
        let text = serde_json::json!({"bytes": 1, "sha256": "", "truncated": false, "encoding": "utf-8"});
        StreamRecord { encoding, ..serde_json::from_value(text).unwrap() }
    }

    #[test]
    fn the_last_line_with_text_is_repeated_printable_and_bounded() {
        for (text, expected) in [
            ("no space left on the disk\n", Some("no space left on the disk")),
            ("first\nsecond", Some("second")),
            ("an error\n\n  \t\n", Some("an error")),
            ("windows\r\n", Some("windows")),
            ("\u{1b}[31mred\u{1b}[0m\u{7}\n", Some("[31mred [0m")),
            ("spoof\u{202e}txt.exe", Some("spoof txt.exe")),
            ("head\n[writ: 99 bytes left out here]\ntail", Some("tail")),
            ("password=*** refused", Some("password=*** refused")),
            ("", None),
            ("\n\n", None),
            ("head\n[writ: 99 bytes left out here]\n", None),
            ("text before\n***\n", None),
            ("text before\n*** ***: ***\n", None),
            ("*** [writ: a line of 70000 bytes was too long to be redacted]", None),
            ("---\n", None),
        ] {
            assert_eq!(line(text).as_deref(), expected, "{text:?}");
        }
        for text in ["x".repeat(1000), "ä".repeat(1000), "\u{1f600}a".repeat(300)] {
            let line = line(&text).unwrap();
            assert!(line.len() <= MAX_LINE_BYTES && line.len() > MAX_LINE_BYTES - 8 && line.ends_with(CUT), "{line}");
        }
        assert_eq!(last_line("YWJjZA==", &record(Encoding::Base64)), None);
        assert_eq!(REDACTED.as_bytes(), crate::policy::REDACTED);
    }
}
