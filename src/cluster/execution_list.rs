//! Lists the executions of a namespace for readers, who need only a few fields of each.
//!
//! The API server sorts lists by name and cannot select executions by time. So a reader that needs the newest
//! executions reads the names and times of all of them (a scan).
//!
//! # Guarantees
//! 1. A page takes at most [`MAX_PAGE_BYTES`] of memory as text. If users make their executions large, Writ reads
//!    smaller pages.
//! 2. A scan ends: after [`RowContent::max_rows`] executions, or after [`MAX_SCAN_TIME`]. The caller learns if the scan
//!    has read all executions.
//! 3. The number of concurrent scans is limited, and namespaces take turns.

use std::time::Duration;

use futures::io::AsyncReadExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Phase, Reason};
use crate::fairness::{Place, Pool, Size};

use super::{Cluster, ClusterError, Operation};

/// Maximum number of executions in a page. A page with metadata usually takes less than 1 MiB.
const MAX_PAGE_ROWS: u32 = 500;
/// Maximum size of a page, in bytes: ten objects of the maximum size, as for [`super::PAGE`]. The limit of concurrent
/// pages (`gate`) assumes this size.
const MAX_PAGE_BYTES: u64 = 15 * 1024 * 1024;
/// Divisor of the number of executions in a page after a page was too large.
const PAGE_DIVISOR: u32 = 8;
/// Maximum duration of a scan, without the call that is in progress. A caller waits for the result.
const MAX_SCAN_TIME: Duration = Duration::from_secs(10);
/// Maximum number of concurrent scans. Each of them has at most one page in memory.
const CONCURRENT_SCANS: Size = Size { places: 4, share: 2 };
/// Maximum time for which a scan waits for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(5);

/// Scans of executions. All scans of the process share one value.
pub struct ExecutionScans {
    cluster: Cluster,
    turns: Pool,
}

/// Executions to read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExecutionSelection {
    /// Namespace.
    pub namespace: String,
    /// Name of the Machine. `None` for all Machines.
    pub machine: Option<String>,
    /// Phases. `None` for all phases.
    pub phases: Option<Vec<Phase>>,
}

/// Fields of the rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RowContent {
    /// Only metadata, so the status of each row is empty.
    Metadata,
    /// Metadata and status. The API server sends whole objects.
    Status,
}

/// One execution of a scan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecutionRow {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Time of the creation.
    pub created: Timestamp,
    /// Phase. `None` without a status, or if a later version of Writ wrote a phase that this version does not know.
    pub phase: Option<Phase>,
    /// Reason. `None` if there is none, or if this version does not know it.
    pub reason: Option<Reason>,
    /// Duration of the command, in milliseconds.
    pub duration_ms: Option<i64>,
}

impl RowContent {
    /// Returns the maximum number of executions of a scan. Metadata of 50,000 executions take about 75 MB in transit.
    pub fn max_rows(self) -> usize {
        match self {
            RowContent::Metadata => 50_000,
            RowContent::Status => 10_000,
        }
    }
}

impl ExecutionSelection {
    /// Returns the field selector of the API server. Empty if all executions are selected. Field selectors have no
    /// "or", so several phases are the exclusion of all other phases.
    fn field_selector(&self) -> String {
        let machine = self.machine.iter().map(|name| format!("spec.machineRef.name={name}"));
        let phases = match self.phases.as_deref() {
            None => Vec::new(),
            // An execution without a status is Pending. Its phase is an empty text for the API server.
            Some([only]) if *only != Phase::Pending => vec![format!("status.phase={}", only.as_str())],
            Some(several) => {
                let others = Phase::ALL.iter().filter(|phase| !several.contains(phase));
                others.map(|phase| format!("status.phase!={}", phase.as_str())).collect()
            }
        };
        machine.chain(phases).collect::<Vec<_>>().join(",")
    }
}

impl ExecutionScans {
    /// Returns a value without scans. `cluster` has the right to list executions.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, turns: Pool::new(CONCURRENT_SCANS) }
    }

    /// Passes each selected execution to `visit`, sorted by name. Returns false if there are more executions than a
    /// scan reads.
    ///
    /// # Errors
    /// See [`ClusterError`]. Also [`ClusterError::Unavailable`] if there are too many concurrent scans.
    pub async fn scan(
        &self,
        selection: &ExecutionSelection,
        content: RowContent,
        mut visit: impl FnMut(ExecutionRow) + Send,
    ) -> Result<bool, ClusterError> {
        let target = format!("the CommandExecutions of {}", selection.namespace);
        let _turn = self.turn(&selection.namespace, &target).await?;
        let (started, fields) = (Instant::now(), selection.field_selector());
        let (mut rows, mut page_rows) = (0, MAX_PAGE_ROWS);
        let mut parameters = ListParams::default();
        if !fields.is_empty() {
            parameters = parameters.fields(&fields);
        }
        loop {
            parameters = parameters.limit(page_rows);
            let Some(page) = self.read_page(&selection.namespace, &target, &parameters, content).await? else {
                if page_rows == 1 {
                    let message = format!("one of them has more than {MAX_PAGE_BYTES} bytes");
                    return Err(ClusterError::TooLarge { target, message });
                }
                page_rows = (page_rows / PAGE_DIVISOR).max(1);
                continue;
            };
            let items = page.items.unwrap_or_default();
            rows += items.len();
            items.into_iter().for_each(|raw| visit(raw.into_row(content)));
            page_rows = (page_rows * 2).min(MAX_PAGE_ROWS);
            match page.metadata.next.filter(|next| !next.is_empty()) {
                None => return Ok(true),
                Some(_) if rows >= content.max_rows() || started.elapsed() >= MAX_SCAN_TIME => return Ok(false),
                Some(next) => parameters = parameters.continue_token(&next),
            }
        }
    }

    async fn turn(&self, namespace: &str, target: &str) -> Result<Place, ClusterError> {
        tokio::time::timeout(TURN_DEADLINE, self.turns.place(namespace)).await.map_err(|_| {
            let message = format!("other lists took all turns for {} s", TURN_DEADLINE.as_secs());
            ClusterError::Unavailable { target: target.to_owned(), message }
        })
    }

    /// Reads one page. Returns `None` if the page is larger than [`MAX_PAGE_BYTES`].
    async fn read_page(
        &self,
        namespace: &str,
        target: &str,
        parameters: &ListParams,
        content: RowContent,
    ) -> Result<Option<Page>, ClusterError> {
        let read = async {
            let requests = self.cluster.execution_requests(namespace);
            let request = match content {
                RowContent::Metadata => requests.list_metadata(parameters),
                RowContent::Status => requests.list(parameters),
            };
            let request = request.map_err(kube::Error::BuildRequest)?;
            let body = std::pin::pin!(self.cluster.client.request_stream(request).await?);
            let mut text = Vec::new();
            body.take(MAX_PAGE_BYTES + 1).read_to_end(&mut text).await.map_err(kube::Error::ReadEvents)?;
            if text.len() as u64 > MAX_PAGE_BYTES {
                return Ok(None);
            }
            serde_json::from_slice(&text).map(Some).map_err(kube::Error::SerdeError)
        };
        self.cluster.call(Operation::ListExecutions, target, read).await
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    /// The API server sends `null` for an empty list of metadata.
    #[serde(default)]
    items: Option<Vec<RawRow>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawRow {
    metadata: RawMetadata,
    #[serde(default)]
    status: Option<RawStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata {
    name: String,
    uid: String,
    creation_timestamp: Time,
}

/// Status with untyped fields, so that a value that this version does not know affects no other execution.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStatus {
    #[serde(default)]
    phase: Value,
    #[serde(default)]
    reason: Value,
    #[serde(default)]
    duration_ms: Value,
}

impl RawRow {
    fn into_row(self, content: RowContent) -> ExecutionRow {
        let Self { metadata, status } = self;
        let status = status.unwrap_or(RawStatus { phase: Value::Null, reason: Value::Null, duration_ms: Value::Null });
        ExecutionRow {
            name: metadata.name,
            uid: metadata.uid,
            created: metadata.creation_timestamp.0,
            phase: match status.phase {
                Value::Null => (content == RowContent::Status).then_some(Phase::default()),
                phase => known(phase),
            },
            reason: known(status.reason),
            duration_ms: status.duration_ms.as_i64(),
        }
    }
}

fn known<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn several_phases_are_selected_by_the_exclusion_of_all_others() {
        let selector = |machine: Option<&str>, phases: Option<&[Phase]>| {
            let (machine, phases) = (machine.map(str::to_owned), phases.map(<[Phase]>::to_vec));
            ExecutionSelection { namespace: "ops".to_owned(), machine, phases }.field_selector()
        };
        assert_eq!(selector(None, None), "");
        assert_eq!(selector(Some("web-1"), None), "spec.machineRef.name=web-1");
        assert_eq!(selector(Some("web-1"), Some(&[Phase::Running])), "spec.machineRef.name=web-1,status.phase=Running");
        let pending = selector(None, Some(&[Phase::Pending]));
        assert_eq!(pending.matches("status.phase!=").count(), Phase::ALL.len() - 1);
        assert!(!pending.contains("=Pending"), "{pending}");
        let two = selector(None, Some(&[Phase::Succeeded, Phase::Failed]));
        assert!(two.contains("status.phase!=Pending,") && !two.contains("=Succeeded") && !two.contains("=Failed"));
    }

    #[test]
    fn an_unknown_phase_affects_no_other_row_of_the_page() {
        let metadata = |name: &str| json!({"name": name, "uid": "u", "creationTimestamp": "2026-11-30T10:00:00Z"});
        let items = json!([
            {"metadata": metadata("a"), "spec": {"machineRef": {"name": "web-1"}}},
            {"metadata": metadata("b"), "status": {"phase": "Paused", "reason": 7, "durationMs": "x", "stdout": "y"}},
            {"metadata": metadata("c"), "status": {"phase": "Failed", "reason": "NonZeroExitCode", "durationMs": 12}},
        ]);
        let page = json!({"kind": "CommandExecutionList", "metadata": {"continue": "x"}, "items": items});
        let page: Page = serde_json::from_value(page).unwrap();
        assert_eq!(page.metadata.next.as_deref(), Some("x"));
        let rows: Vec<ExecutionRow> =
            page.items.unwrap().into_iter().map(|raw| raw.into_row(RowContent::Status)).collect();
        assert_eq!((rows[0].phase, rows[1].phase), (Some(Phase::Pending), None));
        assert_eq!((rows[1].reason, rows[1].duration_ms), (None, None));
        assert_eq!((rows[2].phase, rows[2].duration_ms), (Some(Phase::Failed), Some(12)));
        assert_eq!(rows[2].reason, Some(Reason::NonZeroExitCode));
        assert_eq!(rows[2].created, "2026-11-30T10:00:00Z".parse().unwrap());
    }

    #[test]
    fn an_empty_list_of_metadata_has_no_items() {
        for text in [r#"{"metadata": {"resourceVersion": "1"}, "items": null}"#, r#"{"items": []}"#, "{}"] {
            let page: Page = serde_json::from_str(text).unwrap();
            assert!(page.items.unwrap_or_default().is_empty() && page.metadata.next.is_none(), "{text}");
        }
    }
}
