//! The bytes of one stream by offset, from the place that has them: live output, status, or output store.
//!
//! # Guarantees
//! 1. The bytes are the recorded bytes. Bytes from the status or from the store are compared with their digest first.
//!    Only head and tail of a stream that is stored nowhere cannot be compared.
//! 2. Missing bytes are reported as a gap, and never left out.
//! 3. A read takes memory for its bytes only.

mod shown_ends;
mod source_read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use crate::api::execution_status::{Encoding, StreamRecord};
use crate::api::{CommandExecution, CommandExecutionStatus};
use crate::output::{GapReason, LiveRead, OutputKey, StreamKind};

use super::error::ApiError;
use super::output_reads::Verdict;
use super::state::Gateway;
use shown_ends::ShownEnds;

pub use source_read::SourceRead;

/// One stream of an execution.
#[derive(Clone, Debug)]
pub struct OutputSource {
    stream: StreamKind,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// The execution has not ended. This process perhaps has its output.
    Live { uid: String },
    /// The status has the whole stream.
    Status(Bytes),
    /// The store has the whole stream. The status has its ends.
    Store { key: OutputKey, record: StreamRecord, ends: ShownEnds },
    /// Only the live output of this process perhaps has the whole stream. The status has its ends.
    Ends { uid: String, ends: ShownEnds },
}

impl OutputSource {
    /// Finds a stream of an execution.
    ///
    /// # Errors
    /// 500 if the text in the status does not match its digest.
    pub fn find(execution: &CommandExecution, stream: StreamKind) -> Result<Self, ApiError> {
        let uid = execution.uid().unwrap_or_default();
        let status = execution.status.as_ref().filter(|status| status.phase.is_finished());
        let Some(status) = status else { return Ok(Self { stream, place: Place::Live { uid } }) };
        let Some((text, record)) = recorded(status, stream) else {
            return Ok(Self { stream, place: Place::Status(Bytes::new()) });
        };
        let bytes = match record.encoding {
            Encoding::Utf8 => Some(text.as_bytes().to_vec()),
            Encoding::Base64 => STANDARD.decode(text).ok(),
        };
        let place = match bytes {
            Some(bytes) if !record.truncated && sha256(&bytes) == record.sha256 => Place::Status(Bytes::from(bytes)),
            Some(bytes) if record.truncated => {
                let ends = ShownEnds::of(&bytes, u64::try_from(record.bytes).unwrap_or_default());
                match record.stored {
                    true => {
                        let namespace = execution.namespace().unwrap_or_default();
                        Place::Store { key: OutputKey { namespace, uid }, record: record.clone(), ends }
                    }
                    false => Place::Ends { uid, ends },
                }
            }
            _ => {
                tracing::error!(uid, stream = stream.as_str(), "recorded output differs from its digest");
                let message = format!("the recorded {} does not match its digest", stream.as_str());
                return Err(ApiError::new(
                    http::StatusCode::INTERNAL_SERVER_ERROR,
                    "Internal error",
                    "OutputDamaged",
                    message,
                ));
            }
        };
        Ok(Self { stream, place })
    }

    /// Returns the number of bytes: all bytes of an ended execution, or the bytes so far.
    pub fn length(&self, gateway: &Gateway) -> u64 {
        match &self.place {
            Place::Live { uid } => gateway.live().lengths(uid).map_or(0, |lengths| match self.stream {
                StreamKind::Stdout => lengths.stdout,
                StreamKind::Stderr => lengths.stderr,
            }),
            Place::Status(bytes) => bytes.len() as u64,
            Place::Store { ends, .. } | Place::Ends { ends, .. } => ends.total(),
        }
    }

    /// Returns true if the execution has ended, so that the stream no longer grows.
    pub fn has_ended(&self) -> bool {
        !matches!(self.place, Place::Live { .. })
    }

    /// Reads at most `max_bytes` from an offset on.
    ///
    /// # Errors
    /// 503 if the store does not answer.
    pub async fn read(&self, gateway: &Gateway, offset: u64, max_bytes: usize) -> Result<SourceRead, ApiError> {
        match &self.place {
            Place::Live { uid } => Ok(match gateway.live().read(uid, self.stream, offset, max_bytes).await {
                Some(LiveRead::Bytes(bytes)) => SourceRead::Bytes(bytes),
                Some(LiveRead::Gap { to, reason }) => SourceRead::Gap { to, reason: reason.as_str() },
                // The output is complete when the result is stored. Until then, the record can still come from another
                // process.
                Some(LiveRead::Nothing { .. }) | None => SourceRead::Nothing { is_complete: false },
            }),
            Place::Status(bytes) => Ok(within(bytes, offset, max_bytes)),
            Place::Store { key, record, ends } => read_store(gateway, key, record, ends, (offset, max_bytes)).await,
            Place::Ends { uid, ends } => Ok(match gateway.live().read(uid, self.stream, offset, max_bytes).await {
                Some(LiveRead::Bytes(bytes)) => SourceRead::Bytes(bytes),
                Some(LiveRead::Gap { to, reason }) if reason != GapReason::Removed => {
                    SourceRead::Gap { to, reason: reason.as_str() }
                }
                _ => ends.read(offset, max_bytes, "not_stored"),
            }),
        }
    }
}

async fn read_store(
    gateway: &Gateway,
    key: &OutputKey,
    record: &StreamRecord,
    ends: &ShownEnds,
    (offset, max_bytes): (u64, usize),
) -> Result<SourceRead, ApiError> {
    if offset >= ends.total() {
        return Ok(SourceRead::Nothing { is_complete: true });
    }
    let Some(store) = gateway.store() else { return Ok(ends.read(offset, max_bytes, "no_store")) };
    let unavailable = || ApiError::unavailable("the output store did not answer; repeat the call");
    match gateway.outputs().verify(store, key, record).await? {
        Verdict::Missing => return Ok(ends.read(offset, max_bytes, "missing_in_store")),
        Verdict::Damaged => return Ok(ends.read(offset, max_bytes, "damaged_in_store")),
        Verdict::Unknown => return Err(unavailable()),
        Verdict::Whole => {}
    }
    match store.read_at(key, record, offset, max_bytes).await {
        Ok(bytes) => Ok(SourceRead::Bytes(bytes)),
        Err(error) => {
            tracing::warn!(%error, namespace = key.namespace, uid = key.uid, "stored output not readable");
            Err(unavailable())
        }
    }
}

/// Returns the text and the record of a stream, or `None` if nothing was recorded.
fn recorded(status: &CommandExecutionStatus, stream: StreamKind) -> Option<(&str, &StreamRecord)> {
    let output = status.output.as_ref()?;
    let (text, record) = match stream {
        StreamKind::Stdout => (&status.stdout, &output.stdout),
        StreamKind::Stderr => (&status.stderr, &output.stderr),
    };
    Some((text.as_deref().unwrap_or_default(), record))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the result of a read of a stream that is in memory.
fn within(bytes: &Bytes, offset: u64, max_bytes: usize) -> SourceRead {
    match usize::try_from(offset) {
        Ok(start) if start < bytes.len() => {
            SourceRead::Bytes(bytes.slice(start..bytes.len().min(start.saturating_add(max_bytes))))
        }
        _ => SourceRead::Nothing { is_complete: true },
    }
}

#[cfg(test)]
mod tests;
