//! Warnings about Deny rules that forbid less than they seem to forbid. The checks need all Whitelists of a namespace,
//! because a Deny applies to the rules of all these Whitelists.

use crate::policy::compile::CompiledRule;
use crate::policy::decide::{Outcome, forbids_outcome, forbids_words};
use crate::policy::launchers::{self, Command};
use crate::policy::{CompiledWhitelist, base_name};

use super::examples::examples;
use super::findings::Warning;
use super::overlap::{LintWord, Overlaps};
use super::relation::{Relation, is_program, words_relation};
use super::scope;

/// Maximum number of rules that are listed in the warnings about one Deny rule.
const MAX_NAMED: usize = 8;

/// Deny rule and its Whitelist.
#[derive(Clone, Copy)]
struct Deny<'a> {
    whitelist: &'a CompiledWhitelist,
    rule: &'a CompiledRule,
}

struct Allow<'a> {
    whitelist: &'a CompiledWhitelist,
    rule: &'a CompiledRule,
    /// All commands that the rule executes, including commands that launchers such as `sudo` start.
    commands: Vec<Command<'a, LintWord<'a>>>,
}

/// Rules of a namespace.
struct Namespace<'a> {
    allows: Vec<Allow<'a>>,
    denies: Vec<Deny<'a>>,
    overlaps: Overlaps,
}

/// Result of the comparison of a Deny and an Allow.
struct Comparison {
    relation: Relation,
    /// Other reasons why the Deny cannot match a request that the Allow allows: action type, Machines, subjects, user.
    others: Vec<String>,
}

/// Returns one list of warnings for each Whitelist. `whitelists` contains all Whitelists of one namespace.
pub(super) fn warnings(whitelists: &[&CompiledWhitelist]) -> Vec<Vec<Warning>> {
    let namespace = Namespace::new(whitelists);
    let of_one = |whitelist: &&CompiledWhitelist| {
        let own = |other: &CompiledWhitelist| std::ptr::eq(other, *whitelist);
        let denies = namespace.denies.iter().filter(|deny| own(deny.whitelist));
        let allows = namespace.allows.iter().filter(|allow| own(allow.whitelist));
        let denied = allows.filter_map(|allow| namespace.denied_always(allow));
        denied.chain(denies.flat_map(|deny| namespace.of_deny(*deny))).collect()
    };
    whitelists.iter().map(of_one).collect()
}

/// Returns the name of a rule for a warning about the Whitelist `from`. If the rule belongs to another Whitelist, the
/// name of that Whitelist comes first.
fn named(from: &CompiledWhitelist, whitelist: &CompiledWhitelist, rule: &CompiledRule) -> String {
    if std::ptr::eq(from, whitelist) { rule.name.clone() } else { format!("{}/{}", whitelist.record.name, rule.name) }
}

impl<'a> Namespace<'a> {
    fn new(whitelists: &[&'a CompiledWhitelist]) -> Self {
        let rules = |list: fn(&CompiledWhitelist) -> &Vec<CompiledRule>| {
            whitelists.iter().flat_map(move |whitelist| list(whitelist).iter().map(move |rule| (*whitelist, rule)))
        };
        let allow = |(whitelist, rule): (&'a CompiledWhitelist, &'a CompiledRule)| Allow {
            whitelist,
            rule,
            commands: launchers::commands(rule.run.iter().map(LintWord::Template).collect(), rule.run_as.as_deref()),
        };
        Self {
            allows: rules(|whitelist| &whitelist.allow_rules).map(allow).collect(),
            denies: rules(|whitelist| &whitelist.deny_rules)
                .map(|(whitelist, rule)| Deny { whitelist, rule })
                .collect(),
            overlaps: Overlaps::default(),
        }
    }

    fn compare(&self, deny: Deny<'_>, allow: &Allow<'_>) -> Comparison {
        let mut others = scope::differences(deny.rule, allow.rule);
        let is_as_user = |command: &&Command<'_, LintWord<'_>>| {
            deny.rule.run_as.as_ref().is_none_or(|user| command.user.may_be(user))
        };
        let of_command =
            |command: &Command<'_, LintWord<'_>>| words_relation(deny.rule, allow.rule, command, &self.overlaps);
        let has_text = match (&deny.rule.text, &allow.rule.text) {
            _ if deny.rule.text.is_none() && deny.rule.run.is_empty() => true,
            (Some(text), Some(own)) => {
                self.overlaps.templates(own, &allow.rule.parameters, text, &deny.rule.parameters)
            }
            _ => false,
        };
        let best = |relations: &mut dyn Iterator<Item = Relation>| relations.max_by_key(Relation::nearness);
        let as_user = best(&mut allow.commands.iter().filter(is_as_user).map(of_command));
        let relation = match as_user {
            Some(relation) if relation.holds() => relation,
            Some(_) if has_text => Relation::Holds,
            Some(relation) => relation.or_text(deny.rule, allow.rule),
            None => {
                let user = deny.rule.run_as.as_deref().unwrap_or_default();
                others.push(format!("it does not run as {user}"));
                let relation = best(&mut allow.commands.iter().map(of_command));
                let relation = relation.filter(|_| !has_text).unwrap_or(Relation::Holds);
                relation.or_text(deny.rule, allow.rule)
            }
        };
        Comparison { relation, others }
    }

    /// Returns the warnings about a Deny.
    fn of_deny(&self, deny: Deny<'_>) -> Vec<Warning> {
        let compared: Vec<_> = self.allows.iter().map(|allow| (allow, self.compare(deny, allow))).collect();
        let holds =
            |(_, comparison): &(&Allow<'_>, Comparison)| comparison.relation.holds() && comparison.others.is_empty();
        let warning = |message| Warning { rule: deny.rule.name.clone(), message };
        if compared.iter().any(holds) {
            let evading = compared.iter().filter(|each| !holds(each));
            return evading
                .filter_map(|(allow, comparison)| self.evasion(deny, allow, comparison))
                .take(MAX_NAMED)
                .map(warning)
                .collect();
        }
        let Some((nearest, comparison)) = compared.iter().rev().max_by_key(|(_, comparison)| comparison.nearness())
        else {
            // If there are no Allow rules, there is nothing to compare.
            return Vec::new();
        };
        let by_input = compared.iter().filter(|(_, comparison)| comparison.others.is_empty());
        let by_input = by_input.filter_map(|(allow, _)| self.by_input(deny, allow)).take(MAX_NAMED).map(warning);
        let name = named(deny.whitelist, nearest.whitelist, nearest.rule);
        let nearest = warning(format!(
            "it forbids nothing that a rule allows; the nearest is {name}, but {}; correct the Deny or remove it (if it is \
             for rules in other files, give them to lint together)",
            comparison.why()
        ));
        by_input.chain([nearest]).collect()
    }

    /// Returns a warning if the Allow runs a launcher such as `xargs`, and if this launcher can start the program of
    /// the Deny. The launcher adds words from its input, so Writ cannot compare the whole command with the Deny.
    fn by_input(&self, deny: Deny<'_>, allow: &Allow<'_>) -> Option<String> {
        let denied = deny.rule.run.first()?;
        let is_denied = |command: &Command<'_, LintWord<'_>>| {
            command.words.first().is_some_and(|program| is_program(deny.rule, denied, *program, command.is_launched))
        };
        let adding = allow.commands.iter().filter_map(launchers::input_command);
        let found = adding.into_iter().find(|adding| adding.starts_input || adding.started.iter().any(is_denied))?;
        let name = named(deny.whitelist, allow.whitelist, allow.rule);
        Some(format!(
            "the rule {name} runs {launcher}, which adds words from its input or names of files to what it starts: Writ matches no Deny \
             against those words; if they may be what this Deny forbids, let the rule run a script that checks them",
            launcher = found.launcher
        ))
    }

    /// Returns a warning if the Allow perhaps evades the Deny: the Allow can do what the Deny forbids, but with words
    /// that the Deny does not match.
    fn evasion(&self, deny: Deny<'_>, allow: &Allow<'_>, comparison: &Comparison) -> Option<String> {
        if !comparison.others.is_empty() {
            return None;
        }
        if let Some(message) = self.by_input(deny, allow) {
            return Some(message);
        }
        let name = named(deny.whitelist, allow.whitelist, allow.rule);
        if let Relation::Differs { why, evading: Some(argv), is_launched, .. } = &comparison.relation {
            let is_as_wide = |other: &&Deny<'_>| {
                let (other, own) = (other.rule, deny.rule);
                (other.selector.is_none() || other.selector == own.selector)
                    && (other.subjects.is_none() || other.subjects == own.subjects)
                    && (other.action_type.is_none() || other.action_type == own.action_type)
                    && (other.run_as.is_none() || other.run_as == own.run_as)
            };
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            let mut denies = self.denies.iter().filter(is_as_wide);
            let is_covered = !words.is_empty() && denies.any(|other| forbids_words(other.rule, &words, *is_launched));
            return (!is_covered).then(|| {
                format!("it does not hold against the rule {name}, which runs the same program: {why}; deny that too, if it must not run")
            });
        }
        let launcher = self.mentions(deny.rule, allow.rule)?;
        Some(format!(
            "the rule {name} has the program of this Deny among its words, and Writ does not know what {launcher} does with them: \
             if it runs them, deny the words of that rule too"
        ))
    }

    /// Returns the program of an Allow if the other words of the Allow contain the program and the constants of a Deny.
    /// The program of the Allow can be a shell or an unknown launcher that executes the other words. Writ does not
    /// compare these words with the Deny.
    fn mentions<'b>(&self, deny: &CompiledRule, allow: &'b CompiledRule) -> Option<&'b str> {
        let (program, denied) = deny.run.split_first()?;
        let (path, own) = (program.constant()?, allow.run.first()?.constant()?);
        let is_of_word = |each: char| each.is_ascii_alphanumeric() || "._/@:+-".contains(each);
        let constants: Vec<&str> =
            denied.iter().filter_map(|word| word.constant()).filter(|word| *word != "--").collect();
        let tokens = |word: &'b str| word.split(move |each: char| !is_of_word(each)).filter(|token| !token.is_empty());
        let words: Vec<&str> = allow.run.iter().skip(1).filter_map(|word| word.constant()).collect();
        let is_program = |token: &str, is_text: bool| {
            launchers::may_be_program(token, is_text || !constants.is_empty(), path)
                && (token.contains('/') || is_text || !constants.is_empty())
        };
        let mut all = words.iter().copied();
        let has_program = all.any(|word| tokens(word).any(|token| is_program(token, word.contains(' '))));
        let has_word = |denied: &&str| {
            let is_in = |word: &'b str| word == *denied || tokens(word).any(|token| token == *denied);
            words.iter().copied().any(is_in)
                || allow.run.iter().filter(|word| word.constant().is_none()).any(|word| {
                    word.extract(denied, &allow.parameters, &mut vec![None; allow.parameters.len()]).is_ok()
                })
        };
        let is_mentioned = base_name(own) != base_name(path) && has_program && constants.iter().all(has_word);
        is_mentioned.then_some(own)
    }

    /// Returns a warning if Deny rules forbid all examples of an Allow rule, on every Machine and for every requester.
    fn denied_always(&self, allow: &Allow<'_>) -> Option<Warning> {
        let holds_always = |deny: &&Deny<'_>| {
            deny.rule.selector.is_none() && deny.rule.subjects.is_none() && deny.rule.action_type.is_none()
        };
        let examples = examples(allow.rule);
        let denies = examples.iter().map(|(text, argv)| {
            let outcome = Outcome::new("", Some(text), argv, allow.rule.run_as.as_deref());
            self.denies.iter().filter(holds_always).find(|deny| forbids_outcome(deny.rule, &outcome))
        });
        let denies: Vec<&Deny<'_>> = denies.collect::<Option<_>>()?;
        let (deny, (text, _)) = denies.first().zip(examples.first())?;
        let name = named(allow.whitelist, deny.whitelist, deny.rule);
        let message = format!("the Deny rule {name} forbids it, for example {text:?}");
        Some(Warning { rule: allow.rule.name.clone(), message })
    }
}

impl Comparison {
    fn nearness(&self) -> usize {
        self.relation.nearness().saturating_sub(300 * self.others.len())
    }

    fn why(&self) -> String {
        let differs = match &self.relation {
            Relation::Holds => None,
            Relation::Differs { why, .. } => Some(why),
        };
        differs.into_iter().chain(&self.others).map(String::as_str).collect::<Vec<_>>().join(", and ")
    }
}
