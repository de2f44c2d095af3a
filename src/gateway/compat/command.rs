//! `POST /api/command`, which Ogent and RemoteShell both have. The body decides: Ogent names a `machine`, RemoteShell a
//! `device_id`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::gateway::body::{JsonBody, QueryOf};
use crate::gateway::caller::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::routes::commands::Accepted;
use crate::gateway::routes::machines::MachineQuery;
use crate::gateway::state::Gateway;

use super::create_errors::CreateErrors;
use super::ogent::{OgentRequest, OgentResult, ParameterValue};
use super::remote_shell::RemoteRequest;
use super::{ogent, remote_shell};

/// Command of Ogent (`machine`) or of RemoteShell (`device_id`).
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CommandBody {
    /// The command, byte for byte as the `match` of a rule. If `params` is not empty: the name of a rule.
    #[schema(min_length = 1, max_length = 4096, examples("uptime"))]
    command: String,
    /// Ogent: name or UID of the Machine. The answer has the result.
    #[schema(examples("web-1"))]
    machine: Option<String>,
    /// Ogent: values for the parameters of the rule.
    params: Option<BTreeMap<String, ParameterValue>>,
    /// RemoteShell: name or UID of the Machine. The command is queued.
    device_id: Option<String>,
    /// RemoteShell: timeout of the command in seconds, 1 to 86400. Default: the timeout of the rule.
    #[schema(minimum = 1, maximum = 86400)]
    timeout: Option<u32>,
    /// Ignored. The credential decides who the caller is.
    #[serde(rename = "userId")]
    #[schema(value_type = Option<String>)]
    user_id: Option<IgnoredAny>,
}

/// Request of one of the systems.
#[derive(Debug)]
enum Told {
    Ogent(OgentRequest),
    RemoteShell(RemoteRequest),
}

impl CommandBody {
    /// Tells the systems apart.
    ///
    /// # Errors
    /// 422 if the body names no machine, two of them, or has a field of the other system.
    fn told_apart(self) -> Result<Told, ApiError> {
        let Self { command, machine, params, device_id, timeout, user_id } = self;
        match (machine, device_id) {
            (Some(_), Some(_)) => Err(ApiError::malformed("machine and device_id name a Machine: send one of them")),
            (None, None) => Err(ApiError::malformed("machine is missing (or device_id, to queue the command)")),
            (Some(_), None) if timeout.is_some() => Err(ApiError::malformed("timeout needs device_id, not machine")),
            (Some(machine), None) => Ok(Told::Ogent(OgentRequest { command, params, machine, user_id })),
            (None, Some(_)) if params.is_some() => Err(ApiError::malformed("params needs machine, not device_id")),
            (None, Some(device_id)) => Ok(Told::RemoteShell(RemoteRequest { device_id, command, timeout })),
        }
    }
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(compat_command))
}

/// Ogent and RemoteShell: runs a command.
///
/// With `machine`, the call waits for the result as `/api/execute` (Ogent). With `device_id`, it queues the command
/// (RemoteShell).
#[utoipa::path(
    post,
    path = "/api/command",
    tag = "compatibility",
    params(MachineQuery, ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters")),
    request_body = CommandBody,
    responses(
        (status = 200, description = "Ogent: the command ended by itself", body = OgentResult),
        (status = 202, description = "RemoteShell: queued", body = Accepted),
        CreateErrors
    )
)]
async fn compat_command(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<MachineQuery>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<CommandBody>,
) -> Result<Response, ApiError> {
    let namespace = query.namespace.as_deref();
    match body.told_apart()? {
        Told::Ogent(request) => ogent::run(&gateway, &caller, namespace, &headers, request).await,
        Told::RemoteShell(request) => remote_shell::queue(&gateway, &caller, namespace, &headers, request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::body::parse;

    fn told(text: &str) -> Result<Told, ApiError> {
        parse::<CommandBody>(text.as_bytes())?.told_apart()
    }

    #[test]
    fn the_name_of_the_machine_tells_the_systems_apart() {
        let ogent = told(r#"{"command": "uptime", "machine": "web-1", "params": {"a": 1}, "userId": {"x": [1]}}"#);
        let Ok(Told::Ogent(request)) = ogent else { panic!("{ogent:?}") };
        assert_eq!((request.command.as_str(), request.machine.as_str()), ("uptime", "web-1"));
        assert_eq!(request.params.map(|params| params.len()), Some(1));
        let remote = told(r#"{"command": "uptime", "device_id": "web-1", "timeout": 5, "userId": "jane"}"#);
        let Ok(Told::RemoteShell(request)) = remote else { panic!("{remote:?}") };
        assert_eq!((request.device_id.as_str(), request.command.as_str()), ("web-1", "uptime"));
        assert_eq!(request.timeout, Some(5));
    }

    #[test]
    fn a_body_without_one_machine_is_refused_with_the_field() {
        for (text, expected) in [
            (r#"{"command": "uptime"}"#, "machine is missing"),
            (r#"{"command": "uptime", "machine": null, "device_id": null}"#, "machine is missing"),
            (r#"{"command": "uptime", "machine": "a", "device_id": "a"}"#, "machine and device_id"),
            (r#"{"command": "uptime", "machine": "a", "timeout": 5}"#, "timeout"),
            (r#"{"command": "uptime", "device_id": "a", "params": {}}"#, "params"),
            (r#"{"command": "uptime", "machine": "a", "machine": "b"}"#, "duplicate field"),
            (r#"{"command": "uptime", "machine": 5}"#, "machine"),
            (r#"{"machine": "a"}"#, "command"),
            (r#"{"command": "uptime", "machines": ["a"]}"#, "machines"),
            (r#"{"command": "uptime", "machine": "a", "params": {"n": 1.5}}"#, "params.n"),
            (r#"{"command": "uptime", "machine": "a", "params": ["x"]}"#, "params"),
            ("[]", "invalid"),
        ] {
            let error = told(text).unwrap_err();
            assert_eq!(error.status.as_u16(), 422, "{text}");
            assert!(error.body.message.contains(expected), "{text}: {}", error.body.message);
        }
    }
}
