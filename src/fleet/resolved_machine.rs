//! Reads a Machine with all objects that a connection to the machine needs: its Secret, and the Machines and Secrets of
//! its jump hosts. This module also derives the SSH settings from these objects.
//!
//! # Guarantees
//! - Credentials are used only if the type, the label and the annotations of their Secret permit the use.
//! - A machine is a jump host only if its own Machine allows it (`spec.allowJump`).

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::Instant;

use crate::api::{CREDENTIALS_TYPE, HostKeyPolicy, Machine, NameReference, Reason};
use crate::cluster::{Cluster, ClusterError, SshSecret};
use crate::policy;
use crate::ssh::{Admission, HostKeyConfig, HostKeyVerifier, Target, Verdict};

use super::connect_failure::ConnectFailure;
use super::credentials::{self, OpenKey};
use super::trust_on_first_use;

/// Maximum number of jump hosts on the way to a machine, including the jump hosts of its first jump host.
const MAX_HOPS: usize = 8;

/// Maximum age of the Machine, the Secret and the jump hosts at a login. A task that waited longer for its turn must
/// read these objects again.
const FRESH_FOR: Duration = Duration::from_secs(15);

/// A Machine, its Secret and its jump hosts, as the API server returned them.
#[derive(Clone)]
pub(crate) struct ResolvedMachine {
    pub machine: Machine,
    pub secret: SshSecret,
    /// The jump hosts, in the order of the connections. Each entry has no `hops` of its own.
    pub hops: Vec<ResolvedMachine>,
    /// Time at which the objects were read.
    pub read: Instant,
    /// Address (`IP:PORT`) to try first if the name has several addresses: the address to which the command was sent.
    pub prefer: Option<String>,
}

impl ResolvedMachine {
    /// Returns the pool key of the connections that can serve this machine. The pool key changes if the Machine, a jump
    /// host or one of their Secrets changes.
    pub fn pool_key(&self) -> String {
        let mut identity = String::new();
        for host in self.hops.iter().chain([self]) {
            let machine = &host.machine.metadata;
            let uid = machine.uid.as_deref().unwrap_or_default();
            let generation = machine.generation.unwrap_or_default();
            let secret = &host.secret;
            identity.push_str(&format!("{uid}/{generation}/{}/{};", secret.uid, secret.resource_version));
            if host.trusts_first_use() {
                // If a user changes or removes the pinned key, the pool key changes. Writ then stops using the open
                // connections.
                for (algorithm, fingerprint) in trust_on_first_use::pinned_keys(&host.machine) {
                    identity.push_str(&format!("{algorithm}/{fingerprint};"));
                }
            }
        }
        identity
    }

    fn trusts_first_use(&self) -> bool {
        let spec = &self.machine.spec;
        spec.host_key_policy == HostKeyPolicy::TrustOnFirstUse
            && spec.host_keys.is_empty()
            && spec.host_key_authorities.is_empty()
    }

    /// Returns true if the objects are too old for a login and must be read again.
    pub fn is_stale(&self) -> bool {
        self.read.elapsed() > FRESH_FOR
    }

    /// Returns the jump host at `index`, with the earlier jump hosts as its own jump hosts.
    pub fn truncate_at(&self, index: usize) -> Option<Self> {
        let hop = self.hops.get(index)?;
        Some(Self { hops: self.hops.iter().take(index).cloned().collect(), ..hop.clone() })
    }

    /// Returns a copy without secrets and annotations. The connection pool keeps this copy while a connection is open.
    /// Annotations are often large, because `kubectl apply` stores the whole object in an annotation.
    pub fn without_secrets(&self) -> Self {
        let mut machine = self.machine.clone();
        machine.metadata.annotations = None;
        Self {
            machine,
            secret: self.secret.without_secrets(),
            hops: self.hops.iter().map(Self::without_secrets).collect(),
            read: self.read,
            prefer: None,
        }
    }

    pub fn name(&self) -> &str {
        self.machine.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the address to connect to, and the host keys to accept. `seen` contains the keys that were pinned on
    /// first use.
    pub fn target(&self, seen: Vec<(String, String)>) -> Result<Target, ConnectFailure> {
        let spec = &self.machine.spec;
        let parts = HostKeyConfig {
            host_keys: &spec.host_keys,
            authorities: &spec.host_key_authorities,
            revoked: &spec.revoked_host_keys,
            first_use_keys: seen,
            first_use: spec.host_key_policy == HostKeyPolicy::TrustOnFirstUse,
            name: &spec.address,
        };
        let trust = HostKeyVerifier::parse(parts)
            .map_err(|error| ConnectFailure::from_configuration(Reason::MachineInvalid, error.to_string()))?;
        let prefer = self.prefer.as_ref().and_then(|at| at.parse::<SocketAddr>().ok()).map(|at| at.ip());
        Ok(Target {
            address: spec.address.clone(),
            port: spec.port,
            user: spec.user.clone(),
            host_keys: trust,
            prefer,
            namespace: self.machine.metadata.namespace.clone().unwrap_or_default(),
            admission: self.admission()?,
        })
    }

    /// Returns the decrypted keys for the login.
    pub async fn credentials(&self) -> Result<OpenKey, ConnectFailure> {
        self.check_secret()?;
        let namespace = self.machine.metadata.namespace.as_deref().unwrap_or_default();
        credentials::open(&self.secret, namespace, || self.is_stale()).await
    }

    /// Checks that the Secret may be used for this Machine.
    pub fn check_secret(&self) -> Result<(), ConnectFailure> {
        let (secret, spec) = (&self.secret, &self.machine.spec);
        let (name, namespace) = (&secret.name, self.machine.metadata.namespace.as_deref().unwrap_or_default());
        let invalid = |what: String| {
            Err(ConnectFailure::from_configuration(Reason::CredentialsInvalid, format!("the Secret {name} {what}")))
        };
        if secret.type_ != CREDENTIALS_TYPE {
            return invalid(format!(
                "must have the type {CREDENTIALS_TYPE}; a Secret's type cannot change, so replace it: kubectl -n {namespace} \
                 delete secret {name} && {}",
                create_command(namespace, name)
            ));
        }
        if !secret.has_credentials_label {
            let label = crate::api::CREDENTIALS_LABEL;
            return invalid(format!(
                "must have the label {label}: \"true\" to be used by writ: kubectl -n {namespace} label secret {name} {label}=true"
            ));
        }
        let users = secret.allowed_users.as_deref();
        if users.is_some_and(|users| !policy::any_matches(users, &spec.user)) {
            let annotation = crate::api::USERS_ANNOTATION;
            return invalid(format!(
                "may not be used with spec.user {} of this Machine: its annotation {annotation} does not list it",
                spec.user
            ));
        }
        self.admission()?;
        if !secret.keys.iter().any(|key| key.suffix.is_empty()) {
            return invalid(format!(
                "must have the private key in data.ssh-privatekey; replace it: kubectl -n {namespace} delete secret {name} && {}",
                create_command(namespace, name)
            ));
        }
        Ok(())
    }
}

impl ResolvedMachine {
    /// Returns the patterns of the Secret that the resolved addresses must match. Returns `None` if the resolved
    /// addresses need no check: the Secret has no patterns, or a pattern matches `spec.address` itself.
    ///
    /// # Errors
    /// The Secret does not permit this Machine.
    fn admission(&self) -> Result<Option<Admission>, ConnectFailure> {
        let Some(patterns) = &self.secret.allowed_addresses else { return Ok(None) };
        let (name, address, annotation) =
            (&self.secret.name, &self.machine.spec.address, crate::api::ADDRESSES_ANNOTATION);
        let invalid = |what: String| {
            Err(ConnectFailure::from_configuration(Reason::CredentialsInvalid, format!("the Secret {name} {what}")))
        };
        let admission = match Admission::parse(patterns) {
            Ok(admission) => admission,
            Err(error) => return invalid(format!("may not be used: its annotation {annotation} {error}")),
        };
        let no = format!("may not be used with spec.address {address} of this Machine: its annotation {annotation}");
        match admission.of_text(address) {
            Verdict::Admitted => Ok(None),
            Verdict::ByAddress if self.hops.is_empty() => Ok(Some(admission)),
            Verdict::ByAddress => invalid(format!(
                "{no} does not list that name, and a jump host resolves it, so that no pattern for addresses admits it; list the name"
            )),
            Verdict::Refused => invalid(format!("{no} does not list it")),
        }
    }
}

/// Reads a Machine, its Secret, and the Machines and Secrets of its jump hosts.
pub(crate) async fn read_and_resolve(
    cluster: &Cluster,
    namespace: &str,
    machine: &str,
) -> Result<ResolvedMachine, ConnectFailure> {
    let machine = cluster.machine(namespace, machine).await.map_err(|error| ConnectFailure::from_read(&error))?;
    resolve(cluster, namespace, machine).await
}

/// Reads the Secret and the jump hosts of a Machine that was just read.
pub(crate) async fn resolve(
    cluster: &Cluster,
    namespace: &str,
    machine: Machine,
) -> Result<ResolvedMachine, ConnectFailure> {
    let (secret, hops) = tokio::join!(
        read_secret(cluster, namespace, &machine.spec.credentials_ref.name),
        read_hops(cluster, namespace, &machine)
    );
    if let Some(problem) = machine.spec.problem() {
        return Err(ConnectFailure::from_configuration(Reason::MachineInvalid, problem));
    }
    Ok(ResolvedMachine { secret: secret?, hops: hops?, machine, read: Instant::now(), prefer: None })
}

/// Reads all objects again, concurrently. Returns `None` if the pool key has changed.
pub(crate) async fn read_again(
    cluster: &Cluster,
    namespace: &str,
    before: &ResolvedMachine,
) -> Result<Option<ResolvedMachine>, ConnectFailure> {
    let (again, hops) = tokio::join!(
        read_host_again(cluster, namespace, before),
        try_join_all(before.hops.iter().map(|hop| read_host_again(cluster, namespace, hop)))
    );
    let (Some(mut now), Some(hops)) = (again?, hops?.into_iter().collect::<Option<Vec<_>>>()) else { return Ok(None) };
    now.hops = hops;
    Ok((before.pool_key() == now.pool_key()).then_some(now))
}

async fn read_host_again(
    cluster: &Cluster,
    namespace: &str,
    before: &ResolvedMachine,
) -> Result<Option<ResolvedMachine>, ConnectFailure> {
    let (machine, secret) =
        tokio::join!(cluster.machine(namespace, before.name()), read_secret(cluster, namespace, &before.secret.name));
    let machine = machine.map_err(|error| ConnectFailure::from_read(&error))?;
    let (was, is) = (&before.machine.metadata, &machine.metadata);
    if (&was.uid, was.generation) != (&is.uid, is.generation) {
        // The Machine has changed, so the state of its former Secret is irrelevant.
        return Ok(None);
    }
    Ok(Some(ResolvedMachine { machine, secret: secret?, hops: Vec::new(), read: Instant::now(), prefer: None }))
}

async fn read_secret(cluster: &Cluster, namespace: &str, name: &str) -> Result<SshSecret, ConnectFailure> {
    cluster.ssh_secret(namespace, name).await.map_err(|error| match error {
        ClusterError::NotFound { .. } => ConnectFailure::from_configuration(
            Reason::CredentialsNotFound,
            format!(
                "there is no Secret {name} in this namespace (spec.credentialsRef of the Machine); create it: {}",
                create_command(namespace, name)
            ),
        ),
        ClusterError::Forbidden { who, message, .. } => ConnectFailure::from_configuration(
            Reason::CredentialsNotFound,
            format!("{who} may not read the Secret {name}: {message}"),
        ),
        error => ConnectFailure::from_read(&error),
    })
}

/// Returns the jump hosts in the order of the connections. For example, a Machine names the jump hosts `a` and `b`, and
/// `a` names `c`. The order is then `c`, `a`, `b`.
async fn read_hops(
    cluster: &Cluster,
    namespace: &str,
    machine: &Machine,
) -> Result<Vec<ResolvedMachine>, ConnectFailure> {
    let mut names = vec![machine.metadata.name.clone().unwrap_or_default()];
    let mut hops: Vec<ResolvedMachine> = Vec::new();
    let mut named: Vec<NameReference> = machine.spec.jump_hosts.clone();
    while !named.is_empty() {
        let mut before = Vec::new();
        for reference in &named {
            let is_again = names.contains(&reference.name);
            names.push(reference.name.clone());
            if is_again {
                let way = names.join(", ");
                return Err(ConnectFailure::from_configuration(
                    Reason::MachineInvalid,
                    format!("spec.jumpHosts go in a circle: {way}; take one out"),
                ));
            }
            if names.len() > MAX_HOPS + 1 {
                let message = format!("spec.jumpHosts lead through more than {MAX_HOPS} machines");
                return Err(ConnectFailure::from_configuration(Reason::MachineInvalid, message));
            }
            before.push(read_hop(cluster, namespace, &reference.name).await?);
        }
        named = before.first().map(|first| first.machine.spec.jump_hosts.clone()).unwrap_or_default();
        before.append(&mut hops);
        hops = before;
    }
    Ok(hops)
}

async fn read_hop(cluster: &Cluster, namespace: &str, name: &str) -> Result<ResolvedMachine, ConnectFailure> {
    let machine = match cluster.machine(namespace, name).await {
        Ok(machine) => machine,
        // The execution stays queued, because a GitOps sync can create the jump host a moment after the Machine.
        Err(ClusterError::NotFound { .. }) => {
            return Err(ConnectFailure::Unreachable(format!(
                "the jump host {name} is no Machine of this namespace; create it"
            )));
        }
        Err(error @ (ClusterError::Unavailable { .. } | ClusterError::Forbidden { .. })) => {
            return Err(ConnectFailure::from_read(&error));
        }
        Err(error) => return Err(ConnectFailure::Unreachable(format!("the jump host {name} cannot be read: {error}"))),
    };
    if machine.spec.suspend {
        return Err(ConnectFailure::Unreachable(format!("the jump host {name} is suspended")));
    }
    if let Some(problem) = machine.spec.problem() {
        return Err(ConnectFailure::from_configuration(
            Reason::MachineInvalid,
            format!("the jump host {name}: {problem}"),
        ));
    }
    if !machine.spec.allow_jump {
        let message =
            format!("the Machine {name} lets nobody go through it; set allowJump: true there if it is meant to");
        return Err(ConnectFailure::from_configuration(Reason::MachineInvalid, message));
    }
    let secret = read_secret(cluster, namespace, &machine.spec.credentials_ref.name).await?;
    Ok(ResolvedMachine { machine, secret, hops: Vec::new(), read: Instant::now(), prefer: None })
}

/// Returns the commands that create a Secret for Writ from a file with a private key.
fn create_command(namespace: &str, name: &str) -> String {
    let label = crate::api::CREDENTIALS_LABEL;
    format!(
        "kubectl -n {namespace} create secret generic {name} --type={CREDENTIALS_TYPE} --from-file=ssh-privatekey=KEYFILE && \
         kubectl -n {namespace} label secret {name} {label}=true"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::machine_status::{KeyTrust, ObservedHostKey};
    use crate::api::{MachineSpec, MachineStatus};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn frozen(fingerprint: Option<&str>) -> ResolvedMachine {
        let mut machine = Machine::new("web-1", MachineSpec::new("192.0.2.1", "deploy", "web-ssh"));
        machine.spec.host_key_policy = HostKeyPolicy::TrustOnFirstUse;
        machine.metadata.uid = Some("uid".to_owned());
        machine.metadata.generation = Some(1);
        let key = |fingerprint: &str| ObservedHostKey {
            algorithm: "ssh-ed25519".to_owned(),
            fingerprint: fingerprint.to_owned(),
            trust: KeyTrust::FirstUse,
            first_seen_time: Time(Timestamp::UNIX_EPOCH),
        };
        let host_keys = fingerprint.map(key).into_iter().collect();
        machine.status = Some(MachineStatus { host_keys, ..MachineStatus::default() });
        ResolvedMachine { machine, secret: SshSecret::default(), hops: Vec::new(), read: Instant::now(), prefer: None }
    }

    /// If a user pins another key or removes the pinned key, the pool key changes. The open connections are then no
    /// longer used.
    #[test]
    fn a_connection_is_good_for_one_frozen_key() {
        let before = frozen(Some("SHA256:first")).pool_key();
        assert_ne!(before, frozen(Some("SHA256:other")).pool_key());
        assert_ne!(before, frozen(None).pool_key());
    }

    /// Behind a jump host, an address pattern matches no name, because only the jump host resolves names.
    #[test]
    fn behind_a_jump_host_only_the_text_of_the_address_counts() {
        let resolved = |address: &str, patterns: &str, hops: usize| {
            let mut resolved = frozen(None);
            resolved.machine.spec.address = address.to_owned();
            resolved.secret.allowed_addresses = Some(patterns.to_owned());
            resolved.hops = vec![frozen(None); hops];
            resolved.admission()
        };
        assert!(matches!(resolved("web-1", "10.0.*", 0), Ok(Some(_))), "looked at when it is resolved");
        for (address, patterns) in [("10.0.0.1", "10.0.*"), ("web-1", "web-*"), ("web-1", "*")] {
            for hops in [0, 1] {
                assert!(matches!(resolved(address, patterns, hops), Ok(None)), "{address} {patterns} {hops}");
            }
        }
        for (address, patterns, hops) in
            [("web-1", "10.0.*", 1), ("10.1.0.1", "10.0.*", 1), ("web-1", "db-*", 0), ("a.b", "*.b/8", 0)]
        {
            let end = resolved(address, patterns, hops);
            let Err(ConnectFailure::Refused { problem, .. }) = end else {
                panic!("{address} {patterns} {hops} is admitted")
            };
            assert_eq!(problem.reason, Reason::CredentialsInvalid);
            assert!(problem.message.contains("writ.dev/addresses"), "{}", problem.message);
        }
    }
}
