//! Decides for `writ lint` if two templates can match the same text. If the search reaches a limit, the answer is yes.
//! A wrong yes is acceptable, but a wrong no is not.

use std::collections::HashSet;

use regex_automata::hybrid::{LazyStateID, dfa};
use regex_automata::nfa::thompson;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::hir::Hir;

use crate::policy::launchers::Word;
use crate::policy::pattern;
use crate::policy::template::{ParameterSpec, Segment, Template};
use crate::policy::values::Shape;

/// Maximum number of pairs of automaton states in the search for one answer. If the search needs more pairs, the answer
/// is yes.
const MAX_PAIRS: usize = 2048;
/// Size of the cache for the states of one automaton, in bytes.
const CACHE_BYTES: usize = 1024 * 1024;
/// Maximum size of a nondeterministic automaton, in bytes.
const NFA_BYTES: usize = 256 * 1024;
/// Maximum number of answers that are computed with automata in one call of lint. An answer takes up to some
/// milliseconds. After this number, every further answer is yes.
const MAX_ANSWERS: usize = 2000;

/// Word of a rule, or a part of a word that `env -S` splits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LintWord<'a> {
    Template(&'a Template),
    Text(&'a str),
}

impl<'a> Word<'a> for LintWord<'a> {
    fn text(self) -> &'a str {
        match self {
            LintWord::Text(text) => text,
            LintWord::Template(template) => {
                template.constant().or_else(|| Some(template.split_at_placeholder()?.0)).unwrap_or_default()
            }
        }
    }

    fn is_constant(self) -> bool {
        match self {
            LintWord::Text(_) => true,
            LintWord::Template(template) => template.constant().is_some(),
        }
    }

    fn from_text(text: &'a str) -> Self {
        LintWord::Text(text)
    }
}

impl LintWord<'_> {
    /// Returns the word as its author wrote it.
    pub fn display(self, parameters: &[ParameterSpec]) -> String {
        match self {
            LintWord::Text(text) => text.to_owned(),
            LintWord::Template(template) => template.display(parameters),
        }
    }

    /// Returns the text with these values in its placeholders.
    pub fn expand(self, values: &[&str]) -> String {
        match self {
            LintWord::Text(text) => text.to_owned(),
            LintWord::Template(template) => template.expand(values),
        }
    }
}

/// Compares templates during one call of lint, and counts the answers that were computed with automata.
#[derive(Debug, Default)]
pub(super) struct Overlaps {
    answers: std::cell::Cell<usize>,
}

impl Overlaps {
    /// Returns true if a word can have a text that a template matches. `own` are the parameters of the word, and
    /// `others` are the parameters of the template.
    pub fn word(
        &self,
        word: LintWord<'_>,
        own: &[ParameterSpec],
        template: &Template,
        others: &[ParameterSpec],
    ) -> bool {
        match word {
            LintWord::Template(word) => self.templates(word, own, template, others),
            LintWord::Text(text) => template.matches_whole(others, text),
        }
    }

    /// Returns true if two templates can match the same text. `own` are the parameters of `left`, and `others` are the
    /// parameters of `right`.
    pub fn templates(
        &self,
        left: &Template,
        own: &[ParameterSpec],
        right: &Template,
        others: &[ParameterSpec],
    ) -> bool {
        if let Some(constant) = left.constant() {
            return right.matches_whole(others, constant);
        }
        if let Some(constant) = right.constant() {
            return left.matches_whole(own, constant);
        }
        if let (Some(Shape::Integer(minimum, maximum)), Some(Shape::Integer(least, most))) =
            (whole(left, own), whole(right, others))
        {
            return minimum <= most && least <= maximum;
        }
        // If one template has only a few texts, such as the values of an enum, each text is matched against the other
        // template.
        for (listing, own, other, others) in [(left, own, right, others), (right, others, left, own)] {
            let mut texts = vec![String::new()];
            if listing.extend_prefixes(&mut texts, own, 64) {
                return texts.iter().any(|text| other.matches_whole(others, text));
            }
        }
        if self.answers.get() >= MAX_ANSWERS {
            return true;
        }
        self.answers.set(self.answers.get() + 1);
        meet(&language(left, own), &language(right, others)).unwrap_or(true)
    }
}

/// Returns the shape of the values if the template consists of one placeholder, else `None`.
fn whole<'a>(template: &Template, parameters: &'a [ParameterSpec]) -> Option<Shape<'a>> {
    match template.segments() {
        [Segment::Placeholder(place)] => parameters.get(*place).map(|parameter| parameter.values.shape()),
        _ => None,
    }
}

/// Returns a language (a set of texts) that contains all texts of a template, and perhaps also other texts: it ignores
/// bounds of numbers and lengths, and admits two different values of a parameter that occurs twice. The other texts can
/// only cause false positives.
fn language(template: &Template, parameters: &[ParameterSpec]) -> Hir {
    let part = |segment: &Segment| match segment {
        Segment::Text(text) => literal(text),
        Segment::Placeholder(place) => match parameters.get(*place).map(|parameter| parameter.values.shape()) {
            Some(Shape::OneOf(values)) => Hir::alternation(values.iter().map(|value| literal(value)).collect()),
            // The plus sign is optional, because a Deny of 7 also matches +7.
            Some(Shape::Integer(_, _)) => parsed("[+]?[0-9]+"),
            Some(Shape::Pattern(pattern)) => parsed(pattern),
            None => Hir::empty(),
        },
    };
    Hir::concat(template.segments().iter().map(part).collect())
}

fn literal(text: &str) -> Hir {
    Hir::literal(text.as_bytes())
}

/// Returns the syntax tree of a pattern that has already been compiled.
fn parsed(text: &str) -> Hir {
    pattern::tree(text).unwrap_or_else(Hir::fail)
}

/// Returns true if at least one text is in both languages. Returns `None` if the search reaches a limit first.
fn meet(left: &Hir, right: &Hir) -> Option<bool> {
    let (left, right) = (automaton(left)?, automaton(right)?);
    let (mut left_cache, mut right_cache) = (left.create_cache(), right.create_cache());
    let input = Input::new("").anchored(Anchored::Yes);
    let start: (LazyStateID, LazyStateID) = (
        left.start_state_forward(&mut left_cache, &input).ok()?,
        right.start_state_forward(&mut right_cache, &input).ok()?,
    );
    let mut seen = HashSet::from([start]);
    let mut open = vec![start];
    while let Some((one, other)) = open.pop() {
        let ends = left.next_eoi_state(&mut left_cache, one).ok()?.is_match()
            && right.next_eoi_state(&mut right_cache, other).ok()?.is_match();
        if ends {
            return Some(true);
        }
        for byte in b' '..=b'~' {
            let next = (
                left.next_state(&mut left_cache, one, byte).ok()?,
                right.next_state(&mut right_cache, other, byte).ok()?,
            );
            if !next.0.is_dead() && !next.1.is_dead() && seen.insert(next) {
                open.push(next);
            }
        }
        // If a cache was cleared, the states in `seen` are no longer valid, so the search ends.
        if seen.len() > MAX_PAIRS || left_cache.clear_count() + right_cache.clear_count() > 0 {
            return None;
        }
    }
    Some(false)
}

fn automaton(tree: &Hir) -> Option<dfa::DFA> {
    let config = thompson::Config::new().utf8(false).nfa_size_limit(Some(NFA_BYTES));
    let nfa = thompson::Compiler::new().configure(config).build_from_hir(tree).ok()?;
    let config =
        dfa::Config::new().match_kind(MatchKind::All).cache_capacity(CACHE_BYTES).skip_cache_capacity_check(true);
    dfa::Builder::new().configure(config).build_from_nfa(nfa).ok()
}

#[cfg(test)]
mod tests {
    use super::{literal, meet, parsed};

    #[test]
    fn languages_meet_if_a_text_is_in_both() {
        for (left, right, is_so) in [
            ("[a-z]+", "redis.*", true),
            ("[a-z]+", "redis-.*", false),
            ("redis-[0-9]+", "restart-[0-9]+", false),
            (".*restart nginx.*", "systemctl [a-z]+ [a-z]+", true),
            (".*restart nginx.*", "systemctl stop [a-z]+", false),
            ("(a|b)*abb", "[ab]{3}", true),
            ("(a|b)*abb", "[ab]{2}", false),
            ("a*", "b*", true),
            ("a+", "b*", false),
            ("x[0-9]{1,3}", "[a-z]+", false),
        ] {
            assert_eq!(meet(&parsed(left), &parsed(right)), Some(is_so), "{left} {right}");
            assert_eq!(meet(&parsed(right), &parsed(left)), Some(is_so), "{right} {left}");
        }
        assert_eq!(meet(&literal("web"), &parsed("[a-z]{3}")), Some(true));
    }
}
