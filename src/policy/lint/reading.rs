//! Rules whose parameters can name the files of the launcher: there lies what other commands write, before it is redacted.

use crate::policy::compile::CompiledRule;
use crate::policy::template::Template;

use super::Warning;

/// The launcher's directory below the home of the login user, and what is in it.
const DIRECTORY: &str = ".local/state/writ";
/// The names of files in it: the output of an execution, and its journal.
const FILES: [&str; 3] = ["", "/", "/0b5f2c3e-1111-4222-8333-444455556666.o"];
/// Homes that login users have.
const HOMES: [&str; 6] = ["", "./", "/root/", "/home/deploy/", "/var/lib/deploy/", "/home/x/"];
/// What a path may go through to leave the directory that a rule begins with. Longer ones are admitted if these are.
const DETOURS: [&str; 6] = ["", "../", "../../", "../../../", "x/../../", "./../"];

/// The warning about a rule that can read there, with an example. Only words with a place for a parameter count: the others
/// say themselves what they read.
pub(super) fn of_rule(rule: &CompiledRule) -> Option<Warning> {
    let (number, word) = rule.run.iter().enumerate().find_map(|(number, word)| Some((number, example(word, rule)?)))?;
    let message = format!(
        "the value of run[{number}] can be {word:?}: the launcher's directory, where the output of other commands lies as \
         they wrote it, before redact; narrow the pattern (docs/guides/machine-users.md)"
    );
    Some(Warning { rule: rule.name.clone(), message })
}

/// A word of the rule that leads into the launcher's directory.
fn example(word: &Template, rule: &CompiledRule) -> Option<String> {
    word.places().next()?;
    let before = word.split_at_place().map_or("", |(before, _)| before);
    // `--file={path}`: the path begins behind the sign.
    let option = before.rfind('=').and_then(|at| before.get(..=at)).unwrap_or_default();
    let absolute = HOMES.iter().map(|home| format!("{option}{home}"));
    let relative = DETOURS.iter().flat_map(|detour| {
        HOMES.iter().map(move |home| {
            let home = home.trim_start_matches('/');
            format!("{before}{detour}{home}")
        })
    });
    let starts = absolute.chain(relative).chain([homes_of(before)]);
    let ending = word.ending();
    let mut paths = starts.flat_map(|start| {
        FILES
            .iter()
            .flat_map(move |file| [format!("{start}{DIRECTORY}{file}"), format!("{start}{DIRECTORY}{file}{ending}")])
    });
    paths.find(|path| word.read(path, &rule.parameters, &mut vec![None; rule.parameters.len()]).is_ok())
}

/// A home below what a rule begins with: `/home/{path}` and `/home/deploy/{path}` are read from there.
fn homes_of(before: &str) -> String {
    if before.ends_with('/') { format!("{before}deploy/") } else { format!("{before}/") }
}
