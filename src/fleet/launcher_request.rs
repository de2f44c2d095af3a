//! One request that the launcher answers immediately, and the answer.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use uuid::Uuid;

use crate::launcher::{Answer, ExecRequest, Nonce, REFUSED_CUT_EXIT_CODE, Reply, ReplyEvent, RequestRefusal};
use crate::ssh::{ConnectError, Session, SessionEvent};
use crate::telemetry::metrics;

use super::unexpected_output::{RefusalCause, UnexpectedOutput};

/// Explanation and remedy if sshd refuses to execute.
pub(crate) const REFUSED: &str = "the machine refused to execute in the session that it had opened; look at sshd's \
    configuration for this user (ForceCommand, PermitTTY, chroot) and at its log";
/// Explanation and remedy if something other than a shell answers.
const NO_REPLY: &str = "the machine executed the launcher's request and gave no reply: the login shell of the user must be \
    one that reads `sh` (dash, bash, zsh, busybox), and no ForceCommand may replace what is asked for";

/// Reason for a missing answer. Perhaps the machine executed the request nevertheless.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LauncherError {
    /// The connection failed, or opened no session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection was lost, or no answer arrived in time.
    #[error("the machine did not answer the launcher's request: {0}")]
    NoReply(String),
    /// The machine accepted the login and executed nothing, for a temporary reason.
    #[error("{0}")]
    SessionRefused(String),
    /// The machine opened the session, but refuses to execute a command in this session.
    #[error("{0}")]
    Refused(String),
    /// The machine accepted the login, but its account needs manual action.
    #[error("{0}")]
    Account(String),
    /// The answer does not come from a launcher.
    #[error("{0}")]
    BadReply(String),
}

impl LauncherError {
    /// Returns the label value for metrics.
    fn category(&self) -> &'static str {
        match self {
            LauncherError::Connect(error) => error.category(),
            LauncherError::NoReply(_) => "no_reply",
            LauncherError::SessionRefused(_) | LauncherError::Refused(_) => "turned_away",
            LauncherError::Account(_) | LauncherError::BadReply(_) => "bad_reply",
        }
    }
}

/// Returns the error for a session that was closed before an answer.
pub(crate) fn closed(unexpected: &UnexpectedOutput) -> LauncherError {
    match unexpected.cause() {
        RefusalCause::Transient => LauncherError::SessionRefused(unexpected.explain(NO_REPLY)),
        RefusalCause::Account => LauncherError::Account(unexpected.explain(NO_REPLY)),
        RefusalCause::Unsupported => LauncherError::BadReply(unexpected.explain(NO_REPLY)),
    }
}

/// Sends the request in its own session, and closes the session. The machine must answer within `deadline` plus
/// [`Session::slack`].
pub(crate) async fn request(
    session: Session,
    deadline: Duration,
    build: impl FnOnce(&Nonce) -> ExecRequest,
) -> Result<Answer, LauncherError> {
    request_with_output(session, deadline, build).await.0
}

/// Sends a request like [`request`]. Also returns the output of the login before the answer.
pub(crate) async fn request_with_output(
    mut session: Session,
    deadline: Duration,
    build: impl FnOnce(&Nonce) -> ExecRequest,
) -> (Result<Answer, LauncherError>, UnexpectedOutput) {
    let nonce = new_nonce();
    let deadline = deadline + session.slack();
    let mut unexpected = UnexpectedOutput::default();
    let request = build(&nonce);
    let answer = timeout(deadline, exchange(&mut session, &request, Reply::new(&nonce), &mut unexpected)).await;
    session.close().await;
    let answer = answer.unwrap_or_else(|_| {
        let quoted = unexpected.quoted();
        Err(LauncherError::NoReply(format!("{quoted}nothing came within {} s", deadline.as_secs())))
    });
    metrics().ssh_request(answer.as_ref().map_or_else(LauncherError::category, |_| "answered"));
    (answer, unexpected)
}

/// Returns a random word that the machine cannot predict. The word distinguishes the launcher's answers from other
/// output.
#[expect(clippy::expect_used, reason = "a UUID in its simple form is 32 lower-case hexadecimal digits")]
pub(crate) fn new_nonce() -> Nonce {
    Nonce::new(&Uuid::new_v4().simple().to_string()).expect("32 lower-case hexadecimal digits")
}

/// Sends a request and ends standard input. The launcher can then detect an incomplete request. A start-up file that
/// reads standard input does not wait forever. The caller must poll the session, because only polling sends the input.
pub(crate) async fn send(session: &mut Session, request: &ExecRequest) -> Result<(), LauncherError> {
    session.exec(&request.command).await.map_err(|error| LauncherError::NoReply(error.to_string()))?;
    session.feed(Bytes::copy_from_slice(&request.stdin));
    Ok(())
}

/// Returns true if the launcher refused an incomplete request that has no nonce. Without a nonce, the launcher sends no
/// reply, and only the exit code shows the refusal. Output cannot forge the exit code, because sshd reports it.
pub(crate) fn is_refused_cut(reply: &Reply, exit_code: Option<u32>) -> bool {
    exit_code == Some(REFUSED_CUT_EXIT_CODE) && !reply.has_begun()
}

async fn exchange(
    session: &mut Session,
    request: &ExecRequest,
    mut reply: Reply,
    unexpected: &mut UnexpectedOutput,
) -> Result<Answer, LauncherError> {
    send(session, request).await?;
    loop {
        let mut heard = None;
        let mut hear = |item: ReplyEvent<'_>| {
            heard = match item {
                ReplyEvent::Answer(answer) => Some(Ok(answer)),
                ReplyEvent::Malformed(broken) => Some(Err(LauncherError::BadReply(broken.to_string()))),
                ReplyEvent::Stdout(_) | ReplyEvent::Stderr(_) => None,
            }
        };
        match session.next().await {
            SessionEvent::Stdout(bytes) => {
                // After the reply has begun, the output comes from the launcher, not from the login.
                if !reply.has_begun() {
                    unexpected.push(&bytes);
                }
                reply.stdout(&bytes, &mut hear);
            }
            SessionEvent::Stderr(bytes) => {
                unexpected.push(&bytes);
                reply.stderr(&bytes, &mut hear);
            }
            SessionEvent::ExitCode(code) => unexpected.exited(code),
            SessionEvent::Signal(signal) => unexpected.signalled(&signal),
            SessionEvent::Started | SessionEvent::Written => {}
            SessionEvent::Refused => return Err(LauncherError::Refused(REFUSED.to_owned())),
            SessionEvent::Closed if is_refused_cut(&reply, unexpected.exit_code()) => {
                return Ok(Answer::Refused(RequestRefusal::Cut));
            }
            SessionEvent::Closed => return Err(closed(unexpected)),
            SessionEvent::Lost => return Err(LauncherError::NoReply("the connection was lost".to_owned())),
        }
        if let Some(answer) = heard {
            return answer;
        }
    }
}
