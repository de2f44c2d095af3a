//! Upload of the recording of a session, while the session runs.
//!
//! # Guarantees
//!
//! 1. A slow store delays the session by at most 3 s for each 64 KiB of the recording. After this wait, Writ gives up
//!    the upload.
//! 2. Memory holds at most about 1 MiB if the store is a directory. A bucket needs parts of 5 MiB, so that memory then
//!    holds at most about 6 MiB.
//! 3. A recording of at most 64 KiB needs no task, and one call to the store.
//! 4. An upload that is dropped deletes its parts.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::OutputKey;
use super::object_upload::ObjectUpload;
use super::store::Store;
use super::upload::{NotStored, UploadTimeouts, not_stored};

/// Maximum size of the pieces that the task receives, in bytes.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Maximum number of pieces that wait for the task. The task reads them while the store takes no part.
const MAX_PIECES: usize = 2;
/// Beginning of the temporary name of a recording.
const NAME: &str = "recording";

/// Upload of one recording.
#[derive(Debug)]
pub(super) struct RecordingUpload {
    store: Store,
    key: OutputKey,
    timeouts: UploadTimeouts,
    /// Lines for the task. They are here during the wait, so that a caller that drops its wait loses no line.
    pending: BytesMut,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was sent yet.
    Idle,
    /// The task sends the recording.
    Active {
        commands: mpsc::Sender<Command>,
        /// Reason why the task ended early.
        ended: Arc<OnceLock<NotStored>>,
    },
    /// Nothing will be stored.
    Abandoned(NotStored),
}

/// Command to the task of the upload.
enum Command {
    /// The next lines.
    Lines(Bytes),
    /// The end: the digest of the recording.
    Finish(String, oneshot::Sender<Result<(), NotStored>>),
}

impl RecordingUpload {
    /// Prepares the upload. Makes no call to the store.
    pub fn new(store: Store, key: OutputKey, timeouts: UploadTimeouts) -> Self {
        Self { store, key, timeouts, pending: BytesMut::new(), state: State::Idle }
    }

    /// Sends the next lines. Waits until the task takes them.
    pub async fn push(&mut self, lines: &[u8]) {
        self.pending.extend_from_slice(lines);
        while !self.pending.is_empty() {
            if let State::Idle = self.state {
                self.state = start(self.object(), self.key.clone());
            }
            let State::Active { commands, ended } = &self.state else { return self.pending.clear() };
            let problem = match timeout(self.timeouts.buffer, commands.reserve()).await {
                Ok(Ok(place)) => {
                    let length = self.pending.len().min(PIECE_BYTES);
                    place.send(Command::Lines(self.pending.split_to(length).freeze()));
                    continue;
                }
                Ok(Err(_)) => ended.get().cloned().unwrap_or(NotStored::Failed),
                Err(_) => NotStored::TooSlow,
            };
            // The assignment drops the sender of the task's commands. The task then ends and deletes its parts.
            self.state = State::Abandoned(problem);
        }
    }

    /// Sends the last lines, and stores the recording under its digest. After `shutdown` is ready, waits at most
    /// another `UploadTimeouts::shutdown`.
    pub async fn finish(
        mut self,
        rest: &[u8],
        sha256: &str,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NotStored> {
        let UploadTimeouts { finish, shutdown: after_shutdown, .. } = self.timeouts;
        let no_time_left = async {
            shutdown.await;
            tokio::time::sleep(after_shutdown).await;
        };
        let result = tokio::select! {
            result = self.complete(rest, sha256) => result,
            () = no_time_left => Err(NotStored::Abandoned),
            () = tokio::time::sleep(finish) => Err(NotStored::TooSlow),
        };
        if let Err(problem) = &result {
            let OutputKey { namespace, uid } = &self.key;
            tracing::warn!(namespace, uid, error = %problem, "recording not stored");
        }
        result
    }

    async fn complete(&mut self, rest: &[u8], sha256: &str) -> Result<(), NotStored> {
        if let State::Idle = self.state
            && rest.len() <= PIECE_BYTES
        {
            let stored = self.store.put(&self.key, sha256, rest.to_vec().into()).await;
            return stored.map_err(|error| not_stored(&self.key, &error));
        }
        self.push(rest).await;
        let (commands, ended) = match &self.state {
            State::Active { commands, ended } => (commands, ended),
            State::Abandoned(problem) => return Err(problem.clone()),
            State::Idle => return Err(NotStored::Failed),
        };
        let problem = |ended: &OnceLock<NotStored>| ended.get().cloned().unwrap_or(NotStored::Failed);
        let (answer, answered) = oneshot::channel();
        if commands.send(Command::Finish(sha256.to_owned(), answer)).await.is_err() {
            return Err(problem(ended));
        }
        answered.await.unwrap_or_else(|_| Err(problem(ended)))
    }

    fn object(&self) -> ObjectUpload {
        let part_bytes = self.store.recording_part_bytes();
        ObjectUpload::new(self.store.clone(), self.key.clone(), NAME, part_bytes, Arc::default())
    }
}

/// Starts the task, which runs separately, so that Writ can read the session's output while the store receives a part.
fn start(mut object: ObjectUpload, key: OutputKey) -> State {
    let (commands, mut receiver) = mpsc::channel(MAX_PIECES);
    let ended = Arc::new(OnceLock::new());
    let reason = Arc::clone(&ended);
    tokio::spawn(async move {
        if let Err(problem) = follow(&mut object, &key, &mut receiver).await {
            let _ = reason.set(problem);
            // From now on commands to the task fail at once.
            drop(receiver);
            object.discard().await;
        }
    });
    State::Active { commands, ended }
}

async fn follow(
    object: &mut ObjectUpload,
    key: &OutputKey,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<(), NotStored> {
    loop {
        match commands.recv().await {
            Some(Command::Lines(lines)) => object.append(lines).await.map_err(|error| not_stored(key, &error))?,
            Some(Command::Finish(sha256, mut answer)) => {
                let result = tokio::select! {
                    result = object.complete(&sha256) => result.map_err(|error| not_stored(key, &error)),
                    () = answer.closed() => Err(NotStored::Abandoned),
                };
                let _ = answer.send(result.clone());
                return result;
            }
            None => return Err(NotStored::Abandoned),
        }
    }
}
