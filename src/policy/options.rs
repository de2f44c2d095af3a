//! Refuses values that a program can read as an option: values with `-` at the beginning of a word. If an earlier `--`
//! certainly ends the options, such values are permitted.
//!
//! A `--` after an option can be the value of this option. In `tar -xf -- {x}`, tar reads an archive named `--`, and
//! `{x}` can be an option again. A `--` therefore counts only after one of these words:
//!
//! - The program, or another word that is not an option.
//! - An option that is known to take no value (see [`flags`]).

use super::RuleError;
use super::language::Words;
use super::language::scanner::DASH;
use super::programs;
use super::template::{ParameterSpec, Piece, Template};
use crate::programs::flags::{self, Takes};

const BEGIN_THE_PATTERN: &str =
    "begin its pattern with a letter, a digit or _, for example [A-Za-z0-9_][A-Za-z0-9._-]*";
const OR_PUT_DASHES: &str = "begin its pattern with a letter, a digit or _, for example [A-Za-z0-9_][A-Za-z0-9._-]*, or put -- before it in \
     run, behind a word that is no option";

/// Maximum number of texts of one word that are checked. If the enum values of the word result in more texts, one
/// sample text is checked.
const MAX_TEXTS: usize = 64;

/// State of the options before a word: ended, perhaps ended, or not ended.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Ended {
    No,
    /// There is a `--`, but it can be the value of this option.
    Perhaps(String),
    Yes,
}

/// Refuses a parameter whose value a program can read as an option.
///
/// # Errors
/// OptionAsOperand, DashesOfAnOption, PatternTooLarge.
pub(super) fn check(run: &[Template], parameters: &[ParameterSpec]) -> Result<(), RuleError> {
    let mut words = Words::new(parameters, &DASH, |_| true);
    let mut ends = Ends::new(run, parameters);
    for (index, word) in run.iter().enumerate() {
        let ended = ends.at(index);
        let parameter = word.leading_placeholder().and_then(|place| Some((place, parameters.get(place)?)));
        let Some((place, parameter)) = parameter.filter(|(_, parameter)| may_begin_with_a_dash(parameter)) else {
            continue;
        };
        if ended == Ended::Yes {
            continue;
        }
        let Some(example) = words.find(&Template::from_placeholder(place))? else { continue };
        let (name, value) = (parameter.name.clone(), example.word);
        return Err(match ended {
            Ended::Perhaps(option) => RuleError::DashesOfAnOption { name, value, option },
            _ => {
                let remedy = if ends.heeds_double_dash() { OR_PUT_DASHES } else { BEGIN_THE_PATTERN };
                RuleError::OptionAsOperand { name, value, remedy }
            }
        });
    }
    Ok(())
}

/// Returns an option that certainly takes the next word, `--`, as its value. The author of the rule probably intended
/// to end the options with this `--`.
pub(super) fn swallowed_dashes(run: &[Template], parameters: &[ParameterSpec]) -> Option<String> {
    let mut ends = Ends::new(run, parameters);
    run.iter().enumerate().find_map(|(index, word)| {
        let ended = ends.at(index);
        let is_meant = ended != Ended::Yes && word.constant() == Some("--") && ends.heeds_double_dash();
        let option = ends.before(index).filter(|_| is_meant)?;
        matches!(flags::takes(ends.program, option), Takes::Value).then(|| option.to_owned())
    })
}

/// Returns a parameter with a pattern in the first word after the program, if the program reads this word as options
/// even without a dash. An example is `mode` in `tar {mode} a.tar`.
pub(super) fn chosen_bundle<'p>(run: &[Template], parameters: &'p [ParameterSpec]) -> Option<&'p ParameterSpec> {
    let [program, first, ..] = run else { return None };
    let mut places = first.placeholders().filter_map(|place| parameters.get(place));
    let is_bundle = flags::reads_bundles(program.constant()?);
    places.find(|parameter| is_bundle && parameter.values.is_pattern())
}

/// Returns true if the pattern admits a dash at the beginning of a value. Only such a pattern needs the slow check of
/// the automaton.
fn may_begin_with_a_dash(parameter: &ParameterSpec) -> bool {
    parameter.values.pattern().is_some_and(|pattern| pattern.first.contains(b'-'))
}

/// Reads the words of a rule in order, and tracks if the options have ended.
struct Ends<'r> {
    run: &'r [Template],
    parameters: &'r [ParameterSpec],
    program: &'r str,
    /// Index of the first word after `program`.
    start: usize,
    /// True if the program runs another program, which has its own options.
    runs_other_programs: bool,
    ended: Ended,
    /// Index of the next word.
    next: usize,
}

impl<'r> Ends<'r> {
    fn new(run: &'r [Template], parameters: &'r [ParameterSpec]) -> Self {
        let program = run.first().and_then(Template::constant).unwrap_or_default();
        let runs_other_programs = programs::runs_other_programs(program);
        Self { run, parameters, program, start: 1, runs_other_programs, ended: Ended::No, next: 1 }
    }

    fn heeds_double_dash(&self) -> bool {
        !programs::ignores_double_dash(self.program) && !flags::passes_words_on(self.program)
    }

    /// Returns the state of the options before the word with this index. Indexes must not decrease from call to call.
    fn at(&mut self, index: usize) -> Ended {
        while self.next < index {
            let word = self.run.get(self.next).and_then(Template::constant);
            match word {
                // In `nice -- /bin/rm {x}`, the `--` ends the options of nice, but not the options of rm. Tracking
                // therefore starts again at rm.
                Some(word) if self.runs_other_programs && word.starts_with('/') => {
                    (self.program, self.start, self.ended) = (word, self.next + 1, Ended::No);
                }
                Some("--") if self.ended != Ended::Yes && self.heeds_double_dash() => {
                    self.ended = self.dashes_at(self.next)
                }
                _ => {}
            }
            self.next += 1;
        }
        self.ended.clone()
    }

    /// Returns the state of the options after a `--` at this index.
    fn dashes_at(&self, index: usize) -> Ended {
        if self.before(index) == Some("--") {
            // After two `--`, the options have ended, even if the first `--` is the value of an option.
            return Ended::Yes;
        }
        match self.taker(index) {
            Some(option) => Ended::Perhaps(option),
            None => Ended::Yes,
        }
    }

    /// Returns the word directly before this index. Returns `None` if that word is not constant, or is not an argument
    /// of `program`.
    fn before(&self, index: usize) -> Option<&'r str> {
        let before = index.checked_sub(1).filter(|before| *before >= self.start)?;
        self.run.get(before).and_then(Template::constant)
    }

    /// Returns the option before this index, if the option can take the word at this index as its value.
    fn taker(&self, index: usize) -> Option<String> {
        let before = index.checked_sub(1).filter(|before| *before >= self.start)?;
        let (first, last) = (self.run.get(self.start)?, self.run.get(before)?);
        let is_a_value = |text: &String| index <= self.start + flags::values_of_a_bundle(self.program, text);
        let takes_next = |text: &String| flags::takes(self.program, text) != Takes::Nothing;
        let bundle = self.texts(first).into_iter().find(is_a_value).map(|text| (first, text));
        let (word, text) = bundle.or_else(|| Some((last, self.texts(last).into_iter().find(takes_next)?)))?;
        Some(if text.contains(flags::ANY_TEXT) { word.display(self.parameters) } else { text })
    }

    /// Returns the texts that a word can have. Values that are not listed are represented by sample texts.
    fn texts(&self, word: &Template) -> Vec<String> {
        let mut texts = vec![String::new()];
        if word.extend_prefixes(&mut texts, self.parameters, MAX_TEXTS) {
            return texts;
        }
        let mut text = String::new();
        for piece in word.pieces() {
            match piece {
                Piece::Text(part) => text.push_str(part),
                // At the beginning of a word, only a value of an enum can begin with a dash: `check` has refused
                // patterns that admit a dash there.
                Piece::Placeholder(place) => {
                    let values = self.parameters.get(place).map(|parameter| &parameter.values);
                    let listed = values.and_then(|values| values.enum_values()).unwrap_or_default();
                    if text.is_empty() && listed.iter().any(|value| value.starts_with('-')) {
                        text.push('-');
                    }
                    let number = values.filter(|values| values.enum_values().is_none()).map(|values| values.samples());
                    text.push_str(
                        number.and_then(|samples| samples.into_iter().next()).as_deref().unwrap_or(flags::ANY_TEXT),
                    );
                }
            }
        }
        vec![text]
    }
}
