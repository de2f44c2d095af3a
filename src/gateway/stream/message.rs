//! Messages of the streams, as JSON. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::gateway::error::ApiError;
use crate::output::{EndedStatus, Progress, StreamKind};

use super::text::Piece;

/// Maximum size of the text of one message as JSON, in bytes. A message then has at most 64 KiB.
const MAX_JSON: usize = 60 << 10;

/// Form of the messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// For the caller that runs the command: the last message has the exit code, or is an error.
    Run,
    /// For the client of an interactive execution: output comes as binary frames. The last message has the exit code, or
    /// is an error.
    Exec,
    /// For viewers of any execution: each message also has `executionId`, `output` and `status`.
    Watch,
}

/// Messages about one execution.
#[derive(Clone, Debug)]
pub struct Messages {
    form: Form,
    command_id: String,
}

/// A message. Fields without a value are left out.
#[derive(Debug, Default, Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_replay: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'a str>,
    #[serde(flatten)]
    watched: Option<Watched<'a>>,
    #[serde(flatten)]
    end: Option<End>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Text(&'a str),
    Progress { percent: Option<u8>, label: &'a str },
    ExitCode(Option<i64>),
}

/// Fields of each message to viewers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Watched<'a> {
    execution_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
    status: &'static str,
}

/// Fields of the last message to viewers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct End {
    exit_code: Option<i64>,
    exec_time: Option<i64>,
}

/// Last message to the client of an interactive execution.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecEnd<'a> {
    exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'a str>,
}

impl Messages {
    /// Returns the messages about the command `command_id`.
    pub fn new(form: Form, command_id: String) -> Self {
        Self { form, command_id }
    }

    /// Returns the form of the messages.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns the maximum size of a text in one message as JSON, in bytes.
    pub fn max_json(&self) -> usize {
        match self.form {
            Form::Run | Form::Exec => MAX_JSON,
            // Viewers receive each text twice.
            Form::Watch => MAX_JSON / 2,
        }
    }

    /// Returns the first message, which names the execution.
    pub fn execution(&self, is_replay: bool) -> String {
        let is_replay = is_replay.then_some(true);
        self.running(
            Message { kind: "execution", command_id: Some(&self.command_id), is_replay, ..Message::default() },
            "",
        )
    }

    /// Returns a message with bytes of a stream.
    pub fn output(&self, stream: StreamKind, offset: u64, piece: &Piece) -> String {
        let message = Message { kind: stream.as_str(), offset: Some(offset), ..Message::default() };
        match piece {
            Piece::Text(text) => self.running(Message { data: Some(Data::Text(text)), ..message }, text),
            Piece::Other(bytes) => {
                let data_base64 = Some(STANDARD.encode(bytes));
                self.running(Message { data_base64, ..message }, &String::from_utf8_lossy(bytes))
            }
        }
    }

    /// Returns a message about bytes that are missing.
    pub fn gap(&self, stream: StreamKind, offset: u64, length: u64, reason: &str) -> String {
        let (stream, reason) = (Some(stream.as_str()), Some(reason));
        let (offset, length) = (Some(offset), Some(length));
        self.running(Message { kind: "gap", stream, offset, length, reason, ..Message::default() }, "")
    }

    /// Returns a message with the progress of the command.
    pub fn progress(&self, progress: &Progress) -> String {
        let data = Some(Data::Progress { percent: progress.percent, label: &progress.label });
        self.running(Message { kind: "progress", data, ..Message::default() }, "")
    }

    /// Returns a message which means that both streams start again at offset 0.
    pub fn restarted(&self) -> String {
        self.running(Message { kind: "restarted", ..Message::default() }, "")
    }

    /// Returns the last message to the caller whose command ended by itself.
    pub fn exit(&self, exit_code: Option<i64>, signal: Option<&str>) -> String {
        if self.form == Form::Exec {
            return to_json(&ExecEnd { exit_code, signal });
        }
        let data = Some(Data::ExitCode(exit_code));
        to_json(&Message { kind: "exit", data, signal, ..Message::default() })
    }

    /// Returns the last message to viewers. `message` is the message of the status.
    pub fn end(&self, ended: &EndedStatus, message: Option<&str>, signal: Option<&str>) -> String {
        let reason = ended.reason.map(|reason| format!("{reason:?}"));
        let watched = Watched { execution_id: &self.command_id, output: None, status: "completed" };
        to_json(&Message {
            kind: "end",
            phase: Some(ended.phase.as_str()),
            reason: reason.as_deref(),
            message,
            signal,
            watched: Some(watched),
            end: Some(End { exit_code: ended.exit_code, exec_time: ended.duration_ms }),
            ..Message::default()
        })
    }

    fn running<'a>(&'a self, message: Message<'a>, output: &'a str) -> String {
        let watched = Watched { execution_id: &self.command_id, output: Some(output), status: "running" };
        to_json(&Message { watched: (self.form == Form::Watch).then_some(watched), ..message })
    }
}

/// Returns an error as the last message of a stream.
pub fn error(error: &ApiError) -> String {
    to_json(&error.body)
}

/// Returns a value as JSON. The values of this module are texts and numbers, for which this cannot fail.
pub fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{Phase, Reason};

    fn of(form: Form) -> Messages {
        Messages::new(form, "ops:run-1".to_owned())
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn ended(phase: Phase, reason: Option<Reason>, exit_code: Option<i64>) -> EndedStatus {
        EndedStatus { phase, reason, exit_code, duration_ms: exit_code.map(|_| 12) }
    }

    #[test]
    fn the_caller_receives_the_documented_messages() {
        let messages = of(Form::Run);
        for (text, expected) in [
            (messages.execution(false), json!({"type": "execution", "command_id": "ops:run-1"})),
            (messages.execution(true), json!({"type": "execution", "command_id": "ops:run-1", "is_replay": true})),
            (
                messages.output(StreamKind::Stdout, 7, &Piece::Text("a\n".to_owned())),
                json!({"type": "stdout", "data": "a\n", "offset": 7}),
            ),
            (
                messages.output(StreamKind::Stderr, 0, &Piece::Other(Bytes::from_static(b"\xff\x00"))),
                json!({"type": "stderr", "data_base64": "/wA=", "offset": 0}),
            ),
            (
                messages.progress(&Progress { percent: Some(40), label: "copy".to_owned() }),
                json!({"type": "progress", "data": {"percent": 40, "label": "copy"}}),
            ),
            (
                messages.progress(&Progress::default()),
                json!({"type": "progress", "data": {"percent": null, "label": ""}}),
            ),
            (
                messages.gap(StreamKind::Stdout, 5, 10, "memory"),
                json!({"type": "gap", "stream": "stdout", "offset": 5, "length": 10, "reason": "memory"}),
            ),
            (messages.restarted(), json!({"type": "restarted"})),
            (messages.exit(Some(0), None), json!({"type": "exit", "data": 0})),
            (messages.exit(None, Some("KILL")), json!({"type": "exit", "data": null, "signal": "KILL"})),
        ] {
            assert_eq!(parsed(&text), expected);
        }
    }

    #[test]
    fn viewers_also_receive_the_fields_of_earlier_systems() {
        let messages = of(Form::Watch);
        for (text, expected) in [
            (
                messages.output(StreamKind::Stdout, 7, &Piece::Text("a\n".to_owned())),
                json!({"type": "stdout", "data": "a\n", "offset": 7, "executionId": "ops:run-1", "output": "a\n",
                    "status": "running"}),
            ),
            (
                messages.output(StreamKind::Stdout, 7, &Piece::Other(Bytes::from_static(b"\xffa"))),
                json!({"type": "stdout", "data_base64": "/2E=", "offset": 7, "executionId": "ops:run-1",
                    "output": "\u{fffd}a", "status": "running"}),
            ),
            (
                messages.end(&ended(Phase::Succeeded, None, Some(0)), None, None),
                json!({"type": "end", "executionId": "ops:run-1", "status": "completed", "exitCode": 0,
                    "execTime": 12, "phase": "Succeeded"}),
            ),
            (
                messages.end(&ended(Phase::Rejected, Some(Reason::NoMatchingRule), None), Some("no"), None),
                json!({"type": "end", "executionId": "ops:run-1", "status": "completed", "exitCode": null,
                    "execTime": null, "phase": "Rejected", "reason": "NoMatchingRule", "message": "no"}),
            ),
        ] {
            assert_eq!(parsed(&text), expected);
        }
    }

    #[test]
    fn the_last_message_of_a_session_is_the_exit_code() {
        let messages = of(Form::Exec);
        assert_eq!(parsed(&messages.exit(Some(3), None)), json!({"exitCode": 3}));
        assert_eq!(parsed(&messages.exit(None, Some("HUP"))), json!({"exitCode": null, "signal": "HUP"}));
    }

    #[test]
    fn a_message_has_at_most_64_kib() {
        for form in [Form::Run, Form::Watch] {
            let messages = of(form);
            let longest = ["\u{1}", "\"", "a", "\u{1f600}"].map(|one| one.repeat(64 << 10));
            for whole in longest.iter().map(String::as_bytes).chain([&[0xff; 64 << 10][..], &[0x1, 0xff].repeat(9999)])
            {
                let mut bytes = Bytes::copy_from_slice(whole);
                while !bytes.is_empty() {
                    let piece = super::super::text::take_piece(&mut bytes, messages.max_json());
                    let text = messages.output(StreamKind::Stdout, u64::MAX, &piece);
                    assert!(text.len() <= 64 << 10, "{form:?}: {}", text.len());
                }
            }
        }
    }

    #[test]
    fn an_error_is_an_object_with_error_reason_and_message() {
        let text = error(&ApiError::malformed("command must not be empty").about("ops", "run-1"));
        assert_eq!(
            parsed(&text),
            json!({"error": "Malformed request", "reason": "Malformed", "message": "command must not be empty",
                "execution": "ops/run-1"})
        );
    }
}
