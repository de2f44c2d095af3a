//! Machines that break the rules of the protocol, as no real sshd does on demand: a fake SSH server that says what a
//! test tells it to, in that order. The record must never say more than was seen.

use std::sync::Arc;

use russh::keys::decode_secret_key;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId, Disconnect, Sig};
use serde_json::json;
use tokio::net::TcpListener;
use writ::api::execution_status::IncompleteReason;
use writ::api::{CommandExecutionStatus, Phase, Reason};

use crate::case::Case;
use crate::lab::asked::without_mark;

/// What the fake says when it is asked to execute.
#[derive(Clone, Debug)]
enum Word {
    /// It executes, and the command prints its mark.
    Success,
    /// It executes something else.
    SuccessWithoutMark,
    Failure,
    Stdout(Vec<u8>),
    Stderr(&'static str),
    Exit(u32),
    Signal(Sig),
    Eof,
    Close,
    Disconnect,
    /// Data on a stream that is not defined.
    Unknown,
    /// It opens a channel of its own, and says on standard error what came of it; then it ends.
    OpenChannel,
}

struct Fake {
    words: Vec<Word>,
    accepts_sessions: bool,
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
        if self.accepts_sessions {
            reply.accept().await;
        } else {
            // Neither yes nor no.
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
        let mark = without_mark(&String::from_utf8_lossy(data)).map(|(mark, _)| mark + "\n");
        for word in self.words.clone() {
            match word {
                Word::Success => {
                    session.channel_success(channel)?;
                    session.data(channel, mark.clone().unwrap_or_default().into_bytes())?;
                }
                Word::SuccessWithoutMark => session.channel_success(channel)?,
                Word::Failure => session.channel_failure(channel)?,
                Word::Stdout(bytes) => session.data(channel, bytes)?,
                Word::Stderr(text) => session.extended_data(channel, 1, text.as_bytes().to_vec())?,
                Word::OpenChannel => {
                    let handle = session.handle();
                    // The answer comes by the loop that this is called from.
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

/// Runs a command on a fake that says these words, and waits for what is recorded.
async fn record_of(words: Vec<Word>, accepts_sessions: bool) -> CommandExecutionStatus {
    let case = Case::new().await;
    // A key of the right kind that is at hand; here it is the fake's host key.
    let key = decode_secret_key(&case.sshd.private_key().expect("a key"), None).expect("a key");
    let public = key.public_key().to_openssh().expect("a public key");
    let config = Arc::new(Config { keys: vec![key], ..Config::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let fake = Fake { words: words.clone(), accepts_sessions };
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                if let Ok(session) = run_stream(config, stream, fake).await {
                    let _ = session.await;
                }
            });
        }
    });
    case.apply_machine("web-1", json!({"port": port, "hostKeys": [public]})).await;
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

/// An exit code of a session that did not print the mark is none of the command, whatever it prints.
#[tokio::test]
async fn without_the_mark_there_is_no_exit_code() {
    let forged = b"WRIT3:0123456789abcdef0123456789abcdef\n".to_vec();
    for words in [vec![], vec![Word::Stdout(forged.clone()), Word::Stdout(b"hello\n".to_vec())]] {
        for end in [Word::Exit(0), Word::Exit(1), Word::Signal(Sig::SEGV)] {
            let words = [vec![Word::SuccessWithoutMark], words.clone(), vec![end, Word::Close]].concat();
            let status = recorded(words).await;
            is(&status, Phase::LaunchFailed, Reason::MachineUnfit, None);
            assert_eq!((status.signal, status.stdout), (None, None));
        }
    }
    // What is not seen to end may have run.
    let status = recorded(vec![Word::SuccessWithoutMark, Word::Disconnect]).await;
    is(&status, Phase::OutcomeUnknown, Reason::StartNotConfirmed, None);
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
    is(&status, Phase::LaunchFailed, Reason::ExecutionRefused, None);
    assert!(status.start_time.is_none() && status.claim.is_some());
}

#[tokio::test]
async fn a_channel_closed_without_an_exit_code_is_unknown() {
    let status = recorded(vec![Word::Success, Word::Stdout(b"half".to_vec()), Word::Eof, Word::Close]).await;
    is(&status, Phase::OutcomeUnknown, Reason::NoExitStatus, None);
    assert_eq!(status.stdout.as_deref(), Some("half"));
}

#[tokio::test]
async fn a_request_that_is_never_answered_is_unknown() {
    let status = recorded(vec![]).await;
    is(&status, Phase::OutcomeUnknown, Reason::StartNotConfirmed, None);
    // And so is one that is answered by nothing but the end.
    let status = recorded(vec![Word::Close]).await;
    is(&status, Phase::OutcomeUnknown, Reason::StartNotConfirmed, None);
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
    is(&status, Phase::OutcomeUnknown, Reason::StartNotConfirmed, None);
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
