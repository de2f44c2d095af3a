//! Rules whose parameters can name the files of the launcher: there lies what other commands write, before it is redacted.

use crate::policy::compile::CompiledRule;
use crate::policy::template::Template;

use super::Warning;

/// The launcher's directory below the home of the login user.
const DIRECTORY: &str = ".local/state/writ";
/// The directory itself, and the output of an execution in it.
const FILES: [&str; 3] = ["", "/", "/0b5f2c3e-1111-4222-8333-444455556666.o"];
/// Homes that login users have.
const HOMES: [&str; 4] = ["/home/deploy/", "/root/", "/var/lib/deploy/", "/home/x/"];
/// Where homes are.
const ABOVE_HOMES: [&str; 7] = ["/home", "/root", "/var/lib/", "/srv/", "/opt/", "/export/", "/usr/"];

/// The warning about a rule that can read there, with an example. Only words with a place for a parameter count: the others
/// say themselves what they read.
pub(super) fn of_rule(rule: &CompiledRule) -> Option<Warning> {
    let (number, word) = rule.run.iter().enumerate().find_map(|(number, word)| Some((number, example(word, rule)?)))?;
    let message = format!(
        "run[{number}] can be {word:?}: in the launcher's directory the output of other commands lies as they wrote it, \
         before redact; narrow the pattern (docs/guides/machine-users.md)"
    );
    Some(Warning { rule: rule.name.clone(), message })
}

/// A word of the rule that leads into the launcher's directory.
fn example(word: &Template, rule: &CompiledRule) -> Option<String> {
    word.places().next()?;
    let before = word.split_at_place().map_or("", |(before, _)| before);
    let ending = word.ending();
    starts(before).iter().find_map(|start| {
        let path = FILES.iter().map(|file| format!("{start}{DIRECTORY}{file}"));
        let mut paths = path.flat_map(|path| [format!("{path}{ending}"), path]);
        paths.find(|path| word.read(path, &rule.parameters, &mut vec![None; rule.parameters.len()]).is_ok())
    })
}

/// What a word that begins so may begin with to lead into a home: the likeliest first.
fn starts(before: &str) -> Vec<String> {
    // `--file={path}`: the path begins behind the sign.
    let path_at = before.rfind('=').map_or(0, |at| at + 1);
    let (option, path) = before.split_at_checked(path_at).unwrap_or(("", before));
    let mut starts: Vec<String> = HOMES.iter().map(|home| format!("{option}{home}")).collect();
    if !path.starts_with('/') {
        starts.extend([before.to_owned(), format!("{before}./")]);
    }
    // Up to the root, and from there into a home.
    let depth = path.split('/').filter(|part| !part.is_empty()).count();
    let is_folder = path.is_empty() || path.ends_with('/');
    let detours = if is_folder { [("", depth), ("x/", depth + 1)] } else { [("/", depth), ("x/", depth)] };
    for (first, ups) in detours {
        starts.extend(
            HOMES.iter().map(|home| format!("{before}{first}{}{}", "../".repeat(ups), &home.trim_start_matches('/'))),
        );
    }
    // From the working directory, which is the home itself, or lies a little below it.
    if !path.starts_with('/') {
        starts.extend((1..=4).flat_map(|ups| ["", "x/"].map(|first| format!("{before}{first}{}", "../".repeat(ups)))));
    }
    // What it begins with is a home, or has homes in it.
    if path == "/" || ABOVE_HOMES.iter().any(|above| path.starts_with(above)) {
        let folder = if is_folder { before.to_owned() } else { format!("{before}/") };
        starts.extend([folder.clone(), format!("{folder}deploy/"), format!("{folder}home/deploy/")]);
    }
    starts
}
