//! Waits for the end of an execution, without polling: the runner of this process reports a stored result, and the watch
//! reports every other end.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::CommandExecution;
use crate::cluster::ClusterError;
use crate::output::{LiveEvent, StreamOffsets, Viewer};

use super::ends::EndNotice;
use super::error::ApiError;
use super::state::Gateway;

/// Time before the end of a wait in which the execution is read a last time, so that the answer is in time.
const LAST_READ: Duration = Duration::from_millis(20);

/// Pause before the next read if the API server did not answer.
const READ_RETRY: Duration = Duration::from_millis(250);

/// Subscription to the end of an execution. Create it before the execution, so that no end is missed.
pub struct EndWatch {
    /// Events of the runner of this process. `None` if there are too many viewers. The watch then reports the end.
    viewer: Option<Viewer>,
    notice: EndNotice,
    /// True if the end was reported already, but the execution could not be read.
    is_reported: bool,
}

impl Gateway {
    /// Subscribes to the end of an execution that perhaps does not exist yet.
    pub fn watch_end(&self, namespace: &str, name: &str) -> EndWatch {
        // A viewer at the end of both streams receives no output.
        let end = StreamOffsets { stdout: u64::MAX, stderr: u64::MAX };
        // With too many viewers, the watch alone reports the end.
        let viewer = self.live().subscribe(namespace, name, end).ok();
        EndWatch { viewer, notice: self.ends().expect(namespace, name), is_reported: false }
    }

    /// Waits until the execution has ended, at most until `deadline`, and returns it as it is then.
    ///
    /// # Errors
    /// 500 with `may_have_run` if the execution could not be read, 404 if it was deleted.
    pub async fn wait_for_end(
        &self,
        namespace: &str,
        name: &str,
        mut watch: EndWatch,
        deadline: Instant,
    ) -> Result<CommandExecution, ApiError> {
        loop {
            let is_over = tokio::time::timeout_at(deadline - LAST_READ, watch.wait()).await.is_err();
            match self.cluster().execution(namespace, name).await {
                Ok(execution) if execution.phase().is_finished() || is_over => return Ok(execution),
                Ok(_) => {}
                Err(ClusterError::NotFound { .. }) => {
                    return Err(ApiError::command_not_found(&super::names::command_id(namespace, name)));
                }
                Err(error) if is_over => {
                    tracing::warn!(namespace, name, %error, "end of an execution not readable");
                    return Err(ApiError::outcome_unknown().about(namespace, name));
                }
                // A fault of the API server. The end was reported, so another read shows it.
                Err(error) => {
                    tracing::debug!(namespace, name, %error, "ended execution not readable yet");
                    tokio::time::sleep(READ_RETRY).await;
                    watch.is_reported = true;
                }
            }
        }
    }
}

impl EndWatch {
    /// Returns the subscription without its viewer, so that many calls for one execution leave its places for viewers
    /// free. The watch reports the end a moment later.
    #[must_use]
    pub fn without_viewer(self) -> Self {
        Self { viewer: None, ..self }
    }

    /// Waits until the execution has perhaps ended.
    async fn wait(&mut self) {
        if std::mem::take(&mut self.is_reported) {
            return;
        }
        let Some(viewer) = &mut self.viewer else { return self.notice.wait().await };
        loop {
            tokio::select! {
                () = self.notice.wait() => return,
                event = viewer.next() => match event {
                    Some(LiveEvent::Ended(_)) => {
                        self.viewer = None;
                        return;
                    }
                    // Another process has the claim now, so only the watch reports the end.
                    Some(LiveEvent::Released | LiveEvent::Expired) | None => {
                        self.viewer = None;
                        return self.notice.wait().await;
                    }
                    Some(_) => {}
                },
            }
        }
    }
}
