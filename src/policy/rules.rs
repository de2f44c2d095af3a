//! Whitelists compiled once into rules that can be held against requests.
//!
//! A rule with a problem is out of force alone; the others of its Whitelist hold. One that says an `effect` that this
//! version does not know may be a Deny, and a Deny that is passed over would open what somebody closed: it closes the
//! namespace (see [`RuleSet::closed_by`]).

use crate::api::execution_status::ObjectRecord;
use crate::api::{Whitelist, WhitelistRule};

use super::{MAXIMUM_TEXT_BYTES, MAXIMUM_WORDS, unprintable};

/// The rules of a namespace, in the order in which they are held against a request: Whitelists by name, then the
/// order in the list.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// The rules in force.
    pub rules: Vec<CompiledRule>,
    /// The rules out of force, and why.
    pub broken: Vec<BrokenRule>,
}

/// One rule in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledRule {
    /// The Whitelist that it is in, as it was when it was compiled.
    pub whitelist: ObjectRecord,
    /// Its name.
    pub name: String,
    /// The text that asks for it.
    pub text: String,
    /// What is executed.
    pub argv: Vec<String>,
}

/// One rule out of force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BrokenRule {
    /// Name of its Whitelist.
    pub whitelist: String,
    /// Its name.
    pub rule: String,
    /// What is wrong with it.
    pub problem: RuleProblem,
}

/// What a rule may never do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RuleProblem {
    /// It has an `effect`, which this version does not know: it may be a Deny.
    #[error("effect is not known to this version of writ; remove it, or upgrade writ")]
    UnknownEffect,
    /// It has another field that this version does not know, and that may narrow it.
    #[error("{field} is not known to this version of writ; remove it, or upgrade writ")]
    UnknownField {
        /// The field.
        field: String,
    },
    /// Nothing to execute.
    #[error("run must have 1 to {MAXIMUM_WORDS} words")]
    RunLength,
    /// A program that is found by a search path, or whose path can be read in two ways.
    #[error("run[0] must be an absolute path without `..`, `.` and `//`, and must not end in `/`")]
    ProgramNotAbsolute,
    /// A byte that login shells do not agree on, or that this version keeps for parameters.
    #[error("{field} must be printable ASCII without {forbidden}, but has byte 0x{byte:02x} at {position}")]
    ForbiddenByte {
        /// The field.
        field: &'static str,
        /// Which printable ones may not stand there.
        forbidden: &'static str,
        /// Where, counted from 0.
        position: usize,
        /// The byte.
        byte: u8,
    },
    /// More than the bound.
    #[error("{field} must have 1 to {MAXIMUM_TEXT_BYTES} bytes")]
    TextLength {
        /// The field.
        field: &'static str,
    },
}

impl RuleSet {
    /// The rule that closes the namespace, where there is one.
    pub fn closed_by(&self) -> Option<&BrokenRule> {
        self.broken.iter().find(|broken| broken.problem == RuleProblem::UnknownEffect)
    }
}

/// Compiles the Whitelists of one namespace.
pub fn compile(whitelists: &[Whitelist]) -> RuleSet {
    let mut sorted: Vec<&Whitelist> = whitelists.iter().collect();
    sorted.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
    let mut set = RuleSet::default();
    for whitelist in sorted {
        let record = ObjectRecord {
            name: whitelist.metadata.name.clone().unwrap_or_default(),
            uid: whitelist.metadata.uid.clone().unwrap_or_default(),
            generation: whitelist.metadata.generation.unwrap_or_default(),
        };
        for rule in &whitelist.spec.rules {
            match problem_of(rule) {
                None => set.rules.push(CompiledRule {
                    whitelist: record.clone(),
                    name: rule.name.clone(),
                    text: rule.match_text.clone().unwrap_or_else(|| rule.run.join(" ")),
                    argv: rule.run.clone(),
                }),
                Some(problem) => {
                    set.broken.push(BrokenRule { whitelist: record.name.clone(), rule: rule.name.clone(), problem })
                }
            }
        }
    }
    set
}

/// The checks, in order; the first problem is the one that is told.
fn problem_of(rule: &WhitelistRule) -> Option<RuleProblem> {
    unknown_field(rule)
        .or_else(|| program(rule))
        .or_else(|| rule.run.iter().find_map(|word| forbidden_byte("run", word, r"', !, \, { and }", b"'!\\{}")))
        .or_else(|| {
            rule.match_text
                .as_deref()
                .and_then(|text| forbidden_byte("match", text, "{ and }", b"{}").or_else(|| length("match", text)))
        })
}

fn unknown_field(rule: &WhitelistRule) -> Option<RuleProblem> {
    if rule.unrecognized.contains_key("effect") {
        return Some(RuleProblem::UnknownEffect);
    }
    rule.unrecognized.keys().next().map(|field| RuleProblem::UnknownField { field: field.clone() })
}

fn program(rule: &WhitelistRule) -> Option<RuleProblem> {
    if rule.run.len() > MAXIMUM_WORDS {
        return Some(RuleProblem::RunLength);
    }
    let Some(program) = rule.run.first() else { return Some(RuleProblem::RunLength) };
    let mut parts = program.split('/');
    let absolute = parts.next() == Some("");
    let plain = parts.all(|part| !matches!(part, "" | "." | ".."));
    (!absolute || !plain || program.len() < 2).then_some(RuleProblem::ProgramNotAbsolute)
}

fn forbidden_byte(field: &'static str, text: &str, forbidden: &'static str, bytes: &[u8]) -> Option<RuleProblem> {
    if text.len() > MAXIMUM_TEXT_BYTES {
        return Some(RuleProblem::TextLength { field });
    }
    unprintable(text)
        .or_else(|| text.bytes().enumerate().find(|(_, byte)| bytes.contains(byte)))
        .map(|(position, byte)| RuleProblem::ForbiddenByte { field, forbidden, position, byte })
}

fn length(field: &'static str, text: &str) -> Option<RuleProblem> {
    text.is_empty().then_some(RuleProblem::TextLength { field })
}
