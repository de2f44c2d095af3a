//! Decides at which addresses a Secret permits the use of its key. This module does no I/O.
//!
//! ```text
//! 10.0.*  10.0.0.0/16  2001:db8::*      an address pattern: matched against the addresses that Writ connects to
//! *.web.example  web-?                  a name pattern: matched against the text of spec.address, label by label
//! ```
//!
//! # Guarantees
//! An address pattern admits no name by its spelling. For example, `10.0.*` does not admit `10.0.evil.example`. Writ
//! resolves this name, and matches `10.0.*` against the resolved addresses.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr};

use super::network::{Cidr, effective_address};

/// Maximum number of patterns, and maximum size of one pattern in bytes. Every login checks all patterns, so these
/// limits bound its work.
const MAX_PATTERNS: usize = 256;
const MAX_PATTERN_BYTES: usize = 512;

/// Patterns of one Secret.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Admission {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Pattern {
    /// Admits every address, and therefore every name.
    Any,
    Range(Cidr),
    /// One IPv6 address in one zone (network interface) of this host.
    Zoned(Ipv6Addr, String),
    /// A pattern with `*` and `?` for the text of an address.
    Address(String),
    /// Labels of a name, with `*` and `?`. `**` as the first label stands for one or more labels.
    Name(Vec<String>),
}

/// Error of a pattern that can admit nothing, or that exceeds a limit.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("has the pattern {pattern:?}, {why}")]
pub struct PatternError {
    pattern: String,
    why: String,
}

/// Verdict about the text of an address, before it is resolved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The text is admitted. The addresses of an admitted name need no check.
    Admitted,
    /// No name pattern admits the name, but the Secret has address patterns. Each resolved address must be checked.
    ByAddress,
    /// The text is not admitted.
    Refused,
}

impl Admission {
    /// Reads patterns that are separated by commas.
    ///
    /// # Errors
    /// The error names the first pattern that can admit nothing, is too long, or exceeds the maximum number of
    /// patterns.
    pub fn parse(patterns: &str) -> Result<Self, PatternError> {
        let texts: Vec<&str> = patterns.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
        if let Some(beyond) = texts.get(MAX_PATTERNS) {
            return Err(problem(beyond, format!("which is one of more than {MAX_PATTERNS}; use ranges instead")));
        }
        let patterns = texts.into_iter().map(Pattern::parse).collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// Returns the verdict about the text of an address, before it is resolved.
    pub fn of_text(&self, address: &str) -> Verdict {
        let (text, zone) = address.split_once('%').map_or((address, None), |(text, zone)| (text, Some(zone)));
        if let Ok(ip) = text.parse() {
            return if self.admits(ip, zone) { Verdict::Admitted } else { Verdict::Refused };
        }
        let labels = labels_of(address);
        if self.patterns.iter().any(|pattern| pattern.admits_name(&labels)) {
            return Verdict::Admitted;
        }
        let is_of_addresses = |pattern: &Pattern| !matches!(pattern, Pattern::Name(_));
        if self.patterns.iter().any(is_of_addresses) { Verdict::ByAddress } else { Verdict::Refused }
    }

    /// Returns true if the key may be used at an address. `zone` is the zone of the address, if the address has a zone.
    pub fn admits(&self, address: IpAddr, zone: Option<&str>) -> bool {
        let address = effective_address(address);
        self.patterns.iter().any(|pattern| pattern.admits_address(address, zone))
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            let start: String = text.chars().take(32).collect();
            return Err(problem(&start, format!("which is longer than {MAX_PATTERN_BYTES} bytes")));
        }
        let lower = text.to_ascii_lowercase();
        if lower == "*" || lower == "**" {
            return Ok(Pattern::Any);
        }
        if lower.contains('/') {
            return lower.parse().map(Pattern::Range).map_err(|error| problem(text, format!("and {error}")));
        }
        if let Some((address, zone)) = text.split_once('%') {
            let address = address.parse().map_err(|_| problem(text, "which is no IPv6 address before its zone"))?;
            return Ok(Pattern::Zoned(address, zone.to_owned()));
        }
        if let Ok(address) = lower.parse() {
            return Ok(Pattern::Range(Cidr::single(effective_address(address))));
        }
        let is_address =
            lower.contains(':') || lower.bytes().all(|byte| byte.is_ascii_digit() || b".*?".contains(&byte));
        if is_address {
            return address_pattern(text, lower);
        }
        let labels = labels_of(&lower);
        if labels.iter().any(String::is_empty) {
            return Err(problem(text, "which has an empty label"));
        }
        let is_misplaced = |(index, label): (usize, &String)| label.contains("**") && (index > 0 || label != "**");
        if labels.iter().enumerate().any(is_misplaced) {
            return Err(problem(text, "and ** may only be its whole first label, for one or more labels"));
        }
        Ok(Pattern::Name(labels))
    }

    fn admits_address(&self, address: IpAddr, zone: Option<&str>) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Range(range) => range.contains(address),
            Pattern::Zoned(only, in_zone) => IpAddr::V6(*only) == address && zone == Some(in_zone),
            Pattern::Address(pattern) => matches(pattern, &address.to_string()),
            Pattern::Name(_) => false,
        }
    }

    fn admits_name(&self, labels: &[String]) -> bool {
        let Pattern::Name(pattern) = self else { return matches!(self, Pattern::Any) };
        let (pattern, labels) = match pattern.split_first() {
            Some((first, rest)) if first == "**" => {
                let more = labels.len().checked_sub(rest.len()).filter(|more| *more > 0);
                let Some(behind) = more.and_then(|more| labels.get(more..)) else { return false };
                (rest, behind)
            }
            _ => (pattern.as_slice(), labels),
        };
        let both = || pattern.iter().zip(labels);
        // A name with an empty label is invalid.
        pattern.len() == labels.len() && both().all(|(pattern, label)| !label.is_empty() && matches(pattern, label))
    }
}

/// Reads a pattern for the text of addresses.
fn address_pattern(text: &str, pattern: String) -> Result<Pattern, PatternError> {
    if !pattern.contains(['*', '?']) {
        return Err(problem(text, "which is no address (an IPv4 address has four numbers without leading zeros)"));
    }
    let is_number_with_zero =
        |part: &str| part.len() > 1 && part.starts_with('0') && part.bytes().all(|byte| byte.is_ascii_digit());
    if !pattern.contains(':') && pattern.split('.').any(is_number_with_zero) {
        return Err(problem(text, "and an address has no leading zeros"));
    }
    let known = |character: char| character.is_ascii_hexdigit() || ".:*?".contains(character);
    if !pattern.chars().all(known) {
        return Err(problem(text, "which matches neither addresses nor names"));
    }
    Ok(Pattern::Address(pattern))
}

fn problem(pattern: &str, why: impl Into<String>) -> PatternError {
    PatternError { pattern: pattern.to_owned(), why: why.into() }
}

/// Returns the labels of a name in lower case. Ignores a dot at the end.
fn labels_of(name: &str) -> Vec<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.split('.').map(str::to_ascii_lowercase).collect()
}

/// Returns true if the pattern matches the text. `*` stands for any number of characters, including none. `?` stands
/// for one character. The time grows at most with the product of both lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut in_text) = (0, 0);
    // Position of the most recent `*` in the pattern, and end of the text that this `*` matches so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(in_text) {
        match (pattern.get(at), star.as_mut()) {
            (Some(b'*'), _) => {
                star = Some((at, in_text));
                at += 1;
            }
            (Some(each), _) if each == byte || *each == b'?' => {
                at += 1;
                in_text += 1;
            }
            (_, Some((star_at, star_text))) => {
                *star_text += 1;
                at = *star_at + 1;
                in_text = *star_text;
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(at).all(|each| *each == b'*')
}
