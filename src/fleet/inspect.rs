//! The first question to a machine on each connection, and what it answers: what the machine is, and whether its login
//! executes.

use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::launcher::{self, Answer, LauncherFacts, RequestRefusal};
use crate::ssh::{Connection, Session};

use super::launcher_refusal::explain_refusal;
use super::launcher_request::{LauncherError, request_with_output};

/// How long a machine may take to say what it is, while its connection lives: a start-up file of the login may wait for a
/// directory service, or for a network file system.
const PROBE_DEADLINE: Duration = Duration::from_secs(90);
/// Silence after which the connection is tested, again and again. A login that takes longer is called slow.
const USUAL: Duration = Duration::from_secs(10);
/// How long the machine may take to show that the connection lives.
const ALIVE_DEADLINE: Duration = Duration::from_secs(5);

/// What a machine said of itself, and when.
#[derive(Clone, Debug)]
pub(crate) struct TimedFacts {
    pub facts: LauncherFacts,
    /// How long it took to say so.
    took: Duration,
    /// When it was asked.
    at: Instant,
}

/// Asks what the machine is. `directory` is the launcher's folder, if the Machine names one.
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
        // sshd says of a home that is missing that it could not go there.
        Ok(Answer::Refused(refusal @ (RequestRefusal::DirectoryUnsuitable | RequestRefusal::Said(_)))) => {
            Err(LauncherError::BadReply(format!("{}{}", unexpected.quoted(), explain_refusal(&refusal))))
        }
        Ok(Answer::Refused(refusal)) => Err(LauncherError::BadReply(explain_refusal(&refusal))),
        Ok(other) => Err(LauncherError::BadReply(format!(
            "the launcher answered the question what the machine is with {other:?}"
        ))),
        // The connection lives: it is the login that says nothing.
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
    /// Time to wait beyond a usual deadline for the first word of a session, by what the first one took.
    pub fn slack(&self) -> Duration {
        // Three times, as it may take longer when more come at once. A login of a usual machine takes milliseconds.
        self.took.saturating_mul(3)
    }

    /// The machine's uptime now, in milliseconds: what it said, and the time since by our own clock.
    pub fn uptime_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.facts.uptime_centiseconds.saturating_mul(10).saturating_add(elapsed)
    }

    /// When it was that the machine's uptime was so much, if it is `now`; None if that cannot be said in dates.
    pub fn time_at(&self, uptime_centiseconds: u64, now: Timestamp) -> Option<Timestamp> {
        let then = i64::try_from(uptime_centiseconds).ok()?.checked_mul(10)?;
        let since = i64::try_from(self.uptime_ms()).ok()?.checked_sub(then)?;
        now.checked_sub(jiff::SignedDuration::from_millis(since)).ok()
    }
}
