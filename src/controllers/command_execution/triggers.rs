//! Events that trigger a reconcile of an execution: changes of the execution, of the namespace's Machines and
//! Whitelists, and messages of the runner.

use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};

use crate::api::{Machine, Whitelist};
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
        affected_by_changes(
            &watches.machines,
            is_new_machine,
            executions.clone(),
            move |execution, machine, is_deleted| {
                waits_for.is_affected_by(&key_of(execution), &machine.name_any(), is_deleted)
            },
        ),
        affected_by_changes(&watches.whitelists, is_new_whitelist, executions, |_, _, _| true),
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
/// unfinished executions, because the watch has perhaps missed changes. `is_new` returns true if
/// a version has another effect on executions than the one before.
fn affected_by_changes<K>(
    watch: &SharedWatch<Slim<K>>,
    is_new: fn(&Slim<K>, &Slim<K>) -> bool,
    executions: Store<ExecutionMeta>,
    is_affected_by: impl Fn(&ExecutionMeta, &Slim<K>, bool) -> bool + Send + 'static,
) -> BoxStream<'static, ObjectRef<ExecutionMeta>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + 'static,
{
    let changes = watch.subscribe(is_new);
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

/// Returns true if a version of a Machine has another effect on executions than the one before. A change of the status
/// has no effect. Rules select Machines by labels.
fn is_new_machine(before: &Slim<Machine>, after: &Slim<Machine>) -> bool {
    is_new_spec(before.meta(), after.meta()) || before.labels != after.labels
}

/// Returns true if a version of a Whitelist has another effect on executions than the one before. Labels and the status
/// have no effect.
fn is_new_whitelist(before: &Slim<Whitelist>, after: &Slim<Whitelist>) -> bool {
    is_new_spec(before.meta(), after.meta())
}

fn is_new_spec(before: &ObjectMeta, after: &ObjectMeta) -> bool {
    before.uid != after.uid
        || before.generation != after.generation
        || before.deletion_timestamp.is_some() != after.deletion_timestamp.is_some()
}
