//! Text with places for parameters, `systemctl restart {unit}`: read back from a request, and expanded into words.
//!
//! The promise kept here: a template can be read in one way only. What follows a place is text whose first byte the
//! parameter does not admit, so a value ends where that byte first comes; nothing is tried twice.

use super::RuleProblem;
use super::values::{Misfit, Values};

/// A parameter of a rule.
#[derive(Clone, Debug)]
pub(super) struct NamedValues {
    pub name: String,
    pub values: Values,
}

/// A text with places.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Template(Vec<Segment>);

/// A part of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Segment {
    /// Never empty, and never two in a row.
    Text(String),
    /// A value of the parameter with this index.
    Place(usize),
}

/// One piece of a template.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    /// A value of the parameter with this index.
    Place(usize),
}

/// Why a text is not what a template describes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Miss {
    /// How many bytes were as described before.
    pub matched: usize,
    pub what: MissKind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MissKind {
    /// The text is another one, or goes on.
    Text,
    /// The value of this parameter is none of its values.
    Value(usize, Misfit),
    /// This parameter has another value elsewhere in the request.
    Contradiction(usize),
}

impl Template {
    /// Parses the text of the rule's `field`: `{name}` is a place, `{{` and `}}` are braces.
    ///
    /// # Errors
    /// StrayBrace, UndeclaredParameter.
    pub fn parse(field: &'static str, text: &str, parameters: &[NamedValues]) -> Result<Self, RuleProblem> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            template.push_text(before);
            if let Some(after) = brace.strip_prefix("{{") {
                template.push_text("{");
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                template.push_text("}");
                rest = after;
            } else {
                let place = brace.strip_prefix('{').and_then(|inside| inside.split_once('}'));
                let (name, after) = place.ok_or(RuleProblem::StrayBrace { field })?;
                let index = parameters.iter().position(|parameter| parameter.name == name);
                let undeclared = || RuleProblem::UndeclaredParameter { field, name: name.to_owned() };
                template.0.push(Segment::Place(index.ok_or_else(undeclared)?));
                rest = after;
            }
        }
        template.push_text(rest);
        Ok(template)
    }

    fn push_text(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Segment::Text(last)) => last.push_str(text),
            _ => self.0.push(Segment::Text(text.to_owned())),
        }
    }

    /// The templates of words as one text, with a space between them.
    pub fn joined(words: &[Self]) -> Self {
        let mut all = Self::default();
        for (index, word) in words.iter().enumerate() {
            if index > 0 {
                all.push_text(" ");
            }
            for segment in &word.0 {
                match segment {
                    Segment::Text(text) => all.push_text(text),
                    Segment::Place(parameter) => all.0.push(Segment::Place(*parameter)),
                }
            }
        }
        all
    }

    /// Makes sure that it can be read in one way only. In a text of several words, a parameter that is not at the end
    /// must not admit a space either.
    ///
    /// # Errors
    /// AmbiguousTemplate, with the parameter.
    pub fn check_readable(
        &self,
        field: &'static str,
        parameters: &[NamedValues],
        is_text: bool,
        remedy: &'static str,
    ) -> Result<(), RuleProblem> {
        for (index, segment) in self.0.iter().enumerate() {
            let Segment::Place(place) = segment else { continue };
            let Some(parameter) = parameters.get(*place) else { continue };
            let is_ambiguous = match self.0.get(index + 1) {
                None => false,
                Some(Segment::Place(_)) => true,
                Some(Segment::Text(text)) => {
                    let next = text.bytes().next();
                    next.is_none_or(|byte| parameter.values.bytes.contains(byte))
                        || (is_text && parameter.values.bytes.contains(b' '))
                }
            };
            if is_ambiguous {
                return Err(RuleProblem::AmbiguousTemplate { field, name: parameter.name.clone(), remedy });
            }
        }
        Ok(())
    }

    /// A word that is nothing but a value of the parameter with this index.
    pub fn of_place(place: usize) -> Self {
        Self(vec![Segment::Place(place)])
    }

    /// What it consists of, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> + '_ {
        self.0.iter().map(|segment| match segment {
            Segment::Text(text) => Piece::Text(text),
            Segment::Place(place) => Piece::Place(*place),
        })
    }

    /// The indexes of the parameters in it, in order, as often as they occur.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Place(index) => Some(*index),
            Segment::Text(_) => None,
        })
    }

    /// Its parts, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The text, where there is no place in it.
    pub fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Segment::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text before the first place, and that place.
    pub fn split_at_place(&self) -> Option<(&str, usize)> {
        match self.0.as_slice() {
            [Segment::Place(place), ..] => Some(("", *place)),
            [Segment::Text(before), Segment::Place(place), ..] => Some((before, *place)),
            _ => None,
        }
    }

    /// Adds to each of these texts what the template says for certain; what a parameter lists counts, where that does
    /// not make more than `most` of them. Returns whether that is all of the template.
    pub fn extend(&self, texts: &mut Vec<String>, parameters: &[NamedValues], most: usize) -> bool {
        for segment in &self.0 {
            match segment {
                Segment::Text(text) => texts.iter_mut().for_each(|all| all.push_str(text)),
                Segment::Place(place) => {
                    let listed = parameters.get(*place).and_then(|parameter| parameter.values.listed());
                    let Some(listed) = listed.filter(|listed| listed.len() * texts.len() <= most) else { return false };
                    *texts = texts
                        .iter()
                        .flat_map(|text| listed.iter().map(move |value| format!("{text}{value}")))
                        .collect();
                }
            }
        }
        true
    }

    /// The text behind the last place.
    pub fn ending(&self) -> &str {
        match self.0.last() {
            Some(Segment::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether a value stands at the very beginning.
    pub fn begins_with_place(&self) -> Option<usize> {
        match self.0.first() {
            Some(Segment::Place(index)) => Some(*index),
            _ => None,
        }
    }

    /// Whether a text is one that the template describes, with values that these parameters take.
    pub fn admits(&self, parameters: &[NamedValues], text: &str) -> bool {
        self.read(text, parameters, &mut vec![None; parameters.len()]).is_ok()
    }

    /// Reads a text: puts the value of each place into `values`, which holds those that are known already.
    pub fn read<'t>(
        &self,
        text: &'t str,
        parameters: &[NamedValues],
        values: &mut [Option<&'t str>],
    ) -> Result<(), Miss> {
        let mut rest = text;
        for (index, segment) in self.0.iter().enumerate() {
            let matched = text.len() - rest.len();
            match segment {
                Segment::Text(expected) => match rest.strip_prefix(expected.as_str()) {
                    Some(after) => rest = after,
                    None => {
                        let equal = expected.bytes().zip(rest.bytes()).take_while(|(left, right)| left == right);
                        return Err(Miss { matched: matched + equal.count(), what: MissKind::Text });
                    }
                },
                Segment::Place(place) => {
                    let end = match self.0.get(index + 1) {
                        Some(Segment::Text(next)) => {
                            let delimiter = next.bytes().next();
                            rest.bytes().position(|byte| Some(byte) == delimiter).unwrap_or(rest.len())
                        }
                        _ => rest.len(),
                    };
                    let (value, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                    bind(*place, value, parameters, values).map_err(|what| Miss { matched, what })?;
                    rest = after;
                }
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Miss { matched: text.len() - rest.len(), what: MissKind::Text }) }
    }

    /// As it was written, but for doubled braces.
    pub fn display(&self, parameters: &[NamedValues]) -> String {
        let names: Vec<String> = parameters.iter().map(|parameter| format!("{{{}}}", parameter.name)).collect();
        self.expand(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The text with these values in its places.
    pub fn expand(&self, values: &[&str]) -> String {
        let part = |segment: &Segment| match segment {
            Segment::Text(text) => text.clone(),
            Segment::Place(index) => values.get(*index).copied().unwrap_or_default().to_owned(),
        };
        self.0.iter().map(part).collect()
    }
}

/// Notes the value of a parameter, where it is one.
fn bind<'t>(
    place: usize,
    value: &'t str,
    parameters: &[NamedValues],
    values: &mut [Option<&'t str>],
) -> Result<(), MissKind> {
    let (Some(parameter), Some(slot)) = (parameters.get(place), values.get_mut(place)) else {
        return Err(MissKind::Text);
    };
    parameter.values.check(value).map_err(|misfit| MissKind::Value(place, misfit))?;
    match slot.replace(value) {
        Some(before) if before != value => Err(MissKind::Contradiction(place)),
        _ => Ok(()),
    }
}
