//! Requests the facts of a machine. This request is the first request on each connection. The answer shows that the
//! login executes commands.

use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::launcher::{self, Answer, LauncherFacts, RequestRefusal};
use crate::ssh::{Connection, Session};

use super::launcher_refusal::explain_refusal;
use super::launcher_request::{LauncherError, request_with_output};

/// Maximum time for the machine to report its facts, if the connection works. This time is long, because a start-up
/// file of the login can wait for a directory service or a network file system.
const PROBE_DEADLINE: Duration = Duration::from_secs(90);
/// Interval between tests of the connection while Writ waits for the facts. A login that needs more time than this
/// interval is logged as slow.
const USUAL: Duration = Duration::from_secs(10);
/// Maximum time for the machine to answer a test of the connection.
const ALIVE_DEADLINE: Duration = Duration::from_secs(5);

/// Facts that a machine reported, and the time at which they arrived.
#[derive(Clone, Debug)]
pub(crate) struct TimedFacts {
    pub facts: LauncherFacts,
    /// Time from the request to the answer.
    took: Duration,
    /// Time of the answer.
    at: Instant,
}

/// Requests the facts of the machine. `directory` is the launcher's directory, if the Machine specifies a directory.
pub(crate) async fn inspect(
    connection: &Connection,
    session: Session,
    directory: Option<&str>,
) -> Result<TimedFacts, LauncherError> {
    let asked = Instant::now();
    let mut answer = pin!(request_with_output(session, PROBE_DEADLINE, |nonce| launcher::inspect(nonce, directory)));
    let (answer, unexpected) = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            () = sleep(USUAL) => {
                if !connection.is_responsive(ALIVE_DEADLINE).await {
                    let problem = format!("nothing came within {} s", asked.elapsed().as_secs());
                    return Err(LauncherError::NoReply(problem));
                }
                tracing::debug!(at = connection.peer(), "a login takes long to execute, and its connection lives");
            }
        }
    };
    match answer {
        Ok(Answer::Inspected(facts)) => {
            let took = asked.elapsed();
            if took > USUAL {
                tracing::warn!(
                    at = connection.peer(),
                    seconds = took.as_secs(),
                    "the start-up files of a login take long; each command there starts as late"
                );
            }
            Ok(TimedFacts { facts, took, at: Instant::now() })
        }
        Ok(Answer::Refused(RequestRefusal::Cut)) => {
            Err(LauncherError::BadReply(format!("{}{}", unexpected.quoted(), explain_refusal(&RequestRefusal::Cut))))
        }
        // If the home directory is missing, sshd writes an error before the answer. The message quotes this error.
        Ok(Answer::Refused(refusal @ (RequestRefusal::DirectoryUnsuitable | RequestRefusal::Said(_)))) => {
            Err(LauncherError::BadReply(format!("{}{}", unexpected.quoted(), explain_refusal(&refusal))))
        }
        Ok(Answer::Refused(refusal)) => Err(LauncherError::BadReply(explain_refusal(&refusal))),
        Ok(other) => Err(LauncherError::BadReply(format!(
            "the launcher answered the question what the machine is with {other:?}"
        ))),
        // The connection works, but the login does not answer.
        Err(LauncherError::NoReply(_)) if asked.elapsed() >= PROBE_DEADLINE => {
            Err(LauncherError::SessionRefused(format!(
                "{}the machine let the login in and did not execute within {} s: a start-up file of the login takes longer, or \
             waits for something (input, a network file system, a directory service)",
                unexpected.quoted(),
                PROBE_DEADLINE.as_secs()
            )))
        }
        Err(error) => Err(error),
    }
}

impl TimedFacts {
    /// Returns the extra time for the first output of a session: three times `took`.
    pub fn slack(&self) -> Duration {
        // If several logins start at once, a login can take up to three times as long.
        self.took.saturating_mul(3)
    }

    /// Returns the machine's uptime now, in milliseconds: the reported uptime, plus the time since the answer by the
    /// local clock.
    pub fn uptime_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.facts.uptime_centiseconds.saturating_mul(10).saturating_add(elapsed)
    }

    /// Returns the date and time at which the machine had this uptime. `now` is the current time. Returns `None` if the
    /// result is out of range.
    pub fn time_at(&self, uptime_centiseconds: u64, now: Timestamp) -> Option<Timestamp> {
        let then = i64::try_from(uptime_centiseconds).ok()?.checked_mul(10)?;
        let since = i64::try_from(self.uptime_ms()).ok()?.checked_sub(then)?;
        now.checked_sub(jiff::SignedDuration::from_millis(since)).ok()
    }
}
