//! Reattaches to a claimed command. Writ reads the execution again, compares the host with the host in the claim, and
//! decides if the command may still start.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::Reason;
use crate::cluster::ClusterError;
use crate::execution::{self, Journal, LaunchProblem, MachineMatch, Termination};
use crate::fleet::{ConnectFailure, LauncherConnection, connect_launcher, new_nonce, request};
use crate::launcher::{self, Answer, Ended, RequestRefusal};

use super::super::decision_input::{DecisionInput, decide_again, is_claimed_with, is_same_command, with_machine};
use super::super::messages::launch_refused;
use super::run_state::{DurableRun, NextStep, ReattachResult, SessionEnd};
use super::session::elsewhere;

/// Time to wait for a missing Machine object, because a pipeline is perhaps replacing this object.
const MISSING_PATIENCE: Duration = Duration::from_secs(30);
/// Maximum duration of a request that closes the execution on the machine, or polls its end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(15);

impl DurableRun<'_> {
    /// Connects to the machine and requests the state of the command.
    pub(super) async fn look(&mut self) -> SessionEnd {
        self.store_status().await;
        let mut ground = match self.ground().await {
            Ok(ground) => ground,
            Err(said) => return said,
        };
        // One name can resolve to several hosts. Writ tries the address in the claim first.
        let status = self.held.execution.status.as_ref();
        ground.resolved.prefer =
            status.and_then(|status| status.machine.as_ref()).map(|machine| machine.address.clone());
        let reached = tokio::select! {
            reached = connect_launcher(&self.context.fleet, &ground.resolved) => reached,
            () = self.context.aborting.cancelled() => return SessionEnd::NotOurs,
        };
        let reached = match reached {
            Ok(reached) => Arc::new(reached),
            Err(end) => {
                (self.has_answered, self.is_elsewhere) = (false, false);
                return SessionEnd::Silence(end.into_problem());
            }
        };
        let place = match self.compare(&reached) {
            Ok(place) => place,
            Err(said) => return said,
        };
        self.is_elsewhere &= matches!(place, MachineMatch::Different { .. });
        // If the launcher's directory differs from the directory in the claim, the host has no record of this
        // execution. Writ then sends no request.
        match place {
            MachineMatch::OtherDirectory => return SessionEnd::Journal { reached, place, journal: Journal::Absent },
            MachineMatch::Different { same_directory: false } => {
                (self.has_answered, self.is_elsewhere) = (true, true);
                return SessionEnd::Elsewhere(elsewhere(&reached));
            }
            MachineMatch::Exact | MachineMatch::Rebooted | MachineMatch::Different { same_directory: true } => {}
        }
        self.stop_beforehand(&reached, place).await;
        let session = match reached.open().await {
            Ok(session) => session,
            Err(error) => return SessionEnd::Silence(error.to_string()),
        };
        let nonce = new_nonce();
        let request = launcher::attach(&nonce, &reached.known.facts, &self.uid, self.received, self.max_frame);
        self.converse(reached, session, &request, nonce, place).await
    }

    /// Returns the execution with its current Machine and Secret, if this process still holds the claim.
    pub(super) async fn ground(&self) -> Result<DecisionInput, SessionEnd> {
        let key = &self.held.key;
        let execution = match self.context.cluster.execution(&key.namespace, &key.name).await {
            Ok(execution) => execution,
            Err(ClusterError::NotFound { .. }) => return Err(SessionEnd::NotOurs),
            Err(error) => return Err(SessionEnd::Silence(error.to_string())),
        };
        if execution.metadata.uid.as_deref() != Some(&key.uid) || !is_claimed_with(&execution, &self.held.token) {
            return Err(SessionEnd::NotOurs);
        }
        match Box::pin(with_machine(self.context, self.work, execution)).await {
            Ok(ground) => Ok(ground),
            Err(ConnectFailure::Obsolete) => {
                let name = &self.work.machine;
                let gone = format!("its Machine {name} is no longer declared (or cannot be read), so nobody can look");
                match self.silent_since {
                    Some(since) if since.elapsed() >= MISSING_PATIENCE => {
                        let problem = format!("{gone}; the command may have run, and may still run");
                        Err(SessionEnd::Concluded(Termination::Unknown { reason: Reason::MachineChanged, problem }))
                    }
                    _ => Err(SessionEnd::Silence(gone)),
                }
            }
            Err(end) => Err(SessionEnd::Silence(end.into_problem())),
        }
    }

    pub(super) fn compare(&self, reached: &LauncherConnection) -> Result<MachineMatch, SessionEnd> {
        let status = self.held.execution.status.as_ref();
        let machine = status.and_then(|status| status.machine.as_ref());
        let remote = status.and_then(|status| status.remote.as_ref());
        let (Some(machine), Some(remote)) = (machine, remote) else {
            let problem = "the claim does not say where the command was sent".to_owned();
            return Err(SessionEnd::Concluded(Termination::Unknown { reason: Reason::RecordLost, problem }));
        };
        Ok(execution::compare(machine, remote, &reached.shown(&reached.address()), self.clock.now()))
    }

    /// Polls the machine. Returns the end of the command if the machine has recorded this end. Reads no output.
    pub(super) async fn poll(&self, reached: &LauncherConnection) -> Option<Ended> {
        let session = reached.open().await.ok()?;
        let facts = &reached.known.facts;
        match request(session, CLOSE_DEADLINE, |nonce| launcher::poll(nonce, facts, &self.uid)).await {
            Ok(Answer::Ended(ended)) => Some(ended),
            _ => None,
        }
    }

    /// Closes the execution on the machine. No later request can then start the command.
    pub(super) async fn close(&mut self, reached: Arc<LauncherConnection>, problem: LaunchProblem) -> SessionEnd {
        let session = match reached.open().await {
            Ok(session) => session,
            Err(error) => return SessionEnd::Silence(error.to_string()),
        };
        let facts = &reached.known.facts;
        let uid = &self.uid;
        let answer = request(session, CLOSE_DEADLINE, |nonce| launcher::close(nonce, facts, uid)).await;
        if matches!(answer, Ok(Answer::Refused(RequestRefusal::DirectoryUnsuitable))) {
            // The launcher's directory was removed. The next connection inspects the machine again, and uses another
            // directory.
            reached.permit.discard().await;
        }
        match answer {
            Ok(Answer::Tombstoned | Answer::NotStarted(_)) => SessionEnd::Concluded(Termination::Refused(problem)),
            // No earlier request has started the command.
            Ok(Answer::Refused(_)) if !self.unsure => SessionEnd::Concluded(Termination::Refused(problem)),
            // Perhaps an earlier request has started the command, or starts the command soon.
            Ok(Answer::Refused(refusal)) => SessionEnd::Silence(launch_refused(&refusal).message),
            // Another request has written to the journal, so the next step reads the journal.
            Ok(_) => SessionEnd::Silence("something is recorded of it in the meantime".to_owned()),
            Err(error) => {
                reached.permit.discard().await;
                SessionEnd::Silence(error.to_string())
            }
        }
    }

    /// Decides if a command without a journal may still start. Reads all objects for the decision again from the API
    /// server.
    ///
    /// # Errors
    /// - Inner error: the reason why the command must not start.
    /// - Outer error: the next step if no decision is possible now.
    pub(super) async fn may_start(
        &mut self,
        reached: &LauncherConnection,
    ) -> Result<Result<(), LaunchProblem>, ReattachResult> {
        let again = ReattachResult::Step(NextStep::Reattach);
        if self.context.draining.is_cancelled() {
            return Err(ReattachResult::NotOurs);
        }
        let Some(standing) = self.context.holders.current_epoch() else {
            sleep(Duration::from_secs(1)).await;
            return Err(again);
        };
        let decided = Instant::now();
        let ground = match self.ground().await {
            Ok(ground) => ground,
            Err(SessionEnd::NotOurs) => return Err(ReattachResult::NotOurs),
            Err(_) => return Err(again),
        };
        let refusal = |reason, message: &str| Ok(Err(LaunchProblem { reason, message: message.to_owned() }));
        if ground.execution.is_cancelled_or_deleted() || self.cancel.is_cancelled() {
            return refusal(Reason::CancelledBeforeStart, "cancelled before it had started; it will not start");
        }
        if ground.resolved.machine.spec.suspend {
            let message = "the machine was suspended before it had started; it will not start";
            return refusal(Reason::MachineSuspended, message);
        }
        if ground.resolved.pool_key() != reached.pool_key {
            // The Machine's settings have changed since the connect, for example the login user, key or route.
            return Err(again);
        }
        let claim = ground.execution.claim();
        let not_after = claim.and_then(|claim| claim.not_after_time.as_ref()).map(|time| time.0);
        if not_after.is_none_or(|not_after| self.context.cluster.now() >= not_after) {
            let message = "the starting deadline was over before it had started; it will not start";
            return refusal(Reason::StartingDeadlineExceeded, message);
        }
        match decide_again(self.context, &ground).await {
            Ok(decision)
                if is_same_command(&decision.record(self.held.decision.decided_time.clone()), &self.held.decision) => {}
            Ok(_) | Err(ConnectFailure::Obsolete) => {
                let message = "the policy changed before it had started, and would not run the same; it will not start";
                return refusal(Reason::PolicyChanged, message);
            }
            Err(_) => {
                sleep(Duration::from_secs(1)).await;
                return Err(again);
            }
        }
        if self.context.holders.current_epoch() != Some(standing) {
            return Err(again);
        }
        (self.held.standing, self.held.decided) = (standing, decided);
        Ok(Ok(()))
    }
}
