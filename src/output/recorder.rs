//! Both streams of one command, from the first byte to the record.
//!
//! The promises kept here: nothing but redacted bytes goes anywhere; what is short costs no task and no call; whatever
//! becomes of the store, the record has text, size and digest. One that is dropped (an output that comes anew from its
//! start is recorded by a fresh one) leaves nothing behind in the store, and viewers stay.

use std::future::Future;

use crate::api::execution_status::StreamRecord;
use crate::policy::Redaction;

use super::capture::Capture;
use super::hub::{Hub, Publisher};
use super::store::Store;
use super::upload::{Digests, Patience, Upload};
use super::{Both, Owner, StreamKind};

/// What is kept of the output of one command.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The text of standard output for the status.
    pub stdout: String,
    /// The text of standard error for the status.
    pub stderr: String,
    /// What is recorded of the whole of standard output.
    pub stdout_record: StreamRecord,
    /// What is recorded of the whole of standard error.
    pub stderr_record: StreamRecord,
}

/// Takes the output of one command.
#[derive(Debug)]
pub struct Recorder {
    captures: Both<Capture>,
    live: Publisher,
    /// None where there is no store.
    upload: Option<Upload>,
}

impl Recorder {
    /// For a command whose status shows `inline_bytes` of each stream (at most
    /// [`MAXIMUM_INLINE_BYTES`](super::MAXIMUM_INLINE_BYTES)). Viewers in `hub` see the output from its start; those that
    /// are there already, of an earlier recorder of the same execution, go on from where they are.
    pub fn new(owner: Owner, inline_bytes: usize, redaction: &Redaction, hub: &Hub, store: Option<Store>) -> Self {
        Self::with(owner, inline_bytes, redaction, hub, store, Patience::default())
    }

    fn with(
        owner: Owner,
        inline_bytes: usize,
        redaction: &Redaction,
        hub: &Hub,
        store: Option<Store>,
        patience: Patience,
    ) -> Self {
        Self {
            captures: Both {
                stdout: Capture::new(inline_bytes, redaction),
                stderr: Capture::new(inline_bytes, redaction),
            },
            live: hub.publish(&owner.uid),
            upload: store.map(|store| Upload::new(store, owner, patience)),
        }
    }

    /// Takes the next bytes of a stream. Waits for the store where that is behind, at most 3 s; where that is not enough
    /// the output is not stored, and this never waits again.
    pub async fn push(&mut self, kind: StreamKind, bytes: &[u8]) {
        let capture = self.captures.of_mut(kind);
        let before = Before::of(capture);
        let redacted = capture.push(bytes);
        self.take(kind, before, &redacted).await;
    }

    async fn take(&mut self, kind: StreamKind, before: Before, redacted: &[u8]) {
        self.live.push(kind, redacted);
        let capture = self.captures.of(kind);
        let Some(upload) = self.upload.as_mut().filter(|_| capture.is_over()) else { return };
        if !before.was_over {
            // From here on it is certain that the status cannot show all of it.
            upload.push(kind, capture.kept().get(..before.kept).unwrap_or_default()).await;
        }
        upload.push(kind, redacted).await;
    }

    /// The end: what is recorded. `cut_off` says that more may have come that was not seen. Waits for the store, at most
    /// 60 s, and 2 s from when `hurry` is ready on; what is not stored by then is recorded as not stored.
    pub async fn finish(mut self, cut_off: bool, hurry: impl Future<Output = ()>) -> Recorded {
        for kind in StreamKind::BOTH {
            let capture = self.captures.of_mut(kind);
            let before = Before::of(capture);
            let last = capture.end(cut_off);
            self.take(kind, before, &last).await;
        }
        self.live.close();
        let Both { stdout, stderr } = self.captures;
        let (stdout, mut stdout_record) = of_capture(StreamKind::Stdout, stdout, self.upload.as_mut()).await;
        let (stderr, mut stderr_record) = of_capture(StreamKind::Stderr, stderr, self.upload.as_mut()).await;
        let digest = |record: &StreamRecord| record.truncated.then(|| record.sha256.clone());
        let digests = Digests { stdout: digest(&stdout_record), stderr: digest(&stderr_record) };
        if let Some(upload) = self.upload.filter(|_| stdout_record.truncated || stderr_record.truncated) {
            let result = upload.finish(digests, hurry).await;
            for record in [&mut stdout_record, &mut stderr_record].into_iter().filter(|record| record.truncated) {
                record.stored = result.is_ok();
                record.not_stored = result.as_ref().err().map(ToString::to_string);
            }
        }
        Recorded { stdout, stderr, stdout_record, stderr_record }
    }
}

/// How it stood before some bytes came.
struct Before {
    was_over: bool,
    kept: usize,
}

impl Before {
    fn of(capture: &Capture) -> Self {
        Self { was_over: capture.is_over(), kept: capture.kept().len() }
    }
}

/// The text and the record of a stream. What is not over the bound, and yet too long once it is encoded, is uploaded now.
async fn of_capture(kind: StreamKind, capture: Capture, upload: Option<&mut Upload>) -> (String, StreamRecord) {
    let rest = (!capture.is_over()).then(|| capture.kept().to_vec());
    let (text, record) = capture.finish();
    if let (Some(upload), Some(rest), true) = (upload, rest, record.truncated) {
        upload.push(kind, &rest).await;
    }
    (text, record)
}

#[cfg(test)]
mod tests;
