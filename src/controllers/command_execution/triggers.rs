//! Events that trigger a reconcile of an execution: changes of the execution, of the namespace's Machines and
//! Whitelists, and messages of the runner.

use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};

use crate::cluster::{Change, SharedWatch, Slim};
use crate::controllers::Watches;
use crate::controllers::reconcile::received;
use crate::runner::{Runner, Wakes};

use super::context::key_of;
use super::execution_meta::ExecutionMeta;
use super::startup_gate::StartupGate;

/// Returns a stream of the executions that must be reconciled.
pub(super) fn queue(
    watches: &Watches,
    runner: &Runner,
    wakes: Wakes,
    gate: Arc<StartupGate>,
) -> impl Stream<Item = ObjectRef<ExecutionMeta>> + Send + use<> {
    let executions = watches.unfinished_executions.store();
    let waits_for = runner.clone();
    stream::select_all([
        own_changes(&watches.unfinished_executions, runner.clone(), gate),
        received(wakes).boxed(),
        affected_by_changes(&watches.machines, executions.clone(), move |execution, machine, is_deleted| {
            waits_for.is_affected_by(&key_of(execution), &machine.name_any(), is_deleted)
        }),
        affected_by_changes(&watches.whitelists, executions, |_, _, _| true),
    ])
}

fn own_changes(
    executions: &SharedWatch<ExecutionMeta>,
    runner: Runner,
    gate: Arc<StartupGate>,
) -> BoxStream<'static, ObjectRef<ExecutionMeta>> {
    let changes = executions.subscribe(|before, after| before.resource_version() != after.resource_version());
    let changed = changes.flat_map(move |change| {
        let changed = match change {
            Change::Applied(execution) => vec![ObjectRef::from(execution.as_ref())],
            Change::Deleted(execution) => {
                let key = key_of(execution.as_ref());
                // The execution has finished or was deleted. If the runner still has a task for the execution, this
                // task must end.
                runner.withdraw(&key);
                runner.cancel(&key);
                let reference = ObjectRef::from(execution.as_ref());
                gate.mark_reconciled(&reference);
                vec![reference]
            }
            Change::Listed(mut all) => {
                // The oldest execution comes first; see `startup_gate`.
                all.sort_by_cached_key(|execution| execution.creation_timestamp());
                let all: Vec<_> = all.iter().map(|execution| ObjectRef::from(execution.as_ref())).collect();
                gate.expect(all.iter().cloned());
                all
            }
        };
        stream::iter(changed)
    });
    changed.boxed()
}

/// Returns the unfinished executions that a change of a Machine or Whitelist affects. After a new list, returns all
/// unfinished executions, because the watch has perhaps missed changes.
fn affected_by_changes<K>(
    watch: &SharedWatch<Slim<K>>,
    executions: Store<ExecutionMeta>,
    is_affected_by: impl Fn(&ExecutionMeta, &Slim<K>, bool) -> bool + Send + 'static,
) -> BoxStream<'static, ObjectRef<ExecutionMeta>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + 'static,
{
    let changes = watch.subscribe(|before, after| !is_same_for_executions(before, after));
    let affected = changes.flat_map(move |change| {
        let affected = match &change {
            Change::Applied(changed) | Change::Deleted(changed) => {
                let is_deleted = matches!(change, Change::Deleted(_));
                executions.state_filter(|execution| {
                    execution.namespace() == changed.namespace() && is_affected_by(execution, changed, is_deleted)
                })
            }
            Change::Listed(_) => executions.state(),
        };
        stream::iter(affected).map(|execution| ObjectRef::from(execution.as_ref()))
    });
    affected.boxed()
}

/// Returns true if two versions of a Machine or Whitelist have the same effect on executions. For example, a change of
/// the status has no effect.
fn is_same_for_executions<K>(before: &Slim<K>, after: &Slim<K>) -> bool
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let (old, new) = (before.meta(), after.meta());
    old.generation == new.generation
        && before.labels == after.labels
        && old.deletion_timestamp.is_some() == new.deletion_timestamp.is_some()
}
