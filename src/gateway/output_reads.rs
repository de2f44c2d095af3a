//! Verifies stored outputs before parts of them are read, and limits the work of searches.
//!
//! The store checks the digest of a stream only when it reads the whole stream. So the gateway reads a whole stream
//! once, and then serves parts of it for some minutes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

use crate::api::execution_status::StreamRecord;
use crate::output::{OutputKey, Store, StoreError};

use super::error::ApiError;

/// Time for which a verified stream counts as verified.
const VERIFIED_FOR: Duration = Duration::from_secs(600);
/// Time for which a stream counts as missing or damaged without another read.
const BROKEN_FOR: Duration = Duration::from_secs(60);
/// Maximum number of remembered streams, about 200 bytes each. With more, all finished ones are forgotten.
const MAX_REMEMBERED: usize = 4096;
/// Maximum number of streams that wait for their verification or are being verified.
const MAX_VERIFYING: usize = 64;
/// Maximum number of streams that are verified at the same time. Each takes a processor and the store's bandwidth.
const MAX_CONCURRENT_VERIFICATIONS: usize = 2;
/// Deadline of a verification. A stream of 100 GB takes about 10 min.
const VERIFICATION_DEADLINE: Duration = Duration::from_secs(1800);
/// Maximum number of searches at the same time. Each takes up to 5 s of a processor.
const MAX_CONCURRENT_SEARCHES: usize = 2;
/// Maximum wait for a search to begin.
const SEARCH_WAIT: Duration = Duration::from_secs(2);

/// State of a stored stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The store has the recorded bytes.
    Whole,
    /// The store does not have the stream.
    Missing,
    /// The store has other bytes.
    Damaged,
    /// The store did not answer.
    Unknown,
}

/// UID of the execution and digest of the stream.
type Id = (String, String);

enum Known {
    Verifying(watch::Receiver<Option<Verdict>>),
    Verified(Instant, Verdict),
}

/// Work for reads of outputs.
pub struct OutputReads {
    known: Arc<Mutex<HashMap<Id, Known>>>,
    verifications: Arc<Semaphore>,
    searches: Semaphore,
}

impl Default for OutputReads {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            verifications: Arc::new(Semaphore::new(MAX_CONCURRENT_VERIFICATIONS)),
            searches: Semaphore::new(MAX_CONCURRENT_SEARCHES),
        }
    }
}

impl OutputReads {
    /// Returns the state of a stored stream. Reads the stream if its state is not known. The read continues if the
    /// caller drops the future, so that a later call finds its result.
    ///
    /// # Errors
    /// 503 if too many streams wait for their verification.
    pub async fn verify(&self, store: &Store, key: &OutputKey, record: &StreamRecord) -> Result<Verdict, ApiError> {
        let mut verifying = match self.find_or_start(store, key, record)? {
            Known::Verified(_, verdict) => return Ok(verdict),
            Known::Verifying(verifying) => verifying,
        };
        let verdict = verifying.wait_for(Option::is_some).await;
        Ok(verdict.ok().and_then(|verdict| *verdict).unwrap_or(Verdict::Unknown))
    }

    fn find_or_start(&self, store: &Store, key: &OutputKey, record: &StreamRecord) -> Result<Known, ApiError> {
        let id: Id = (key.uid.clone(), record.sha256.clone());
        let mut known = lock(&self.known);
        match known.get(&id) {
            Some(Known::Verified(at, verdict)) if at.elapsed() < kept_for(*verdict) => {
                return Ok(Known::Verified(*at, *verdict));
            }
            // A closed channel without a value belongs to a verification that panicked.
            Some(Known::Verifying(verifying)) if verifying.has_changed().is_ok() => {
                return Ok(Known::Verifying(verifying.clone()));
            }
            _ => {}
        }
        let is_running = |known: &Known| matches!(known, Known::Verifying(_));
        if known.values().filter(|known| is_running(known)).count() >= MAX_VERIFYING {
            return Err(ApiError::unavailable("too many stored outputs are being verified; repeat the call"));
        }
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, known| is_running(known));
        }
        let (sender, verifying) = watch::channel(None);
        known.insert(id.clone(), Known::Verifying(verifying.clone()));
        let (all, permits) = (Arc::clone(&self.known), Arc::clone(&self.verifications));
        let (store, key, record) = (store.clone(), key.clone(), record.clone());
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            let verdict = read_whole(&store, &key, &record).await;
            lock(&all).insert(id, Known::Verified(Instant::now(), verdict));
            sender.send_replace(Some(verdict));
        });
        Ok(Known::Verifying(verifying))
    }

    /// Waits for the permit to search.
    ///
    /// # Errors
    /// 503 if too many searches are in progress.
    pub async fn begin_search(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        match timeout(SEARCH_WAIT, self.searches.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(ApiError::unavailable("too many searches at the moment; repeat the call")),
        }
    }
}

fn kept_for(verdict: Verdict) -> Duration {
    match verdict {
        Verdict::Whole => VERIFIED_FOR,
        Verdict::Missing | Verdict::Damaged => BROKEN_FOR,
        Verdict::Unknown => Duration::ZERO,
    }
}

async fn read_whole(store: &Store, key: &OutputKey, record: &StreamRecord) -> Verdict {
    let mut nowhere = std::io::sink();
    let error = match timeout(VERIFICATION_DEADLINE, store.fetch(key, record, &mut nowhere)).await {
        Ok(Ok(())) => return Verdict::Whole,
        Ok(Err(error)) => error,
        Err(_) => StoreError::TooSlow { what: "verify", seconds: VERIFICATION_DEADLINE.as_secs() },
    };
    tracing::warn!(%error, namespace = key.namespace, uid = key.uid, "stored output not usable");
    match error {
        StoreError::Missing => Verdict::Missing,
        StoreError::Corrupt { .. } => Verdict::Damaged,
        _ => Verdict::Unknown,
    }
}

fn lock(known: &Mutex<HashMap<Id, Known>>) -> MutexGuard<'_, HashMap<Id, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::execution_status::Encoding;

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn key(uid: &str) -> OutputKey {
        OutputKey { namespace: "ops".to_owned(), uid: uid.to_owned() }
    }

    fn record(bytes: i64) -> StreamRecord {
        StreamRecord {
            bytes,
            sha256: HELLO.to_owned(),
            truncated: true,
            redacted: false,
            stored: true,
            not_stored: None,
            encoding: Encoding::Utf8,
        }
    }

    #[tokio::test]
    async fn a_stream_is_read_once_and_then_known() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), []).unwrap();
        let directory = folder.path().join("ops/u");
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join(HELLO);
        std::fs::write(&file, "hello").unwrap();
        let reads = OutputReads::default();
        assert_eq!(reads.verify(&store, &key("u"), &record(5)).await.unwrap(), Verdict::Whole);
        std::fs::write(&file, "hallo").unwrap();
        assert_eq!(reads.verify(&store, &key("u"), &record(5)).await.unwrap(), Verdict::Whole);
        assert_eq!(OutputReads::default().verify(&store, &key("u"), &record(5)).await.unwrap(), Verdict::Damaged);
        assert_eq!(reads.verify(&store, &key("other"), &record(5)).await.unwrap(), Verdict::Missing);
    }

    #[tokio::test]
    async fn a_dropped_call_leaves_its_verification_to_the_next_call() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), []).unwrap();
        let reads = OutputReads::default();
        drop(reads.find_or_start(&store, &key("u"), &record(5)).unwrap());
        assert_eq!(lock(&reads.known).len(), 1);
        assert_eq!(reads.verify(&store, &key("u"), &record(5)).await.unwrap(), Verdict::Missing);
        assert_eq!(lock(&reads.known).len(), 1);
    }
}
