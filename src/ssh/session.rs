//! One session: one command, and everything the machine says of it, until the channel is closed.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::time::{Instant, timeout};

/// Of standard input goes at most so much at once: larger writes broke over a key exchange.
const LARGEST_WRITE: usize = 32 << 10;

/// How long a word may take to go out: a machine that reads nothing makes it wait.
const WORD_DEADLINE: Duration = Duration::from_secs(5);

/// Standard input on its way.
type Feeding = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send + Sync>>;

/// A session in which one command is executed.
pub struct Session {
    channel: ChannelReadHalf,
    /// Shared with the task that feeds, which is dropped with this.
    writer: Arc<ChannelWriteHalf<Msg>>,
    /// What [`Session::feed`] was given and has not gone out yet.
    feeding: Option<Feeding>,
    /// When all of that had gone out.
    fed: Option<Instant>,
    /// Whether the machine closed the channel itself: then nothing is missing.
    closed: bool,
    /// True once the end of standard input was sent. Some servers close a connection that receives it twice.
    has_ended_input: AtomicBool,
    /// How much longer than usual this machine takes to execute something.
    slack: Duration,
}

/// Something that the machine said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// It accepted the request to execute: the login shell runs.
    Started,
    /// It refused the request to execute: nothing runs.
    Refused,
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The exit code of the command.
    ExitCode(u32),
    /// The signal that ended the command, without `SIG`.
    Signal(String),
    /// The channel is closed: nothing comes any more.
    Closed,
    /// The connection is lost: what would have come is not known.
    Lost,
}

/// What a command can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// To end.
    Terminate,
    /// To be ended.
    Kill,
}

impl Session {
    pub(super) fn new(channel: Channel<Msg>) -> Self {
        let (channel, writer) = channel.split();
        Self {
            channel,
            writer: Arc::new(writer),
            feeding: None,
            fed: None,
            closed: false,
            has_ended_input: AtomicBool::new(false),
            slack: Duration::ZERO,
        }
    }

    /// Notes how much longer than usual this machine takes to execute something, for whoever waits for that.
    pub fn allow(&mut self, slack: Duration) {
        self.slack = slack;
    }

    /// Time to wait beyond the usual deadline for a first word.
    pub fn slack(&self) -> Duration {
        self.slack
    }

    /// Whether the machine has closed the channel: then everything that it had to say was heard.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Asks the machine to execute. Whether it does comes as [`Event::Started`] or [`Event::Refused`].
    ///
    /// # Errors
    /// The connection is gone, and the request was not sent.
    pub async fn start(&self, command_line: &str) -> Result<(), russh::Error> {
        // It is not sent if it waits for so long: the connection takes nothing.
        timeout(WORD_DEADLINE, self.writer.exec(true, command_line)).await.unwrap_or(Err(russh::Error::SendError))
    }

    /// Sends a few bytes to the command's standard input, which stays open. They may have been sent if this fails.
    ///
    /// # Errors
    /// The connection is gone, or the machine takes nothing.
    pub async fn send(&self, bytes: Bytes) -> Result<(), russh::Error> {
        let sent = timeout(WORD_DEADLINE, self.writer.data_bytes(bytes)).await;
        sent.unwrap_or(Err(russh::Error::SendError))
    }

    /// Sends bytes to the command's standard input, and its end behind them, while [`Session::next`] is waited for: a machine
    /// that refuses to execute takes no byte and says so, and whoever only waits for it to take them does not hear that.
    pub fn feed(&mut self, bytes: Bytes) {
        let writer = Arc::clone(&self.writer);
        self.fed = None;
        self.feeding = Some(Box::pin(async move {
            let mut rest = bytes;
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(LARGEST_WRITE));
                writer.data_bytes(piece).await?;
            }
            writer.eof().await
        }));
    }

    /// When the machine had taken all that [`Session::feed`] was given. `None` if it has not.
    pub fn fed(&self) -> Option<Instant> {
        self.fed
    }

    /// Ends the command's standard input.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn end_input(&self) -> Result<(), russh::Error> {
        if self.has_ended_input.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.writer.eof().await
    }

    /// Ends the command's standard input and closes the channel, whatever still runs at the other end.
    pub async fn hang_up(self) {
        // Both fail only where the connection is gone, and with it the channel, or where the machine reads nothing.
        let _ = timeout(WORD_DEADLINE, async {
            let _ = self.end_input().await;
            let _ = self.writer.close().await;
        })
        .await;
    }

    /// Asks the machine to signal the command's process group (RFC 4254, section 6.9). A request without an answer:
    /// OpenSSH 9.2 does it only for users other than root and not under ForceCommand, so the effect has to be
    /// seen. That the connection is gone is seen by [`Session::next`].
    pub async fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Terminate => Sig::TERM,
            Signal::Kill => Sig::KILL,
        };
        let _ = timeout(WORD_DEADLINE, self.writer.signal(signal)).await;
    }

    /// The next thing that the machine says. Waits as long as it takes; safe to drop and call again.
    pub async fn next(&mut self) -> Event {
        loop {
            let feeding = &mut self.feeding;
            let message = tokio::select! {
                message = self.channel.wait() => message,
                sent = async { match feeding.as_mut() { Some(feeding) => feeding.await, None => pending().await } } => {
                    self.feeding = None;
                    // If it fails, the machine has closed the channel or the connection is gone: both are heard next.
                    if sent.is_ok() {
                        self.has_ended_input.store(true, Ordering::Relaxed);
                        self.fed = Some(Instant::now());
                    }
                    continue;
                }
            };
            let Some(message) = message else {
                return if self.closed { Event::Closed } else { Event::Lost };
            };
            match message {
                ChannelMsg::Success => return Event::Started,
                ChannelMsg::Failure => return Event::Refused,
                ChannelMsg::Data { data } => return Event::Stdout(data),
                // RFC 4254, section 5.2: type 1 is standard error. No other type is defined.
                ChannelMsg::ExtendedData { data, ext: 1 } => return Event::Stderr(data),
                ChannelMsg::ExitStatus { exit_status } => return Event::ExitCode(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => return Event::Signal(signal_word(signal_name)),
                ChannelMsg::Close => {
                    self.closed = true;
                    return Event::Closed;
                }
                _ => {}
            }
        }
    }
}

/// A signal's name as it is recorded; a machine may send any text as one, so it is cut to what a name can be.
fn signal_word(signal: Sig) -> String {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => {
            return name.chars().filter(|character| character.is_ascii_graphic()).take(32).collect();
        }
    };
    name.to_owned()
}
