//! Client of the API server, and its deadlines.

use std::fmt::Display;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::client::ClientBuilder;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::net::lookup_host;

use crate::telemetry::{health, metrics};

use super::clock::{Clock, Dates};
use super::forbidden::Caller;
use super::gate::Gate;
use super::own_token::OwnToken;
use super::shared_reads::SharedReads;
use super::{ClusterError, Operation};

/// Deadline of one call. With a deadline shorter than the API server's own 60 s, the caller can retry sooner.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline for opening a TCP connection to the API server.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Maximum time without data within a response. The API server ends each watch after 30 s (see
/// `multi_namespace_watch`). A longer pause therefore means that the connection is half open.
const READ_DEADLINE: Duration = Duration::from_secs(45);

/// Options for the connection to the API server, and the namespaces that Writ serves.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Path of the kubeconfig file. If `None`: `$KUBECONFIG`, `~/.kube/config` or the Pod's ServiceAccount.
    pub kubeconfig: Option<PathBuf>,
    /// Namespaces that Writ serves. If empty, Writ serves all namespaces.
    pub namespaces: Vec<String>,
    /// Namespace of the objects that belong to this process, for example its Lease. If `None`: the entry of
    /// `namespaces` if there is exactly one, else the namespace of the kubeconfig or the Pod.
    pub own_namespace: Option<String>,
    /// True for a command-line tool, which runs with the rights of its user. Messages about missing rights then address
    /// the user.
    pub is_person: bool,
}

impl ClientOptions {
    /// Returns the options of a command-line tool with these flags.
    pub fn for_user(kubeconfig: Option<&Path>, namespace: Option<&str>) -> Self {
        Self {
            kubeconfig: kubeconfig.map(Path::to_owned),
            namespaces: namespace.map(str::to_owned).into_iter().collect(),
            own_namespace: None,
            is_person: true,
        }
    }
}

/// Access to the API server.
#[derive(Clone)]
pub struct Cluster {
    pub(super) client: Client,
    namespaces: Vec<String>,
    own_namespace: String,
    /// Host and port of the API server.
    server: (String, u16),
    pub(super) clock: Arc<Clock>,
    caller: Caller,
    /// True if the kubeconfig itself impersonates a user (`as`). Each call then carries the headers of this
    /// impersonation.
    pub(super) is_impersonating: bool,
    /// Reads that concurrent tasks share.
    pub(super) shared_reads: Arc<SharedReads>,
    /// Address and certificate authorities of the API server, without credentials.
    bare_config: Arc<Config>,
}

/// Identity of one CommandExecution. A later CommandExecution with the same name has another UID.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExecutionKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl Display for ExecutionKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl Cluster {
    /// Reads the configuration and creates a client. Does not call the API server.
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
        // kube's own retries take up to 164 s, and repeat writes that have perhaps succeeded. The callers retry instead
        // (see `ClusterError::is_ambiguous`).
        config.default_retry = false;
        let auth = &config.auth_info;
        let is_impersonating = auth.impersonate.is_some()
            || auth.impersonate_uid.is_some()
            || auth.impersonate_groups.is_some()
            || auth.impersonate_user_extra.is_some();
        let own_namespace = match (&options.own_namespace, options.namespaces.as_slice()) {
            (Some(namespace), _) => namespace.clone(),
            (None, [only]) => only.clone(),
            (None, _) => config.default_namespace.clone(),
        };
        let url = &config.cluster_url;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let server = (host, url.port_u16().unwrap_or(443));
        let clock = Arc::<Clock>::default();
        let mut bare_config = config.clone();
        bare_config.auth_info = AuthInfo::default();
        // `Dates` is inside `Gate`, so that `Dates` reads the time of an answer before `Gate` delays the answer.
        let builder = ClientBuilder::try_from(config)?.with_layer(&Dates(Arc::clone(&clock)));
        let client = builder.with_layer(&Gate::new()).build();
        let caller = if options.is_person { Caller::Person } else { Caller::Operator };
        Ok(Self {
            client,
            namespaces: options.namespaces.clone(),
            own_namespace,
            server,
            clock,
            caller,
            is_impersonating,
            shared_reads: Arc::default(),
            bare_config: Arc::new(bare_config),
        })
    }

    /// Returns access to the same API server with the credential `token` and no other. Shares the clock, but neither
    /// connections nor their limits.
    pub(super) fn with_own_token(&self, token: OwnToken) -> Result<Self, ClusterError> {
        let failed = |error: kube::Error| ClusterError::from_kube("the API server".to_owned(), &error, &self.caller);
        let builder = ClientBuilder::try_from(Config::clone(&self.bare_config)).map_err(failed)?;
        let builder = builder.with_layer(&token).with_layer(&Dates(Arc::clone(&self.clock)));
        let client = builder.with_layer(&Gate::new()).build();
        Ok(Self { client, is_impersonating: false, shared_reads: Arc::default(), ..self.clone() })
    }

    /// Returns the current addresses of the API server. Empty if no address is known. The addresses are:
    ///
    /// - the addresses of the configured host
    /// - the address of the Service `kubernetes`, if this process runs in a Pod
    /// - the endpoints of this Service, if the user may read them
    pub async fn addresses(&self) -> Vec<IpAddr> {
        let (mut addresses, behind) = tokio::join!(self.reached_at(), self.endpoints());
        // The kubelet sets this variable in every container of a Pod.
        let service = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok());
        addresses.extend(service.into_iter().chain(behind));
        addresses
    }

    /// Returns the endpoints of the Service `kubernetes`. Empty if the endpoints cannot be read. Most users lack the
    /// right to read endpoints.
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
                tracing::warn!(host = self.server.0, "API server name not resolved: Machines may have its address");
                Vec::new()
            }
        }
    }

    /// Returns the time by the API server's clock. Use this clock for each time that is stored in an object or compared
    /// with a time in an object.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the namespace of the objects that belong to this process; see [`ClientOptions`].
    pub fn own_namespace(&self) -> &str {
        &self.own_namespace
    }

    /// Returns true if this process serves a namespace.
    pub fn serves(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|served| served == namespace)
    }

    /// Returns the client for calls without the deadline of [`Cluster::call`], for example watches. The caller must
    /// retry failed calls.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Returns the APIs with which a kind is watched: one API for each served namespace, or one API for all namespaces.
    /// Never empty.
    pub fn watch_apis<K>(&self) -> Vec<Api<K>>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        if self.namespaces.is_empty() {
            return vec![Api::all(self.client.clone())];
        }
        self.namespaces.iter().map(|namespace| Api::namespaced(self.client.clone(), namespace)).collect()
    }

    /// Returns a copy whose error messages are for another caller. The rights of the calls stay the same. The copy
    /// shares no reads, because the error of a shared read has the message for the other caller.
    pub(super) fn as_caller(&self, caller: Caller) -> Self {
        Self { caller, shared_reads: Arc::default(), ..self.clone() }
    }

    /// Makes one call within the deadline. `target` names the object in messages. `operation` is the label in metrics.
    pub async fn call<T>(
        &self,
        operation: Operation,
        target: impl Display,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        let began = Instant::now();
        let result = within_deadline(target, call, &self.caller).await;
        metrics().api_request(operation.as_str(), result.as_ref().map_or_else(ClusterError::category, |_| "ok"), began);
        if !matches!(result, Err(ClusterError::Unavailable { .. })) {
            health().answered();
        }
        result
    }
}

async fn within_deadline<T>(
    target: impl Display,
    call: impl Future<Output = Result<T, kube::Error>>,
    caller: &Caller,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(CALL_DEADLINE, Box::pin(call)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ClusterError::from_kube(target.to_string(), &error, caller)),
        Err(_) => Err(ClusterError::Unavailable {
            target: target.to_string(),
            message: format!("no answer within {} s", CALL_DEADLINE.as_secs()),
        }),
    }
}
