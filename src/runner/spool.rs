//! Results that were observed and are not stored yet, kept on this process's own disk.
//!
//! In Durable mode the machine keeps what happened. In Direct mode nobody does: a `writ` that dies between the end of a
//! command and the write of its result would make an unknown outcome of what was seen. So the result is kept here first,
//! and a process that finds one at its start writes it, with the token of the claim: where somebody else has ended the
//! execution meanwhile it is refused, and nothing is overwritten.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::CommandExecutionStatus;
use crate::cluster::{Cluster, ExecutionKey, WriteOutcome};

use super::audit::log_end;
use super::shrink::{REFUSED, TOO_LARGE, shrink_status};

/// How many results are looked at; there can be no more than ran at a time.
const MAXIMUM_RESULTS: usize = 100_000;

/// The folder.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

/// One result.
#[derive(Deserialize, Serialize)]
struct Kept {
    namespace: String,
    name: String,
    uid: String,
    token: String,
    status: CommandExecutionStatus,
}

impl Spool {
    /// In a folder, which is made (mode 0700) where it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Keeps a result until [`Spool::forget`]. A disk that is full costs nothing but this net.
    pub(super) async fn keep(&self, key: &ExecutionKey, token: &str, status: &CommandExecutionStatus) {
        let kept = Kept {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: key.uid.clone(),
            token: token.to_owned(),
            status: status.clone(),
        };
        let spool = self.clone();
        // A disk may take its time; the threads of the runtime are for those who do not wait.
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

    /// It is stored, or will never be.
    pub(super) fn forget(&self, uid: &str) {
        // What stays is refused when it is written again.
        let _ = fs::remove_file(self.path(uid));
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.folder.join(format!("{uid}.result"))
    }

    /// Writes what another process left here. To be called before anything is taken for left behind.
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
                    // What was asked for, and by whom, is not kept here.
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
