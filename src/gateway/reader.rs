//! Reads executions from the API server, for callers whose rights were checked before.
//!
//! # How a list is made
//! 1. A scan reads name and time of all executions that the API server selects by Machine and phase
//!    (`ExecutionScans`). [`Newest`] keeps the newest of them that are in the range of times.
//! 2. These are read one by one, the newest first, and compared with the whole filter, until the page is full.
//!
//! # Guarantees
//! 1. A list has the newest executions first. Pages that follow each other list each execution at most once.
//! 2. A call reads at most [`MAX_READS`] executions. A page can therefore have fewer items than its limit. The list is
//!    over only if there is no next position.
//! 3. [`Page::is_complete`] is false if the scan did not read all executions, or if an execution cannot be decoded.

use futures::stream::{self, StreamExt as _};

use crate::api::{CommandExecution, Phase, Reason};
use crate::cluster::{Cluster, ClusterError, ExecutionRow, ExecutionScans, ExecutionSelection, RowContent};

use super::error::ApiError;
use super::list_query::{Position, TimeRange};
use super::newest::Newest;
use super::outcome::StatusWord;
use super::statistics::Statistics;

/// Maximum number of executions that one call reads. The limit of a page is at most this number.
const MAX_READS: usize = 500;
/// Maximum number of concurrent reads of a call. The client permits 64 requests for all callers.
const CONCURRENT_READS: usize = 8;
/// Size of the executions of a page, in bytes, after which the page ends. Executions are usually below 10 KiB.
const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Reader of executions. All calls share one value.
pub struct ExecutionReader {
    cluster: Cluster,
    scans: ExecutionScans,
}

/// Executions of a list.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Namespace.
    pub namespace: String,
    /// Name of the Machine, checked by `list_query::machine_name`.
    pub machine: Option<String>,
    /// Word of the status.
    pub status: Option<StatusWord>,
    /// User name of the requester.
    pub requester: Option<String>,
    /// Times of creation.
    pub times: TimeRange,
    /// Maximum number of items of the page.
    pub limit: usize,
    /// Position of the last item of the page before.
    pub after: Option<Position>,
}

/// Part of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Executions, the newest first.
    pub items: Vec<CommandExecution>,
    /// Position after which the list continues. `None` at the end of the list.
    pub next: Option<Position>,
    /// False if the list perhaps lacks executions.
    pub is_complete: bool,
}

/// Result of reading an execution of a scan.
enum Read {
    Found(Box<CommandExecution>, usize),
    /// The execution was deleted after the scan.
    Deleted,
    Undecodable,
}

impl ExecutionReader {
    /// Returns a reader. `cluster` has the right to read and list executions.
    pub fn new(cluster: Cluster) -> Self {
        Self { scans: ExecutionScans::new(cluster.clone()), cluster }
    }

    /// Lists executions, the newest first.
    ///
    /// # Errors
    /// The API server did not answer, or there are too many concurrent lists.
    pub async fn list(&self, filter: &ListFilter) -> Result<Page, ApiError> {
        let selection = ExecutionSelection {
            namespace: filter.namespace.clone(),
            machine: filter.machine.clone(),
            phases: filter.status.map(phases_of),
        };
        // One more than a call reads, so that the call knows if the list continues.
        let mut newest = Newest::new(MAX_READS + 1, filter.times, filter.after.clone());
        let visit = |row: ExecutionRow| {
            newest.offer(Position { created: row.created, name: row.name, uid: row.uid });
        };
        let is_complete = self.scans.scan(&selection, RowContent::Metadata, visit).await?;
        let page = self.read_page(filter, &newest.into_positions()).await?;
        Ok(Page { is_complete: is_complete && page.is_complete, ..page })
    }

    async fn read_page(&self, filter: &ListFilter, positions: &[Position]) -> Result<Page, ApiError> {
        let owned: Vec<Position> = positions.iter().take(MAX_READS).cloned().collect();
        let (cluster, namespace) = (self.cluster.clone(), filter.namespace.clone());
        let mut reads = stream::iter(owned)
            .map(move |position| read(cluster.clone(), namespace.clone(), position))
            .buffered(CONCURRENT_READS);
        let mut page = Page { is_complete: true, ..Page::default() };
        let (mut count, mut bytes) = (0, 0);
        while page.items.len() < filter.limit && bytes < MAX_PAGE_BYTES {
            let Some(result) = reads.next().await else { break };
            count += 1;
            match result? {
                Read::Found(execution, size) if is_selected(filter, &execution) => {
                    bytes += size;
                    page.items.push(*execution);
                }
                Read::Found(..) | Read::Deleted => {}
                Read::Undecodable => page.is_complete = false,
            }
        }
        if positions.len() > count {
            page.next = count.checked_sub(1).and_then(|last| positions.get(last)).cloned();
        }
        Ok(page)
    }

    /// Returns the number of existing executions of a Machine, or `None` if there are more than a scan reads.
    ///
    /// # Errors
    /// The API server did not answer, or there are too many concurrent lists.
    pub async fn count(&self, namespace: &str, machine: &str) -> Result<Option<u64>, ApiError> {
        let mut count = 0;
        let is_complete =
            self.scans.scan(&of_machine(namespace, machine), RowContent::Metadata, |_| count += 1).await?;
        Ok(is_complete.then_some(count))
    }

    /// Returns the statistics of the existing executions of a Machine. The second value is false if there are more
    /// executions than a scan reads.
    ///
    /// # Errors
    /// The API server did not answer, or there are too many concurrent lists.
    pub async fn statistics(&self, namespace: &str, machine: &str) -> Result<(Statistics, bool), ApiError> {
        let mut statistics = Statistics::default();
        let visit = |row: ExecutionRow| {
            statistics.add(row.phase.map(|phase| StatusWord::of(phase, row.reason)), row.duration_ms);
        };
        let is_complete = self.scans.scan(&of_machine(namespace, machine), RowContent::Status, visit).await?;
        Ok((statistics, is_complete))
    }
}

fn of_machine(namespace: &str, machine: &str) -> ExecutionSelection {
    ExecutionSelection { namespace: namespace.to_owned(), machine: Some(machine.to_owned()), phases: None }
}

/// Reads an execution of a scan, unless another execution has its name now.
async fn read(cluster: Cluster, namespace: String, position: Position) -> Result<Read, ClusterError> {
    match cluster.execution_and_size(&namespace, &position.name).await {
        Ok((execution, size)) if execution.metadata.uid.as_deref() == Some(position.uid.as_str()) => {
            Ok(Read::Found(Box::new(execution), size.total))
        }
        Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(Read::Deleted),
        Err(error @ ClusterError::Undecodable { .. }) => {
            tracing::warn!(%error, "execution left out of a list");
            Ok(Read::Undecodable)
        }
        Err(error) => Err(error),
    }
}

/// Returns true if a page has the execution. The scan has not compared all parts of the filter, and the phase can have
/// changed since.
fn is_selected(filter: &ListFilter, execution: &CommandExecution) -> bool {
    let status = execution.status.as_ref();
    let word = StatusWord::of(execution.phase(), status.and_then(|status| status.reason));
    let requester = execution.spec.requested_by.as_ref().map(|requester| requester.username.as_str());
    filter.status.is_none_or(|wanted| wanted == word)
        && filter.requester.as_deref().is_none_or(|wanted| requester == Some(wanted))
        && filter.machine.as_ref().is_none_or(|wanted| *wanted == execution.spec.machine_ref.name)
}

/// Returns the phases that can have a word. Some phases have two words, which depend on the reason.
fn phases_of(word: StatusWord) -> Vec<Phase> {
    let has_word = |phase: Phase| {
        [None, Some(Reason::OutputLimitExceeded)].into_iter().any(|reason| StatusWord::of(phase, reason) == word)
    };
    Phase::ALL.into_iter().filter(|phase| has_word(*phase)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_of_a_word_are_exactly_those_that_can_have_it() {
        assert_eq!(phases_of(StatusWord::Pending), [Phase::Pending, Phase::Queued]);
        assert_eq!(phases_of(StatusWord::Executing), [Phase::Running]);
        assert_eq!(phases_of(StatusWord::Completed), [Phase::Succeeded, Phase::Failed]);
        assert!(phases_of(StatusWord::Failed).contains(&Phase::Failed));
        for phase in Phase::ALL {
            let words = StatusWord::ALL.into_iter().filter(|word| phases_of(*word).contains(&phase));
            assert!(words.count() >= 1, "{phase:?} is in no list");
        }
    }

    #[test]
    fn an_execution_is_compared_with_the_whole_filter() {
        let execution: CommandExecution = serde_json::from_value(serde_json::json!({
            "apiVersion": "writ.dev/v1alpha1", "kind": "CommandExecution",
            "metadata": {"name": "x", "namespace": "ops"},
            "spec": {"machineRef": {"name": "web-1"}, "command": "uptime", "requestedBy": {"username": "jane"}},
            "status": {"phase": "Failed", "reason": "OutputLimitExceeded"},
        }))
        .unwrap();
        let is_in = |status: Option<StatusWord>, requester: Option<&str>, machine: Option<&str>| {
            let (requester, machine) = (requester.map(str::to_owned), machine.map(str::to_owned));
            is_selected(&ListFilter { status, requester, machine, ..ListFilter::default() }, &execution)
        };
        assert!(is_in(None, None, None) && is_in(Some(StatusWord::Failed), Some("jane"), Some("web-1")));
        // The phase alone does not distinguish the two words.
        assert!(!is_in(Some(StatusWord::Completed), None, None));
        assert!(!is_in(None, Some("Jane"), None) && !is_in(None, None, Some("web-2")));
    }
}
