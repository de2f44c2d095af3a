//! Keeps results on the local disk of this process until the API server has stored them.
//!
//! In Direct mode, no other copy of a result exists. Without the local copy, the outcome would be unknown if `writ`
//! died before the write to the API server.
//!
//! After its start, the next process writes the stored results to the API server, with the token of the claim. If
//! another process has finished the execution, the write changes nothing.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::CommandExecutionStatus;
use crate::cluster::{Cluster, ExecutionKey, WriteOutcome};

use super::audit::log_end;
use super::shrink::{REFUSED, TOO_LARGE, shrink_status};

/// Maximum number of results that one replay reads. The directory never holds more results than the number of
/// concurrent commands.
const MAXIMUM_RESULTS: usize = 100_000;

/// Directory of stored results.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

/// One stored result.
#[derive(Deserialize, Serialize)]
struct Kept {
    namespace: String,
    name: String,
    uid: String,
    token: String,
    status: CommandExecutionStatus,
}

impl Spool {
    /// Opens the directory, and creates it with mode 0700 if it does not exist.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn open(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Stores a result until [`Spool::forget`]. If the disk is full, only this additional copy is lost.
    pub(super) async fn keep(&self, key: &ExecutionKey, token: &str, status: &CommandExecutionStatus) {
        let kept = Kept {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: key.uid.clone(),
            token: token.to_owned(),
            status: status.clone(),
        };
        let spool = self.clone();
        // A slow disk must not block the threads of the async runtime.
        let written = tokio::task::spawn_blocking(move || spool.write(&kept)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(%error, execution = %key, "a result could not be kept on disk before it is written");
        }
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let path = self.path(&kept.uid);
        let new = path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_all()?;
        fs::rename(new, path)
    }

    /// Removes the local copy of a result that the API server has stored, or can never store.
    pub(super) fn forget(&self, uid: &str) {
        // If the file remains, the next replay changes nothing, because the execution is finished.
        let _ = fs::remove_file(self.path(uid));
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.folder.join(format!("{uid}.result"))
    }

    /// Writes the results of an earlier process to the API server. Call this function before this process adopts any
    /// claim.
    pub async fn replay(&self, cluster: &Cluster) {
        for path in self.results() {
            let kept = fs::read(&path).map_err(|error| error.to_string());
            let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).map_err(|error| error.to_string()));
            match kept {
                Ok(kept) => self.write_kept(cluster, kept).await,
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "a kept result cannot be read and is left alone");
                }
            }
        }
    }

    async fn write_kept(&self, cluster: &Cluster, kept: Kept) {
        let Kept { namespace, name, uid, token, mut status } = kept;
        let key = ExecutionKey { namespace, name, uid };
        let mut step = 0;
        loop {
            match cluster.write_as_holder(&key, &token, &status).await {
                WriteOutcome::Stored => {
                    tracing::info!(execution = %key, uid = key.uid, "a result that another process had observed is stored");
                    // The log line needs the request and the requester, which the spool does not contain.
                    if let Ok(stored) = cluster.execution(&key.namespace, &key.name).await
                        && stored.metadata.uid.as_deref() == Some(&key.uid)
                    {
                        log_end(&stored, &status, None);
                    }
                }
                WriteOutcome::Refused(_) if shrink_status(&mut status, &mut step, REFUSED) => continue,
                WriteOutcome::TooLarge(_) if shrink_status(&mut status, &mut step, TOO_LARGE) => continue,
                WriteOutcome::ClaimLost(why) | WriteOutcome::Refused(why) => {
                    tracing::warn!(execution = %key, error = why, "a kept result is not stored");
                }
                WriteOutcome::TooLarge(why) => {
                    tracing::error!(execution = %key, error = why, "a kept result does not fit; remove labels or annotations of the execution");
                    return;
                }
                WriteOutcome::Unknown(error) => {
                    tracing::warn!(execution = %key, %error, "a kept result could not be written; it is tried at the next start");
                    return;
                }
            }
            return self.forget(&key.uid);
        }
    }

    fn results(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "result")).take(MAXIMUM_RESULTS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten_and_half_a_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("results")).unwrap();
        let kept = Kept {
            namespace: "team".to_owned(),
            name: "x".to_owned(),
            uid: "u".to_owned(),
            token: "t".to_owned(),
            status: CommandExecutionStatus::default(),
        };
        spool.write(&kept).unwrap();
        fs::write(folder.path().join("results/v.new"), "{").unwrap();
        assert_eq!(spool.results(), [folder.path().join("results/u.result")]);
        spool.forget("u");
        spool.forget("never-kept");
        assert!(spool.results().is_empty());
    }
}
