//! All metrics, with one method for each event. `docs/guides/operation.md` describes the metrics for operators. A test
//! compares this guide, the dashboard and the alerts with the registered metrics.

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

use super::gateway::GatewayMetrics;
use super::labels::{
    ApiWord, CallLabels, CauseLabels, ControllerLabels, DecisionLabels, FailureLabels, FinishedLabels, KindLabels,
    MachinePhaseLabels, OperationLabels, OutcomeLabels, PlaceLabels, Purpose, PurposeLabels, StateLabels, StreamLabels,
    VerdictReason, VersionLabels, WarningLabels,
};
use super::process::Process;

/// Buckets for durations of calls and reconciles, in seconds: from an immediate answer to 10 s, the deadline of a call.
const CALL_BUCKETS: [f64; 11] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Buckets for durations of logins, in seconds: from a fast login to 10 s, the default deadline.
const LOGIN_BUCKETS: [f64; 9] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for the time from creation to claim, in seconds. The largest bucket is a day.
const WAIT_BUCKETS: [f64; 11] = [0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0];
/// Buckets for durations of commands, in seconds: from a quick command to the maximum timeout, a day.
const COMMAND_BUCKETS: [f64; 11] = [0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

type Family1<L, M> = Family<L, M, fn() -> M>;

/// Metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    gateway: GatewayMetrics,
    decisions: Family1<DecisionLabels, Counter>,
    reconciles: Family1<ControllerLabels, Histogram>,
    reconcile_errors: Family1<FailureLabels, Counter>,
    claimed: Counter,
    waits: Histogram,
    adopted: Counter,
    finished: Family1<FinishedLabels, Counter>,
    durations: Histogram,
    waiting: Gauge,
    running: Gauge,
    output: Family1<StreamLabels, Counter>,
    live_output: Family1<PlaceLabels, Gauge>,
    live_output_dropped: Family1<CauseLabels, Counter>,
    results_waiting: Gauge,
    results_lost: Family1<CauseLabels, Counter>,
    machines: Family1<MachinePhaseLabels, Gauge>,
    ssh_attempts: Family1<OutcomeLabels, Counter>,
    ssh_logins: Histogram,
    ssh_connections: Family1<PurposeLabels, Gauge>,
    ssh_sessions: Family1<OutcomeLabels, Counter>,
    ssh_requests: Family1<OutcomeLabels, Counter>,
    calls: Family1<CallLabels, Counter>,
    call_durations: Family1<OperationLabels, Histogram>,
    watch_failures: Family1<KindLabels, Counter>,
    lease_gaps: Counter,
    clock_offset: Gauge<f64, AtomicU64>,
    stamping: Family1<StateLabels, Gauge>,
    whitelists: Family1<WarningLabels, Gauge>,
    events: Family1<OutcomeLabels, Counter>,
    trace_exports: Family1<OutcomeLabels, Counter>,
}

/// Helper that registers metrics.
struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
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

    fn histogram<const N: usize>(&mut self, name: &str, help: &str, buckets: [f64; N]) -> Histogram {
        self.add(name, help, Histogram::new(buckets))
    }

    fn call_histograms<L>(&mut self, name: &str, help: &str) -> Family1<L, Histogram>
    where
        L: Clone + EncodeLabelSet + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static,
    {
        self.add(name, help, Family::new_with_constructor((|| Histogram::new(CALL_BUCKETS)) as fn() -> Histogram))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates all metrics with value 0.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        // These metrics have the names that Prometheus' own libraries use, without the prefix `writ`.
        registry.register_collector(Box::new(Process));
        let mut to = Registrar(registry.sub_registry_with_prefix("writ"));
        let version = VersionLabels { version: env!("CARGO_PKG_VERSION") };
        to.0.register("build", "Version of this process", Info::new(version));
        let metrics = Self {
            gateway: GatewayMetrics::register(to.0),
            decisions: to.counters("decisions", "Requests matched against the Whitelists, by verdict and reason"),
            reconciles: to.call_histograms("reconcile_duration_seconds", "Time to read, decide and apply one object"),
            reconcile_errors: to.counters("reconcile_errors", "Failed reconciles, which are retried"),
            claimed: to.add("executions_claimed", "Executions claimed by this process", Counter::default()),
            waits: to.histogram("execution_wait_seconds", "Time from creation to claim", WAIT_BUCKETS),
            adopted: to.add(
                "executions_adopted",
                "Claims adopted from a process whose Lease expired",
                Counter::default(),
            ),
            finished: to.counters("executions_finished", "Executions finished by this process, by phase and reason"),
            durations: to.histogram("execution_duration_seconds", "Run time of commands", COMMAND_BUCKETS),
            waiting: to.add("executions_waiting", "Queued executions of this process", Gauge::default()),
            running: to.add("executions_running", "Executions with a slot, connecting or running", Gauge::default()),
            output: to.counters("output_bytes", "Bytes of output, as recorded"),
            live_output: to.gauges("live_output_bytes", "Output of running commands that is kept for viewers"),
            live_output_dropped: to.counters("live_output_dropped_bytes", "Output that viewers can no longer read"),
            results_waiting: to.add(
                "results_waiting",
                "Results not stored at the first attempt, and retried",
                Gauge::default(),
            ),
            results_lost: to.counters("results_lost", "Results that will never be stored, by cause"),
            machines: to.gauges("machines", "Machines, by the phase of the last observation"),
            ssh_attempts: to.counters("ssh_connect_attempts", "Attempts to connect and log in, by outcome"),
            ssh_logins: to.histogram("ssh_login_duration_seconds", "Time of successful logins", LOGIN_BUCKETS),
            ssh_connections: to.gauges("ssh_connections", "Open shared connections, by purpose"),
            ssh_sessions: to.counters("ssh_sessions", "Attempts to open a session on a connection, by outcome"),
            ssh_requests: to.counters("ssh_requests", "Short requests to machines, by outcome"),
            calls: to.counters("api_requests", "Calls to the API server, by outcome"),
            call_durations: to.call_histograms("api_request_duration_seconds", "Duration of calls to the API server"),
            watch_failures: to.counters("watch_failures", "Failed watches, which are restarted"),
            lease_gaps: to.add("lease_gaps", "Late renewals of the Lease of this process", Counter::default()),
            clock_offset: to.add(
                "clock_offset_seconds",
                "Lead of this host's clock over the API server's",
                Gauge::default(),
            ),
            stamping: to.gauges("requester_stamping", "Namespaces, by trust in the recorded requester"),
            whitelists: to.gauges("whitelists", "Whitelists, by warnings of writ lint"),
            events: to.counters("events", "Kubernetes events, by outcome"),
            trace_exports: to.counters("trace_exports", "Batches of spans sent to the collector, by outcome"),
            registry: Registry::default(),
        };
        Self { registry, ..metrics }.with_initial_series()
    }

    /// Creates the series that alerts use, with value 0. `increase()` misses the first event of a series that did not
    /// exist.
    fn with_initial_series(self) -> Self {
        for cause in ["not_ours", "refused"] {
            drop(self.results_lost.get_or_create(&CauseLabels { cause }));
        }
        for outcome in ["published", "failed", "dropped"] {
            drop(self.events.get_or_create(&OutcomeLabels { outcome }));
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
            drop(
                self.finished
                    .get_or_create(&FinishedLabels { phase: ApiWord(Phase::OutcomeUnknown), reason: ApiWord(reason) }),
            );
        }
        for outcome in ["connected", "unreachable", "host_key_mismatch", "authentication_refused"] {
            drop(self.ssh_attempts.get_or_create(&OutcomeLabels { outcome }));
        }
        self.namespaces_by_stamping(0, 0, 0);
        self
    }

    /// Returns all metrics as text (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// Returns the metrics of the gateway's HTTP server.
    pub fn gateway(&self) -> &GatewayMetrics {
        &self.gateway
    }

    /// Counts an allowed request whose execution enters its queue.
    pub fn allowed(&self) {
        self.decisions.get_or_create(&DecisionLabels { verdict: "allowed", reason: VerdictReason(None) }).inc();
    }

    /// Records the duration of a reconcile.
    pub fn reconciled(&self, controller: &'static str, since: Instant) {
        self.reconciles.get_or_create(&ControllerLabels { controller }).observe(since.elapsed().as_secs_f64());
    }

    /// Counts a failed reconcile.
    pub fn reconcile_failed(&self, controller: &'static str, category: &'static str) {
        self.reconcile_errors.get_or_create(&FailureLabels { controller, category }).inc();
    }

    /// Counts a claim. `waited` is the time from the execution's creation to the claim.
    pub fn claimed(&self, waited: Duration) {
        self.claimed.inc();
        self.waits.observe(waited.as_secs_f64());
    }

    /// Counts an adopted claim.
    pub fn adopted(&self) {
        self.adopted.inc();
    }

    /// Counts a finished execution, after its final status was stored.
    pub fn finished(&self, status: &CommandExecutionStatus) {
        let Some(reason) = status.reason else { return };
        if status.phase == Phase::Rejected {
            self.decisions
                .get_or_create(&DecisionLabels { verdict: "rejected", reason: VerdictReason(Some(reason)) })
                .inc();
        }
        self.finished.get_or_create(&FinishedLabels { phase: ApiWord(status.phase), reason: ApiWord(reason) }).inc();
        if let Some(duration) = status.duration_ms.and_then(|duration| u64::try_from(duration).ok()) {
            self.durations.observe(Duration::from_millis(duration).as_secs_f64());
        }
        if let Some(output) = &status.output {
            for (stream, record) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
                let bytes = u64::try_from(record.bytes).unwrap_or(0);
                self.output.get_or_create(&StreamLabels { stream }).inc_by(bytes);
            }
        }
    }

    /// Sets the number of bytes of output that Writ keeps for viewers of running commands, in memory and in spill
    /// files.
    pub fn live_output(&self, memory_bytes: u64, disk_bytes: u64) {
        for (place, bytes) in [("memory", memory_bytes), ("disk", disk_bytes)] {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.live_output.get_or_create(&PlaceLabels { place }).set(bytes);
        }
    }

    /// Counts bytes of output that viewers can no longer read.
    pub fn live_output_dropped(&self, cause: &'static str, bytes: u64) {
        self.live_output_dropped.get_or_create(&CauseLabels { cause }).inc_by(bytes);
    }

    /// Adds one to the number of results that are not stored yet. Dropping the returned guard subtracts one.
    pub fn result_waits(&self) -> ResultWaits {
        self.results_waiting.inc();
        ResultWaits(self.results_waiting.clone())
    }

    /// Counts a result that will never be stored.
    pub fn result_lost(&self, cause: &'static str) {
        self.results_lost.get_or_create(&CauseLabels { cause }).inc();
    }

    /// Sets the numbers of queued executions and of executions that use a slot of a machine.
    pub fn executions(&self, waiting: usize, running: usize) {
        self.waiting.set(count(waiting));
        self.running.set(count(running));
    }

    /// Sets the number of machines whose last observed phase is `phase`.
    pub fn machines(&self, phase: &'static str, machines: usize) {
        self.machines.get_or_create(&MachinePhaseLabels { phase }).set(count(machines));
    }

    /// Counts an attempt to connect and log in. `login_time` is set if the attempt succeeded.
    pub fn connected(&self, outcome: &'static str, login_time: Option<Duration>) {
        self.ssh_attempts.get_or_create(&OutcomeLabels { outcome }).inc();
        if let Some(login_time) = login_time {
            self.ssh_logins.observe(login_time.as_secs_f64());
        }
    }

    /// Sets the number of open shared connections.
    pub fn connections(&self, purpose: Purpose, connections: usize) {
        let purpose = match purpose {
            Purpose::Commands => "commands",
            Purpose::Jump => "jump",
        };
        self.ssh_connections.get_or_create(&PurposeLabels { purpose }).set(count(connections));
    }

    /// Counts an attempt to open an SSH session.
    pub fn session(&self, outcome: &'static str) {
        self.ssh_sessions.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a short request to the launcher on a machine.
    pub fn ssh_request(&self, outcome: &'static str) {
        self.ssh_requests.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a call to the API server and records its duration.
    pub fn api_request(&self, operation: &'static str, outcome: &'static str, since: Instant) {
        self.calls.get_or_create(&CallLabels { operation, outcome }).inc();
        self.call_durations.get_or_create(&OperationLabels { operation }).observe(since.elapsed().as_secs_f64());
    }

    /// Counts a failed watch.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_failures.get_or_create(&KindLabels { kind }).inc();
    }

    /// Counts a late renewal of this process's Lease. Other processes perhaps considered the Lease expired.
    pub fn lease_gap(&self) {
        self.lease_gaps.inc();
    }

    /// Sets the number of seconds by which the host's clock is ahead of the API server's clock. The number is negative
    /// if the host's clock is behind.
    pub fn clock_offset(&self, seconds: f64) {
        self.clock_offset.set(seconds);
    }

    /// Sets the number of namespaces for each result of the requester check:
    ///
    /// - `stamped`: the API server records requesters.
    /// - `not_stamped`: the API server does not record requesters.
    /// - `undecided`: the result is unknown.
    pub fn namespaces_by_stamping(&self, stamped: usize, not_stamped: usize, undecided: usize) {
        for (state, namespaces) in [("stamped", stamped), ("not_stamped", not_stamped), ("undecided", undecided)] {
            self.stamping.get_or_create(&StateLabels { state }).set(count(namespaces));
        }
    }

    /// Sets the numbers of Whitelists without warnings and with warnings.
    pub fn whitelists(&self, without: usize, with: usize) {
        for (warnings, whitelists) in [("no", without), ("yes", with)] {
            self.whitelists.get_or_create(&WarningLabels { warnings }).set(count(whitelists));
        }
    }

    /// Counts a Kubernetes event by its outcome: published, failed or dropped.
    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a batch of spans for the collector by its outcome: sent or failed.
    pub fn traces_exported(&self, outcome: &'static str) {
        self.trace_exports.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

/// Guard for a result that is not stored yet. Dropping the guard removes the result from the count.
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
