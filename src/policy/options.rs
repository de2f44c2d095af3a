//! Whether a value can be taken for an option: it begins with `-` at the beginning of a word, and no `--` before it ends
//! the options for certain.
//!
//! A `--` behind an option may be the value of that option (`tar -xf -- {x}` reads an archive named `--`, and `{x}` is an
//! option again). Which options take a value, only the program knows. So a `--` counts only behind a word that is no
//! option, or behind an option that is known to take no value: see [`flags`].

mod flags;

use super::RuleProblem;
use super::language::Words;
use super::language::scanner::DASH;
use super::programs;
use super::template::{NamedValues, Piece, Template};
use flags::Takes;

const BEGIN_THE_PATTERN: &str =
    "begin its pattern with a letter, a digit or _, for example [A-Za-z0-9_][A-Za-z0-9._-]*";
const OR_PUT_DASHES: &str = "begin its pattern with a letter, a digit or _, for example [A-Za-z0-9_][A-Za-z0-9._-]*, or put -- before it in \
     run, behind a word that is no option";

/// How many texts a word with enums in it may become, to be looked at one by one.
const MOST_TEXTS: usize = 64;

/// What is known, at a word, of the options before it.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Ended {
    No,
    /// There is a `--`, but it may be the value of this option.
    Perhaps(String),
    Yes,
}

/// The first problem: a parameter whose value a program may take for an option.
///
/// # Errors
/// OptionAsOperand, DashesOfAnOption, PatternTooLarge.
pub(super) fn check(run: &[Template], parameters: &[NamedValues]) -> Result<(), RuleProblem> {
    let mut words = Words::new(parameters, &DASH, |_| true);
    let mut ends = Ends::new(run, parameters);
    for (index, word) in run.iter().enumerate() {
        let ended = ends.at(index);
        let parameter = word.begins_with_place().and_then(|place| Some((place, parameters.get(place)?)));
        let Some((place, parameter)) = parameter.filter(|(_, parameter)| may_begin_with_a_dash(parameter)) else {
            continue;
        };
        if ended == Ended::Yes {
            continue;
        }
        let Some(example) = words.find(&Template::of_place(place))? else { continue };
        let (name, value) = (parameter.name.clone(), example.word);
        return Err(match ended {
            Ended::Perhaps(option) => RuleProblem::DashesOfAnOption { name, value, option },
            _ => {
                let remedy = if ends.minds_dashes() { OR_PUT_DASHES } else { BEGIN_THE_PATTERN };
                RuleProblem::OptionAsOperand { name, value, remedy }
            }
        });
    }
    Ok(())
}

/// An option of the rule that takes the `--` behind it as its value, for certain: whoever wrote that meant something else.
pub(super) fn swallowed_dashes(run: &[Template], parameters: &[NamedValues]) -> Option<String> {
    let mut ends = Ends::new(run, parameters);
    run.iter().enumerate().find_map(|(index, word)| {
        let ended = ends.at(index);
        let is_meant = ended != Ended::Yes && word.constant() == Some("--") && ends.minds_dashes();
        let option = ends.before(index).filter(|_| is_meant)?;
        matches!(flags::takes(ends.program, option), Takes::Value).then(|| option.to_owned())
    })
}

/// A parameter in a first word that the program reads as options, though it has no dash: `tar {mode} a.tar`.
pub(super) fn chosen_bundle<'p>(run: &[Template], parameters: &'p [NamedValues]) -> Option<&'p NamedValues> {
    let [program, first, ..] = run else { return None };
    let mut places = first.places().filter_map(|place| parameters.get(place));
    let is_bundle = flags::reads_bundles(program.constant()?);
    places.find(|parameter| is_bundle && parameter.values.is_pattern())
}

/// Quick, and never wrong about a value that may: the automaton is asked after it.
fn may_begin_with_a_dash(parameter: &NamedValues) -> bool {
    parameter.values.pattern().is_some_and(|pattern| pattern.first.contains(b'-'))
}

/// Walks along the words of a rule.
struct Ends<'r> {
    run: &'r [Template],
    parameters: &'r [NamedValues],
    program: &'r str,
    /// Where the words of that program begin.
    start: usize,
    /// True if the program runs another one, which has options of its own.
    runs_others: bool,
    ended: Ended,
    /// The word that is looked at next.
    next: usize,
}

impl<'r> Ends<'r> {
    fn new(run: &'r [Template], parameters: &'r [NamedValues]) -> Self {
        let program = run.first().and_then(Template::constant).unwrap_or_default();
        let runs_others = programs::runs_others(program);
        Self { run, parameters, program, start: 1, runs_others, ended: Ended::No, next: 1 }
    }

    fn minds_dashes(&self) -> bool {
        !programs::minds_no_dashes(self.program) && !flags::passes_words_on(self.program)
    }

    /// What holds for the word with this index, which is not before the one that was asked for last.
    fn at(&mut self, index: usize) -> Ended {
        while self.next < index {
            let word = self.run.get(self.next).and_then(Template::constant);
            match word {
                // `nice -- /bin/rm {x}`: the dashes are not those of rm.
                Some(word) if self.runs_others && word.starts_with('/') => {
                    (self.program, self.start, self.ended) = (word, self.next + 1, Ended::No);
                }
                Some("--") if self.ended != Ended::Yes && self.minds_dashes() => self.ended = self.dashes_at(self.next),
                _ => {}
            }
            self.next += 1;
        }
        self.ended.clone()
    }

    /// What a `--` at this index ends.
    fn dashes_at(&self, index: usize) -> Ended {
        if self.before(index) == Some("--") {
            // One of the two is the end, whichever the option before them takes.
            return Ended::Yes;
        }
        match self.taker(index) {
            Some(option) => Ended::Perhaps(option),
            None => Ended::Yes,
        }
    }

    /// The constant word before this index, among those of the program.
    fn before(&self, index: usize) -> Option<&'r str> {
        let before = index.checked_sub(1).filter(|before| *before >= self.start)?;
        self.run.get(before).and_then(Template::constant)
    }

    /// The option before this index, if it may take the word at this index as its value.
    fn taker(&self, index: usize) -> Option<String> {
        let before = index.checked_sub(1).filter(|before| *before >= self.start)?;
        let (first, last) = (self.run.get(self.start)?, self.run.get(before)?);
        let is_a_value = |text: &String| index <= self.start + flags::values_of_a_bundle(self.program, text);
        let takes_next = |text: &String| flags::takes(self.program, text) != Takes::Nothing;
        let bundle = self.texts(first).into_iter().find(is_a_value).map(|text| (first, text));
        let (word, text) = bundle.or_else(|| Some((last, self.texts(last).into_iter().find(takes_next)?)))?;
        Some(if text.contains(flags::ANY_TEXT) { word.display(self.parameters) } else { text })
    }

    /// The texts that a word can be, as far as they matter here.
    fn texts(&self, word: &Template) -> Vec<String> {
        let mut texts = vec![String::new()];
        if word.extend(&mut texts, self.parameters, MOST_TEXTS) {
            return texts;
        }
        let mut text = String::new();
        for piece in word.pieces() {
            match piece {
                Piece::Text(part) => text.push_str(part),
                // A word that begins with it is no option: the walk has passed it, and its dashes were refused there.
                Piece::Place(place) => {
                    let values = self.parameters.get(place).map(|parameter| &parameter.values);
                    let listed = values.and_then(|values| values.listed()).unwrap_or_default();
                    if text.is_empty() && listed.iter().any(|value| value.starts_with('-')) {
                        text.push('-');
                    }
                    let number = values.filter(|values| values.listed().is_none()).map(|values| values.samples());
                    text.push_str(
                        number.and_then(|samples| samples.into_iter().next()).as_deref().unwrap_or(flags::ANY_TEXT),
                    );
                }
            }
        }
        vec![text]
    }
}
