//! One exec request and its reply.

use std::io::{Read, Write};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use writ::launcher::{Answer, Ended, Offsets, Reply, ReplyError, ReplyEvent};

/// Timeout after which a test has failed. No test depends on the duration of a step.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Piece of one of the two streams, or `None` at its end.
enum Piece {
    Stdout(Option<Vec<u8>>),
    Stderr(Option<Vec<u8>>),
}

/// Session of one exec request.
pub struct Session {
    /// `None` after a method has taken the child to wait for its end.
    child: Option<Child>,
    pieces: Receiver<Piece>,
    open: usize,
    reply: Reply,
    pub said: Said,
}

/// Content of a reply.
#[derive(Debug, Default)]
pub struct Said {
    pub answers: Vec<Answer>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub broken: Option<ReplyError>,
    pub complete: bool,
}

impl Said {
    /// Returns the last answer.
    pub fn answer(&self) -> &Answer {
        self.answers.last().unwrap_or_else(|| panic!("no answer: {self:?}"))
    }

    /// Returns the end of the command. Panics if the reply is incomplete.
    pub fn ended(&self) -> &Ended {
        assert!(self.complete, "not complete: {self:?}");
        match self.answer() {
            Answer::Ended(ended) => ended,
            other => panic!("not ended: {other:?}"),
        }
    }

    fn take(&mut self, item: ReplyEvent<'_>) {
        match item {
            ReplyEvent::Answer(answer) => self.answers.push(answer),
            ReplyEvent::Stdout(bytes) => self.stdout.extend_from_slice(bytes),
            ReplyEvent::Stderr(bytes) => self.stderr.extend_from_slice(bytes),
            ReplyEvent::Malformed(broken) => self.broken = Some(broken),
        }
    }

    pub fn offsets(&self) -> Offsets {
        Offsets { stdout: self.stdout.len() as u64, stderr: self.stderr.len() as u64 }
    }
}

fn pump(mut from: impl Read + Send + 'static, to: Sender<Piece>, piece: fn(Option<Vec<u8>>) -> Piece) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            let part = buffer.get(..read).filter(|part| !part.is_empty()).map(<[u8]>::to_vec);
            if to.send(piece(part)).is_err() || read == 0 {
                return;
            }
        }
    });
}

impl Session {
    pub fn new(mut child: Child, reply: Reply, stdin_bytes: &[u8]) -> Self {
        let mut stdin = child.stdin.take().expect("a pipe");
        let (sender, pieces) = channel();
        pump(child.stdout.take().expect("a pipe"), sender.clone(), Piece::Stdout);
        pump(child.stderr.take().expect("a pipe"), sender, Piece::Stderr);
        // A login shell that does not read its input may end before the write.
        let _ = stdin.write_all(stdin_bytes);
        drop(stdin);
        Self { child: Some(child), pieces, open: 2, reply, said: Said::default() }
    }

    /// Processes the reply until `enough` returns true or the reply ends.
    pub fn until(&mut self, enough: impl Fn(&Said) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while self.open > 0 && !enough(&self.said) {
            let piece = match self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(piece) => piece,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("no end of it: {:?}", self.said),
            };
            let Self { reply, said, .. } = self;
            match piece {
                Piece::Stdout(Some(bytes)) => reply.stdout(&bytes, &mut |item| said.take(item)),
                Piece::Stderr(Some(bytes)) => reply.stderr(&bytes, &mut |item| said.take(item)),
                Piece::Stdout(None) | Piece::Stderr(None) => self.open -= 1,
            }
            self.said.complete = self.reply.is_complete();
        }
    }

    /// Returns the whole reply.
    pub fn finish(mut self) -> Said {
        self.until(|said| said.complete || said.broken.is_some());
        self.hang_up()
    }

    /// Closes the channel, like a client that disappeared. Returns the reply so far.
    pub fn hang_up(mut self) -> Said {
        std::mem::take(&mut self.said)
    }

    /// Waits for the end of the login shell. Returns the reply and the exit code.
    pub fn exited(mut self) -> (Said, Option<i32>) {
        self.until(|_| false);
        let status = self.child.take().expect("a child").wait().expect("an end");
        (std::mem::take(&mut self.said), status.code())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A launcher runs as long as its command, so a thread waits for its end.
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || child.wait());
        }
    }
}
