//! `writ`: flags, wiring, run.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use writ::cluster::{ClientOptions, Cluster, ClusterError, EventPublisher};
use writ::controllers::command_execution::{self, Context};
use writ::execution::DEFAULT_GRACE_FOR_MISSING;
use writ::runner::Runner;
use writ::telemetry::{self, LogFormat};

/// Audited remote commands as Kubernetes objects.
#[derive(Debug, Parser)]
#[command(name = "writ", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller: watch CommandExecutions and run what the Whitelists allow.
    ///
    /// Needs the CRDs (`kubectl apply -f crds/`) and the permissions of `deploy/operator-role.yaml`. On SIGTERM or
    /// ctrl-C it starts nothing new and waits for what runs.
    Serve(Serve),
}

#[derive(Args, Debug)]
struct Serve {
    /// Kubeconfig file to use [default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Serve this namespace only [default: all namespaces].
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,

    /// Seconds that running commands get to end after SIGTERM; what still runs then is recorded as OutcomeUnknown.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain_seconds: u64,

    /// Seconds that a Machine or a rule which is not there is waited for before an execution is Rejected.
    #[arg(long, default_value_t = DEFAULT_GRACE_FOR_MISSING.as_secs(), value_name = "SECONDS")]
    missing_grace_seconds: u64,

    /// How log lines look. How many there are is said by RUST_LOG, for example RUST_LOG=writ=debug.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(options) => serve(options).await,
    }
}

async fn serve(options: Serve) -> anyhow::Result<()> {
    telemetry::start(match options.log_format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    });
    let client_options = ClientOptions { kubeconfig: options.kubeconfig, namespace: options.namespace };
    let cluster = Cluster::connect(&client_options).await.context("the kubeconfig cannot be used")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ready = wait_until_usable(&cluster) => ready?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }

    let holder = holder();
    let (events, _publishing) = EventPublisher::start(&cluster, &holder);
    let (runner, wakes) = Runner::new(cluster.clone(), events.clone(), holder.clone());
    let stop = CancellationToken::new();
    let context = Context {
        cluster,
        runner: runner.clone(),
        events,
        grace_for_missing: Duration::from_secs(options.missing_grace_seconds),
    };
    let mut controller = tokio::spawn(command_execution::run(context, wakes, stop.clone()));
    tracing::info!(holder, namespace = client_options.namespace.as_deref().unwrap_or("(all)"), "writ serves");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut controller => bail!("the controller ended by itself ({ended:?}); this is a bug, please report it"),
    }
    tracing::info!(drain_seconds = options.drain_seconds, "stopping: nothing new starts, what runs may end");
    // The controller goes on while the runner drains, so that somebody may still cancel.
    runner.shut_down(Duration::from_secs(options.drain_seconds)).await;
    stop.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(5), controller).await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits until the API server answers; says at once what a person has to do.
async fn wait_until_usable(cluster: &Cluster) -> anyhow::Result<()> {
    loop {
        match cluster.check().await {
            Ok(()) => return Ok(()),
            Err(error @ ClusterError::NotFound { .. }) => {
                return Err(error).context("the CRDs are not installed; install them with `kubectl apply -f crds/`");
            }
            Err(error @ ClusterError::Forbidden { .. }) => {
                return Err(error)
                    .context("grant this user the rights in deploy/operator-role.yaml, or use --namespace");
            }
            Err(error) => {
                tracing::warn!(%error, "waiting for the API server");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

/// This process as it stands in claims: its host, and a word that no other process has, so that a restarted one does
/// not take the claims of its predecessor for its own.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME").unwrap_or(host);
    let nonce = Uuid::new_v4().simple().to_string();
    format!("{}-{}", if host.trim().is_empty() { "writ" } else { host.trim() }, nonce.get(..12).unwrap_or(&nonce))
}
