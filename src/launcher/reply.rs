//! A reply, taken from the two streams of a session as they come.
//!
//! ```text
//! stdout: [noise] WRIT:NONCE:D who from from started code signal length length ended flags left NEWLINE bytes
//!         [noise] WRIT:NONCE:A who from from started now group NEWLINE bytes as they come WRIT:NONCE:D ... NEWLINE
//!         [noise] WRIT:NONCE:one line, without bytes NEWLINE
//! stderr: [noise] WRIT:NONCE:2 NEWLINE bytes
//! ```
//!
//! Noise is what the login's own files print. What a hostile machine can do is to lie; it cannot make this hold more than
//! one line, nor take a byte more than it has promised for output.

use super::Nonce;
use super::answer::{Answer, Line, Offsets, read};

/// How much a login may print before the reply, on each stream.
const MOST_NOISE: usize = 64 * 1024;
/// The longest line: that of the leftovers, 200 UIDs of 64 characters, with room.
const LONGEST_LINE: usize = 16 * 1024;

/// Something that a reply says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item<'a> {
    /// An answer. After [`Answer::Running`] to a launch or an attach comes another one, when the execution has ended.
    Answer(Answer),
    /// Bytes of standard output, from where the first answer said.
    Stdout(&'a [u8]),
    /// Bytes of standard error. These may come before the answer.
    Stderr(&'a [u8]),
    /// This is no reply. Nothing more comes.
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
    /// More output than the machine says that there is.
    #[error("the lengths in the reply of the launcher contradict each other")]
    Lengths,
}

/// Reads one reply. Give it what comes, in pieces of any size.
#[derive(Debug)]
pub struct Reply {
    mark: Vec<u8>,
    stdout: Stream,
    stderr: Stream,
    /// Whether an answer has said that output follows as it comes.
    live: bool,
    /// Whether the last answer has come.
    settled: bool,
    broken: bool,
}

/// One of the two streams.
#[derive(Debug)]
struct Stream {
    state: State,
    /// How many bytes of the mark have just gone by.
    matched: usize,
    /// How much noise there was.
    noise: usize,
    /// How many bytes of output have come.
    taken: u64,
    /// How many are to come in all, once that was said.
    promised: Option<u64>,
}

#[derive(Debug)]
enum State {
    /// Before the mark.
    Noise,
    /// Behind a mark: the line so far.
    Line(Vec<u8>),
    /// Output, up to what is promised.
    Bytes,
    /// Output, up to a mark.
    Live,
    /// Nothing is to come.
    Over,
}

impl Stream {
    fn new() -> Self {
        Self { state: State::Noise, matched: 0, noise: 0, taken: 0, promised: None }
    }

    /// The part of these bytes that is output, by what is promised.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let open = self
            .promised
            .map_or(usize::MAX, |all| usize::try_from(all.saturating_sub(self.taken)).unwrap_or(usize::MAX));
        let part = bytes.get(..open).unwrap_or(bytes);
        self.taken = self.taken.saturating_add(part.len() as u64);
        part
    }
}

impl Reply {
    /// A reply to the request with this nonce.
    pub fn new(nonce: &Nonce) -> Self {
        let mark = format!("WRIT:{}:", nonce.0).into_bytes();
        Self { mark, stdout: Stream::new(), stderr: Stream::new(), live: false, settled: false, broken: false }
    }

    /// Whether all was said, and every byte of output has come. Where the session ends without, attach again from the
    /// offsets that are held.
    pub fn is_complete(&self) -> bool {
        let all = |stream: &Stream| stream.promised == Some(stream.taken);
        self.settled && !self.broken && all(&self.stdout) && all(&self.stderr)
    }

    /// Takes what came on standard output.
    pub fn stdout(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Item<'_>)) {
        while !bytes.is_empty() && !self.broken {
            bytes = match &mut self.stdout.state {
                State::Noise | State::Live => self.search(bytes, sink),
                State::Line(line) => match gather(line, bytes) {
                    Ok(None) => return,
                    Ok(Some((line, rest))) => {
                        self.line(&line, sink);
                        rest
                    }
                    Err(broken) => return self.breaks(broken, sink),
                },
                State::Bytes => {
                    let part = self.stdout.take(bytes);
                    if !part.is_empty() {
                        sink(Item::Stdout(part));
                    }
                    return;
                }
                State::Over => return,
            };
        }
    }

    /// Takes what came on standard error.
    pub fn stderr(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Item<'_>)) {
        while !bytes.is_empty() && !self.broken {
            bytes = match &mut self.stderr.state {
                State::Noise => {
                    let found = find(&self.mark, &mut self.stderr.matched, bytes, &mut |_| {});
                    let rest = match found {
                        Some(after) => {
                            self.stderr.state = State::Line(Vec::new());
                            bytes.get(after..).unwrap_or_default()
                        }
                        None => &[],
                    };
                    self.stderr.noise = self.stderr.noise.saturating_add(bytes.len() - rest.len());
                    if self.stderr.noise > MOST_NOISE {
                        return self.breaks(Broken::Noise, sink);
                    }
                    rest
                }
                State::Line(line) => match gather(line, bytes) {
                    Ok(None) => return,
                    Ok(Some((line, rest))) if line == "2" => {
                        self.stderr.state = State::Bytes;
                        rest
                    }
                    Ok(Some(_)) => return self.breaks(Broken::Line, sink),
                    Err(broken) => return self.breaks(broken, sink),
                },
                _ => {
                    let part = self.stderr.take(bytes);
                    if !part.is_empty() {
                        sink(Item::Stderr(part));
                    }
                    return;
                }
            };
        }
    }

    /// Looks for the mark on standard output; what is before it is noise, or output that comes live.
    fn search<'a>(&mut self, bytes: &'a [u8], sink: &mut dyn FnMut(Item<'_>)) -> &'a [u8] {
        let live = matches!(self.stdout.state, State::Live);
        let Self { mark, stdout, .. } = self;
        let mut taken = 0_u64;
        let found = find(mark, &mut stdout.matched, bytes, &mut |part| {
            if live && !part.is_empty() {
                taken = taken.saturating_add(part.len() as u64);
                sink(Item::Stdout(part));
            }
        });
        stdout.taken = stdout.taken.saturating_add(taken);
        let rest = match found {
            Some(after) => {
                stdout.state = State::Line(Vec::new());
                bytes.get(after..).unwrap_or_default()
            }
            None => &[],
        };
        if !live {
            stdout.noise = stdout.noise.saturating_add(bytes.len() - rest.len());
            if stdout.noise > MOST_NOISE {
                self.breaks(Broken::Noise, sink);
            }
        }
        rest
    }

    /// A whole line behind the mark on standard output.
    fn line(&mut self, line: &str, sink: &mut dyn FnMut(Item<'_>)) {
        let Some(Line::Answer { answer, bytes }) = read(line) else { return self.breaks(Broken::Line, sink) };
        let (from, lengths) = match &answer {
            Answer::Running(_) if bytes && !self.live => {
                self.live = true;
                self.stdout.state = State::Live;
                return sink(Item::Answer(answer));
            }
            Answer::Ended(ended) if bytes => (ended.from, ended.lengths),
            Answer::Lost(lost) if bytes => (lost.from, lost.lengths),
            _ if self.live => return self.breaks(Broken::Line, sink),
            _ => (Offsets::default(), Offsets::default()),
        };
        let promised = (lengths.stdout.checked_sub(from.stdout), lengths.stderr.checked_sub(from.stderr));
        let (Some(stdout), Some(stderr)) = promised else { return self.breaks(Broken::Lengths, sink) };
        if self.stdout.taken > stdout || self.stderr.taken > stderr {
            return self.breaks(Broken::Lengths, sink);
        }
        self.stdout.promised = Some(stdout);
        self.stderr.promised = Some(stderr);
        self.stdout.state = if self.live { State::Over } else { State::Bytes };
        self.settled = true;
        sink(Item::Answer(answer));
    }

    fn breaks(&mut self, broken: Broken, sink: &mut dyn FnMut(Item<'_>)) {
        self.broken = true;
        sink(Item::Broken(broken));
    }
}

/// Adds to a line what comes up to its newline: None where that has not come, else the line, and what comes behind it.
fn gather<'a>(line: &mut Vec<u8>, bytes: &'a [u8]) -> Result<Option<(String, &'a [u8])>, Broken> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    if line.len() + part.len() > LONGEST_LINE {
        return Err(Broken::Line);
    }
    line.extend_from_slice(part);
    let Some(end) = end else { return Ok(None) };
    let line = String::from_utf8(std::mem::take(line)).map_err(|_| Broken::Line)?;
    Ok(Some((line, bytes.get(end + 1..).unwrap_or_default())))
}

/// Looks for the mark: gives out what is certainly not part of it, and returns where it ends. `matched` is how much of it
/// has gone by, and is kept from piece to piece. The first byte of the mark is nowhere else in it, so what has matched
/// and then does not is no start of another one.
fn find(mark: &[u8], matched: &mut usize, bytes: &[u8], out: &mut dyn FnMut(&[u8])) -> Option<usize> {
    // How much of what has matched came before these bytes.
    let mut carried = *matched;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if *matched == 0 {
            let Some(next) = rest.iter().position(|byte| Some(byte) == mark.first()) else { break };
            at += next + 1;
            *matched = 1;
        } else if rest.first() == mark.get(*matched) {
            at += 1;
            *matched += 1;
            if *matched == mark.len() {
                out(bytes.get(..(at + carried).saturating_sub(mark.len())).unwrap_or_default());
                *matched = 0;
                return Some(at);
            }
        } else {
            out(mark.get(..carried).unwrap_or_default());
            carried = 0;
            *matched = 0;
        }
    }
    let held = *matched - carried;
    out(bytes.get(..bytes.len() - held).unwrap_or_default());
    None
}

#[cfg(test)]
mod tests;
