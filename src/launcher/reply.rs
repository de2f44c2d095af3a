//! A reply, read from the two streams of a session as they come.
//!
//! ```text
//! stdout: [noise] (MARK line NEWLINE [bytes])... MARK . NEWLINE
//! stderr: [noise] (MARK line NEWLINE [bytes])... MARK . NEWLINE      for a reply with output only
//! MARK:   WRIT2:NONCE:
//! line:   C OFFSET LENGTH      a frame: LENGTH bytes of the stream, from OFFSET on, follow
//!         +                    nothing; confirms what comes before it
//!         an answer            on standard output only, see `answer`
//! ```
//!
//! Noise is what the login's own files print before the first mark. From then on each mark stands in its place: output is
//! never searched, so a command cannot write a reply, whatever bytes it writes.
//!
//! An answer or a frame counts only once the mark behind it was found in its place. Text that others write into the
//! session (a background job of a start-up file) shifts that mark, and cannot hold the nonce: then the reply is broken.
//! Everything that counted before that is right, and the rest is read again in another session. A mark and its line are
//! one write, so text of others stands before or behind them.
//!
//! A hostile machine can lie; it cannot make this hold more than one line and one frame of each stream.

use super::Nonce;
use super::answer::{Answer, Line, Offsets, read};

/// Maximum noise before the reply, in bytes on each stream. A start-up file that prints more is faulty.
const MAX_NOISE: usize = 64 * 1024;
/// Maximum length of a line in bytes: a path of 4,096 characters, with room.
const MAX_LINE: usize = 8 * 1024;
/// Maximum length of a frame in bytes, `_frame` in send.sh. One frame of each stream is held in memory.
const MAX_FRAME: u64 = 1 << 20;

/// Something that a reply says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item<'a> {
    /// An answer. After [`Answer::Running`] to a launch or an attach comes another one, when the execution has ended.
    Answer(Answer),
    /// The next bytes of standard output.
    Stdout(&'a [u8]),
    /// The next bytes of standard error.
    Stderr(&'a [u8]),
    /// The rest cannot be read. Nothing more comes.
    Broken(Broken),
}

/// What is wrong with what a machine has sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Broken {
    /// No reply within the first 64 KiB of a stream.
    #[error("the login prints more than 64 KiB, and no reply of the launcher came")]
    Noise,
    /// A line that says nothing known, or is too long.
    #[error("the reply of the launcher cannot be read")]
    Line,
    /// A mark is not in its place.
    #[error(
        "other text was mixed into the reply of the launcher: a start-up file of the login leaves a job that prints"
    )]
    Mixed,
    /// Offsets and lengths that contradict each other.
    #[error("the lengths in the reply of the launcher contradict each other")]
    Lengths,
}

/// Reads one reply. Give it what comes, in pieces of any size.
#[derive(Debug)]
pub struct Reply {
    mark: Vec<u8>,
    stdout: Stream,
    stderr: Stream,
    /// True once the execution was said to run: then only its end may follow.
    is_running: bool,
    /// The answer that the next mark confirms.
    unconfirmed: Option<(Answer, bool)>,
    /// The lengths that the last answer has promised, and whether output belongs to it.
    settled: Option<(Offsets, bool)>,
    from: Offsets,
    is_broken: bool,
}

/// One of the two streams.
#[derive(Debug)]
struct Stream {
    state: State,
    /// Length of the part of the mark that was found so far.
    matched: usize,
    /// Bytes of noise so far.
    noise: usize,
    /// Offset of the next byte in the output.
    offset: u64,
    /// The frame that the next mark confirms.
    frame: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Before the first mark.
    Noise,
    /// In front of a mark.
    Mark,
    /// Behind a mark: the line so far.
    Line(Vec<u8>),
    /// In a frame: the number of bytes to come.
    Frame(usize),
    /// Behind the last line.
    Over,
}

impl Stream {
    fn new(offset: u64) -> Self {
        Self { state: State::Noise, matched: 0, noise: 0, offset, frame: Vec::new() }
    }

    /// Starts a frame.
    fn announce(&mut self, offset: u64, length: u64) -> Result<(), Broken> {
        let length = usize::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(Broken::Lengths)?;
        if offset != self.offset {
            return Err(Broken::Lengths);
        }
        self.state = if length == 0 { State::Mark } else { State::Frame(length) };
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

impl Reply {
    /// A reply to the request with this nonce, with output from its start, if any.
    pub fn new(nonce: &Nonce) -> Self {
        Self::resuming(nonce, Offsets::default())
    }

    /// A reply whose output begins at these offsets.
    pub fn resuming(nonce: &Nonce, from: Offsets) -> Self {
        Self {
            mark: format!("WRIT2:{}:", nonce.0).into_bytes(),
            stdout: Stream::new(from.stdout),
            stderr: Stream::new(from.stderr),
            is_running: false,
            unconfirmed: None,
            settled: None,
            from,
            is_broken: false,
        }
    }

    /// Returns true once all was said and every byte of output has come. If the session ends earlier, attach again from
    /// the offsets that are held.
    pub fn is_complete(&self) -> bool {
        let is_over = |stream: &Stream| matches!(stream.state, State::Over);
        !self.is_broken
            && is_over(&self.stdout)
            && self.settled.is_some_and(|(_, has_output)| !has_output || is_over(&self.stderr))
    }

    /// Returns true if all was said on standard output, and standard error has not begun: once the session is closed, a start-up file
    /// of the login has sent standard error elsewhere.
    pub fn is_without_stderr(&self) -> bool {
        !self.is_broken
            && matches!((&self.stdout.state, &self.stderr.state), (State::Over, State::Noise))
            && self.settled.is_some_and(|(_, has_output)| has_output)
    }

    /// Returns true if a mark of this request was found: the machine evaluated it, or refused it.
    pub fn has_begun(&self) -> bool {
        !matches!(self.stdout.state, State::Noise)
    }

    /// Takes what came on standard output.
    pub fn stdout(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Item<'_>)) {
        self.push(Which::Stdout, bytes, sink);
    }

    /// Takes what came on standard error.
    pub fn stderr(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Item<'_>)) {
        self.push(Which::Stderr, bytes, sink);
    }

    fn push(&mut self, which: Which, mut bytes: &[u8], sink: &mut dyn FnMut(Item<'_>)) {
        while !bytes.is_empty() && !self.is_broken {
            match self.step(which, bytes, sink) {
                Ok(rest) => bytes = rest,
                Err(broken) => {
                    self.is_broken = true;
                    sink(Item::Broken(broken));
                }
            }
        }
    }

    /// Takes the first part of these bytes, which are not empty, and returns the rest.
    fn step<'a>(&mut self, which: Which, bytes: &'a [u8], sink: &mut dyn FnMut(Item<'_>)) -> Result<&'a [u8], Broken> {
        let Self { mark, stdout, stderr, .. } = self;
        let stream = match which {
            Which::Stdout => stdout,
            Which::Stderr => stderr,
        };
        match &mut stream.state {
            State::Noise => {
                let (is_found, rest) = find(mark, &mut stream.matched, bytes);
                stream.noise = stream.noise.saturating_add(bytes.len() - rest.len());
                if stream.noise > MAX_NOISE {
                    return Err(Broken::Noise);
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
                let Some((line, rest)) = gather(line, bytes)? else { return Ok(&[]) };
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
            State::Over => Ok(&[]),
        }
    }

    /// A mark was found in its place: what stands before it counts.
    fn confirm(&mut self, which: Which, sink: &mut dyn FnMut(Item<'_>)) -> Result<(), Broken> {
        let stream = match which {
            Which::Stdout => &mut self.stdout,
            Which::Stderr => &mut self.stderr,
        };
        if !stream.frame.is_empty() {
            let frame = std::mem::take(&mut stream.frame);
            stream.offset = stream.offset.checked_add(frame.len() as u64).ok_or(Broken::Lengths)?;
            sink(match which {
                Which::Stdout => Item::Stdout(&frame),
                Which::Stderr => Item::Stderr(&frame),
            });
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
            self.settled = lengths.map(|lengths| (lengths, has_output));
            sink(Item::Answer(answer));
        }
        Ok(())
    }

    /// A whole line behind a mark.
    fn line(&mut self, which: Which, line: &str) -> Result<(), Broken> {
        let line = read(line).ok_or(Broken::Line)?;
        let stream = match which {
            Which::Stdout => &mut self.stdout,
            Which::Stderr => &mut self.stderr,
        };
        match (line, which) {
            (Line::Nothing, _) => Ok(()),
            (Line::Frame { offset, length }, Which::Stderr) => stream.announce(offset, length),
            // On standard output nothing follows the last answer.
            (Line::Frame { offset, length }, Which::Stdout) if self.settled.is_none() => {
                stream.announce(offset, length)
            }
            (Line::Last, _) => {
                stream.state = State::Over;
                self.check_lengths()
            }
            (Line::Answer { answer, bytes }, Which::Stdout) if self.settled.is_none() => {
                let bytes = bytes && matches!(answer, Answer::Running(_) | Answer::Ended(_) | Answer::Lost(_));
                let is_end = bytes && !matches!(answer, Answer::Running(_));
                // Only an end belongs to output or to a command that runs.
                if !is_end && (self.is_running || stream.offset != self.from.stdout) {
                    return Err(Broken::Line);
                }
                self.unconfirmed = Some((answer, bytes));
                Ok(())
            }
            _ => Err(Broken::Line),
        }
    }

    /// Once both streams are over, they have what was promised. A reader that asked from behind the end gets nothing.
    fn check_lengths(&self) -> Result<(), Broken> {
        let Some((lengths, true)) = self.settled else { return Ok(()) };
        for (stream, length, from) in
            [(&self.stdout, lengths.stdout, self.from.stdout), (&self.stderr, lengths.stderr, self.from.stderr)]
        {
            if matches!(stream.state, State::Over) && stream.offset != length.max(from) {
                return Err(Broken::Lengths);
            }
        }
        Ok(())
    }
}

/// Adds to a line what comes up to its newline: None while that has not come, else the line, and what comes behind it.
fn gather<'a>(line: &mut Vec<u8>, bytes: &'a [u8]) -> Result<Option<(String, &'a [u8])>, Broken> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    if line.len() + part.len() > MAX_LINE {
        return Err(Broken::Line);
    }
    line.extend_from_slice(part);
    let Some(end) = end else { return Ok(None) };
    let line = String::from_utf8(std::mem::take(line)).map_err(|_| Broken::Line)?;
    Ok(Some((line, bytes.get(end + 1..).unwrap_or_default())))
}

/// Reads on in the mark, which has to stand here: whether it is whole, and the bytes behind.
fn expect<'a>(mark: &[u8], matched: &mut usize, bytes: &'a [u8]) -> Result<(bool, &'a [u8]), Broken> {
    let wanted = mark.get(*matched..).unwrap_or_default();
    let length = wanted.len().min(bytes.len());
    let (part, rest) = bytes.split_at(length);
    if !wanted.starts_with(part) {
        return Err(Broken::Mixed);
    }
    *matched += length;
    let is_whole = *matched == mark.len();
    if is_whole {
        *matched = 0;
    }
    Ok((is_whole, rest))
}

/// Looks for the mark: whether it was found, and the bytes behind. `matched` is how much of it has gone by, and is kept
/// from piece to piece. The first byte of the mark is nowhere else in it, so bytes that matched in part hold no start of
/// another one.
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
