//! Access to live output: claims, viewers and single reads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{OutputKey, StreamKind};
use super::claim::LiveClaim;
use super::entry::{Entry, ReadStep};
use super::registry::{Registry, SubscribeError, Times};
use super::spill_queue::SpillQueue;
use super::spill_thread::{self, WriteAt};
use super::viewer::Viewer;
use super::{GapReason, LiveOptions, StreamOffsets};

/// Handle of the live registry, which has all executions that viewers can watch. Clones share the registry.
#[derive(Clone, Debug)]
pub struct LiveOutput {
    registry: Arc<Registry>,
}

/// Memory, disk space and viewers of live output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LiveUsage {
    /// Number of bytes in memory.
    pub memory_bytes: u64,
    /// Number of bytes in spill files.
    pub spill_bytes: u64,
    /// Number of viewers, including viewers that wait for an execution that does not exist yet.
    pub viewers: u64,
}

impl Default for LiveOutput {
    /// Creates a registry that keeps no files.
    fn default() -> Self {
        Self::with(None, Times::default())
    }
}

impl LiveOutput {
    /// Creates a registry that keeps large outputs in files.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn start(options: &LiveOptions) -> io::Result<Self> {
        Self::start_with(options, Box::new(std::os::unix::fs::FileExt::write_all_at))
    }

    pub(super) fn start_with(options: &LiveOptions, write: WriteAt) -> io::Result<Self> {
        Ok(Self::with(Some(spill_thread::start(options, write)?), Times::default()))
    }

    pub(super) fn with(spill: Option<Arc<SpillQueue<Entry>>>, times: Times) -> Self {
        Self { registry: Arc::new(Registry::new(spill, times)) }
    }

    /// Watches the newest execution with this namespace and name. If there is no such execution, the viewer waits up to
    /// 15 minutes for the claim of such an execution. The UID in [`super::LiveEvent::Claimed`] identifies the
    /// execution.
    ///
    /// # Errors
    /// [`SubscribeError::TooManyViewers`] and [`SubscribeError::TooManyNames`].
    pub fn subscribe(&self, namespace: &str, name: &str, from: StreamOffsets) -> Result<Viewer, SubscribeError> {
        Ok(self.view(self.registry.enter(namespace, name)?, from))
    }

    /// Watches an execution that this process runs, or ran within the last 60 s.
    ///
    /// # Errors
    /// [`SubscribeError::NotHere`] and [`SubscribeError::TooManyViewers`].
    pub fn subscribe_uid(&self, uid: &str, from: StreamOffsets) -> Result<Viewer, SubscribeError> {
        Ok(self.view(self.registry.enter_uid(uid)?, from))
    }

    fn view(&self, entry: Arc<Entry>, from: StreamOffsets) -> Viewer {
        let expires = Instant::now() + self.registry.times().expected_for;
        Viewer::new(Arc::clone(&self.registry), entry, from, expires)
    }

    /// Publishes a claim that the API server stored. Viewers can follow the execution until the returned value is
    /// dropped.
    pub fn claimed(&self, key: OutputKey, name: &str, is_adopted: bool) -> LiveClaim {
        LiveClaim::new(&self.registry, key, name, is_adopted)
    }

    /// Reads at most `max_bytes` of a stream, from an offset on. Returns `None` if this process does not run the
    /// execution and did not run it within the last 60 s.
    pub async fn read(&self, uid: &str, stream: StreamKind, offset: u64, max_bytes: usize) -> Option<LiveRead> {
        let entry = self.registry.find(uid)?;
        loop {
            return Some(match entry.find(stream, None, offset, max_bytes) {
                ReadStep::Bytes(bytes) => LiveRead::Bytes(bytes),
                ReadStep::Gap { to, reason } => LiveRead::Gap { to, reason },
                ReadStep::Nothing { is_complete } => LiveRead::Nothing { is_complete },
                ReadStep::File(read) => match entry.read_file(&read).await {
                    (Some(bytes), _) => LiveRead::Bytes(bytes),
                    (None, true) => LiveRead::Gap { to: offset + read.length as u64, reason: GapReason::DiskFailed },
                    (None, false) => continue,
                },
            });
        }
    }

    /// Returns namespace and name of an execution that this process runs, or ran within the last 60 s.
    pub fn name_of(&self, uid: &str) -> Option<(String, String)> {
        self.registry.find(uid).map(|entry| (entry.namespace.clone(), entry.name.clone()))
    }

    /// Returns the lengths of both streams of an execution that this process runs, or ran within the last 60 s.
    pub fn lengths(&self, uid: &str) -> Option<StreamOffsets> {
        let entry = self.registry.find(uid)?;
        let state = entry.state();
        Some(StreamOffsets { stdout: state.streams.stdout.end(), stderr: state.streams.stderr.end() })
    }

    /// Returns the memory, the disk space and the number of viewers of live output.
    pub fn usage(&self) -> LiveUsage {
        let shared = self.registry.shared();
        LiveUsage {
            memory_bytes: shared.memory.load(Ordering::Relaxed) as u64,
            spill_bytes: shared.spill.as_ref().map_or(0, |spill| spill.used()),
            viewers: self.registry.viewers(),
        }
    }

    /// Returns the number of bytes that became unreadable for viewers since the last call, by reason.
    pub fn take_lost(&self) -> Vec<(GapReason, u64)> {
        self.registry.shared().take_lost()
    }
}

/// Result of a read at an offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LiveRead {
    /// Bytes from the offset on.
    Bytes(Bytes),
    /// The bytes from the requested offset up to `to` are no longer stored.
    Gap {
        /// Offset of the next stored byte.
        to: u64,
        /// Cause.
        reason: GapReason,
    },
    /// The stream has not reached the requested offset.
    Nothing {
        /// True if the stream has ended and never reaches this offset.
        is_complete: bool,
    },
}
