//! Who may ask. Names are compared byte for byte with what the API server authenticated.

use crate::api::command_execution::Requester;
use crate::api::whitelist::{Subject, SubjectKind, WhitelistRule};

use super::RuleProblem;

/// Who asks, as far as Writ can be sure of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity<'a> {
    /// The API server has stamped it.
    Known(&'a Requester),
    /// Nobody, as far as a rule with subjects is concerned: it was not stamped, or stamping does not work.
    Unknown,
    /// The same, but only until it is known whether stamping works.
    Undecided,
}

/// A subject of a rule, as it stands in a requester.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Principal {
    User(String),
    Group(String),
}

/// The subjects of a rule; None: everybody.
pub(super) fn compile(rule: &WhitelistRule, namespace: &str) -> Result<Option<Vec<Principal>>, RuleProblem> {
    let Some(subjects) = &rule.subjects else { return Ok(None) };
    if subjects.is_empty() {
        return Err(RuleProblem::NoSubjects);
    }
    subjects.iter().map(|subject| principal(subject, namespace)).collect::<Result<_, _>>().map(Some)
}

fn principal(subject: &Subject, namespace: &str) -> Result<Principal, RuleProblem> {
    let has_namespace = subject.namespace.is_some();
    if subject.name.is_empty() || (has_namespace && subject.kind != SubjectKind::ServiceAccount) {
        return Err(RuleProblem::Subject { name: subject.name.clone() });
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

/// Whether the requester is one of the subjects.
pub(super) fn include(subjects: &[Principal], requester: &Requester) -> bool {
    subjects.iter().any(|subject| match subject {
        Principal::User(name) => *name == requester.username,
        Principal::Group(name) => requester.groups.contains(name),
    })
}
