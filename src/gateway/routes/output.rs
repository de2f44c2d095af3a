//! The output of one execution without a stream of messages: poll it, or search it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use kube::ResourceExt as _;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::CommandExecution;
use crate::output::StreamKind;

use super::existing_commands::read;
use super::read_errors::ReadErrors;
use super::streams::OffsetQuery;
use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::grep::{Bounds, Match, Search, compile};
use crate::gateway::names::command_id;
use crate::gateway::outcome::StatusWord;
use crate::gateway::output_source::{OutputSource, SourceRead};
use crate::gateway::path::PathOf;
use crate::gateway::state::Gateway;
use crate::gateway::stream::unfinished_length;

/// Maximum number of bytes of each stream in one answer.
const MAX_POLLED: usize = 64 << 10;
/// Number of bytes that a search reads at once.
const SEARCH_READ: usize = 256 << 10;
/// Deadline of a search.
const SEARCH_DEADLINE: Duration = Duration::from_secs(5);

/// Next part of the output of a command.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OutputView {
    /// Id of the command.
    pub command_id: String,
    /// Standard output from the requested offset on, at most 64 KiB.
    pub stdout: String,
    /// Standard error from the requested offset on, at most 64 KiB.
    pub stderr: String,
    /// Encoding of `stdout`: `utf-8`, or `base64` if these bytes are not UTF-8.
    pub stdout_encoding: &'static str,
    /// Encoding of `stderr`.
    pub stderr_encoding: &'static str,
    /// Offset for the next call.
    pub stdout_offset: u64,
    /// Offset for the next call.
    pub stderr_offset: u64,
    /// True if the command has ended and both offsets are at the end of their streams.
    pub is_finished: bool,
    /// `pending`, `sent`, `executing`, `completed`, `timeout`, `cancelled` or `failed`.
    pub status: &'static str,
    /// Bytes before the new offsets that are missing in this answer.
    pub gaps: Vec<Gap>,
}

/// Missing bytes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
pub struct Gap {
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// Offset of the first missing byte.
    pub offset: u64,
    /// Number of missing bytes.
    pub length: u64,
    /// Cause, as one word.
    pub reason: &'static str,
}

/// Result of a search.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SearchResult {
    /// Lines that match, in the order of the stream.
    pub matches: Vec<Match>,
    /// True if the whole stream was searched, up to its end. False if the command still runs, after 5 s, after `limit`
    /// matches, or if bytes are missing.
    pub is_complete: bool,
    /// Number of searched bytes. A search with `offset` set to the sum of the old offset and this number continues.
    pub searched_bytes: u64,
}

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(read_output))
}

/// Reads the next bytes of the output. Call again with the new offsets until `is_finished` is true.
#[utoipa::path(
    get,
    path = "/api/v1/commands/{id}/output",
    tag = "output",
    params(("id" = String, Path, description = "NAMESPACE:NAME, or the UID"), OffsetQuery),
    responses(
        (status = 200, description = "The bytes from the offsets on", body = OutputView),
        ReadErrors,
        (status = 404, description = "No such command", body = ErrorBody),
    )
)]
async fn read_output(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<OffsetQuery>,
) -> Result<Json<OutputView>, ApiError> {
    let from = query.offsets()?;
    // The status first: if the command has ended then, the bytes that follow are all bytes.
    let execution = read(&gateway, &caller, &id).await?;
    let stdout = Polled::read(&gateway, &execution, StreamKind::Stdout, from.stdout).await?;
    let stderr = Polled::read(&gateway, &execution, StreamKind::Stderr, from.stderr).await?;
    let status = execution.status.as_ref();
    let word = StatusWord::of(execution.phase(), status.and_then(|status| status.reason));
    let is_finished = stdout.is_complete && stderr.is_complete && execution.phase().is_finished();
    Ok(Json(OutputView {
        command_id: command_id(&execution.namespace().unwrap_or_default(), &execution.name_any()),
        stdout: stdout.text,
        stderr: stderr.text,
        stdout_encoding: stdout.encoding,
        stderr_encoding: stderr.encoding,
        stdout_offset: stdout.offset,
        stderr_offset: stderr.offset,
        is_finished,
        status: word.as_str(),
        gaps: [stdout.gaps, stderr.gaps].concat(),
    }))
}

/// Bytes of one stream for an answer.
struct Polled {
    text: String,
    encoding: &'static str,
    offset: u64,
    gaps: Vec<Gap>,
    is_complete: bool,
}

impl Polled {
    async fn read(
        gateway: &Gateway,
        execution: &CommandExecution,
        stream: StreamKind,
        mut offset: u64,
    ) -> Result<Self, ApiError> {
        let source = OutputSource::find(execution, stream)?;
        let (mut bytes, mut gaps, mut is_complete) = (BytesMut::new(), Vec::new(), false);
        while bytes.len() < MAX_POLLED {
            let next = offset + bytes.len() as u64;
            match source.read(gateway, next, MAX_POLLED - bytes.len()).await? {
                SourceRead::Bytes(more) => bytes.extend_from_slice(&more),
                // A gap behind bytes belongs to the next answer, so that the text of an answer has no hole.
                SourceRead::Gap { .. } if !bytes.is_empty() => break,
                SourceRead::Gap { to, reason } => {
                    gaps.push(Gap { stream: stream.as_str(), offset, length: to - offset, reason });
                    offset = to;
                }
                SourceRead::Nothing { is_complete: complete } => {
                    is_complete = complete;
                    break;
                }
            }
        }
        if !is_complete {
            // The rest of the last character comes with the next answer.
            bytes.truncate(bytes.len() - unfinished_length(&bytes));
        }
        let offset = offset + bytes.len() as u64;
        let (text, encoding) = match std::str::from_utf8(&bytes) {
            Ok(text) => (text.to_owned(), "utf-8"),
            Err(_) => (STANDARD.encode(&bytes), "base64"),
        };
        Ok(Self { text, encoding, offset, gaps, is_complete })
    }
}

/// Searches a stream for lines.
pub(super) async fn search(
    gateway: &Gateway,
    source: &OutputSource,
    pattern: &str,
    bounds: Bounds,
    mut offset: u64,
) -> Result<Json<SearchResult>, ApiError> {
    let regex = compile(pattern)?;
    let _permit = gateway.outputs().begin_search().await?;
    let deadline = Instant::now() + SEARCH_DEADLINE;
    let (mut search, mut is_complete, mut has_gap) = (Search::new(regex, bounds, offset), false, false);
    while !search.is_full() && Instant::now() < deadline {
        let Ok(read) = timeout_at(deadline, source.read(gateway, offset, SEARCH_READ)).await else { break };
        match read? {
            SourceRead::Bytes(bytes) => {
                offset += bytes.len() as u64;
                // A search can take long, so it does not run on a thread of the runtime.
                let searched = tokio::task::spawn_blocking(move || {
                    search.push(&bytes, || Instant::now() >= deadline);
                    search
                });
                search = searched.await.map_err(|_| ApiError::internal())?;
            }
            SourceRead::Gap { to, .. } => {
                search.skip_to(to);
                (offset, has_gap) = (to, true);
            }
            SourceRead::Nothing { is_complete: complete } => {
                is_complete = complete;
                break;
            }
        }
    }
    let (matches, searched_bytes) = search.finish();
    Ok(Json(SearchResult { matches, is_complete: is_complete && !has_gap, searched_bytes }))
}
