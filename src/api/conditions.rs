//! Conditions of an object. The functions of this module keep the list sorted, and change the transition time only if
//! the status of a condition changes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of the conditions on the objects of Writ. kstatus defines `Ready`, `Reconciling` and `Stalled`:
/// <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConditionType {
    /// On an execution. Surfaces when Writ has decided about the execution. True if a rule allows it, else False with
    /// the reason.
    Accepted,
    /// On an execution: True if the execution has succeeded, else False. On a Machine: True if commands can be started.
    /// On a Whitelist: True if every rule is in force. Surfaces always.
    Ready,
    /// On an execution. Surfaces when the execution is in a finished phase. Always True, with the phase as its reason.
    /// GitOps tools do not read this condition.
    Finished,
    /// On an execution. Surfaces when the execution is in progress. True until the execution has finished, then False.
    Reconciling,
    /// Surfaces when an execution finished and did not succeed, or when somebody has to fix a Machine or a Whitelist.
    /// Always True. In all other cases Writ removes the condition, as kstatus requires.
    Stalled,
    /// On a Whitelist. Surfaces when one of its rules has subjects. True if the API server records requesters, False if
    /// it does not, Unknown until Writ was able to check it.
    RequesterKnown,
    /// On a Whitelist. Surfaces when `writ lint` warns about one of its rules. Always True. Without warnings, Writ
    /// removes the condition. A rule with a warning can still be in force (see Ready).
    HasWarnings,
    /// On a Machine. Surfaces when a probe or a command has tried to reach sshd.
    Reachable,
    /// On a Machine. Surfaces when the machine has shown a host key.
    HostKeyVerified,
    /// On a Machine. Surfaces when the machine has accepted or refused the login.
    Authenticated,
}

impl ConditionType {
    /// Returns the type as the object spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionType::Accepted => "Accepted",
            ConditionType::Ready => "Ready",
            ConditionType::Finished => "Finished",
            ConditionType::Reconciling => "Reconciling",
            ConditionType::Stalled => "Stalled",
            ConditionType::RequesterKnown => "RequesterKnown",
            ConditionType::HasWarnings => "HasWarnings",
            ConditionType::Reachable => "Reachable",
            ConditionType::HostKeyVerified => "HostKeyVerified",
            ConditionType::Authenticated => "Authenticated",
        }
    }
}

/// Sets one condition. Replaces its `reason` and `message`. The transition time changes only if `status` changes.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: ConditionType,
    status: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if status { "True" } else { "False" };
    set_status(conditions, type_, status, (reason, message), generation, now);
}

/// Sets one condition like [`set`], but with the status `Unknown`.
pub fn set_unknown(
    conditions: &mut Vec<Condition>,
    type_: ConditionType,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    set_status(conditions, type_, "Unknown", (reason, message), generation, now);
}

fn set_status(
    conditions: &mut Vec<Condition>,
    type_: ConditionType,
    status: &str,
    (reason, message): (&str, &str),
    generation: Option<i64>,
    now: Timestamp,
) {
    let unchanged_since = conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str() && condition.status == status)
        .map(|condition| condition.last_transition_time.clone());
    remove(conditions, type_);
    conditions.push(Condition {
        type_: type_.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: unchanged_since.unwrap_or(Time(now)),
    });
    conditions.sort_by(|left, right| left.type_.cmp(&right.type_));
}

/// Removes one condition if it exists.
pub fn remove(conditions: &mut Vec<Condition>, type_: ConditionType) {
    conditions.retain(|condition| condition.type_ != type_.as_str());
}
