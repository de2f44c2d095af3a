//! `writ`: flags, wiring, run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use writ::cluster::{ClientOptions, Cluster, ClusterError, EventPublisher, Holders};
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

    /// Seconds without a sign of life after which another `writ serve` takes this one for gone, and records what it
    /// had claimed as OutcomeUnknown. At least 3.
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=300))]
    lease_seconds: u64,

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
#[expect(clippy::print_stderr, reason = "the last word of a program goes to its user")]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(options) => serve(options).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("writ: {error:#}");
            ExitCode::FAILURE
        }
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
    let lease = Duration::from_secs(options.lease_seconds);
    let holders = Holders::announce(&cluster, cluster.home(), &holder, lease)
        .await
        .with_context(|| format!("the Lease of this process cannot be written in namespace {}", cluster.home()))?;
    let holders = Arc::new(holders);
    let (events, _publishing) = EventPublisher::start(&cluster, &holder);
    let (runner, wakes) = Runner::new(cluster.clone(), events.clone(), Arc::clone(&holders));
    let stop = CancellationToken::new();
    let context = Context {
        cluster,
        runner: runner.clone(),
        holders: Arc::clone(&holders),
        events,
        grace_for_missing: Duration::from_secs(options.missing_grace_seconds),
    };
    let keeping = Arc::clone(&holders);
    let lease_kept = tokio::spawn(async move { keeping.keep().await });
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
    lease_kept.abort();
    holders.leave().await;
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
