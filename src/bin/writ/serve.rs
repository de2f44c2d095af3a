//! `writ serve`: its flags, and how its parts are put together.

mod reaching;
mod retaining;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use writ::cli::store;
use writ::cluster::{
    ClientOptions, Cluster, ClusterError, EventPublisher, Membership, OwnLease, PolicyCache, RequesterTrustChecker,
};
use writ::controllers::{command_execution, machine, retention, whitelist};
use writ::execution::DEFAULT_GRACE_FOR_MISSING;
use writ::fleet::MachineWakes;
use writ::operations::{LogFormat, OpsServer, start_logs};
use writ::output::{Hub, Store};
use writ::runner::{FollowLimits, OutputSinks, Runner, RunnerConfig, Spool};
use writ::ssh::use_certificate_clock;
use writ::telemetry::health;
use writ::traces::TraceExporter;

/// For how long an API server that was away may say that there are no CRDs and no rights: it reads them at its start.
const STARTING: Duration = Duration::from_secs(30);
/// How long the last spans may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(3);

use reaching::Reaching;
use retaining::Retaining;

#[derive(Args, Debug)]
pub struct Serve {
    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Serve this namespace only; may be given several times [default: all namespaces].
    #[arg(long, short, value_name = "NAME", value_delimiter = ',')]
    namespace: Vec<String>,

    /// Where the Lease of this process is, its sign of life to others [default: the namespace that is served, where that is
    /// one; else the Pod's or the kubeconfig's].
    #[arg(long, value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Seconds that running commands get to end after SIGTERM. What still runs then is left to the next `writ serve`, or,
    /// in Direct mode, recorded as OutcomeUnknown.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain_seconds: u64,

    /// Seconds that a Machine or a rule which is not there is waited for before an execution is Rejected.
    #[arg(long, default_value_t = DEFAULT_GRACE_FOR_MISSING.as_secs(), value_name = "SECONDS")]
    missing_grace_seconds: u64,

    /// Seconds without a sign of life after which another `writ serve` takes this one for gone, and takes over what it
    /// had claimed. At least 3.
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=300))]
    lease_seconds: u64,

    /// Seconds for which it holds that the API server stamps who asks; then it is tried again (a dry-run create with a
    /// forged name, in each namespace by itself).
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    requester_check_seconds: u64,

    /// Seconds, beyond its timeout, that the machine of a claimed command may be out of reach before the command is
    /// recorded as OutcomeUnknown.
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    unreachable_seconds: u64,

    /// Seconds after which an execution ends that somebody cancelled or deleted, or that Writ stops for its time or its
    /// output, whatever its machine does: what is not known then is recorded as that. At least 10.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(10..=86_400))]
    stop_seconds: u64,

    /// Folder of this process for what must outlive it: outputs, where no other store is named, and results of commands in
    /// Direct mode that are not written yet [default: $STATE_DIRECTORY, $XDG_STATE_HOME/writ, or ~/.local/state/writ].
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,

    /// Where output goes that the status cannot show whole: a folder, file:///PATH, or s3://BUCKET/PREFIX with credentials
    /// from the environment, as AWS' tools read them; `none` for nowhere. A folder is for one `writ serve` on one host;
    /// several need a bucket. `writ output` reads it [default: `outputs` in the state directory].
    #[arg(long, value_name = "URL", env = store::OUTPUT_STORE)]
    output_store: Option<String>,

    #[command(flatten)]
    reaching: Reaching,

    #[command(flatten)]
    retaining: Retaining,
    /// Serve /metrics, /healthz and /readyz over HTTP at this address, for example 0.0.0.0:8081 in a Pod; port 0 for a free
    /// one, which the log names [default: not at all].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_operations: Option<SocketAddr>,

    /// Send traces to this OpenTelemetry collector by OTLP over HTTP, for example http://collector:4318 [default: none].
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp_endpoint: Option<String>,

    /// How log lines look. How many there are is said by RUST_LOG, for example RUST_LOG=writ=debug.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

impl Serve {
    /// Where the API server is, and what of it is served: each namespace once.
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
        // An empty variable of the environment is none.
        start_logs(format, self.otlp_endpoint.as_deref().filter(|url| !url.is_empty()))
    }

    async fn listen(&self) -> anyhow::Result<Option<OpsServer>> {
        let Some(address) = self.listen_operations else { return Ok(None) };
        OpsServer::start(address).await.map(Some)
    }

    /// Where this process keeps what must outlive it.
    fn state_folder(&self) -> Option<PathBuf> {
        self.state_directory.clone().or_else(store::state_folder)
    }

    /// How long machines of claimed commands are waited for.
    fn patience(&self) -> FollowLimits {
        let seconds = Duration::from_secs;
        FollowLimits { unreachable: seconds(self.unreachable_seconds), stop: seconds(self.stop_seconds) }
    }

    /// The results that another process left on disk are written before anything is taken for left behind.
    async fn open_spool(&self, cluster: &Cluster) -> Option<Spool> {
        let folder = self.state_folder()?.join("results");
        match Spool::open(&folder) {
            Ok(spool) => {
                spool.replay(cluster).await;
                Some(spool)
            }
            Err(error) => {
                tracing::warn!(
                    directory = %folder.display(), %error,
                    "results of Direct mode are not kept on disk before they are written; see --state-directory"
                );
                None
            }
        }
    }

    /// The output store. One that was asked for has to be usable; without the default one only large outputs are the poorer.
    fn open_store(&self) -> anyhow::Result<Option<Store>> {
        let given = self.output_store.as_deref();
        let folder = || Some(self.state_folder()?.join("outputs").to_str()?.to_owned());
        let location = match given {
            Some("none") => return Ok(None),
            given => given.map(ToOwned::to_owned).or_else(folder),
        };
        let Some(location) = location else {
            tracing::warn!("there is no folder for an output store (no $HOME); name one with --output-store");
            return Ok(None);
        };
        match store::open(&location) {
            Ok(store) => {
                tracing::info!(%store, "output that the status cannot show whole is stored");
                Ok(Some(store))
            }
            Err(error) if given.is_some() => Err(error).context("the output store cannot be used (--output-store)"),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, "large outputs will not be stored; name a store with --output-store");
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

/// Serves until it is told to end.
pub async fn serve(options: Serve) -> anyhow::Result<()> {
    let exporting = options.start_logs()?;
    // Before anything is waited for, so that they say what.
    let endpoints = options.listen().await?;
    let store = options.open_store()?;
    let client_options = options.client();
    let cluster = connect(&client_options).await?;
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        ready = wait_until_usable(&cluster) => ready?,
        () = told_to_end(&mut signals) => return Ok(()),
    }

    let holder = holder();
    let holders = Arc::new(join(&cluster, &holder, Duration::from_secs(options.lease_seconds)).await?);
    let (events, _publishing) = EventPublisher::start(&cluster, &holder);
    let membership = Arc::clone(&holders);
    let renewing = tokio::spawn(async move { membership.run().await });
    let stamping = RequesterTrustChecker::new(cluster.clone(), Duration::from_secs(options.requester_check_seconds));
    let policies = Arc::new(PolicyCache::new(cluster.clone()));
    let stop = CancellationToken::new();
    let (runner, wakes, machine_wakes) = Runner::new(RunnerConfig {
        cluster: cluster.clone(),
        policies: Arc::clone(&policies),
        stamping: stamping.clone(),
        events: events.clone(),
        holders: Arc::clone(&holders),
        outputs: OutputSinks { hub: Hub::default(), store: store.clone() },
        spool: options.open_spool(&cluster).await,
        limits: options.patience(),
        network: options.reaching.network(&cluster, &stop).await,
    });
    measure(endpoints.as_ref(), &runner, &stamping);
    let finished = options.retaining.context(&cluster, store, &events);
    let others = others((&cluster, &policies), &runner, (&stamping, &events), machine_wakes, finished, &stop);
    let context = command_execution::Context {
        cluster,
        policies,
        stamping,
        runner: runner.clone(),
        holders: Arc::clone(&holders),
        events,
        grace_for_missing: Duration::from_secs(options.missing_grace_seconds),
    };
    let mut controller = tokio::spawn(command_execution::run(context, wakes, stop.clone()));
    tracing::info!(holder, namespaces = serves(&client_options), "writ serves");

    tokio::select! {
        () = told_to_end(&mut signals) => {}
        ended = &mut controller => bail!("the controller ended by itself ({ended:?}); this is a bug, please report it"),
    }
    let others = async { tokio::join!(controller, others) };
    end((&runner, &holders), Duration::from_secs(options.drain_seconds), &stop, others).await;
    renewing.abort();
    holders.release().await;
    tracing::info!("stopped");
    send_last_spans(exporting).await;
    Ok(())
}

async fn send_last_spans(exporting: Option<TraceExporter>) {
    if let Some(exporting) = exporting {
        exporting.shut_down(LAST_SPANS).await;
    }
}

/// Brings up to date what is counted only when metrics are asked for.
fn measure(endpoints: Option<&OpsServer>, runner: &Runner, stamping: &RequesterTrustChecker) {
    let Some(endpoints) = endpoints else { return };
    let (runner, stamping) = (runner.clone(), stamping.clone());
    endpoints.before_scrape(move || {
        runner.update_gauges();
        stamping.measure();
    });
}

/// Starts the controllers beside that of executions; what comes back ends with them.
fn others(
    (cluster, policies): (&Cluster, &Arc<PolicyCache>),
    runner: &Runner,
    (stamping, events): (&RequesterTrustChecker, &EventPublisher),
    wakes: MachineWakes,
    finished: retention::Context,
    stop: &CancellationToken,
) -> impl Future + use<> {
    let context = machine::Context::new(cluster.clone(), runner.clone(), events.clone());
    let machines = tokio::spawn(machine::run(context, wakes, stop.clone()));
    let context = whitelist::Context {
        cluster: cluster.clone(),
        stamping: stamping.clone(),
        events: events.clone(),
        policies: Arc::clone(policies),
        warnings: whitelist::WarningCounts::default(),
    };
    let whitelists = tokio::spawn(whitelist::run(context, stop.clone()));
    let finished = tokio::spawn(retention::run(finished, stop.clone()));
    async { tokio::join!(machines, whitelists, finished) }
}

/// A client of the API server. Certificates of hosts and logins are valid by the clock that everything else goes by.
async fn connect(options: &ClientOptions) -> anyhow::Result<Cluster> {
    let cluster = Cluster::connect(options).await.context("the kubeconfig cannot be used")?;
    let clock = cluster.clone();
    use_certificate_clock(move || u64::try_from(clock.now().as_second()).unwrap_or(0));
    Ok(cluster)
}

fn serves(options: &ClientOptions) -> String {
    if options.namespaces.is_empty() { "(all)".to_owned() } else { options.namespaces.join(",") }
}

/// Creates the Lease of this process. It serves the other members at no address yet.
async fn join(cluster: &Cluster, name: &str, duration: Duration) -> anyhow::Result<Membership> {
    let namespace = cluster.own_namespace();
    let joined = Membership::join(cluster, OwnLease { namespace, name, duration, address: None }).await;
    joined.with_context(|| format!("the Lease of this process cannot be written in namespace {namespace}"))
}

/// Waits for SIGTERM or ctrl-C.
async fn told_to_end((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Lets what runs end, and then the controllers.
async fn end<T>(
    (runner, membership): (&Runner, &Membership),
    drain: Duration,
    stop: &CancellationToken,
    controllers: impl Future<Output = T>,
) {
    health().set_stopping();
    tracing::info!(drain_seconds = drain.as_secs(), "stopping: nothing new starts, what runs may end");
    // The controllers go on while the runner drains, so that somebody may still cancel.
    // The first poll stops the start of commands; only then the other members may take over the Machines.
    tokio::join!(biased; runner.shut_down(drain), async { membership.leave() });
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(5), controllers).await;
}

/// Waits until the API server answers; says at once what a person has to do.
async fn wait_until_usable(cluster: &Cluster) -> anyhow::Result<()> {
    let mut starting_until = Instant::now();
    loop {
        match usable(cluster).await {
            Ok(()) => {
                health().prerequisites_ok();
                return Ok(());
            }
            Err(error @ (ClusterError::NotFound { .. } | ClusterError::Forbidden { .. }))
                if Instant::now() < starting_until =>
            {
                tracing::warn!(%error, "waiting for the API server, which may still be starting");
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
                starting_until = Instant::now() + STARTING;
                tracing::warn!(%error, "waiting for the API server");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

/// Both kinds that nothing can be decided without: what is asked for, and what is known of those that are deleted.
async fn usable(cluster: &Cluster) -> Result<(), ClusterError> {
    cluster.check_access().await?;
    cluster.check_receipts().await
}

/// This process as it stands in claims, and the name of its Lease: its host, and a word that no other process has, so
/// that a restarted one does not take the claims of its predecessor for its own.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME").unwrap_or(host).to_lowercase();
    // A Lease's name is a DNS name of at most 253 characters; 63 of the host's are enough to know it by.
    let usable = |character: &char| character.is_ascii_lowercase() || character.is_ascii_digit() || *character == '-';
    let host: String = host.chars().filter(usable).take(63).collect();
    let nonce = Uuid::new_v4().simple().to_string();
    format!("writ-{}-{}", host.trim_matches('-'), nonce.get(..12).unwrap_or(&nonce)).replace("--", "-")
}
