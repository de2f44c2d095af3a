//! `writ serve`: flags, wiring and shutdown.

mod gateway_flags;
mod network_flags;
mod retention_flags;
mod spill_flags;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use kube::ResourceExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use writ::cli::store;
use writ::cluster::{
    ClientOptions, Cluster, ClusterError, EventPublisher, Membership, OwnLease, PolicyCache, RequesterTrustChecker,
};
use writ::controllers::{Watches, command_execution, machine, retention, sessions, whitelist};
use writ::execution::DEFAULT_GRACE_FOR_MISSING;
use writ::fleet::MachineWakes;
use writ::operations::{LogFormat, OpsServer, start_logs};
use writ::output::{LiveOutput, Store};
use writ::runner::{FollowLimits, OutputSinks, Runner, RunnerConfig, Spool};
use writ::ssh::use_certificate_clock;
use writ::telemetry::{health, metrics};
use writ::traces::TraceExporter;

/// Time for which Writ tolerates missing CRDs and rights. The time starts at the end of an outage of the API server. A
/// starting API server needs some time to load CRDs and rights.
const API_SERVER_STARTUP_GRACE: Duration = Duration::from_secs(30);
/// Maximum time to send the remaining spans when the process stops.
const TRACE_FLUSH_DEADLINE: Duration = Duration::from_secs(3);

use gateway_flags::GatewayFlags;
use network_flags::NetworkFlags;
use retention_flags::RetentionFlags;
use spill_flags::SpillFlags;

#[derive(Args, Debug)]
pub struct Serve {
    /// Kubeconfig file [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Namespace to serve; repeatable [default: all namespaces].
    #[arg(long, short, value_name = "NAME", value_delimiter = ',')]
    namespace: Vec<String>,

    /// Namespace for the Lease of this process. Other processes read the Lease to find out if this process is alive
    /// [default: the served namespace, if --namespace names exactly one; else the namespace of the Pod or the
    /// kubeconfig].
    #[arg(long, value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Seconds that Writ waits for running commands after SIGTERM. After this time, the remaining commands continue on
    /// their machines, and the next `writ serve` follows them. In Direct mode, Writ records the remaining commands as
    /// OutcomeUnknown.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain_seconds: u64,

    /// Seconds to wait for a missing Machine or rule before the execution is Rejected.
    #[arg(long, default_value_t = DEFAULT_GRACE_FOR_MISSING.as_secs(), value_name = "SECONDS")]
    missing_grace_seconds: u64,

    /// Lease duration in seconds, 3 to 300. After this time without a renewal, another `writ serve` adopts the claims
    /// of this process.
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=300))]
    lease_seconds: u64,

    /// Interval between checks that users cannot forge the requester of an execution, in seconds, 1 to 3600. A check is
    /// a dry-run create with a forged requester, in each namespace.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    requester_check_seconds: u64,

    /// List all Whitelists of the namespace before each start. A new Whitelist then counts at once, and each start
    /// takes about 0.1 s longer. Without this flag, a changed or deleted Whitelist counts at once, and a new Whitelist
    /// counts for each start whose check begins 2 s or more after its creation.
    #[arg(long)]
    strict_policy_reads: bool,

    /// Seconds that Writ waits for an unreachable machine after the timeout of the command. After this time, the
    /// command is recorded as OutcomeUnknown.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    unreachable_seconds: u64,

    /// Maximum time from a stop request (cancellation, deletion, timeout, or too much output) to the end of the
    /// execution, in seconds, 10 to 86400. If the machine has not reported the end of the command by then, the status
    /// says what is unknown.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(10..=86_400))]
    stop_seconds: u64,

    /// Maximum time without input and output of an interactive session, in seconds, 1 to 86400. After this time, Writ
    /// ends its command.
    #[arg(long, default_value_t = 900, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interactive_idle_seconds: u64,

    /// Directory for files that must survive a restart. The directory contains outputs, unless --output-store names
    /// another place. The directory also contains results of Direct mode until they are written to the API server
    /// [default: $STATE_DIRECTORY, $XDG_STATE_HOME/writ, or ~/.local/state/writ].
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,

    /// Store for output that does not fit into the status: a directory, file:///PATH, or s3://BUCKET/PREFIX. For s3,
    /// credentials come from the environment, as for the AWS tools. `none` stores nothing. A directory is enough for
    /// one `writ serve` on one host. Several `writ serve` processes need a bucket. `writ output` reads the store
    /// [default: `outputs` in the state directory].
    #[arg(long, value_name = "URL", env = store::OUTPUT_STORE)]
    output_store: Option<String>,

    #[command(flatten)]
    spill: SpillFlags,

    #[command(flatten)]
    network: NetworkFlags,

    #[command(flatten)]
    retention: RetentionFlags,

    #[command(flatten)]
    gateway: GatewayFlags,

    /// Address for /metrics, /healthz and /readyz over HTTP, for example 0.0.0.0:8081 in a Pod. With port 0, Writ uses
    /// a free port and logs its number [default: none].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_operations: Option<SocketAddr>,

    /// OpenTelemetry collector for traces (OTLP over HTTP), for example http://collector:4318 [default: none].
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp_endpoint: Option<String>,

    /// Format of log lines. The environment variable RUST_LOG sets the log level, for example RUST_LOG=writ=debug.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

impl Serve {
    /// Returns the options of the Kubernetes client. The options contain each namespace only once.
    fn client(&self) -> ClientOptions {
        let namespaces = self.namespace.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let (kubeconfig, own_namespace) = (self.kubeconfig.clone(), self.lease_namespace.clone());
        ClientOptions { kubeconfig, namespaces, own_namespace, is_person: false }
    }

    fn start_logs(&self) -> anyhow::Result<Option<TraceExporter>> {
        let format = match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        // An empty environment variable counts as absent.
        start_logs(format, self.otlp_endpoint.as_deref().filter(|url| !url.is_empty()))
    }

    async fn listen(&self) -> anyhow::Result<Option<OpsServer>> {
        let Some(address) = self.listen_operations else { return Ok(None) };
        OpsServer::start(address).await.map(Some)
    }

    fn state_directory(&self) -> Option<PathBuf> {
        self.state_directory.clone().or_else(store::state_folder)
    }

    fn patience(&self) -> FollowLimits {
        let seconds = Duration::from_secs;
        FollowLimits {
            unreachable: seconds(self.unreachable_seconds),
            stop: seconds(self.stop_seconds),
            idle: seconds(self.interactive_idle_seconds),
        }
    }

    /// Opens the spool, the directory for results of Direct mode. Then writes the results of an earlier process from
    /// the spool to the API server.
    async fn open_spool(&self, cluster: &Cluster) -> Option<Spool> {
        let directory = self.state_directory()?.join("results");
        match Spool::open(&directory) {
            Ok(spool) => {
                spool.replay(cluster).await;
                Some(spool)
            }
            Err(error) => {
                tracing::warn!(
                    directory = %directory.display(), %error,
                    "results of Direct mode are not kept on disk; see --state-directory"
                );
                None
            }
        }
    }

    /// Opens the output store. Fails if a flag names a store that cannot be used. If the default store cannot be
    /// opened, Writ runs without a store, and loses only output that does not fit into the status.
    fn open_store(&self) -> anyhow::Result<Option<Store>> {
        let given = self.output_store.as_deref();
        let default = || Some(self.state_directory()?.join("outputs").to_str()?.to_owned());
        let location = match given {
            Some("none") => return Ok(None),
            given => given.map(ToOwned::to_owned).or_else(default),
        };
        let Some(location) = location else {
            tracing::warn!(
                "no output store, because no directory for it is known ($HOME is not set); set --output-store"
            );
            return Ok(None);
        };
        match store::open(&location) {
            Ok(store) => {
                tracing::info!(%store, "output store opened");
                Ok(Some(store))
            }
            Err(error) if given.is_some() => Err(error).context("the output store cannot be used (--output-store)"),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, "output store cannot be opened; set --output-store to keep large outputs");
                Ok(None)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs the controllers until SIGTERM or ctrl-C.
pub async fn serve(options: Serve) -> anyhow::Result<()> {
    let exporting = options.start_logs()?;
    // The endpoints start first, so that /readyz answers while this process waits for the API server.
    let endpoints = options.listen().await?;
    let store = options.open_store()?;
    let client_options = options.client();
    let cluster = connect(&client_options).await?;
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ready = wait_until_usable(&cluster) => ready?,
        () = wait_for_signal(&mut signals) => return Ok(()),
    }

    let holder = new_holder_name();
    let (holders, renewing) = join(&cluster, &holder, Duration::from_secs(options.lease_seconds)).await?;
    let (events, _publishing) = EventPublisher::start(&cluster, &holder);
    let stamping = RequesterTrustChecker::new(cluster.clone(), Duration::from_secs(options.requester_check_seconds));
    let policies = Arc::new(PolicyCache::new(cluster.clone(), options.strict_policy_reads));
    let (stop, live) = (CancellationToken::new(), options.spill.start(options.state_directory()));
    let (runner, wakes, machine_wakes) = Runner::new(RunnerConfig {
        cluster: cluster.clone(),
        policies: Arc::clone(&policies),
        stamping: stamping.clone(),
        events: events.clone(),
        holders: Arc::clone(&holders),
        outputs: OutputSinks { live: live.clone(), store: store.clone() },
        spool: options.open_spool(&cluster).await,
        limits: options.patience(),
        network: options.network.network(&cluster, &stop).await,
    });
    measure(endpoints.as_ref(), &runner, &stamping, live.clone());
    let finished = options.retention.context(&cluster, store.clone(), &events);
    let (watches, mut following) = start_watches(&cluster, &policies, &stop);
    let gateway = options.gateway.start((&cluster, &stamping, &watches, &runner), (&live, store.as_ref())).await?;
    let shared = (&cluster, &policies, &watches);
    let others = start_other_controllers(shared, &runner, (&stamping, &events), machine_wakes, finished, &stop);
    let context = command_execution::Context {
        cluster,
        policies,
        stamping,
        runner: runner.clone(),
        holders: Arc::clone(&holders),
        events,
        grace_for_missing: Duration::from_secs(options.missing_grace_seconds),
    };
    let mut controller = tokio::spawn(command_execution::run(context, watches, wakes, stop.clone()));
    tracing::info!(holder, namespaces = describe_scope(&client_options), "writ serves");

    run_until_signal(&mut signals, &mut controller, &mut following).await?;
    let draining = tokio::spawn(gateway_flags::stop(gateway));
    let others = async { tokio::join!(controller, others) };
    shut_down((&runner, &holders), Duration::from_secs(options.drain_seconds), &stop, others).await;
    let _ = draining.await;
    renewing.abort();
    holders.release().await;
    tracing::info!("stopped");
    send_last_spans(exporting).await;
    Ok(())
}

/// Starts the watches that all controllers share, and the task that reports changed Whitelists to `policies`.
fn start_watches(
    cluster: &Cluster,
    policies: &Arc<PolicyCache>,
    stop: &CancellationToken,
) -> (Watches, JoinHandle<Option<()>>) {
    let (watches, follow) = Watches::new(cluster);
    let changes = watches.whitelists.subscribe(|before, after| before.resource_version() != after.resource_version());
    let policies = Arc::clone(policies);
    // The shutdown does not wait for this task, because it only updates a cache.
    tokio::spawn(async move { policies.follow(changes).await });
    (watches, tokio::spawn(stop.clone().run_until_cancelled_owned(follow)))
}

/// Waits for a signal. Fails if the controller or the watches end before a signal arrives.
async fn run_until_signal(
    signals: &mut (Signal, Signal),
    controller: &mut JoinHandle<()>,
    watches: &mut JoinHandle<Option<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        () = wait_for_signal(signals) => Ok(()),
        ended = controller => bail!("the controller ended by itself ({ended:?}): this is a bug; please report it"),
        ended = watches => bail!("the watches ended by themselves ({ended:?}): this is a bug; please report it"),
    }
}

async fn send_last_spans(exporting: Option<TraceExporter>) {
    if let Some(exporting) = exporting {
        exporting.shut_down(TRACE_FLUSH_DEADLINE).await;
    }
}

/// Registers a function that updates the gauges before each scrape.
fn measure(endpoints: Option<&OpsServer>, runner: &Runner, stamping: &RequesterTrustChecker, live: LiveOutput) {
    let Some(endpoints) = endpoints else { return };
    let (runner, stamping) = (runner.clone(), stamping.clone());
    endpoints.before_scrape(move || {
        runner.update_gauges();
        stamping.measure();
        let usage = live.usage();
        metrics().live_output(usage.memory_bytes, usage.spill_bytes);
        for (reason, bytes) in live.take_lost() {
            metrics().live_output_dropped(reason.as_str(), bytes);
        }
    });
}

/// Starts the controllers of Machines, Whitelists and finished executions, and the deletion of expired sessions. The
/// returned future ends after all of them have ended.
fn start_other_controllers(
    (cluster, policies, watches): (&Cluster, &Arc<PolicyCache>, &Watches),
    runner: &Runner,
    (stamping, events): (&RequesterTrustChecker, &EventPublisher),
    wakes: MachineWakes,
    finished: retention::Context,
    stop: &CancellationToken,
) -> impl Future + use<> {
    let context = machine::Context::new(cluster.clone(), runner.clone(), events.clone());
    let machines = tokio::spawn(machine::run(context, watches.clone(), wakes, stop.clone()));
    let context = whitelist::Context {
        cluster: cluster.clone(),
        stamping: stamping.clone(),
        events: events.clone(),
        policies: Arc::clone(policies),
        warnings: whitelist::WarningCounts::default(),
    };
    let whitelists = tokio::spawn(whitelist::run(context, watches.clone(), stop.clone()));
    let finished = tokio::spawn(retention::run(finished, stop.clone()));
    let expired = tokio::spawn(sessions::run(cluster.clone(), stop.clone()));
    async { tokio::join!(machines, whitelists, finished, expired) }
}

/// Connects to the API server. The API server's clock then decides if host and login certificates are valid.
async fn connect(options: &ClientOptions) -> anyhow::Result<Cluster> {
    let cluster = Cluster::connect(options).await.context("kubeconfig cannot be used")?;
    let clock = cluster.clone();
    use_certificate_clock(move || u64::try_from(clock.now().as_second()).unwrap_or(0));
    Ok(cluster)
}

fn describe_scope(options: &ClientOptions) -> String {
    if options.namespaces.is_empty() { "(all)".to_owned() } else { options.namespaces.join(",") }
}

/// Creates the Lease of this process, and starts the task that renews it. The Lease contains no address, because this
/// process does not serve requests of other members yet.
async fn join(cluster: &Cluster, name: &str, duration: Duration) -> anyhow::Result<(Arc<Membership>, JoinHandle<()>)> {
    let namespace = cluster.own_namespace();
    let joined = Membership::join(cluster, OwnLease { namespace, name, duration, address: None }).await;
    let joined =
        joined.with_context(|| format!("the Lease of this process cannot be written in namespace {namespace}"))?;
    let membership = Arc::new(joined);
    let renewed = Arc::clone(&membership);
    Ok((membership, tokio::spawn(async move { renewed.run().await })))
}

/// Waits for SIGTERM or ctrl-C.
async fn wait_for_signal((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Drains the runner, then stops the controllers.
async fn shut_down<T>(
    (runner, membership): (&Runner, &Membership),
    drain: Duration,
    stop: &CancellationToken,
    controllers: impl Future<Output = T>,
) {
    health().set_stopping();
    tracing::info!(drain_seconds = drain.as_secs(), "stopping: no new commands start, running commands may end");
    // The controllers continue while the runner drains, so that cancellations still work. `leave` lets other members
    // take over the Machines. `runner.shut_down` comes first, because its first poll prevents new commands.
    tokio::join!(biased; runner.shut_down(drain), async { membership.leave() });
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(5), controllers).await;
}

/// Waits until the API server answers. Fails if CRDs or rights are missing.
async fn wait_until_usable(cluster: &Cluster) -> anyhow::Result<()> {
    let mut starting_until = Instant::now();
    loop {
        match check_crds(cluster).await {
            Ok(()) => {
                health().prerequisites_ok();
                return Ok(());
            }
            Err(error @ (ClusterError::NotFound { .. } | ClusterError::Forbidden { .. }))
                if Instant::now() < starting_until =>
            {
                tracing::warn!(%error, "waiting for the API server to finish its start");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            Err(error @ ClusterError::NotFound { .. }) => {
                return Err(error).context("the CRDs are not installed; install them with `kubectl apply -f crds/`");
            }
            Err(error @ ClusterError::Forbidden { .. }) => {
                return Err(error)
                    .context("grant this user the rights of the chart (deploy/operator-role.yaml has them too), or use --namespace");
            }
            Err(error) => {
                starting_until = Instant::now() + API_SERVER_STARTUP_GRACE;
                tracing::warn!(%error, "waiting for the API server");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

/// Checks that Writ's user may list CommandExecutions and ExecutionReceipts. No decision is possible without these
/// rights.
async fn check_crds(cluster: &Cluster) -> Result<(), ClusterError> {
    cluster.check_access().await?;
    cluster.check_receipts().await
}

/// Returns the name of this process for its claims and its Lease: the host name and a random word. The random word
/// distinguishes a restarted process from its predecessor.
fn new_holder_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME").unwrap_or(host).to_lowercase();
    // The name of a Lease is a DNS name of at most 253 characters. The first 63 characters of the host name are enough.
    let usable = |character: &char| character.is_ascii_lowercase() || character.is_ascii_digit() || *character == '-';
    let host: String = host.chars().filter(usable).take(63).collect();
    let nonce = Uuid::new_v4().simple().to_string();
    format!("writ-{}-{}", host.trim_matches('-'), nonce.get(..12).unwrap_or(&nonce)).replace("--", "-")
}
