//! Whether this process is alive, and whether it is ready to run commands.
//!
//! Alive means that a restart would mend nothing: every loop has given a sign of life lately, and nothing that is being
//! looked at takes longer than anything may. That the API server is away is no reason to restart; it makes the process
//! unready, which says where to look. Time is an argument, so that all of it can be tested.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the loops give a sign of life.
pub const BEAT: Duration = Duration::from_secs(5);
/// After how long without one a loop is taken for hung. It is far longer than a busy machine keeps one from its turn.
const HUNG_AFTER: Duration = Duration::from_secs(60);
/// How long looking at one object may take. Each call has a deadline of 10 s; while the API server is going away 64 of them
/// may wait for each other's.
const STUCK_AFTER: Duration = Duration::from_secs(900);
/// How long ago the API server may have answered last.
const RECENTLY: Duration = Duration::from_secs(30);

/// What must go on as long as the process does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Loop {
    /// The controller of CommandExecutions.
    Executions,
    /// That of Machines.
    Machines,
    /// That of Whitelists.
    Whitelists,
    /// That of finished executions.
    Retention,
    /// Who keeps the Lease.
    Lease,
}

impl Loop {
    /// Its name, for people and in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Loop::Executions => "executions",
            Loop::Machines => "machines",
            Loop::Whitelists => "whitelists",
            Loop::Retention => "retention",
            Loop::Lease => "lease",
        }
    }
}

/// What has to be listed before anything is decided.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Watch {
    /// Unfinished executions.
    Executions,
    /// Finished ones.
    Finished,
    /// Machines, for their own controller.
    Machines,
    /// Machines, for who waits for them.
    MachinesOfExecutions,
    /// Whitelists, for their own controller.
    Whitelists,
    /// Whitelists, for who waits for them.
    WhitelistsOfExecutions,
}

impl Watch {
    const ALL: [Watch; 6] = [
        Watch::Executions,
        Watch::Finished,
        Watch::Machines,
        Watch::MachinesOfExecutions,
        Watch::Whitelists,
        Watch::WhitelistsOfExecutions,
    ];

    /// Its name in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Watch::Executions => "executions",
            Watch::Finished => "finished_executions",
            Watch::Machines => "machines",
            Watch::MachinesOfExecutions => "machines_of_executions",
            Watch::Whitelists => "whitelists",
            Watch::WhitelistsOfExecutions => "whitelists_of_executions",
        }
    }

    fn of(self) -> &'static str {
        match self {
            Watch::Executions => "unfinished executions",
            Watch::Finished => "finished executions",
            Watch::Machines | Watch::MachinesOfExecutions => "machines",
            Watch::Whitelists | Watch::WhitelistsOfExecutions => "whitelists",
        }
    }
}

/// What is known.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each loop gave a sign of life last, and how long it may be silent.
    beats: BTreeMap<Loop, (Instant, Duration)>,
    /// What is being looked at, since when, by a number.
    busy: BTreeMap<u64, (Loop, Instant)>,
    next: u64,
    listed: Vec<Watch>,
    /// Whether the CRDs were there, and may be read.
    usable: bool,
    /// When the API server answered last.
    answered: Option<Instant>,
    /// By how many seconds the host's clock is ahead of the API server's.
    clock_offset: Option<f64>,
    /// When the Lease was renewed last, and for how long.
    lease: Option<(Instant, Duration)>,
    ending: bool,
}

/// The answer to a question after health: whether all is well, and a line for each thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Whether all is well.
    pub well: bool,
    /// For people.
    pub text: String,
}

impl Report {
    fn of(checks: Vec<(String, Result<String, String>)>) -> Self {
        let well = checks.iter().all(|(_, result)| result.is_ok());
        let line = |(name, result): &(String, Result<String, String>)| match result {
            Ok(said) => format!("ok      {name}: {said}\n"),
            Err(problem) => format!("FAILED  {name}: {problem}\n"),
        };
        Self { well, text: checks.iter().map(line).collect() }
    }
}

impl Health {
    /// A loop goes on.
    pub fn beat(&self, which: Loop) {
        self.beat_for(which, HUNG_AFTER);
    }

    /// The same, for one that is silent for longer between its turns.
    pub fn beat_for(&self, which: Loop, silent_for: Duration) {
        self.state().beats.insert(which, (Instant::now(), silent_for.max(HUNG_AFTER)));
    }

    /// Something is being looked at, until what is returned is dropped.
    pub fn looks(&self, which: Loop) -> Looking<'_> {
        let mut state = self.state();
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.busy.insert(number, (which, Instant::now()));
        Looking { health: self, number }
    }

    /// A watch has delivered its first list.
    pub fn listed(&self, watch: Watch) {
        let mut state = self.state();
        if !state.listed.contains(&watch) {
            state.listed.push(watch);
        }
    }

    /// The API server answered, whatever it said.
    pub fn answered(&self) {
        self.state().answered = Some(Instant::now());
    }

    /// The host's clock is ahead of the API server's by so many seconds.
    pub fn clock_offset(&self, seconds: f64) {
        self.state().clock_offset = Some(seconds);
    }

    /// The CRDs are there, and may be read.
    pub fn usable(&self) {
        self.state().usable = true;
    }

    /// The Lease of this process was renewed by a call that was sent at that time.
    pub fn lease_renewed(&self, sent: Instant, duration: Duration) {
        self.state().lease = Some((sent, duration));
    }

    /// This process was told to end: nothing new starts.
    pub fn ends(&self) {
        self.state().ending = true;
    }

    /// Whether it is alive.
    pub fn alive(&self) -> Report {
        self.alive_at(Instant::now())
    }

    /// Whether it is ready.
    pub fn ready(&self) -> Report {
        self.ready_at(Instant::now())
    }

    fn alive_at(&self, now: Instant) -> Report {
        let state = self.state();
        let mut checks = Vec::new();
        if state.beats.is_empty() {
            checks.push((
                "start".to_owned(),
                Ok("nothing is to be watched yet; /readyz says what is waited for".to_owned()),
            ));
        }
        for (which, (at, silent_for)) in &state.beats {
            let silent = now.saturating_duration_since(*at);
            let busiest = state.busy.values().filter(|(of, _)| of == which).map(|(_, since)| *since).min();
            let stuck = busiest.map(|since| now.saturating_duration_since(since)).filter(|busy| *busy > STUCK_AFTER);
            let result = match stuck {
                _ if silent > *silent_for => Err(format!(
                    "no sign of life for {} s (after {} s it is taken for hung)",
                    silent.as_secs(),
                    silent_for.as_secs()
                )),
                Some(busy) => Err(format!("has looked at one object for {} s", busy.as_secs())),
                None => Ok(format!("gave a sign of life {} s ago", silent.as_secs())),
            };
            checks.push((which.as_str().to_owned(), result));
        }
        Report::of(checks)
    }

    fn ready_at(&self, now: Instant) -> Report {
        let state = self.state();
        let mut checks = Vec::new();
        let mut check = |name: &str, result| checks.push((name.to_owned(), result));
        check("crds", said(state.usable, "they are there", "the API server has not shown yet that they are there"));
        let lease = state.lease.map(|(_, duration)| duration).unwrap_or_default();
        check(
            "api-server",
            match state.answered.map(|at| now.saturating_duration_since(at)) {
                None => Err("it has not answered yet".to_owned()),
                Some(ago) if ago > RECENTLY.max(lease) => Err(format!("it answered last {} s ago", ago.as_secs())),
                Some(ago) => Ok(format!("it answered {} s ago", ago.as_secs())),
            },
        );
        check(
            "lease",
            match state.lease.map(|(at, duration)| (now.saturating_duration_since(at), duration)) {
                None => Err("it is not written yet".to_owned()),
                Some((ago, duration)) if ago >= duration => Err(format!(
                    "it was renewed last {} s ago and holds for {} s: nothing is claimed",
                    ago.as_secs(),
                    duration.as_secs()
                )),
                Some((ago, _)) => Ok(format!("it was renewed {} s ago", ago.as_secs())),
            },
        );
        check("clock", clock(state.clock_offset));
        let mut missing: Vec<&str> =
            Watch::ALL.iter().filter(|watch| !state.listed.contains(watch)).map(|watch| watch.of()).collect();
        missing.dedup();
        check(
            "watches",
            if missing.is_empty() {
                Ok("all have delivered their first list".to_owned())
            } else {
                Err(format!("not listed yet: {}", missing.join(", ")))
            },
        );
        check("serving", said(!state.ending, "executions are taken", "told to end: nothing new starts"));
        Report::of(checks)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A difference is no reason not to be ready: ages go by the API server's clock. They cannot if its time is not known.
fn clock(offset: Option<f64>) -> Result<String, String> {
    let Some(offset) = offset else {
        return Err(
            "no answer of the API server has said what time it is (a proxy may remove the header Date): ages are by \
                    this host's clock"
                .to_owned(),
        );
    };
    let (seconds, side) = (offset.abs(), if offset < 0.0 { "behind" } else { "ahead of" });
    Ok(format!("the API server's clock counts; this host's is {seconds:.1} s {side} it"))
}

fn said(well: bool, good: &str, bad: &str) -> Result<String, String> {
    if well { Ok(good.to_owned()) } else { Err(bad.to_owned()) }
}

/// Something that is being looked at.
#[derive(Debug)]
pub struct Looking<'a> {
    health: &'a Health,
    number: u64,
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.health.state().busy.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_seconds(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    /// All that a process needs to be ready.
    fn ready() -> Health {
        let health = Health::default();
        health.usable();
        health.answered();
        health.lease_renewed(Instant::now(), Duration::from_secs(15));
        health.clock_offset(0.0);
        Watch::ALL.iter().for_each(|watch| health.listed(*watch));
        health
    }

    #[test]
    fn a_process_that_waits_for_the_api_server_is_alive_and_says_what_it_waits_for() {
        let health = Health::default();
        assert!(health.alive_at(in_seconds(100_000)).well);
        let report = health.ready();
        assert!(!report.well);
        for line in
            ["FAILED  crds", "FAILED  api-server", "FAILED  lease: it is not written", "FAILED  watches: not listed"]
        {
            assert!(report.text.contains(line), "{line} in:\n{}", report.text);
        }
    }

    #[test]
    fn a_loop_that_gives_no_sign_of_life_is_hung_whatever_the_others_do() {
        let health = Health::default();
        health.beat(Loop::Executions);
        health.beat_for(Loop::Lease, Duration::from_secs(600));
        assert!(health.alive_at(in_seconds(59)).well);
        let report = health.alive_at(in_seconds(62));
        assert!(!report.well && report.text.contains("FAILED  executions: no sign of life"), "{}", report.text);
        assert!(report.text.contains("ok      lease"), "{}", report.text);
        health.beat(Loop::Executions);
        assert!(health.alive().well);
    }

    #[test]
    fn an_object_that_is_looked_at_for_longer_than_anything_may_take_is_a_hung_loop() {
        let health = Health::default();
        let looking = health.looks(Loop::Machines);
        health.beat_for(Loop::Machines, Duration::from_secs(10_000));
        assert!(health.alive_at(in_seconds(890)).well);
        assert!(!health.alive_at(in_seconds(905)).well);
        drop(looking);
        assert!(health.alive_at(in_seconds(905)).well);
    }

    #[test]
    fn a_process_is_ready_once_everything_is_there_and_until_the_lease_is_over() {
        let health = ready();
        assert!(health.ready().well, "{}", health.ready().text);
        let report = health.ready_at(in_seconds(16));
        assert!(!report.well && report.text.contains("FAILED  lease: it was renewed last"), "{}", report.text);
        assert!(report.text.contains("ok      api-server"), "{}", report.text);
        assert!(health.ready_at(in_seconds(32)).text.contains("FAILED  api-server: it answered last"));
    }

    #[test]
    fn a_clock_that_differs_is_named_and_only_one_that_is_unknown_makes_it_unready() {
        let health = ready();
        health.clock_offset(600.04);
        assert!(health.ready().well);
        let line = "ok      clock: the API server's clock counts; this host's is 600.0 s ahead of it\n";
        assert!(health.ready().text.contains(line), "{}", health.ready().text);
        health.clock_offset(-86_400.0);
        assert!(health.ready().text.contains("86400.0 s behind it"), "{}", health.ready().text);
        assert!(Health::default().ready().text.contains("FAILED  clock: no answer"));
    }

    #[test]
    fn one_list_that_is_missing_is_named() {
        let health = Health::default();
        Watch::ALL.iter().filter(|watch| **watch != Watch::Finished).for_each(|watch| health.listed(*watch));
        assert!(health.ready().text.contains("FAILED  watches: not listed yet: finished executions\n"));
    }

    #[test]
    fn a_process_that_was_told_to_end_is_not_ready() {
        let health = ready();
        health.ends();
        assert!(health.ready().text.contains("FAILED  serving"));
    }
}
