//! Patterns of parameters for `model.rs`. The fuzzer includes this file.

/// Pattern, with a function that admits the same values without a regular expression.
pub struct KnownPattern {
    pub text: &'static str,
    pub admits: fn(&str) -> bool,
    pub samples: &'static [&'static str],
}

pub const PATTERNS: &[KnownPattern] = &[
    KnownPattern {
        text: "[a-z]+",
        admits: |value| is_all(value, |byte| byte.is_ascii_lowercase()),
        samples: &["q", "qzx", "a"],
    },
    KnownPattern {
        text: "[0-9]{1,4}",
        admits: |value| value.len() <= 4 && is_all(value, |byte| byte.is_ascii_digit()),
        samples: &["0", "007", "9999"],
    },
    KnownPattern {
        text: "[A-Za-z0-9._/-]+",
        admits: |value| is_all(value, |byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte)),
        samples: &["qz", "../z", "-x", "--", "/qz/9"],
    },
    KnownPattern { text: "(a|aa)+", admits: |value| is_all(value, |byte| byte == b'a'), samples: &["a", "aaaaaaa"] },
    KnownPattern {
        text: "(?i)web-[0-9]+",
        admits: |value| {
            value.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("web-"))
                && is_all(&value[4..], |byte| byte.is_ascii_digit())
        },
        samples: &["web-1", "WEB-007"],
    },
    KnownPattern {
        text: "(a*)*b",
        admits: |value| value.strip_suffix('b').is_some_and(|rest| rest.bytes().all(|byte| byte == b'a')),
        samples: &["b", "aab"],
    },
    KnownPattern {
        text: r"[ -&(-\[\]-~&&[^!]]+",
        admits: |value| is_all(value, |byte| matches!(byte, 0x20..=0x7e) && !b"'!\\".contains(&byte)),
        samples: &["q z; x", "a", " ", "{pa}"],
    },
    KnownPattern {
        text: "x|yy|z z",
        admits: |value| ["x", "yy", "z z"].contains(&value),
        samples: &["x", "yy", "z z"],
    },
    // This pattern is valid only in a Deny, because it admits too much for an Allow.
    KnownPattern { text: ".*", admits: |_| true, samples: &["", "q"] },
];

fn is_all(value: &str, is_so: impl Fn(u8) -> bool) -> bool {
    !value.is_empty() && value.bytes().all(is_so)
}
