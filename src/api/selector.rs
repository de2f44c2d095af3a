//! Selectors for Machines by label, like the LabelSelector of Kubernetes:
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>.
//!
//! The type of Kubernetes drops fields that it does not know. Writ's own type keeps unknown fields, because a rule with
//! an unknown field must be out of force.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unknown_fields::UnknownFields;

/// Selector for Machines by label. All entries of `matchLabels` and all of `matchExpressions` must match. An empty
/// selector matches every Machine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MachineSelector {
    /// Labels that a Machine must have, with exactly these values. At most 16 labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,

    /// Further conditions on labels, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelExpression>,

    /// Fields that this version does not know. A rule with such a field is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Condition on one label.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct LabelExpression {
    /// Name of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,

    /// Operator. In and NotIn compare the value of the label with `values`. Exists and DoesNotExist only check if the
    /// label exists. NotIn also matches a Machine without the label.
    pub operator: LabelOperator,

    /// Values for In and NotIn, at most 64. Not allowed with the other operators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,

    /// Fields that this version does not know. A rule with such a field is out of force.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown_fields: UnknownFields,
}

/// Operator of a condition on a label.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or does not exist.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
}

impl MachineSelector {
    /// Returns true if the selector matches a Machine with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| {
                let value = labels.get(&expression.key);
                match expression.operator {
                    LabelOperator::In => value.is_some_and(|value| expression.values.contains(value)),
                    LabelOperator::NotIn => value.is_none_or(|value| !expression.values.contains(value)),
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}
