//! Rules that describe what is asked for, but in another way of asking: the words of their run in `command`, their text
//! in `argv`, or a program without the directory that the rule has.

use crate::policy::base_name;
use crate::policy::compile::CompiledRule;
use crate::policy::decision::{key_by_base_name, read_words};
use crate::policy::rule_set::Lookup;
use crate::policy::{Ask, CompiledWhitelist, RuleSet};

/// What is to be asked for otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::policy) enum OtherWay {
    /// The command is the words of its run, but not its text.
    Words,
    /// The words are its text.
    Text,
    /// The words are those of its run, except the directory of the program.
    Directory,
}

impl OtherWay {
    /// What to tell whoever asked: they know all of the rule that this shows.
    pub fn for_requester(self, ask: &Ask) -> &'static str {
        match (self, ask) {
            (OtherWay::Words, _) => {
                "spec.command is what it runs and not its match: write the words in spec.argv, or ask with spec.rule"
            }
            (OtherWay::Text, _) => {
                "these words are its match and not what it runs: write them in spec.command, or ask with spec.rule"
            }
            (OtherWay::Directory, Ask::Argv(_)) => {
                "its program has another path: write the absolute path of run[0] in spec.argv, or ask with spec.rule"
            }
            (OtherWay::Directory, _) => {
                "its program has another path, and spec.command must be its match, byte for byte: ask with spec.rule"
            }
        }
    }
}

/// The rules of which that is so, of the first `limit` that may be.
pub(super) fn find<'a>(
    rules: &'a RuleSet,
    ask: &Ask,
    limit: usize,
) -> Vec<(&'a CompiledWhitelist, &'a CompiledRule, OtherWay)> {
    let (words, text): (Vec<&str>, _) = match ask {
        Ask::Command(text) => (text.split(' ').collect(), None),
        Ask::Argv(argv) => (argv.iter().map(String::as_str).collect(), Some(argv.join(" "))),
        Ask::Rule(_) => return Vec::new(),
    };
    let key = key_by_base_name(words.iter().copied());
    let by_words = rules.with_base_name(&key).into_iter().take(limit).filter_map(|index| rules.allowing(index));
    let by_words = by_words.filter_map(|(whitelist, rule)| Some((whitelist, rule, by_words_of(rule, &words)?)));
    let found = text.iter().flat_map(|text| rules.that_may_match(Lookup::Text, text)).take(limit);
    let has_text = |rule: &CompiledRule| {
        let mut values = vec![None; rule.parameters.len()];
        let template = rule.text.as_ref().zip(text.as_deref());
        template.is_some_and(|(template, text)| template.read(text, &rule.parameters, &mut values).is_ok())
    };
    let by_text = found.filter_map(|index| rules.allowing(index)).filter(|(_, rule)| has_text(rule));
    by_words.chain(by_text.map(|(whitelist, rule)| (whitelist, rule, OtherWay::Text))).collect()
}

fn by_words_of(rule: &CompiledRule, words: &[&str]) -> Option<OtherWay> {
    let (own, own_words) = rule.run.split_first()?;
    let (program, words) = words.split_first()?;
    let path = own.constant()?;
    let mut values = vec![None; rule.parameters.len()];
    let is_same = own_words.len() == words.len()
        && base_name(path) == base_name(program)
        && read_words(rule, own_words, words.iter().copied(), &mut values).is_ok();
    is_same.then_some(if path == *program { OtherWay::Words } else { OtherWay::Directory })
}
