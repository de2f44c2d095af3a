//! Rules that the caller can use on a Machine.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::path::PathOf;
use crate::gateway::read_limit::SCAN_READS;
use crate::gateway::rights::GET_WHITELIST;
use crate::gateway::stamp::Stamp;
use crate::gateway::state::Gateway;
use crate::policy::{AdmittedValues, PermittedRule, PermittedValue, RuleSet, permitted_rules};

use super::machines::MachineQuery;
use super::read_errors::ReadErrors;
use super::scope;

/// Maximum number of rules in an answer. A Whitelist has at most 256.
const MAX_RULES: usize = 1000;

/// Rules that the caller can use on a Machine.
#[derive(Debug, Serialize, ToSchema)]
struct RuleList {
    /// Rules, in order of precedence.
    items: Vec<RuleView>,
    /// Cause if rules are missing: a broken Whitelist, or requesters that cannot be verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// False if there are more than 1000 rules.
    is_complete: bool,
}

/// One rule.
#[derive(Debug, Serialize, ToSchema)]
struct RuleView {
    /// Name of the Whitelist.
    whitelist: String,
    /// Name of the rule.
    #[schema(examples("restart-service"))]
    rule: String,
    /// Purpose of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Action type.
    #[schema(examples("restart_service"))]
    action_type: String,
    /// Text of requests (`command`). `{name}` stands for the value of a parameter.
    #[serde(rename = "match")]
    #[schema(examples("systemctl restart {unit}"))]
    text: String,
    /// Words of the command (`argv`), with the same placeholders.
    argv: Vec<String>,
    /// User that runs the command. Absent for the login user.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as: Option<String>,
    /// Parameters.
    parameters: Vec<ParameterView>,
    /// Environment variables that a request can set.
    environment: Vec<ParameterView>,
    /// Timeouts of requests.
    timeout_seconds: TimeoutView,
    /// True if the rule permits a terminal and standard input.
    interactive: bool,
    /// True if the recording of a session contains the input.
    record_input: bool,
}

/// Parameter or environment variable. Exactly one of `enum`, `integer` and `pattern` is present.
#[derive(Debug, Serialize, ToSchema)]
struct ParameterView {
    /// Name.
    name: String,
    /// Meaning.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// All values.
    #[serde(rename = "enum", skip_serializing_if = "Option::is_none")]
    one_of: Option<Vec<String>>,
    /// Range of whole numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    integer: Option<IntegerView>,
    /// Regular expression that the whole value must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    /// Maximum length of a value, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<usize>,
    /// Value of a request that sets no value. Without it, a request must set a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
}

/// Range of whole numbers, both ends included.
#[derive(Debug, Serialize, ToSchema)]
struct IntegerView {
    /// Smallest number.
    minimum: u64,
    /// Largest number.
    maximum: u64,
}

/// Timeouts of requests, in seconds.
#[derive(Debug, Serialize, ToSchema)]
struct TimeoutView {
    /// Timeout of a request without a timeout.
    default: u32,
    /// Longest timeout of a request.
    maximum: u32,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(machine_rules))
}

/// Lists the rules that the caller can use on a Machine, with their parameters. Needs the right to get Whitelists.
///
/// A Deny rule can forbid single requests of a listed rule. `POST /api/v1/commands/explain` decides about one request.
#[utoipa::path(
    get,
    path = "/api/v1/machines/{id}/rules",
    tag = "machines",
    params(("id" = String, Path, description = "Name or UID of the Machine."), MachineQuery),
    responses(
        (status = 200, description = "The rules.", body = RuleList),
        (status = 404, description = "There is no such Machine.", body = ErrorBody),
        ReadErrors
    )
)]
async fn machine_rules(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
) -> Result<Json<RuleList>, ApiError> {
    let name = gateway.machine_for(&caller, &id, query.namespace.as_deref(), GET_WHITELIST).await?;
    gateway.count_reads(&caller, SCAN_READS)?;
    let machine = scope::read_machine(&gateway, &name).await?;
    let rules = gateway.policies().listed(&name.namespace).await?;
    let stamp = Stamp::of(&gateway, &caller, &name.namespace).await;
    let labels = machine.metadata.labels.unwrap_or_default();
    Ok(Json(rule_list(&rules, &labels, &stamp)))
}

fn rule_list(rules: &RuleSet, labels: &BTreeMap<String, String>, stamp: &Stamp) -> RuleList {
    let permitted = permitted_rules(rules, labels, stamp.identity());
    let closed = rules.closed_by().map(|whitelist| {
        let why = whitelist.closed.as_deref().unwrap_or_default();
        format!("nothing is allowed in this namespace until its Whitelist {} is fixed: {why}", whitelist.record.name)
    });
    RuleList {
        is_complete: permitted.len() <= MAX_RULES,
        items: permitted.iter().take(MAX_RULES).map(RuleView::of).collect(),
        message: closed.or_else(|| stamp.note()),
    }
}

impl RuleView {
    fn of(rule: &PermittedRule<'_>) -> Self {
        Self {
            whitelist: rule.whitelist.to_owned(),
            rule: rule.rule.to_owned(),
            description: rule.description.map(str::to_owned),
            action_type: rule.action_type.to_owned(),
            text: rule.text.clone(),
            argv: rule.run.clone(),
            run_as: rule.run_as.map(str::to_owned),
            parameters: rule.parameters.iter().map(ParameterView::of).collect(),
            environment: rule.environment.iter().map(ParameterView::of).collect(),
            timeout_seconds: TimeoutView {
                default: rule.default_timeout_seconds,
                maximum: rule.maximum_timeout_seconds,
            },
            interactive: rule.interactive,
            record_input: rule.record_input,
        }
    }
}

impl ParameterView {
    fn of(value: &PermittedValue<'_>) -> Self {
        let mut view = Self {
            name: value.name.to_owned(),
            description: value.description.map(str::to_owned),
            one_of: None,
            integer: None,
            pattern: None,
            max_length: value.maximum_bytes,
            default: value.default.map(str::to_owned),
        };
        match value.values {
            AdmittedValues::OneOf(values) => view.one_of = Some(values.to_vec()),
            AdmittedValues::Integer { minimum, maximum } => view.integer = Some(IntegerView { minimum, maximum }),
            AdmittedValues::Pattern(pattern) => view.pattern = Some(pattern.to_owned()),
        }
        view
    }
}
