//! The recording of a session, as lines of [asciicast v3](https://docs.asciinema.org/manual/asciicast/v3/).
//!
//! ```text
//! {"version":3,"term":{"cols":80,"rows":24},"timestamp":1796083200,"command":"/bin/sh","writ":{...}}
//! [0.248,"o","$ "]            output: both streams, redacted
//! [1.020,"k","3"]             an input of 3 bytes, of which the recording has only time and size
//! [0.000,"i","ls\r"]          the bytes of an input, instead of "k", only if the rule says `recordInput`
//! [2.050,"r","90x30"]         the new size of the terminal
//! [0.500,"m","..."]           a note of Writ
//! [0.887,"x","0"]             the exit code
//! ```
//!
//! Time is an argument. This module does no I/O.
//!
//! # Guarantees
//!
//! 1. Without `recordInput`, no byte of an input is in the recording.
//! 2. The data of all "o" events together is the output, with U+FFFD for bytes that are not UTF-8. No character is
//!    split between two events.
//! 3. A recording has at most [`MAX_RECORDING_BYTES`]. A longer one ends with a note, and with the exit code.

mod characters;

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{PerStream, StreamKind};
use characters::Characters;

/// Maximum size of a recording, in bytes. A busy session of a day takes about 10 MiB. A program that writes without a
/// pause must not fill the output store, and a browser must be able to play the recording.
pub(super) const MAX_RECORDING_BYTES: u64 = 16 << 20;
/// Space for the lines at the end of a recording, in bytes: the last note, and the exit code.
const END_BYTES: u64 = 256;
/// Maximum length of the command in the header, in bytes. The status of the execution has the whole command.
const MAX_COMMAND_BYTES: usize = 4096;
/// Size of the terminal for players, if the session has none: 80 columns, 24 rows. Players refuse a size of 0.
const DEFAULT_SIZE: (u16, u16) = (80, 24);
/// Code of an input of which only time and size are recorded. Its data is the number of bytes.
///
/// The code is none of the format, so players ignore the event. A marker ("m") would be in the list of chapters, and
/// players can pause at each marker. The first letter must not be a code of the format, because asciinema reads only
/// the first letter.
const INPUT_SIZE: &str = "k";

/// Start of a session, for the first line of its recording.
#[derive(Clone, Debug)]
pub struct SessionHeader {
    /// Number of columns of the terminal. 0 if there is no terminal.
    pub columns: u16,
    /// Number of rows of the terminal. 0 if there is no terminal.
    pub rows: u16,
    /// True if the session has a terminal on the machine.
    pub tty: bool,
    /// Command line of the session.
    pub command: String,
    /// Time of the start, by the clock of the cluster.
    pub started: Timestamp,
    /// True if the recording has the bytes of each input (`decision.recordInput`).
    pub records_input: bool,
}

/// A recording in progress. The caller takes the finished lines with [`Self::take`].
pub(super) struct Recording {
    limit: u64,
    /// Finished lines that nobody has taken yet.
    lines: Vec<u8>,
    /// Size of all lines so far, in bytes.
    bytes: u64,
    digest: Sha256,
    /// Time of the previous event since the start, in milliseconds.
    previous: u64,
    output: PerStream<Characters>,
    input: Characters,
    /// True after the recording reached its limit.
    is_full: bool,
    left_out: u64,
}

/// Result of a recording: its size and its digest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RecordingSummary {
    /// Size of the recording, in bytes.
    pub bytes: u64,
    /// SHA-256 of the recording, in lower case hexadecimal.
    pub sha256: String,
    /// True if the recording reached its limit before the end of the session.
    pub is_incomplete: bool,
    /// Number of bytes of output and of recorded input after the limit.
    pub left_out_bytes: u64,
}

impl Recording {
    /// Starts a recording of at most `limit` bytes. The header and the lines of the end count, and always have space.
    pub fn new(header: &SessionHeader, limit: u64) -> Self {
        let mut recording = Self {
            limit,
            lines: Vec::new(),
            bytes: 0,
            digest: Sha256::new(),
            previous: 0,
            output: PerStream::default(),
            input: Characters::default(),
            is_full: false,
            left_out: 0,
        };
        recording.append(&header_line(header));
        recording
    }

    /// Records the next bytes of a stream, `at` after the start. The bytes must be redacted.
    pub fn output(&mut self, at: Duration, kind: StreamKind, bytes: &[u8]) {
        let text = self.output.of_mut(kind).push(bytes);
        self.text(at, "o", text);
    }

    /// Records the bytes of an input, which must be redacted. Call it only if the recording has input.
    pub fn input(&mut self, at: Duration, bytes: &[u8]) {
        let text = self.input.push(bytes);
        self.text(at, "i", text);
    }

    /// Records the time and the size of an input.
    pub fn input_size(&mut self, at: Duration, bytes: usize) {
        self.event(at, INPUT_SIZE, bytes.to_string());
    }

    /// Records the new size of the terminal.
    pub fn resized(&mut self, at: Duration, columns: u16, rows: u16) {
        let (columns, rows) = size(columns, rows);
        self.event(at, "r", format!("{columns}x{rows}"));
    }

    /// Ends the recording. Without an exit code, a note replaces it.
    pub fn end(&mut self, at: Duration, exit_code: Option<u32>) {
        for kind in StreamKind::ALL {
            let text = self.output.of_mut(kind).finish();
            self.text(at, "o", text);
        }
        let text = self.input.finish();
        self.text(at, "i", text);
        let line = match exit_code {
            Some(code) => self.line(at, "x", code.to_string()),
            None => self.line(at, "m", "the session ended without an exit code".to_owned()),
        };
        self.append(&line);
    }

    /// Takes the lines that are finished since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    /// Returns the number of bytes that nobody has taken yet.
    pub fn waiting(&self) -> usize {
        self.lines.len()
    }

    /// Returns size and digest of the recording.
    pub fn summary(&self) -> RecordingSummary {
        RecordingSummary {
            bytes: self.bytes,
            sha256: self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            is_incomplete: self.is_full,
            left_out_bytes: self.left_out,
        }
    }

    /// Records text that comes from `length` bytes. The text is empty if its first character is not complete yet.
    fn text(&mut self, at: Duration, code: &str, (text, length): (String, usize)) {
        if !text.is_empty() && !self.event(at, code, text) {
            self.left_out = self.left_out.saturating_add(length as u64);
        }
    }

    /// Records an event. Returns false if it has no space.
    fn event(&mut self, at: Duration, code: &str, data: String) -> bool {
        if self.is_full {
            return false;
        }
        let before = self.previous;
        let line = self.line(at, code, data);
        if self.bytes.saturating_add(line.len() as u64) <= self.limit.saturating_sub(END_BYTES) {
            self.append(&line);
            return true;
        }
        self.is_full = true;
        self.previous = before;
        let note = format!("the recording ends here: over {} bytes", self.limit);
        let line = self.line(at, "m", note);
        self.append(&line);
        false
    }

    /// Returns the line of an event, and counts its time.
    fn line(&mut self, at: Duration, code: &str, data: String) -> Vec<u8> {
        // Intervals of whole milliseconds, each from the rounded time before, so that rounding errors do not add up.
        // asciinema refuses numbers with an exponent, so smaller intervals are not safe.
        let now = u64::try_from(at.as_millis()).unwrap_or(u64::MAX).max(self.previous);
        let interval = now - self.previous;
        self.previous = now;
        let data = serde_json::Value::String(data);
        format!("[{}.{:03},\"{code}\",{data}]\n", interval / 1000, interval % 1000).into_bytes()
    }

    fn append(&mut self, line: &[u8]) {
        self.bytes = self.bytes.saturating_add(line.len() as u64);
        self.digest.update(line);
        self.lines.extend_from_slice(line);
    }
}

/// Hides the lines, because they can have recorded input.
impl std::fmt::Debug for Recording {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Recording").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

fn header_line(header: &SessionHeader) -> Vec<u8> {
    let (columns, rows) = size(header.columns, header.rows);
    let command = serde_json::Value::String(beginning(&header.command));
    let seconds = header.started.as_second().max(0);
    // Players ignore the unknown field. Without a terminal, lines end with "\n" alone, and a player shows a staircase.
    let writ = format!("{{\"tty\":{},\"recordsInput\":{}}}", header.tty, header.records_input);
    let term = format!("{{\"cols\":{columns},\"rows\":{rows}}}");
    format!("{{\"version\":3,\"term\":{term},\"timestamp\":{seconds},\"command\":{command},\"writ\":{writ}}}\n")
        .into_bytes()
}

fn size(columns: u16, rows: u16) -> (u16, u16) {
    if columns == 0 || rows == 0 { DEFAULT_SIZE } else { (columns, rows) }
}

/// Returns the beginning of a long command.
fn beginning(command: &str) -> String {
    if command.len() <= MAX_COMMAND_BYTES {
        return command.to_owned();
    }
    let end = command.floor_char_boundary(MAX_COMMAND_BYTES);
    format!("{}...", command.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests;
