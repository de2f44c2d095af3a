//! Flags of `writ serve` for the gateway, and its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;
use writ::cluster::{Cluster, RequesterTrustChecker};
use writ::controllers::Watches;
use writ::gateway::{GatewayParts, GatewaySettings, RunningGateway, ServerOptions, TlsFiles};
use writ::output::{LiveOutput, Store};
use writ::runner::Runner;

/// Maximum time for which requests and WebSockets may continue when the process stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
pub struct GatewayFlags {
    /// Address for the HTTP and WebSocket API, for example 0.0.0.0:8443 in a Pod. With port 0, Writ uses a free port
    /// and logs its number. Needs Kubernetes 1.36 or newer, and the chart's admission policies [default: no API].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_gateway: Option<SocketAddr>,

    /// File with the certificate chain of the API (PEM). Writ reads it again when it changes. Without TLS files, the
    /// API listens on loopback addresses only.
    #[arg(long, value_name = "FILE", requires_all = ["listen_gateway", "gateway_tls_key"])]
    gateway_tls_certificate: Option<PathBuf>,

    /// File with the private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "gateway_tls_certificate")]
    gateway_tls_key: Option<PathBuf>,

    /// Serve plain HTTP on any address, because a proxy in front of the API ends TLS. Credentials of callers are
    /// readable between the proxy and Writ.
    #[arg(long, requires = "listen_gateway", conflicts_with = "gateway_tls_certificate")]
    behind_tls_proxy: bool,

    /// ServiceAccount as which the API calls the API server, in the namespace of the Lease. Writ requests its tokens.
    #[arg(long, value_name = "NAME", default_value = "writ-gateway")]
    gateway_service_account: String,

    /// Key of a caller's `extra` that the API forwards to the API server; repeatable. A caller with another key is
    /// refused, because the key perhaps restricts its rights.
    #[arg(long, value_name = "KEY")]
    gateway_extra_key: Vec<String>,

    /// Also accept tokens for the API server's own audience. Callers then send the API tokens that are good for the
    /// whole cluster.
    #[arg(long)]
    accept_api_server_tokens: bool,

    /// Origin of web pages that may use the API, for example https://ops.example.com; repeatable [default: pages of the
    /// API itself].
    #[arg(long, value_name = "ORIGIN")]
    gateway_allowed_origin: Vec<String>,

    /// Also serve the paths and field names of earlier systems, with the same rights and limits: the tag
    /// `compatibility` of the OpenAPI document.
    #[arg(long, requires = "listen_gateway")]
    compat_routes: bool,

    /// Maximum number of commands that a caller may create in any 60 s, 1 to 100000. An API key can set its own.
    #[arg(long, default_value_t = 10, value_name = "COMMANDS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    commands_per_minute: u32,
}

/// The running gateway. It stops when this value is dropped.
pub struct ServedGateway {
    gateway: RunningGateway,
    stop: CancellationToken,
}

impl GatewayFlags {
    /// Starts the gateway, if a flag requests it.
    ///
    /// # Errors
    /// The address or the TLS files cannot be used, or the API server gives no token of the gateway's ServiceAccount.
    pub async fn start(
        &self,
        (own_cluster, stamping, watches, runner): (&Cluster, &RequesterTrustChecker, &Watches, &Runner),
        (live, store): (&LiveOutput, Option<&Store>),
    ) -> anyhow::Result<Option<ServedGateway>> {
        let Some(address) = self.listen_gateway else { return Ok(None) };
        let name = &self.gateway_service_account;
        let (cluster, renew) = own_cluster.as_service_account(name).await.with_context(|| {
            format!(
                "the gateway needs the ServiceAccount {name} in namespace {}, and the right to request its tokens \
                 (chart value gateway.enabled)",
                own_cluster.own_namespace()
            )
        })?;
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(renew));
        let tls = match (&self.gateway_tls_certificate, &self.gateway_tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }),
            _ => None,
        };
        let server = ServerOptions { is_behind_tls_proxy: self.behind_tls_proxy, ..ServerOptions::new(address, tls) };
        let parts = GatewayParts {
            cluster,
            stamping: stamping.clone(),
            live: live.clone(),
            interactive: runner.interactive_clients().clone(),
            store: store.cloned(),
            machines: watches.machines.clone(),
            unfinished: watches.unfinished_executions.clone(),
            settings: GatewaySettings {
                extra_keys: self.gateway_extra_key.clone(),
                accepts_api_server_tokens: self.accept_api_server_tokens,
                commands_per_minute: self.commands_per_minute,
                allowed_origins: self.gateway_allowed_origin.clone(),
                has_compat_routes: self.compat_routes,
            },
        };
        let gateway = writ::gateway::start(parts, server, &stop).await?;
        Ok(Some(ServedGateway { gateway, stop }))
    }
}

/// Stops the gateway: it accepts no more connections, and waits a short time for requests and WebSockets. Comes before
/// the other parts of the process stop, so that callers soon use another process.
pub async fn stop(served: Option<ServedGateway>) {
    if let Some(ServedGateway { gateway, stop }) = served {
        stop.cancel();
        gateway.drained(DRAIN_DEADLINE).await;
    }
}
