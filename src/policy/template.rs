//! Text with placeholders for parameters, for example `systemctl restart {unit}`. A template extracts values from a
//! request, and inserts values into words.
//!
//! # Guarantees
//! A template can be read in only one way. The text after a placeholder begins with a byte that no value of the
//! placeholder contains. The value therefore ends before the first such byte, and matching never backtracks.

use super::RuleError;
use super::values::{ValueError, ValueSpec};

/// A parameter of a rule.
#[derive(Clone, Debug)]
pub(super) struct ParameterSpec {
    pub name: String,
    pub values: ValueSpec,
}

/// Text with placeholders.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Template(Vec<Segment>);

/// Segment of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Segment {
    /// Constant text, never empty. If another segment follows, it is a placeholder.
    Text(String),
    /// Value of the parameter with this index.
    Placeholder(usize),
}

/// Borrowed segment of a template.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    /// Value of the parameter with this index.
    Placeholder(usize),
}

/// Reason why a text does not match a template.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TemplateMismatch {
    /// Number of bytes that matched before the mismatch.
    pub matched: usize,
    pub what: TemplateMismatchKind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TemplateMismatchKind {
    /// The text differs from the template, or is longer than the template.
    Text,
    /// The parameter with this index does not admit its value.
    Value(usize, ValueError),
    /// The request contains two different values for the parameter with this index.
    Contradiction(usize),
}

impl Template {
    /// Parses the text of a field of a rule. `field` is the name of the field, for error messages. `{name}` is a
    /// placeholder. `{{` and `}}` stand for single braces.
    ///
    /// # Errors
    /// UnescapedBrace, UndeclaredParameter.
    pub fn parse(field: &'static str, text: &str, parameters: &[ParameterSpec]) -> Result<Self, RuleError> {
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
                let (name, after) = place.ok_or(RuleError::UnescapedBrace { field })?;
                let index = parameters.iter().position(|parameter| parameter.name == name);
                let undeclared = || RuleError::UndeclaredParameter { field, name: name.to_owned() };
                template.0.push(Segment::Placeholder(index.ok_or_else(undeclared)?));
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

    /// Returns one template for all words, with a space between two words.
    pub fn join(words: &[Self]) -> Self {
        let mut all = Self::default();
        for (index, word) in words.iter().enumerate() {
            if index > 0 {
                all.push_text(" ");
            }
            for segment in &word.0 {
                match segment {
                    Segment::Text(text) => all.push_text(text),
                    Segment::Placeholder(parameter) => all.0.push(Segment::Placeholder(*parameter)),
                }
            }
        }
        all
    }

    /// Checks that the template can be read in only one way. If the template is a text of several words (`is_text`),
    /// only a parameter at the end of the text may admit a space.
    ///
    /// # Errors
    /// AmbiguousTemplate, with the name of the parameter.
    pub fn check_unambiguous(
        &self,
        field: &'static str,
        parameters: &[ParameterSpec],
        is_text: bool,
        remedy: &'static str,
    ) -> Result<(), RuleError> {
        for (index, segment) in self.0.iter().enumerate() {
            let Segment::Placeholder(place) = segment else { continue };
            let Some(parameter) = parameters.get(*place) else { continue };
            let is_ambiguous = match self.0.get(index + 1) {
                None => false,
                Some(Segment::Placeholder(_)) => true,
                Some(Segment::Text(text)) => {
                    let next = text.bytes().next();
                    next.is_none_or(|byte| parameter.values.bytes.contains(byte))
                        || (is_text && parameter.values.bytes.contains(b' '))
                }
            };
            if is_ambiguous {
                return Err(RuleError::AmbiguousTemplate { field, name: parameter.name.clone(), remedy });
            }
        }
        Ok(())
    }

    /// Returns a template that consists of one placeholder.
    pub fn from_placeholder(place: usize) -> Self {
        Self(vec![Segment::Placeholder(place)])
    }

    /// Returns the segments, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> + '_ {
        self.0.iter().map(|segment| match segment {
            Segment::Text(text) => Piece::Text(text),
            Segment::Placeholder(place) => Piece::Placeholder(*place),
        })
    }

    /// Returns the index of each placeholder's parameter, in order. A parameter that occurs twice is returned twice.
    pub fn placeholders(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Placeholder(index) => Some(*index),
            Segment::Text(_) => None,
        })
    }

    /// Returns the segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Returns the text, if the template has no placeholder.
    pub fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Segment::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the text before the first placeholder, and the index of its parameter.
    pub fn split_at_placeholder(&self) -> Option<(&str, usize)> {
        match self.0.as_slice() {
            [Segment::Placeholder(place), ..] => Some(("", *place)),
            [Segment::Text(before), Segment::Placeholder(place), ..] => Some((before, *place)),
            _ => None,
        }
    }

    /// Appends the constant prefix of the template to each text. Returns true if the whole template was appended.
    ///
    /// Each value of an enum parameter yields another text. For example, `restart {unit}` with `unit: [a, b]` yields
    /// `restart a` and `restart b`. If there would be more than `most` texts, the prefix ends before the parameter.
    pub fn extend_prefixes(&self, texts: &mut Vec<String>, parameters: &[ParameterSpec], most: usize) -> bool {
        for segment in &self.0 {
            match segment {
                Segment::Text(text) => texts.iter_mut().for_each(|all| all.push_str(text)),
                Segment::Placeholder(place) => {
                    let listed = parameters.get(*place).and_then(|parameter| parameter.values.enum_values());
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

    /// Returns the text after the last placeholder.
    pub fn literal_suffix(&self) -> &str {
        match self.0.last() {
            Some(Segment::Text(text)) => text,
            _ => "",
        }
    }

    /// Returns the index of the parameter if the template begins with a placeholder.
    pub fn leading_placeholder(&self) -> Option<usize> {
        match self.0.first() {
            Some(Segment::Placeholder(index)) => Some(*index),
            _ => None,
        }
    }

    /// Returns true if the whole text matches the template with values that the parameters admit.
    pub fn matches_whole(&self, parameters: &[ParameterSpec], text: &str) -> bool {
        self.extract(text, parameters, &mut vec![None; parameters.len()]).is_ok()
    }

    /// Matches a text, and stores the value of each placeholder in `values`. If `values` already contains a value for
    /// the parameter, the two values must be equal.
    pub fn extract<'t>(
        &self,
        text: &'t str,
        parameters: &[ParameterSpec],
        values: &mut [Option<&'t str>],
    ) -> Result<(), TemplateMismatch> {
        let mut rest = text;
        for (index, segment) in self.0.iter().enumerate() {
            let matched = text.len() - rest.len();
            match segment {
                Segment::Text(expected) => match rest.strip_prefix(expected.as_str()) {
                    Some(after) => rest = after,
                    None => {
                        let equal = expected.bytes().zip(rest.bytes()).take_while(|(left, right)| left == right);
                        return Err(TemplateMismatch {
                            matched: matched + equal.count(),
                            what: TemplateMismatchKind::Text,
                        });
                    }
                },
                Segment::Placeholder(place) => {
                    let end = match self.0.get(index + 1) {
                        Some(Segment::Text(next)) => {
                            let delimiter = next.bytes().next();
                            rest.bytes().position(|byte| Some(byte) == delimiter).unwrap_or(rest.len())
                        }
                        _ => rest.len(),
                    };
                    let (value, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                    bind(*place, value, parameters, values).map_err(|what| TemplateMismatch { matched, what })?;
                    rest = after;
                }
            }
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(TemplateMismatch { matched: text.len() - rest.len(), what: TemplateMismatchKind::Text })
        }
    }

    /// Returns the template as its author wrote it, but each doubled brace is shown as a single brace.
    pub fn display(&self, parameters: &[ParameterSpec]) -> String {
        let names: Vec<String> = parameters.iter().map(|parameter| format!("{{{}}}", parameter.name)).collect();
        self.expand(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Returns the text with these values in its placeholders.
    pub fn expand(&self, values: &[&str]) -> String {
        let part = |segment: &Segment| match segment {
            Segment::Text(text) => text.clone(),
            Segment::Placeholder(index) => values.get(*index).copied().unwrap_or_default().to_owned(),
        };
        self.0.iter().map(part).collect()
    }
}

/// Matches words with templates, up to the end of the shorter list. Returns the number of bytes that matched. The end
/// of each word counts as one byte.
pub(super) fn read_words<'a>(
    parameters: &[ParameterSpec],
    templates: &[Template],
    words: impl Iterator<Item = &'a str>,
    values: &mut [Option<&'a str>],
) -> Result<usize, TemplateMismatch> {
    let mut matched = 0;
    for (template, word) in templates.iter().zip(words) {
        let misses = |miss: TemplateMismatch| TemplateMismatch { matched: matched + miss.matched, ..miss };
        template.extract(word, parameters, values).map_err(misses)?;
        matched += word.len() + 1;
    }
    Ok(matched)
}

/// Stores the value of a parameter. Fails if the parameter does not admit the value, or already has another value.
fn bind<'t>(
    place: usize,
    value: &'t str,
    parameters: &[ParameterSpec],
    values: &mut [Option<&'t str>],
) -> Result<(), TemplateMismatchKind> {
    let (Some(parameter), Some(slot)) = (parameters.get(place), values.get_mut(place)) else {
        return Err(TemplateMismatchKind::Text);
    };
    parameter.values.check(value).map_err(|misfit| TemplateMismatchKind::Value(place, misfit))?;
    match slot.replace(value) {
        Some(before) if before != value => Err(TemplateMismatchKind::Contradiction(place)),
        _ => Ok(()),
    }
}
