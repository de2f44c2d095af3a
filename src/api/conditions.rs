//! Conditions, kept by one helper: the transition time changes only with the status, the list is sorted.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The types of condition on our objects. `Ready`, `Reconciling` and `Stalled` are kstatus' words:
/// <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConditionType {
    /// Surfaces when it is decided whether a rule allows the execution: True, or False with the reason.
    Accepted,
    /// Surfaces always: True once the execution has succeeded, else False.
    Ready,
    /// Surfaces when the execution has finished, however it ended: True, with the phase as its reason. Absent before. Tools for
    /// GitOps do not read it.
    Finished,
    /// Surfaces when work is going on: True until the execution has finished.
    Reconciling,
    /// Surfaces when the execution finished and did not succeed: True. Removed otherwise, as kstatus wants it.
    Stalled,
    /// On a Whitelist with subjects. Surfaces when it is known whether the API server stamps who asks.
    RequesterKnown,
    /// On a Whitelist. Surfaces when `writ lint` would warn of one of its rules: True, and removed otherwise. It says nothing
    /// of whether the rules are in force: that is Ready.
    HasWarnings,
    /// On a Machine. Surfaces when it was looked whether sshd answers.
    Reachable,
    /// On a Machine. Surfaces when it has shown a host key.
    HostKeyVerified,
    /// On a Machine. Surfaces when it has let Writ in, or has not.
    Authenticated,
}

impl ConditionType {
    /// The word in the object.
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

/// Sets one condition; `reason` and `message` are replaced, the transition time moves only where `status` changes.
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

/// Removes one condition, if it is there.
pub fn remove(conditions: &mut Vec<Condition>, type_: ConditionType) {
    conditions.retain(|condition| condition.type_ != type_.as_str());
}
