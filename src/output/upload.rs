//! The way of a large output into the store, while the command runs.
//!
//! The promises kept here: whoever pushes waits at most 3 s for room, and after that no more ever; the end waits at most
//! 60 s, and 2 s once it is told to hurry; at most 16 MiB are held (two parts of 5 MiB, of which one may be on its way,
//! and 4 MiB before them). What is not stored in these bounds is not stored, and the record says so. An upload that is
//! dropped, as when its output comes anew from the start, cleans up behind itself.
//!
//! ```text
//! Upload --orders, at most 64 of 64 KiB--> task: parts of 5 MiB, one after the other --> store
//!    finish(digests) ------------------------> last part, complete, rename to the digest --> answer
//! ```

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload};
use tokio::sync::{mpsc, oneshot};

use super::store::{Store, StoreError};
use super::{Both, Owner, StreamKind};

/// The size of a part. S3 takes at least 5 MiB (but for the last), and 10,000 of them.
const PART_BYTES: usize = 5 << 20;
/// The largest piece that waits for the task, and how many may: 4 MiB are room for a store that pauses for a moment.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 64;

/// How long the store may take, as those see it who wait for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For room; the command's output is not read meanwhile, and its connection lives for 15 s without that.
    pub room: Duration,
    /// For the end, from the last byte to the stored object.
    pub end: Duration,
    /// For the end, once there is no time left.
    pub hurry: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { room: Duration::from_secs(3), end: Duration::from_secs(60), hurry: Duration::from_secs(2) }
    }
}

/// Why an output is not in the store; its words go into the status.
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
}

/// What the two digests are of: for each stream that is to be stored, its SHA-256.
pub(super) type Digests = Both<Option<String>>;

/// The near end. Costs nothing until the first byte.
#[derive(Debug)]
pub(super) struct Upload {
    store: Store,
    owner: Owner,
    patience: Patience,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was pushed yet.
    Idle,
    /// The task has what was pushed.
    Going {
        orders: mpsc::Sender<Order>,
        /// Why the task has ended, where it did before its time.
        ended: Arc<OnceLock<NotStored>>,
    },
    /// It will not be stored.
    GivenUp(NotStored),
}

#[derive(Debug)]
enum Order {
    Bytes(StreamKind, Bytes),
    Finish(Digests, oneshot::Sender<Result<(), NotStored>>),
}

impl Upload {
    pub(super) fn new(store: Store, owner: Owner, patience: Patience) -> Self {
        Self { store, owner, patience, state: State::Idle }
    }

    /// Takes the next bytes of a stream. Waits for room, but not for long.
    pub(super) async fn push(&mut self, kind: StreamKind, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES) {
            if let Err(problem) = self.order(Order::Bytes(kind, Bytes::copy_from_slice(piece))).await {
                self.give_up(problem);
                return;
            }
        }
    }

    /// Stores what was pushed under these digests. Told to `hurry`, it gives up soon.
    pub(super) async fn finish(mut self, digests: Digests, hurry: impl Future<Output = ()>) -> Result<(), NotStored> {
        let patience = self.patience;
        let (answer, answered) = oneshot::channel();
        let stored = async {
            self.order(Order::Finish(digests, answer)).await?;
            match answered.await {
                Ok(result) => result,
                Err(_) => Err(self.problem()),
            }
        };
        let no_time_left = async {
            hurry.await;
            tokio::time::sleep(patience.hurry).await;
        };
        let result = tokio::select! {
            stored = tokio::time::timeout(patience.end, stored) => stored.unwrap_or(Err(NotStored::TooSlow)),
            () = no_time_left => Err(NotStored::Abandoned),
        };
        if let Err(problem) = &result {
            tracing::warn!(namespace = self.owner.namespace, uid = self.owner.uid, error = %problem, "an output is not stored");
        }
        result
    }

    async fn order(&mut self, order: Order) -> Result<(), NotStored> {
        if let State::Idle = self.state {
            self.state = start(self.store.clone(), self.owner.clone());
        }
        let State::Going { orders, .. } = &self.state else { return Err(self.problem()) };
        match tokio::time::timeout(self.patience.room, orders.send(order)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.problem()),
            Err(_) => Err(NotStored::TooSlow),
        }
    }

    fn give_up(&mut self, problem: NotStored) {
        if !matches!(self.state, State::GivenUp(_)) {
            // The task sees that nobody is there any more, and cleans up.
            self.state = State::GivenUp(problem);
        }
    }

    fn problem(&self) -> NotStored {
        match &self.state {
            State::GivenUp(problem) => problem.clone(),
            State::Going { ended, .. } => ended.get().cloned().unwrap_or(NotStored::Failed),
            State::Idle => NotStored::Failed,
        }
    }
}

fn start(store: Store, owner: Owner) -> State {
    let (orders, receiver) = mpsc::channel(PIECES);
    let ended = Arc::new(OnceLock::new());
    let task = Task { store, owner, streams: Both::default() };
    tokio::spawn(task.run(receiver, Arc::clone(&ended)));
    State::Going { orders, ended }
}

/// The far end: a task of its own, so that the command is drained while a part is under way.
struct Task {
    store: Store,
    owner: Owner,
    streams: Both<Stream>,
}

/// What the task has of one stream.
#[derive(Default)]
struct Stream {
    /// The part at hand; all of it, where it is small.
    buffer: Vec<u8>,
    /// How much has come.
    bytes: u64,
    /// What is under way.
    upload: Option<Box<dyn MultipartUpload>>,
    /// Where it is, until it has its name.
    partial: Option<Path>,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, ended: Arc<OnceLock<NotStored>>) {
        let Err(problem) = self.follow(&mut orders).await else { return };
        let _ = ended.set(problem);
        // From here on whoever pushes is told at once.
        drop(orders);
        self.clean_up().await;
    }

    async fn follow(&mut self, orders: &mut mpsc::Receiver<Order>) -> Result<(), NotStored> {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Bytes(kind, bytes) => self.take(kind, &bytes).await?,
                Order::Finish(digests, mut answer) => {
                    let result = tokio::select! {
                        result = self.complete(&digests) => result,
                        () = answer.closed() => Err(NotStored::Abandoned),
                    };
                    let _ = answer.send(result.clone());
                    return result;
                }
            }
        }
        Err(NotStored::Abandoned)
    }

    async fn take(&mut self, kind: StreamKind, mut bytes: &[u8]) -> Result<(), NotStored> {
        let stream = self.streams.of_mut(kind);
        stream.bytes = stream.bytes.saturating_add(bytes.len() as u64);
        if self.store.maximum_bytes().is_some_and(|maximum| stream.bytes > maximum) {
            return Err(NotStored::TooLarge);
        }
        while !bytes.is_empty() {
            let stream = self.streams.of_mut(kind);
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - stream.buffer.len()));
            stream.keep(now);
            bytes = later;
            if stream.buffer.len() == PART_BYTES {
                self.send_part(kind).await.map_err(|error| self.failed(&error))?;
            }
        }
        Ok(())
    }

    async fn send_part(&mut self, kind: StreamKind) -> Result<(), StoreError> {
        if StreamKind::BOTH.iter().all(|kind| self.streams.of(*kind).partial.is_none()) {
            self.store.remove_partials(&self.owner).await?;
        }
        let stream = self.streams.of_mut(kind);
        let mut upload = match stream.upload.take() {
            Some(upload) => upload,
            None => {
                let (partial, upload) = self.store.begin(&self.owner, kind).await?;
                stream.partial = Some(partial);
                upload
            }
        };
        let part = upload.put_part(PutPayload::from(std::mem::take(&mut stream.buffer)));
        stream.upload = Some(upload);
        self.store.in_time("write a part", part).await
    }

    async fn complete(&mut self, digests: &Digests) -> Result<(), NotStored> {
        for kind in StreamKind::BOTH {
            if let Some(sha256) = digests.of(kind) {
                self.complete_stream(kind, sha256).await.map_err(|error| self.failed(&error))?;
            }
        }
        Ok(())
    }

    async fn complete_stream(&mut self, kind: StreamKind, sha256: &str) -> Result<(), StoreError> {
        let stream = self.streams.of_mut(kind);
        if stream.upload.is_none() {
            return self.store.put(&self.owner, sha256, std::mem::take(&mut stream.buffer)).await;
        }
        if !stream.buffer.is_empty() {
            self.send_part(kind).await?;
        }
        let stream = self.streams.of_mut(kind);
        if let Some(upload) = stream.upload.as_mut() {
            self.store.in_time("finish", upload.complete()).await?;
            stream.upload = None;
        }
        if let Some(partial) = &stream.partial {
            self.store.rename(&self.owner, partial, sha256).await?;
            stream.partial = None;
        }
        Ok(())
    }

    fn failed(&self, error: &StoreError) -> NotStored {
        let mut words = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            words.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        tracing::warn!(
            namespace = self.owner.namespace,
            uid = self.owner.uid,
            error = words,
            "an output cannot be stored"
        );
        if matches!(error, StoreError::TooSlow { .. }) { NotStored::TooSlow } else { NotStored::Failed }
    }

    /// As far as it goes: what is left is removed with the execution.
    async fn clean_up(mut self) {
        for kind in StreamKind::BOTH {
            let stream = self.streams.of_mut(kind);
            stream.buffer = Vec::new();
            if let Some(mut upload) = stream.upload.take() {
                let _ = self.store.in_time("abort", upload.abort()).await;
            } else if let Some(partial) = &stream.partial {
                let _ = self.store.delete(partial).await;
            }
        }
    }
}

impl Stream {
    /// Grows like any vector, but never over a part.
    fn keep(&mut self, bytes: &[u8]) {
        let needed = self.buffer.len() + bytes.len();
        if needed > self.buffer.capacity() {
            let capacity = needed.max(self.buffer.capacity().saturating_mul(2)).min(PART_BYTES);
            self.buffer.reserve_exact(capacity - self.buffer.len());
        }
        self.buffer.extend_from_slice(bytes);
    }
}
