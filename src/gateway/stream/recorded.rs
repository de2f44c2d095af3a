//! Reads the output of an ended execution: first its standard output, then its standard error.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::api::CommandExecution;
use crate::gateway::error::ApiError;
use crate::gateway::output_source::{OutputSource, SourceRead};
use crate::gateway::state::Gateway;
use crate::output::{StreamKind, StreamOffsets};

/// Maximum number of bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// Reader of the output of an ended execution.
pub(super) struct Recorded {
    /// The execution.
    pub execution: CommandExecution,
    /// Streams that are not read to their end, with the offset of the next byte.
    streams: VecDeque<(StreamKind, OutputSource, u64)>,
}

/// Part of a recorded output.
pub(super) enum RecordedPart {
    /// The next bytes of a stream.
    Output {
        /// The stream.
        stream: StreamKind,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Missing bytes.
    Gap {
        /// The stream.
        stream: StreamKind,
        /// Offset of the first missing byte.
        offset: u64,
        /// Number of missing bytes.
        length: u64,
        /// Cause, as one word.
        reason: &'static str,
    },
}

impl Recorded {
    /// Opens the output of an ended execution.
    ///
    /// # Errors
    /// The output in the status is damaged.
    pub fn open(execution: CommandExecution, from: StreamOffsets) -> Result<Self, ApiError> {
        let mut streams = VecDeque::new();
        for stream in StreamKind::ALL {
            let offset = match stream {
                StreamKind::Stdout => from.stdout,
                StreamKind::Stderr => from.stderr,
            };
            streams.push_back((stream, OutputSource::find(&execution, stream)?, offset));
        }
        Ok(Self { execution, streams })
    }

    /// Returns the next part, or `None` after the last one.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn next(&mut self, gateway: &Gateway) -> Result<Option<RecordedPart>, ApiError> {
        while let Some((stream, source, next)) = self.streams.front_mut() {
            let (stream, offset) = (*stream, *next);
            match source.read(gateway, offset, READ_BYTES).await? {
                SourceRead::Bytes(bytes) => {
                    *next += bytes.len() as u64;
                    return Ok(Some(RecordedPart::Output { stream, offset, bytes }));
                }
                SourceRead::Gap { to, reason } => {
                    *next = to;
                    return Ok(Some(RecordedPart::Gap { stream, offset, length: to - offset, reason }));
                }
                SourceRead::Nothing { .. } => drop(self.streams.pop_front()),
            }
        }
        Ok(None)
    }
}
