//! Patterns with `*` and `?` in annotations.

/// Returns true if one of the patterns matches the whole text. `patterns` is a list, separated by commas. An empty list
/// matches nothing.
pub fn any_matches(patterns: &str, text: &str) -> bool {
    patterns.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()).any(|pattern| matches(pattern, text))
}

/// Returns true if a pattern matches a text. `*` matches any number of characters, and `?` matches exactly one
/// character. The time is at most proportional to the product of the two lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut in_text) = (0, 0);
    // Position of the last `*` in the pattern, and the end of its match in the text. If the later characters do not
    // match, the match of `*` grows by one character.
    let mut star: Option<(usize, usize)> = None;
    while let Some(character) = text.get(in_text) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, in_text));
                at += 1;
            }
            Some(each) if each == character || *each == '?' => {
                at += 1;
                in_text += 1;
            }
            _ => match star.as_mut() {
                Some((star_at, star_text)) => {
                    *star_text += 1;
                    at = *star_at + 1;
                    in_text = *star_text;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|each| *each == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (patterns, text, expected) in [
            ("*.example.com", "web.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "web.example.com.evil.org", false),
            ("10.0.?.*, web-1", "10.0.7.200", true),
            ("10.0.?.*, web-1", "web-1", true),
            ("10.0.?.*, web-1", "web-10", false),
            ("*", "", true),
            ("", "anything", false),
            (" , ", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "ü", true),
        ] {
            assert_eq!(any_matches(patterns, text), expected, "{patterns} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        assert!(!any_matches(&"*a".repeat(2_000), &"b".repeat(2_000)));
    }
}
