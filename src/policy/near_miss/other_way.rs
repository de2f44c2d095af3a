//! Finds rules that would match the command of a request in another form. For example, `command` of the request
//! contains the words of `run`, `argv` contains the text of `match`, or the program has another directory than in the
//! rule.

use crate::policy::base_name;
use crate::policy::compile::CompiledRule;
use crate::policy::index::key_by_base_name;
use crate::policy::rule_set::LookupKind;
use crate::policy::template::read_words;
use crate::policy::{CommandForm, CompiledWhitelist, RuleSet};

/// Difference between the form of the request and the form that the rule requires.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::policy) enum OtherWay {
    /// `command` contains the words of `run` instead of the text of `match`.
    Words,
    /// `argv` contains the words of `match` instead of the words of `run`.
    Text,
    /// The words are equal to `run`, except for the directory of the program.
    Directory,
}

impl OtherWay {
    /// Returns the text for the requester. The requester already knows every part of the rule in this text.
    pub fn for_requester(self, form: &CommandForm) -> &'static str {
        match (self, form) {
            (OtherWay::Words, _) => {
                "spec.command is what it runs and not its match: write the words in spec.argv, or ask with spec.rule"
            }
            (OtherWay::Text, _) => {
                "these words are its match and not what it runs: write them in spec.command, or ask with spec.rule"
            }
            (OtherWay::Directory, CommandForm::Argv(_)) => {
                "its program has another path: write the absolute path of run[0] in spec.argv, or ask with spec.rule"
            }
            (OtherWay::Directory, _) => {
                "its program has another path, and spec.command must be its match, byte for byte: ask with spec.rule"
            }
        }
    }
}

/// Returns rules that would match in another form. Searches only the first `limit` candidates of each index.
pub(super) fn find<'a>(
    rules: &'a RuleSet,
    form: &CommandForm,
    limit: usize,
) -> Vec<(&'a CompiledWhitelist, &'a CompiledRule, OtherWay)> {
    let (words, text): (Vec<&str>, _) = match form {
        CommandForm::Text(text) => (text.split(' ').collect(), None),
        CommandForm::Argv(argv) => (argv.iter().map(String::as_str).collect(), Some(argv.join(" "))),
        CommandForm::Rule(_) => return Vec::new(),
    };
    let key = key_by_base_name(words.iter().copied());
    let by_words = rules.with_base_name(&key).into_iter().take(limit).filter_map(|index| rules.allow_rule(index));
    let by_words = by_words.filter_map(|(whitelist, rule)| Some((whitelist, rule, by_words_of(rule, &words)?)));
    let found = text.iter().flat_map(|text| rules.candidates(LookupKind::Text, text)).take(limit);
    let has_text = |rule: &CompiledRule| {
        let mut values = vec![None; rule.parameters.len()];
        let template = rule.text.as_ref().zip(text.as_deref());
        template.is_some_and(|(template, text)| template.extract(text, &rule.parameters, &mut values).is_ok())
    };
    let by_text = found.filter_map(|index| rules.allow_rule(index)).filter(|(_, rule)| has_text(rule));
    by_words.chain(by_text.map(|(whitelist, rule)| (whitelist, rule, OtherWay::Text))).collect()
}

fn by_words_of(rule: &CompiledRule, words: &[&str]) -> Option<OtherWay> {
    let (own, own_words) = rule.run.split_first()?;
    let (program, words) = words.split_first()?;
    let path = own.constant()?;
    let mut values = vec![None; rule.parameters.len()];
    let is_same = own_words.len() == words.len()
        && base_name(path) == base_name(program)
        && read_words(&rule.parameters, own_words, words.iter().copied(), &mut values).is_ok();
    is_same.then_some(if path == *program { OtherWay::Words } else { OtherWay::Directory })
}
