//! The gateway of the demo: its rights, an API key, and commands to copy.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::{LabError, User, files};

use super::cluster::{ACCOUNT, Cluster};

/// Files of the gateway's rights and of the policy for its API keys.
pub const FILES: [&str; 2] = ["deploy/gateway.yaml", "deploy/api-keys.yaml"];
/// Flag that starts the gateway, on a free port.
pub const LISTEN: &str = "--listen-gateway=127.0.0.1:0";
/// Flag for the routes of earlier systems. The contract test calls them.
pub const COMPAT_ROUTES: &str = "--compat-routes";
/// Text in the log of `writ serve` before the address of the gateway.
const SERVED: &str = "gateway is served";
/// Maximum time until the gateway listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// Interval between two reads of the log.
const POLL: Duration = Duration::from_millis(50);

/// The gateway of the demo, and a key for it.
pub struct DemoGateway {
    address: SocketAddr,
    key: String,
    namespace: String,
}

impl DemoGateway {
    /// Waits until the gateway listens, and creates an API key for the requester of the demo.
    pub fn start(cluster: &Cluster, writ: &Path, log: &Path) -> Result<Self, LabError> {
        let address = wait_for_address(log)?;
        let mut create = Command::new(writ);
        let group = User::Jane.group().unwrap_or_default();
        create.args(["api-key", "create", "demo", "--user", User::Jane.name(), "--group", group, "--expires", "1d"]);
        create.args(["--namespace", ACCOUNT.0, "--kubeconfig"]).arg(&cluster.admin);
        let key = files::run(&mut create)?.trim().to_owned();
        Ok(Self { address, key, namespace: cluster.namespace.clone() })
    }

    /// Returns commands that use the gateway.
    pub fn commands(&self) -> String {
        let Self { address, key, namespace } = self;
        format!(
            "\
The same over HTTP, and as a WebSocket (websocat is one of many clients for it):

export WRIT_API_KEY={key}
curl -sS \"http://{address}/api/v1/machines/web-1/commands/execute?namespace={namespace}\" \\
  -H \"Authorization: Bearer $WRIT_API_KEY\" -H 'Content-Type: application/json' \\
  -d '{{\"command\": \"/usr/bin/id\", \"action_type\": \"custom\"}}'
echo '{{\"command\": \"/usr/bin/id\", \"action_type\": \"custom\"}}' | websocat --no-close \\
  -H \"Authorization: Bearer $WRIT_API_KEY\" \"ws://{address}/api/v1/machines/web-1/commands/stream?namespace={namespace}\"
"
        )
    }
}

/// Waits for the line of the log with the address of the gateway.
fn wait_for_address(log: &Path) -> Result<SocketAddr, LabError> {
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).map_err(LabError::file("read", log))?;
        let line = text.lines().find(|line| line.contains(SERVED));
        let address = line.and_then(|line| {
            let words = line.split(|character: char| character.is_whitespace() || character == '=');
            words.filter_map(|word| word.parse().ok()).next()
        });
        match address {
            Some(address) => return Ok(address),
            None if started.elapsed() > PATIENCE => {
                let (name, what) = ("the gateway".to_owned(), "does not listen".to_owned());
                return Err(LabError::NotReady { name, what, log: log.to_owned(), tail: files::tail(log) });
            }
            None => std::thread::sleep(POLL),
        }
    }
}
