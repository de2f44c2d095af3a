//! Where whole outputs are kept: a folder, or a bucket of a cloud.
//!
//! The promises kept here: every call has a deadline; an object has the digest of its content for a name, so that what
//! is read is known to be what was recorded, or is refused; what is half written never has that name.
//!
//! ```text
//! <location>/<namespace>/<execution UID>/<SHA-256 of the stream>
//!                                       /stdout-<random>.partial      while it is written, or after a crash
//! ```
//!
//! Two streams of the same bytes are one object. A folder is made with mode 0700; what is in it is as readable as that
//! allows. A bucket should end unfinished multipart uploads by a lifecycle rule: those of a crashed process cannot be seen
//! from here.

use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use sha2::{Digest as _, Sha256};

use crate::api::execution_status::StreamRecord;

use super::{Owner, StreamKind};

/// How long one call may take: a part of 5 MiB at 2 Mbit/s.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// How long giving an object its name may take: a bucket copies it, at about 100 MiB a second.
const RENAME_DEADLINE: Duration = Duration::from_secs(45);
/// The largest object that a bucket renames in one call (S3's bound for a copy). A folder has no such bound.
const MAXIMUM_RENAMED_BYTES: u64 = 5_000_000_000;
/// What the name of an unfinished object ends with.
const PARTIAL: &str = ".partial";
/// Variables of the environment with these beginnings are for the clouds: credentials, region, endpoint.
const ENVIRONMENT: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// An opened store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: Box<dyn ObjectStore>,
    /// What every name begins with.
    prefix: Path,
    /// The folder, where it is one.
    folder: Option<PathBuf>,
    /// How long one call may take.
    deadline: Duration,
}

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location is none.
    #[error("{location} is no output store: {problem}; give a folder, file:///PATH or s3://BUCKET/PREFIX")]
    Location {
        /// What was given.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder cannot be used.
    #[error("the folder {} of the output store cannot be used", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such object.
    #[error("the output store does not have it")]
    Missing,
    /// It is there, and is not what was recorded.
    #[error("what the output store has is not what was recorded ({problem}): it was damaged or tampered with")]
    Damaged {
        /// What differs.
        problem: String,
    },
    /// The store did not answer in time. It may have done what was asked all the same.
    #[error("the output store did not answer within {seconds} s ({what})")]
    TooSlow {
        /// What was asked of it.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The store said no.
    #[error("the output store failed ({what})")]
    Failed {
        /// What was asked of it.
        what: &'static str,
        /// Its words.
        source: object_store::Error,
    },
    /// What was read could not be passed on.
    #[error("what was read could not be written")]
    Sink(#[source] std::io::Error),
}

/// The folder for what must outlive a process, where none is named: systemd's `$STATE_DIRECTORY`, else
/// `$XDG_STATE_HOME/writ`, else `~/.local/state/writ`. None where the environment has none of the three. Outputs are in
/// `outputs` there.
pub fn state_folder(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| {
        let value = variable(name)?;
        // systemd separates several by colons.
        let first = PathBuf::from(value.split(':').next().unwrap_or_default());
        first.is_absolute().then_some(first)
    };
    absolute("STATE_DIRECTORY")
        .or_else(|| absolute("XDG_STATE_HOME").map(|state| state.join("writ")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/writ")))
}

impl Store {
    /// Opens a store to write to and to read from. `location` is a folder, which is made where it is missing (mode
    /// 0700), `file:///PATH`, `s3://BUCKET/PREFIX`, or `gs://` and `az://` where this build has them. `environment` has
    /// the credentials of a cloud, as its own tools read them (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT`, a
    /// Pod's web identity, ..); of other variables nothing is read. A cloud is not called yet.
    ///
    /// # Errors
    /// [`StoreError::Location`] and [`StoreError::Folder`].
    pub fn open(location: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, StoreError> {
        match folder_of(location)? {
            Some(folder) => {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&folder)
                    .map_err(|source| StoreError::Folder { path: folder.clone(), source })?;
                Self::of_folder(folder)
            }
            None => Self::of_cloud(location, environment),
        }
    }

    /// The same, to read only: a folder that is missing is an error.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_to_read(
        location: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        match folder_of(location)? {
            Some(folder) => Self::of_folder(folder),
            None => Self::of_cloud(location, environment),
        }
    }

    fn of_folder(folder: PathBuf) -> Result<Self, StoreError> {
        let path = std::fs::canonicalize(&folder).map_err(|source| StoreError::Folder { path: folder, source })?;
        let objects = LocalFileSystem::new_with_prefix(&path).map_err(|error| StoreError::Location {
            location: path.display().to_string(),
            problem: error.to_string(),
        })?;
        // What the status says to be stored has to be there after a power cut too.
        Ok(Self::with(Box::new(objects.with_fsync(true)), Path::default(), Some(path), CALL_DEADLINE))
    }

    fn of_cloud(location: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, StoreError> {
        let wrong = |problem: String| StoreError::Location { location: location.to_owned(), problem };
        let url = url::Url::parse(location).map_err(|error| wrong(error.to_string()))?;
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // It fails where another thread was quicker, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut options: Vec<(String, String)> = environment
            .into_iter()
            .filter(|(name, _)| ENVIRONMENT.iter().any(|beginning| name.starts_with(beginning)))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        // Of each attempt; all of them together have the deadline of the call.
        options.push(("timeout".to_owned(), "15 seconds".to_owned()));
        options.push(("connect_timeout".to_owned(), "5 seconds".to_owned()));
        let (objects, prefix) =
            object_store::parse_url_opts(&url, options).map_err(|error| wrong(error.to_string()))?;
        Ok(Self::with(objects, prefix, None, CALL_DEADLINE))
    }

    pub(super) fn with(
        objects: Box<dyn ObjectStore>,
        prefix: Path,
        folder: Option<PathBuf>,
        deadline: Duration,
    ) -> Self {
        Self { inner: Arc::new(Inner { objects, prefix, folder, deadline }) }
    }

    /// Reads a stream whole into `into`, and checks it against its record meanwhile. It is only known to be right once
    /// this has returned: give it something that is thrown away otherwise. Never reads more than the record says.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Damaged`], [`StoreError::TooSlow`] (20 s without a byte), and others.
    pub async fn fetch(
        &self,
        owner: &Owner,
        record: &StreamRecord,
        into: &mut (dyn Write + Send),
    ) -> Result<(), StoreError> {
        let damaged = |problem: String| StoreError::Damaged { problem };
        let expected = u64::try_from(record.bytes).unwrap_or(0);
        let location = self.folder_of_execution(owner).join(record.sha256.as_str());
        let found = self.in_time("read", self.inner.objects.get(&location)).await?;
        if found.meta.size != expected {
            return Err(damaged(format!("it has {} bytes, not {expected}", found.meta.size)));
        }
        let (mut stream, mut digest, mut read) = (found.into_stream(), Sha256::new(), 0);
        while let Some(bytes) = self.in_time("read", stream.try_next()).await? {
            read += bytes.len() as u64;
            if read > expected {
                return Err(damaged(format!("it has more than {expected} bytes")));
            }
            digest.update(&bytes);
            into.write_all(&bytes).map_err(StoreError::Sink)?;
        }
        if read != expected || hexadecimal(&digest.finalize()) != record.sha256 {
            return Err(damaged("its SHA-256 is another one".to_owned()));
        }
        Ok(())
    }

    /// Removes everything that is kept of an execution, also what a crash left half written. Nothing is no error.
    ///
    /// # Errors
    /// [`StoreError::TooSlow`], [`StoreError::Failed`], [`StoreError::Folder`]: some of it may be left; ask again.
    pub async fn remove(&self, owner: &Owner) -> Result<(), StoreError> {
        self.remove_those(owner, |_| true).await?;
        if let Some(folder) = self.inner.folder.as_deref() {
            // What object_store itself left half written has names that it does not list.
            let folder = file_of(folder, owner);
            in_background(folder, |folder| std::fs::remove_dir_all(folder)).await?;
        }
        Ok(())
    }

    /// Removes what a crash left half written of an execution.
    pub(super) async fn remove_partials(&self, owner: &Owner) -> Result<(), StoreError> {
        self.remove_those(owner, |name| name.ends_with(PARTIAL)).await?;
        if let Some(folder) = self.inner.folder.as_deref() {
            in_background(file_of(folder, owner), remove_staged).await?;
        }
        Ok(())
    }

    async fn remove_those(&self, owner: &Owner, is_meant: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let folder = self.folder_of_execution(owner);
        let objects = &self.inner.objects;
        // Two streams, and what crashes left: a handful.
        let listed = objects.list(Some(&folder)).map_ok(|object| object.location).try_collect::<Vec<Path>>();
        for location in self.in_time("list", listed).await? {
            if location.filename().is_some_and(&is_meant) {
                match self.in_time("delete", objects.delete(&location)).await {
                    Ok(()) | Err(StoreError::Missing) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Stores a small stream in one call.
    pub(super) async fn put(&self, owner: &Owner, sha256: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let location = self.folder_of_execution(owner).join(sha256);
        self.in_time("write", self.inner.objects.put(&location, PutPayload::from(bytes))).await.map(drop)
    }

    /// Begins to store a large stream under a name that nobody else has.
    pub(super) async fn begin(
        &self,
        owner: &Owner,
        kind: StreamKind,
    ) -> Result<(Path, Box<dyn MultipartUpload>), StoreError> {
        let name = format!("{}-{}{PARTIAL}", kind.as_str(), uuid::Uuid::new_v4().simple());
        let partial = self.folder_of_execution(owner).join(name);
        let upload = self.in_time("begin to write", self.inner.objects.put_multipart(&partial)).await?;
        Ok((partial, upload))
    }

    /// Gives a finished object its name.
    pub(super) async fn rename(&self, owner: &Owner, partial: &Path, sha256: &str) -> Result<(), StoreError> {
        let location = self.folder_of_execution(owner).join(sha256);
        let deadline = self.inner.deadline.max(RENAME_DEADLINE);
        if self.inner.folder.is_some() {
            return within(deadline, "rename", self.inner.objects.rename(partial, &location)).await;
        }
        // A bucket knows no renaming.
        within(deadline, "copy", self.inner.objects.copy(partial, &location)).await?;
        if let Err(error) = self.delete(partial).await {
            // The object is there. What is left over is removed with the execution.
            tracing::warn!(%error, %partial, "a copy is left over in the output store");
        }
        Ok(())
    }

    pub(super) async fn delete(&self, location: &Path) -> Result<(), StoreError> {
        self.in_time("delete", self.inner.objects.delete(location)).await
    }

    /// The most that one stream may have; None where there is no bound.
    pub(super) fn maximum_bytes(&self) -> Option<u64> {
        self.inner.folder.is_none().then_some(MAXIMUM_RENAMED_BYTES)
    }

    /// Makes one call within the deadline.
    pub(super) async fn in_time<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, StoreError> {
        within(self.inner.deadline, what, call).await
    }

    #[cfg(test)]
    pub(super) fn objects(&self) -> &dyn ObjectStore {
        self.inner.objects.as_ref()
    }

    /// Both words are Kubernetes' own, and `join` encodes what would lead elsewhere.
    fn folder_of_execution(&self, owner: &Owner) -> Path {
        self.inner.prefix.clone().join(owner.namespace.as_str()).join(owner.uid.as_str())
    }
}

impl Display for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.inner.folder {
            Some(folder) => write!(formatter, "{}", folder.display()),
            None => write!(formatter, "{}/{}", self.inner.objects, self.inner.prefix),
        }
    }
}

async fn within<T>(
    deadline: Duration,
    what: &'static str,
    call: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result.map_err(|source| of(what, source)),
        Err(_) => Err(StoreError::TooSlow { what, seconds: deadline.as_secs() }),
    }
}

fn of(what: &'static str, source: object_store::Error) -> StoreError {
    match source {
        object_store::Error::NotFound { .. } => StoreError::Missing,
        source => StoreError::Failed { what, source },
    }
}

/// The folder that a location names; None where it is that of a cloud.
fn folder_of(location: &str) -> Result<Option<PathBuf>, StoreError> {
    let wrong = |problem: &str| StoreError::Location { location: location.to_owned(), problem: problem.to_owned() };
    match location.split_once("://") {
        None if location.is_empty() => Err(wrong("it is empty")),
        None => Ok(Some(PathBuf::from(location))),
        Some(("file", _)) => {
            let url = url::Url::parse(location).map_err(|error| wrong(&error.to_string()))?;
            url.to_file_path().map(Some).map_err(|()| wrong("a file:// URL must have an absolute path and no host"))
        }
        Some(("memory", _)) => Err(wrong("memory keeps nothing")),
        Some(_) => Ok(None),
    }
}

fn file_of(folder: &FilePath, owner: &Owner) -> PathBuf {
    let inside = Path::from_iter([owner.namespace.as_str(), owner.uid.as_str()]);
    folder.join(inside.as_ref())
}

/// What object_store writes before it renames it (`NAME#1`).
fn remove_staged(folder: &FilePath) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains('#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A call to the file system, away from the threads that must not wait. Nothing there is no error.
async fn in_background(
    path: PathBuf,
    call: impl FnOnce(&FilePath) -> std::io::Result<()> + Send + 'static,
) -> Result<(), StoreError> {
    let own = path.clone();
    let called = tokio::time::timeout(CALL_DEADLINE, tokio::task::spawn_blocking(move || call(&own))).await;
    match called {
        Ok(Ok(Err(error))) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(Ok(result)) => result.map_err(|source| StoreError::Folder { path, source }),
        Ok(Err(error)) => Err(StoreError::Folder { path, source: std::io::Error::other(error) }),
        Err(_) => Err(StoreError::TooSlow { what: "clean up", seconds: CALL_DEADLINE.as_secs() }),
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
