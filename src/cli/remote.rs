//! What `writ explain` reads from a cluster, with the rights of whoever runs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::api::command_execution::Requester;
use crate::api::{Machine, Whitelist};
use crate::cluster::{ClientOptions, Cluster, ClusterError, Operation, Policies};
use crate::policy::RuleSet;

use super::explain::Explain;
use super::input::Question;

/// What a question is held against.
pub(super) struct Ground {
    pub rules: RuleSet,
    pub labels: BTreeMap<String, String>,
    /// Who asks where neither the flags nor the question say.
    pub requester: Option<Requester>,
    /// The question that an execution of the cluster is.
    pub question: Option<Question>,
    /// Whether who asks can be believed, as the controller says it in the Whitelists with subjects.
    pub is_stamped: bool,
}

/// Reads policy, Machine and execution.
pub(super) async fn read(explain: &Explain) -> anyhow::Result<Ground> {
    let options = ClientOptions::of_person(explain.kubeconfig.as_deref(), explain.namespace.as_deref());
    let cluster = Cluster::connect(&options).await.context("the kubeconfig cannot be used (or give -f FILE)")?;
    let namespace = cluster.home().to_owned();
    let rules = Policies::new(cluster.clone()).rules(&namespace).await;
    let rules = rules.map_err(|error| match error {
        ClusterError::Forbidden { .. } => anyhow::Error::new(error)
            .context(format!("you may not read the Whitelists of {namespace}; ask somebody who may, or give -f FILE")),
        error => error.into(),
    })?;
    let (mut machine, mut question, mut requester) = (explain.machine.clone(), None, None);
    if let Some(name) = &explain.execution {
        let execution =
            cluster.execution(&namespace, name).await.map_err(|error| missing(error, "", &namespace, "cmdexec"))?;
        machine = Some(execution.spec.machine_ref.name.clone());
        requester = execution.spec.requested_by.clone();
        question = Some(Question::of(&execution.spec));
    } else if explain.asked_by.is_none() {
        requester = Some(myself(&cluster).await?);
    }
    let labels = match &machine {
        Some(name) => read_machine(&cluster, &namespace, name).await?.labels().clone(),
        None if explain.machine_label.is_empty() => {
            bail!("say which Machine: --machine NAME, or --machine-label NAME=VALUE")
        }
        None => explain.machine_label.iter().cloned().collect(),
    };
    let is_stamped = is_stamped(&cluster, &namespace).await?;
    Ok(Ground { rules, labels, requester, question, is_stamped })
}

/// Reads a Machine; where there is none, the error names the one that may be meant, if the person may list them.
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

/// The same error, with how to find what exists.
fn missing(error: ClusterError, meant: &str, namespace: &str, kind: &str) -> anyhow::Error {
    match error {
        error @ ClusterError::NotFound { .. } => anyhow::anyhow!(
            "{error}{meant} (kubectl -n {namespace} get {kind} lists those that exist; -n NAMESPACE names another namespace)"
        ),
        error => error.into(),
    }
}

/// Whether no Whitelist says that it is not known who asks.
async fn is_stamped(cluster: &Cluster, namespace: &str) -> anyhow::Result<bool> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client(), namespace, &ApiResource::erase::<Whitelist>(&()));
    let list = cluster.call(Operation::Cli, "the Whitelists", api.list(&ListParams::default())).await?;
    let mut conditions =
        list.items.iter().filter_map(|object| object.data.pointer("/status/conditions")?.as_array()).flatten();
    let is = |condition: &Value, field: &str, value: &str| condition.get(field).and_then(Value::as_str) == Some(value);
    Ok(!conditions.any(|condition| is(condition, "type", "RequesterKnown") && is(condition, "status", "False")))
}

/// Who runs this, as the API server authenticates them.
async fn myself(cluster: &Cluster) -> anyhow::Result<Requester> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client());
    let review = SelfSubjectReview::default();
    Ok(Requester::of(cluster.call(Operation::Cli, "who you are", api.create(&PostParams::default(), &review)).await?))
}

/// The same from files.
pub(super) fn from_files(explain: &Explain) -> anyhow::Result<Ground> {
    let whitelists = super::input::whitelists(&explain.file)?;
    // A policy is that of one namespace.
    let named = whitelists.iter().find_map(|(_, whitelist)| whitelist.namespace());
    let namespace = explain.namespace.clone().or(named).unwrap_or_else(|| "default".to_owned());
    let mut compiled = Vec::new();
    for (file, mut whitelist) in whitelists {
        let own = whitelist.metadata.namespace.get_or_insert_with(|| namespace.clone());
        if *own == namespace {
            compiled.push(Arc::new(crate::policy::compile(&whitelist)));
        } else if explain.namespace.is_none() {
            bail!(
                "{}: there are Whitelists of the namespaces {namespace} and {own}; say which one with -n",
                file.display()
            );
        }
    }
    let labels = explain.machine_label.iter().cloned().collect();
    Ok(Ground { rules: RuleSet::new(compiled), labels, requester: None, question: None, is_stamped: true })
}
