//! Looking for a claimed command: what the API server says of it now, whether its machine is still the same, and whether it
//! may still be started.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::Reason;
use crate::api::execution_status::{DecisionRecord, ObjectRecord};
use crate::cluster::ClusterError;
use crate::execution::{self, Ending, Journal, LaunchProblem, Place};
use crate::launcher::{self, Answer, Ended, Refusal};

use super::super::asking::{ask_in, new_nonce};
use super::super::attempt::{AttemptEnd, Ground, decide_again, is_ours, with_machine};
use super::super::reach::{Reached, reach};
use super::super::saying::launch_refused;
use super::conversation::{Said, elsewhere};
use super::{Run, Step};

/// How long a Machine that is not there is waited for: a pipeline may replace it.
const MISSING_PATIENCE: Duration = Duration::from_secs(30);
/// How long the machine may take to close a fence.
const CLOSE_DEADLINE: Duration = Duration::from_secs(15);

/// What follows from looking.
pub(super) enum Look {
    Step(Step),
    Concluded(Ending),
    NotOurs,
}

impl Run<'_> {
    /// Reaches the machine and asks it for the command.
    pub(super) async fn look(&mut self) -> Said {
        if let Some(status) = self.status_of_stop() {
            // Losing it loses nothing: whoever takes over counts from the takeover then.
            self.inner.cluster.write_as_holder(&self.holding.key, &self.holding.token, &status).await;
        }
        let mut ground = match self.ground().await {
            Ok(ground) => ground,
            Err(said) => return said,
        };
        // One name may lead to several hosts: the one of the claim first.
        let status = self.holding.execution.status.as_ref();
        ground.declared.prefer =
            status.and_then(|status| status.machine.as_ref()).map(|machine| machine.address.clone());
        let reached = tokio::select! {
            reached = reach(self.inner, &ground.declared) => reached,
            () = self.inner.halted.cancelled() => return Said::NotOurs,
        };
        let reached = match reached {
            Ok(reached) => Arc::new(reached),
            Err(end) => {
                (self.has_answered, self.is_elsewhere) = (false, false);
                return Said::Silence(end.into_problem());
            }
        };
        let place = match self.compare(&reached) {
            Ok(place) => place,
            Err(said) => return said,
        };
        self.is_elsewhere &= matches!(place, Place::Elsewhere { .. });
        // Whatever one with another folder says of this UID is of no account; it is not even asked.
        match place {
            Place::OtherFolder => return Said::Journal { reached, place, journal: Journal::Absent },
            Place::Elsewhere { same_folder: false } => {
                (self.has_answered, self.is_elsewhere) = (true, true);
                return Said::Elsewhere(elsewhere(&reached));
            }
            Place::Same | Place::Rebooted | Place::Elsewhere { same_folder: true } => {}
        }
        self.stop_beforehand(&reached, place).await;
        let session = match reached.open().await {
            Ok(session) => session,
            Err(error) => return Said::Silence(error.to_string()),
        };
        let nonce = new_nonce();
        let request = launcher::attach(&nonce, &reached.known.facts, &self.uid, self.received, self.max_frame);
        self.converse(reached, session, &request, nonce, place).await
    }

    /// The execution, where it is still ours, and its Machine and Secret as they are now.
    pub(super) async fn ground(&self) -> Result<Ground, Said> {
        let key = &self.holding.key;
        let execution = match self.inner.cluster.execution(&key.namespace, &key.name).await {
            Ok(execution) => execution,
            Err(ClusterError::NotFound { .. }) => return Err(Said::NotOurs),
            Err(error) => return Err(Said::Silence(error.to_string())),
        };
        if execution.metadata.uid.as_deref() != Some(&key.uid) || !is_ours(&execution, &self.holding.token) {
            return Err(Said::NotOurs);
        }
        match with_machine(self.inner, self.work, execution).await {
            Ok(ground) => Ok(ground),
            Err(AttemptEnd::Obsolete) => {
                let name = &self.work.machine;
                let gone = format!("its Machine {name} is no longer declared (or cannot be read), so nobody can look");
                match self.silent_since {
                    Some(since) if since.elapsed() >= MISSING_PATIENCE => {
                        let problem = format!("{gone}; the command may have run, and may still run");
                        Err(Said::Concluded(Ending::Unknown { reason: Reason::MachineChanged, problem }))
                    }
                    _ => Err(Said::Silence(gone)),
                }
            }
            Err(end) => Err(Said::Silence(end.into_problem())),
        }
    }

    pub(super) fn compare(&self, reached: &Reached) -> Result<Place, Said> {
        let status = self.holding.execution.status.as_ref();
        let machine = status.and_then(|status| status.machine.as_ref());
        let remote = status.and_then(|status| status.remote.as_ref());
        let (Some(machine), Some(remote)) = (machine, remote) else {
            let problem = "the claim does not say where the command was sent".to_owned();
            return Err(Said::Concluded(Ending::Unknown { reason: Reason::RecordLost, problem }));
        };
        Ok(execution::compare(machine, remote, &reached.shown(&reached.address()), self.clock.now()))
    }

    /// The end of the command if the machine has recorded it, without the output.
    pub(super) async fn poll(&self, reached: &Reached) -> Option<Ended> {
        let session = reached.open().await.ok()?;
        let facts = &reached.known.facts;
        match ask_in(session, CLOSE_DEADLINE, |nonce| launcher::poll(nonce, facts, &self.uid)).await {
            Ok(Answer::Ended(ended)) => Some(ended),
            _ => None,
        }
    }

    /// Closes the fence: from then on nobody starts the command any more.
    pub(super) async fn close(&mut self, reached: Arc<Reached>, problem: LaunchProblem) -> Said {
        let session = match reached.open().await {
            Ok(session) => session,
            Err(error) => return Said::Silence(error.to_string()),
        };
        let facts = &reached.known.facts;
        let uid = &self.uid;
        let answer = ask_in(session, CLOSE_DEADLINE, |nonce| launcher::close(nonce, facts, uid)).await;
        if matches!(answer, Ok(Answer::Refused(Refusal::Directory))) {
            // Somebody has removed the launcher's directory. The next connection probes anew, and has another one.
            reached.line.give_up().await;
        }
        match answer {
            Ok(Answer::Tombstoned | Answer::NotStarted(_)) => Said::Concluded(Ending::Refused(problem)),
            // Nobody has sent it but in the one request that was refused.
            Ok(Answer::Refused(_)) if !self.unsure => Said::Concluded(Ending::Refused(problem)),
            // It may run, or be about to: that the fence cannot be seen, or closed, now does not say that it did not start.
            Ok(Answer::Refused(refusal)) => Said::Silence(launch_refused(&refusal).message),
            // Somebody was quicker: see what there is.
            Ok(_) => Said::Silence("something is recorded of it in the meantime".to_owned()),
            Err(error) => {
                reached.line.give_up().await;
                Said::Silence(error.to_string())
            }
        }
    }

    /// Whether a command of which the machine knows nothing may still be started: by what is live.
    pub(super) async fn may_start(&mut self, reached: &Reached) -> Result<Result<(), LaunchProblem>, Look> {
        let again = Look::Step(Step::Look);
        if self.inner.stopping.is_cancelled() {
            return Err(Look::NotOurs);
        }
        let Some(standing) = self.inner.holders.standing() else {
            sleep(Duration::from_secs(1)).await;
            return Err(again);
        };
        let decided = Instant::now();
        let ground = match self.ground().await {
            Ok(ground) => ground,
            Err(Said::NotOurs) => return Err(Look::NotOurs),
            Err(_) => return Err(again),
        };
        let refusal = |reason, message: &str| Ok(Err(LaunchProblem { reason, message: message.to_owned() }));
        if ground.execution.is_unwanted() || self.cancel.is_cancelled() {
            return refusal(Reason::CancelledBeforeStart, "cancelled before it had started; it will not start");
        }
        if ground.declared.machine.spec.suspend {
            let message = "the machine was suspended before it had started; it will not start";
            return refusal(Reason::MachineSuspended, message);
        }
        if ground.declared.identity() != reached.identity {
            // It was reached by what was declared before: as who, by which key, on which way.
            return Err(again);
        }
        let claim = ground.execution.claim();
        let not_after = claim.and_then(|claim| claim.not_after_time.as_ref()).map(|time| time.0);
        if not_after.is_none_or(|not_after| self.inner.cluster.now() >= not_after) {
            let message = "the starting deadline was over before it had started; it will not start";
            return refusal(Reason::StartingDeadlineExceeded, message);
        }
        match decide_again(self.inner, &ground).await {
            Ok(decision)
                if runs_the_same(
                    &decision.record(self.holding.decision.decided_time.clone()),
                    &self.holding.decision,
                ) => {}
            Ok(_) | Err(AttemptEnd::Obsolete) => {
                let message = "the policy changed before it had started, and would not run the same; it will not start";
                return refusal(Reason::PolicyChanged, message);
            }
            Err(_) => {
                sleep(Duration::from_secs(1)).await;
                return Err(again);
            }
        }
        if self.inner.holders.standing() != Some(standing) {
            return Err(again);
        }
        (self.holding.standing, self.holding.decided) = (standing, decided);
        Ok(Ok(()))
    }
}

/// Whether two decisions are the same but for the version of the Whitelist.
pub(in crate::runner) fn runs_the_same(now: &DecisionRecord, then: &DecisionRecord) -> bool {
    let stripped = |record: &DecisionRecord| DecisionRecord {
        whitelist: ObjectRecord { generation: 0, ..record.whitelist.clone() },
        digest: String::new(),
        ..record.clone()
    };
    stripped(now) == stripped(then)
}
