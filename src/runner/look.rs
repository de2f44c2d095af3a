//! One look at a machine: a full login, and what it says of itself.

use std::time::Duration;

use crate::api::ExecutionMode;
use crate::api::machine_status::{KeyTrust, LoginKey, SystemFacts};
use crate::cluster::ClusterError;
use crate::launcher::{self, Answer, Described};
use crate::machine::{ProvedKey, Seen};
use crate::ssh::{Connection, ProvedBy, Session};

use super::Inner;
use super::asking::{AskError, ask_in};
use super::attempt::AttemptEnd;
use super::connections::open_patiently;
use super::declared::{Declared, declare};
use super::probing::probe;
use super::queue::MachineKey;
use super::reach::{connect, end_of, fit, refused_for_now, unfit};
use super::sights::problem_of;

/// How long a machine may take to say what it is.
const DEADLINE: Duration = Duration::from_secs(10);

/// Looks at a machine, and notes what is seen.
pub(super) async fn look(inner: &Inner, (namespace, name): &MachineKey) {
    let machine = match inner.cluster.machine(namespace, name).await {
        Ok(machine) => machine,
        Err(ClusterError::NotFound { .. }) => return,
        Err(error) => {
            tracing::debug!(%error, machine = %name, "a machine was not looked at");
            return;
        }
    };
    if machine.spec.suspend {
        return;
    }
    let seen = match declare(&inner.cluster, namespace, machine.clone()).await {
        Ok(declared) => {
            let may_share = !inner.sights.had_problem(&(namespace.clone(), name.clone()));
            look_by(inner, &declared, may_share).await
        }
        Err(end) => Err(end),
    };
    let seen = match seen {
        Ok(seen) => Some(seen),
        Err(end) => problem_of(&end),
    };
    if let Some(seen) = seen {
        inner.saw(&machine, seen);
    }
}

async fn look_by(inner: &Inner, declared: &Declared, may_share: bool) -> Result<Seen, AttemptEnd> {
    // One that is in use shows that it is there, and costs no login. What was wrong is seen to be mended by a login only.
    if let Some(line) = inner.connections.free_line(&declared.identity()).filter(|_| may_share) {
        let described = async { describe_in(line.open().await?).await };
        match described.await {
            Ok(system) => return Ok(online(line.connection(), Some(system))),
            // It may be dead without anybody having said so.
            Err(AskError::Silence(_)) => line.give_up().await,
            // It lives, and has no session to spare, or no words.
            Err(_) if !line.connection().is_closed() => return Ok(online(line.connection(), None)),
            Err(_) => {}
        }
    }
    let open = connect(inner, declared).await?;
    let seen = look_over(inner, &open.connection, declared).await;
    open.connection.close().await;
    seen
}

/// What a fresh connection shows: whether commands can be started, and what the machine says of itself.
async fn look_over(inner: &Inner, connection: &Connection, declared: &Declared) -> Result<Seen, AttemptEnd> {
    let (machine, identity) = (&declared.machine, declared.identity());
    if machine.spec.execution.mode == ExecutionMode::Durable {
        let session = open_patiently(connection).await.map_err(|error| end_of(&error))?;
        let known = probe(connection, session, machine.spec.execution.directory.as_deref()).await;
        match known.map_err(|error| refused_for_now(inner, &identity, error)) {
            // It executes on others, which are not to be called unfit for that.
            Err(AskError::TurnedAway(_)) if inner.connections.room(&identity) > 0 => {
                return Ok(online(connection, None));
            }
            known => drop(fit(known, machine)?),
        }
    }
    match ask_to_describe(connection).await {
        Ok(system) => Ok(online(connection, Some(system))),
        Err(AskError::TurnedAway(problem)) => Err(AttemptEnd::Offline(problem)),
        Err(AskError::Account(problem)) => Err(unfit(problem)),
        // It may be one that executes nothing but its own command.
        Err(_) => Ok(online(connection, None)),
    }
}

/// What was seen where a connection is open.
pub(super) fn online(connection: &Connection, system: Option<SystemFacts>) -> Seen {
    let proof = connection.proof();
    let trust = match proof.by {
        ProvedBy::Pinned => KeyTrust::Pinned,
        ProvedBy::Authority => KeyTrust::Authority,
        ProvedBy::FirstUse => KeyTrust::FirstUse,
    };
    let key = ProvedKey { algorithm: proof.algorithm.clone(), fingerprint: proof.fingerprint.clone(), trust };
    let login = connection.login().clone();
    let login = LoginKey { entry: login.entry, fingerprint: login.fingerprint, refused: login.refused };
    Seen::Online { latency: connection.login_time(), key, login: Box::new(login), system }
}

/// What the machine says of itself; None where it says nothing.
pub(super) async fn describe(connection: &Connection) -> Option<SystemFacts> {
    ask_to_describe(connection).await.ok()
}

async fn ask_to_describe(connection: &Connection) -> Result<SystemFacts, AskError> {
    describe_in(open_patiently(connection).await?).await
}

async fn describe_in(session: Session) -> Result<SystemFacts, AskError> {
    let said = match ask_in(session, DEADLINE, launcher::facts).await? {
        Answer::Described(said) => said,
        other => return Err(AskError::Unfit(format!("it answered {other:?}"))),
    };
    let Described { boot_id, hostname, architecture, kernel, shell, os } = said;
    let some = |word: String| (!word.is_empty()).then_some(word);
    Ok(SystemFacts {
        hostname: some(hostname),
        os: some(os),
        architecture: some(architecture),
        kernel: some(kernel),
        shell: some(shell),
        boot_id: some(boot_id),
    })
}
