//! Reads the policy for `writ explain`: from a cluster with the user's rights, or from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::api::command_execution::Requester;
use crate::api::{Machine, Whitelist};
use crate::cluster::{ClientOptions, Cluster, ClusterError, Operation, PolicyCache};
use crate::policy::RuleSet;

use super::input::RequestInput;
use super::object_name::missing;

/// The flags of a command that select the policy, the Machine and the requester.
pub(super) struct PolicyScope<'a> {
    /// Files with Whitelists. If empty, the policy is read from the cluster.
    pub files: &'a [PathBuf],
    pub kubeconfig: Option<&'a Path>,
    pub namespace: Option<&'a str>,
    pub machine: Option<&'a str>,
    /// Labels of the Machine. Used if the flags name neither a Machine nor an execution.
    pub machine_labels: &'a [(String, String)],
    /// Name of an execution in the cluster. The execution determines the Machine and the requester.
    pub execution: Option<&'a str>,
    /// True if a flag names the requester. The requester is then not the user of the kubeconfig.
    pub is_requester_named: bool,
}

/// The policy, and default values for the parts of a request.
pub(super) struct PolicySource {
    pub rules: RuleSet,
    pub labels: BTreeMap<String, String>,
    /// Requester that is used if neither the flags nor the request name a requester.
    pub requester: Option<Requester>,
    /// Request that was read from an execution in the cluster.
    pub input: Option<RequestInput>,
    pub requester_trust: ReportedTrust,
}

/// Reads policy, Machine and execution from the cluster.
pub(super) async fn read(scope: &PolicyScope<'_>) -> anyhow::Result<PolicySource> {
    let options = ClientOptions::for_user(scope.kubeconfig, scope.namespace);
    let cluster = Cluster::connect(&options).await.context("the kubeconfig cannot be used (or give -f FILE)")?;
    let namespace = cluster.own_namespace().to_owned();
    let rules = Arc::new(PolicyCache::new(cluster.clone(), true)).listed(&namespace).await;
    let rules = rules.map_err(|error| match error {
        ClusterError::Forbidden { .. } => anyhow::Error::new(error)
            .context(format!("you may not read the Whitelists of {namespace}; get that right, or give -f FILE")),
        error => error.into(),
    })?;
    let (mut machine, mut input, mut requester) = (scope.machine.map(str::to_owned), None, None);
    if let Some(name) = scope.execution {
        let execution =
            cluster.execution(&namespace, name).await.map_err(|error| missing(error, "", &namespace, "cmdexec"))?;
        machine = Some(execution.spec.machine_ref.name.clone());
        requester = execution.spec.requested_by.clone();
        input = Some(RequestInput::from_spec(&execution.spec));
    } else if !scope.is_requester_named {
        requester = Some(own_identity(&cluster).await?);
    }
    let labels = match &machine {
        Some(name) => read_machine(&cluster, &namespace, name).await?.labels().clone(),
        None if scope.machine_labels.is_empty() => {
            bail!("Machine missing: give --machine NAME, or --machine-label NAME=VALUE")
        }
        None => scope.machine_labels.iter().cloned().collect(),
    };
    let requester_trust = requester_trust(&cluster, &namespace).await?;
    Ok(PolicySource { rules, labels, requester, input, requester_trust })
}

/// Reads a Machine. If it does not exist and the user may list Machines, the error suggests a similar name.
async fn read_machine(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Machine> {
    let error = match cluster.machine(namespace, name).await {
        Ok(machine) => return Ok(machine),
        Err(error) => error,
    };
    let meant = match &error {
        ClusterError::NotFound { .. } => cluster.machine_like(namespace, name).await,
        _ => None,
    };
    let meant = meant.map(|nearest| format!("; did you mean --machine {nearest}?")).unwrap_or_default();
    Err(missing(error, &meant, namespace, "machines"))
}

/// Trust of the controller in the requesters of a namespace. The Whitelists of the namespace report this trust.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReportedTrust {
    Trusted,
    /// The controller could not check the admission policy yet, and makes no decision that depends on subjects.
    Undecided,
    Untrusted,
}

/// Returns the trust that the conditions `RequesterKnown` of the namespace's Whitelists report:
///
/// - `Untrusted` if a condition is False,
/// - else `Undecided` if a condition is Unknown,
/// - else `Trusted`.
async fn requester_trust(cluster: &Cluster, namespace: &str) -> anyhow::Result<ReportedTrust> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client(), namespace, &ApiResource::erase::<Whitelist>(&()));
    let list = cluster.call(Operation::Cli, "the Whitelists", api.list(&ListParams::default())).await?;
    let conditions =
        list.items.iter().filter_map(|object| object.data.pointer("/status/conditions")?.as_array()).flatten();
    let field = |condition: &Value, field: &str| Some(condition.get(field)?.as_str()?.to_owned());
    let known = conditions.filter(|condition| field(condition, "type").is_some_and(|type_| type_ == "RequesterKnown"));
    let reported: Vec<String> = known.filter_map(|condition| field(condition, "status")).collect();
    let is_reported = |status: &str| reported.iter().any(|reported| reported == status);
    Ok(match () {
        () if is_reported("False") => ReportedTrust::Untrusted,
        () if is_reported("Unknown") => ReportedTrust::Undecided,
        () => ReportedTrust::Trusted,
    })
}

/// Returns the user of this command, as authenticated by the API server.
async fn own_identity(cluster: &Cluster) -> anyhow::Result<Requester> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client());
    let review = SelfSubjectReview::default();
    Ok(Requester::from_review(
        cluster.call(Operation::Cli, "who you are", api.create(&PostParams::default(), &review)).await?,
    ))
}

/// Reads the policy from files.
pub(super) fn from_files(scope: &PolicyScope<'_>) -> anyhow::Result<PolicySource> {
    let whitelists = super::input::whitelists(scope.files)?;
    // A policy consists of the Whitelists of one namespace: the namespace of the flag, else of the first Whitelist with
    // a namespace, else `default`.
    let named = whitelists.iter().find_map(|(_, whitelist)| whitelist.namespace());
    let namespace = scope.namespace.map(str::to_owned).or(named).unwrap_or_else(|| "default".to_owned());
    let mut compiled = Vec::new();
    for (file, mut whitelist) in whitelists {
        let own = whitelist.metadata.namespace.get_or_insert_with(|| namespace.clone());
        if *own == namespace {
            compiled.push(Arc::new(crate::policy::compile(&whitelist)));
        } else if scope.namespace.is_none() {
            bail!(
                "{}: there are Whitelists of the namespaces {namespace} and {own}; select one with -n",
                file.display()
            );
        }
    }
    let labels = scope.machine_labels.iter().cloned().collect();
    Ok(PolicySource {
        rules: RuleSet::new(compiled),
        labels,
        requester: None,
        input: None,
        requester_trust: ReportedTrust::Trusted,
    })
}
