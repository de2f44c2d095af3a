//! The CustomResourceDefinitions: derived from the types, then given what the derive cannot say.
//!
//! The guards of the record are here, as CEL that the API server itself enforces: whoever may write a status still
//! cannot rewrite history. A transition rule is skipped where its field is added or removed, so all of them stand on
//! the root of the object.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use kube::CustomResourceExt;
use schemars::schema_for;

use super::execution_status::IncompleteReason;
use super::machine_status::KeyTrust;
use super::selector::LabelOperator;
use super::whitelist::Effect;
use super::{
    CommandExecution, ExecutionMode, ExecutionReceipt, HostKeyPolicy, Machine, MachinePhase, Phase, Reason, Whitelist,
};

/// What the default status says, which the API server shows until a `writ serve` has written one.
pub const NOT_NOTICED: &str = "not yet noticed by any writ serve; if this stays, none serves this namespace (is one running, and is \
    the namespace one of its --namespace?); once it is older than spec.startingDeadlineSeconds it does not start any more";

/// The definitions, each with the name of its file in `crds/`.
pub fn all() -> Vec<(String, CustomResourceDefinition)> {
    [machine(), whitelist(), command_execution(), execution_receipt()]
        .into_iter()
        .map(|mut definition| {
            for_each_schema(&mut definition, &mut make_structural);
            (format!("{}.yaml", definition.spec.names.plural), definition)
        })
        .collect()
}

/// Takes `nullable` away: an explicit null is then dropped by the API server instead of being stored, so that
/// `has(field)` in CEL means that there is a value. And formats that OpenAPI does not know (`uint32`), which kubectl
/// warns of.
fn make_structural(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    schema.description = schema.description.take().map(|text| unwrap_lines(&text));
}

/// Takes the line breaks of the source out of a description: kubectl breaks lines itself. Paragraphs and list items
/// stay apart.
fn unwrap_lines(text: &str) -> String {
    let mut unwrapped = String::new();
    for line in text.lines() {
        let starts_anew =
            line.is_empty() || line.starts_with("- ") || unwrapped.is_empty() || unwrapped.ends_with('\n');
        unwrapped.push_str(match (starts_anew, unwrapped.is_empty() || unwrapped.ends_with("\n\n")) {
            (true, true) => "",
            (true, false) => "\n",
            (false, _) => " ",
        });
        unwrapped.push_str(line.trim_start());
    }
    unwrapped
}

fn machine() -> CustomResourceDefinition {
    let mut definition = Machine::crd();
    for_each_schema_root(&mut definition, &mut |root| {
        if let Some(status) = property(root, "status") {
            status.default = Some(JSON(serde_json::json!({
                "observedGeneration": -1,
                "phase": MachinePhase::Unknown.as_str(),
                "message": "not yet looked at by any writ serve; if this stays, none serves this namespace",
            })));
        }
    });
    for_each_schema(&mut definition, &mut |schema| {
        describe_enum_values(schema, "hostKeyPolicy", schema_for!(HostKeyPolicy));
        describe_enum_values(schema, "mode", schema_for!(ExecutionMode));
        describe_enum_values(schema, "phase", schema_for!(MachinePhase));
        describe_enum_values(schema, "trust", schema_for!(KeyTrust));
    });
    definition
}

fn whitelist() -> CustomResourceDefinition {
    let mut definition = Whitelist::crd();
    for_each_schema_root(&mut definition, &mut |root| default_unobserved_status(root));
    for_each_schema(&mut definition, &mut |schema| {
        describe_enum_values(schema, "effect", schema_for!(Effect));
        describe_enum_values(schema, "operator", schema_for!(LabelOperator));
    });
    definition
}

fn command_execution() -> CustomResourceDefinition {
    let mut definition = CommandExecution::crd();
    for_each_schema_root(&mut definition, &mut |root| {
        if let Some(status) = property(root, "status") {
            describe_enum_values(status, "phase", schema_for!(Phase));
            describe_enum_values(status, "reason", schema_for!(Reason));
            // Without this default kstatus takes a fresh object, which has no status, for finished. What no `writ serve`
            // has noticed has no other status, ever.
            status.default = Some(JSON(serde_json::json!({
                "observedGeneration": -1,
                "phase": Phase::Pending.as_str(),
                "reason": Reason::WaitingForController,
                "message": NOT_NOTICED,
            })));
        }
        if let Some(spec) = property(root, "spec") {
            spec.x_kubernetes_validations.get_or_insert_default().extend([immutable_spec(), cancelled_once()]);
            if let Some(Some(JSONSchemaPropsOrArray::Schema(word))) = property(spec, "argv").map(|argv| &mut argv.items)
            {
                word.x_kubernetes_validations = Some(word_of_argv());
            }
        }
        root.x_kubernetes_validations = Some(guards());
    });
    for_each_schema(&mut definition, &mut |schema| {
        describe_enum_values(schema, "incompleteReason", schema_for!(IncompleteReason));
    });
    definition
}

/// Without this default kstatus takes a fresh object, which has no status, for one that is done.
fn default_unobserved_status(root: &mut JSONSchemaProps) {
    if let Some(status) = property(root, "status") {
        status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
    }
}

/// A receipt stays what it was, but for who is its last.
fn execution_receipt() -> CustomResourceDefinition {
    let fields = [
        "executionName",
        "digest",
        "uid",
        "phase",
        "reason",
        "exitCode",
        "startTime",
        "completionTime",
        "machine",
        "machineUid",
        "requestedBy",
        "whitelist",
        "rule",
        "argvDigest",
    ];
    let mut definition = ExecutionReceipt::crd();
    for_each_schema_root(&mut definition, &mut |root| {
        if let Some(spec) = property(root, "spec") {
            spec.x_kubernetes_validations.get_or_insert_default().extend([
                guard(
                    fields.map(immutable_field_rule).join(" && "),
                    "spec must not change after creation, but for expiredUid: it is the record",
                ),
                guard(format!("self.phase in {}", finished_phases()), "spec.phase must be a finished one"),
            ]);
        }
    });
    definition
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

/// Puts what each value of an enum means into the description of its field: a structural schema has no other place
/// for it, and `kubectl explain` is to be enough.
fn describe_enum_values(parent: &mut JSONSchemaProps, field: &str, values: schemars::Schema) {
    let Some(field) = property(parent, field).filter(|field| field.type_.as_deref() == Some("string")) else { return };
    let mut text = field.description.take().unwrap_or_default();
    text.push('\n');
    for value in values.get("oneOf").and_then(|values| values.as_array()).into_iter().flatten() {
        let word = value.get("const").and_then(|word| word.as_str()).unwrap_or_default();
        let meaning = value.get("description").and_then(|meaning| meaning.as_str()).unwrap_or_default();
        text.push_str(&format!("\n- {word}: {}", meaning.replace('\n', " ")));
    }
    field.description = Some(text);
}

/// The rule that keeps a spec what it was. It stands on the spec, which is always there; an equality of optional
/// values (`?.`) would be one line less, but the API server estimates it at its worst and refuses it.
fn immutable_spec() -> ValidationRule {
    let fields = [
        "machineRef",
        "command",
        "argv",
        "rule",
        "actionType",
        "environment",
        "reason",
        "timeoutSeconds",
        "startingDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "requestedBy",
    ];
    guard(
        fields.map(immutable_field_rule).join(" && "),
        "spec must not change after creation, but for cancelRequested; create another CommandExecution instead, with another metadata.name",
    )
}

/// What a word of `spec.argv` may be. They stand on the word, so that the API server names which one it is; a pattern would be
/// told as a regular expression.
fn word_of_argv() -> Vec<ValidationRule> {
    vec![
        guard(
            r"!self.contains('\n')",
            r#"this word has a line break, and must be one line: write spec.argv: ["/bin/df", "-h"], and no word below `|`"#,
        ),
        guard(
            r"self.contains('\n') || self.matches('^[ -~]*$')",
            "this word must be printable ASCII: replace tabs, typographic quotes, non-breaking blanks and accented letters",
        ),
    ]
}

/// Who cancelled is written together with the cancelling, and never again.
fn cancelled_once() -> ValidationRule {
    guard(
        format!("self.cancelRequested != oldSelf.cancelRequested || ({})", immutable_field_rule("cancelledBy")),
        "spec.cancelledBy may only change together with spec.cancelRequested; it is written by the API server's admission",
    )
}

fn immutable_field_rule(field: &str) -> String {
    format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})")
}

/// The finished phases, as a list in CEL.
fn finished_phases() -> String {
    let finished = Phase::ALL.iter().filter(|phase| phase.is_finished());
    format!("[{}]", finished.map(|phase| format!("'{}'", phase.as_str())).collect::<Vec<_>>().join(", "))
}

/// The rules that keep a CommandExecution what it was; the names of the phases come from [`Phase`].
fn guards() -> Vec<ValidationRule> {
    let finished = finished_phases();
    let was_finished = format!("(has(oldSelf.status) && oldSelf.status.phase in {finished})");
    let was_claimed = "(has(oldSelf.status) && has(oldSelf.status.claim))";
    let still_claimed = "(has(self.status) && has(self.status.claim))";
    let same_claim = "self.status.claim.mode == oldSelf.status.claim.mode \
         && self.status.claim.dispatchedTime == oldSelf.status.claim.dispatchedTime \
         && has(self.status.remote) == has(oldSelf.status.remote) \
         && (!has(self.status.remote) || self.status.remote == oldSelf.status.remote)";
    let same_command = "has(self.status.commandLine) == has(oldSelf.status.commandLine) \
         && (!has(self.status.commandLine) || self.status.commandLine == oldSelf.status.commandLine)";
    vec![
        guard(
            format!(
                "self.spec.cancelRequested == oldSelf.spec.cancelRequested || (self.spec.cancelRequested && !{was_finished})"
            ),
            "spec.cancelRequested may only change from false to true, and not once the execution has finished",
        ),
        guard(
            format!("!{was_finished} || (has(self.status) && self.status == oldSelf.status)"),
            "status must not change once the execution has finished: it is the record",
        ),
        guard(
            format!(
                "!{was_claimed} || ({still_claimed} && self.status.decision == oldSelf.status.decision && {same_command} \
                 && self.status.machine == oldSelf.status.machine \
                 && {same_claim} && !(self.status.phase in ['Pending', 'Queued']))"
            ),
            "status.claim, decision, commandLine, machine and remote must stay (but for who holds the claim), and the phase may not go back, once the execution is claimed",
        ),
        guard(
            format!(
                "!{was_claimed} || !{still_claimed} || (self.status.claim.token == oldSelf.status.claim.token) \
                 == (self.status.claim.holder == oldSelf.status.claim.holder)"
            ),
            "status.claim.token must change together with status.claim.holder",
        ),
        guard(
            "!(has(oldSelf.status) && has(oldSelf.status.creation)) || (has(self.status) && has(self.status.creation) \
             && self.status.creation == oldSelf.status.creation)",
            "status.creation must stay what it is: it says what was so at the creation of the execution",
        ),
        guard(
            format!(
                "!has(self.status) || !(has(self.status.exitCode) || has(self.status.signal)) || self.status.phase in {finished}"
            ),
            "status.exitCode and status.signal are only written together with a finished phase",
        ),
    ]
}

fn guard(rule: impl Into<String>, message: &str) -> ValidationRule {
    ValidationRule { rule: rule.into(), message: Some(message.to_owned()), ..ValidationRule::default() }
}

fn for_each_schema_root(definition: &mut CustomResourceDefinition, change: &mut dyn FnMut(&mut JSONSchemaProps)) {
    for version in &mut definition.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            change(root);
        }
    }
}

/// Visits every schema of the definition.
fn for_each_schema(definition: &mut CustomResourceDefinition, change: &mut dyn FnMut(&mut JSONSchemaProps)) {
    for_each_schema_root(definition, &mut |root| visit(root, change));
}

fn visit(schema: &mut JSONSchemaProps, change: &mut dyn FnMut(&mut JSONSchemaProps)) {
    change(schema);
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        visit(property, change);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => visit(item, change),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(|item| visit(item, change)),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        visit(values, change);
    }
}

#[cfg(test)]
mod tests;
