//! Records both streams of one command, from the first byte to the record in the status.
//!
//! # Guarantees
//!
//! 1. Only redacted bytes leave this module: for the record, for viewers, for spill files and for the store.
//! 2. Short output needs no task, no file and no call to the store.
//! 3. The record has text, size and digest, even if the store or the disk fails.
//! 4. A recorder that is dropped before it has finished leaves nothing in the store. Viewers stay connected, and
//!    receive the streams of the next recorder from the first byte.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use crate::api::execution_status::{RecordingRecord, StreamRecord};
use crate::policy::Redaction;

use super::capture::Capture;
use super::live::{LiveClaim, Publisher, Room};
use super::recording::SessionHeader;
use super::recording_upload::RecordingUpload;
use super::session_recorder::SessionRecorder;
use super::store::Store;
use super::upload::{Digests, Upload, UploadTimeouts};
use super::{PerStream, StreamKind};

/// Maximum size of a piece of output, in bytes. After each piece, the recorder waits until memory has space for more
/// output.
const PIECE_BYTES: usize = 64 << 10;
/// Maximum time for which one command waits for the disk of the spill files, in all waits together. After this time,
/// the disk counts as too slow. A short pause of the spill thread must not count as a slow disk.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// Text and record of both streams of one command.
#[derive(Clone, Debug)]
pub struct CapturedOutput {
    /// Text of standard output for the status.
    pub stdout: String,
    /// Text of standard error for the status.
    pub stderr: String,
    /// Record of the whole standard output.
    pub stdout_record: StreamRecord,
    /// Record of the whole standard error.
    pub stderr_record: StreamRecord,
    /// Record of the recording. `None` if the command was no interactive session.
    pub recording: Option<RecordingRecord>,
}

/// Recorder of the output of one command.
#[derive(Debug)]
pub struct Recorder {
    captures: PerStream<Capture>,
    live: Publisher,
    /// `None` if there is no store.
    upload: Option<Upload>,
    /// `None` if the command is no interactive session.
    session: Option<Box<SessionRecorder>>,
    redaction: Redaction,
    /// Remaining part of [`DISK_PATIENCE`].
    disk_patience: Duration,
}

impl Recorder {
    /// Creates the recorder of a claimed command. The status shows at most `inline_bytes` of each stream, up to
    /// [`MAXIMUM_INLINE_BYTES`](super::MAXIMUM_INLINE_BYTES). If the claim had an earlier recorder, the new streams
    /// replace its streams.
    pub fn new(claim: &LiveClaim, inline_bytes: usize, redaction: &Redaction, store: Option<Store>) -> Self {
        Self::with_timeouts(claim, inline_bytes, redaction, store, UploadTimeouts::default())
    }

    fn with_timeouts(
        claim: &LiveClaim,
        inline_bytes: usize,
        redaction: &Redaction,
        store: Option<Store>,
        timeouts: UploadTimeouts,
    ) -> Self {
        Self {
            captures: PerStream {
                stdout: Capture::new(inline_bytes, redaction),
                stderr: Capture::new(inline_bytes, redaction),
            },
            live: claim.publish(store.is_some()),
            upload: store.map(|store| Upload::new(store, claim.key().clone(), timeouts)),
            session: None,
            redaction: redaction.clone(),
            disk_patience: DISK_PATIENCE,
        }
    }

    /// Records the command as an interactive session. The recording has all output from now on, redacted, so call this
    /// function before the first [`Self::push`]. Its time starts now. A second call starts a new recording.
    ///
    /// The recording is stored next to the streams, also if the status shows the whole output.
    pub fn record_session(&mut self, header: SessionHeader) {
        let target = self.upload.as_ref().map(Upload::target);
        let upload = target.map(|(store, key, timeouts)| RecordingUpload::new(store, key, timeouts));
        self.session = Some(Box::new(SessionRecorder::new(&header, &self.redaction, upload)));
    }

    /// Records an input of the session: its time and size, and its bytes only if the header says so. Without a session,
    /// does nothing. Waits at most 3 s if the store is slow.
    pub async fn session_input(&mut self, bytes: &[u8]) {
        if let Some(session) = &mut self.session {
            session.input(bytes).await;
        }
    }

    /// Records the new size of the session's terminal. Without a session, does nothing. Waits at most 3 s if the store
    /// is slow.
    pub async fn session_resized(&mut self, columns: u16, rows: u16) {
        if let Some(session) = &mut self.session {
            session.resized(columns, rows).await;
        }
    }

    /// Sets the exit code at the end of the recording. Without a call, the recording ends with a note that there is no
    /// exit code. Without a session, does nothing.
    pub fn session_ended(&mut self, exit_code: Option<u32>) {
        if let Some(session) = &mut self.session {
            session.ended(exit_code);
        }
    }

    /// Records that the machine confirmed the start of the command.
    pub fn started(&self) {
        self.live.started();
    }

    /// Records the next bytes of a stream. If the memory for output is full, waits:
    ///
    /// - For the disk, at most 1 s in all calls together.
    /// - Without a working spill file, for the store, at most 3 s. After this time, Writ gives up the upload.
    /// - In a session, for the store, at most 3 s for each 64 KiB of the recording. After this time, Writ gives up the
    ///   recording.
    pub async fn push(&mut self, kind: StreamKind, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES) {
            let redacted = self.captures.of_mut(kind).push(piece);
            self.live.push(kind, &redacted);
            if let Some(session) = &mut self.session {
                session.output(kind, &redacted);
            }
            if self.captures.of(kind).exceeds_inline() {
                // The status certainly cannot show the whole stream, so the upload must start now.
                follow(self.upload.as_mut(), &self.live, kind);
            }
            if let Some(session) = &mut self.session {
                session.flush().await;
            }
            self.make_room(kind).await;
        }
    }

    async fn make_room(&mut self, kind: StreamKind) {
        loop {
            self.live.mark_unchanged();
            match self.live.room(kind) {
                Room::Enough => return,
                Room::Disk => {
                    let started = Instant::now();
                    let is_late = timeout_at(started + self.disk_patience, self.live.changed()).await.is_err();
                    self.disk_patience = self.disk_patience.saturating_sub(started.elapsed());
                    if is_late {
                        self.live.stop_spilling(kind);
                    }
                }
                Room::Upload => self.wait_for_upload(kind).await,
            }
        }
    }

    async fn wait_for_upload(&mut self, kind: StreamKind) {
        let patience = self.upload.as_ref().map_or(Duration::ZERO, Upload::buffer_timeout);
        let deadline = Instant::now() + patience;
        while self.live.room(kind) == Room::Upload {
            if timeout_at(deadline, self.live.changed()).await.is_err() {
                if let Some(upload) = &mut self.upload {
                    upload.give_up();
                }
                return self.live.unpin();
            }
        }
    }

    /// Ends the streams and returns the record. `truncated` is true if Writ perhaps did not receive all output.
    ///
    /// Waits until the store has all output, and the recording. In these cases, the output is recorded as not stored:
    ///
    /// - The wait takes 10 min.
    /// - The store finishes no part for 60 s.
    /// - 2 s have passed since `shutdown` was ready.
    ///
    /// The recording is recorded as not stored if the store does not take it within 60 s.
    pub async fn finish(mut self, truncated: bool, shutdown: impl Future<Output = ()>) -> CapturedOutput {
        for kind in StreamKind::ALL {
            let last = self.captures.of_mut(kind).finish_stream(truncated);
            self.live.push(kind, &last);
            if let Some(session) = &mut self.session {
                session.output(kind, &last);
            }
        }
        self.live.close();
        let shutdown = shutdown.shared();
        let recording = self.session.take().map(|session| Box::pin(session.finish(shutdown.clone())));
        let recording = futures::future::OptionFuture::from(recording);
        let (output, recording) = tokio::join!(Box::pin(self.finish_streams(shutdown)), recording);
        CapturedOutput { recording, ..output }
    }

    async fn finish_streams(self, shutdown: impl Future<Output = ()>) -> CapturedOutput {
        let Self { captures, live, mut upload, .. } = self;
        let (stdout, mut stdout_record) = captures.stdout.finish();
        let (stderr, mut stderr_record) = captures.stderr.finish();
        for (kind, record) in [(StreamKind::Stdout, &stdout_record), (StreamKind::Stderr, &stderr_record)] {
            // A stream within `inline_bytes` can be truncated too, because its JSON text can be longer than its bytes.
            if record.truncated {
                follow(upload.as_mut(), &live, kind);
            }
        }
        let digest = |record: &StreamRecord| record.truncated.then(|| record.sha256.clone());
        let digests = Digests { stdout: digest(&stdout_record), stderr: digest(&stderr_record) };
        if let Some(upload) = upload.filter(|_| stdout_record.truncated || stderr_record.truncated) {
            let result = upload.finish(digests, shutdown).await;
            for record in [&mut stdout_record, &mut stderr_record].into_iter().filter(|record| record.truncated) {
                record.stored = result.is_ok();
                record.not_stored = result.as_ref().err().map(ToString::to_string);
            }
        }
        CapturedOutput { stdout, stderr, stdout_record, stderr_record, recording: None }
    }
}

/// Starts the upload of a stream, unless the upload already follows the stream.
fn follow(upload: Option<&mut Upload>, live: &Publisher, kind: StreamKind) {
    if let Some(upload) = upload.filter(|upload| !upload.is_following(kind)) {
        upload.follow(kind, live.reader(kind));
    }
}

#[cfg(test)]
mod tests;
