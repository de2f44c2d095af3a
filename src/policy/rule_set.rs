//! The policy of a namespace: the rules of all its Whitelists, in order, and where to look for one.

use std::sync::Arc;

use super::compile::{CompiledRule, CompiledWhitelist};
use super::index::{END_OF_WORD, Index, key_of_name};

/// In how many ways a rule may begin in an index, by the values that its parameters list.
const MOST_BEGINNINGS: usize = 32;

/// The policy of a namespace: its Whitelists by name. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RuleSet(Arc<Rules>);

#[derive(Debug, Default)]
struct Rules {
    whitelists: Vec<Arc<CompiledWhitelist>>,
    allowing: Places,
    by_text: Index,
    by_words: Index,
    by_base_name: Index,
    by_name: Index,
    /// For hints: by what stands before the first place, so that it finds also those whose listed values are others.
    texts_like: Index,
    words_like: Index,
    forbidding: Places,
    forbidden_texts: Index,
    /// By the program's name without its directory: a Deny holds against the same program by another path.
    forbidden_words: Index,
    /// Those that look at neither.
    forbidden_otherwise: Vec<usize>,
}

/// Where rules are, in the order in which they count: which Whitelist, and which of its rules.
type Places = Vec<(usize, usize)>;

/// What a request can be looked for by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lookup {
    Text,
    Words,
    Name,
}

impl RuleSet {
    /// The policy of a namespace from its Whitelists, in any order. It takes a while where there are many: keep it.
    pub fn new(mut whitelists: Vec<Arc<CompiledWhitelist>>) -> Self {
        whitelists.sort_by(|left, right| left.record.name.cmp(&right.record.name));
        let mut rules = Rules {
            allowing: places(&whitelists, |whitelist| &whitelist.allowing),
            forbidding: places(&whitelists, |whitelist| &whitelist.forbidding),
            whitelists,
            ..Rules::default()
        };
        rules.by_text = index(rules.allowing(), |rule| first_texts(rule, MOST_BEGINNINGS));
        rules.by_words = index(rules.allowing(), |rule| first_words(rule, MOST_BEGINNINGS));
        rules.by_base_name = index(rules.allowing(), first_words_by_base_name);
        rules.by_name = index(rules.allowing(), |rule| vec![key_of_name(&rule.name)]);
        rules.texts_like = index(rules.allowing(), |rule| first_texts(rule, 0));
        rules.words_like = index(rules.allowing(), |rule| first_words(rule, 0));
        rules.forbidden_texts = index(rules.forbidding(), |rule| first_texts(rule, MOST_BEGINNINGS));
        rules.forbidden_words = index(rules.forbidding(), first_words_by_base_name);
        let looks_at_neither = |rule: &CompiledRule| rule.run.is_empty() && rule.text.is_none();
        let otherwise = rules.forbidding().enumerate().filter(|(_, (_, rule))| looks_at_neither(rule));
        rules.forbidden_otherwise = otherwise.map(|(place, _)| place).collect();
        Self(Arc::new(rules))
    }

    /// The Whitelists by name.
    pub fn whitelists(&self) -> &[Arc<CompiledWhitelist>] {
        &self.0.whitelists
    }

    /// The Whitelist that closes the namespace, where there is one.
    pub fn closed_by(&self) -> Option<&CompiledWhitelist> {
        self.0.whitelists.iter().map(Arc::as_ref).find(|whitelist| whitelist.closed.is_some())
    }

    /// The Allow rule at a place.
    pub(super) fn allowing(&self, place: usize) -> Option<(&CompiledWhitelist, &CompiledRule)> {
        self.0.rule(&self.0.allowing, place, |whitelist| &whitelist.allowing)
    }

    /// The places of the Allow rules that may match, in order.
    pub(super) fn that_may_match(&self, lookup: Lookup, key: &str) -> Vec<usize> {
        let index = match lookup {
            Lookup::Text => &self.0.by_text,
            Lookup::Words => &self.0.by_words,
            Lookup::Name => &self.0.by_name,
        };
        in_order(|found| index.find(key, found))
    }

    /// The places of the Allow rules that may run these words (as a key, with the program's name without its directory).
    pub(super) fn with_base_name(&self, key: &str) -> Vec<usize> {
        in_order(|found| self.0.by_base_name.find(key, found))
    }

    /// The index of the Allow rules by what stands before the first place. None: names are not like each other.
    pub(super) fn beginnings(&self, lookup: Lookup) -> Option<&Index> {
        match lookup {
            Lookup::Text => Some(&self.0.texts_like),
            Lookup::Words => Some(&self.0.words_like),
            Lookup::Name => None,
        }
    }

    /// Whether there is a Deny rule at all.
    pub(super) fn has_denies(&self) -> bool {
        !self.0.forbidding.is_empty()
    }

    /// The Deny rules that may hold against these texts and these words (as keys, of which the first word is a program
    /// without its directory), in order.
    pub(super) fn forbidding<'a>(
        &'a self,
        texts: impl Iterator<Item = &'a str>,
        words: impl Iterator<Item = String>,
    ) -> impl Iterator<Item = (&'a CompiledWhitelist, &'a CompiledRule)> {
        let found = in_order(|found| {
            found.extend_from_slice(&self.0.forbidden_otherwise);
            texts.for_each(|text| self.0.forbidden_texts.find(text, found));
            words.for_each(|key| self.0.forbidden_words.find(&key, found));
        });
        let rule = |place| self.0.rule(&self.0.forbidding, place, |whitelist| &whitelist.forbidding);
        found.into_iter().filter_map(rule)
    }
}

impl Rules {
    fn rule(
        &self,
        places: &Places,
        place: usize,
        list: impl Fn(&CompiledWhitelist) -> &Vec<CompiledRule>,
    ) -> Option<(&CompiledWhitelist, &CompiledRule)> {
        let (whitelist, rule) = places.get(place)?;
        let whitelist = self.whitelists.get(*whitelist)?;
        Some((whitelist, list(whitelist).get(*rule)?))
    }

    fn allowing(&self) -> impl Iterator<Item = (&CompiledWhitelist, &CompiledRule)> {
        self.whitelists.iter().flat_map(|whitelist| whitelist.allowing.iter().map(|rule| (whitelist.as_ref(), rule)))
    }

    fn forbidding(&self) -> impl Iterator<Item = (&CompiledWhitelist, &CompiledRule)> {
        self.whitelists.iter().flat_map(|whitelist| whitelist.forbidding.iter().map(|rule| (whitelist.as_ref(), rule)))
    }
}

fn places(whitelists: &[Arc<CompiledWhitelist>], list: impl Fn(&CompiledWhitelist) -> &Vec<CompiledRule>) -> Places {
    let of_one = |(index, whitelist): (usize, &Arc<CompiledWhitelist>)| {
        (0..list(whitelist).len()).map(move |rule| (index, rule)).collect::<Vec<_>>()
    };
    whitelists.iter().enumerate().flat_map(of_one).collect()
}

/// What is found, each once.
pub(super) fn in_order(find: impl FnOnce(&mut Vec<usize>)) -> Vec<usize> {
    let mut found = Vec::new();
    find(&mut found);
    found.sort_unstable();
    found.dedup();
    found
}

/// An index of rules by all that each may begin with.
fn index<'a>(
    rules: impl Iterator<Item = (&'a CompiledWhitelist, &'a CompiledRule)>,
    beginnings: impl Fn(&CompiledRule) -> Vec<String>,
) -> Index {
    let of_one = |(place, (_, rule))| beginnings(rule).into_iter().map(move |beginning| (place, beginning));
    Index::new(rules.enumerate().flat_map(of_one))
}

/// What the rule's text may begin with. Nothing where it has none.
fn first_texts(rule: &CompiledRule, most: usize) -> Vec<String> {
    let Some(text) = &rule.text else { return Vec::new() };
    let mut beginnings = vec![String::new()];
    text.extend(&mut beginnings, &rule.parameters, most);
    beginnings
}

/// What the rule's words may begin with, as keys. Nothing where it has none.
fn first_words(rule: &CompiledRule, most: usize) -> Vec<String> {
    if rule.run.is_empty() {
        return Vec::new();
    }
    let mut beginnings = vec![String::new()];
    for word in &rule.run {
        if !word.extend(&mut beginnings, &rule.parameters, most) {
            break;
        }
        beginnings.iter_mut().for_each(|key| key.push(END_OF_WORD));
    }
    beginnings
}

/// The same, with the program's name without its directory. One whose program is not known for certain is always found.
fn first_words_by_base_name(rule: &CompiledRule) -> Vec<String> {
    let by_name = |key: String| match key.split_once(END_OF_WORD) {
        Some((program, rest)) => format!("{}{END_OF_WORD}{rest}", super::base_name(program)),
        None => String::new(),
    };
    first_words(rule, MOST_BEGINNINGS).into_iter().map(by_name).collect()
}
