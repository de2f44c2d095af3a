//! No pattern leads a path out of its folder: no word of `run`, and no variable, can have a segment `..` that a requester
//! chose, unless the parameter says that it may.

use std::collections::BTreeMap;

use super::RuleProblem;
use super::language::scanner::PARENTS;
use super::language::{Example, Words};
use super::template::{NamedValues, Piece, Template};
use super::values::Values;

/// # Errors
/// ParentDirectory, with an example; PatternTooLarge.
pub(super) fn check(
    run: &[Template],
    parameters: &[NamedValues],
    environment: &BTreeMap<String, Values>,
) -> Result<(), RuleProblem> {
    let mut words = words(parameters);
    for (index, word) in run.iter().enumerate().filter(|(_, word)| may_have_dots(word, parameters)) {
        if let Some(example) = words.find(word)? {
            let name = culprit(word, parameters, &example).map(|parameter| parameter.name.as_str()).unwrap_or_default();
            let (field, place) = (format!("parameters.{name}"), format!("run[{index}]"));
            return Err(RuleProblem::ParentDirectory { field, place, word: example.word });
        }
    }
    for (name, values) in environment.iter().filter(|(_, values)| may_be_dots(values)) {
        let variable = [NamedValues { name: name.clone(), values: values.clone() }];
        if let Some(example) = self::words(&variable).find(&Template::of_place(0))? {
            let (field, place) = (format!("environment.{name}"), name.clone());
            return Err(RuleProblem::ParentDirectory { field, place, word: example.word });
        }
    }
    Ok(())
}

fn words(parameters: &[NamedValues]) -> Words<'_> {
    Words::new(parameters, &PARENTS, Values::keeps_out_parent_directory)
}

fn may_be_dots(values: &Values) -> bool {
    values.keeps_out_parent_directory() && values.bytes.contains(b'.')
}

/// Quick, and never wrong about a word that may: most words have no dots that a requester chooses.
fn may_have_dots(word: &Template, parameters: &[NamedValues]) -> bool {
    let values = |place: usize| parameters.get(place).map(|parameter| &parameter.values);
    let has_free = word.places().any(|place| values(place).is_some_and(Values::keeps_out_parent_directory));
    let mut texts = word.pieces();
    has_free
        && texts.any(|piece| match piece {
            // `/srv/..{p}`; one dot alone needs a second one of a value.
            Piece::Text(text) => text.contains(".."),
            Piece::Place(place) => values(place).is_some_and(|values| values.bytes.contains(b'.')),
        })
}

/// The parameter to blame: the one whose choice alone makes the segment.
fn culprit<'p>(word: &Template, parameters: &'p [NamedValues], example: &Example) -> Option<&'p NamedValues> {
    let is_kept_out =
        |place: &usize| parameters.get(*place).is_some_and(|parameter| parameter.values.keeps_out_parent_directory());
    let candidates: Vec<usize> = word.places().filter(is_kept_out).collect();
    let is_to_blame = |candidate: &&usize| {
        let read = |state, piece| match piece {
            Piece::Text(text) => PARENTS.read(state, text, false),
            Piece::Place(place) => {
                let value = example.values.get(&place).map(String::as_str).unwrap_or_default();
                PARENTS.read(state, value, place == **candidate)
            }
        };
        PARENTS.found(word.pieces().fold(PARENTS.start(), read)).is_some()
    };
    let place = candidates.iter().find(is_to_blame).or_else(|| candidates.first())?;
    parameters.get(*place)
}
