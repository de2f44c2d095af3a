//! Whether two templates may have a text in common: for `writ lint`, so it may say yes too often, and never no wrongly.

use std::collections::HashSet;

use regex_automata::hybrid::{LazyStateID, dfa};
use regex_automata::nfa::thompson;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::hir::Hir;

use crate::policy::launchers::Word;
use crate::policy::pattern;
use crate::policy::template::{NamedValues, Segment, Template};
use crate::policy::values::Shape;

/// The most pairs of states that are looked at for one answer. After that the answer is yes.
const MAX_PAIRS: usize = 2048;
/// Memory for the states of one automaton, in bytes.
const CACHE_BYTES: usize = 1024 * 1024;
/// The largest automaton before it is made deterministic, in bytes.
const NFA_BYTES: usize = 256 * 1024;
/// The most answers by automata for one call of lint: each takes up to some milliseconds. After that they are yes.
const MAX_ANSWERS: usize = 2000;

/// A word of a rule, or a part of one that `env -S` splits.
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
                template.constant().or_else(|| Some(template.split_at_place()?.0)).unwrap_or_default()
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
    /// As it was written.
    pub fn display(self, parameters: &[NamedValues]) -> String {
        match self {
            LintWord::Text(text) => text.to_owned(),
            LintWord::Template(template) => template.display(parameters),
        }
    }

    /// The text for these values.
    pub fn expand(self, values: &[&str]) -> String {
        match self {
            LintWord::Text(text) => text.to_owned(),
            LintWord::Template(template) => template.expand(values),
        }
    }
}

/// Answers of one call of lint.
#[derive(Debug, Default)]
pub(super) struct Overlaps {
    answers: std::cell::Cell<usize>,
}

impl Overlaps {
    /// Whether a word may be what a template describes. Each has the parameters of its own rule.
    pub fn word(&self, word: LintWord<'_>, own: &[NamedValues], template: &Template, others: &[NamedValues]) -> bool {
        match word {
            LintWord::Template(word) => self.templates(word, own, template, others),
            LintWord::Text(text) => template.admits(others, text),
        }
    }

    /// Whether two templates may have a text in common.
    pub fn templates(&self, left: &Template, own: &[NamedValues], right: &Template, others: &[NamedValues]) -> bool {
        if let Some(constant) = left.constant() {
            return right.admits(others, constant);
        }
        if let Some(constant) = right.constant() {
            return left.admits(own, constant);
        }
        if let (Some(Shape::Integer(minimum, maximum)), Some(Shape::Integer(least, most))) =
            (whole(left, own), whole(right, others))
        {
            return minimum <= most && least <= maximum;
        }
        // What is listed is tried, value by value.
        for (listing, own, other, others) in [(left, own, right, others), (right, others, left, own)] {
            let mut texts = vec![String::new()];
            if listing.extend(&mut texts, own, 64) {
                return texts.iter().any(|text| other.admits(others, text));
            }
        }
        if self.answers.get() >= MAX_ANSWERS {
            return true;
        }
        self.answers.set(self.answers.get() + 1);
        meet(&language(left, own), &language(right, others)).unwrap_or(true)
    }
}

/// The values of the template's parameter if it is nothing but that.
fn whole<'a>(template: &Template, parameters: &'a [NamedValues]) -> Option<Shape<'a>> {
    match template.segments() {
        [Segment::Place(place)] => parameters.get(*place).map(|parameter| parameter.values.shape()),
        _ => None,
    }
}

/// All texts that a template describes, and maybe more: it does not know bounds of numbers and of lengths, nor that a
/// parameter has one value everywhere.
fn language(template: &Template, parameters: &[NamedValues]) -> Hir {
    let part = |segment: &Segment| match segment {
        Segment::Text(text) => literal(text),
        Segment::Place(place) => match parameters.get(*place).map(|parameter| parameter.values.shape()) {
            Some(Shape::OneOf(values)) => Hir::alternation(values.iter().map(|value| literal(value)).collect()),
            // With a plus: a Deny holds against +7 too.
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

/// The tree of a pattern, which compiled before.
fn parsed(text: &str) -> Hir {
    pattern::tree(text).unwrap_or_else(Hir::fail)
}

/// Whether a text is in both. None: it is not known, within the bounds.
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
        // After a cache was cleared, its states are other ones.
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
