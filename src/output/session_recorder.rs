//! Records one interactive session, with the clock of this process, and stores its recording.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::execution_status::RecordingRecord;
use crate::policy::Redaction;

use super::StreamKind;
use super::input_redactor::InputRedactor;
use super::recording::{MAX_RECORDING_BYTES, Recording, SessionHeader};
use super::recording_upload::{PIECE_BYTES, RecordingUpload};

/// Reason in the record of a session without a store.
const NO_STORE: &str = "writ serve has no output store; set --output-store to keep recordings";

/// Recorder of one interactive session.
pub(super) struct SessionRecorder {
    recording: Recording,
    /// `None` if the recording has no bytes of the input.
    input: Option<InputRedactor>,
    started: Instant,
    exit_code: Option<u32>,
    /// `None` if there is no store.
    upload: Option<RecordingUpload>,
}

impl SessionRecorder {
    /// Starts a recording. Its time starts now.
    pub fn new(header: &SessionHeader, redaction: &Redaction, upload: Option<RecordingUpload>) -> Self {
        Self {
            recording: Recording::new(header, MAX_RECORDING_BYTES),
            input: header.records_input.then(|| InputRedactor::new(redaction)),
            started: Instant::now(),
            exit_code: None,
            upload,
        }
    }

    /// Records redacted output. Call [`Self::flush`] afterwards.
    pub fn output(&mut self, kind: StreamKind, redacted: &[u8]) {
        self.recording.output(self.elapsed(), kind, redacted);
    }

    /// Records an input, as it is.
    pub async fn input(&mut self, bytes: &[u8]) {
        let at = self.elapsed();
        match &mut self.input {
            Some(redactor) => self.recording.input(at, &redactor.push(bytes)),
            None => self.recording.input_size(at, bytes.len()),
        }
        self.flush().await;
    }

    /// Records the new size of the terminal.
    pub async fn resized(&mut self, columns: u16, rows: u16) {
        self.recording.resized(self.elapsed(), columns, rows);
        self.flush().await;
    }

    /// Sets the exit code for the end of the recording.
    pub fn ended(&mut self, exit_code: Option<u32>) {
        self.exit_code = exit_code;
    }

    /// Sends the lines to the store if they are many. Waits if the store is slow.
    pub async fn flush(&mut self) {
        if self.recording.waiting() >= PIECE_BYTES {
            let lines = self.recording.take();
            if let Some(upload) = &mut self.upload {
                upload.push(&lines).await;
            }
        }
    }

    /// Ends the recording and stores it. Waits for the store, at most 60 s, and at most 2 s after `shutdown` is ready.
    pub async fn finish(mut self, shutdown: impl Future<Output = ()>) -> RecordingRecord {
        let at = self.elapsed();
        if let Some(redactor) = &mut self.input {
            self.recording.input(at, &redactor.finish());
        }
        self.recording.end(at, self.exit_code);
        let rest = self.recording.take();
        let summary = self.recording.summary();
        let not_stored = match self.upload {
            Some(upload) => {
                upload.finish(&rest, &summary.sha256, shutdown).await.err().map(|problem| problem.to_string())
            }
            None => Some(NO_STORE.to_owned()),
        };
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        RecordingRecord {
            bytes: number(summary.bytes),
            sha256: summary.sha256,
            stored: not_stored.is_none(),
            not_stored,
            incomplete: summary.is_incomplete,
            left_out_bytes: number(summary.left_out_bytes),
            records_input: self.input.is_some(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Hides the input that waits for the end of its line.
impl std::fmt::Debug for SessionRecorder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SessionRecorder").field("recording", &self.recording).finish_non_exhaustive()
    }
}
