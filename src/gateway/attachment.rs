//! The header with which a browser saves an answer as a file. Pure.

use http::HeaderValue;

/// Maximum length of a file name without its extension, in bytes. Many file systems permit at most 255.
const MAX_STEM: usize = 200;
/// Name of a file whose own name has no usable character.
const DEFAULT_STEM: &str = "download";

/// Returns the value of `Content-Disposition` for a file. In the name, other characters than letters, digits, `.`, `-`
/// and `_` become `_`, and the name never begins with a dot. So the name cannot leave the folder of the browser or hide
/// itself there. `extension` is a constant of the caller.
pub fn attachment(stem: &str, extension: &str) -> HeaderValue {
    let usable = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => character,
        _ => '_',
    };
    let stem: String = stem.trim_start_matches('.').chars().map(usable).take(MAX_STEM).collect();
    let stem = if stem.is_empty() { DEFAULT_STEM } else { stem.as_str() };
    HeaderValue::from_str(&format!("attachment; filename=\"{stem}.{extension}\""))
        .unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_has_only_harmless_characters() {
        for (name, expected) in [
            ("run-01jdq8h1v4.x", "run-01jdq8h1v4.x"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("..", "download"),
            ("", "download"),
            ("a\"; filename*=x\r\nSet-Cookie: b", "a___filename__x__Set-Cookie__b"),
            ("caf\u{e9}", "caf_"),
        ] {
            assert_eq!(attachment(name, "stdout"), format!("attachment; filename=\"{expected}.stdout\""), "{name}");
        }
        let long = attachment(&"x".repeat(500), "stdout");
        assert!(long.len() < 250 && long.to_str().unwrap().ends_with(".stdout\""), "{long:?}");
    }
}
