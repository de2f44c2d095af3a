//! Compares the action type, the Machines and the subjects of two rules.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::selector::{LabelOperator, MachineSelector};
use crate::policy::compile::CompiledRule;
use crate::policy::subjects::Principal;

/// Returns the reasons why a Deny cannot match a request that an Allow allows. Does not compare the commands of the two
/// rules.
pub(super) fn differences(deny: &CompiledRule, allow: &CompiledRule) -> Vec<String> {
    let mut differences = Vec::new();
    if let Some(denied) = &deny.action_type
        && allow.action_type.as_ref() != Some(denied)
    {
        let own = allow.action_type.as_deref().unwrap_or_default();
        differences.push(format!("its actionType is {own} and not {denied}"));
    }
    if let (Some(denied), Some(own)) = (&deny.selector, &allow.selector)
        && choose_no_machine_together(denied, own)
    {
        differences.push("its machineSelector chooses other Machines".to_owned());
    }
    if let (Some(denied), Some(own)) = (&deny.subjects, &allow.subjects)
        && are_other_users(denied, own)
    {
        differences.push("it has other subjects".to_owned());
    }
    differences
}

/// Returns true if no user is a subject of both rules. Returns false if a subject is a group, because the members of
/// groups are unknown.
fn are_other_users(left: &[Principal], right: &[Principal]) -> bool {
    let is_user = |principal: &Principal| matches!(principal, Principal::User(_));
    left.iter().chain(right).all(is_user) && !left.iter().any(|principal| right.contains(principal))
}

/// Conditions of several selectors on one label.
#[derive(Debug, Default)]
struct Condition<'a> {
    is_there: bool,
    is_absent: bool,
    one_of: Option<BTreeSet<&'a str>>,
    none_of: BTreeSet<&'a str>,
}

/// Returns true if no set of labels matches both selectors.
fn choose_no_machine_together(left: &MachineSelector, right: &MachineSelector) -> bool {
    let mut conditions: BTreeMap<&str, Condition<'_>> = BTreeMap::new();
    for selector in [left, right] {
        for (key, value) in &selector.match_labels {
            conditions.entry(key).or_default().restrict([value.as_str()]);
        }
        for expression in &selector.match_expressions {
            let condition = conditions.entry(&expression.key).or_default();
            match expression.operator {
                LabelOperator::In => condition.restrict(expression.values.iter().map(String::as_str)),
                LabelOperator::NotIn => condition.none_of.extend(expression.values.iter().map(String::as_str)),
                LabelOperator::Exists => condition.is_there = true,
                LabelOperator::DoesNotExist => condition.is_absent = true,
            }
        }
    }
    conditions.values().any(Condition::is_impossible)
}

impl<'a> Condition<'a> {
    fn restrict(&mut self, values: impl IntoIterator<Item = &'a str>) {
        let values: BTreeSet<&str> = values.into_iter().collect();
        self.is_there = true;
        self.one_of = Some(match self.one_of.take() {
            Some(before) => before.intersection(&values).copied().collect(),
            None => values,
        });
    }

    fn is_impossible(&self) -> bool {
        let has_no_value = self.one_of.as_ref().is_some_and(|values| values.is_subset(&self.none_of));
        (self.is_absent && self.is_there) || has_no_value
    }
}

#[cfg(test)]
mod tests {
    use super::{MachineSelector, choose_no_machine_together};

    #[test]
    fn selectors_that_no_machine_fulfils_together_are_seen() {
        let selector = |text: &str| -> MachineSelector { serde_saphyr::from_str(text).unwrap() };
        for (left, right, is_so) in [
            ("{matchLabels: {role: web}}", "{matchLabels: {role: db}}", true),
            ("{matchLabels: {role: web}}", "{matchLabels: {tier: db}}", false),
            ("{}", "{matchLabels: {role: web}}", false),
            ("{matchLabels: {role: web}}", "{matchExpressions: [{key: role, operator: NotIn, values: [web]}]}", true),
            ("{matchLabels: {role: web}}", "{matchExpressions: [{key: role, operator: In, values: [web, db]}]}", false),
            ("{matchLabels: {role: web}}", "{matchExpressions: [{key: role, operator: DoesNotExist}]}", true),
            (
                "{matchExpressions: [{key: a, operator: Exists}]}",
                "{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}",
                false,
            ),
        ] {
            assert_eq!(choose_no_machine_together(&selector(left), &selector(right)), is_so, "{left} {right}");
        }
    }
}
