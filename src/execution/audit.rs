//! Audit fields of an execution (requester, rule, machine), for log lines and receipts. Log lines and receipts still
//! exist after the execution is deleted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::api::{CommandExecution, CommandExecutionStatus};
use crate::policy::canonical;

/// Audit fields of an execution, without arguments and output, which may be confidential.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuditFields {
    /// User name of the creator (`spec.requestedBy`). The admission policies write it, so it is only as trustworthy as
    /// these policies.
    pub requester: Option<String>,
    /// User name of the user who cancelled the execution.
    pub canceller: Option<String>,
    /// Name of the Whitelist with the rule that allowed the execution.
    pub whitelist: Option<String>,
    /// Name of the rule that allowed the execution.
    pub rule: Option<String>,
    /// SHA-256 of the argument vector in the decision. Without a decision, SHA-256 of the requested argument vector
    /// (`spec.argv`).
    pub argv_digest: Option<String>,
    /// UID of the Machine to which the execution was sent.
    pub machine_uid: Option<String>,
}

impl AuditFields {
    /// Returns the audit fields of an execution. `status` may be newer than the status in `execution`.
    pub fn of(execution: &CommandExecution, status: &CommandExecutionStatus) -> Self {
        let (spec, decision) = (&execution.spec, status.decision.as_ref());
        let named = |name: &String| (!name.is_empty()).then(|| name.clone());
        Self {
            requester: spec.requested_by.as_ref().and_then(|requester| named(&requester.username)),
            canceller: spec.cancelled_by.as_ref().and_then(|canceller| named(&canceller.username)),
            whitelist: decision.map(|decision| decision.whitelist.name.clone()),
            rule: decision.map(|decision| decision.rule.clone()),
            argv_digest: decision.map(|decision| &decision.argv).or(spec.argv.as_ref()).map(|argv| argv_digest(argv)),
            machine_uid: status.machine.as_ref().map(|machine| machine.uid.clone()),
        }
    }

    /// Adds the UID of the Machine that the controller read, if the fields have no Machine UID yet.
    #[must_use]
    pub fn seen_on(mut self, machine: Option<&ObjectMeta>) -> Self {
        self.machine_uid = self.machine_uid.or_else(|| machine?.uid.clone());
        self
    }
}

/// Returns the SHA-256 of an argument vector, in lower case hexadecimal. The input is the JSON text of the vector, with
/// no spaces between the arguments.
pub fn argv_digest(argv: &[String]) -> String {
    let words = argv.iter().cloned().map(Value::String).collect();
    let mut text = String::new();
    canonical(&Value::Array(words), &mut text);
    hexadecimal(text.as_bytes())
}

/// Returns the SHA-256 of a text in lower case hexadecimal.
pub(super) fn hexadecimal(text: &[u8]) -> String {
    Sha256::digest(text).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_an_argument_vector_is_that_of_its_json() {
        let argv = ["/bin/echo".to_owned(), "\"hello\"".to_owned()];
        // jq -cnj '["/bin/echo", "\"hello\""]' | sha256sum
        assert_eq!(argv_digest(&argv), "dde9db499632a6e6148d97f6c2bac41182bf9bc40fca13f5532edd68f54dfaa7");
    }
}
