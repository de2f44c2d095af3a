//! Asks the API server whether it is ready, with the client that Writ itself uses. `kubectl get --raw=/readyz`
//! would do too, but takes a process and 50 to 65 ms of a core each time, while the servers need both cores.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::GetParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Api, Client, Config};

use super::error::LabError;

/// One attempt: on loopback an answer takes milliseconds, and a starting server may accept and not answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between attempts: short against the 3 s that a start takes.
const PAUSE: Duration = Duration::from_millis(50);

/// A client of a starting API server.
#[derive(Debug)]
pub struct Check {
    kubeconfig: Kubeconfig,
}

impl Check {
    /// Reads the kubeconfig.
    pub fn new(kubeconfig: &Path) -> Result<Self, LabError> {
        Ok(Self { kubeconfig: Kubeconfig::read_from(kubeconfig).map_err(client_error)? })
    }

    /// One attempt, after a short pause. Blocks; may be called from within an async runtime as well, which is why it
    /// has a thread of its own.
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
            // The client's own retries take longer than ours.
            config.default_retry = false;
            let client = Client::try_from(config).map_err(client_error)?;
            Ok(tokio::time::timeout(ATTEMPT, answers(client)).await.unwrap_or(false))
        })
    }
}

/// Every refusal and every failure to connect means "not yet": what is wrong for good is in the server's log.
async fn answers(client: Client) -> bool {
    // kube appends the name to the path, which makes this GET /readyz.
    let Ok(readyz) = Request::new("").get("readyz", &GetParams::default()) else { return false };
    // /readyz does not promise that the namespace `default` is there yet; the first test may need it.
    client.request_text(readyz).await.is_ok() && Api::<Namespace>::all(client).get("default").await.is_ok()
}

fn client_error(error: impl std::error::Error) -> LabError {
    LabError::Client { why: error.to_string() }
}
