//! Finds reports of progress in the output of a command: percent and current step. The output itself stays unchanged.
//!
//! # Rule
//!
//! A line is a report if it matches one of these formats:
//!
//! | program | format | label |
//! |---|---|---|
//! | apt | `Progress: [ 42%]` | the last step of dpkg |
//! | dpkg | `Unpacking hello (2.10-3) ...` and its other steps | the step. Its percent comes from apt, if it is known |
//! | dpkg | `(Reading database ... 45%` | `Reading database` |
//! | apt | `12% [3 Packages 1,234 kB/5,678 kB 22%]` | the text in brackets |
//! | apt | `pmstatus:PACKAGE:PERCENT:TEXT`, `dlstatus:NUMBER:PERCENT:TEXT` | the text |
//! | rsync | `32,768  45%  1.23MB/s  0:00:01` | none |
//! | curl | `#####  45.3%`, and the redrawn lines of its meter with a known total | none |
//! | wget | `NAME  45%[====>   ]`, `50K .......... 12%` | the name, none |
//! | tqdm and others | `TEXT: 45%\|####` | the text |
//!
//! Every other percentage counts only if all of this is true:
//!
//! - The command redraws the line: a carriage return without a newline is before or after the line.
//! - The line has exactly one percentage, which is at most 100.
//!
//! So a line of `df`, or `coverage 87%` in a log, is no progress.
//!
//! # Guarantees
//!
//! 1. Chunks of any size lead to the same newest report, if no chunk is longer than [`MAX_SEARCHED_BYTES`].
//! 2. The work for a chunk is bounded, however long the chunk is. Lines that are no reports cause no allocation.
//!
//! # Caveats
//!
//! Writ searches only the end of a long chunk, because a newer report replaces an older report. So it can miss a report
//! before much other output. The first redrawn line of an unknown program counts when its second line begins.

mod escape;
mod formats;

use escape::{ESCAPE, Escape, Movement};
use formats::{Line, Report, printable, recognize, starts_report};

/// Maximum length of the text of a line that is matched, in bytes. A report has its percentage near its beginning.
const MAX_LINE_BYTES: usize = 512;
/// Maximum number of bytes of a chunk that are searched: its last bytes. So the search of a chunk of 64 KiB costs much
/// less than its digest.
const MAX_SEARCHED_BYTES: usize = 2 << 10;

/// Progress of a command.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Completed part in percent, 0 to 100. `None` if it is unknown.
    pub percent: Option<u8>,
    /// Current step of the command, at most 200 characters, without control characters. Empty if it is unknown.
    pub label: String,
}

/// Finder of reports of progress in one stream.
#[derive(Debug, Default)]
pub struct ProgressParser {
    line: UnfinishedLine,
    escape: Escape,
    known: Known,
    /// The last returned report. Unknown progress before the first one.
    returned: Progress,
}

/// The last line so far, without escape sequences.
#[derive(Debug, Default)]
struct UnfinishedLine {
    /// Text, up to [`MAX_LINE_BYTES`].
    text: Vec<u8>,
    /// True if a carriage return without a newline is before this line.
    is_redrawn: bool,
    /// True if a carriage return is after the text. The next byte decides if it belongs to a newline.
    has_return: bool,
    /// True if the beginning of the line was not searched.
    is_cut: bool,
}

/// Progress according to all finished lines.
#[derive(Debug, Default)]
struct Known {
    progress: Option<Progress>,
    /// Percent of all steps of dpkg, as apt last printed it.
    overall: Option<u8>,
    /// True if the newest report is about all steps, or is a step.
    is_step: bool,
}

impl ProgressParser {
    /// Searches the next bytes of the stream. Returns the newest report, if it differs from the last returned report.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Progress> {
        let (unsearched, searched) = bytes.split_at(bytes.len().saturating_sub(MAX_SEARCHED_BYTES));
        if !unsearched.is_empty() {
            self.escape = Escape::None;
            self.line.cut();
        }
        let newline = |byte: &u8| *byte == b'\n';
        match (searched.iter().position(newline), searched.iter().rposition(newline)) {
            (Some(first), Some(last)) if has_no_report(searched) => {
                let (first_line, _) = searched.split_at(first + 1);
                let (_, last_line) = searched.split_at(last + 1);
                self.read(first_line);
                self.read(last_line);
            }
            _ => self.read(searched),
        }
        self.take_newest()
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while let Some((next, after_next)) = bytes.split_first() {
            if self.escape != Escape::None {
                match self.escape.read(*next) {
                    Some(movement) => {
                        self.move_to(movement);
                        bytes = after_next;
                    }
                    None => self.escape = Escape::None,
                }
                continue;
            }
            let is_special = |byte: &u8| matches!(*byte, b'\n' | b'\r' | ESCAPE);
            let (text, rest) = bytes.split_at(bytes.iter().position(is_special).unwrap_or(bytes.len()));
            self.append(text);
            let Some((special, rest)) = rest.split_first() else { return };
            match *special {
                b'\n' => self.end_line(false, false),
                b'\r' => self.line.has_return |= !self.line.is_blank(),
                _ => self.escape = Escape::Start,
            }
            bytes = rest;
        }
    }

    fn append(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        if self.line.has_return {
            self.end_line(true, true);
        }
        if !self.line.is_cut {
            let (kept, _) = text.split_at(text.len().min(MAX_LINE_BYTES.saturating_sub(self.line.text.len())));
            self.line.text.extend_from_slice(kept);
        }
    }

    fn move_to(&mut self, movement: Movement) {
        match movement {
            Movement::None => {}
            Movement::FirstColumn if self.line.is_blank() => {}
            Movement::FirstColumn => self.end_line(true, true),
            Movement::Elsewhere => self.end_line(self.line.has_return, false),
        }
    }

    /// Ends the line. `has_return` is true if a carriage return without a newline ends it. `is_redraw` is true if the
    /// next line replaces it.
    fn end_line(&mut self, has_return: bool, is_redraw: bool) {
        if let Some(report) = self.line.report(has_return, true) {
            self.known.apply(&report);
        }
        self.line.begin(is_redraw);
    }

    /// Returns the newest report, including one in the unfinished line, if it differs from the last returned report.
    fn take_newest(&mut self) -> Option<Progress> {
        let unfinished = self.line.report(false, self.line.has_return).map(|report| self.known.after(&report));
        // Progress becomes unknown again if the rest of an unfinished line shows that the line is no report.
        let unknown = Progress::default();
        let newest = unfinished.as_ref().or(self.known.progress.as_ref()).unwrap_or(&unknown);
        if self.returned == *newest {
            return None;
        }
        self.returned.clone_from(newest);
        Some(self.returned.clone())
    }
}

impl UnfinishedLine {
    fn is_blank(&self) -> bool {
        self.text.is_empty() && !self.is_cut
    }

    fn report(&self, has_return: bool, is_complete: bool) -> Option<Report<'_>> {
        let line = Line { text: &self.text, is_redrawn: self.is_redrawn || has_return, is_complete };
        recognize(&line)
    }

    fn begin(&mut self, is_redrawn: bool) {
        self.text.clear();
        (self.is_redrawn, self.has_return, self.is_cut) = (is_redrawn, false, false);
    }

    fn cut(&mut self) {
        self.begin(false);
        self.is_cut = true;
    }
}

impl Known {
    fn apply(&mut self, report: &Report<'_>) {
        self.progress = Some(self.after(report));
        (self.overall, self.is_step) = match report {
            // After 100 %, the next step belongs to another run of apt.
            Report::Overall(percent) => (Some(*percent).filter(|percent| *percent < 100), true),
            Report::Step(_) => (self.overall, true),
            Report::Single { .. } => (None, false),
        };
    }

    /// Returns the progress after one more report.
    fn after(&self, report: &Report<'_>) -> Progress {
        match report {
            Report::Overall(percent) => {
                let step = self.progress.as_ref().filter(|_| self.is_step);
                Progress { percent: Some(*percent), label: step.map(|step| step.label.clone()).unwrap_or_default() }
            }
            Report::Step(label) => Progress { percent: self.overall, label: printable(label) },
            Report::Single { percent, label } => Progress { percent: Some(*percent), label: printable(label) },
        }
    }
}

/// Returns true if no line between two newlines of these bytes can be a report. There is no early exit, so that the
/// compiler can compare many bytes at once.
fn has_no_report(bytes: &[u8]) -> bool {
    let has_mark =
        bytes.iter().fold(false, |has_mark, byte| has_mark | (*byte == b'%') | (*byte == b'\r') | (*byte == ESCAPE));
    let following = bytes.get(1..).unwrap_or_default();
    let has_start = bytes
        .iter()
        .zip(following)
        .fold(false, |has_start, (byte, next)| has_start | ((*byte == b'\n') & starts_report(*next)));
    !has_mark && !has_start
}

#[cfg(test)]
mod tests;
