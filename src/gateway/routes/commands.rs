//! Queued commands: create one or many.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use futures::stream;
use http::{HeaderMap, StatusCode};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::CommandExecutionSpec;

use super::execution_headers::with_execution;
use super::machines::MachineQuery;
use crate::gateway::body::{JsonBody, QueryOf};
use crate::gateway::caller::Caller;
use crate::gateway::create::{Created, NewExecution, idempotency_key};
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::names::{check_namespace, command_id, is_uid};
use crate::gateway::rights::CREATE;
use crate::gateway::spec::{Fields, spec_for};
use crate::gateway::state::{Gateway, MachineName};

/// Maximum of `expires_in`, in seconds: 7 days, as `spec.startingDeadlineSeconds`.
const MAX_EXPIRES_IN: u32 = 604_800;
/// Maximum of `timeout`, in seconds, as `spec.timeoutSeconds`.
const MAX_TIMEOUT: u32 = 86_400;
/// Maximum number of Machines of a bulk call.
const MAX_MACHINES: usize = 100;
/// Maximum number of executions that one bulk call creates at the same time.
const CONCURRENT_CREATES: usize = 8;

/// Command to queue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// Name or UID of the Machine.
    #[schema(examples("web-1"))]
    pub machine: String,
    /// The command, byte for byte as the `match` of a rule with values for its parameters.
    #[schema(min_length = 1, max_length = 4096)]
    pub command: String,
    /// Action type. If absent, any rule may allow the command.
    pub action_type: Option<String>,
    /// Timeout of the command in seconds, 1 to 86400. Default: the timeout of the rule.
    #[schema(minimum = 1, maximum = 86400)]
    pub timeout: Option<u32>,
    /// Time in seconds for which the command may wait for its start, 0 to 604800. Default 300.
    #[schema(minimum = 0, maximum = 604800)]
    pub expires_in: Option<u32>,
    /// Reason for the request, for readers of the record.
    #[schema(max_length = 1024)]
    pub reason: Option<String>,
}

/// Command to queue on several Machines.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    /// Names or UIDs of the Machines, 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    pub machines: Vec<String>,
    /// The command, byte for byte as the `match` of a rule with values for its parameters.
    #[schema(min_length = 1, max_length = 4096)]
    pub command: String,
    /// Action type. If absent, any rule may allow the command.
    pub action_type: Option<String>,
    /// Timeout of the command in seconds, 1 to 86400.
    #[schema(minimum = 1, maximum = 86400)]
    pub timeout: Option<u32>,
    /// Time in seconds for which the command may wait for its start, 0 to 604800. Default 300.
    #[schema(minimum = 0, maximum = 604800)]
    pub expires_in: Option<u32>,
    /// Reason for the request, for readers of the record.
    #[schema(max_length = 1024)]
    pub reason: Option<String>,
}

/// Answer for a queued command.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// Id of the command.
    pub command_id: String,
    /// `pending`: read `GET /api/v1/commands/{id}` for its progress.
    pub status: &'static str,
    /// Sentence for people.
    pub message: String,
}

/// Answer for one Machine of a bulk call.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BulkAnswer {
    /// Name or UID of the Machine, as in the request.
    pub machine: String,
    /// Id of the command. Absent if it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// `pending`, or `failed` if the command was refused.
    pub status: &'static str,
    /// Sentence for people.
    pub message: String,
    /// Error, as the answer to a single call would have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Reason of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(create_command)).routes(routes!(create_commands))
}

/// Queues a command, also for a machine that is offline. Does not wait for it.
#[utoipa::path(
    post,
    path = "/api/v1/commands",
    tag = "commands",
    params(MachineQuery, ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters")),
    request_body = CommandRequest,
    responses(
        (status = 202, description = "Queued", body = Accepted, headers(
            ("Writ-Execution" = String, description = "Namespace and name of the execution, as `namespace/name`"),
            ("Idempotency-Replayed" = String, description = "`true` if an earlier call with the key created it"))),
        (status = 401, description = "No valid credential", body = ErrorBody),
        (status = 403, description = "The caller may not run commands here", body = ErrorBody),
        (status = 404, description = "No such Machine", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 409, description = "The Idempotency-Key belongs to another request", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "The request is malformed. The message names the field", body = ErrorBody),
        (status = 429, description = "Too many commands or requests", body = ErrorBody),
        (status = 500, description = "The gateway failed", body = ErrorBody),
        (status = 503, description = "Nothing was queued: repeat the call", body = ErrorBody),
    )
)]
async fn create_command(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<MachineQuery>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CommandRequest>,
) -> Result<Response, ApiError> {
    let CommandRequest { machine, command, action_type, timeout, expires_in, reason } = request;
    let queued = Queued { command, action_type, timeout, expires_in, reason };
    QueueCall::new(&gateway, &caller, query.namespace.as_deref(), &headers, &queued)?.on_one(&machine).await
}

/// Queues a command on several Machines. The answer has one entry for each Machine, in the order of the request.
#[utoipa::path(
    post,
    path = "/api/v1/commands/bulk",
    tag = "commands",
    params(MachineQuery, ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters")),
    request_body = BulkRequest,
    responses(
        (status = 202, description = "One answer for each Machine", body = Vec<BulkAnswer>),
        (status = 401, description = "No valid credential", body = ErrorBody),
        (status = 403, description = "The caller may not run commands here", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "The request is malformed. The message names the field", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
        (status = 500, description = "The gateway failed", body = ErrorBody),
        (status = 503, description = "Nothing was queued: repeat the call", body = ErrorBody),
    )
)]
async fn create_commands(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<MachineQuery>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<BulkRequest>,
) -> Result<Response, ApiError> {
    let BulkRequest { machines, command, action_type, timeout, expires_in, reason } = request;
    let queued = Queued { command, action_type, timeout, expires_in, reason };
    let call = QueueCall::new(&gateway, &caller, query.namespace.as_deref(), &headers, &queued)?;
    let answers = call.on_many("machines", machines).await?;
    Ok((StatusCode::ACCEPTED, Json(answers)).into_response())
}

/// Call that queues a command on one or many Machines.
pub struct QueueCall<'a> {
    gateway: &'a Gateway,
    caller: &'a Caller,
    namespace: Option<&'a str>,
    key: Option<String>,
    spec: CommandExecutionSpec,
}

impl<'a> QueueCall<'a> {
    /// Checks the form of a call. `namespace` is the namespace of the Machines, if the request names one.
    ///
    /// # Errors
    /// 422 that names the field or the header.
    pub fn new(
        gateway: &'a Gateway,
        caller: &'a Caller,
        namespace: Option<&'a str>,
        headers: &HeaderMap,
        queued: &Queued,
    ) -> Result<Self, ApiError> {
        let key = idempotency_key(headers)?;
        Ok(Self { gateway, caller, namespace, key, spec: queued_spec(queued)? })
    }

    /// Queues the command on a Machine, and returns the answer.
    ///
    /// # Errors
    /// The execution was not created.
    pub async fn on_one(&self, machine: &str) -> Result<Response, ApiError> {
        let machine = self.gateway.machine_for(self.caller, machine, self.namespace, CREATE).await?;
        let created = self.queue(&machine, self.key.as_deref()).await?;
        let name = created.execution.name_any();
        let accepted = accepted(&command_id(&machine.namespace, &name));
        let response = (StatusCode::ACCEPTED, Json(accepted)).into_response();
        Ok(with_execution(response, &machine.namespace, &name, created.is_replay))
    }

    /// Queues the command on Machines. Returns one answer for each, in the order of the request. `field` is the name of
    /// the field with the Machines.
    ///
    /// # Errors
    /// Nothing was created: the Machines are malformed, or the caller may not create executions there.
    pub async fn on_many(&self, field: &str, machines: Vec<String>) -> Result<Vec<BulkAnswer>, ApiError> {
        let targets = self.find_targets(field, machines).await?;
        let one = |(id, target): (String, Result<MachineName, ApiError>)| async move {
            let queued = match target {
                Ok(machine) => {
                    let key = self.key.as_deref().map(|key| format!("{key} {}", machine.name));
                    let queued = self.queue(&machine, key.as_deref()).await;
                    queued.map(|created| command_id(&machine.namespace, &created.execution.name_any()))
                }
                Err(error) => Err(error),
            };
            bulk_answer(id, queued)
        };
        Ok(stream::iter(targets).map(one).buffered(CONCURRENT_CREATES).collect().await)
    }

    /// Finds the Machines of a bulk call before anything is created.
    ///
    /// # Errors
    /// 403 if the caller may not create executions in the named namespace, 422 if a Machine is named twice, also by its
    /// name and its UID.
    async fn find_targets(
        &self,
        field: &str,
        ids: Vec<String>,
    ) -> Result<Vec<(String, Result<MachineName, ApiError>)>, ApiError> {
        if ids.is_empty() || ids.len() > MAX_MACHINES {
            return Err(ApiError::malformed(format!("{field} must name 1 to {MAX_MACHINES} Machines")));
        }
        self.namespace.map_or(Ok(()), check_namespace)?;
        if self.namespace.is_some() || ids.iter().any(|id| !is_uid(id)) {
            let place = self.namespace.unwrap_or_else(|| self.gateway.cluster().own_namespace());
            self.gateway.rights().require(self.caller, CREATE, place).await?;
        }
        let (mut targets, mut seen) = (Vec::new(), HashSet::new());
        for id in ids {
            let target = self.gateway.machine_for(self.caller, &id, self.namespace, CREATE).await;
            let place = match &target {
                Ok(machine) => (machine.namespace.clone(), machine.name.clone()),
                Err(_) => (String::new(), id.clone()),
            };
            if !seen.insert(place) {
                return Err(ApiError::malformed(format!("{field} must not name {id:?} twice")));
            }
            targets.push((id, target));
        }
        Ok(targets)
    }

    /// Creates an execution on a Machine.
    async fn queue(&self, machine: &MachineName, key: Option<&str>) -> Result<Created, ApiError> {
        let mut spec = self.spec.clone();
        spec.machine_ref.name.clone_from(&machine.name);
        self.gateway.create_execution(NewExecution { caller: self.caller, machine, spec, key }).await
    }
}

fn bulk_answer(machine: String, queued: Result<String, ApiError>) -> BulkAnswer {
    match queued {
        Ok(id) => {
            let accepted = accepted(&id);
            let (status, message) = (accepted.status, accepted.message);
            BulkAnswer { machine, command_id: Some(id), status, message, error: None, reason: None }
        }
        Err(error) => {
            let body = *error.body;
            BulkAnswer {
                machine,
                command_id: None,
                status: "failed",
                message: body.message,
                error: Some(body.error),
                reason: Some(body.reason),
            }
        }
    }
}

/// Fields of a queued command, as in [`CommandRequest`].
#[derive(Debug, Default)]
pub struct Queued {
    /// The command.
    pub command: String,
    /// Action type.
    pub action_type: Option<String>,
    /// Timeout of the command, in seconds.
    pub timeout: Option<u32>,
    /// Time for which the command may wait for its start, in seconds.
    pub expires_in: Option<u32>,
    /// Reason for the request.
    pub reason: Option<String>,
}

fn queued_spec(queued: &Queued) -> Result<CommandExecutionSpec, ApiError> {
    if queued.timeout.is_some_and(|seconds| !(1..=MAX_TIMEOUT).contains(&seconds)) {
        return Err(ApiError::malformed(format!("timeout must be 1 to {MAX_TIMEOUT} seconds")));
    }
    if queued.expires_in.is_some_and(|seconds| seconds > MAX_EXPIRES_IN) {
        return Err(ApiError::malformed(format!("expires_in must be 0 to {MAX_EXPIRES_IN} seconds")));
    }
    let mut spec = spec_for(&Fields {
        command: &queued.command,
        action_type: queued.action_type.as_deref(),
        timeout: queued.timeout,
        reason: queued.reason.as_deref(),
    })?;
    if let Some(seconds) = queued.expires_in {
        spec.starting_deadline_seconds = seconds;
    }
    Ok(spec)
}

fn accepted(id: &str) -> Accepted {
    let message = format!("queued; GET /api/v1/commands/{id} shows its progress and its result");
    Accepted { command_id: id.to_owned(), status: "pending", message }
}
