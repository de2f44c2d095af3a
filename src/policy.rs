//! What may run: Whitelists compiled into rules, and a request held against them. Pure: no I/O, no clock.
//!
//! The promise kept here: **nothing runs that no rule lists.** Default deny; text is compared byte for byte (no
//! trimming, no case folding, no shell splitting, no normalisation); what is not printable ASCII is malformed before
//! anything else is looked at; a rule with anything in it that is not understood allows nothing.
//!
//! ```text
//! Whitelist --compile--> RuleSet --decide(request)--> Allow(Decision) | Deny(Denial)
//!                                                       |
//!                                        command_line(argv) -> the bytes for sshd
//! ```

mod command_line;
mod decision;
mod request;
mod rules;

pub use command_line::command_line;
pub use decision::{Decision, Denial, Verdict, decide};
pub use request::{Ask, Request, RequestError};
pub use rules::{BrokenRule, CompiledRule, RuleProblem, RuleSet, compile};

/// The longest `command`, and the longest word of an `argv` or a `run`, in bytes. Far over what is typed, far under
/// the 128 KiB that sshd takes and small beside the 1.5 MiB that etcd takes for an object.
pub const MAXIMUM_TEXT_BYTES: usize = 4096;
/// The most words in an argument vector.
pub const MAXIMUM_WORDS: usize = 64;

/// The first byte of `text` that is not printable ASCII (0x20 to 0x7e), with its position.
fn unprintable(text: &str) -> Option<(usize, u8)> {
    text.bytes().enumerate().find(|(_, byte)| !matches!(byte, 0x20..=0x7e))
}

#[cfg(test)]
mod tests;
