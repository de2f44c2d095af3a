//! Programs that take a part of their words for a program to run. A parameter there would let its value choose what
//! runs, so such rules may have none, or only behind a constant program or script.
//!
//! The lists are of names: a copy or a link under another name is not seen. A rule is written by somebody who may
//! allow anything; this is to keep them from allowing more than they meant.

mod lists;

use super::RuleProblem;
use super::template::{NamedValues, Template};
use lists::{
    INTERPRETERS, Interpreter, LAUNCHERS, LOADERS, MULTICALL, PROGRAM_OPTIONS, RUN_OTHERS, WITH_SUBCOMMANDS,
    WithSubcommands,
};

const NAME_THE_PROGRAM: &str = "name the program itself in run[0], without the one around it (for another user there is runAs), or write one rule for each value";
const BEHIND_A_PROGRAM: &str =
    "put the constant absolute path of the program that it starts before the parameter, or name that program in run[0]";
const BEHIND_A_SCRIPT: &str =
    "put what it runs into a script and name that by its absolute path in run[1]; behind it there may be parameters";
const BEHIND_A_SUBCOMMAND: &str = "put a constant subcommand that runs no other program before the parameter; of the options before it only those \
     for namespace, context, host and folder are known";
const NOT_THERE: &str =
    "the value of this option is a program, code, or a file that says what to run; make it constant";

/// A rule's words as they are looked at here.
struct Words<'a> {
    program: &'a str,
    /// Behind the program.
    words: &'a [Template],
    parameters: &'a [NamedValues],
}

/// What a rule's words may not do with its parameters.
pub(super) fn check(run: &[Template], parameters: &[NamedValues]) -> Option<RuleProblem> {
    let (program, words) = run.split_first()?;
    let words = Words { program: base_name(program.constant()?), words, parameters };
    if MULTICALL.contains(&words.program) {
        return match words.constant(0) {
            None => words.refuse_any(words.words.get(..1).unwrap_or_default(), NAME_THE_PROGRAM),
            Some(_) => check(words.words, parameters),
        };
    }
    if RUN_OTHERS.contains(&words.program) || LOADERS.iter().any(|prefix| words.program.starts_with(prefix)) {
        return words.refuse_any(words.words, NAME_THE_PROGRAM);
    }
    if LAUNCHERS.contains(&words.program) {
        return words.behind_a_program();
    }
    if let Some(interpreter) = INTERPRETERS.iter().find(|interpreter| interpreter.is(words.program)) {
        return words.behind_a_script(interpreter);
    }
    if let Some(kind) = WITH_SUBCOMMANDS.iter().find(|kind| kind.programs.contains(&words.program)) {
        return words.behind_a_subcommand(kind);
    }
    words.in_an_option().or_else(|| words.behind_an_interpreter())
}

/// Whether a program is one that runs others, or an interpreter; for warnings.
pub(super) fn runs_others(path: &str) -> bool {
    let name = base_name(path);
    [RUN_OTHERS, LAUNCHERS, MULTICALL].iter().any(|list| list.contains(&name))
        || LOADERS.iter().any(|prefix| name.starts_with(prefix))
        || INTERPRETERS.iter().any(|interpreter| interpreter.is(name))
}

/// Whether a program takes what begins with `-` for more than a value also behind `--`.
pub(super) fn minds_no_dashes(path: &str) -> bool {
    matches!(base_name(path), "[" | "dd" | "expr" | "find" | "ip" | "ps" | "test")
}

impl Words<'_> {
    fn constant(&self, index: usize) -> Option<&str> {
        self.words.get(index).and_then(Template::constant)
    }

    /// The problem of the first word with a parameter, where there is one.
    fn refuse_any(&self, words: &[Template], remedy: &'static str) -> Option<RuleProblem> {
        let place = words.iter().find_map(|word| word.places().next())?;
        let name = self.parameters.get(place)?.name.clone();
        Some(RuleProblem::ParameterAsProgram { name, program: self.program.to_owned(), remedy })
    }

    /// `timeout 5 /usr/bin/curl -- {url}`: what is started is a rule's words of its own.
    fn behind_a_program(&self) -> Option<RuleProblem> {
        let is_program = |word: &Template| word.constant().is_some_and(|word| word.starts_with('/'));
        let Some(start) = self.words.iter().position(is_program) else {
            return self.refuse_any(self.words, BEHIND_A_PROGRAM);
        };
        let (before, started) = self.words.split_at(start);
        self.refuse_any(before, BEHIND_A_PROGRAM).or_else(|| check(started, self.parameters))
    }

    /// `bash -eu /opt/deploy.sh {version}`: behind a constant script, with options that change nothing about that.
    fn behind_a_script(&self, interpreter: &Interpreter) -> Option<RuleProblem> {
        let is_harmless = |word: &Template| word.constant().is_some_and(|word| interpreter.is_harmless(word));
        let start = self.words.iter().take_while(|word| is_harmless(word)).count();
        let is_script = match self.constant(start) {
            Some(word) if word.starts_with('/') => true,
            Some(option) => interpreter.takes_constant.contains(&option) && self.constant(start + 1).is_some(),
            None => false,
        };
        if is_script { None } else { self.refuse_any(self.words, BEHIND_A_SCRIPT) }
    }

    /// `kubectl -n web rollout restart deployment/{name}`: behind a constant subcommand.
    fn behind_a_subcommand(&self, kind: &WithSubcommands) -> Option<RuleProblem> {
        if let Some(problem) = self.in_a_file_option(kind.files) {
            return Some(problem);
        }
        let mut index = 0;
        while let Some(word) = self.constant(index) {
            let value = self.words.get(index + 1).filter(|_| kind.files_before.contains(&word));
            if let Some(problem) = value.and_then(|value| self.refuse_any(std::slice::from_ref(value), NOT_THERE)) {
                return Some(problem);
            }
            if kind.passed_over.contains(&word) {
                index += 1;
            } else if !word.starts_with('-') {
                break;
            } else if kind.options_with_value.contains(&word) && self.words.get(index + 1).is_some() {
                index += 2;
            } else if kind
                .options_with_value
                .iter()
                .any(|option| word.strip_prefix(option).is_some_and(|rest| rest.starts_with('=')))
            {
                index += 1;
            } else {
                return self.refuse_any(self.words, BEHIND_A_SUBCOMMAND);
            }
        }
        let is_dangerous = |word: &str| kind.dangerous.contains(&word);
        let mut constants = self.words.iter().filter_map(Template::constant);
        if self.constant(index).is_none() || constants.any(is_dangerous) {
            return self.refuse_any(self.words, BEHIND_A_SUBCOMMAND);
        }
        None
    }

    /// `tar -I {p}`, `rsync --rsh={p}`: a value in an option that names a program, or code.
    fn in_an_option(&self) -> Option<RuleProblem> {
        let (_, options) = PROGRAM_OPTIONS.iter().find(|(program, _)| *program == self.program)?;
        self.in_a_file_option(options)
    }

    /// A value in one of these options.
    fn in_a_file_option(&self, options: &[&str]) -> Option<RuleProblem> {
        self.words.iter().enumerate().find_map(|(index, word)| {
            let (before, _) = word.split_at_place()?;
            // In a word of its own, behind the option; or in the same word.
            let behind = index.checked_sub(1).and_then(|index| self.constant(index)).unwrap_or_default();
            let is_behind = options.contains(&behind);
            let is_inside = options.iter().any(|option| before.starts_with(option));
            if is_behind || is_inside { self.refuse_any(std::slice::from_ref(word), NOT_THERE) } else { None }
        })
    }

    /// What stands behind an interpreter or launcher that a program which is not known may run: `x sh -e -c {p}`.
    fn behind_an_interpreter(&self) -> Option<RuleProblem> {
        self.words.iter().enumerate().find_map(|(index, word)| {
            let word = word.constant()?;
            let after = self.words.get(index + 1..).unwrap_or_default();
            let has_option = after.iter().map_while(Template::constant).take_while(|word| word.starts_with('-'));
            let takes_code = |option: &str| {
                matches!(option, "--command" | "--eval" | "--execute")
                    || (!option.starts_with("--") && option.contains(['c', 'e']))
            };
            let runs_code = has_option.into_iter().any(takes_code);
            // By its path it is a program to run, by its name alone it may be anything (`apt-get install python3 {p}`).
            (runs_others(word) && (word.starts_with('/') || runs_code)).then_some(())?;
            let started = self.words.get(index..)?;
            if word.starts_with('/') {
                return check(started, self.parameters);
            }
            self.refuse_any(after, BEHIND_A_SCRIPT)
        })
    }
}

/// The name of a program without its folder and its version: `/usr/bin/python3.11` is `python`.
fn base_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    // `sqlite3`, `m4` and `run0` are names, not versions.
    let is_listed =
        |name: &str| RUN_OTHERS.contains(&name) || PROGRAM_OPTIONS.iter().any(|(program, _)| *program == name);
    let is_version = |character: char| character.is_ascii_digit() || character == '.' || character == '-';
    let bare = name.trim_end_matches(is_version);
    if is_listed(name) || bare.is_empty() { name } else { bare }
}
