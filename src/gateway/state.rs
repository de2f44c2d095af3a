//! State that all routes share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::api::{CommandExecution, Machine};
use crate::cluster::{Acting, Cluster, ClusterError, PolicyCache, RequesterTrustChecker, SharedWatch, Slim};
use crate::interactive::InteractiveClients;
use crate::output::{LiveOutput, Store};

use super::caller::Caller;
use super::caller_sockets::CallerSockets;
use super::callers::Callers;
use super::ends::Ends;
use super::error::ApiError;
use super::names::is_uid;
use super::output_reads::OutputReads;
use super::rate::{READ_WINDOW, RateLimiter};
use super::reader::ExecutionReader;
use super::rights::Rights;
use super::server::{OriginPolicy, Sockets};
use super::tickets::Tickets;

/// The parts of the process that the gateway uses.
pub struct GatewayParts {
    /// Access to the API server as the ServiceAccount of the gateway.
    pub cluster: Cluster,
    /// Check that requesters cannot be forged.
    pub stamping: RequesterTrustChecker,
    /// Output of running commands.
    pub live: LiveOutput,
    /// Clients of interactive executions.
    pub interactive: InteractiveClients,
    /// Store of outputs that do not fit into a status. `None` if there is no store.
    pub store: Option<Store>,
    /// Watch of all Machines.
    pub machines: SharedWatch<Slim<Machine>>,
    /// Watch of all unfinished executions.
    pub unfinished: SharedWatch<Slim<CommandExecution>>,
    /// Settings.
    pub settings: GatewaySettings,
}

/// Settings of the gateway.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Keys of a caller's `extra` that the gateway forwards.
    pub extra_keys: Vec<String>,
    /// True if the gateway accepts tokens for the API server's own audience.
    pub accepts_api_server_tokens: bool,
    /// Maximum number of commands that a caller may create in any 60 s.
    pub commands_per_minute: u32,
    /// Origins of web pages that may open WebSockets, in addition to the gateway's own.
    pub allowed_origins: Vec<String>,
    /// True if the gateway serves the paths of earlier systems, too.
    pub has_compat_routes: bool,
}

/// State that all routes share. Clones share it.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    acting: Acting,
    policies: Arc<PolicyCache>,
    stamping: RequesterTrustChecker,
    live: LiveOutput,
    interactive: InteractiveClients,
    store: Option<Store>,
    machines: SharedWatch<Slim<Machine>>,
    unfinished: SharedWatch<Slim<CommandExecution>>,
    ends: Ends,
    callers: Callers,
    rights: Rights,
    executions: ExecutionReader,
    rate: Mutex<RateLimiter>,
    sockets: Sockets,
    caller_sockets: CallerSockets,
    outputs: OutputReads,
    tickets: Tickets,
    origins: OriginPolicy,
    /// True unless the API server has refused to let the gateway act for callers.
    may_act: AtomicBool,
    reads: Mutex<RateLimiter>,
    settings: GatewaySettings,
}

/// Namespace and name of a Machine that exists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MachineName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Gateway {
    /// Returns the state, and a future that keeps it up to date. Poll the future for as long as the gateway serves.
    pub fn new(
        parts: GatewayParts,
        sockets: Sockets,
        origins: OriginPolicy,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let GatewayParts { cluster, stamping, live, interactive, store, machines, unfinished, settings } = parts;
        let (ends, follow) = Ends::new(&unfinished);
        let inner = Inner {
            acting: Acting::new(cluster.clone(), settings.extra_keys.clone()),
            policies: Arc::new(PolicyCache::new(cluster.clone(), false)),
            callers: Callers::new(cluster.clone(), settings.accepts_api_server_tokens, stamping.for_sessions()),
            rights: Rights::new(cluster.clone()),
            executions: ExecutionReader::new(cluster.clone()),
            rate: Mutex::default(),
            reads: Mutex::new(RateLimiter::new(READ_WINDOW)),
            cluster,
            stamping,
            live,
            interactive,
            store,
            machines,
            unfinished,
            ends,
            sockets,
            caller_sockets: CallerSockets::default(),
            outputs: OutputReads::default(),
            tickets: Tickets::default(),
            origins,
            may_act: AtomicBool::new(true),
            settings,
        };
        (Self { inner: Arc::new(inner) }, follow)
    }

    /// Returns the access to the API server as the gateway.
    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// Returns the access to the API server on behalf of callers.
    pub fn acting(&self) -> &Acting {
        &self.inner.acting
    }

    /// Returns the compiled rules.
    pub fn policies(&self) -> &Arc<PolicyCache> {
        &self.inner.policies
    }

    /// Returns the check that requesters cannot be forged.
    pub fn stamping(&self) -> &RequesterTrustChecker {
        &self.inner.stamping
    }

    /// Returns the output of running commands.
    pub fn live(&self) -> &LiveOutput {
        &self.inner.live
    }

    /// Returns the clients of interactive executions.
    pub fn interactive(&self) -> &InteractiveClients {
        &self.inner.interactive
    }

    /// Returns the store of outputs.
    pub fn store(&self) -> Option<&Store> {
        self.inner.store.as_ref()
    }

    /// Returns the watch of all Machines.
    pub fn machines(&self) -> &SharedWatch<Slim<Machine>> {
        &self.inner.machines
    }

    /// Returns the watch of all unfinished executions.
    pub fn unfinished(&self) -> &SharedWatch<Slim<CommandExecution>> {
        &self.inner.unfinished
    }

    /// Returns the notifications about ended executions.
    pub fn ends(&self) -> &Ends {
        &self.inner.ends
    }

    /// Returns the authentication of callers.
    pub fn callers(&self) -> &Callers {
        &self.inner.callers
    }

    /// Returns the checks of rights.
    pub fn rights(&self) -> &Rights {
        &self.inner.rights
    }

    /// Returns the registry of the open WebSockets.
    pub fn sockets(&self) -> &Sockets {
        &self.inner.sockets
    }

    /// Returns the open sockets of each caller.
    pub fn caller_sockets(&self) -> &CallerSockets {
        &self.inner.caller_sockets
    }

    /// Returns the verifications of stored outputs, and the limit for searches.
    pub fn outputs(&self) -> &OutputReads {
        &self.inner.outputs
    }

    /// Returns the unused tickets for downloads.
    pub fn tickets(&self) -> &Tickets {
        &self.inner.tickets
    }

    /// Returns the origins of web pages that may use the gateway.
    pub fn origins(&self) -> &OriginPolicy {
        &self.inner.origins
    }

    /// Records if the API server lets the gateway act for callers.
    pub fn set_may_act(&self, may_act: bool) {
        self.inner.may_act.store(may_act, Ordering::Relaxed);
    }

    /// Returns true unless the API server has refused to let the gateway act for callers.
    pub fn may_act(&self) -> bool {
        self.inner.may_act.load(Ordering::Relaxed)
    }

    /// Returns the settings.
    pub fn settings(&self) -> &GatewaySettings {
        &self.inner.settings
    }

    /// Returns the counts of the callers' commands.
    pub fn rate(&self) -> MutexGuard<'_, RateLimiter> {
        self.inner.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the reader of executions.
    pub fn executions(&self) -> &ExecutionReader {
        &self.inner.executions
    }

    /// Returns the counts of the callers' reads.
    pub fn reads(&self) -> MutexGuard<'_, RateLimiter> {
        self.inner.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the maximum number of commands in any 60 s for a caller.
    pub fn limit_for(&self, caller: &Caller) -> u32 {
        caller.commands_per_minute.unwrap_or(self.inner.settings.commands_per_minute)
    }

    /// Finds a Machine by name or UID.
    ///
    /// # Errors
    /// 404 if there is none, 503 if the API server did not answer.
    pub async fn find_machine(&self, id: &str, namespace: &str) -> Result<MachineName, ApiError> {
        let named = MachineName { namespace: namespace.to_owned(), name: id.to_owned() };
        let by_uid = is_uid(id).then(|| self.find_machine_uid(id)).flatten();
        if let Some(found) = by_uid.filter(|found| found.namespace == namespace) {
            return self.check_uid(found, id).await;
        }
        if !super::names::is_name(id) {
            return Err(ApiError::machine_not_found(id, namespace));
        }
        if self.machines().store().get(&ObjectRef::new(id).within(namespace)).is_some() {
            return Ok(named);
        }
        // The watch can be late, for example for a Machine that was created a moment ago.
        match self.cluster().machine(namespace, id).await {
            Ok(_) => Ok(named),
            Err(ClusterError::NotFound { .. }) => Err(ApiError::machine_not_found(id, namespace)),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds namespace and name of an execution by its UID: an execution that has not ended, or that this process ran a
    /// moment ago.
    pub fn find_execution_uid(&self, uid: &str) -> Option<(String, String)> {
        let execution = self.unfinished().store().find(|execution| execution.uid().as_deref() == Some(uid));
        let found = execution.and_then(|execution| Some((execution.namespace()?, execution.name_any())));
        found.or_else(|| self.live().name_of(uid))
    }

    /// Reads a Machine that was found by its UID. Another Machine can have its name by now.
    ///
    /// # Errors
    /// 404 if there is no longer such a Machine, 503 if the API server did not answer.
    pub async fn check_uid(&self, found: MachineName, uid: &str) -> Result<MachineName, ApiError> {
        match self.cluster().machine(&found.namespace, &found.name).await {
            Ok(machine) if machine.uid().as_deref() == Some(uid) => Ok(found),
            Ok(_) | Err(ClusterError::NotFound { .. }) => Err(ApiError::machine_not_found(uid, &found.namespace)),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds namespace and name of a Machine by its UID in the watch.
    pub fn find_machine_uid(&self, uid: &str) -> Option<MachineName> {
        let machine = self.machines().store().find(|machine| machine.uid().as_deref() == Some(uid))?;
        Some(MachineName { namespace: machine.namespace()?, name: machine.name_any() })
    }
}
