//! Compares the words of a Deny with the words of a command that an Allow executes.

use crate::policy::base_name;
use crate::policy::compile::CompiledRule;
use crate::policy::launchers::{Command, Word, may_be_program, spellings};
use crate::policy::template::Template;

use super::overlap::{LintWord, Overlaps};

/// Relation of a Deny and a command.
#[derive(Clone, Debug)]
pub(super) enum Relation {
    /// The Deny can match the command.
    Holds,
    Differs {
        /// Similarity of the Deny and the command, less than [`HOLDS`]. A higher number means more similar.
        nearness: usize,
        /// Difference of the Allow from the Deny, as a clause about the Allow ("it has other words").
        why: String,
        /// Example of words with which the command can perhaps do what the Deny forbids. Empty if no example is known.
        /// `None` if the command differs too much from the Deny.
        evading: Option<Vec<String>>,
        /// True if a launcher starts the command.
        is_launched: bool,
    },
}

/// Nearness of a Deny that can match the command. Greater than every other nearness.
const HOLDS: usize = 2000;
/// Maximum nearness if only the texts are similar.
const MAX_BY_TEXT: usize = 300;
/// Maximum nearness if only the programs are similar.
const MAX_BY_PROGRAM: usize = 99;

type AllowedCommand<'a> = Command<'a, LintWord<'a>>;

impl Relation {
    pub fn holds(&self) -> bool {
        matches!(self, Relation::Holds)
    }

    pub fn nearness(&self) -> usize {
        match self {
            Relation::Holds => HOLDS,
            Relation::Differs { nearness, .. } => *nearness,
        }
    }

    /// Returns the relation of the texts of the two rules, if the texts are more similar than the words, or if the Deny
    /// has no `run`. Otherwise returns `self`, the relation of the words.
    pub fn or_text(self, deny: &CompiledRule, allow: &CompiledRule) -> Self {
        let (Some(denied), Some(own)) = (&deny.text, &allow.text) else { return self };
        let (denied, own) = (denied.display(&deny.parameters), own.display(&allow.parameters));
        let nearness = common(&denied, &own).min(MAX_BY_TEXT);
        if !deny.run.is_empty() && self.nearness() >= nearness {
            return self;
        }
        Relation::Differs { nearness, why: format!("its text is {own:?}"), evading: None, is_launched: false }
    }
}

/// Compares the words of a Deny with the words of a command.
pub(super) fn words_relation(
    deny: &CompiledRule,
    allow: &CompiledRule,
    command: &AllowedCommand<'_>,
    overlaps: &Overlaps,
) -> Relation {
    let differs = |nearness, why, evading| {
        let is_launched = command.is_launched;
        Relation::Differs { nearness, why, evading, is_launched }
    };
    let (Some((denied_program, denied)), Some((program, own))) = (deny.run.split_first(), command.words.split_first())
    else {
        return differs(0, "it has other words".to_owned(), None);
    };
    let is_program = is_program(deny, denied_program, *program, command.is_launched);
    let overlap = |own: LintWord<'_>, word: &Template| overlaps.word(own, &allow.parameters, word, &deny.parameters);
    let equal = own.iter().zip(denied).filter(|(own, word)| overlap(**own, word)).count();
    if is_program && own.len() == denied.len() && equal == denied.len() {
        return Relation::Holds;
    }
    let has_name = match denied_program.constant().filter(|_| program.is_constant()) {
        Some(path) => base_name(path) == base_name(program.text()),
        None => is_program,
    };
    if !has_name {
        let (path, own_path) = (denied_program.display(&deny.parameters), program.display(&allow.parameters));
        let alike = common(&path, &own_path).min(MAX_BY_PROGRAM);
        return differs(alike, format!("it runs {own_path}"), None);
    }
    let (places, extra) = places(own, denied, &overlap);
    let missing: Vec<&Template> =
        denied.iter().zip(&places).filter(|(_, place)| place.is_none()).map(|(word, _)| word).collect();
    let shown: Vec<String> = extra.iter().map(|word| word.display(&allow.parameters)).collect();
    let lacking: Vec<String> = missing.iter().map(|word| word.display(&deny.parameters)).collect();
    if missing.iter().all(|word| word.constant() == Some("--")) {
        let (nearness, why) = match (is_program, shown.is_empty(), missing.is_empty()) {
            (false, ..) => (950, format!("it runs {}", program.display(&allow.parameters))),
            (true, true, true) => (900, "its words stand in another order".to_owned()),
            (true, true, false) => (840, "it does not have --".to_owned()),
            (true, false, true) => (850, format!("it has {} too", shown.join(" "))),
            (true, false, false) => (840, format!("it has {} and not --", shown.join(" "))),
        };
        return differs(nearness, why, Some(evading(deny, allow, command, denied, &places)));
    }
    if shown.is_empty() {
        return differs(800, format!("it does not have {}", lacking.join(" ")), None);
    }
    if own.len() == denied.len() {
        let why = format!("it has {} and not {}", shown.join(" "), lacking.join(" "));
        return differs(500 + equal, why, None);
    }
    let why = format!("it has {} words and not {}", own.len() + 1, denied.len() + 1);
    differs(400 + equal, why, None)
}

/// Returns true if a command can execute the program that a Deny names.
pub(super) fn is_program(deny: &CompiledRule, denied: &Template, program: LintWord<'_>, is_launched: bool) -> bool {
    match denied.constant() {
        _ if !program.is_constant() => true,
        Some(path) => may_be_program(program.text(), is_launched, path),
        None => spellings(program.text(), is_launched)
            .iter()
            .any(|spelling| denied.extract(spelling, &deny.parameters, &mut vec![None; deny.parameters.len()]).is_ok()),
    }
}

/// Finds a word of the command for each word of a Deny, in any order. Returns the positions of these words, and the
/// remaining words of the command.
///
/// - Constants of the Deny are matched first.
/// - Words of the command that begin with a dash are used last.
fn places<'a>(
    own: &[LintWord<'a>],
    denied: &[Template],
    overlap: &impl Fn(LintWord<'_>, &Template) -> bool,
) -> (Vec<Option<usize>>, Vec<LintWord<'a>>) {
    let mut places = vec![None; denied.len()];
    let mut is_taken = vec![false; own.len()];
    let is_constant = |word: &Template| word.constant().is_some();
    for is_turn_of_constants in [true, false] {
        for (index, word) in denied.iter().enumerate().filter(|(_, word)| is_constant(word) == is_turn_of_constants) {
            let is_free = |place: &usize| {
                let word_there = own.get(*place).filter(|_| is_taken.get(*place) == Some(&false));
                word_there.is_some_and(|own| overlap(*own, word))
            };
            let is_no_option = |place: &usize| own.get(*place).is_some_and(|own| !own.text().starts_with('-'));
            let here = Some(index).filter(is_free).filter(is_no_option);
            let found = here.or_else(|| (0..own.len()).filter(is_free).find(is_no_option));
            let found = found.or_else(|| (0..own.len()).find(is_free));
            if let Some((place, taken)) = found.and_then(|place| Some((place, is_taken.get_mut(place)?))) {
                *taken = true;
                places.iter_mut().skip(index).take(1).for_each(|slot| *slot = Some(place));
            }
        }
    }
    let extra = own.iter().zip(&is_taken).filter(|(_, is_taken)| !**is_taken).map(|(word, _)| *word).collect();
    (places, extra)
}

/// Returns words with which the command does what the Deny forbids. Returns no words if a parameter has no example.
fn evading(
    deny: &CompiledRule,
    allow: &CompiledRule,
    command: &AllowedCommand<'_>,
    denied: &[Template],
    places: &[Option<usize>],
) -> Vec<String> {
    let denied_values: Vec<String> =
        deny.parameters.iter().map(|parameter| parameter.values.example().unwrap_or_default()).collect();
    let denied_values: Vec<&str> = denied_values.iter().map(String::as_str).collect();
    let mut values: Vec<Option<String>> = vec![None; allow.parameters.len()];
    for (word, place) in denied.iter().zip(places) {
        let own = place.and_then(|place| command.words.get(place + 1));
        let Some(LintWord::Template(own)) = own else { continue };
        let wanted = word.expand(&denied_values);
        let mut read = vec![None; allow.parameters.len()];
        if own.extract(&wanted, &allow.parameters, &mut read).is_ok() {
            values.iter_mut().zip(read).for_each(|(value, read)| {
                if let Some(read) = read {
                    *value = Some(read.to_owned());
                }
            });
        }
    }
    let filled = values.into_iter().zip(&allow.parameters);
    let filled: Option<Vec<String>> = filled.map(|(value, known)| value.or_else(|| known.values.example())).collect();
    let Some(filled) = filled else { return Vec::new() };
    let filled: Vec<&str> = filled.iter().map(String::as_str).collect();
    command.words.iter().map(|word| word.expand(&filled)).collect()
}

fn common(left: &str, right: &str) -> usize {
    left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count()
}
