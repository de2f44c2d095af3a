//! Every metric, and one method for each thing that happens. `docs/guides/operation.md` says what they mean to people;
//! a test holds it, the dashboard and the alerts against what is registered here.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::api::{CommandExecutionStatus, Phase, Reason};

use super::labels::{
    Called, Cause, Controller, Decided, Failed, Finished, For, Kind, OfVerdict, Operation, Outcome, PhaseOfMachine,
    Purpose, State, Stream, Version, Warned, Word,
};
use super::process::Process;

/// From a call that is answered at once to one that meets its deadline of 10 s.
const OF_CALLS: [f64; 11] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// A login takes well under a second; its deadline is 10 s unless a Machine says otherwise.
const OF_LOGINS: [f64; 9] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From at once to the longest starting deadline.
const OF_WAITS: [f64; 11] = [0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0];
/// From a quick command to the longest timeout.
const OF_COMMANDS: [f64; 11] = [0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

type Family1<L, M> = Family<L, M, fn() -> M>;

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    decisions: Family1<Decided, Counter>,
    reconciles: Family1<Controller, Histogram>,
    reconcile_errors: Family1<Failed, Counter>,
    claimed: Counter,
    waits: Histogram,
    adopted: Counter,
    finished: Family1<Finished, Counter>,
    durations: Histogram,
    waiting: Gauge,
    running: Gauge,
    output: Family1<Stream, Counter>,
    results_waiting: Gauge,
    results_lost: Family1<Cause, Counter>,
    machines: Family1<PhaseOfMachine, Gauge>,
    ssh_attempts: Family1<Outcome, Counter>,
    ssh_logins: Histogram,
    ssh_connections: Family1<For, Gauge>,
    ssh_sessions: Family1<Outcome, Counter>,
    ssh_requests: Family1<Outcome, Counter>,
    calls: Family1<Called, Counter>,
    call_durations: Family1<Operation, Histogram>,
    watch_failures: Family1<Kind, Counter>,
    lease_gaps: Counter,
    clock_offset: Gauge<f64, AtomicU64>,
    stamping: Family1<State, Gauge>,
    whitelists: Family1<Warned, Gauge>,
    events: Family1<Outcome, Counter>,
    trace_exports: Family1<Outcome, Counter>,
}

/// Registers metrics.
struct Registering<'a>(&'a mut Registry);

impl Registering<'_> {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn counters<L>(&mut self, name: &str, help: &str) -> Family1<L, Counter>
    where
        L: Clone + EncodeLabelSet + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static,
    {
        self.add(name, help, Family::new_with_constructor(Counter::default as fn() -> Counter))
    }

    fn gauges<L>(&mut self, name: &str, help: &str) -> Family1<L, Gauge>
    where
        L: Clone + EncodeLabelSet + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static,
    {
        self.add(name, help, Family::new_with_constructor(Gauge::default as fn() -> Gauge))
    }

    fn call_histograms<L>(&mut self, name: &str, help: &str) -> Family1<L, Histogram>
    where
        L: Clone + EncodeLabelSet + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static,
    {
        self.add(name, help, Family::new_with_constructor((|| Histogram::new(OF_CALLS)) as fn() -> Histogram))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, at nothing.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        // By the names that Prometheus' own libraries use, without a prefix.
        registry.register_collector(Box::new(Process));
        let mut to = Registering(registry.sub_registry_with_prefix("writ"));
        to.0.register("build", "Version of writ", Info::new(Version { version: env!("CARGO_PKG_VERSION") }));
        let metrics = Self {
            decisions: to.counters("decisions", "Requests matched against the Whitelists, by verdict and reason"),
            reconciles: to.call_histograms("reconcile_duration_seconds", "Duration of reconciles: read, decide, apply"),
            reconcile_errors: to.counters("reconcile_errors", "Reconciles that failed and are retried"),
            claimed: to.add(
                "executions_claimed",
                "Executions claimed. Their commands are sent after the claim",
                Counter::default(),
            ),
            waits: to.add(
                "execution_wait_seconds",
                "Time from the creation of an execution to its claim",
                Histogram::new(OF_WAITS),
            ),
            adopted: to.add(
                "executions_adopted",
                "Claims adopted, because the Lease of the holder expired or its task ended",
                Counter::default(),
            ),
            finished: to
                .counters("executions_finished", "Finished executions, written by this process, by phase and reason"),
            durations: to.add("execution_duration_seconds", "Duration of commands", Histogram::new(OF_COMMANDS)),
            waiting: to.add("executions_waiting", "Queued executions of this process", Gauge::default()),
            running: to.add("executions_running", "Executions with a slot, connecting or running", Gauge::default()),
            output: to.counters("output_bytes", "Recorded output of commands, by stream"),
            results_waiting: to.add(
                "results_waiting",
                "Results that are not stored yet and are retried",
                Gauge::default(),
            ),
            results_lost: to.counters("results_lost", "Results that were not stored, by cause"),
            machines: to.gauges("machines", "Machines, by phase"),
            ssh_attempts: to.counters("ssh_connect_attempts", "Attempts to connect and log in, by outcome"),
            ssh_logins: to.add(
                "ssh_login_duration_seconds",
                "Duration of successful logins",
                Histogram::new(OF_LOGINS),
            ),
            ssh_connections: to.gauges("ssh_connections", "Open shared connections, by purpose"),
            ssh_sessions: to.counters("ssh_sessions", "Attempts to open a session on a connection, by outcome"),
            ssh_requests: to.counters("ssh_requests", "Short requests to machines, by outcome"),
            calls: to.counters("api_requests", "Calls to the API server, by outcome"),
            call_durations: to.call_histograms("api_request_duration_seconds", "Duration of calls to the API server"),
            watch_failures: to.counters("watch_failures", "Watches that failed and were restarted"),
            lease_gaps: to.add("lease_gaps", "Late renewals of the Lease of this process", Counter::default()),
            clock_offset: to.add(
                "clock_offset_seconds",
                "Offset of this host's clock from the API server's, positive if ahead",
                Gauge::default(),
            ),
            stamping: to.gauges("requester_stamping", "Namespaces, by whether the API server stamps the requester"),
            whitelists: to.gauges("whitelists", "Whitelists, by whether writ lint warns about them"),
            events: to.counters("events", "Kubernetes events, by outcome"),
            trace_exports: to.counters("trace_exports", "Export requests to the trace collector, by outcome"),
            registry: Registry::default(),
        };
        Self { registry, ..metrics }.begun()
    }

    /// What alerts look at is there from the first scrape on: an increase from nothing to one is none.
    fn begun(self) -> Self {
        for cause in ["not_ours", "refused"] {
            drop(self.results_lost.get_or_create(&Cause { cause }));
        }
        for outcome in ["published", "failed", "dropped"] {
            drop(self.events.get_or_create(&Outcome { outcome }));
        }
        let unknown = [
            Reason::ConnectionLost,
            Reason::HolderLost,
            Reason::NoExitStatus,
            Reason::StartNotConfirmed,
            Reason::Rebooted,
            Reason::MachineChanged,
            Reason::RecordLost,
        ];
        for reason in unknown {
            drop(self.finished.get_or_create(&Finished { phase: Word(Phase::OutcomeUnknown), reason: Word(reason) }));
        }
        for outcome in ["connected", "unreachable", "host_key_mismatch", "authentication_refused"] {
            drop(self.ssh_attempts.get_or_create(&Outcome { outcome }));
        }
        self.namespaces_by_stamping(0, 0, 0);
        self
    }

    /// All of them as text (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A String takes whatever is written into it.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// A request is allowed, and its execution goes into its queue.
    pub fn allowed(&self) {
        self.decisions.get_or_create(&Decided { verdict: "allowed", reason: OfVerdict(None) }).inc();
    }

    /// An execution has been looked at, or another object.
    pub fn reconciled(&self, controller: &'static str, since: Instant) {
        self.reconciles.get_or_create(&Controller { controller }).observe(since.elapsed().as_secs_f64());
    }

    /// An object could not be looked at.
    pub fn reconcile_failed(&self, controller: &'static str, category: &'static str) {
        self.reconcile_errors.get_or_create(&Failed { controller, category }).inc();
    }

    /// An execution was claimed, so long after its creation.
    pub fn claimed(&self, waited: Duration) {
        self.claimed.inc();
        self.waits.observe(waited.as_secs_f64());
    }

    /// A claim was taken over.
    pub fn adopted(&self) {
        self.adopted.inc();
    }

    /// The end of an execution was written.
    pub fn finished(&self, status: &CommandExecutionStatus) {
        let Some(reason) = status.reason else { return };
        if status.phase == Phase::Rejected {
            self.decisions.get_or_create(&Decided { verdict: "rejected", reason: OfVerdict(Some(reason)) }).inc();
        }
        self.finished.get_or_create(&Finished { phase: Word(status.phase), reason: Word(reason) }).inc();
        if let Some(duration) = status.duration_ms.and_then(|duration| u64::try_from(duration).ok()) {
            self.durations.observe(Duration::from_millis(duration).as_secs_f64());
        }
        if let Some(output) = &status.output {
            for (stream, record) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
                let bytes = u64::try_from(record.bytes).unwrap_or(0);
                self.output.get_or_create(&Stream { stream }).inc_by(bytes);
            }
        }
    }

    /// A result waits to be stored, until what is returned is dropped.
    pub fn result_waits(&self) -> ResultWaits {
        self.results_waiting.inc();
        ResultWaits(self.results_waiting.clone())
    }

    /// A result will never be stored.
    pub fn result_lost(&self, cause: &'static str) {
        self.results_lost.get_or_create(&Cause { cause }).inc();
    }

    /// How many executions wait in this process, and how many have a slot.
    pub fn executions(&self, waiting: usize, running: usize) {
        self.waiting.set(count(waiting));
        self.running.set(count(running));
    }

    /// How many machines were seen last in this phase.
    pub fn machines(&self, phase: &'static str, machines: usize) {
        self.machines.get_or_create(&PhaseOfMachine { phase }).set(count(machines));
    }

    /// A connection was tried. `login_time` where it was made.
    pub fn connected(&self, outcome: &'static str, login_time: Option<Duration>) {
        self.ssh_attempts.get_or_create(&Outcome { outcome }).inc();
        if let Some(login_time) = login_time {
            self.ssh_logins.observe(login_time.as_secs_f64());
        }
    }

    /// How many shared connections are open.
    pub fn connections(&self, purpose: Purpose, connections: usize) {
        let purpose = match purpose {
            Purpose::Commands => "commands",
            Purpose::Jump => "jump",
        };
        self.ssh_connections.get_or_create(&For { purpose }).set(count(connections));
    }

    /// A session was asked for.
    pub fn session(&self, outcome: &'static str) {
        self.ssh_sessions.get_or_create(&Outcome { outcome }).inc();
    }

    /// A machine was asked something short.
    pub fn asked(&self, outcome: &'static str) {
        self.ssh_requests.get_or_create(&Outcome { outcome }).inc();
    }

    /// The API server was called.
    pub fn called(&self, operation: &'static str, outcome: &'static str, since: Instant) {
        self.calls.get_or_create(&Called { operation, outcome }).inc();
        self.call_durations.get_or_create(&Operation { operation }).observe(since.elapsed().as_secs_f64());
    }

    /// A watch failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_failures.get_or_create(&Kind { kind }).inc();
    }

    /// The Lease of this process was renewed too late: others may have taken it for gone.
    pub fn lease_gap(&self) {
        self.lease_gaps.inc();
    }

    /// This host's clock is ahead of the API server's by so many seconds, or behind by as many less than none.
    pub fn clock_offset(&self, seconds: f64) {
        self.clock_offset.set(seconds);
    }

    /// In how many namespaces the API server stamps who asks, in how many it does not, and where that is not known.
    pub fn namespaces_by_stamping(&self, stamped: usize, not_stamped: usize, undecided: usize) {
        for (state, namespaces) in [("stamped", stamped), ("not_stamped", not_stamped), ("undecided", undecided)] {
            self.stamping.get_or_create(&State { state }).set(count(namespaces));
        }
    }

    /// How many Whitelists have no warnings, and how many have some.
    pub fn whitelists(&self, without: usize, with: usize) {
        for (warnings, whitelists) in [("no", without), ("yes", with)] {
            self.whitelists.get_or_create(&Warned { warnings }).set(count(whitelists));
        }
    }

    /// An event was published, failed or was dropped.
    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&Outcome { outcome }).inc();
    }

    /// Spans were sent, or could not be.
    pub fn traces_exported(&self, outcome: &'static str) {
        self.trace_exports.get_or_create(&Outcome { outcome }).inc();
    }
}

/// A result that waits to be stored.
#[derive(Debug)]
pub struct ResultWaits(Gauge);

impl Drop for ResultWaits {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
