//! Policy of a namespace: the rules of all its Whitelists, in order, with indexes to find them.

use std::sync::Arc;

use crate::api::whitelist::Effect;

use super::compile::{CompiledRule, CompiledWhitelist};
use super::index::{END_OF_WORD, PrefixIndex, key_of_name};

/// Maximum number of entries of one rule in an index. A rule can have one entry for each value of an enum parameter.
const MAX_PREFIXES: usize = 32;

/// Policy of a namespace. Clones share the same data.
#[derive(Clone, Debug, Default)]
pub struct RuleSet(Arc<Rules>);

#[derive(Debug, Default)]
struct Rules {
    whitelists: Vec<Arc<CompiledWhitelist>>,
    allow_rules: RulePositions,
    by_text: PrefixIndex,
    by_words: PrefixIndex,
    by_base_name: PrefixIndex,
    by_name: PrefixIndex,
    /// Index for near misses, by the text before the first placeholder. The index has no enum values. A request with an
    /// unknown value therefore also finds the rule.
    similar_texts: PrefixIndex,
    similar_words: PrefixIndex,
    deny_rules: RulePositions,
    forbidden_texts: PrefixIndex,
    /// Index of the `run` of Deny rules. In this index, each program is a file name without a directory, because a Deny
    /// also matches other paths of the same program.
    forbidden_words: PrefixIndex,
    /// Deny rules without `match` and `run`. They are in no index, so every request is matched against them.
    unindexed_denies: Vec<usize>,
}

/// Positions of rules, in order of precedence. Each position is the index of a Whitelist and the index of a rule in it.
type RulePositions = Vec<(usize, usize)>;

/// Index in which Writ searches for the rules of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum LookupKind {
    Text,
    Words,
    Name,
}

impl RuleSet {
    /// Builds the policy of a namespace from its Whitelists, in any order. The work grows with the number of rules, so
    /// callers should reuse the result.
    pub fn new(mut whitelists: Vec<Arc<CompiledWhitelist>>) -> Self {
        whitelists.sort_by(|left, right| left.record.name.cmp(&right.record.name));
        let mut rules = Rules {
            allow_rules: places(&whitelists, |whitelist| &whitelist.allow_rules),
            deny_rules: places(&whitelists, |whitelist| &whitelist.deny_rules),
            whitelists,
            ..Rules::default()
        };
        rules.by_text = index(rules.allow_rules(), |rule| first_texts(rule, MAX_PREFIXES));
        rules.by_words = index(rules.allow_rules(), |rule| first_words(rule, MAX_PREFIXES));
        rules.by_base_name = index(rules.allow_rules(), first_words_by_base_name);
        rules.by_name = index(rules.allow_rules(), |rule| vec![key_of_name(&rule.name)]);
        rules.similar_texts = index(rules.allow_rules(), |rule| first_texts(rule, 0));
        rules.similar_words = index(rules.allow_rules(), |rule| first_words(rule, 0));
        rules.forbidden_texts = index(rules.deny_rules(), |rule| first_texts(rule, MAX_PREFIXES));
        rules.forbidden_words = index(rules.deny_rules(), first_words_by_base_name);
        let looks_at_neither = |rule: &CompiledRule| rule.run.is_empty() && rule.text.is_none();
        let otherwise = rules.deny_rules().enumerate().filter(|(_, (_, rule))| looks_at_neither(rule));
        rules.unindexed_denies = otherwise.map(|(place, _)| place).collect();
        Self(Arc::new(rules))
    }

    /// Returns the Whitelists, sorted by name.
    pub fn whitelists(&self) -> &[Arc<CompiledWhitelist>] {
        &self.0.whitelists
    }

    /// Returns true if a rule in force with this effect names a group in its `subjects`.
    pub fn names_group(&self, effect: Effect) -> bool {
        self.whitelists().iter().any(|whitelist| whitelist.names_group(effect))
    }

    /// Returns the first Whitelist that causes the namespace to fail closed.
    pub fn closed_by(&self) -> Option<&CompiledWhitelist> {
        self.0.whitelists.iter().map(Arc::as_ref).find(|whitelist| whitelist.closed.is_some())
    }

    /// Returns the Allow rule at a position.
    pub(super) fn allow_rule(&self, place: usize) -> Option<(&CompiledWhitelist, &CompiledRule)> {
        self.0.rule(&self.0.allow_rules, place, |whitelist| &whitelist.allow_rules)
    }

    /// Returns the positions of the Allow rules that can match the request with this key, in order.
    pub(super) fn candidates(&self, lookup: LookupKind, key: &str) -> Vec<usize> {
        let index = match lookup {
            LookupKind::Text => &self.0.by_text,
            LookupKind::Words => &self.0.by_words,
            LookupKind::Name => &self.0.by_name,
        };
        in_order(|found| index.rules_with_prefix_of(key, found))
    }

    /// Returns the positions of the Allow rules whose `run` can match the words of `key`, with the program in any
    /// directory. For example, `rm` in `key` finds a rule for `/bin/rm`.
    pub(super) fn with_base_name(&self, key: &str) -> Vec<usize> {
        in_order(|found| self.0.by_base_name.rules_with_prefix_of(key, found))
    }

    /// Returns the index in which Writ searches for near misses. Returns `None` for [`LookupKind::Name`], because the
    /// request already names its rule.
    pub(super) fn prefix_index(&self, lookup: LookupKind) -> Option<&PrefixIndex> {
        match lookup {
            LookupKind::Text => Some(&self.0.similar_texts),
            LookupKind::Words => Some(&self.0.similar_words),
            LookupKind::Name => None,
        }
    }

    /// Returns true if there is a Deny rule.
    pub(super) fn has_denies(&self) -> bool {
        !self.0.deny_rules.is_empty()
    }

    /// Returns the Deny rules that can match one of these texts or commands, in order of precedence. Each item of
    /// `words` is the key of one command. The first word of the key is the program without its directory.
    pub(super) fn deny_candidates<'a>(
        &'a self,
        texts: impl Iterator<Item = &'a str>,
        words: impl Iterator<Item = String>,
    ) -> impl Iterator<Item = (&'a CompiledWhitelist, &'a CompiledRule)> {
        let found = in_order(|found| {
            found.extend_from_slice(&self.0.unindexed_denies);
            texts.for_each(|text| self.0.forbidden_texts.rules_with_prefix_of(text, found));
            words.for_each(|key| self.0.forbidden_words.rules_with_prefix_of(&key, found));
        });
        let rule = |place| self.0.rule(&self.0.deny_rules, place, |whitelist| &whitelist.deny_rules);
        found.into_iter().filter_map(rule)
    }
}

impl Rules {
    fn rule(
        &self,
        places: &RulePositions,
        place: usize,
        list: impl Fn(&CompiledWhitelist) -> &Vec<CompiledRule>,
    ) -> Option<(&CompiledWhitelist, &CompiledRule)> {
        let (whitelist, rule) = places.get(place)?;
        let whitelist = self.whitelists.get(*whitelist)?;
        Some((whitelist, list(whitelist).get(*rule)?))
    }

    fn allow_rules(&self) -> impl Iterator<Item = (&CompiledWhitelist, &CompiledRule)> {
        self.whitelists.iter().flat_map(|whitelist| whitelist.allow_rules.iter().map(|rule| (whitelist.as_ref(), rule)))
    }

    fn deny_rules(&self) -> impl Iterator<Item = (&CompiledWhitelist, &CompiledRule)> {
        self.whitelists.iter().flat_map(|whitelist| whitelist.deny_rules.iter().map(|rule| (whitelist.as_ref(), rule)))
    }
}

fn places(
    whitelists: &[Arc<CompiledWhitelist>],
    list: impl Fn(&CompiledWhitelist) -> &Vec<CompiledRule>,
) -> RulePositions {
    let of_one = |(index, whitelist): (usize, &Arc<CompiledWhitelist>)| {
        (0..list(whitelist).len()).map(move |rule| (index, rule)).collect::<Vec<_>>()
    };
    whitelists.iter().enumerate().flat_map(of_one).collect()
}

/// Returns the positions that `find` adds, sorted and without repetitions.
pub(super) fn in_order(find: impl FnOnce(&mut Vec<usize>)) -> Vec<usize> {
    let mut found = Vec::new();
    find(&mut found);
    found.sort_unstable();
    found.dedup();
    found
}

/// Builds an index that contains each rule once for each of its prefixes.
fn index<'a>(
    rules: impl Iterator<Item = (&'a CompiledWhitelist, &'a CompiledRule)>,
    beginnings: impl Fn(&CompiledRule) -> Vec<String>,
) -> PrefixIndex {
    let of_one = |(place, (_, rule))| beginnings(rule).into_iter().map(move |beginning| (place, beginning));
    PrefixIndex::new(rules.enumerate().flat_map(of_one))
}

/// Returns the constant prefixes of the rule's text. If an enum parameter would result in more than `most` prefixes,
/// the prefixes end before this parameter (see [`super::template::Template::extend_prefixes`]). Returns no prefix if
/// the rule has no text.
fn first_texts(rule: &CompiledRule, most: usize) -> Vec<String> {
    let Some(text) = &rule.text else { return Vec::new() };
    let mut beginnings = vec![String::new()];
    text.extend_prefixes(&mut beginnings, &rule.parameters, most);
    beginnings
}

/// Returns the constant prefixes of the rule's words. If an enum parameter would result in more than `most` prefixes,
/// the prefixes end before this parameter (see [`super::template::Template::extend_prefixes`]). In a prefix,
/// [`END_OF_WORD`] follows each complete word. Returns no prefix if the rule has no words.
fn first_words(rule: &CompiledRule, most: usize) -> Vec<String> {
    if rule.run.is_empty() {
        return Vec::new();
    }
    let mut beginnings = vec![String::new()];
    for word in &rule.run {
        if !word.extend_prefixes(&mut beginnings, &rule.parameters, most) {
            break;
        }
        beginnings.iter_mut().for_each(|key| key.push(END_OF_WORD));
    }
    beginnings
}

/// Returns the prefixes of [`first_words`], but the program in them has no directory. If a prefix ends within the
/// program, it becomes the empty prefix, with which the index always finds the rule.
fn first_words_by_base_name(rule: &CompiledRule) -> Vec<String> {
    let by_name = |key: String| match key.split_once(END_OF_WORD) {
        Some((program, rest)) => format!("{}{END_OF_WORD}{rest}", super::base_name(program)),
        None => String::new(),
    };
    first_words(rule, MAX_PREFIXES).into_iter().map(by_name).collect()
}
