//! Reserves space for the result in the object of an execution, so that no result is lost. etcd limits the size of an
//! object, and other clients can fill an object with labels, annotations and managed fields.
//!
//! # Guarantees
//!
//! - If an object has no space for its result, Writ rejects the execution before it sends anything.
//! - A claim reserves space for the smallest complete result. Other clients cannot fill this space.
//! - If a result does not fit, Writ stores the result with less text, and `status.message` reports the omission.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::api::{CommandExecution, CommandExecutionStatus};
use crate::policy::Decision;

/// Maximum size of an object with its result, in bytes. etcd accepts requests of 1.5 MiB by default. 64 KiB stay free
/// for later writes of other clients, for example a cancellation or a deletion.
const MAX_OBJECT_BYTES: usize = 1_572_864 - 65_536;
/// Space for the smallest complete result, in bytes: a short message and all other fields, without the text of the
/// output. Includes the entries of these fields in `metadata.managedFields`.
const SMALLEST_RESULT: usize = 4608;
/// Space for long messages, in bytes. A message has at most 2048 characters of at most six bytes. For each stream
/// and for the recording, the reason why it was not stored has at most 256 characters.
const MESSAGES: usize = 18_432;
/// Minimum size of a large object, in bytes. In a large object, a claim reserves space for the largest result. In a
/// smaller object, a claim reserves space only for the smallest result, so that writes to etcd stay small.
const LARGE_OBJECT: usize = 262_144;
/// Size in bytes of the fields that a claim adds, without the decision: `machine`, `claim`, `remote`, `commandLine` and
/// `conditions`.
const CLAIM: usize = 18_432;
/// Size of the entry that the first write of `startTime` or `stopRequestedTime` adds to `metadata.managedFields`, in
/// bytes.
const TIME_IN_MANAGED_FIELDS: usize = 64;
/// Maximum length of a message in a status, in characters (the bound in the CRD). Writ cuts longer messages. Messages
/// can be long, because they quote texts of machines.
pub const MAX_MESSAGE_CHARACTERS: usize = 2048;
/// Maximum length of a shortened message, in characters.
const SHORT_MESSAGE: usize = 128;

/// Size of an object in the JSON of the API server, in bytes: in total, and of the parts that other clients write.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ObjectSize {
    /// Size of the whole object, in bytes.
    pub total: usize,
    /// Size of `metadata.labels`, in bytes.
    pub labels: usize,
    /// Size of `metadata.annotations`, in bytes.
    pub annotations: usize,
    /// Size of `metadata.finalizers`, in bytes.
    pub finalizers: usize,
    /// Size of `metadata.managedFields`, in bytes.
    pub managed_fields: usize,
    /// Size of `metadata.ownerReferences`, in bytes.
    pub owner_references: usize,
}

impl fmt::Display for ObjectSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "the object takes {} bytes (metadata.labels {}, annotations {}, managedFields {}, finalizers {}, ownerReferences {})",
            self.total, self.labels, self.annotations, self.managed_fields, self.finalizers, self.owner_references,
        )
    }
}

/// Returns true if Writ may clear `metadata.managedFields`. Without clearing, anyone who may patch an execution could
/// fill this field and cause a rejection. The conditions are:
///
/// - The execution is neither claimed nor finished.
/// - The creation record is stored.
/// - The field is larger than `LARGE_OBJECT`. The API server itself makes at most 10 entries of a few KiB.
pub fn is_filled_by_managers(execution: &CommandExecution, size: &ObjectSize) -> bool {
    let knows_creation = execution.status.as_ref().is_some_and(|status| status.creation.is_some());
    let waits = !execution.is_claimed() && !execution.phase().is_finished();
    size.managed_fields > LARGE_OBJECT && knows_creation && waits
}

/// Returns the reason why an execution of this size must not start: its result might not fit. Returns `None` if the
/// result fits.
pub(super) fn problem(
    size: &ObjectSize,
    status: Option<&CommandExecutionStatus>,
    decision: &Decision,
) -> Option<String> {
    let is_stored = status.is_some_and(|status| status.decision.is_some());
    let record = if is_stored { 0 } else { length(&(&decision.argv, &decision.environment, &decision.redact)) };
    let needed = largest_result(decision.output.inline_bytes) + record + CLAIM;
    (size.total + needed > MAX_OBJECT_BYTES).then(|| no_space_message(size))
}

/// Returns the message for an execution whose object has no space for the result. Also used if the API server refuses a
/// claim as too large.
pub fn no_space_message(size: &ObjectSize) -> String {
    format!(
        "{size} and leaves no space for the result, because etcd stores at most 1.5 MiB of it; \
         create another execution with fewer and shorter labels, annotations, finalizers and arguments"
    )
}

fn largest_result(inline_bytes: u32) -> usize {
    let inline = usize::try_from(inline_bytes).unwrap_or(usize::MAX);
    inline.saturating_mul(2).saturating_add(MESSAGES + SMALLEST_RESULT)
}

/// Reserves space for the result in the status of a claim.
pub fn reserve(status: &mut CommandExecutionStatus, size: &ObjectSize) {
    let inline_bytes = status.decision.as_ref().map_or(0, |decision| decision.output.inline_bytes);
    let bytes = if size.total < LARGE_OBJECT { SMALLEST_RESULT } else { largest_result(inline_bytes) };
    status.reserved = Some(filler(bytes));
}

/// Shrinks the reserved space in `after`, so that `after` is not longer than `before`. Both are statuses of the same
/// claim. A longer status might not fit, because other clients can fill the rest of the object.
pub(super) fn keep_length(before: &CommandExecutionStatus, after: &mut CommandExecutionStatus) {
    if after.reserved.is_none() {
        return;
    }
    after.reserved = Some(String::new());
    let is_start = before.start_time.is_none() && after.start_time.is_some();
    let is_stop = before.stop_requested_time.is_none() && after.stop_requested_time.is_some();
    let managed = TIME_IN_MANAGED_FIELDS * (usize::from(is_start) + usize::from(is_stop));
    after.reserved = Some(filler(length(before).saturating_sub(length(after) + managed)));
}

fn filler(bytes: usize) -> String {
    ".".repeat(bytes)
}

/// Number of steps of [`reduce`].
pub const REDUCTIONS: u32 = 4;

/// Removes text from a finished status that the API server refused as too large. Each step, from 1 to [`REDUCTIONS`],
/// removes more. Returns false if a step has nothing to remove.
pub fn reduce(status: &mut CommandExecutionStatus, step: u32, why: &str) -> bool {
    match step {
        1 => shorten_conditions(status),
        2 => drop_text(status, why),
        3 => {
            shorten(status.message.as_mut(), SHORT_MESSAGE);
            status.conditions.iter_mut().for_each(|condition| condition.message.clear());
            if let Some(output) = &mut status.output {
                output.held_by.clear();
                (output.stdout.not_stored, output.stderr.not_stored) = (None, None);
                if let Some(recording) = &mut output.recording {
                    recording.not_stored = None;
                }
            }
            true
        }
        _ => {
            (status.output, status.start_time, status.duration_ms) = (None, None, None);
            status.message = Some(format!("{why}; the rest of the result could not be stored"));
            true
        }
    }
}

/// Shortens the messages of the conditions, which repeat the message of the status.
fn shorten_conditions(status: &mut CommandExecutionStatus) -> bool {
    let mut any = false;
    for condition in &mut status.conditions {
        any |= shorten(Some(&mut condition.message), SHORT_MESSAGE);
    }
    any
}

fn drop_text(status: &mut CommandExecutionStatus, why: &str) -> bool {
    let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    if is_empty(&status.stdout) && is_empty(&status.stderr) {
        return false;
    }
    if let Some(output) = &mut status.output {
        for (stream, text) in [(&mut output.stdout, &status.stdout), (&mut output.stderr, &status.stderr)] {
            if !is_empty(text) && !stream.truncated {
                stream.truncated = true;
                // Writ uploads only truncated streams, so the output store does not have this stream.
                stream.not_stored = Some("the status had no space for the whole stream".to_owned());
            }
        }
    }
    (status.stdout, status.stderr) = (None, None);
    let message = status.message.take().unwrap_or_default();
    let message = format!("{message}; the text of the output is omitted: {why}");
    status.message = Some(message.chars().take(MAX_MESSAGE_CHARACTERS).collect());
    true
}

fn shorten(text: Option<&mut String>, characters: usize) -> bool {
    let Some(text) = text else { return false };
    let end = text.char_indices().nth(characters).map(|(index, _)| index);
    end.is_some_and(|end| {
        text.truncate(end);
        true
    })
}

/// Returns the size of a value in the JSON of the API server, in bytes.
fn length(value: &impl Serialize) -> usize {
    let mut counter = Counter::default();
    // Serialization cannot fail, because all keys are text and counting never fails.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.bytes
}

#[derive(Default)]
struct Counter {
    bytes: usize,
    /// The two previous bytes.
    last: [u8; 2],
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            // Go escapes each of these characters to six bytes. The last byte of U+2028 or U+2029 counts four, because
            // the two bytes before it are already counted.
            self.bytes += match (self.last, byte) {
                (_, b'<' | b'>' | b'&') => 6,
                ([0xe2, 0x80], 0xa8 | 0xa9) => 4,
                _ => 1,
            };
            self.last = [self.last[1], *byte];
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
