//! Room for the result. An object in etcd has a largest size, and labels, annotations and managed fields belong to others.
//! A result that does not fit would be lost.
//!
//! The promises kept here: an execution that has no room for its result is refused before anything is sent. A claim holds
//! room for the smallest whole result, which nobody else can take. A result that does not fit is stored with less text in
//! it, and says so.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::api::{CommandExecution, CommandExecutionStatus};
use crate::policy::Decision;

/// The most bytes of an object with its result. etcd takes requests of 1.5 MiB by default; 64 KiB are left for what others
/// write later in good faith: a cancel, a deletion.
const MAXIMUM_BYTES: usize = 1_572_864 - 65_536;
/// Room for the smallest whole result: every field but the text of the output, with a short message, and what
/// `metadata.managedFields` says of these fields.
const SMALLEST_RESULT: usize = 4096;
/// Room for long messages: 2048 characters of at most six bytes (with the last line of standard error, of at most 256 bytes,
/// which the conditions do not repeat), and why a stream was not stored, twice 256.
const MESSAGES: usize = 18_432;
/// Objects from this size on hold room for the largest result, not only for the smallest. Somebody fills them, and beside
/// them that room is small. For the others it would be most of what is written to etcd.
const LARGE: usize = 262_144;
/// What a claim adds to the object beside its decision: machine, claim, remote, command line, conditions.
const CLAIM: usize = 18_432;
/// What the first write with `startTime` or `stopRequestedTime` adds to `metadata.managedFields`.
const TIME_IN_MANAGED_FIELDS: usize = 64;
/// Characters of a message that is one of several with the same text.
const SHORT_MESSAGE: usize = 128;

/// How large an object is, as the API server wrote it down, and what of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ObjectSize {
    /// All of it.
    pub total: usize,
    /// `metadata.labels`.
    pub labels: usize,
    /// `metadata.annotations`.
    pub annotations: usize,
    /// `metadata.finalizers`.
    pub finalizers: usize,
    /// `metadata.managedFields`.
    pub managed_fields: usize,
    /// `metadata.ownerReferences`.
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

/// Whether somebody has filled `metadata.managedFields` of an execution that waits, where nothing but its age and the room for its
/// result depends on them any more. The API server makes up to 10 entries of a few KiB by itself. Refused for these, it would be
/// ended by whoever may patch it.
pub fn is_filled_by_managers(execution: &CommandExecution, size: &ObjectSize) -> bool {
    let knows_creation = execution.status.as_ref().is_some_and(|status| status.creation.is_some());
    let waits = !execution.is_claimed() && !execution.phase().is_finished();
    size.managed_fields > LARGE && knows_creation && waits
}

/// Why an execution of this size is not started by a decision: its result might not fit. None where it does.
pub(super) fn problem(
    size: &ObjectSize,
    status: Option<&CommandExecutionStatus>,
    decision: &Decision,
) -> Option<String> {
    let is_stored = status.is_some_and(|status| status.decision.is_some());
    let record = if is_stored { 0 } else { length(&(&decision.argv, &decision.environment, &decision.redact)) };
    let needed = largest_result(decision.output.inline_bytes) + record + CLAIM;
    (size.total + needed > MAXIMUM_BYTES).then(|| no_room(size))
}

/// The same, where the API server itself refused the claim.
pub fn no_room(size: &ObjectSize) -> String {
    format!(
        "{size} and leaves no room for the result, as etcd stores at most 1.5 MiB of it; \
         create the execution anew with fewer and shorter labels, annotations, finalizers and arguments"
    )
}

fn largest_result(inline_bytes: u32) -> usize {
    let inline = usize::try_from(inline_bytes).unwrap_or(usize::MAX);
    inline.saturating_mul(2).saturating_add(MESSAGES + SMALLEST_RESULT)
}

/// Reserves room for the result, in the status of a claim.
pub fn reserve(status: &mut CommandExecutionStatus, size: &ObjectSize) {
    let inline_bytes = status.decision.as_ref().map_or(0, |decision| decision.output.inline_bytes);
    let bytes = if size.total < LARGE { SMALLEST_RESULT } else { largest_result(inline_bytes) };
    status.reserved = Some(filler(bytes));
}

/// Takes from the reserved room what `after`, a status of the same claim, has more than `before`: others may have filled the
/// object to its last byte.
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

/// How often [`reduce`] can take something out.
pub const REDUCTIONS: u32 = 4;

/// Takes text out of a finished status that was refused as it is, more at each step from 1 to [`REDUCTIONS`]. False where a
/// step has nothing to take.
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
            }
            true
        }
        _ => {
            (status.output, status.start_time, status.duration_ms) = (None, None, None);
            status.message = Some(format!("{why}; what is here is all that could be stored"));
            true
        }
    }
}

/// Conditions repeat the message of the status.
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
                // It is stored before it is known whether the status takes it.
                stream.not_stored = Some("the status was to show all of it and had no room".to_owned());
            }
        }
    }
    (status.stdout, status.stderr) = (None, None);
    let message = status.message.take().unwrap_or_default();
    let message = format!("{message}; the text of the output is left out: {why}");
    status.message = Some(message.chars().take(super::MAXIMUM_MESSAGE_CHARACTERS).collect());
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

/// Bytes of a value in the API server's own JSON.
fn length(value: &impl Serialize) -> usize {
    let mut counter = Counter::default();
    // It cannot fail: all keys are text, and counting does not.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.bytes
}

#[derive(Default)]
struct Counter {
    bytes: usize,
    /// The two bytes before.
    last: [u8; 2],
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            // Go escapes these to six bytes, also U+2028 and U+2029, which are of three bytes.
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
