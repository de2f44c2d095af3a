//! One stream of an execution as raw bytes, and searches in it.

use std::io;
use std::ops::Range;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use kube::ResourceExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::CommandExecution;
use crate::output::StreamKind;

use super::existing_commands::read;
use super::output::{SearchResult, search};
use super::read_errors::ReadErrors;
use crate::gateway::attachment::attachment;
use crate::gateway::body::QueryOf;
use crate::gateway::caller::Caller;
use crate::gateway::caller_sockets::CallerPlaces;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::output_source::{OutputSource, SourceRead};
use crate::gateway::path::PathOf;
use crate::gateway::range::{Selection, select};
use crate::gateway::raw_query::RawQuery;
use crate::gateway::state::Gateway;

/// Maximum number of bytes of one read. A download takes about twice this memory.
const READ_BYTES: usize = 256 << 10;
/// Header of a download: `true` if the command has ended, so that the stream no longer grows.
const COMPLETE_HEADER: HeaderName = HeaderName::from_static("writ-output-complete");

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(read_stdout)).routes(routes!(read_stderr))
}

/// Reads standard output as bytes, or searches it.
///
/// While the command runs, the answer has the bytes so far. A single `Range` is possible.
#[utoipa::path(
    get,
    path = "/api/v1/commands/{id}/output/stdout",
    tag = "output",
    params(
        ("id" = String, Path, description = "NAMESPACE:NAME, or the UID"),
        RawQuery,
        ("Range" = Option<String>, Header, description = "bytes=FIRST-LAST"),
    ),
    responses(
        (status = 200, description = "The bytes, or with grep a SearchResult", content(
            (Vec<u8> = "application/octet-stream"), (SearchResult = "application/json"))),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream"),
        ReadErrors,
        (status = 404, description = "No such command", body = ErrorBody),
        (status = 410, description = "Bytes of the range are not available", body = ErrorBody),
        (status = 416, description = "The stream has no byte in the range", body = ErrorBody),
    )
)]
async fn read_stdout(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<RawQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    answer(&gateway, &caller, &id, StreamKind::Stdout, &query, &headers).await
}

/// Reads standard error as bytes, or searches it.
///
/// While the command runs, the answer has the bytes so far. A single `Range` is possible.
#[utoipa::path(
    get,
    path = "/api/v1/commands/{id}/output/stderr",
    tag = "output",
    params(
        ("id" = String, Path, description = "NAMESPACE:NAME, or the UID"),
        RawQuery,
        ("Range" = Option<String>, Header, description = "bytes=FIRST-LAST"),
    ),
    responses(
        (status = 200, description = "The bytes, or with grep a SearchResult", content(
            (Vec<u8> = "application/octet-stream"), (SearchResult = "application/json"))),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream"),
        ReadErrors,
        (status = 404, description = "No such command", body = ErrorBody),
        (status = 410, description = "Bytes of the range are not available", body = ErrorBody),
        (status = 416, description = "The stream has no byte in the range", body = ErrorBody),
    )
)]
async fn read_stderr(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<RawQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    answer(&gateway, &caller, &id, StreamKind::Stderr, &query, &headers).await
}

async fn answer(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
    stream: StreamKind,
    query: &RawQuery,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    query.bounds()?;
    let execution = read(gateway, caller, id).await?;
    serve(gateway, caller, &execution, stream, query, headers).await
}

/// Returns the bytes of a stream, or the result of a search in it. The caller may read the execution.
///
/// # Errors
/// 410 if bytes are not available, 416 if the stream has no byte in the range, 429 if the caller has too many
/// downloads.
pub async fn serve(
    gateway: &Gateway,
    caller: &Caller,
    execution: &CommandExecution,
    stream: StreamKind,
    query: &RawQuery,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let bounds = query.bounds()?;
    let places = gateway.caller_sockets().take(caller.name(), 1)?;
    let source = OutputSource::find(execution, stream)?;
    if let Some(pattern) = &query.grep {
        let result: Json<SearchResult> =
            search(gateway, &source, pattern, bounds, query.offset.unwrap_or_default()).await?;
        return Ok(result.into_response());
    }
    let (length, tag) = (source.length(gateway), entity_tag(execution, stream));
    let range = headers.get(RANGE).filter(|_| is_range_wanted(headers, tag.as_ref()));
    let selection = select(range.and_then(|range| range.to_str().ok()), length);
    let total = if source.has_ended() { length.to_string() } else { "*".to_owned() };
    let (status, part) = match selection {
        Selection::Whole => (StatusCode::OK, 0..length),
        Selection::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Selection::Nothing => return Ok(not_satisfiable(length)),
    };
    let has_ended = source.has_ended();
    let download = Download { gateway: gateway.clone(), source, next: part.start, end: part.end, _places: places };
    let mut response = (status, download.into_body().await?).into_response();
    set_headers(response.headers_mut(), &part, status, &total);
    let complete = HeaderValue::from_static(if has_ended { "true" } else { "false" });
    let disposition = attachment(&execution.name_any(), stream.as_str());
    for (header, value) in [(CONTENT_DISPOSITION, Some(disposition)), (ETAG, tag), (COMPLETE_HEADER, Some(complete))] {
        if let Some(value) = value {
            response.headers_mut().insert(header, value);
        }
    }
    Ok(response)
}

fn set_headers(headers: &mut HeaderMap, part: &Range<u64>, status: StatusCode, total: &str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    let range = format!("bytes {}-{}/{total}", part.start, part.end.saturating_sub(1));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = HeaderValue::from_str(&range)
    {
        headers.insert(CONTENT_RANGE, range);
    }
}

/// Returns the tag of a recorded stream: its digest. A running stream has none.
fn entity_tag(execution: &CommandExecution, stream: StreamKind) -> Option<HeaderValue> {
    let status = execution.status.as_ref().filter(|status| status.phase.is_finished())?;
    let output = status.output.as_ref()?;
    let record = match stream {
        StreamKind::Stdout => &output.stdout,
        StreamKind::Stderr => &output.stderr,
    };
    HeaderValue::from_str(&format!("\"{}\"", record.sha256)).ok()
}

/// Returns false if the client wants the range of another version of the stream only.
fn is_range_wanted(headers: &HeaderMap, tag: Option<&HeaderValue>) -> bool {
    headers.get(IF_RANGE).is_none_or(|condition| Some(condition) == tag)
}

fn not_satisfiable(length: u64) -> Response {
    let message = format!("the stream has {length} bytes, and none of them is in the range");
    let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable", "NoSuchRange", message);
    ([(ACCEPT_RANGES, "bytes".to_owned()), (CONTENT_RANGE, format!("bytes */{length}"))], error).into_response()
}

/// A download in progress.
struct Download {
    gateway: Gateway,
    source: OutputSource,
    next: u64,
    end: u64,
    _places: CallerPlaces,
}

impl Download {
    /// Returns the body. Reads the first bytes before, so that an error becomes an answer.
    async fn into_body(mut self) -> Result<Body, ApiError> {
        if self.next >= self.end {
            return Ok(Body::empty());
        }
        let first = match self.read().await? {
            SourceRead::Bytes(bytes) => bytes,
            other => return Err(not_available(&other, self.next)),
        };
        let rest = stream::unfold(self, |mut download| async move {
            if download.next >= download.end {
                return None;
            }
            let part = match download.read().await {
                Ok(SourceRead::Bytes(bytes)) => Ok(bytes),
                // The length was announced, so the client notices that the body ends early.
                Ok(other) => Err(io::Error::other(not_available(&other, download.next).body.message)),
                Err(error) => Err(io::Error::other(error.body.message)),
            };
            if part.is_err() {
                download.next = download.end;
            }
            Some((part, download))
        });
        let first = stream::once(async { Ok::<Bytes, io::Error>(first) });
        Ok(Body::from_stream(futures::StreamExt::chain(first, rest)))
    }

    async fn read(&mut self) -> Result<SourceRead, ApiError> {
        let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
        let read = self.source.read(&self.gateway, self.next, left.min(READ_BYTES)).await?;
        if let SourceRead::Bytes(bytes) = &read {
            self.next += bytes.len() as u64;
        }
        Ok(read)
    }
}

/// Returns the error for bytes that are not available.
fn not_available(read: &SourceRead, offset: u64) -> ApiError {
    let message = match read {
        SourceRead::Gap { to, reason } => format!(
            "the bytes {offset} to {} are not available ({reason}); GET /api/v1/commands/{{id}}/output has the others, \
             or select them with the header Range",
            to.saturating_sub(1)
        ),
        _ => format!("the stream no longer has a byte {offset}"),
    };
    ApiError::new(StatusCode::GONE, "Output not available", "OutputNotAvailable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_counts_only_for_the_version_that_the_client_has() {
        let tag = HeaderValue::from_static("\"abc\"");
        let mut headers = HeaderMap::new();
        assert!(is_range_wanted(&headers, Some(&tag)) && is_range_wanted(&headers, None));
        headers.insert(IF_RANGE, tag.clone());
        assert!(is_range_wanted(&headers, Some(&tag)) && !is_range_wanted(&headers, None));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"other\""));
        assert!(!is_range_wanted(&headers, Some(&tag)));
    }

    #[test]
    fn a_part_is_announced_with_its_place_and_length() {
        let mut headers = HeaderMap::new();
        set_headers(&mut headers, &(3..10), StatusCode::PARTIAL_CONTENT, "*");
        assert_eq!(headers.get(CONTENT_RANGE).unwrap(), "bytes 3-9/*");
        assert_eq!(headers.get(CONTENT_LENGTH).unwrap(), "7");
        let response = not_satisfiable(5);
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers().get(CONTENT_RANGE).unwrap(), "bytes */5");
    }
}
