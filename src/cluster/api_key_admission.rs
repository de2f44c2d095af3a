//! Checks that the admission policy `writ-api-keys` protects the namespace of this process. Without the policy, anyone
//! who may create Secrets there could make a key for any user.
//!
//! # Caveats
//! This check reads the policy, and does not try it: a process that may create Secrets could take the tokens of
//! ServiceAccounts. A user who may change admission policies can weaken this one. Such a user has all rights anyway.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::ClusterResourceScope;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::requester_trust::PROPAGATION_DELAY;
use super::{Cluster, ClusterError, Operation};

/// Name of the policy and of its binding in the chart.
const POLICY: &str = "writ-api-keys";
/// Label of every namespace with its name. The API server sets it.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Protection of the namespace by the admission policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ApiKeyAdmission {
    /// The policy has checked every key that was created after this time. An earlier key must be refused.
    Since(Timestamp),
    /// The policy does not protect the namespace, for this reason. Every key must be refused.
    Missing(&'static str),
}

impl Cluster {
    /// Reads the admission policy for API keys and its binding.
    ///
    /// # Errors
    /// The policy or its binding cannot be read, for example because this process lacks the right.
    pub async fn api_key_admission(&self) -> Result<ApiKeyAdmission, ClusterError> {
        let policy = read::<ValidatingAdmissionPolicy>(self).await?;
        let binding = read::<ValidatingAdmissionPolicyBinding>(self).await?;
        Ok(match (policy, binding) {
            (Some(policy), Some(binding)) => protection(&policy, &binding, self.own_namespace()),
            _ => ApiKeyAdmission::Missing(
                "the admission policy writ-api-keys or its binding does not exist: install the chart with \
                 admission.install=true",
            ),
        })
    }
}

async fn read<K>(cluster: &Cluster) -> Result<Option<K>, ClusterError>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(cluster.client());
    cluster.call(Operation::GetApiKeyPolicy, format!("{} {POLICY}", K::kind(&())), api.get_opt(POLICY)).await
}

/// Returns the protection of a namespace. Only a policy with the form of the chart counts.
fn protection(
    policy: &ValidatingAdmissionPolicy,
    binding: &ValidatingAdmissionPolicyBinding,
    namespace: &str,
) -> ApiKeyAdmission {
    let (Some(spec), bound) = (&policy.spec, &binding.spec) else {
        return ApiKeyAdmission::Missing("the admission policy writ-api-keys is empty: upgrade the chart");
    };
    let fails_closed = spec.failure_policy.as_deref().unwrap_or("Fail") == "Fail";
    if !fails_closed || spec.param_kind.is_some() || spec.validations.iter().flatten().next().is_none() {
        return ApiKeyAdmission::Missing("the admission policy writ-api-keys was changed: upgrade the chart");
    }
    let denies = bound.validation_actions.iter().any(|action| action == "Deny");
    let is_whole = bound.match_resources.is_none() && bound.param_ref.is_none();
    if bound.policy_name != POLICY || !denies || !is_whole {
        return ApiKeyAdmission::Missing("the binding of the policy writ-api-keys was changed: upgrade the chart");
    }
    if !spec.match_constraints.as_ref().is_some_and(|constraints| covers(constraints, namespace)) {
        return ApiKeyAdmission::Missing(
            "the admission policy writ-api-keys does not apply in this namespace: run in the namespace of the release \
             that installs the admission policies",
        );
    }
    // An update keeps the creation time. So keys stay usable after an upgrade of the chart.
    let created = [&policy.metadata, &binding.metadata].map(|metadata| metadata.creation_timestamp.as_ref());
    let [Some(policy_created), Some(binding_created)] = created else {
        return ApiKeyAdmission::Missing("the admission policy writ-api-keys has no creation time");
    };
    let latest = policy_created.0.max(binding_created.0);
    ApiKeyAdmission::Since(latest.checked_add(PROPAGATION_DELAY).unwrap_or(Timestamp::MAX))
}

/// Returns true if the constraints match each creation and update of a Secret in a namespace.
fn covers(constraints: &MatchResources, namespace: &str) -> bool {
    let is_empty = |selector: &LabelSelector| {
        selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
    };
    let names_namespace = |selector: &LabelSelector| {
        selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && selector.match_expressions.iter().flatten().all(|each| {
                let is_name = each.key == NAMESPACE_NAME && each.operator == "In";
                is_name && each.values.iter().flatten().any(|value| value == namespace)
            })
    };
    constraints.namespace_selector.as_ref().is_none_or(names_namespace)
        && constraints.object_selector.as_ref().is_none_or(is_empty)
        && constraints.exclude_resource_rules.as_ref().is_none_or(Vec::is_empty)
        && constraints.resource_rules.iter().flatten().any(is_for_secrets)
}

fn is_for_secrets(rule: &NamedRuleWithOperations) -> bool {
    let has = |list: &Option<Vec<String>>, word: &str| list.iter().flatten().any(|each| each == word || each == "*");
    has(&rule.api_groups, "")
        && has(&rule.api_versions, "v1")
        && has(&rule.resources, "secrets")
        && ["CREATE", "UPDATE"].into_iter().all(|operation| has(&rule.operations, operation))
        && rule.resource_names.as_ref().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CREATED: &str = "2026-11-21T10:00:00Z";

    fn policy() -> Value {
        json!({
            "metadata": {"name": POLICY, "creationTimestamp": CREATED},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "matchPolicy": "Equivalent",
                    "namespaceSelector": {"matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["other", "home"]},
                    ]},
                    "objectSelector": {},
                    "resourceRules": [{
                        "apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                        "resources": ["secrets"], "scope": "*",
                    }],
                },
                "validations": [{"expression": "true"}],
            },
        })
    }

    fn binding() -> Value {
        json!({
            "metadata": {"name": POLICY, "creationTimestamp": "2026-11-21T10:00:03Z"},
            "spec": {"policyName": POLICY, "validationActions": ["Deny"]},
        })
    }

    fn of(policy: Value, binding: Value, namespace: &str) -> ApiKeyAdmission {
        let policy = serde_json::from_value(policy).expect("a policy");
        protection(&policy, &serde_json::from_value(binding).expect("a binding"), namespace)
    }

    #[test]
    fn keys_count_that_are_younger_than_policy_and_binding() {
        let since = "2026-11-21T10:00:08Z".parse().expect("a time");
        assert_eq!(of(policy(), binding(), "home"), ApiKeyAdmission::Since(since));
    }

    #[test]
    fn a_policy_that_does_not_apply_here_protects_nothing() {
        let elsewhere = of(policy(), binding(), "elsewhere");
        assert!(matches!(elsewhere, ApiKeyAdmission::Missing(why) if why.contains("this namespace")));
    }

    #[test]
    fn a_weakened_policy_protects_nothing() {
        for (path, value) in [
            ("/spec/failurePolicy", json!("Ignore")),
            ("/spec/validations", json!([])),
            ("/spec/matchConstraints", Value::Null),
            ("/spec/matchConstraints/objectSelector", json!({"matchLabels": {"a": "b"}})),
            ("/spec/matchConstraints/namespaceSelector", json!({"matchLabels": {"a": "b"}})),
            ("/spec/matchConstraints/namespaceSelector/matchExpressions/0/operator", json!("NotIn")),
            ("/spec/matchConstraints/namespaceSelector/matchExpressions/0/key", json!("a")),
            ("/spec/matchConstraints/resourceRules", json!([])),
            ("/spec/matchConstraints/resourceRules/0/operations", json!(["CREATE"])),
            ("/spec/matchConstraints/resourceRules/0/resources", json!(["configmaps"])),
            ("/spec", Value::Null),
            ("/metadata/creationTimestamp", Value::Null),
        ] {
            let mut policy = policy();
            *policy.pointer_mut(path).expect(path) = value;
            assert!(matches!(of(policy, binding(), "home"), ApiKeyAdmission::Missing(_)), "{path}");
        }
        let names = json!({"resourceNames": ["x"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["*"],
            "operations": ["*"]});
        let mut named = policy();
        *named.pointer_mut("/spec/matchConstraints/resourceRules/0").expect("a rule") = names;
        assert!(matches!(of(named, binding(), "home"), ApiKeyAdmission::Missing(_)));
    }

    #[test]
    fn a_weakened_binding_protects_nothing() {
        for (path, value) in [
            ("/spec/policyName", json!("another")),
            ("/spec/validationActions", json!(["Warn", "Audit"])),
            ("/metadata/creationTimestamp", Value::Null),
        ] {
            let mut binding = binding();
            *binding.pointer_mut(path).expect(path) = value;
            assert!(matches!(of(policy(), binding, "home"), ApiKeyAdmission::Missing(_)), "{path}");
        }
        let mut narrow = binding();
        narrow["spec"]["matchResources"] = json!({"namespaceSelector": {"matchLabels": {"a": "b"}}});
        assert!(matches!(of(policy(), narrow, "home"), ApiKeyAdmission::Missing(_)));
    }
}
