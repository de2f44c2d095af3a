//! Interactive sessions: a command with the input of its client.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::command_execution::WhenOffline;
use crate::api::{CommandExecutionSpec, SessionRequest};
use crate::policy::{self, Request, Verdict};

use super::machines::MachineQuery;
use super::read_errors::ReadErrors;
use super::scope;
use super::streams::{check_timeout, open};
use crate::gateway::body::{QueryOf, parse};
use crate::gateway::caller::Caller;
use crate::gateway::create::{Created, NewExecution};
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::path::PathOf;
use crate::gateway::rights::CREATE;
use crate::gateway::spec::check_reason;
use crate::gateway::stamp::Stamp;
use crate::gateway::state::{Gateway, MachineName};
use crate::gateway::stream::{ExecConversation, ExecutionFeed, SocketRequest, check_size};

/// Starting deadline, in seconds. A person waits, so it is short. The machine can be busy, so it is not shorter.
const STARTING_DEADLINE: u32 = 60;
/// Maximum number of words, as `spec.argv`.
const MAX_WORDS: usize = 64;
/// Maximum length of a word and of the value of a variable, in bytes, as `spec.argv` and `spec.environment`.
const MAX_WORD: usize = 4096;
/// Maximum number of variables, as `spec.environment`.
const MAX_VARIABLES: usize = 16;
/// Maximum length of the name of a variable, in bytes.
const MAX_NAME: usize = 63;

/// First message of a client that opens an interactive session.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The command, word for word as the `run` of a rule with `interactive: true`.
    #[schema(min_items = 1, max_items = 64, examples(json!(["/usr/bin/psql"])))]
    pub command: Vec<String>,
    /// True for a terminal. Its output has both streams, and the command sees the terminal's size. Default false.
    #[serde(default)]
    pub tty: bool,
    /// Number of columns of the terminal, 1 to 1000. Default 80.
    #[schema(minimum = 1, maximum = 1000)]
    pub cols: Option<u16>,
    /// Number of rows of the terminal, 1 to 1000. Default 24.
    #[schema(minimum = 1, maximum = 1000)]
    pub rows: Option<u16>,
    /// Environment variables. The rule lists the allowed names and values.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory. It must be the `workingDirectory` of the rule. Leave it out to take the rule's.
    #[schema(max_length = 4096)]
    pub cwd: Option<String>,
    /// Maximum duration of the session in seconds, 1 to 86400. Default: the timeout of the rule.
    #[schema(minimum = 1, maximum = 86400)]
    pub timeout: Option<u32>,
    /// Action type. Only rules with this action type may allow the session.
    #[schema(min_length = 1, max_length = 63)]
    pub action_type: Option<String>,
    /// Reason for the session, for readers of the record.
    #[schema(max_length = 1024)]
    pub reason: Option<String>,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(exec_session))
}

/// Opens an interactive session over a WebSocket.
///
/// The first message of the client is an `ExecRequest`, within 10 s. The first message of the server is
/// `{"type":"execution","command_id"}`. Then binary messages carry input and output. Text messages of the client are
/// `{"resize":{"cols","rows"}}` and `{"type":"stdin_eof"}`. The last message is `{"exitCode":CODE}`, or an error. If
/// the client leaves, the command ends. A rule must have `interactive: true`.
#[utoipa::path(
    get,
    path = "/api/v1/machines/{id}/exec",
    tag = "commands",
    params(("id" = String, Path, description = "Name or UID of the Machine"), MachineQuery),
    request_body = ExecRequest,
    responses(
        (status = 101, description = "The WebSocket is open"),
        ReadErrors,
        (status = 404, description = "No such Machine", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket", body = ErrorBody),
    )
)]
async fn exec_session(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: SocketRequest,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<MachineQuery>,
) -> Result<Response, ApiError> {
    let names_execution = true;
    open_session(gateway, caller, request, SessionTarget { id, query, names_execution }).await
}

/// Machine of a session, and the form of its messages.
pub struct SessionTarget {
    /// Name or UID of the Machine.
    pub id: String,
    /// Namespace of the Machine.
    pub query: MachineQuery,
    /// True if the first message of the server names the execution.
    pub names_execution: bool,
}

/// Opens an interactive session.
///
/// # Errors
/// 403, 404 or 429 before the WebSocket is open.
pub async fn open_session(
    gateway: Gateway,
    caller: Caller,
    request: SocketRequest,
    target: SessionTarget,
) -> Result<Response, ApiError> {
    let SessionTarget { id, query, names_execution } = target;
    let machine = gateway.machine_for(&caller, &id, query.namespace.as_deref(), CREATE).await?;
    let socket = open(&gateway, &caller, CREATE, &machine.namespace)?;
    Ok(request.serve_request(socket, move |message| start(gateway, caller, machine, names_execution, message)))
}

async fn start(
    gateway: Gateway,
    caller: Caller,
    machine: MachineName,
    names_execution: bool,
    message: Bytes,
) -> Result<ExecConversation, ApiError> {
    let (spec, directory) = requested(&message, &machine)?;
    if let Some(directory) = directory {
        check_directory(&gateway, &caller, &machine, &spec, &directory).await?;
    }
    let new = NewExecution { caller: &caller, machine: &machine, spec, key: None };
    let Created { execution, end, client, .. } = gateway.create_execution(new).await?;
    let client = client.ok_or_else(|| ApiError::unavailable("the session has no client; open it again"))?;
    let feed = ExecutionFeed::for_client(&gateway, execution, names_execution);
    // Until the feed has subscribed, this subscription keeps the bytes of a command that ends at once.
    drop(end);
    Ok(ExecConversation { feed, client })
}

/// Returns the spec of a first message, and the working directory that the client expects.
fn requested(message: &[u8], machine: &MachineName) -> Result<(CommandExecutionSpec, Option<String>), ApiError> {
    let request: ExecRequest = parse(message)?;
    check_words(&request)?;
    check_variables(&request.env)?;
    request.reason.as_deref().map_or(Ok(()), check_reason)?;
    check_timeout(request.timeout)?;
    let usual = SessionRequest::default();
    let session = SessionRequest {
        tty: request.tty,
        columns: request.cols.unwrap_or(usual.columns),
        rows: request.rows.unwrap_or(usual.rows),
    };
    check_size("cols", session.columns)?;
    check_size("rows", session.rows)?;
    let spec = CommandExecutionSpec {
        argv: Some(request.command),
        action_type: request.action_type,
        environment: request.env,
        timeout_seconds: request.timeout,
        reason: request.reason,
        session: Some(session),
        starting_deadline_seconds: STARTING_DEADLINE,
        when_offline: WhenOffline::Fail,
        ..CommandExecutionSpec::on_machine(&machine.name)
    };
    Ok((spec, request.cwd))
}

fn check_words(request: &ExecRequest) -> Result<(), ApiError> {
    if !(1..=MAX_WORDS).contains(&request.command.len()) {
        return Err(ApiError::malformed(format!("command must have 1 to {MAX_WORDS} words")));
    }
    for (index, word) in request.command.iter().enumerate() {
        check_text(&format!("command[{index}]"), word)?;
    }
    Ok(())
}

fn check_variables(variables: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if variables.len() > MAX_VARIABLES {
        return Err(ApiError::malformed(format!("env must have at most {MAX_VARIABLES} variables")));
    }
    for (name, value) in variables {
        let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_name {
            return Err(ApiError::malformed(format!("env: a name must have 1 to {MAX_NAME} printable characters")));
        }
        check_text(&format!("env.{name}"), value)?;
    }
    Ok(())
}

fn check_text(field: &str, text: &str) -> Result<(), ApiError> {
    let is_printable = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if is_printable && text.len() <= MAX_WORD {
        return Ok(());
    }
    Err(ApiError::malformed(format!("{field} must be printable ASCII of at most {MAX_WORD} bytes")))
}

/// Checks that the rule has the working directory that the client expects.
///
/// # Errors
/// 422 if the rule has another one, or the error of a read.
async fn check_directory(
    gateway: &Gateway,
    caller: &Caller,
    machine: &MachineName,
    spec: &CommandExecutionSpec,
    directory: &str,
) -> Result<(), ApiError> {
    let request = Request::parse(spec).map_err(|error| ApiError::malformed(error.to_string()))?;
    let labels = scope::read_machine(gateway, machine).await?.metadata.labels.unwrap_or_default();
    let rules = gateway.policies().listed(&machine.namespace).await?;
    let stamp = Stamp::of(gateway, caller, &machine.namespace).await;
    match policy::decide(&rules, &request, &labels, stamp.identity()) {
        Verdict::Allow(decision) if decision.working_directory.as_deref() != Some(directory) => {
            Err(ApiError::malformed("cwd must be the workingDirectory of the rule; leave cwd out to take the rule's"))
        }
        // A refusal comes from the execution, so that the record has it.
        Verdict::Allow(_) | Verdict::Deny(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineName {
        MachineName { namespace: "ops".to_owned(), name: "web-1".to_owned() }
    }

    #[test]
    fn a_first_message_becomes_a_spec_with_a_session() {
        let message = br#"{"command": ["/bin/cat"], "tty": true, "cols": 120, "env": {"A": "b"}, "timeout": 5}"#;
        let (spec, directory) = requested(message, &machine()).unwrap();
        assert_eq!(spec.session, Some(SessionRequest { tty: true, columns: 120, rows: 24 }));
        assert_eq!((spec.argv, directory), (Some(vec!["/bin/cat".to_owned()]), None));
        assert_eq!((spec.timeout_seconds, spec.machine_ref.name.as_str()), (Some(5), "web-1"));
        let (spec, directory) = requested(br#"{"command": ["/bin/cat"], "cwd": "/tmp"}"#, &machine()).unwrap();
        assert_eq!((spec.session.map(|session| session.tty), directory.as_deref()), (Some(false), Some("/tmp")));
    }

    #[test]
    fn a_bad_first_message_names_the_field() {
        for (message, expected) in [
            ("{}", "command"),
            (r#"{"command": []}"#, "command "),
            (r#"{"command": "cat"}"#, "command"),
            (r#"{"command": ["a\nb"]}"#, "command[0] "),
            (r#"{"command": ["/bin/cat", "caf\u00e9"]}"#, "command[1] "),
            (r#"{"command": ["x"], "cols": 0}"#, "cols "),
            (r#"{"command": ["x"], "rows": 1001}"#, "rows "),
            (r#"{"command": ["x"], "timeout": 0}"#, "timeout "),
            (r#"{"command": ["x"], "env": {"": "a"}}"#, "env"),
            (r#"{"command": ["x"], "env": {"A": "\u0000"}}"#, "env.A "),
            (r#"{"command": ["x"], "machine": "db-1"}"#, "`machine`"),
            (r#"{"command": ["x"], "session": {}}"#, "`session`"),
            ("", "EOF"),
        ] {
            let error = requested(message.as_bytes(), &machine()).unwrap_err();
            assert_eq!(error.status.as_u16(), 422);
            assert!(error.body.message.contains(expected), "{message}: {}", error.body.message);
        }
        let many = format!(r#"{{"command": [{}]}}"#, vec![r#""x""#; 65].join(","));
        assert!(requested(many.as_bytes(), &machine()).is_err());
    }
}
