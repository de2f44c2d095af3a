//! Reads a reply from the two streams of a session.
//!
//! ```text
//! stdout: [preamble] (MARK line NEWLINE [bytes])... MARK . NEWLINE
//! stderr: [preamble] (MARK line NEWLINE [bytes])... MARK . NEWLINE      only if the reply can contain output
//! MARK:   WRIT2:NONCE:
//! line:   C OFFSET LENGTH      a frame: LENGTH bytes of the stream, from OFFSET on, follow
//!         +                    no content; confirms the part before it
//!         an answer            on standard output only, see `answer`
//! ```
//!
//! The preamble is the output of the login's start-up files before the first mark. After the preamble, each mark has a
//! known position. The reader never searches output for a mark, so no command can forge a reply.
//!
//! A background job of a start-up file can write foreign text into the session. Foreign text shifts the next mark, so
//! the reader reports the reply as malformed. Foreign text cannot contain the nonce. A mark and its line are one write,
//! so foreign text cannot interrupt a mark or its line.
//!
//! The reader emits an answer or a frame only after the next mark. All events before a malformed part are therefore
//! correct. Another session reads the remaining output.
//!
//! For each stream, the reader keeps at most one line and one frame in memory, even if the machine is hostile.

use super::answer::{Answer, Offsets, ReplyLine, read};
use super::identifiers::Nonce;

/// Maximum length of the preamble of each stream, in bytes. A start-up file that prints more is faulty.
const MAX_PREAMBLE: usize = 64 * 1024;
/// Maximum length of a line, in bytes. A line with a path of 4,096 characters fits.
const MAX_LINE: usize = 8 * 1024;
/// Maximum length of a frame, in bytes: the same value as `_frame` in send.sh. The reader keeps one frame of each
/// stream in memory.
const MAX_FRAME: u64 = 1 << 20;

/// Maximum ratio of the kept memory to the length of the next frame. Above this ratio, the reader frees the memory. A
/// command with little output then does not keep the memory of an earlier long frame.
const MAX_SLACK: usize = 4;

/// An event of a reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReplyEvent<'a> {
    /// An answer. After [`Answer::Running`] to a launch or an attach, another answer follows when the execution has
    /// ended.
    Answer(Answer),
    /// The next bytes of standard output.
    Stdout(&'a [u8]),
    /// The next bytes of standard error.
    Stderr(&'a [u8]),
    /// The rest of the reply cannot be read. No more events follow.
    Malformed(ReplyError),
}

/// Fault of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReplyError {
    /// There is no reply in the first 64 KiB of a stream.
    #[error("the login prints more than 64 KiB before any reply of the launcher")]
    NoReplyFound,
    /// A line is unknown or too long.
    #[error("the reply of the launcher is malformed")]
    Line,
    /// A mark is not at its position.
    #[error(
        "the reply of the launcher is mixed with other text: a start-up file of the login leaves a job that prints"
    )]
    Mixed,
    /// Offsets and lengths contradict each other.
    #[error("the lengths in the reply of the launcher contradict each other")]
    BadLengths,
}

/// Reader of one reply. The reader accepts the bytes in pieces of any size.
#[derive(Debug)]
pub struct Reply {
    mark: Vec<u8>,
    stdout: Stream,
    stderr: Stream,
    /// True after the answer `Running`. From then on, the only valid answers are `Ended` and `Lost`.
    is_running: bool,
    /// Answer that the next mark confirms, and a flag that is true if output belongs to this answer.
    unconfirmed: Option<(Answer, bool)>,
    /// Lengths in the final answer, and a flag that is true if output belongs to this answer.
    final_answer: Option<(Offsets, bool)>,
    from: Offsets,
    is_broken: bool,
}

/// State of one of the two streams.
#[derive(Debug)]
struct Stream {
    state: State,
    /// Length of the part of the mark that was found so far.
    matched: usize,
    /// Number of preamble bytes so far.
    preamble: usize,
    /// Offset of the next byte in the output.
    offset: u64,
    /// Bytes of a frame that the next mark confirms.
    frame: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Before the first mark.
    Preamble,
    /// The next bytes must be a mark.
    Mark,
    /// After a mark: the line so far.
    Line(Vec<u8>),
    /// In a frame: the number of remaining bytes.
    Frame(usize),
    /// After the last line.
    Done,
}

impl Stream {
    fn new(offset: u64) -> Self {
        Self { state: State::Preamble, matched: 0, preamble: 0, offset, frame: Vec::new() }
    }

    /// Starts a frame.
    fn announce(&mut self, offset: u64, length: u64) -> Result<(), ReplyError> {
        let length = usize::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(ReplyError::BadLengths)?;
        if offset != self.offset {
            return Err(ReplyError::BadLengths);
        }
        self.state = if length == 0 { State::Mark } else { State::Frame(length) };
        if self.frame.capacity() > MAX_SLACK.saturating_mul(length) {
            self.frame = Vec::new();
        }
        self.frame.reserve_exact(length);
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

impl Reply {
    /// Creates a reader for the reply to the request with this nonce. The output in the reply begins at offset 0.
    pub fn new(nonce: &Nonce) -> Self {
        Self::resuming(nonce, Offsets::default())
    }

    /// Creates a reader for a reply whose output begins at these offsets.
    pub fn resuming(nonce: &Nonce, from: Offsets) -> Self {
        Self {
            mark: format!("WRIT2:{}:", nonce.0).into_bytes(),
            stdout: Stream::new(from.stdout),
            stderr: Stream::new(from.stderr),
            is_running: false,
            unconfirmed: None,
            final_answer: None,
            from,
            is_broken: false,
        }
    }

    /// Returns true after the final answer and all output have arrived. If the session ends earlier, the caller must
    /// attach again from the received offsets.
    pub fn is_complete(&self) -> bool {
        let is_done = |stream: &Stream| matches!(stream.state, State::Done);
        !self.is_broken
            && is_done(&self.stdout)
            && self.final_answer.is_some_and(|(_, has_output)| !has_output || is_done(&self.stderr))
    }

    /// Returns true if standard output is complete and standard error has not begun. At the end of the session, this
    /// result means that a start-up file has redirected standard error.
    pub fn is_without_stderr(&self) -> bool {
        !self.is_broken
            && matches!((&self.stdout.state, &self.stderr.state), (State::Done, State::Preamble))
            && self.final_answer.is_some_and(|(_, has_output)| has_output)
    }

    /// Returns true if a mark of this request was found. The machine has then evaluated or refused the request.
    pub fn has_begun(&self) -> bool {
        !matches!(self.stdout.state, State::Preamble)
    }

    /// Accepts bytes of standard output.
    pub fn stdout(&mut self, bytes: &[u8], sink: &mut dyn FnMut(ReplyEvent<'_>)) {
        self.push(Which::Stdout, bytes, sink);
    }

    /// Accepts bytes of standard error.
    pub fn stderr(&mut self, bytes: &[u8], sink: &mut dyn FnMut(ReplyEvent<'_>)) {
        self.push(Which::Stderr, bytes, sink);
    }

    fn push(&mut self, which: Which, mut bytes: &[u8], sink: &mut dyn FnMut(ReplyEvent<'_>)) {
        while !bytes.is_empty() && !self.is_broken {
            match self.step(which, bytes, sink) {
                Ok(rest) => bytes = rest,
                Err(broken) => {
                    self.is_broken = true;
                    sink(ReplyEvent::Malformed(broken));
                }
            }
        }
    }

    /// Processes the first part of these bytes, which are not empty, and returns the rest.
    fn step<'a>(
        &mut self,
        which: Which,
        bytes: &'a [u8],
        sink: &mut dyn FnMut(ReplyEvent<'_>),
    ) -> Result<&'a [u8], ReplyError> {
        let Self { mark, stdout, stderr, .. } = self;
        let stream = match which {
            Which::Stdout => stdout,
            Which::Stderr => stderr,
        };
        match &mut stream.state {
            State::Preamble => {
                let (is_found, rest) = find(mark, &mut stream.matched, bytes);
                stream.preamble = stream.preamble.saturating_add(bytes.len() - rest.len());
                if stream.preamble > MAX_PREAMBLE {
                    return Err(ReplyError::NoReplyFound);
                }
                if is_found {
                    stream.state = State::Line(Vec::new());
                }
                Ok(rest)
            }
            State::Mark => {
                let (is_found, rest) = expect(mark, &mut stream.matched, bytes)?;
                if is_found {
                    stream.state = State::Line(Vec::new());
                    self.confirm(which, sink)?;
                }
                Ok(rest)
            }
            State::Line(line) => {
                let Some((line, rest)) = push_line(line, bytes)? else { return Ok(&[]) };
                stream.state = State::Mark;
                self.line(which, &line)?;
                Ok(rest)
            }
            State::Frame(left) => {
                let (part, rest) = bytes.split_at(bytes.len().min(*left));
                stream.frame.extend_from_slice(part);
                *left -= part.len();
                if *left == 0 {
                    stream.state = State::Mark;
                }
                Ok(rest)
            }
            State::Done => Ok(&[]),
        }
    }

    /// Emits the answer or frame that the mark at this position confirms.
    fn confirm(&mut self, which: Which, sink: &mut dyn FnMut(ReplyEvent<'_>)) -> Result<(), ReplyError> {
        let stream = match which {
            Which::Stdout => &mut self.stdout,
            Which::Stderr => &mut self.stderr,
        };
        if !stream.frame.is_empty() {
            let mut frame = std::mem::take(&mut stream.frame);
            stream.offset = stream.offset.checked_add(frame.len() as u64).ok_or(ReplyError::BadLengths)?;
            sink(match which {
                Which::Stdout => ReplyEvent::Stdout(&frame),
                Which::Stderr => ReplyEvent::Stderr(&frame),
            });
            // The next frame reuses the memory of this frame.
            frame.clear();
            stream.frame = frame;
        }
        if matches!(which, Which::Stderr) {
            return Ok(());
        }
        if let Some((answer, has_output)) = self.unconfirmed.take() {
            let lengths = match &answer {
                Answer::Running(_) if has_output => None,
                Answer::Ended(ended) if has_output => Some(ended.lengths),
                Answer::Lost(lost) if has_output => Some(lost.lengths),
                _ => Some(Offsets::default()),
            };
            self.is_running = lengths.is_none();
            self.final_answer = lengths.map(|lengths| (lengths, has_output));
            sink(ReplyEvent::Answer(answer));
        }
        Ok(())
    }

    /// Processes a whole line after a mark.
    fn line(&mut self, which: Which, line: &str) -> Result<(), ReplyError> {
        let line = read(line).ok_or(ReplyError::Line)?;
        let stream = match which {
            Which::Stdout => &mut self.stdout,
            Which::Stderr => &mut self.stderr,
        };
        match (line, which) {
            (ReplyLine::Nothing, _) => Ok(()),
            (ReplyLine::Frame { offset, length }, Which::Stderr) => stream.announce(offset, length),
            // On standard output, a frame after the final answer is invalid.
            (ReplyLine::Frame { offset, length }, Which::Stdout) if self.final_answer.is_none() => {
                stream.announce(offset, length)
            }
            (ReplyLine::Last, _) => {
                stream.state = State::Done;
                self.check_lengths()
            }
            (ReplyLine::Answer { answer, bytes }, Which::Stdout) if self.final_answer.is_none() => {
                let bytes = bytes && matches!(answer, Answer::Running(_) | Answer::Ended(_) | Answer::Lost(_));
                let is_end = bytes && !matches!(answer, Answer::Running(_));
                // After output or a report of a running command, only the answers `Ended` and `Lost` are valid.
                if !is_end && (self.is_running || stream.offset != self.from.stdout) {
                    return Err(ReplyError::Line);
                }
                self.unconfirmed = Some((answer, bytes));
                Ok(())
            }
            _ => Err(ReplyError::Line),
        }
    }

    /// Checks that a complete stream has the announced length. If the reader starts beyond the end of the stream, no
    /// bytes arrive, and the offset does not change.
    fn check_lengths(&self) -> Result<(), ReplyError> {
        let Some((lengths, true)) = self.final_answer else { return Ok(()) };
        for (stream, length, from) in
            [(&self.stdout, lengths.stdout, self.from.stdout), (&self.stderr, lengths.stderr, self.from.stderr)]
        {
            if matches!(stream.state, State::Done) && stream.offset != length.max(from) {
                return Err(ReplyError::BadLengths);
            }
        }
        Ok(())
    }
}

/// Appends bytes to a line up to its newline. Returns the line and the rest of the bytes, or `None` if the newline has
/// not arrived yet.
fn push_line<'a>(line: &mut Vec<u8>, bytes: &'a [u8]) -> Result<Option<(String, &'a [u8])>, ReplyError> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    if line.len() + part.len() > MAX_LINE {
        return Err(ReplyError::Line);
    }
    line.extend_from_slice(part);
    let Some(end) = end else { return Ok(None) };
    let line = String::from_utf8(std::mem::take(line)).map_err(|_| ReplyError::Line)?;
    Ok(Some((line, bytes.get(end + 1..).unwrap_or_default())))
}

/// Compares bytes with the next part of the mark. Returns a flag and the remaining bytes. The flag is true if the mark
/// is complete.
fn expect<'a>(mark: &[u8], matched: &mut usize, bytes: &'a [u8]) -> Result<(bool, &'a [u8]), ReplyError> {
    let wanted = mark.get(*matched..).unwrap_or_default();
    let length = wanted.len().min(bytes.len());
    let (part, rest) = bytes.split_at(length);
    if !wanted.starts_with(part) {
        return Err(ReplyError::Mixed);
    }
    *matched += length;
    let is_whole = *matched == mark.len();
    if is_whole {
        *matched = 0;
    }
    Ok((is_whole, rest))
}

/// Searches for the mark. Returns a flag and the remaining bytes. The flag is true if the mark was found. `matched`
/// keeps the length of the matched part between calls. After a mismatch, the search does not go back, because the first
/// byte occurs only once in the mark.
fn find<'a>(mark: &[u8], matched: &mut usize, bytes: &'a [u8]) -> (bool, &'a [u8]) {
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        if Some(first) == mark.get(*matched) {
            *matched += 1;
        } else {
            *matched = usize::from(Some(first) == mark.first());
        }
        rest = behind;
        if *matched == mark.len() {
            *matched = 0;
            return (true, rest);
        }
    }
    (false, rest)
}

#[cfg(test)]
mod tests;
