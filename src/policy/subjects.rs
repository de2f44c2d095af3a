//! Subjects of rules. Names are compared byte for byte with the names that the API server authenticated.

use crate::api::command_execution::Requester;
use crate::api::whitelist::{Subject, SubjectKind, WhitelistRule};

use super::RuleError;

/// Requester of a request, and the result of its verification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity<'a> {
    /// Requester that the admission policy copied from the authenticated request (the stamp).
    Known(&'a Requester),
    /// The requester is not verified: the request has no stamp, or stamping does not work. No Allow rule with subjects
    /// matches.
    Unknown,
    /// Writ has not verified yet that stamping works. Until then, no Allow rule with subjects matches.
    Undecided,
}

/// Subject of a rule, as a user name or a group name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Principal {
    User(String),
    Group(String),
}

pub(super) fn is_group(principal: &Principal) -> bool {
    matches!(principal, Principal::Group(_))
}

/// Returns the subjects of a rule. Returns `None` if the rule is for everybody.
pub(super) fn compile(rule: &WhitelistRule, namespace: &str) -> Result<Option<Vec<Principal>>, RuleError> {
    let Some(subjects) = &rule.subjects else { return Ok(None) };
    if subjects.is_empty() {
        return Err(RuleError::NoSubjects);
    }
    subjects.iter().map(|subject| principal(subject, namespace)).collect::<Result<_, _>>().map(Some)
}

fn principal(subject: &Subject, namespace: &str) -> Result<Principal, RuleError> {
    let has_namespace = subject.namespace.is_some();
    if subject.name.is_empty() || (has_namespace && subject.kind != SubjectKind::ServiceAccount) {
        return Err(RuleError::Subject { name: subject.name.clone() });
    }
    Ok(match subject.kind {
        SubjectKind::User => Principal::User(subject.name.clone()),
        SubjectKind::Group => Principal::Group(subject.name.clone()),
        SubjectKind::ServiceAccount => {
            let namespace = subject.namespace.as_deref().unwrap_or(namespace);
            Principal::User(format!("system:serviceaccount:{namespace}:{}", subject.name))
        }
    })
}

/// Returns true if the requester is one of the subjects.
pub(super) fn contains(subjects: &[Principal], requester: &Requester) -> bool {
    subjects.iter().any(|subject| match subject {
        Principal::User(name) => *name == requester.username,
        Principal::Group(name) => requester.groups.contains(name),
    })
}
