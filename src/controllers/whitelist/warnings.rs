//! Warnings of `writ lint` in the status of a Whitelist and in the metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::api::Whitelist;
use crate::api::conditions::{self, ConditionType};
use crate::api::whitelist::WhitelistStatus;
use crate::cluster::FIELD_MANAGER;
use crate::execution::storable;
use crate::policy::{self, CompiledWhitelist, Warning};
use crate::telemetry::metrics;

/// Maximum number of warnings that a message shows. The message only counts the other warnings.
const MAX_SHOWN: usize = 5;
/// Maximum length of one warning in a message, in characters. All shown warnings together must fit into the 2048
/// characters of a message (`storable`).
const MAX_CHARACTERS_SHOWN: usize = 300;

/// Number of warnings of each existing Whitelist, for the metric.
#[derive(Default)]
pub struct WarningCounts(Mutex<HashMap<(String, String), usize>>);

impl WarningCounts {
    /// Sets the number of warnings of one Whitelist.
    pub(super) fn set(&self, namespace: &str, name: &str, count: usize) {
        self.change(|counts| {
            counts.insert((namespace.to_owned(), name.to_owned()), count);
        });
    }

    /// Removes a Whitelist that was deleted.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        self.change(|counts| {
            counts.remove(&(namespace.to_owned(), name.to_owned()));
        });
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<(String, String), usize>)) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counts);
        let with_warnings = counts.values().filter(|count| **count > 0).count();
        metrics().whitelists(counts.len() - with_warnings, with_warnings);
    }
}

/// Returns true if a Whitelist has a Deny rule. The warnings of such a Whitelist depend on the other Whitelists,
/// because a Deny rule limits the Allow rules of all Whitelists.
pub(super) fn has_deny(object: &DynamicObject) -> bool {
    let rules = object.data.pointer("/spec/rules").and_then(Value::as_array);
    rules.is_some_and(|rules| rules.iter().any(|rule| rule.get("effect").and_then(Value::as_str) == Some("Deny")))
}

/// Warnings about one Whitelist, in the form for its status.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Warnings {
    /// Number of all warnings.
    pub count: usize,
    /// Text of the first warnings.
    message: String,
}

/// Lints a Whitelist together with the other Whitelists of its namespace (`others`). A Whitelist that cannot be decoded
/// gets no warnings, because the condition Ready reports the problem.
pub(super) fn lint(object: DynamicObject, compiled: &CompiledWhitelist, others: &[Arc<CompiledWhitelist>]) -> Warnings {
    let whitelist = object.try_parse::<Whitelist>();
    let lint = |whitelist: Whitelist| policy::lint_among(&whitelist, compiled, others).warnings;
    Warnings::new(&whitelist.map(lint).unwrap_or_default())
}

impl Warnings {
    fn new(warnings: &[Warning]) -> Self {
        let shown = warnings.iter().take(MAX_SHOWN).map(|warning| {
            let text = format!("{}: {}", warning.rule, warning.message);
            let short: String = text.chars().take(MAX_CHARACTERS_SHOWN).collect();
            if short.len() < text.len() { short + "..." } else { short }
        });
        let shown = shown.collect::<Vec<_>>().join("; ");
        let message = match warnings.len().saturating_sub(MAX_SHOWN) {
            0 => shown,
            more => format!("{shown}; and {more} more (writ lint shows all)"),
        };
        Self { count: warnings.len(), message: storable(&message) }
    }

    /// Writes the warnings into a status. Does not change the conditions Ready and Stalled, so that no GitOps tool
    /// considers the Whitelist failed.
    pub(super) fn write_into(&self, status: &mut WhitelistStatus, now: Timestamp) {
        status.warning_count = i64::try_from(self.count).ok();
        let generation = status.observed_generation;
        if self.count == 0 {
            return conditions::remove(&mut status.conditions, ConditionType::HasWarnings);
        }
        let type_ = ConditionType::HasWarnings;
        conditions::set(&mut status.conditions, type_, true, "LintWarnings", &self.message, generation, now);
    }
}

/// Returns the time of Writ's last write to the status.
pub(super) fn last_written(metadata: &ObjectMeta) -> Option<Timestamp> {
    let entries = metadata.managed_fields.iter().flatten();
    let own = entries.filter(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.as_deref() == Some("status")
    });
    own.filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_shows_the_first_warnings_and_counts_the_others() {
        let warning = |rule: usize| Warning { rule: format!("r{rule}"), message: "m".repeat(1000) };
        let warnings: Vec<Warning> = (0..300).map(warning).collect();
        let mut status = WhitelistStatus::default();
        Warnings::new(&warnings).write_into(&mut status, Timestamp::UNIX_EPOCH);
        assert_eq!(status.warning_count, Some(300));
        let condition = &status.conditions[0];
        assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("HasWarnings", "True"));
        assert!(
            condition.message.contains("r4: m") && condition.message.ends_with("and 295 more (writ lint shows all)")
        );
        assert!(condition.message.len() < 2048 && !condition.message.contains("r5:"), "{}", condition.message);
        Warnings::default().write_into(&mut status, Timestamp::UNIX_EPOCH);
        assert_eq!((status.warning_count, status.conditions.len()), (Some(0), 0));
    }
}
