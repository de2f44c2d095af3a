//! One session. A session executes one command, and returns all events of this command until the channel is closed.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::time::{Instant, timeout};

/// Maximum size of one write to standard input, in bytes. Larger writes failed during a key exchange.
const MAX_WRITE_BYTES: usize = 32 << 10;

/// Deadline for sending one message. A machine that reads nothing delays the message.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// Maximum time until the machine answers the request for a terminal.
const TERMINAL_DEADLINE: Duration = Duration::from_secs(15);

/// Type of the terminal that Writ requests: the one of most clients. Programs read it from TERM.
const TERMINAL_TYPE: &str = "xterm-256color";

/// A write to standard input in progress.
type Feeding = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send + Sync>>;

/// A session that executes one command.
pub struct Session {
    channel: ChannelReadHalf,
    /// Shared with `feeding`, which is dropped with this value.
    writer: Arc<ChannelWriteHalf<Msg>>,
    /// The write to standard input that [`Session::feed`] or [`Session::start_write`] started. `None` if no write is in
    /// progress.
    feeding: Option<Feeding>,
    /// True if the write in progress ends standard input.
    ends_input: bool,
    /// Time at which the write of [`Session::feed`] was complete.
    fed: Option<Instant>,
    /// True if the machine closed the channel itself. All events of the machine have then arrived.
    closed: bool,
    /// True if the end of standard input was sent. The end must not be sent twice, because some servers then close the
    /// connection.
    has_ended_input: AtomicBool,
    /// Extra time that this machine needs until the first output of a session.
    slack: Duration,
}

/// An event of a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SessionEvent {
    /// The machine accepted the exec request. The login shell runs.
    Started,
    /// The machine refused the exec request. Nothing runs.
    Refused,
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The write of [`Session::start_write`] is complete.
    Written,
    /// Exit code of the command.
    ExitCode(u32),
    /// Signal that ended the command, without `SIG`.
    Signal(String),
    /// The channel is closed. No event follows.
    Closed,
    /// The connection is lost. Later events are unknown.
    Lost,
}

/// A signal for the command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// TERM.
    Terminate,
    /// KILL.
    Kill,
    /// HUP. Interactive shells end by it, and ignore TERM.
    HangUp,
}

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TerminalSize {
    /// Number of columns.
    pub columns: u16,
    /// Number of rows.
    pub rows: u16,
}

impl Session {
    pub(super) fn new(channel: Channel<Msg>) -> Self {
        let (channel, writer) = channel.split();
        Self {
            channel,
            writer: Arc::new(writer),
            feeding: None,
            ends_input: false,
            fed: None,
            closed: false,
            has_ended_input: AtomicBool::new(false),
            slack: Duration::ZERO,
        }
    }

    /// Sets the extra time that this machine needs until the first output of a session.
    pub fn allow(&mut self, slack: Duration) {
        self.slack = slack;
    }

    /// Returns the extra time to wait for the first output, in addition to the usual deadline.
    pub fn slack(&self) -> Duration {
        self.slack
    }

    /// Returns true if the machine has closed the channel. All events of the machine were then returned.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sends the exec request. The machine's answer is [`SessionEvent::Started`] or [`SessionEvent::Refused`].
    ///
    /// # Errors
    /// The connection is lost or accepts no data. The request was not sent.
    pub async fn exec(&self, command_line: &str) -> Result<(), russh::Error> {
        // A request that times out here was not sent, because the connection accepts no data.
        timeout(WRITE_DEADLINE, self.writer.exec(true, command_line)).await.unwrap_or(Err(russh::Error::SendError))
    }

    /// Requests a terminal that echoes no input (RFC 4254, section 6.2). Returns false if the machine refuses. Call it
    /// before [`Session::exec`].
    ///
    /// # Errors
    /// The connection is lost, or the machine did not answer in time. Nothing runs.
    pub async fn request_terminal(&mut self, size: TerminalSize) -> Result<bool, russh::Error> {
        let (columns, rows) = (u32::from(size.columns), u32::from(size.rows));
        let request = self.writer.request_pty(true, TERMINAL_TYPE, columns, rows, 0, 0, &[(Pty::ECHO, 0)]);
        timeout(WRITE_DEADLINE, request).await.unwrap_or(Err(russh::Error::SendError))?;
        let answer = async {
            loop {
                match self.channel.wait().await {
                    Some(ChannelMsg::Success) => return Ok(true),
                    Some(ChannelMsg::Failure) => return Ok(false),
                    Some(ChannelMsg::Close) | None => return Err(russh::Error::Disconnect),
                    Some(_) => {}
                }
            }
        };
        timeout(TERMINAL_DEADLINE, answer).await.unwrap_or(Err(russh::Error::ConnectionTimeout))
    }

    /// Reports a new size of the client's terminal. The machine does not answer.
    pub async fn resize(&self, size: TerminalSize) {
        let (columns, rows) = (u32::from(size.columns), u32::from(size.rows));
        // [`Session::next`] reports a lost connection.
        let _ = timeout(WRITE_DEADLINE, self.writer.window_change(columns, rows, 0, 0)).await;
    }

    /// Writes a few bytes to the command's standard input, which stays open. If this function fails, some bytes were
    /// perhaps sent.
    ///
    /// # Errors
    /// The connection is lost, or the machine accepts no data.
    pub async fn write_stdin(&self, bytes: Bytes) -> Result<(), russh::Error> {
        let sent = timeout(WRITE_DEADLINE, self.writer.data_bytes(bytes)).await;
        sent.unwrap_or(Err(russh::Error::SendError))
    }

    /// Starts a write to the command's standard input: `bytes`, then the end of input. The caller must call
    /// [`Session::next`], which sends the bytes, and also reports a refused exec request.
    pub fn feed(&mut self, bytes: Bytes) {
        let writer = Arc::clone(&self.writer);
        self.fed = None;
        self.ends_input = true;
        self.feeding = Some(Box::pin(async move {
            write_all(&writer, bytes).await?;
            writer.eof().await
        }));
    }

    /// Starts a write to the command's standard input, which stays open. The caller must call [`Session::next`], which
    /// sends the bytes. Call it only if [`Session::is_writing`] returns false.
    pub fn start_write(&mut self, bytes: Bytes) {
        let writer = Arc::clone(&self.writer);
        self.ends_input = false;
        self.feeding = Some(Box::pin(async move { write_all(&writer, bytes).await }));
    }

    /// Returns true while a write to standard input is in progress.
    pub fn is_writing(&self) -> bool {
        self.feeding.is_some()
    }

    /// Returns the time at which the machine had accepted all bytes of [`Session::feed`]. Returns `None` before this
    /// time.
    pub fn fed(&self) -> Option<Instant> {
        self.fed
    }

    /// Ends the command's standard input.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn end_input(&self) -> Result<(), russh::Error> {
        if self.has_ended_input.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.writer.eof().await
    }

    /// Ends the command's standard input and closes the channel. A running command keeps running.
    pub async fn close(self) {
        // Both calls fail only if the connection is lost or the machine reads nothing. Both errors are ignored.
        let _ = timeout(WRITE_DEADLINE, async {
            let _ = self.end_input().await;
            let _ = self.writer.close().await;
        })
        .await;
    }

    /// Requests a signal for the command's process group (RFC 4254, section 6.9). The machine does not answer, so the
    /// caller must observe the effect. For example, OpenSSH 9.2 sends no signal if the user is root or ForceCommand is
    /// set. [`Session::next`] reports a lost connection.
    pub async fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Terminate => Sig::TERM,
            Signal::Kill => Sig::KILL,
            Signal::HangUp => Sig::HUP,
        };
        let _ = timeout(WRITE_DEADLINE, self.writer.signal(signal)).await;
    }

    /// Returns the next event. Has no deadline. A caller may drop the future at any time and call again.
    pub async fn next(&mut self) -> SessionEvent {
        loop {
            let feeding = &mut self.feeding;
            let message = tokio::select! {
                message = self.channel.wait() => message,
                sent = async { match feeding.as_mut() { Some(feeding) => feeding.await, None => pending().await } } => {
                    self.feeding = None;
                    // If the write failed, the next event reports the closed channel or the lost connection.
                    if !self.ends_input {
                        return SessionEvent::Written;
                    }
                    if sent.is_ok() {
                        self.has_ended_input.store(true, Ordering::Relaxed);
                        self.fed = Some(Instant::now());
                    }
                    continue;
                }
            };
            let Some(message) = message else {
                return if self.closed { SessionEvent::Closed } else { SessionEvent::Lost };
            };
            match message {
                ChannelMsg::Success => return SessionEvent::Started,
                ChannelMsg::Failure => return SessionEvent::Refused,
                ChannelMsg::Data { data } => return SessionEvent::Stdout(data),
                // RFC 4254, section 5.2: type 1 is standard error. No other type is defined.
                ChannelMsg::ExtendedData { data, ext: 1 } => return SessionEvent::Stderr(data),
                ChannelMsg::ExitStatus { exit_status } => return SessionEvent::ExitCode(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    return SessionEvent::Signal(sanitize_signal_name(signal_name));
                }
                ChannelMsg::Close => {
                    self.closed = true;
                    return SessionEvent::Closed;
                }
                _ => {}
            }
        }
    }
}

async fn write_all(writer: &ChannelWriteHalf<Msg>, bytes: Bytes) -> Result<(), russh::Error> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(MAX_WRITE_BYTES));
        writer.data_bytes(piece).await?;
    }
    Ok(())
}

/// Returns the name of a signal as Writ records it. Of an unknown name, keeps at most 32 printable characters.
fn sanitize_signal_name(signal: Sig) -> String {
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
