//! The HTTP and WebSocket API: a way to create executions and to read them, for programs and web pages.
//!
//! ```text
//! client --TLS--> server (limits, request id) --> Caller (credential -> user) --> route
//!                                                                                  |
//!     create_execution, as the caller --> API server <-- controllers, runner       | rights of the caller, rate
//!            |                                                 |                   v
//!            +---- wait_for_end <--- live registry, watch <----+            answer, or messages of a WebSocket
//! ```
//!
//! # Guarantees
//! 1. Each execution is created as its caller. The same admission, RBAC, Whitelists and records apply as for kubectl.
//! 2. Each read checks the right of the caller first. Answers 401, 403 and 404 are the same for objects that exist and
//!    objects that do not.
//! 3. A call never starts a command twice. With an Idempotency-Key, a repeated call joins the first one.
//! 4. A client that is slow, gone or hostile delays no other client and no command.
//!
//! The calls to the API server use the ServiceAccount of the gateway, which can create and cancel executions for callers
//! and read records. docs/design/20261130-gateway-identity.md has the reasons.

mod access_check;
mod attachment;
mod authenticate;
mod body;
mod caller;
mod caller_sockets;
mod callers;
mod compat;
mod create;
mod credential;
mod download_target;
mod ends;
mod error;
mod grep;
mod list_query;
mod machine_access;
mod machine_view;
mod names;
mod newest;
mod outcome;
mod output_reads;
mod output_source;
mod page;
mod path;
mod range;
mod rate;
mod raw_query;
mod read_limit;
mod reader;
mod rights;
mod routes;
pub mod server;
mod session_credential;
mod session_owner;
mod spec;
mod stamp;
mod state;
mod statistics;
mod stream;
mod tickets;
mod view;
mod wait;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

pub use routes::{api, openapi_json};
pub use server::{ServerLimits, ServerOptions, TlsFiles};
pub use state::{Gateway, GatewayParts, GatewaySettings};

use server::{GatewayServer, LayerOptions, OriginPolicy, Sockets, with_layers};

/// Interval between checks that the gateway may act for callers.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);
/// Interval between these checks after a failed check.
const FAILED_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// The running gateway. It stops when this value is dropped.
pub struct RunningGateway {
    server: GatewayServer,
    sockets: Sockets,
}

impl RunningGateway {
    /// Returns the address on which the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Waits until all requests and WebSockets have ended, then closes the others. Call this after the token that stops
    /// the gateway was cancelled.
    pub async fn drained(&self, deadline: Duration) {
        let (_, ()) = tokio::join!(self.sockets.closed(deadline), self.server.drained(deadline));
    }
}

/// Starts the gateway. When `stop` is cancelled, the gateway accepts no more connections.
///
/// # Errors
/// The address, the TLS files or an origin cannot be used.
pub async fn start(
    parts: GatewayParts,
    server: ServerOptions,
    stop: &CancellationToken,
) -> anyhow::Result<RunningGateway> {
    let origins = OriginPolicy::from_list(&parts.settings.allowed_origins, server.has_tls())
        .context("an origin of --gateway-allowed-origin cannot be used")?;
    let options = LayerOptions { origins, has_tls: server.has_tls(), limits: server.limits.clone() };
    let sockets = Sockets::for_stop(stop.clone());
    let (gateway, follow) = Gateway::new(parts, sockets.clone(), options.origins.clone());
    let router = with_layers(routes::router(gateway.clone()), &options);
    let server = GatewayServer::start(server, router, stop.clone()).await?;
    tokio::spawn(stop.clone().run_until_cancelled_owned(follow));
    tokio::spawn(stop.clone().run_until_cancelled_owned(probe(gateway)));
    Ok(RunningGateway { server, sockets })
}

/// Checks regularly if the API server lets the gateway act for callers.
async fn probe(gateway: Gateway) {
    let mut may_act = None;
    loop {
        let probed = gateway.acting().probe().await;
        let is_allowed = probed.is_ok();
        gateway.set_may_act(is_allowed);
        if may_act.replace(is_allowed) != Some(is_allowed) {
            match probed {
                Ok(()) => tracing::info!("gateway acts for its callers by constrained impersonation"),
                Err(error) => tracing::error!(
                    %error,
                    "gateway may not act for callers, so it refuses new commands; it needs Kubernetes 1.36 or newer and the \
                     RBAC of the chart (gateway.enabled)"
                ),
            }
        }
        tokio::time::sleep(if is_allowed { PROBE_INTERVAL } else { FAILED_PROBE_INTERVAL }).await;
    }
}
