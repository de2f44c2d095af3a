//! Provides the CustomResourceDefinitions. The definitions are derived from the types, with additions that the derive
//! macros cannot express.
//!
//! The API server enforces the CEL rules that protect the record. Even a user who may write a status cannot change the
//! history. If a field is added or removed, the API server skips the rules of this field. The rules about changes are
//! therefore rules of the whole object or of the spec, which always exist.

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
    CommandExecution, ExecutionMode, ExecutionReceipt, GatewaySession, HostKeyPolicy, Machine, MachinePhase, Phase,
    Reason, WhenOffline, Whitelist,
};

/// Message of the default status. The API server shows it until a `writ serve` has written a status.
pub const NOT_NOTICED: &str = "not read yet by any writ serve; if this message stays, none serves this namespace (check that one is \
    running, and that its --namespace includes this one); after spec.startingDeadlineSeconds the command does not start";

/// Returns the definitions, each with its file name in `crds/`.
pub fn all() -> Vec<(String, CustomResourceDefinition)> {
    [machine(), whitelist(), command_execution(), execution_receipt(), gateway_session()]
        .into_iter()
        .map(|mut definition| {
            for_each_schema(&mut definition, &mut make_structural);
            (format!("{}.yaml", definition.spec.names.plural), definition)
        })
        .collect()
}

/// Adapts a schema:
///
/// - Removes `nullable`. The API server then drops an explicit null, and `has(field)` in CEL means that the field has a
///   value.
/// - Removes formats that OpenAPI does not know (`uint32`), because kubectl warns about them.
/// - Joins the lines of the description.
fn make_structural(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    schema.description = schema.description.take().map(|text| unwrap_lines(&text));
}

/// Removes the line breaks of the source text from a description, because kubectl breaks lines itself. Paragraphs and
/// list items stay separate.
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
                "message": "not probed yet by any writ serve; if this message stays, none serves this namespace",
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
            // Without this default, kstatus considers a new object finished. If no `writ serve` serves the namespace,
            // the object keeps this status.
            status.default = Some(JSON(serde_json::json!({
                "observedGeneration": -1,
                "phase": Phase::Pending.as_str(),
                "reason": Reason::WaitingForController,
                "message": NOT_NOTICED,
            })));
        }
        if let Some(spec) = property(root, "spec") {
            describe_enum_values(spec, "whenOffline", schema_for!(WhenOffline));
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

/// Sets the default status. Without a status, kstatus considers a new object finished.
fn default_unobserved_status(root: &mut JSONSchemaProps) {
    if let Some(status) = property(root, "status") {
        status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
    }
}

/// Returns the definition of ExecutionReceipt. Only `expiredUid` of a receipt may change.
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
                    "spec must not change after creation, except expiredUid: it is the record",
                ),
                guard(format!("self.phase in {}", finished_phases()), "spec.phase must be a finished one"),
            ]);
        }
    });
    definition
}

/// Returns the definition of GatewaySession. Nothing of a session may change. The admission policy `writ-sessions` also
/// keeps the fields that this version does not know.
fn gateway_session() -> CustomResourceDefinition {
    let fields = ["keyDigest", "expirationSeconds", "requestedBy"];
    let mut definition = GatewaySession::crd();
    for_each_schema_root(&mut definition, &mut |root| {
        if let Some(spec) = property(root, "spec") {
            spec.x_kubernetes_validations.get_or_insert_default().push(guard(
                fields.map(immutable_field_rule).join(" && "),
                "spec of a GatewaySession must not change: delete it, and create another one with another key",
            ));
        }
    });
    definition
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

/// Adds the meaning of each enum value to the description of its field, for `kubectl explain`. A structural schema has
/// no other place for the meaning.
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

/// Returns the rule that keeps a spec unchanged. The rule does not compare optional values by `?.`, because the API
/// server would estimate the cost of the rule as too high.
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
        "whenOffline",
        "session",
        "ttlSecondsAfterFinished",
        "requestedBy",
    ];
    guard(
        fields.map(immutable_field_rule).join(" && "),
        "spec must not change after creation, except cancelRequested; create another CommandExecution instead, with another metadata.name",
    )
}

/// Returns the rules for one word of `spec.argv`. With rules for each word, the API server reports the index of a wrong
/// word. With a `pattern` instead of CEL rules, the API server would report the regular expression to the user.
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

/// Returns the rule that lets `cancelledBy` change only together with `cancelRequested`.
fn cancelled_once() -> ValidationRule {
    guard(
        format!("self.cancelRequested != oldSelf.cancelRequested || ({})", immutable_field_rule("cancelledBy")),
        "spec.cancelledBy may only change together with spec.cancelRequested; it is written by the API server's admission",
    )
}

fn immutable_field_rule(field: &str) -> String {
    format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})")
}

/// Returns the finished phases as a CEL list.
fn finished_phases() -> String {
    let finished = Phase::ALL.iter().filter(|phase| phase.is_finished());
    format!("[{}]", finished.map(|phase| format!("'{}'", phase.as_str())).collect::<Vec<_>>().join(", "))
}

/// Returns the rules that protect the record of a CommandExecution. The names of the phases come from [`Phase`].
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
            "status.claim, decision, commandLine, machine and remote must not change (except the holder of the claim), and the phase must not go back, once the execution is claimed",
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
            "status.creation must not change: it is the record of the creation of the execution",
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
