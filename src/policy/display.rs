//! Displays an argument vector for people. The text is never executed.

use crate::api::execution_status::MAX_COMMAND_LINE;

/// End of a truncated text.
const CUT: &str = " ...";

/// Returns the words of an argument vector, separated by spaces. An empty word, or a word with a character that is
/// unusual in names, paths and options, is quoted. A control character is shown as `?`.
pub fn display(argv: &[String]) -> String {
    let mut text = String::new();
    for word in argv {
        // The text is truncated below, so the remaining words of a long vector are not needed.
        if text.len() > 4 * MAX_COMMAND_LINE {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "/.,:=_-+@%^".contains(character);
        if !word.is_empty() && word.chars().all(is_plain) {
            text.push_str(word);
        } else {
            text.push('\'');
            for character in word.chars() {
                match character {
                    '\'' => text.push_str("'\\''"),
                    _ if character.is_control() => text.push('?'),
                    _ => text.push(character),
                }
            }
            text.push('\'');
        }
    }
    if text.chars().count() <= MAX_COMMAND_LINE {
        return text;
    }
    text.chars().take(MAX_COMMAND_LINE - CUT.len()).chain(CUT.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        display(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_told_apart_and_a_long_command_says_that_it_was_cut() {
        assert_eq!(shown(&["/bin/df", "-h", "--output=source,size"]), "/bin/df -h --output=source,size");
        assert_eq!(shown(&["/bin/echo", "a b", "", "it's", "~", "a;b"]), "/bin/echo 'a b' '' 'it'\\''s' '~' 'a;b'");
        assert_eq!(shown(&["/bin/echo", "a\nb\u{1b}[0m"]), "/bin/echo 'a?b?[0m'");
        assert_eq!(shown(&[]), "");
        let whole = "a".repeat(MAX_COMMAND_LINE);
        assert_eq!(shown(&[&whole]), whole);
        let long = "ä".repeat(5000);
        let cut = shown(&["/bin/echo", &long, &long]);
        assert_eq!(cut.chars().count(), MAX_COMMAND_LINE);
        assert!(cut.starts_with("/bin/echo 'ää") && cut.ends_with("ä ..."));
    }
}
