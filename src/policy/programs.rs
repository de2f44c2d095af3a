//! Programs that take a part of their words for a program, for code, or for a file that says what to run. There a rule
//! may have no parameter, unless the author listed its values.
//!
//! [`table`] says what is known of each program, [`walk`] reads a rule's words as the program would, and [`verdict`]
//! says what a parameter may be. A copy or a link under another name is a program that nobody has described. A rule is
//! written by somebody who may allow anything; this is to keep them from allowing more than they meant.

mod names;
mod table;
mod verdict;
mod walk;

use super::template::{NamedValues, Template};
use super::{RuleProblem, base_name};
use table::Role;
use verdict::Verdict;
pub(super) use verdict::is_free;
use walk::{Use, Word};

/// How many combinations of listed values are read, each as a rule of its own. Beyond that, each value is read once.
const COMBINATIONS: usize = 32;

/// Returns the first use of a parameter that lets a caller choose what runs.
pub(super) fn check(run: &[Template], parameters: &[NamedValues]) -> Option<RuleProblem> {
    uses(run, parameters).iter().find_map(|one| {
        let parameter = parameters.get(one.parameter)?;
        match verdict::of(one, parameter) {
            Verdict::Error { what, remedy } => Some(RuleProblem::ParameterAsProgram {
                name: parameter.name.clone(),
                program: one.program.clone(),
                what,
                remedy,
            }),
            Verdict::Warning(_) | Verdict::Fine => None,
        }
    })
}

/// Returns what its author should check of a rule in force.
pub(super) fn warnings(run: &[Template], parameters: &[NamedValues]) -> Vec<String> {
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

/// Returns true if it is described what the program of a rule does with files. Then [`warnings`] says what there is to say.
pub(super) fn is_described(run: &[Template]) -> bool {
    run.first().and_then(Template::constant).is_some_and(|program| table::find(program).is_some())
}

/// Returns true if a program runs another one, or a script, whose words stand behind its own.
pub(super) fn runs_others(path: &str) -> bool {
    let has_others = |roles: &[Role]| roles.iter().any(|role| matches!(role, Role::Command | Role::Script));
    table::find(path).is_some_and(|(_, known)| has_others(&known.operands) || has_others(known.rest.as_slice()))
}

/// Returns true if a program takes what begins with `-` for more than a value also behind `--`.
pub(super) fn minds_no_dashes(path: &str) -> bool {
    let name = table::find(path).map_or_else(|| base_name(path), |(name, _)| name);
    matches!(name, "[" | "dd" | "expr" | "find" | "ip" | "ps" | "test")
}

/// Returns true if the name of an option or of a variable says that its value is a program, code or what loads code.
pub(super) fn is_telling(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "agent",
        "askpass",
        "cmd",
        "cmds",
        "cnf",
        "code",
        "command",
        "commands",
        "conf",
        "config",
        "configfile",
        "editor",
        "eval",
        "evaluate",
        "exec",
        "execute",
        "expression",
        "helper",
        "hook",
        "hooks",
        "interpreter",
        "launcher",
        "lib",
        "library",
        "load",
        "module",
        "modules",
        "pager",
        "plugin",
        "plugins",
        "preload",
        "prog",
        "program",
        "rcfile",
        "require",
        "rsh",
        "script",
        "shell",
        "wrapper",
    ];
    let lower = name.trim_start_matches('-').to_ascii_lowercase();
    // `ExecStart` of systemd is one.
    lower.starts_with("exec") || lower.split(['-', '_', '.', ':']).any(|part| PARTS.contains(&part))
}

/// Returns what each free parameter is to the programs, for each reading of the rule.
fn uses(run: &[Template], parameters: &[NamedValues]) -> Vec<Use> {
    let mut uses = Vec::new();
    if parameters.iter().any(|parameter| is_free(&parameter.values)) {
        for words in readings(run, parameters) {
            walk::command(&words, 0, &mut uses);
        }
    }
    uses
}

/// The rule's words with each listed value in its place. Free parameters stay marked.
fn readings(run: &[Template], parameters: &[NamedValues]) -> Vec<Vec<Word>> {
    let values: Vec<Vec<String>> = parameters
        .iter()
        .enumerate()
        .map(|(index, parameter)| match parameter.values.listed() {
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
