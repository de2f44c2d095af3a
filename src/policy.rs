//! What may run: Whitelists compiled into rules, and a request held against them. Pure: no I/O, no clock.
//!
//! The promise kept here: **nothing runs that no rule lists.** Default deny, and a Deny wins; text is compared byte for
//! byte (no trimming, no case folding, no shell splitting, no normalisation); what is not printable ASCII is malformed
//! before anything else is looked at; a rule with anything in it that is not understood allows nothing.
//!
//! ```text
//! Whitelist --compile--> CompiledWhitelist --+
//!                                            +--> RuleSet --decide(request, machine, identity)--> Allow | Deny
//! (the other Whitelists of the namespace) ---+                                                      |
//!                                                        DecisionRecord --command_line--> bytes for sshd
//! ```
//!
//! What a rule says of the output is compiled here too: [`Redaction`].

mod checks;
mod command_line;
mod compile;
mod decision;
mod display;
mod environment;
mod glob;
mod index;
mod language;
mod launchers;
mod lint;
mod miss;
mod options;
mod out_of_force;
mod parents;
mod pattern;
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

pub use command_line::{
    CommandWords, command_line, command_path, command_words, marked_command_line, quote, removed_variables,
};
pub use compile::{BrokenRule, CompiledWhitelist, DEFAULT_ACTION_TYPE, compile};
pub use decision::{Decision, Denial, Verdict, decide};
pub use display::display;
pub use glob::any_matches;
pub use lint::{Findings, Warning, lint, lint_all, lint_among};
pub use miss::NearMiss;
pub use out_of_force::{Wording, matching_out_of_force};
pub use problem::RuleProblem;
pub use problems::all_problems;
pub(crate) use record::canonical;
pub use redaction::{LineRedactor, PatternProblem, REDACTED, Redaction, RedactionError};
pub use request::{Ask, Request, RequestError};
pub use rule_set::RuleSet;
pub use subjects::Identity;

/// The longest `command`, and the longest word of an `argv` or a `run`, in bytes. Far over what is typed, far under
/// the 128 KiB that sshd takes and small beside the 1.5 MiB that etcd takes for an object.
pub const MAXIMUM_TEXT_BYTES: usize = 4096;
/// The most words in an argument vector.
pub const MAXIMUM_WORDS: usize = 64;
/// The most bytes of all words and all values of environment variables together. Linux takes 128 KiB of text for a login
/// shell (MAX_ARG_STRLEN, execve(2)); quotes and what Writ adds have the rest.
pub const MAXIMUM_COMMAND_BYTES: usize = 96 * 1024;
/// The most parameters, and the most environment variables, of a rule and of a request.
pub const MAXIMUM_NAMES: usize = 16;

/// The first byte of `text` that is not printable ASCII (0x20 to 0x7e), with its position.
fn unprintable(text: &str) -> Option<(usize, u8)> {
    text.bytes().enumerate().find(|(_, byte)| !matches!(byte, 0x20..=0x7e))
}

/// Whether a pattern may not admit a byte: it is not printable ASCII, or a quote, a backslash or an exclamation mark.
/// Every login shell passes those three on (see [`quote`]), but a program that makes shell text of its words may not.
/// Constants and the values of an enum may hold them: their author wrote each one.
fn is_unsafe_in_a_pattern(byte: u8) -> bool {
    !matches!(byte, 0x20..=0x7e) || matches!(byte, b'\'' | b'!' | b'\\')
}

/// The name of a program without its directory.
fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a path is absolute and can be read in one way only: without empty segments, `.` and `..`.
fn is_plain_path(path: &str) -> bool {
    let mut parts = path.split('/');
    path.len() > 1 && parts.next() == Some("") && parts.all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a text is a name of a parameter or of an environment variable: letters, digits and `_`, no digit first.
fn is_identifier(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_word) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests;
