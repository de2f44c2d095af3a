//! Checks parameters with which a requester could choose the program or the code to run. For example, in
//! `sudo {command}`, the author of the rule must list the values of `command`.
//!
//! [`table`] describes the known programs. [`walk`] reads the words of a rule in the same way as the program.
//! [`verdict`] decides if a parameter is permitted in a word. A copy or a link of a known program under another name
//! counts as an unknown program.
//!
//! The checks prevent rules that allow more than their author intended. An author can still allow anything on purpose.

mod telling_names;
mod verdict;
mod walk;

use super::template::{ParameterSpec, Template};
use super::{RuleError, base_name};
use crate::programs::table::{self, Role};
pub(super) use telling_names::is_telling;
use verdict::Verdict;
pub(super) use verdict::is_free;
use walk::{Use, Word};

/// Maximum number of combinations of enum values that Writ checks. If a rule has more, Writ checks only some
/// combinations, and each value occurs in at least one of them.
const COMBINATIONS: usize = 32;

/// Returns an error for the first use of a parameter with which the requester chooses the program or the code to run.
pub(super) fn check(run: &[Template], parameters: &[ParameterSpec]) -> Option<RuleError> {
    uses(run, parameters).iter().find_map(|one| {
        let parameter = parameters.get(one.parameter)?;
        match verdict::of(one, parameter) {
            Verdict::Error { what, remedy } => Some(RuleError::ParameterAsProgram {
                name: parameter.name.clone(),
                program: one.program.clone(),
                what,
                remedy,
            }),
            Verdict::Warning(_) | Verdict::Fine => None,
        }
    })
}

/// Returns warnings for the author of a rule in force.
pub(super) fn warnings(run: &[Template], parameters: &[ParameterSpec]) -> Vec<String> {
    let mut found = Vec::new();
    for one in uses(run, parameters) {
        let verdict = parameters.get(one.parameter).map_or(Verdict::Fine, |parameter| verdict::of(&one, parameter));
        match verdict {
            Verdict::Warning(message) if !found.contains(&message) => found.push(message),
            _ => {}
        }
    }
    found
}

/// Returns true if the tables describe the program of a rule. In this case, [`warnings`] covers the paths in the rule.
pub(super) fn is_described(run: &[Template]) -> bool {
    run.first().and_then(Template::constant).is_some_and(|program| table::find(program).is_some())
}

/// Returns true for a program that has another program or a script as an argument, for example `nice /bin/rm`.
pub(super) fn runs_other_programs(path: &str) -> bool {
    let has_others = |roles: &[Role]| roles.iter().any(|role| matches!(role, Role::Command | Role::Script));
    table::find(path).is_some_and(|(_, known)| has_others(&known.operands) || has_others(known.rest.as_slice()))
}

/// Returns true if a program interprets words that begin with `-` even after `--`.
pub(super) fn ignores_double_dash(path: &str) -> bool {
    let name = table::find(path).map_or_else(|| base_name(path), |(name, _)| name);
    matches!(name, "[" | "dd" | "expr" | "find" | "ip" | "ps" | "test")
}

/// Returns the uses of all free parameters, in all readings of the rule (see [`readings`]). A parameter is free if a
/// pattern describes its values, and the values can contain more than digits.
fn uses(run: &[Template], parameters: &[ParameterSpec]) -> Vec<Use> {
    let mut uses = Vec::new();
    if parameters.iter().any(|parameter| is_free(&parameter.values)) {
        for words in readings(run, parameters) {
            walk::command(&words, 0, &mut uses);
        }
    }
    uses
}

/// Returns the words of the rule for each combination of enum values. If there are more than [`COMBINATIONS`]
/// combinations, returns only some of them, and each value occurs in at least one.
///
/// A parameter without an enum has the same text in all combinations:
///
/// - A free parameter has its mark (see [`Word::mark`]).
/// - Any other parameter has an example value.
fn readings(run: &[Template], parameters: &[ParameterSpec]) -> Vec<Vec<Word>> {
    let values: Vec<Vec<String>> = parameters
        .iter()
        .enumerate()
        .map(|(index, parameter)| match parameter.values.enum_values() {
            Some(listed) => listed.to_vec(),
            None if is_free(&parameter.values) => vec![Word::mark(index)],
            None => parameter.values.example().into_iter().collect(),
        })
        .collect();
    let all: usize = values.iter().fold(1, |all, values| all.saturating_mul(values.len().max(1)));
    let longest = values.iter().map(Vec::len).max().unwrap_or(1);
    let count = if all <= COMBINATIONS { all } else { longest };
    let reading = |number: usize| {
        let mut rest = number;
        let chosen: Vec<&str> = values
            .iter()
            .map(|values| {
                let length = values.len().max(1);
                let index = if all <= COMBINATIONS { rest % length } else { number % length };
                rest /= length;
                values.get(index).map_or("", String::as_str)
            })
            .collect();
        run.iter().map(|word| Word::new(word, &chosen)).collect()
    };
    (0..count).map(reading).collect()
}
