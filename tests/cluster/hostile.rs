//! Machines that break the rules of the protocol, which no real sshd does on demand. A fake SSH server performs the
//! steps of a test, in order. The record must never contain more than Writ observed.

use std::time::Duration;

use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Disconnect, Sig};
use serde_json::json;
use writ::api::execution_status::IncompleteReason;
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::fake_sshd;
use crate::lab::asked::without_mark;

/// Step of the fake in answer to an exec request.
#[derive(Clone, Debug)]
enum Word {
    /// Accepts the request. The command prints that it is ready, waits for the permission to start, and prints its
    /// mark.
    Success,
    /// Accepts the request. The command prints that it is ready, but does not read the permission.
    Ready,
    /// Accepts the request, but executes something else.
    SuccessWithoutMark,
    Failure,
    Stdout(Vec<u8>),
    Stderr(&'static str),
    Exit(u32),
    Signal(Sig),
    Eof,
    Close,
    Disconnect,
    /// Sends data on an undefined stream.
    Unknown,
    /// Opens a channel of its own, prints the result on standard error, and ends.
    OpenChannel,
}

struct Fake {
    words: Vec<Word>,
    /// Steps after the fake has read the permission to start.
    later: Vec<Word>,
    stdin: Vec<u8>,
    accepts_sessions: bool,
    /// Time that the fake takes to open a session.
    open_after: Duration,
}

impl Handler for Fake {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _user: &str, _key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        tokio::time::sleep(self.open_after).await;
        if self.accepts_sessions {
            reply.accept().await;
        } else {
            // Sends no answer to the request for a session.
            std::mem::forget(reply);
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let text = String::from_utf8_lossy(data);
        assert!(
            text.starts_with("set +") || text.starts_with("exec /bin/sh") || without_mark(&text).is_some(),
            "{text}"
        );
        let words = self.words.clone();
        self.say(words, channel, session)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.stdin.extend_from_slice(data);
        let line = self.stdin.split(|byte| *byte == b'\n').find(|line| line.len() == 32);
        let (Some(nonce), false) = (line, self.later.is_empty()) else { return Ok(()) };
        let mark = [b"WRIT3:", nonce, b"\n"].concat();
        session.data(channel, mark)?;
        let words = std::mem::take(&mut self.later);
        self.say(words, channel, session)
    }
}

impl Fake {
    fn say(&mut self, words: Vec<Word>, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word {
                Word::Success => {
                    session.channel_success(channel)?;
                    session.data(channel, b"WRIT3:ready\n".to_vec())?;
                    self.later = words.collect();
                    return Ok(());
                }
                Word::Ready => {
                    session.channel_success(channel)?;
                    session.data(channel, b"WRIT3:ready\n".to_vec())?;
                }
                Word::SuccessWithoutMark => session.channel_success(channel)?,
                Word::Failure => session.channel_failure(channel)?,
                Word::Stdout(bytes) => session.data(channel, bytes)?,
                Word::Stderr(text) => session.extended_data(channel, 1, text.as_bytes().to_vec())?,
                Word::OpenChannel => {
                    let handle = session.handle();
                    // The answer arrives through the loop that runs this function. Waiting here would block the loop,
                    // so a task waits.
                    tokio::spawn(async move {
                        let opened = handle.channel_open_forwarded_tcpip("127.0.0.1", 1, "127.0.0.1", 2).await.is_ok();
                        let _ = handle.extended_data(channel, 1, format!("opened: {opened}").into_bytes()).await;
                        let _ = handle.exit_status_request(channel, 0).await;
                        let _ = handle.close(channel).await;
                    });
                }
                Word::Unknown => session.extended_data(channel, 7, b"nothing".to_vec())?,
                Word::Exit(code) => session.exit_status_request(channel, code)?,
                Word::Signal(signal) => session.exit_signal_request(channel, signal, false, "", "")?,
                Word::Eof => session.eof(channel)?,
                Word::Close => session.close(channel)?,
                Word::Disconnect => session.disconnect(Disconnect::ByApplication, "enough", "en")?,
            }
        }
        Ok(())
    }
}

/// Settings of a fake and of its Machine.
struct Reached {
    /// Time that the fake takes to open a session on each connection, except the first one.
    later_open_after: Duration,
    accepts_sessions: bool,
    mode: &'static str,
    /// Bytes of standard input that the fake accepts before it grants more. sshd accepts none before it executes the
    /// request.
    window: u32,
}

const DIRECT: Reached =
    Reached { later_open_after: Duration::ZERO, accepts_sessions: true, mode: "Direct", window: 1 << 20 };

/// Runs a command on a fake with these steps, and returns its record.
async fn record_of(words: Vec<Word>, accepts_sessions: bool) -> CommandExecutionStatus {
    record_of_turns(vec![words], Reached { accepts_sessions, ..DIRECT }).await
}

/// Like [`record_of`], with other steps on each connection. The last steps repeat.
async fn record_of_turns(turns: Vec<Vec<Word>>, reached: Reached) -> CommandExecutionStatus {
    let case = Case::new().await;
    let (key, public) = fake_sshd::host_key(&case);
    let Reached { later_open_after, accepts_sessions, mode, window } = reached;
    let mut turn = 0;
    let config = Config { keys: vec![key], window_size: window, ..Config::default() };
    let port = fake_sshd::start(config, move || {
        let words = turns.get(turn).or(turns.last()).cloned().unwrap_or_default();
        let open_after = if turn == 0 { Duration::ZERO } else { later_open_after };
        turn += 1;
        Fake { words, later: Vec::new(), stdin: Vec::new(), accepts_sessions, open_after }
    })
    .await;
    let machine = json!({"port": port, "hostKeys": [public], "execution": {"mode": mode}});
    case.apply_machine("web-1", machine).await;
    case.execute_with("x", json!({"command": "say hello", "startingDeadlineSeconds": 20, "timeoutSeconds": 8})).await;
    case.finished("x").await
}

async fn recorded(words: Vec<Word>) -> CommandExecutionStatus {
    record_of(words, true).await
}

#[track_caller]
fn is(status: &CommandExecutionStatus, phase: Phase, reason: Reason, exit_code: Option<i64>) {
    let seen = (status.phase, status.reason, status.exit_code);
    assert_eq!(seen, (phase, Some(reason), exit_code), "{:?}", status.message);
}

#[tokio::test]
async fn output_after_the_exit_status_is_recorded_too() {
    let much = vec![b'x'; 300_000];
    let words = vec![Word::Success, Word::Exit(0), Word::Stdout(much), Word::Stderr("late"), Word::Eof, Word::Close];
    let status = recorded(words).await;
    is(&status, Phase::Succeeded, Reason::Completed, Some(0));
    let output = status.output.expect("an output record");
    assert_eq!((output.stdout.bytes, output.stderr.bytes, output.incomplete), (300_000, 4, false));
}

#[tokio::test]
async fn the_first_of_two_exit_codes_counts() {
    let status = recorded(vec![Word::Success, Word::Exit(3), Word::Exit(0), Word::Close]).await;
    is(&status, Phase::Failed, Reason::NonZeroExitCode, Some(3));
    let status = recorded(vec![Word::Success, Word::Signal(Sig::KILL), Word::Exit(0), Word::Close]).await;
    is(&status, Phase::Failed, Reason::Signalled, None);
}

/// If a session did not print the mark, its exit code is not that of the command, whatever else it printed.
#[tokio::test]
async fn without_the_mark_there_is_no_exit_code() {
    let forged = b"WRIT3:0123456789abcdef0123456789abcdef\n".to_vec();
    for words in [vec![], vec![Word::Stdout(forged.clone()), Word::Stdout(b"hello\n".to_vec())]] {
        for end in [Word::Exit(0), Word::Exit(1), Word::Signal(Sig::SEGV)] {
            let words = [vec![Word::SuccessWithoutMark], words.clone(), vec![end, Word::Close]].concat();
            let status = recorded(words).await;
            is(&status, Phase::LaunchFailed, Reason::LauncherUnsupported, None);
            assert_eq!((status.signal, status.stdout), (None, None));
        }
    }
    // Writ sent no permission, so the command has not started.
    let status = recorded(vec![Word::SuccessWithoutMark, Word::Disconnect]).await;
    is(&status, Phase::LaunchFailed, Reason::ExecRequestRefused, None);
}

/// If Writ sent the permission and received no mark, the command may have run, however the session ends.
#[tokio::test]
async fn a_permission_without_a_mark_is_an_unknown_start() {
    for end in [vec![Word::Exit(0), Word::Close], vec![Word::Disconnect], vec![]] {
        let status = recorded([vec![Word::Ready], end].concat()).await;
        is(&status, Phase::OutcomeUnknown, Reason::StartNotConfirmed, None);
        assert_eq!(status.stdout, None);
    }
}

#[tokio::test]
async fn an_exit_code_over_255_is_recorded_as_it_came() {
    let status = recorded(vec![Word::Success, Word::Exit(u32::MAX), Word::Close]).await;
    is(&status, Phase::Failed, Reason::NonZeroExitCode, Some(i64::from(u32::MAX)));
}

#[tokio::test]
async fn a_signal_of_a_made_up_name_is_recorded_without_what_could_harm() {
    let status = recorded(vec![Word::Success, Word::Signal(Sig::Custom("\u{1b}[2J oh".repeat(50))), Word::Close]).await;
    is(&status, Phase::Failed, Reason::Signalled, None);
    let signal = status.signal.expect("a signal");
    assert!(signal.len() <= 32 && !signal.contains('\u{1b}'), "{signal:?}");
}

#[tokio::test]
async fn a_refused_request_did_not_start() {
    let status = recorded(vec![Word::Failure]).await;
    is(&status, Phase::LaunchFailed, Reason::ExecRequestRefused, None);
    assert!(status.start_time.is_none() && status.claim.is_some());
}

/// sshd refuses like this while it cannot create a process. The command has not run. Writ retries until sshd accepts
/// the request.
#[tokio::test]
async fn a_request_that_is_refused_for_now_is_tried_again() {
    let works = vec![Word::Success, Word::Exit(0), Word::Close];
    for refusals in [vec![Word::Failure], vec![Word::Close], vec![Word::Disconnect]] {
        let turns = vec![refusals.clone(), refusals, works.clone()];
        let status = record_of_turns(turns, DIRECT).await;
        is(&status, Phase::Succeeded, Reason::Completed, Some(0));
    }
}

/// The machine refuses each request. The starting deadline passes while Writ opens one more session, in which it then
/// sends nothing.
#[tokio::test]
async fn a_deadline_that_passes_while_a_further_session_opens_leaves_the_refusal_as_the_reason() {
    // Each further session takes 4 s to open. The pauses before them are random, so the deadline of 20 s passes with
    // either a session that opens or a pause.
    let reached = Reached { later_open_after: Duration::from_secs(4), ..DIRECT };
    let status = record_of_turns(vec![vec![Word::Failure]], reached).await;
    is(&status, Phase::LaunchFailed, Reason::ExecRequestRefused, None);
    let message = status.message.unwrap_or_default();
    assert!(message.contains("the starting deadline was over before the login let it start"), "{message}");
    assert!(message.contains("the login said last:") && !message.contains("nothing was sent"), "{message}");
}

/// In Durable mode, Writ reads the refusal at once, even if the machine does not accept the bytes of the request.
#[tokio::test]
async fn a_refusal_is_heard_while_the_request_is_not_taken() {
    let reached = Reached { mode: "Durable", window: 0, ..DIRECT };
    let status = record_of_turns(vec![vec![Word::Failure]], reached).await;
    is(&status, Phase::Expired, Reason::MachineOffline, None);
    let message = status.message.unwrap_or_default();
    assert!(message.contains("refused to execute") && message.contains("room for a further process"), "{message}");
}

#[tokio::test]
async fn a_channel_closed_without_an_exit_code_is_unknown() {
    let status = recorded(vec![Word::Success, Word::Stdout(b"half".to_vec()), Word::Eof, Word::Close]).await;
    is(&status, Phase::OutcomeUnknown, Reason::NoExitStatus, None);
    assert_eq!(status.stdout.as_deref(), Some("half"));
}

/// Writ retries meanwhile, because it sent no permission to start.
#[tokio::test]
async fn a_request_that_is_never_answered_did_not_start() {
    let status = recorded(vec![]).await;
    is(&status, Phase::LaunchFailed, Reason::ExecRequestRefused, None);
    // If the fake closes the session without an answer, the command did not start either.
    let status = recorded(vec![Word::Close]).await;
    is(&status, Phase::LaunchFailed, Reason::ExecRequestRefused, None);
    assert!(status.start_time.is_none() && status.claim.is_some());
}

#[tokio::test]
async fn a_connection_dropped_after_the_exit_code_keeps_the_code_and_says_that_output_may_miss() {
    let words = vec![Word::Success, Word::Stdout(b"half".to_vec()), Word::Exit(0), Word::Disconnect];
    let status = recorded(words).await;
    is(&status, Phase::Succeeded, Reason::Completed, Some(0));
    let output = status.output.expect("an output record");
    assert_eq!((output.incomplete, output.incomplete_reason), (true, Some(IncompleteReason::NotReceived)));
}

#[tokio::test]
async fn data_of_a_stream_that_is_not_defined_is_not_taken_for_output() {
    let status =
        recorded(vec![Word::Success, Word::Unknown, Word::Stdout(b"real".to_vec()), Word::Exit(0), Word::Close]).await;
    is(&status, Phase::Succeeded, Reason::Completed, Some(0));
    assert_eq!((status.stdout.as_deref(), status.stderr.as_deref()), (Some("real"), Some("")));
}

#[tokio::test]
async fn an_exit_code_of_what_never_started_is_not_success() {
    let status = recorded(vec![Word::Exit(0), Word::Close]).await;
    assert_ne!(status.phase, Phase::Succeeded, "{status:?}");
    is(&status, Phase::LaunchFailed, Reason::ExecRequestRefused, None);
}

#[tokio::test]
async fn a_session_that_is_neither_opened_nor_refused_leaves_it_unclaimed() {
    let status = record_of(vec![], false).await;
    is(&status, Phase::Expired, Reason::MachineOffline, None);
    assert!(status.claim.is_none());
}

#[tokio::test]
async fn a_machine_may_not_open_channels_to_us() {
    let status = recorded(vec![Word::Success, Word::OpenChannel]).await;
    is(&status, Phase::Succeeded, Reason::Completed, Some(0));
    assert_eq!(status.stderr.as_deref(), Some("opened: false"));
}
