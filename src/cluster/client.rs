//! The client: how it is made, and how long it waits.

use std::fmt::Display;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::net::lookup_host;

use crate::telemetry::{health, metrics};

use super::clock::{Clock, Dates};
use super::forbidden::Caller;
use super::gate::Gate;
use super::{ClusterError, Operation};

/// How long one call may take. The API server itself gives up on a request after 60 s; one that takes longer than
/// this is better asked again.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long a TCP connection to the API server may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a response may be silent. Watches are ended by the API server after 30 s (see the controllers), so this
/// notices a half-open one.
const READ_DEADLINE: Duration = Duration::from_secs(45);

/// Where the API server is.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// A kubeconfig file; None: `$KUBECONFIG`, `~/.kube/config` or the Pod's ServiceAccount.
    pub kubeconfig: Option<PathBuf>,
    /// Look at these namespaces only; empty: at all.
    pub namespaces: Vec<String>,
    /// The namespace for what belongs to this process; None: the one that is looked at, where it is one, else the one that
    /// it runs in (the kubeconfig's, or the Pod's).
    pub home: Option<String>,
    /// True if a person runs this with rights of their own: messages about missing rights then address that person.
    pub is_person: bool,
}

impl ClientOptions {
    /// What a person says on the command line: a kubeconfig and a namespace, or neither.
    pub fn of_person(kubeconfig: Option<&Path>, namespace: Option<&str>) -> Self {
        Self {
            kubeconfig: kubeconfig.map(Path::to_owned),
            namespaces: namespace.map(str::to_owned).into_iter().collect(),
            home: None,
            is_person: true,
        }
    }
}

/// Access to the API server.
#[derive(Clone)]
pub struct Cluster {
    pub(super) client: Client,
    namespaces: Vec<String>,
    home: String,
    /// Host and port of the API server.
    server: (String, u16),
    pub(super) clock: Arc<Clock>,
    caller: Caller,
}

/// Names one CommandExecution for good: another one of the same name has another UID.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExecutionKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl Display for ExecutionKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl Cluster {
    /// Reads the configuration and makes a client. Does not call the API server.
    ///
    /// # Errors
    /// The configuration cannot be found or read.
    pub async fn connect(options: &ClientOptions) -> anyhow::Result<Self> {
        let mut config = match &options.kubeconfig {
            Some(path) => {
                Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?
            }
            None => Config::infer().await?,
        };
        config.connect_timeout = Some(CONNECT_DEADLINE);
        config.read_timeout = Some(READ_DEADLINE);
        // kube's own retries may take 164 s and repeat writes; ours are by state, see ClusterError::is_ambiguous.
        config.default_retry = false;
        let home = match (&options.home, options.namespaces.as_slice()) {
            (Some(home), _) => home.clone(),
            (None, [only]) => only.clone(),
            (None, _) => config.default_namespace.clone(),
        };
        let url = &config.cluster_url;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let server = (host, url.port_u16().unwrap_or(443));
        let clock = Arc::<Clock>::default();
        // The time is read before an answer waits for its turn.
        let builder = ClientBuilder::try_from(config)?.with_layer(&Dates(Arc::clone(&clock)));
        let client = builder.with_layer(&Gate::new()).build();
        let caller = if options.is_person { Caller::Person } else { Caller::Operator };
        Ok(Self { client, namespaces: options.namespaces.clone(), home, server, clock, caller })
    }

    /// The addresses of the API server, as they are now: those by which it is reached from here, that of the Service
    /// `kubernetes` in a Pod, and those behind that Service where this user may read them. None where none is known.
    pub async fn addresses(&self) -> Vec<IpAddr> {
        let (mut addresses, behind) = tokio::join!(self.reached_at(), self.endpoints());
        // As the kubelet gives it to every container.
        let service = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok());
        addresses.extend(service.into_iter().chain(behind));
        addresses
    }

    /// The endpoints of the Service `kubernetes`. Few are given the right to read them, and all else goes without.
    async fn endpoints(&self) -> Vec<IpAddr> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        match tokio::time::timeout(CONNECT_DEADLINE, api.get("kubernetes")).await {
            Ok(Ok(slice)) => {
                let addresses = slice.endpoints.into_iter().flatten().flat_map(|endpoint| endpoint.addresses);
                addresses.filter_map(|address| address.parse().ok()).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn reached_at(&self) -> Vec<IpAddr> {
        let resolved =
            tokio::time::timeout(CONNECT_DEADLINE, lookup_host((self.server.0.as_str(), self.server.1))).await;
        match resolved {
            Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
            _ => {
                tracing::warn!(
                    host = self.server.0,
                    "the API server's name does not resolve: its address is not refused to Machines"
                );
                Vec::new()
            }
        }
    }

    /// The time by the API server's clock: for whatever is compared with a time in an object, or stored as one.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The namespace for what belongs to this process; see [`ClientOptions`].
    pub fn home(&self) -> &str {
        &self.home
    }

    /// A client for watches, which have their own way to try again.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// APIs for watching a kind: one for each namespace that was asked for, or one for all. At least one.
    pub fn watched<K>(&self) -> Vec<Api<K>>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        if self.namespaces.is_empty() {
            return vec![Api::all(self.client.clone())];
        }
        self.namespaces.iter().map(|namespace| Api::namespaced(self.client.clone(), namespace)).collect()
    }

    /// Makes one call within the deadline. `what` is for messages, `operation` for metrics.
    pub async fn call<T>(
        &self,
        operation: Operation,
        what: impl Display,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        let began = Instant::now();
        let result = within_deadline(what, call, self.caller).await;
        metrics().called(operation.as_str(), result.as_ref().map_or_else(ClusterError::category, |_| "ok"), began);
        if !matches!(result, Err(ClusterError::Unavailable { .. })) {
            health().answered();
        }
        result
    }
}

async fn within_deadline<T>(
    what: impl Display,
    call: impl Future<Output = Result<T, kube::Error>>,
    caller: Caller,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ClusterError::of(what.to_string(), &error, caller)),
        Err(_) => Err(ClusterError::Unavailable {
            what: what.to_string(),
            message: format!("no answer within {} s", CALL_DEADLINE.as_secs()),
        }),
    }
}
