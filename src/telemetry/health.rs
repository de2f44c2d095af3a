//! Determines if this process is alive and ready.
//!
//! - The process is alive if every background task sent a heartbeat recently and no reconcile takes too long. A process
//!   that is not alive needs a restart.
//! - The process is unready if, for example, the API server is unreachable. A restart does not help then. The readiness
//!   report names the cause.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Interval between heartbeats of a task.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Time without a heartbeat after which a task counts as hung. Even a busy host delays a heartbeat by much less.
const HUNG_AFTER: Duration = Duration::from_secs(60);
/// Maximum time to reconcile one object. If the API server is unreachable, a reconcile can take 640 s: up to 64 calls,
/// each with a deadline of 10 s.
const STUCK_AFTER: Duration = Duration::from_secs(900);
/// Time without an answer of the API server after which the process is unready.
const API_SERVER_STALE_AFTER: Duration = Duration::from_secs(30);

/// Task that runs as long as the process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum BackgroundTask {
    /// Controller of CommandExecutions.
    Executions,
    /// Controller of Machines.
    Machines,
    /// Controller of Whitelists.
    Whitelists,
    /// Retention of finished executions.
    Retention,
    /// Deletion of expired sessions of the gateway.
    Sessions,
    /// Renewal of the Lease.
    Lease,
}

impl BackgroundTask {
    /// Returns the name for health reports and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            BackgroundTask::Executions => "executions",
            BackgroundTask::Machines => "machines",
            BackgroundTask::Whitelists => "whitelists",
            BackgroundTask::Retention => "retention",
            BackgroundTask::Sessions => "sessions",
            BackgroundTask::Lease => "lease",
        }
    }
}

/// Watch that must deliver its first list before the process is ready.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Watch {
    /// Unfinished executions.
    Executions,
    /// Finished executions.
    Finished,
    /// Machines.
    Machines,
    /// Whitelists.
    Whitelists,
}

impl Watch {
    const ALL: [Watch; 4] = [Watch::Executions, Watch::Finished, Watch::Machines, Watch::Whitelists];

    /// Returns the name in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Watch::Executions => "executions",
            Watch::Finished => "finished_executions",
            Watch::Machines => "machines",
            Watch::Whitelists => "whitelists",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Watch::Executions => "unfinished executions",
            Watch::Finished => "finished executions",
            Watch::Machines => "machines",
            Watch::Whitelists => "whitelists",
        }
    }
}

/// Health of a process.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<HealthState>,
}

#[derive(Debug, Default)]
struct HealthState {
    /// Time of each task's last heartbeat, and the maximum time until its next heartbeat.
    heartbeats: BTreeMap<BackgroundTask, (Instant, Duration)>,
    /// All reconciles in progress. The key is a consecutive number. The value is the task and the start time.
    in_progress: BTreeMap<u64, (BackgroundTask, Instant)>,
    next: u64,
    listed: Vec<Watch>,
    /// True after the CRDs were readable.
    prerequisites_ok: bool,
    /// Time of the last answer of the API server.
    answered: Option<Instant>,
    /// Number of seconds by which the host's clock is ahead of the API server's clock.
    clock_offset: Option<f64>,
    /// Time of the last renewal of the Lease, and the duration of the Lease.
    lease: Option<(Instant, Duration)>,
    is_stopping: bool,
}

/// Result of a health check. Its text has one line for each checked part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// True if all parts are healthy.
    pub healthy: bool,
    /// Text for users.
    pub text: String,
}

impl Report {
    fn of(checks: Vec<(String, Result<String, String>)>) -> Self {
        let healthy = checks.iter().all(|(_, result)| result.is_ok());
        let line = |(name, result): &(String, Result<String, String>)| match result {
            Ok(detail) => format!("ok      {name}: {detail}\n"),
            Err(problem) => format!("FAILED  {name}: {problem}\n"),
        };
        Self { healthy, text: checks.iter().map(line).collect() }
    }
}

impl Health {
    /// Records a heartbeat of a task.
    pub fn heartbeat(&self, which: BackgroundTask) {
        self.heartbeat_within(which, HUNG_AFTER);
    }

    /// Records a heartbeat of a task. The task counts as hung if its next heartbeat does not arrive within
    /// `silent_for`, or within 60 s if `silent_for` is shorter.
    pub fn heartbeat_within(&self, which: BackgroundTask, silent_for: Duration) {
        self.state().heartbeats.insert(which, (Instant::now(), silent_for.max(HUNG_AFTER)));
    }

    /// Records the start of a reconcile. Dropping the returned guard records the end of the reconcile.
    pub fn track(&self, which: BackgroundTask) -> TrackGuard<'_> {
        let mut state = self.state();
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.in_progress.insert(number, (which, Instant::now()));
        TrackGuard { health: self, number }
    }

    /// Records that a watch has delivered its first list.
    pub fn listed(&self, watch: Watch) {
        let mut state = self.state();
        if !state.listed.contains(&watch) {
            state.listed.push(watch);
        }
    }

    /// Records the time of an answer of the API server. The content of the answer is irrelevant.
    pub fn answered(&self) {
        self.state().answered = Some(Instant::now());
    }

    /// Records the number of seconds by which the host's clock is ahead of the API server's clock.
    pub fn clock_offset(&self, seconds: f64) {
        self.state().clock_offset = Some(seconds);
    }

    /// Records that the CRDs exist and are readable.
    pub fn prerequisites_ok(&self) {
        self.state().prerequisites_ok = true;
    }

    /// Records a renewal of the Lease. `sent` is the time at which the call was sent.
    pub fn lease_renewed(&self, sent: Instant, duration: Duration) {
        self.state().lease = Some((sent, duration));
    }

    /// Records that the process is stopping. A stopping process starts no command.
    pub fn set_stopping(&self) {
        self.state().is_stopping = true;
    }

    /// Returns the liveness of this process.
    pub fn liveness(&self) -> Report {
        self.liveness_at(Instant::now())
    }

    /// Returns the readiness of this process.
    pub fn readiness(&self) -> Report {
        self.readiness_at(Instant::now())
    }

    fn liveness_at(&self, now: Instant) -> Report {
        let state = self.state();
        let mut checks = Vec::new();
        if state.heartbeats.is_empty() {
            checks.push(("start".to_owned(), Ok("no task has started yet; see /readyz".to_owned())));
        }
        for (which, (at, silent_for)) in &state.heartbeats {
            let silent = now.saturating_duration_since(*at);
            let busiest = state.in_progress.values().filter(|(of, _)| of == which).map(|(_, since)| *since).min();
            let stuck = busiest.map(|since| now.saturating_duration_since(since)).filter(|busy| *busy > STUCK_AFTER);
            let result = match stuck {
                _ if silent > *silent_for => Err(format!(
                    "no heartbeat for {} s (considered hung after {} s)",
                    silent.as_secs(),
                    silent_for.as_secs()
                )),
                Some(busy) => Err(format!("one reconcile has run for {} s", busy.as_secs())),
                None => Ok(format!("last heartbeat {} s ago", silent.as_secs())),
            };
            checks.push((which.as_str().to_owned(), result));
        }
        Report::of(checks)
    }

    fn readiness_at(&self, now: Instant) -> Report {
        let state = self.state();
        let mut checks = Vec::new();
        let mut check = |name: &str, result| checks.push((name.to_owned(), result));
        check("crds", check_result(state.prerequisites_ok, "readable", "not read from the API server yet"));
        let lease = state.lease.map(|(_, duration)| duration).unwrap_or_default();
        check(
            "api-server",
            match state.answered.map(|at| now.saturating_duration_since(at)) {
                None => Err("no answer yet".to_owned()),
                Some(ago) if ago > API_SERVER_STALE_AFTER.max(lease) => {
                    Err(format!("last answer {} s ago", ago.as_secs()))
                }
                Some(ago) => Ok(format!("last answer {} s ago", ago.as_secs())),
            },
        );
        check(
            "lease",
            match state.lease.map(|(at, duration)| (now.saturating_duration_since(at), duration)) {
                None => Err("not written yet".to_owned()),
                Some((ago, duration)) if ago >= duration => Err(format!(
                    "last renewed {} s ago, valid for {} s: no execution is claimed",
                    ago.as_secs(),
                    duration.as_secs()
                )),
                Some((ago, _)) => Ok(format!("last renewed {} s ago", ago.as_secs())),
            },
        );
        check("clock", clock(state.clock_offset));
        let mut missing: Vec<&str> =
            Watch::ALL.iter().filter(|watch| !state.listed.contains(watch)).map(|watch| watch.describe()).collect();
        missing.dedup();
        check(
            "watches",
            if missing.is_empty() {
                Ok("all have delivered their first list".to_owned())
            } else {
                Err(format!("not listed yet: {}", missing.join(", ")))
            },
        );
        check("serving", check_result(!state.is_stopping, "accepts executions", "stopping: no command starts"));
        Report::of(checks)
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the result of the clock check. The check fails only if the API server's clock is unknown. If the host's
/// clock differs from the API server's clock, ages are still correct, because they use the API server's clock.
fn clock(offset: Option<f64>) -> Result<String, String> {
    let Some(offset) = offset else {
        return Err(
            "no answer of the API server has had the header Date (a proxy may remove it): ages use this host's clock"
                .to_owned(),
        );
    };
    let (seconds, side) = (offset.abs(), if offset < 0.0 { "behind" } else { "ahead of" });
    Ok(format!("the API server's clock counts; this host's is {seconds:.1} s {side} it"))
}

fn check_result(is_ok: bool, good: &str, bad: &str) -> Result<String, String> {
    if is_ok { Ok(good.to_owned()) } else { Err(bad.to_owned()) }
}

/// Guard for a reconcile in progress. Dropping the guard records the end of the reconcile.
#[derive(Debug)]
pub struct TrackGuard<'a> {
    health: &'a Health,
    number: u64,
}

impl Drop for TrackGuard<'_> {
    fn drop(&mut self) {
        self.health.state().in_progress.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_seconds(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    /// Returns the health of a ready process.
    fn ready() -> Health {
        let health = Health::default();
        health.prerequisites_ok();
        health.answered();
        health.lease_renewed(Instant::now(), Duration::from_secs(15));
        health.clock_offset(0.0);
        Watch::ALL.iter().for_each(|watch| health.listed(*watch));
        health
    }

    #[test]
    fn a_process_that_waits_for_the_api_server_is_alive_and_says_what_it_waits_for() {
        let health = Health::default();
        assert!(health.liveness_at(in_seconds(100_000)).healthy);
        let report = health.readiness();
        assert!(!report.healthy);
        for line in ["FAILED  crds", "FAILED  api-server", "FAILED  lease: not written", "FAILED  watches: not listed"]
        {
            assert!(report.text.contains(line), "{line} in:\n{}", report.text);
        }
    }

    #[test]
    fn a_loop_that_gives_no_sign_of_life_is_hung_whatever_the_others_do() {
        let health = Health::default();
        health.heartbeat(BackgroundTask::Executions);
        health.heartbeat_within(BackgroundTask::Lease, Duration::from_secs(600));
        assert!(health.liveness_at(in_seconds(59)).healthy);
        let report = health.liveness_at(in_seconds(62));
        assert!(!report.healthy && report.text.contains("FAILED  executions: no heartbeat"), "{}", report.text);
        assert!(report.text.contains("ok      lease"), "{}", report.text);
        health.heartbeat(BackgroundTask::Executions);
        assert!(health.liveness().healthy);
    }

    #[test]
    fn an_object_that_is_looked_at_for_longer_than_anything_may_take_is_a_hung_loop() {
        let health = Health::default();
        let guard = health.track(BackgroundTask::Machines);
        health.heartbeat_within(BackgroundTask::Machines, Duration::from_secs(10_000));
        assert!(health.liveness_at(in_seconds(890)).healthy);
        assert!(!health.liveness_at(in_seconds(905)).healthy);
        drop(guard);
        assert!(health.liveness_at(in_seconds(905)).healthy);
    }

    #[test]
    fn a_process_is_ready_once_everything_is_there_and_until_the_lease_is_over() {
        let health = ready();
        assert!(health.readiness().healthy, "{}", health.readiness().text);
        let report = health.readiness_at(in_seconds(16));
        assert!(!report.healthy && report.text.contains("FAILED  lease: last renewed"), "{}", report.text);
        assert!(report.text.contains("ok      api-server"), "{}", report.text);
        assert!(health.readiness_at(in_seconds(32)).text.contains("FAILED  api-server: last answer"));
    }

    #[test]
    fn a_clock_that_differs_is_named_and_only_one_that_is_unknown_makes_it_unready() {
        let health = ready();
        health.clock_offset(600.04);
        assert!(health.readiness().healthy);
        let line = "ok      clock: the API server's clock counts; this host's is 600.0 s ahead of it\n";
        assert!(health.readiness().text.contains(line), "{}", health.readiness().text);
        health.clock_offset(-86_400.0);
        assert!(health.readiness().text.contains("86400.0 s behind it"), "{}", health.readiness().text);
        assert!(Health::default().readiness().text.contains("FAILED  clock: no answer"));
    }

    #[test]
    fn one_list_that_is_missing_is_named() {
        let health = Health::default();
        Watch::ALL.iter().filter(|watch| **watch != Watch::Finished).for_each(|watch| health.listed(*watch));
        assert!(health.readiness().text.contains("FAILED  watches: not listed yet: finished executions\n"));
    }

    #[test]
    fn a_process_that_was_told_to_end_is_not_ready() {
        let health = ready();
        health.set_stopping();
        assert!(health.readiness().text.contains("FAILED  serving"));
    }
}
