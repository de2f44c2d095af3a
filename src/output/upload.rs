//! Upload of a large output into the store, while the command runs.
//!
//! ```text
//! Upload --follow(stream)--> task: reads the live streams by offset, parts one after the other --> store
//!        --finish(digests)-> reads the rest, sends the last part, names each object after its digest --> result
//! ```
//!
//! # Guarantees
//!
//! 1. With a spill file, a slow store delays no command. Without a spill file, the command waits at most 3 s for the
//!    store. After this wait, Writ gives up the upload.
//! 2. The result waits at most 10 min for the store, at most 60 s without a finished part, and at most 2 s after Writ
//!    starts to shut down.
//! 3. Memory holds at most 18 MiB: for each stream, a part (5 MiB for a bucket, 1 MiB for a directory) and at most
//!    4 MiB that the upload has not read yet.
//! 4. Output that is not stored within these bounds is recorded as not stored, with the reason.
//! 5. An upload that is dropped deletes its parts.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::live::{GapReason, Piece, StreamReader};
use super::object_upload::ObjectUpload;
use super::store::{Store, StoreError};
use super::{OutputKey, PerStream, StreamKind};

/// Interval between checks for a finished part, while a result waits for the store.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of queued [`UploadCommand`]s: one `Follow` for each of the two streams, and one `Finish`.
const MAX_COMMANDS: usize = 3;

/// Limits of the waits for the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadTimeouts {
    /// Maximum wait for free memory. During this wait Writ does not read the command's output, and an SSH connection
    /// fails after 15 s without reads.
    pub buffer: Duration,
    /// Maximum time for which [`Upload::finish`] waits without a finished part.
    pub finish: Duration,
    /// Maximum total time for which [`Upload::finish`] waits. During this wait the execution holds its slot on the
    /// machine.
    pub finish_in_all: Duration,
    /// Maximum time for which [`Upload::finish`] still waits after Writ starts to shut down.
    pub shutdown: Duration,
}

impl Default for UploadTimeouts {
    fn default() -> Self {
        Self {
            buffer: Duration::from_secs(3),
            finish: Duration::from_secs(60),
            finish_in_all: Duration::from_secs(600),
            shutdown: Duration::from_secs(2),
        }
    }
}

/// Reason why an output is not in the store. Its text is shown in the status.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NotStored {
    #[error("the output store did not take it in time")]
    TooSlow,
    #[error("the output store failed; writ's log has its words")]
    Failed,
    #[error("the output store takes at most 5 GB of a stream")]
    TooLarge,
    #[error("writ was stopped before it was stored")]
    Abandoned,
    #[error("the output store was slower than the command, and the spill files were full; raise --spill-bytes")]
    SpillFull,
    #[error("writ could not read back its spill file; check the disk of its state directory")]
    SpillUnreadable,
}

/// SHA-256 of each stream that must be stored.
pub(super) type Digests = PerStream<Option<String>>;

/// Handle of the upload. The upload starts no task before a stream is followed.
#[derive(Debug)]
pub(super) struct Upload {
    store: Store,
    key: OutputKey,
    timeouts: UploadTimeouts,
    is_following: PerStream<bool>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No stream is followed yet.
    Idle,
    /// The task follows streams.
    Active {
        commands: mpsc::Sender<UploadCommand>,
        /// Reason why the task ended early.
        ended: Arc<OnceLock<NotStored>>,
        /// Number of finished parts.
        parts: Arc<AtomicU64>,
    },
    /// Nothing will be stored.
    Abandoned(NotStored),
}

#[derive(Debug)]
enum UploadCommand {
    Follow(StreamKind, StreamReader),
    Finish(Digests, oneshot::Sender<Result<(), NotStored>>),
}

impl Upload {
    pub fn new(store: Store, key: OutputKey, timeouts: UploadTimeouts) -> Self {
        Self { store, key, timeouts, is_following: PerStream::default(), state: State::Idle }
    }

    /// Returns the store, the key and the limits, for another upload of the same execution.
    pub fn target(&self) -> (Store, OutputKey, UploadTimeouts) {
        (self.store.clone(), self.key.clone(), self.timeouts)
    }

    /// Returns the maximum time for which the command waits for free memory.
    pub fn buffer_timeout(&self) -> Duration {
        self.timeouts.buffer
    }

    /// Returns true if the upload follows this stream.
    pub fn is_following(&self, stream: StreamKind) -> bool {
        *self.is_following.of(stream)
    }

    /// Stores a stream, from its first byte on.
    pub fn follow(&mut self, stream: StreamKind, reader: StreamReader) {
        *self.is_following.of_mut(stream) = true;
        if let State::Idle = self.state {
            self.state = start(self.store.clone(), self.key.clone());
        }
        let State::Active { commands, .. } = &self.state else { return };
        // The channel has space for every command, so this call fails only if the task has ended. `finish` then returns
        // the reason.
        let _ = commands.try_send(UploadCommand::Follow(stream, reader));
    }

    /// Ends the upload without a stored output, because the store is too slow.
    pub fn give_up(&mut self) {
        if !matches!(self.state, State::Abandoned(_)) {
            // The assignment drops the sender of the task's commands. The task then ends and deletes its parts.
            self.state = State::Abandoned(NotStored::TooSlow);
        }
    }

    /// Stores the followed streams, each under its digest. After `shutdown` is ready, waits at most another
    /// `UploadTimeouts::shutdown`.
    pub async fn finish(self, digests: Digests, shutdown: impl Future<Output = ()>) -> Result<(), NotStored> {
        let result = self.finish_in_time(digests, shutdown).await;
        if let Err(problem) = &result {
            tracing::warn!(namespace = self.key.namespace, uid = self.key.uid, error = %problem, "output not stored");
        }
        result
    }

    async fn finish_in_time(&self, digests: Digests, shutdown: impl Future<Output = ()>) -> Result<(), NotStored> {
        let timeouts = self.timeouts;
        let (ended, parts) = match &self.state {
            State::Active { ended, parts, .. } => (ended, parts),
            State::Abandoned(problem) => return Err(problem.clone()),
            State::Idle => return Err(NotStored::Failed),
        };
        let problem = || ended.get().cloned().unwrap_or(NotStored::Failed);
        let (answer, mut answered) = oneshot::channel();
        let State::Active { commands, .. } = &self.state else { return Err(problem()) };
        if commands.try_send(UploadCommand::Finish(digests, answer)).is_err() {
            return Err(problem());
        }
        let no_time_left = async {
            shutdown.await;
            tokio::time::sleep(timeouts.shutdown).await;
        };
        let mut no_time_left = std::pin::pin!(no_time_left);
        let last = Instant::now() + timeouts.finish_in_all;
        let (mut progress, mut finished) = (Instant::now(), parts.load(Ordering::Relaxed));
        loop {
            let next = (progress + timeouts.finish).min(last).min(Instant::now() + PROGRESS_INTERVAL);
            tokio::select! {
                result = &mut answered => return result.unwrap_or_else(|_| Err(problem())),
                () = &mut no_time_left => return Err(NotStored::Abandoned),
                () = tokio::time::sleep_until(next) => {
                    let (now, now_finished) = (Instant::now(), parts.load(Ordering::Relaxed));
                    if now_finished != finished {
                        (progress, finished) = (now, now_finished);
                    }
                    if now >= last || now >= progress + timeouts.finish {
                        return Err(NotStored::TooSlow);
                    }
                }
            }
        }
    }
}

fn start(store: Store, key: OutputKey) -> State {
    let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
    let (ended, parts) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
    let task = Task::new(store, key, &parts);
    tokio::spawn(task.run(receiver, Arc::clone(&ended)));
    State::Active { commands, ended, parts }
}

/// Task of the upload. The task runs separately, so that Writ can read the command's output while the store receives a
/// part.
struct Task {
    store: Store,
    key: OutputKey,
    streams: PerStream<Stream>,
}

/// The upload of one stream.
struct Stream {
    /// The source. `None` if the stream is not stored, or has been read to its end.
    reader: Option<StreamReader>,
    /// Number of bytes that were read.
    bytes: u64,
    object: ObjectUpload,
}

impl Task {
    fn new(store: Store, key: OutputKey, parts: &Arc<AtomicU64>) -> Self {
        let stream = |kind: StreamKind| {
            let (store, key) = (store.clone(), key.clone());
            let part_bytes = store.part_bytes();
            let object = ObjectUpload::new(store, key, kind.as_str(), part_bytes, Arc::clone(parts));
            Stream { reader: None, bytes: 0, object }
        };
        let streams = PerStream { stdout: stream(StreamKind::Stdout), stderr: stream(StreamKind::Stderr) };
        Self { store, key, streams }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<UploadCommand>, ended: Arc<OnceLock<NotStored>>) {
        let Err(problem) = self.follow(&mut commands).await else { return };
        let _ = ended.set(problem);
        // From now on commands to the task fail at once, and memory keeps no bytes for this upload.
        drop(commands);
        for stream in StreamKind::ALL {
            self.streams.of_mut(stream).reader = None;
        }
        self.clean_up().await;
    }

    async fn follow(&mut self, commands: &mut mpsc::Receiver<UploadCommand>) -> Result<(), NotStored> {
        loop {
            match self.next_command(commands).await? {
                UploadCommand::Follow(stream, reader) => self.streams.of_mut(stream).reader = Some(reader),
                UploadCommand::Finish(digests, mut answer) => {
                    let result = tokio::select! {
                        result = self.complete(&digests) => result,
                        () = answer.closed() => Err(NotStored::Abandoned),
                    };
                    let _ = answer.send(result.clone());
                    return result;
                }
            }
        }
    }

    /// Reads the streams until a command arrives, and returns this command.
    async fn next_command(&mut self, commands: &mut mpsc::Receiver<UploadCommand>) -> Result<UploadCommand, NotStored> {
        loop {
            match commands.try_recv() {
                Ok(command) => return Ok(command),
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(NotStored::Abandoned),
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            if self.read_once().await? {
                continue;
            }
            let PerStream { stdout, stderr } = &mut self.streams;
            tokio::select! {
                command = commands.recv() => return command.ok_or(NotStored::Abandoned),
                () = changed(&mut stdout.reader) => {}
                () = changed(&mut stderr.reader) => {}
            }
        }
    }

    /// Reads the next piece of each stream. Returns false if no stream has a piece now.
    async fn read_once(&mut self) -> Result<bool, NotStored> {
        let mut has_read = false;
        for kind in StreamKind::ALL {
            let Some(reader) = &mut self.streams.of_mut(kind).reader else { continue };
            match reader.next_piece().await {
                Piece::Bytes(bytes) => {
                    self.append(kind, bytes).await?;
                    has_read = true;
                }
                Piece::Later => {}
                Piece::End => self.streams.of_mut(kind).reader = None,
                Piece::Missing(GapReason::SpillBudget) => return Err(NotStored::SpillFull),
                Piece::Missing(GapReason::DiskFailed) => return Err(NotStored::SpillUnreadable),
                Piece::Missing(_) => return Err(NotStored::TooSlow),
            }
        }
        Ok(has_read)
    }

    async fn append(&mut self, kind: StreamKind, bytes: Bytes) -> Result<(), NotStored> {
        let stream = self.streams.of_mut(kind);
        stream.bytes = stream.bytes.saturating_add(bytes.len() as u64);
        if self.store.max_bytes().is_some_and(|max| stream.bytes > max) {
            return Err(NotStored::TooLarge);
        }
        stream.object.append(bytes).await.map_err(|error| not_stored(&self.key, &error))
    }

    /// Reads the streams to their ends, and gives each object its final name.
    async fn complete(&mut self, digests: &Digests) -> Result<(), NotStored> {
        for kind in StreamKind::ALL {
            if digests.of(kind).is_none() {
                self.streams.of_mut(kind).reader = None;
            }
        }
        while self.read_once().await? {}
        for kind in StreamKind::ALL {
            if let Some(sha256) = digests.of(kind) {
                let object = &mut self.streams.of_mut(kind).object;
                object.complete(sha256).await.map_err(|error| not_stored(&self.key, &error))?;
            }
        }
        Ok(())
    }

    async fn clean_up(mut self) {
        for kind in StreamKind::ALL {
            self.streams.of_mut(kind).object.discard().await;
        }
    }
}

/// Logs a failure of the store, and returns the reason for the record.
pub(super) fn not_stored(key: &OutputKey, error: &StoreError) -> NotStored {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    tracing::warn!(namespace = key.namespace, uid = key.uid, error = words, "output store failed");
    if matches!(error, StoreError::TooSlow { .. }) { NotStored::TooSlow } else { NotStored::Failed }
}

/// Waits until a reader can have more bytes. Waits for ever if there is no reader.
async fn changed(reader: &mut Option<StreamReader>) {
    match reader {
        Some(reader) => reader.changed().await,
        None => std::future::pending().await,
    }
}
