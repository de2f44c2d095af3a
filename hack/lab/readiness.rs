//! Checks the readiness of the API server with the client that Writ itself uses. `kubectl get --raw=/readyz` would take
//! 50 to 65 ms of a core per check, and the starting servers need all cores.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::GetParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Api, Client, Config};

use super::error::LabError;

/// Maximum time for one attempt, because a starting server can accept a connection and never answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Pause between attempts. It is short compared with the 3 s in which a control plane starts.
const PAUSE: Duration = Duration::from_millis(50);

/// Readiness check of a starting API server.
#[derive(Debug)]
pub struct Check {
    kubeconfig: Kubeconfig,
}

impl Check {
    /// Reads the kubeconfig.
    pub fn new(kubeconfig: &Path) -> Result<Self, LabError> {
        Ok(Self { kubeconfig: Kubeconfig::read_from(kubeconfig).map_err(client_error)? })
    }

    /// Makes one attempt, after a short pause, and blocks the caller. A task of an async runtime can also call this
    /// function, because the request runs in its own thread and runtime.
    pub fn is_ready(&self) -> Result<bool, LabError> {
        std::thread::sleep(PAUSE);
        std::thread::scope(|scope| scope.spawn(|| self.ask()).join().unwrap_or(Ok(false)))
    }

    fn ask(&self) -> Result<bool, LabError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(client_error)?;
        runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let loaded = Config::from_custom_kubeconfig(self.kubeconfig.clone(), &options).await;
            let mut config = loaded.map_err(client_error)?;
            // Disables the retries of the client, because they take longer than the retries of the laboratory.
            config.default_retry = false;
            let client = Client::try_from(config).map_err(client_error)?;
            Ok(tokio::time::timeout(ATTEMPT, answers(client)).await.unwrap_or(false))
        })
    }
}

/// Returns true if the API server is ready. Every error counts as not ready. The server's log contains the cause of a
/// permanent error.
async fn answers(client: Client) -> bool {
    // kube appends `readyz` to the empty path, which yields GET /readyz.
    let Ok(readyz) = Request::new("").get("readyz", &GetParams::default()) else { return false };
    // /readyz can succeed before the namespace `default` exists, but the first test perhaps needs this namespace.
    client.request_text(readyz).await.is_ok() && Api::<Namespace>::all(client).get("default").await.is_ok()
}

fn client_error(error: impl std::error::Error) -> LabError {
    LabError::Client { why: error.to_string() }
}
