//! Decides what may run: compiles Whitelists into rules, and matches requests against them. Pure: no I/O, no clock.
//!
//! # Guarantees
//! **Writ runs only commands that a rule lists.**
//!
//! - The default is deny. A Deny rule wins over all Allow rules.
//! - Texts are compared byte for byte: no trimming, no case folding, no shell splitting, no normalisation.
//! - A request with a byte that is not printable ASCII is malformed.
//! - A rule with an unknown field or value allows nothing.
//!
//! ```text
//! Whitelist --compile--> CompiledWhitelist --+
//!                                            +--> RuleSet --decide(request, machine, identity)--> Allow | Deny
//! (the other Whitelists of the namespace) ---+                                                      |
//!                                                        DecisionRecord --command_line--> bytes for sshd
//! ```
//!
//! [`Redaction`] compiles and applies the `redact` patterns of a rule.

mod checks;
mod command_line;
mod compile;
mod decide;
mod display;
mod glob;
mod index;
mod language;
mod lint;
mod near_miss;
mod options;
mod out_of_force;
mod parents;
mod pattern;
mod permitted;
mod problem;
mod problems;
mod programs;
mod record;
mod redaction;
mod request;
mod rule_set;
mod subjects;
mod template;
mod values;
mod verdict;
mod wording;

use crate::programs::{base_name, environment, is_plain_path, launchers};

pub use command_line::{
    CommandWords, StandardInput, command_line, command_path, command_words, marked_command_line, quote,
    removed_variables,
};
pub use compile::{CompiledWhitelist, DEFAULT_ACTION_TYPE, InvalidRule, compile};
pub use decide::decide;
pub use display::display;
pub use glob::any_matches;
pub use lint::{Findings, Warning, lint, lint_all, lint_among};
pub use out_of_force::matching_out_of_force;
pub use permitted::{AdmittedValues, PermittedRule, PermittedValue, permitted_rules};
pub use problem::RuleError;
pub use problems::all_problems;
pub(crate) use record::canonical;
pub use redaction::{LineRedactor, PatternError, REDACTED, Redaction, RedactionError};
pub use request::{CommandForm, Request, RequestError};
pub use rule_set::RuleSet;
pub use subjects::Identity;
pub use verdict::{Decision, Denial, NearMiss, Verdict};
pub use wording::Wording;

/// Maximum length of a `command`, and of each word of `argv` or `run`, in bytes. Commands that users type are far
/// shorter.
pub const MAXIMUM_TEXT_BYTES: usize = 4096;
/// Maximum number of words in an argument vector.
pub const MAXIMUM_WORDS: usize = crate::programs::MAXIMUM_WORDS;
/// Maximum size of all words and all values of environment variables together, in bytes. Linux accepts 128 KiB of text
/// for a login shell (MAX_ARG_STRLEN, execve(2)). The remaining 32 KiB are for quotes and for the words that Writ adds.
pub const MAXIMUM_COMMAND_BYTES: usize = 96 * 1024;
/// Maximum number of parameters of a rule or a request. The number of environment variables has the same maximum.
pub const MAXIMUM_NAMES: usize = 16;

/// Returns the first byte of `text` that is not printable ASCII (0x20 to 0x7e), with its position.
fn unprintable(text: &str) -> Option<(usize, u8)> {
    text.bytes().enumerate().find(|(_, byte)| !matches!(byte, 0x20..=0x7e))
}

/// Returns true for a byte that a pattern must not admit:
///
/// - A byte that is not printable ASCII.
/// - `'`, `\` or `!`. A program that builds shell text from its words can misread these characters.
///
/// Constants and enum values can contain `'`, `\` and `!`, because the author of the rule wrote them.
fn is_unsafe_in_a_pattern(byte: u8) -> bool {
    !matches!(byte, 0x20..=0x7e) || matches!(byte, b'\'' | b'!' | b'\\')
}

/// Returns true if a text is a valid name of a parameter or a variable: only letters, digits and `_`, no digit at the
/// start.
fn is_identifier(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_word) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests;
