//! One exec request, and the reply to it.

use std::io::{Read, Write};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use writ::launcher::{Answer, Ended, Offsets, Reply, ReplyError, ReplyEvent};

/// After this a test has failed; nothing is shown by how long something takes.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A piece of one of the two streams; None where it has ended.
enum Piece {
    Stdout(Option<Vec<u8>>),
    Stderr(Option<Vec<u8>>),
}

/// A session that was started.
pub struct Session {
    /// None once somebody waits for it.
    child: Option<Child>,
    pieces: Receiver<Piece>,
    open: usize,
    reply: Reply,
    pub said: Said,
}

/// What a reply has said.
#[derive(Debug, Default)]
pub struct Said {
    pub answers: Vec<Answer>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub broken: Option<ReplyError>,
    pub complete: bool,
}

impl Said {
    /// The last answer.
    pub fn answer(&self) -> &Answer {
        self.answers.last().unwrap_or_else(|| panic!("no answer: {self:?}"))
    }

    /// How it ended, with everything having come.
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
        // A login shell that does not read its input ends without it.
        let _ = stdin.write_all(stdin_bytes);
        drop(stdin);
        Self { child: Some(child), pieces, open: 2, reply, said: Said::default() }
    }

    /// Takes what comes until this is so, or nothing comes any more.
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

    /// The whole reply.
    pub fn finish(mut self) -> Said {
        self.until(|said| said.complete || said.broken.is_some());
        self.hang_up()
    }

    /// Closes the channel, as a client does that has gone; what has come, has.
    pub fn hang_up(mut self) -> Said {
        std::mem::take(&mut self.said)
    }

    /// The reply, and the exit code of the login shell, for which it waits.
    pub fn exited(mut self) -> (Said, Option<i32>) {
        self.until(|_| false);
        let status = self.child.take().expect("a child").wait().expect("an end");
        (std::mem::take(&mut self.said), status.code())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A launcher stays as long as its command.
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || child.wait());
        }
    }
}
