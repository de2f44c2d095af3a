mod asking;
mod constants;
mod corpus;
mod denying;
mod hostile;
mod known_patterns;
mod languages;
mod linting;
mod linting_denials;
mod model;
mod option_ends;
mod oracle;
mod output_limits;
mod permitting;
mod properties;
mod redacting_rules;
mod roles;
mod sessions;
mod spoilt;
mod users;
mod wild;

use std::collections::BTreeMap;

use super::*;
use crate::api::command_execution::{Requester, RuleRequest};
use crate::api::{CommandExecutionSpec, Reason, Whitelist, WhitelistSpec};
// The fuzz target `decide` also includes some files of these tests. Those files use `api` and `policy` through `super`.
use crate::{api, policy};

/// Rule for most tests.
const RESTART: &str = "
- name: restart-service
  actionType: restart_service
  match: systemctl restart {unit}
  run: [/usr/bin/systemctl, restart, --, '{unit}']
  parameters:
    unit: {enum: [nginx.service, redis-server.service]}
";

/// Returns a Whitelist with these rules, in YAML.
fn whitelist(name: &str, rules: &str) -> Whitelist {
    let rules = serde_saphyr::from_str(rules).unwrap_or_else(|error| panic!("{error}\n{rules}"));
    let mut whitelist = Whitelist::new(name, WhitelistSpec { rules, unknown_fields: BTreeMap::new() });
    whitelist.metadata.namespace = Some("team".to_owned());
    whitelist.metadata.uid = Some(format!("uid-{name}"));
    whitelist.metadata.generation = Some(1);
    whitelist
}

/// Returns the policy of a namespace with one Whitelist named `web`.
fn policy(rules: &str) -> RuleSet {
    policies(&[("web", rules)])
}

fn policies(whitelists: &[(&str, &str)]) -> RuleSet {
    RuleSet::new(whitelists.iter().map(|(name, rules)| compile(&whitelist(name, rules)).into()).collect())
}

/// Compiles rules, and panics if a rule is invalid.
#[track_caller]
fn sound(rules: &str) -> RuleSet {
    let set = policy(rules);
    let broken: Vec<_> = set.whitelists().iter().flat_map(|whitelist| &whitelist.invalid_rules).collect();
    assert!(broken.is_empty(), "{broken:?}");
    set
}

/// Returns a spec without a command.
fn spec() -> CommandExecutionSpec {
    CommandExecutionSpec { command: None, ..CommandExecutionSpec::with_command("") }
}

fn command(text: &str) -> CommandExecutionSpec {
    CommandExecutionSpec::with_command(text)
}

fn argv(words: &[&str]) -> CommandExecutionSpec {
    CommandExecutionSpec { argv: Some(words.iter().map(|word| (*word).to_owned()).collect()), ..spec() }
}

fn by_rule(name: &str, parameters: &[(&str, &str)]) -> CommandExecutionSpec {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    CommandExecutionSpec { rule: Some(RuleRequest { name: name.to_owned(), parameters, whitelist: None }), ..spec() }
}

fn requester(username: &str, groups: &[&str]) -> Requester {
    Requester {
        username: username.to_owned(),
        uid: String::new(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

/// Decides a request of the user jane in the group dev, for a Machine without labels.
fn verdict(rules: &RuleSet, spec: &CommandExecutionSpec) -> Verdict {
    verdict_for(rules, spec, &[], &requester("jane", &["dev"]))
}

fn verdict_for(
    rules: &RuleSet,
    spec: &CommandExecutionSpec,
    labels: &[(&str, &str)],
    requester: &Requester,
) -> Verdict {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let request = Request::parse(spec).expect("a well-formed request");
    decide(rules, &request, &labels, Identity::Known(requester))
}

#[track_caller]
fn denied(rules: &RuleSet, spec: &CommandExecutionSpec) -> Denial {
    expect_denied(verdict(rules, spec))
}

#[track_caller]
fn expect_denied(verdict: Verdict) -> Denial {
    match verdict {
        Verdict::Deny(denial) => denial,
        Verdict::Allow(decision) => panic!("allowed: {decision:?}"),
    }
}

#[track_caller]
fn allowed(rules: &RuleSet, spec: &CommandExecutionSpec) -> Decision {
    expect_allowed(verdict(rules, spec))
}

#[track_caller]
fn expect_allowed(verdict: Verdict) -> Decision {
    match verdict {
        Verdict::Allow(decision) => *decision,
        Verdict::Deny(denial) => panic!("denied: {denial:?}"),
    }
}
