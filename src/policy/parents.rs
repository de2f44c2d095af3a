//! Refuses patterns with which a path can leave its directory. If a parameter does not set `allowParentDirectory`, its
//! values must not result in a path segment `..` in a word of `run` or in a variable.

use std::collections::BTreeMap;

use super::RuleError;
use super::language::scanner::PARENTS;
use super::language::{Example, Words};
use super::template::{ParameterSpec, Piece, Template};
use super::values::ValueSpec;

/// Checks the words and the variables of a rule.
///
/// # Errors
/// ParentDirectory (with an example), PatternTooLarge.
pub(super) fn check(
    run: &[Template],
    parameters: &[ParameterSpec],
    environment: &BTreeMap<String, ValueSpec>,
) -> Result<(), RuleError> {
    let mut words = words(parameters);
    for (index, word) in run.iter().enumerate().filter(|(_, word)| may_have_dots(word, parameters)) {
        if let Some(example) = words.find(word)? {
            let name = culprit(word, parameters, &example).map(|parameter| parameter.name.as_str()).unwrap_or_default();
            let (field, place) = (format!("parameters.{name}"), format!("run[{index}]"));
            return Err(RuleError::ParentDirectory { field, place, word: example.word });
        }
    }
    for (name, values) in environment.iter().filter(|(_, values)| may_be_dots(values)) {
        let variable = [ParameterSpec { name: name.clone(), values: values.clone() }];
        if let Some(example) = self::words(&variable).find(&Template::from_placeholder(0))? {
            let (field, place) = (format!("environment.{name}"), name.clone());
            return Err(RuleError::ParentDirectory { field, place, word: example.word });
        }
    }
    Ok(())
}

fn words(parameters: &[ParameterSpec]) -> Words<'_> {
    Words::new(parameters, &PARENTS, ValueSpec::keeps_out_parent_directory)
}

fn may_be_dots(values: &ValueSpec) -> bool {
    values.keeps_out_parent_directory() && values.bytes.contains(b'.')
}

/// Returns false only if no value can make a forbidden segment `..`. The slow check is then not necessary.
fn may_have_dots(word: &Template, parameters: &[ParameterSpec]) -> bool {
    let values = |place: usize| parameters.get(place).map(|parameter| &parameter.values);
    let has_free = word.placeholders().any(|place| values(place).is_some_and(ValueSpec::keeps_out_parent_directory));
    let mut texts = word.pieces();
    has_free
        && texts.any(|piece| match piece {
            // Both dots can be in the text, as in `/srv/..{p}`. Otherwise, a value contains a dot (next match arm).
            Piece::Text(text) => text.contains(".."),
            Piece::Placeholder(place) => values(place).is_some_and(|values| values.bytes.contains(b'.')),
        })
}

/// Returns the parameter to report: the first parameter whose value is a part of the segment `..`.
fn culprit<'p>(word: &Template, parameters: &'p [ParameterSpec], example: &Example) -> Option<&'p ParameterSpec> {
    let is_kept_out =
        |place: &usize| parameters.get(*place).is_some_and(|parameter| parameter.values.keeps_out_parent_directory());
    let candidates: Vec<usize> = word.placeholders().filter(is_kept_out).collect();
    let is_to_blame = |candidate: &&usize| {
        let read = |state, piece| match piece {
            Piece::Text(text) => PARENTS.read(state, text, false),
            Piece::Placeholder(place) => {
                let value = example.values.get(&place).map(String::as_str).unwrap_or_default();
                PARENTS.read(state, value, place == **candidate)
            }
        };
        PARENTS.found(word.pieces().fold(PARENTS.start(), read)).is_some()
    };
    let place = candidates.iter().find(is_to_blame).or_else(|| candidates.first())?;
    parameters.get(*place)
}
