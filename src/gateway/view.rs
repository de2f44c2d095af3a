//! Executions and Machines in the form of the API.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::execution_status::{Encoding, StreamRecord};
use crate::api::{CommandExecution, CommandExecutionStatus};

use super::names::command_id;
use super::outcome::StatusWord;

/// One execution.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CommandView {
    /// Id of the command: `NAMESPACE:NAME`.
    #[schema(examples("ops:run-01jdq8h1v4c3x9z7k2m5n6p8rsx7k2p"))]
    pub command_id: String,
    /// UID of the execution.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the Machine.
    pub machine: String,
    /// The command as requested: text, argument vector joined with blanks, or name of the rule.
    pub command: String,
    /// Action type of the request, or of the rule that allowed it.
    pub action_type: Option<String>,
    /// Requester, as the API server authenticated the caller.
    pub requester: Option<String>,
    /// Reason that the requester gave.
    pub request_reason: Option<String>,
    /// `pending`, `sent`, `executing`, `completed`, `timeout`, `cancelled` or `failed`.
    #[schema(examples("completed"))]
    pub status: String,
    /// Phase in the status of the execution.
    #[schema(examples("Succeeded"))]
    pub phase: String,
    /// Reason in the status of the execution.
    pub reason: Option<String>,
    /// Message in the status of the execution.
    pub message: Option<String>,
    /// Time of the creation (RFC 3339).
    pub created_at: Option<String>,
    /// Time of the claim. Before it, nothing was sent.
    pub sent_at: Option<String>,
    /// Time of the end.
    pub completed_at: Option<String>,
    /// Standard output. If `stdout_truncated` is true, only its head and its tail.
    pub stdout: Option<String>,
    /// Standard error, in the same form.
    pub stderr: Option<String>,
    /// True if `stdout` is not the whole stream. `/output/stdout` has all of it.
    pub stdout_truncated: bool,
    /// True if `stderr` is not the whole stream.
    pub stderr_truncated: bool,
    /// Encoding of `stdout`: `utf-8` or `base64`.
    pub stdout_encoding: &'static str,
    /// Encoding of `stderr`.
    pub stderr_encoding: &'static str,
    /// Exit code. Absent if the machine reported none.
    pub exit_code: Option<i64>,
    /// Signal that ended the command, without `SIG`.
    pub signal: Option<String>,
    /// Duration of the command in seconds.
    pub execution_time: Option<f64>,
    /// Duration of the command in milliseconds.
    pub duration_ms: Option<i64>,
    /// True if the command was an interactive session whose recording was stored. `/recording` has it.
    pub has_recording: bool,
}

/// Result of a command that ended by itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExecuteResult {
    /// Exit code. Absent if a signal ended the command.
    pub exit_code: Option<i64>,
    /// Standard output. If `stdout_truncated` is true, only its head and its tail.
    pub stdout: String,
    /// Standard error, in the same form.
    pub stderr: String,
    /// Duration of the command in milliseconds.
    pub duration_ms: i64,
    /// Signal that ended the command, without `SIG`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Id of the command.
    pub command_id: String,
    /// Phase in the status of the execution.
    pub phase: String,
    /// Reason in the status of the execution.
    pub reason: Option<String>,
    /// True if `stdout` is not the whole stream. `/output/stdout` of the command has all of it.
    pub stdout_truncated: bool,
    /// True if `stderr` is not the whole stream.
    pub stderr_truncated: bool,
    /// Encoding of `stdout`: `utf-8`, or `base64` if the stream is not UTF-8.
    pub stdout_encoding: &'static str,
    /// Encoding of `stderr`.
    pub stderr_encoding: &'static str,
}

impl CommandView {
    /// Returns the view of an execution.
    pub fn of(execution: &CommandExecution) -> Self {
        let status = execution.status.clone().unwrap_or_default();
        let (namespace, spec) = (execution.namespace().unwrap_or_default(), &execution.spec);
        let decided = status.decision.as_ref().map(|decision| decision.action_type.clone());
        let created = execution.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let (stdout, stderr) = streams(&status);
        let recording = status.output.as_ref().and_then(|output| output.recording.as_ref());
        let has_recording = recording.is_some_and(|recording| recording.stored);
        Self {
            command_id: command_id(&namespace, &execution.name_any()),
            uid: execution.uid().unwrap_or_default(),
            namespace,
            machine: spec.machine_ref.name.clone(),
            command: requested_command(execution),
            action_type: spec.action_type.clone().or(decided),
            requester: spec.requested_by.as_ref().map(|requester| requester.username.clone()),
            request_reason: spec.reason.clone(),
            status: StatusWord::of(status.phase, status.reason).as_str().to_owned(),
            phase: status.phase.as_str().to_owned(),
            reason: status.reason.map(|reason| format!("{reason:?}")),
            created_at: created.map(time),
            sent_at: status.claim.as_ref().map(|claim| micro_time(&claim.dispatched_time)),
            completed_at: status.completion_time.as_ref().map(micro_time),
            stdout_truncated: stdout.is_truncated,
            stderr_truncated: stderr.is_truncated,
            stdout_encoding: stdout.encoding,
            stderr_encoding: stderr.encoding,
            exit_code: status.exit_code,
            execution_time: status.duration_ms.map(seconds),
            duration_ms: status.duration_ms,
            has_recording,
            message: status.message,
            stdout: status.stdout,
            stderr: status.stderr,
            signal: status.signal,
        }
    }
}

impl ExecuteResult {
    /// Returns the result of an execution that ended by itself.
    pub fn of(execution: &CommandExecution) -> Self {
        let view = CommandView::of(execution);
        Self {
            exit_code: view.exit_code,
            stdout: view.stdout.unwrap_or_default(),
            stderr: view.stderr.unwrap_or_default(),
            duration_ms: view.duration_ms.unwrap_or_default(),
            signal: view.signal,
            command_id: view.command_id,
            phase: view.phase,
            reason: view.reason,
            stdout_truncated: view.stdout_truncated,
            stderr_truncated: view.stderr_truncated,
            stdout_encoding: view.stdout_encoding,
            stderr_encoding: view.stderr_encoding,
        }
    }
}

/// Returns the command of a request as text.
pub fn requested_command(execution: &CommandExecution) -> String {
    let spec = &execution.spec;
    let argv = || spec.argv.as_ref().map(|argv| argv.join(" "));
    let rule = || spec.rule.as_ref().map(|rule| rule.name.clone());
    spec.command.clone().or_else(argv).or_else(rule).unwrap_or_default()
}

/// Returns a time as RFC 3339 with milliseconds.
pub fn time(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn micro_time(time_: &MicroTime) -> String {
    time(time_.0)
}

/// Returns milliseconds as seconds.
pub fn seconds(milliseconds: i64) -> f64 {
    // Durations are far below 2^53, so the conversion is exact.
    #[expect(clippy::cast_precision_loss, reason = "durations are below 2^53 milliseconds")]
    let milliseconds = milliseconds as f64;
    milliseconds / 1000.0
}

struct StreamView {
    is_truncated: bool,
    encoding: &'static str,
}

fn streams(status: &CommandExecutionStatus) -> (StreamView, StreamView) {
    let view = |record: Option<&StreamRecord>| StreamView {
        is_truncated: record.is_some_and(|record| record.truncated),
        encoding: match record.map(|record| record.encoding) {
            Some(Encoding::Base64) => "base64",
            _ => "utf-8",
        },
    };
    let output = status.output.as_ref();
    (view(output.map(|output| &output.stdout)), view(output.map(|output| &output.stderr)))
}
