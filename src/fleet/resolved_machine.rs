//! A machine as it is declared: its Machine, its Secret, and those of the machines to go through; and what they are good
//! for, as SSH wants it.
//!
//! The promise kept here: credentials are used only where everything says that they may be (type, label, annotations), and
//! nobody is gone through who does not say that he lets it happen.

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

/// Through how many machines a way may lead in all.
const MAX_HOPS: usize = 8;

/// How long what was read is good to log in by: who waits for others in between reads it again.
const FRESH_FOR: Duration = Duration::from_secs(15);

/// A machine as it is declared: where it is, and with which key.
#[derive(Clone)]
pub(crate) struct ResolvedMachine {
    pub machine: Machine,
    pub secret: SshSecret,
    /// The machines to go through, the first one to connect to first. They have none themselves.
    pub hops: Vec<ResolvedMachine>,
    /// When it was read.
    pub read: Instant,
    /// Of several addresses, the one to connect to first, as `IP:PORT`: the one that a command was sent to.
    pub prefer: Option<String>,
}

impl ResolvedMachine {
    /// What a connection is good for: this state of the Machines on the way, and of their Secrets.
    pub fn pool_key(&self) -> String {
        let mut identity = String::new();
        for host in self.hops.iter().chain([self]) {
            let machine = &host.machine.metadata;
            let uid = machine.uid.as_deref().unwrap_or_default();
            let generation = machine.generation.unwrap_or_default();
            let secret = &host.secret;
            identity.push_str(&format!("{uid}/{generation}/{}/{};", secret.uid, secret.resource_version));
            if host.trusts_first_use() {
                // What was proved is good only while that is what is frozen.
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

    /// Whether it was read so long ago that it has to be read again before anybody logs in by it.
    pub fn is_stale(&self) -> bool {
        self.read.elapsed() > FRESH_FOR
    }

    /// The way to the hop with this number, as if that were where to go.
    pub fn truncate_at(&self, index: usize) -> Option<Self> {
        let hop = self.hops.get(index)?;
        Some(Self { hops: self.hops.iter().take(index).cloned().collect(), ..hop.clone() })
    }

    /// The same without what has to stay secret, and without annotations: they are of no account here, often as large as the
    /// rest (`kubectl apply` keeps the whole object in one), and this is kept for as long as a connection.
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

    /// Where it is, and what it has to prove. `seen` is what it was seen with first.
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

    /// With which key to log in.
    pub async fn credentials(&self) -> Result<OpenKey, ConnectFailure> {
        self.check_secret()?;
        let namespace = self.machine.metadata.namespace.as_deref().unwrap_or_default();
        credentials::open(&self.secret, namespace, || self.is_stale()).await
    }

    /// Whether the Secret may be used here at all.
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
    /// The patterns that the addresses have to match which the Machine's name resolves to; None where nothing is to be looked at
    /// any more. Where the Secret says that its key is not for this Machine, that is the end.
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

/// Reads a Machine, its Secret, and all that is on the way to it.
pub(crate) async fn read_and_resolve(
    cluster: &Cluster,
    namespace: &str,
    machine: &str,
) -> Result<ResolvedMachine, ConnectFailure> {
    let machine = cluster.machine(namespace, machine).await.map_err(|error| ConnectFailure::from_read(&error))?;
    resolve(cluster, namespace, machine).await
}

/// Reads what belongs to a Machine that was just read.
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

/// Reads all of it again, at the same time: None where it is no longer what it was.
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
        // What became of the Secret that it had before is of no account.
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

/// The machines on the way, the first one first: those that the Machine names, and before the first of them those that it
/// is reached by itself.
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
        // It may come with the same sync, and be back from maintenance: neither ends what waits.
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

/// The commands that make a Secret for Writ from a file with a private key.
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

    /// A connection to a host with the key that was frozen is not good any more when a person has frozen another one, or
    /// none.
    #[test]
    fn a_connection_is_good_for_one_frozen_key() {
        let before = frozen(Some("SHA256:first")).pool_key();
        assert_ne!(before, frozen(Some("SHA256:other")).pool_key());
        assert_ne!(before, frozen(None).pool_key());
    }

    /// What a jump host resolves is not seen here, so a pattern of numbers says nothing of a name.
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
