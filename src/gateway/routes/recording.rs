//! The recording of an interactive session, as a file for players of terminal recordings.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use kube::ResourceExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::CommandExecution;
use crate::api::execution_status::{Encoding, RecordingRecord, StreamRecord};
use crate::output::{OutputKey, Store};

use super::existing_commands::read;
use super::read_errors::ReadErrors;
use crate::gateway::caller::Caller;
use crate::gateway::caller_sockets::CallerPlaces;
use crate::gateway::error::{ApiError, ErrorBody};
use crate::gateway::output_reads::Verdict;
use crate::gateway::path::PathOf;
use crate::gateway::state::Gateway;

/// Maximum number of bytes of one read. A download takes about twice this memory.
const READ_BYTES: usize = 256 << 10;

/// Returns the routes.
pub fn routes() -> OpenApiRouter<Gateway> {
    OpenApiRouter::default().routes(routes!(read_recording))
}

/// Downloads the recording of an interactive session (asciicast v3), after the end of the session.
#[utoipa::path(
    get,
    path = "/api/v1/commands/{id}/recording",
    tag = "output",
    params(("id" = String, Path, description = "NAMESPACE:NAME, or the UID")),
    responses(
        (status = 200, description = "The recording", body = String, content_type = "application/x-asciicast"),
        ReadErrors,
        (status = 404, description = "No such command, or its recording does not exist", body = ErrorBody),
        (status = 409, description = "The command has not ended", body = ErrorBody),
        (status = 410, description = "The output store no longer has the recording", body = ErrorBody),
    )
)]
async fn read_recording(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathOf(id): PathOf<String>,
) -> Result<Response, ApiError> {
    let execution = read(&gateway, &caller, &id).await?;
    let places = gateway.caller_sockets().take(caller.name(), 1)?;
    let record = as_stream(stored_recording(&execution)?);
    let key =
        OutputKey { namespace: execution.namespace().unwrap_or_default(), uid: execution.uid().unwrap_or_default() };
    let store = gateway.store().ok_or_else(|| gone("this gateway has no output store; set --output-store"))?;
    match gateway.outputs().verify(store, &key, &record).await? {
        Verdict::Missing => return Err(gone("the output store does not have it (any more)")),
        Verdict::Damaged => return Err(gone("the output store has other bytes than the record describes")),
        Verdict::Unknown => return Err(unavailable()),
        Verdict::Whole => {}
    }
    let headers = headers(&execution.name_any(), &record);
    let download = Download { store: store.clone(), key, record, next: 0, _places: places };
    Ok((headers, download.into_body().await?).into_response())
}

/// Returns the record of a recording that the store has.
fn stored_recording(execution: &CommandExecution) -> Result<&RecordingRecord, ApiError> {
    let not_found =
        |reason: &str, message: String| ApiError::new(StatusCode::NOT_FOUND, "Recording not found", reason, message);
    let Some(status) = execution.status.as_ref().filter(|status| status.phase.is_finished()) else {
        let message = "the command has not ended; its recording is complete after its end, and \
                       GET /api/v1/commands/{id}/stream shows its output now";
        return Err(ApiError::new(StatusCode::CONFLICT, "Recording not complete", "NotEnded", message));
    };
    let recording = status.output.as_ref().and_then(|output| output.recording.as_ref()).ok_or_else(|| {
        not_found("NoRecording", "the command was no interactive session, so it has no recording".to_owned())
    })?;
    if !recording.stored {
        let why = recording.not_stored.as_deref().unwrap_or("the status has no reason");
        return Err(not_found("RecordingNotStored", format!("the recording was not stored: {why}")));
    }
    Ok(recording)
}

/// Returns the record in the form of the store, which verifies each object by its size and its digest.
fn as_stream(recording: &RecordingRecord) -> StreamRecord {
    StreamRecord {
        bytes: recording.bytes,
        sha256: recording.sha256.clone(),
        truncated: true,
        redacted: false,
        stored: true,
        not_stored: None,
        encoding: Encoding::Utf8,
    }
}

fn headers(name: &str, record: &StreamRecord) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-asciicast"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(u64::try_from(record.bytes).unwrap_or_default()));
    // The API server allows only letters, digits, "-" and "." in a name.
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}.cast\"")).ok();
    let tag = HeaderValue::from_str(&format!("\"{}\"", record.sha256)).ok();
    for (header, value) in [(CONTENT_DISPOSITION, disposition), (ETAG, tag)] {
        if let Some(value) = value {
            headers.insert(header, value);
        }
    }
    headers
}

fn gone(why: &str) -> ApiError {
    let message = format!("the recording is not available: {why}");
    ApiError::new(StatusCode::GONE, "Recording not available", "RecordingNotAvailable", message)
}

fn unavailable() -> ApiError {
    ApiError::unavailable("the output store did not answer; repeat the call")
}

/// A download in progress.
struct Download {
    store: Store,
    key: OutputKey,
    record: StreamRecord,
    next: u64,
    _places: CallerPlaces,
}

impl Download {
    /// Returns the body. Reads the first bytes before, so that an error becomes an answer.
    async fn into_body(mut self) -> Result<Body, ApiError> {
        let first = self.read().await.map_err(|_| unavailable())?;
        let rest = stream::unfold(Some(self), |download| async move {
            let mut download = download?;
            match download.read().await {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => Some((Ok(bytes), Some(download))),
                // The length was announced, so the client notices that the body ends early.
                Err(error) => Some((Err(error), None)),
            }
        });
        let first = stream::once(async { Ok::<Bytes, io::Error>(first) });
        Ok(Body::from_stream(futures::StreamExt::chain(first, rest)))
    }

    /// Reads the next bytes, or none at the end.
    async fn read(&mut self) -> io::Result<Bytes> {
        match self.store.read_at(&self.key, &self.record, self.next, READ_BYTES).await {
            Ok(bytes) => {
                self.next += bytes.len() as u64;
                Ok(bytes)
            }
            Err(error) => {
                tracing::warn!(%error, namespace = self.key.namespace, uid = self.key.uid, "recording not readable");
                Err(io::Error::other("the output store did not answer"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::execution_status::OutputRecord;
    use crate::api::{CommandExecutionSpec, CommandExecutionStatus, Phase};

    fn recording(stored: bool) -> RecordingRecord {
        RecordingRecord {
            bytes: 5,
            sha256: "ab".repeat(32),
            stored,
            not_stored: (!stored).then(|| "the disk was full".to_owned()),
            incomplete: false,
            left_out_bytes: 0,
            records_input: false,
        }
    }

    fn execution(phase: Phase, recording: Option<RecordingRecord>) -> CommandExecution {
        let mut execution = CommandExecution::new("x", CommandExecutionSpec::with_command("sh"));
        let stream = StreamRecord { truncated: false, stored: false, ..as_stream(&self::recording(true)) };
        let output = OutputRecord {
            stdout: stream.clone(),
            stderr: stream,
            incomplete: false,
            incomplete_reason: None,
            held_by: Vec::new(),
            recording,
        };
        execution.status = Some(CommandExecutionStatus { phase, output: Some(output), ..Default::default() });
        execution
    }

    #[test]
    fn recording_that_cannot_be_read_is_refused_with_its_reason() {
        let refused = |phase, recording| {
            let error = stored_recording(&execution(phase, recording)).unwrap_err();
            (error.status, error.body.reason, error.body.message)
        };
        let (status, reason, _) = refused(Phase::Running, Some(recording(true)));
        assert_eq!((status, reason.as_str()), (StatusCode::CONFLICT, "NotEnded"));
        let (status, reason, _) = refused(Phase::Succeeded, None);
        assert_eq!((status, reason.as_str()), (StatusCode::NOT_FOUND, "NoRecording"));
        let (status, reason, message) = refused(Phase::Failed, Some(recording(false)));
        assert_eq!((status, reason.as_str()), (StatusCode::NOT_FOUND, "RecordingNotStored"));
        assert!(message.ends_with("the disk was full"), "{message}");
        let stored = execution(Phase::OutcomeUnknown, Some(recording(true)));
        assert_eq!(stored_recording(&stored).unwrap().bytes, 5);
    }

    #[test]
    fn download_is_a_file_that_no_browser_shows() {
        let headers = headers("run-1", &as_stream(&recording(true)));
        let value = |name: http::HeaderName| headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(value(CONTENT_TYPE), "application/x-asciicast");
        assert_eq!(value(CONTENT_DISPOSITION), "attachment; filename=\"run-1.cast\"");
        assert_eq!((value(CONTENT_LENGTH), value(X_CONTENT_TYPE_OPTIONS)), ("5".to_owned(), "nosniff".to_owned()));
    }

    #[tokio::test]
    async fn body_has_all_bytes_and_ends_early_if_the_store_does() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), []).unwrap();
        let key = OutputKey { namespace: "ops".to_owned(), uid: "u".to_owned() };
        let bytes: Vec<u8> = (0..READ_BYTES * 2 + 9).map(|index| (index % 251) as u8).collect();
        let record = StreamRecord { bytes: bytes.len() as i64, ..as_stream(&recording(true)) };
        std::fs::create_dir_all(folder.path().join("ops/u")).unwrap();
        let file = folder.path().join("ops/u").join(&record.sha256);
        std::fs::write(&file, &bytes).unwrap();
        let body = async || {
            let sockets = crate::gateway::caller_sockets::CallerSockets::default();
            let _places = sockets.take("jane", 1).unwrap();
            let (store, key, record) = (store.clone(), key.clone(), record.clone());
            Download { store, key, record, next: 0, _places }.into_body().await
        };
        let read = axum::body::to_bytes(body().await.unwrap(), usize::MAX).await.unwrap();
        assert!(read == bytes);
        let cut = body().await.unwrap();
        std::fs::write(&file, &bytes[..READ_BYTES]).unwrap();
        assert!(axum::body::to_bytes(cut, usize::MAX).await.is_err());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(body().await.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
