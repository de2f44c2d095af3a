//! Wording of an invalid rule: its text and its words, as its author wrote them. Each placeholder admits any text.

/// Text and words of an invalid rule, as written in its Whitelist.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wording {
    /// Text of `match`. If the rule has no `match`, the words of `run`, joined with spaces.
    text: String,
    /// Words of `run`.
    run: Vec<String>,
}

impl Wording {
    pub(super) fn new(match_text: Option<&String>, run: &[String]) -> Self {
        Self { text: match_text.cloned().unwrap_or_else(|| run.join(" ")), run: run.to_vec() }
    }

    /// Returns true if a text matches the text of the rule. Each placeholder matches any text.
    pub(super) fn fits_text(&self, text: &str) -> bool {
        fits(&self.text, text)
    }

    /// Returns true if words match the words of the rule. Each placeholder matches any text.
    pub(super) fn fits_words(&self, words: &[String]) -> bool {
        words.len() == self.run.len() && words.iter().zip(&self.run).all(|(word, wording)| fits(wording, word))
    }
}

/// Returns true if a text matches the wording. Each `{name}` matches any text.
fn fits(wording: &str, text: &str) -> bool {
    let constants = constants(wording);
    let Some((first, others)) = constants.split_first() else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    let Some((last, between)) = others.split_last() else { return rest.is_empty() };
    for constant in between {
        let Some(at) = rest.find(constant.as_str()) else { return false };
        rest = rest.get(at + constant.len()..).unwrap_or_default();
    }
    rest.ends_with(last.as_str())
}

/// Returns the texts before, between and after the placeholders of a wording. A single brace without its counterpart is
/// text.
fn constants(wording: &str) -> Vec<String> {
    let (mut constants, mut current, mut rest) = (Vec::new(), String::new(), wording);
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, behind) = rest.split_at(brace);
        current.push_str(before);
        let doubled = ["{{", "}}"].iter().any(|pair| behind.starts_with(pair));
        let end = behind.strip_prefix('{').and_then(|name| name.find('}'));
        rest = match end {
            _ if doubled => {
                current.extend(behind.chars().take(1));
                behind.get(2..)
            }
            Some(end) => {
                constants.push(std::mem::take(&mut current));
                behind.get(end + 2..)
            }
            None => {
                current.extend(behind.chars().take(1));
                behind.get(1..)
            }
        }
        .unwrap_or_default();
    }
    current.push_str(rest);
    constants.push(current);
    constants
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_text_fits_a_wording_whatever_stands_for_its_parameters() {
        for (wording, text, expected) in [
            ("restart nginx", "restart nginx", true),
            ("restart nginx", "restart nginx ", false),
            ("restart {unit}", "restart nginx.service", true),
            ("restart {unit}", "start nginx.service", false),
            ("copy {from} {to}", "copy a b c", true),
            ("copy {from} to {to}!", "copy a to b!", true),
            ("copy {from} to {to}!", "copy a to b", false),
            ("{a}{b}", "", true),
            ("show {{x}} {y}", "show {x} z", true),
            ("show {x", "show {x", true),
            ("a{b", "ac", false),
        ] {
            assert_eq!(fits(wording, text), expected, "{wording:?} {text:?}");
        }
    }
}
