//! The socket of an interactive execution: output to the client, input and sizes of the terminal from it.

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::SplitStream;
use serde::Deserialize;
use tokio::time::timeout;

use crate::gateway::body::parse;
use crate::gateway::caller_sockets::CallerSocket;
use crate::gateway::error::ApiError;
use crate::interactive::{ClientInput, InteractiveClient};

use super::execution_feed::ExecutionFeed;
use super::message::error;
use super::pump::{Closing, MessageSink as _, pump};
use super::websocket::{CLOSE_DEADLINE, Connection, Conversation, SILENCE_DEADLINE, drain};

/// Maximum number of columns and of rows of a terminal, as `spec.session`.
const MAX_TERMINAL_SIZE: u16 = 1000;

/// An interactive execution and its client. The command ends when this value is dropped.
pub struct ExecConversation {
    /// Output of the execution.
    pub feed: ExecutionFeed,
    /// Input of the client.
    pub client: InteractiveClient,
}

/// Message of a client, apart from input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    resize: Option<Resize>,
    #[serde(rename = "type")]
    kind: Option<ControlKind>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    cols: u16,
    rows: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ControlKind {
    StdinEof,
}

impl Conversation for ExecConversation {
    /// Ends when the command has ended, or when the client is gone. If the client takes no output, its input waits, and
    /// an unanswered ping ends the exchange.
    async fn hold(self, connection: Connection, mut socket: CallerSocket) {
        let Self { mut feed, client } = self;
        let Connection { mut sink, mut frames } = connection;
        let malformed = tokio::select! {
            () = pump(&mut feed, &mut sink, socket.ending()) => None,
            malformed = pass_inputs(&mut frames, &client) => match malformed {
                Some(malformed) => Some(malformed),
                None => return,
            },
        };
        // The command ends now, and not only when the client has closed its side.
        drop((feed, client));
        if let Some(malformed) = malformed
            && sink.message(error(&malformed)).await.is_ok()
        {
            sink.close(Closing::for_status(malformed.status)).await;
        }
        let _ = timeout(CLOSE_DEADLINE, drain(&mut frames)).await;
    }
}

/// Passes the input of the client until the client is gone. Returns the error for a message that it may not send.
async fn pass_inputs(frames: &mut SplitStream<WebSocket>, client: &InteractiveClient) -> Option<ApiError> {
    loop {
        let Ok(Some(Ok(frame))) = timeout(SILENCE_DEADLINE, frames.next()).await else { return None };
        let input = match frame {
            Message::Binary(bytes) if bytes.is_empty() => continue,
            Message::Binary(bytes) => ClientInput::Bytes(bytes),
            Message::Text(text) => match control(&Bytes::from(text)) {
                Ok(input) => input,
                Err(malformed) => return Some(malformed),
            },
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => {
                // The next read sends the answer to the close frame.
                let _ = timeout(CLOSE_DEADLINE, frames.next()).await;
                return None;
            }
        };
        if client.send(input).await.is_err() {
            // The command has ended. The feed has the end.
            drain(frames).await;
            return None;
        }
    }
}

/// Parses a message of a client.
fn control(text: &[u8]) -> Result<ClientInput, ApiError> {
    let usage = r#"a text message must be {"resize":{"cols":80,"rows":24}} or {"type":"stdin_eof"}; input is binary"#;
    match parse::<Control>(text) {
        Ok(Control { resize: Some(Resize { cols, rows }), kind: None }) => {
            check_size("resize.cols", cols)?;
            check_size("resize.rows", rows)?;
            Ok(ClientInput::Resize { columns: cols, rows })
        }
        Ok(Control { resize: None, kind: Some(ControlKind::StdinEof) }) => Ok(ClientInput::EndOfInput),
        Ok(_) => Err(ApiError::malformed(usage)),
        Err(error) => Err(ApiError::malformed(format!("{}; {usage}", error.body.message))),
    }
}

/// Checks a number of columns or rows.
///
/// # Errors
/// The number is 0 or too large.
pub fn check_size(field: &str, size: u16) -> Result<(), ApiError> {
    if (1..=MAX_TERMINAL_SIZE).contains(&size) {
        return Ok(());
    }
    Err(ApiError::malformed(format!("{field} must be 1 to {MAX_TERMINAL_SIZE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_are_a_size_or_the_end_of_input() {
        let resize = control(br#"{"resize":{"cols":120,"rows":40}}"#).unwrap();
        assert_eq!(resize, ClientInput::Resize { columns: 120, rows: 40 });
        assert_eq!(control(br#"{"type":"stdin_eof"}"#).unwrap(), ClientInput::EndOfInput);
        for text in [
            "",
            "ls",
            "{}",
            r#"{"type":"stdin"}"#,
            r#"{"resize":{"cols":0,"rows":1}}"#,
            r#"{"resize":{"cols":1,"rows":1001}}"#,
            r#"{"resize":{"cols":70000,"rows":1}}"#,
            r#"{"resize":{"cols":1,"rows":1},"type":"stdin_eof"}"#,
            r#"{"resize":{"cols":1}}"#,
        ] {
            assert_eq!(control(text.as_bytes()).unwrap_err().status.as_u16(), 422, "{text}");
        }
    }
}
