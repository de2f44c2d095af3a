//! From an execution to a place on a connection to its machine, by what Machine and Secret say now.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use crate::api::execution_status::{LONGEST_DIRECTORY, LONGEST_ID};
use crate::api::{Machine, Reason};
use crate::execution::{LaunchProblem, MachineShown};
use crate::launcher::MachineFacts;
use crate::ssh::{self, ConnectError, Connection, Session};
use crate::telemetry::{SPANS, metrics};

use super::asking::AskError;
use super::attempt::{AGAIN_AFTER_CHANGE, AttemptEnd};
use super::connections::{Carrier, Line, Open};
use super::declared::{Declared, read_declared};
use super::first_use::{self, freeze};
use super::look::online;
use super::probing::Known;
use super::queue::random_fraction;
use super::sights::problem_of;
use super::{Inner, Work};

/// How long resolving, connecting, the handshake and logging in may take together. A healthy machine takes well under
/// a second; sshd's UseDNS may cost 5 s where its resolver is down.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a jump host may take to say that it is there.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Tries where the machine drops the connection at once: sshd does that to some of those that come together.
const DROPPED_TRIES: u32 = 4;
/// The pause after the first of them; it doubles, and half as much again is added at random.
const DROPPED_PAUSE: Duration = Duration::from_millis(150);

/// A place on a shared connection, and what the machine said of itself.
pub(super) struct Reached {
    pub line: Line,
    pub known: Known,
    /// What was declared when it was reached.
    pub identity: String,
}

impl Reached {
    /// What the machine shows of itself, to be held against a claim.
    pub fn shown<'a>(&'a self, address: &'a str) -> MachineShown<'a> {
        let facts = &self.known.facts;
        MachineShown {
            address,
            host_key_fingerprint: self.line.connection().fingerprint(),
            boot_id: &facts.boot_id,
            uptime: Duration::from_millis(self.known.uptime_ms()),
            directory: &facts.directory,
            directory_id: &facts.directory_id,
        }
    }

    /// Opens a session. A connection on which that fails is given up, unless it is only busy: others share it.
    pub async fn open(&self) -> Result<Session, ConnectError> {
        let opened = self.line.open().await;
        if matches!(&opened, Err(error) if !matches!(error, ConnectError::Busy(_))) {
            self.line.give_up().await;
        }
        opened
    }

    /// The address and port that were reached.
    pub fn address(&self) -> String {
        self.line.connection().at().to_owned()
    }
}

/// Opens a session where a connection to the machine is open and has room. Reads nothing: whether it is still the right
/// machine has to be seen before the claim.
pub(super) async fn open_where_reached(inner: &Inner, work: &Work) -> Option<(Arc<Declared>, Reached, Session)> {
    let declared = inner.connections.noted(&work.machine_key())?;
    let line = inner.connections.free_line(&declared.identity())?;
    let known = line.known(declared.machine.spec.execution.directory.as_deref()).await.ok()?.clone();
    let reached = Reached { line, known, identity: declared.identity() };
    let session = reached.open().await.ok()?;
    Some((declared, reached, session))
}

/// Reaches a machine and opens a session. A shared connection may have died unnoticed, or be full: then it is done once
/// more, on another.
pub(super) async fn reach_and_open(inner: &Inner, declared: &Declared) -> Result<(Reached, Session), AttemptEnd> {
    let reached = reach(inner, declared).await?;
    match reached.open().await {
        Ok(session) => Ok((reached, session)),
        Err(_) => {
            let reached = reach(inner, declared).await?;
            let session = reached.open().await.map_err(|error| end_of(&error))?;
            Ok((reached, session))
        }
    }
}

/// Reaches the machine of an execution by what is declared now, for those who only try again where that fails.
pub(super) async fn reach_declared(inner: &Inner, work: &Work) -> Result<Reached, String> {
    reach_preferring(inner, work, None).await
}

/// The same, at this address (`IP:PORT`) if the name has it and it answers.
async fn reach_preferring(inner: &Inner, work: &Work, prefer: Option<String>) -> Result<Reached, String> {
    let reached = async {
        let declared = read_declared(&inner.cluster, &work.key.namespace, &work.machine).await?;
        reach(inner, &Declared { prefer, ..declared }).await
    };
    reached.await.map_err(AttemptEnd::into_problem)
}

/// Opens a session beside those that are open, for a word to a command that runs. A machine that has no session to spare
/// on the connection is reached by another one.
pub(super) async fn open_beside(
    inner: &Inner,
    work: &Work,
    reached: &Reached,
) -> Result<(Option<Reached>, Session), String> {
    match reached.open().await {
        Ok(session) => Ok((None, session)),
        Err(ConnectError::Busy(_)) => {
            let other = reach_preferring(inner, work, Some(reached.address())).await?;
            if other.address() != reached.address() {
                return Err(format!("{} answers, and not {}", other.address(), reached.address()));
            }
            let session = other.open().await.map_err(|error| error.to_string())?;
            Ok((Some(other), session))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Finds or makes a connection, and asks the machine what it is.
pub(super) async fn reach(inner: &Inner, declared: &Declared) -> Result<Reached, AttemptEnd> {
    let identity = declared.identity();
    let connect = async || connect(inner, declared).await;
    let line = inner.connections.line(&identity, declared.prefer.as_deref(), connect).await?;
    let directory = declared.machine.spec.execution.directory.as_deref();
    let known = line.known(directory).await.cloned();
    let known = known.map_err(|error| refused_for_now(inner, &identity, error));
    match &known {
        Ok(_) => inner.connections.note_executed(&identity),
        // It may be dead without anybody having said so.
        Err(AskError::Silence(_)) => line.give_up().await,
        Err(AskError::TurnedAway(problem)) => {
            line.give_up().await;
            // It executes on others: it allows no further connection, and what waits goes by those.
            let room = inner.connections.room(&identity);
            if room > 0 {
                return Err(AttemptEnd::Full { room, problem: problem.clone() });
            }
        }
        Err(_) => {}
    }
    let known = fit(known, &declared.machine)?;
    if line.is_news() {
        inner.saw(&declared.machine, online(line.connection(), None));
    }
    Ok(Reached { line, known, identity })
}

/// A machine that refuses to execute may have no room (its sshd cannot fork, for one): that passes. One that has executed before
/// surely has none.
pub(super) fn refused_for_now(inner: &Inner, identity: &str, error: AskError) -> AskError {
    match error {
        AskError::Refused(message) if inner.connections.has_executed(identity) => AskError::TurnedAway(format!(
            "{message}; it has executed there before, so it may have no room for a further process"
        )),
        AskError::Refused(message) => {
            AskError::TurnedAway(format!("{message}; it may have no room for a further process, so it is tried again"))
        }
        other => other,
    }
}

/// What a machine says of itself, where commands can be started there.
pub(super) fn fit(known: Result<Known, AskError>, machine: &Machine) -> Result<Known, AttemptEnd> {
    match known {
        Ok(known) if known.facts.ends_with_session && machine.spec.user != "root" => Err(unfit(
            "systemd on the machine ends what a login leaves behind (KillUserProcesses=yes in logind.conf), so no \
             command would outlive its connection; set it to no, or set execution.mode: Direct on the Machine"
                .to_owned(),
        )),
        Ok(known) => match unrecordable(&known.facts) {
            Some(problem) => Err(unfit(problem)),
            None => Ok(known),
        },
        Err(AskError::Connect(error)) => Err(end_of(&error)),
        Err(AskError::Silence(problem) | AskError::TurnedAway(problem)) => Err(AttemptEnd::Offline(problem)),
        Err(AskError::Refused(message) | AskError::Account(message) | AskError::Unfit(message)) => Err(unfit(message)),
    }
}

/// Commands cannot be started there before a person has seen to it.
pub(super) fn unfit(message: String) -> AttemptEnd {
    let problem = LaunchProblem { reason: Reason::MachineUnfit, message };
    AttemptEnd::Refused { problem, machine_at_fault: true }
}

/// What of a machine could not be recorded with a claim: told before anything is claimed, as the API server would refuse it
/// each time.
fn unrecordable(facts: &MachineFacts) -> Option<String> {
    let length = |text: &str| text.chars().count();
    if length(&facts.directory) > LONGEST_DIRECTORY {
        return Some(format!(
            "the launcher's folder on the machine has a path of {} characters, and at most {LONGEST_DIRECTORY} can be recorded; set \
             spec.execution.directory of the Machine to a shorter one",
            length(&facts.directory)
        ));
    }
    for (what, id) in [("file id in the launcher's folder", &facts.directory_id), ("boot id", &facts.boot_id)] {
        if length(id) > LONGEST_ID {
            return Some(format!(
                "the {what} has {} characters on the machine, and at most {LONGEST_ID} can be recorded; find out what has written \
                 it, or set spec.execution.directory to another folder",
                length(id)
            ));
        }
    }
    None
}

/// A connection to the machine, by way of those that it names.
pub(super) async fn connect(inner: &Inner, declared: &Declared) -> Result<Open, AttemptEnd> {
    // Nobody is gone through on the way to where nobody will log in.
    declared.check_secret()?;
    let mut outer: Option<Carrier> = None;
    for index in 0..declared.hops.len() {
        let Some(hop) = declared.up_to(index) else { break };
        let through = outer.take();
        let identity = hop.identity();
        let connected = inner.connections.carrier(&identity, async || connect_by(inner, &hop, through).await);
        let carrier = match connected.await {
            Ok(carrier) => carrier,
            Err(end) => {
                if let Some(problem) = problem_of(&end) {
                    inner.saw(&hop.machine, problem);
                }
                return Err(on_the_way(end, hop.name()));
            }
        };
        if carrier.is_news() {
            inner.saw(&hop.machine, online(carrier.connection(), None));
        }
        outer = Some(carrier);
    }
    connect_by(inner, declared, outer).await
}

fn on_the_way(end: AttemptEnd, name: &str) -> AttemptEnd {
    match end {
        AttemptEnd::Offline(message) => AttemptEnd::Offline(format!("jump host {name}: {message}")),
        AttemptEnd::Refused { problem: LaunchProblem { reason, message }, machine_at_fault } => {
            let message = format!("jump host {name}: {message}");
            AttemptEnd::Refused { problem: LaunchProblem { reason, message }, machine_at_fault }
        }
        other => other,
    }
}

/// One connection, directly or through one that is open.
async fn connect_by(inner: &Inner, declared: &Declared, outer: Option<Carrier>) -> Result<Open, AttemptEnd> {
    let key = declared.credentials().await?;
    let credentials = &key.credentials;
    let target = declared.target(first_use::seen(&declared.machine))?;
    let deadline = Duration::from_secs(u64::from(declared.machine.spec.probe.timeout_seconds));
    let mut tries = 0;
    let _place = inner.logins.place(declared).await;
    if declared.is_old() {
        return Err(AttemptEnd::Again(AGAIN_AFTER_CHANGE));
    }
    loop {
        let span = tracing::info_span!(target: SPANS, "connect", machine = declared.name());
        let connected = match &outer {
            None => ssh::connect(&target, credentials, &inner.network, deadline).instrument(span).await,
            Some(outer) => {
                ssh::connect_through(outer.connection(), &target, credentials, deadline).instrument(span).await
            }
        };
        metrics().connected(
            connected.as_ref().map_or_else(ConnectError::category, |_| "connected"),
            connected.as_ref().ok().map(Connection::login_time),
        );
        match connected {
            Ok(connection) => return Ok(Open { connection, _outer: outer, _key: key.kept() }),
            Err(ConnectError::HostKeyNew { algorithm, fingerprint }) => {
                freeze(inner, &declared.machine, &algorithm, &fingerprint).await?;
                // From the start, by what is frozen now.
                return Err(AttemptEnd::Again(AGAIN_AFTER_CHANGE));
            }
            Err(ConnectError::Dropped(message)) if tries < DROPPED_TRIES => {
                tracing::debug!(message, "the machine dropped a connection; trying again");
                let pause = DROPPED_PAUSE.saturating_mul(1 << tries);
                tokio::time::sleep(pause + pause.mul_f64(0.5 * random_fraction())).await;
                tries += 1;
            }
            Err(error) => {
                if let (Some(outer), ConnectError::Unreachable(_)) = (&outer, &error)
                    && !outer.connection().answers(ANSWER_DEADLINE).await
                {
                    // It has died without anybody having said so: whoever comes next makes another one.
                    outer.connection().close().await;
                }
                return Err(end_of(&error));
            }
        }
    }
}

/// What a failure to connect means for who waits.
pub(super) fn end_of(error: &ConnectError) -> AttemptEnd {
    let (reason, machine_at_fault) = match error {
        ConnectError::Unreachable(message) | ConnectError::Dropped(message) | ConnectError::Busy(message) => {
            return AttemptEnd::Offline(message.clone());
        }
        ConnectError::HostKeyMismatch { .. }
        | ConnectError::HostKeyRevoked { .. }
        | ConnectError::HostCertificateRefused { .. }
        | ConnectError::HostKeyNew { .. } => (Reason::HostKeyMismatch, true),
        ConnectError::AuthenticationRefused { .. } | ConnectError::AccountRefused { .. } => {
            (Reason::AuthenticationRefused, true)
        }
        ConnectError::Handshake(_) => (Reason::HandshakeFailed, true),
        ConnectError::ForwardingRefused(_) => (Reason::MachineInvalid, true),
        ConnectError::AddressRefused { .. } => (Reason::AddressRefused, false),
        ConnectError::CredentialsUnusable(_) => (Reason::CredentialsInvalid, false),
    };
    AttemptEnd::Refused { problem: LaunchProblem { reason, message: error.to_string() }, machine_at_fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_recorded_is_told_with_the_bound() {
        let facts = |directory: usize, id: usize, boot: usize| MachineFacts {
            boot_id: "b".repeat(boot),
            uptime_centiseconds: 1,
            directory: format!("/{}", "ä".repeat(directory - 1)),
            directory_id: "d".repeat(id),
            reads_sh: true,
            ends_with_session: false,
        };
        assert_eq!(unrecordable(&facts(LONGEST_DIRECTORY, LONGEST_ID, LONGEST_ID)), None);
        for (facts, bound, remedy) in [
            (facts(LONGEST_DIRECTORY + 1, 1, 1), "1024", "spec.execution.directory"),
            (facts(2, LONGEST_ID + 1, 1), "64", "file id"),
            (facts(2, 1, LONGEST_ID + 1), "64", "boot id"),
        ] {
            let said = unrecordable(&facts).unwrap();
            assert!(said.contains(bound) && said.contains(remedy), "{said}");
        }
    }
}
