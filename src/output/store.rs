//! Stores whole outputs in a directory or in a bucket of a cloud, and reads them.
//!
//! # Guarantees
//!
//! 1. Every call has a deadline.
//! 2. The name of an object is the digest of its content. A reader gets the recorded bytes or an error.
//! 3. An unfinished object has a temporary name.
//!
//! ```text
//! <location>/<namespace>/<execution UID>/<SHA-256 of the stream or recording>
//!                                       /stdout-<random>.partial      while it is written, or after a crash
//! ```
//!
//! If two streams of an execution have the same bytes, they are one object. A directory gets mode 0700, which protects
//! the files in it.
//!
//! # Caveats
//!
//! A bucket needs a lifecycle rule that ends unfinished multipart uploads. Writ cannot list the unfinished uploads of a
//! crashed process.

use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use sha2::{Digest as _, Sha256};

use crate::api::execution_status::StreamRecord;

use super::OutputKey;

/// Deadline of one call. A part of 5 MiB needs this time at 2 Mbit/s.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// Deadline for the rename of an object to its final name. A bucket copies the object: 5 GB take 48 s at 100 MiB per
/// second.
const RENAME_DEADLINE: Duration = Duration::from_secs(55);
/// Maximum size of an object that a bucket renames in one call (S3's limit for a copy). A directory has no such limit.
const MAX_RENAMED_BYTES: u64 = 5_000_000_000;
/// Size of a part in a bucket, in bytes. S3 requires at least 5 MiB for each part except the last, and allows at most
/// 10,000 parts.
const BUCKET_PART_BYTES: usize = 5 << 20;
/// Size of a part in a directory, in bytes. Larger parts need more memory, and are not faster.
const DIRECTORY_PART_BYTES: usize = 1 << 20;
/// Size of a part of a recording in a directory, in bytes. Many sessions can be open, so each takes less memory.
const RECORDING_PART_BYTES: usize = 256 << 10;
/// Suffix of the name of an unfinished object.
const PARTIAL: &str = ".partial";
/// Prefixes of the environment variables for clouds: credentials, region, endpoint.
const ENVIRONMENT: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// An opened store. Clones share the store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: Box<dyn ObjectStore>,
    /// Prefix of every name.
    prefix: Path,
    /// The directory. `None` if the store is a bucket.
    directory: Option<PathBuf>,
    /// Deadline of one call.
    deadline: Duration,
}

/// Failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location names no store.
    #[error("{location} names no output store: {problem}; use a directory, file:///PATH or s3://BUCKET/PREFIX")]
    InvalidLocation {
        /// The location.
        location: String,
        /// Fault of the location.
        problem: String,
    },
    /// The directory cannot be used.
    #[error("the directory {} of the output store cannot be used", path.display())]
    Directory {
        /// Path of the directory.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The store has no such object.
    #[error("the output store does not have it")]
    Missing,
    /// The object differs from the record.
    #[error("the stored output differs from its record ({problem}): it was damaged or tampered with")]
    Corrupt {
        /// The difference.
        problem: String,
    },
    /// The store did not answer in time. The store perhaps completed the operation.
    #[error("the output store did not answer within {seconds} s ({what})")]
    TooSlow {
        /// The operation.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The store answered with an error.
    #[error("the output store failed ({what})")]
    Failed {
        /// The operation.
        what: &'static str,
        /// The error of the store.
        source: object_store::Error,
    },
    /// The destination of a read did not take the bytes.
    #[error("the bytes from the output store could not be written")]
    Write(#[source] std::io::Error),
}

/// Returns the default state directory: systemd's `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/writ`, else
/// `~/.local/state/writ`. Returns `None` if none of these paths is absolute. Outputs are in the subdirectory `outputs`.
pub fn state_directory(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| {
        let value = variable(name)?;
        // systemd separates several directories by colons.
        let first = PathBuf::from(value.split(':').next().unwrap_or_default());
        first.is_absolute().then_some(first)
    };
    absolute("STATE_DIRECTORY")
        .or_else(|| absolute("XDG_STATE_HOME").map(|state| state.join("writ")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/writ")))
}

impl Store {
    /// Opens a store for writing and reading. Opening a bucket makes no call to the cloud.
    ///
    /// - `location`: a directory, `file:///PATH`, `s3://BUCKET/PREFIX`, or, if this build supports them, `gs://` and
    ///   `az://`. A missing directory is created with mode 0700.
    /// - `environment`: credentials and settings of a cloud, for example `AWS_ACCESS_KEY_ID`, `AWS_REGION`,
    ///   `AWS_ENDPOINT` or a Pod's web identity. Other variables are ignored.
    ///
    /// # Errors
    /// [`StoreError::InvalidLocation`] and [`StoreError::Directory`].
    pub fn open(location: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, StoreError> {
        match directory_of(location)? {
            Some(directory) => {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&directory)
                    .map_err(|source| StoreError::Directory { path: directory.clone(), source })?;
                Self::open_directory(directory)
            }
            None => Self::open_bucket(location, environment),
        }
    }

    /// Opens a store for reading. A missing directory is an error.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_to_read(
        location: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        match directory_of(location)? {
            Some(directory) => Self::open_directory(directory),
            None => Self::open_bucket(location, environment),
        }
    }

    fn open_directory(directory: PathBuf) -> Result<Self, StoreError> {
        let path =
            std::fs::canonicalize(&directory).map_err(|source| StoreError::Directory { path: directory, source })?;
        let objects = LocalFileSystem::new_with_prefix(&path).map_err(|error| StoreError::InvalidLocation {
            location: path.display().to_string(),
            problem: error.to_string(),
        })?;
        // Output that the status reports as stored must survive a power failure, so each file is synced to the disk.
        Ok(Self::with(Box::new(objects.with_fsync(true)), Path::default(), Some(path), CALL_DEADLINE))
    }

    fn open_bucket(
        location: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        let wrong = |problem: String| StoreError::InvalidLocation { location: location.to_owned(), problem };
        let url = url::Url::parse(location).map_err(|error| wrong(error.to_string()))?;
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // The call fails if another thread has already installed a provider. The installed provider also works.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut options: Vec<(String, String)> = environment
            .into_iter()
            .filter(|(name, _)| ENVIRONMENT.iter().any(|beginning| name.starts_with(beginning)))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        // Limits of each attempt. The deadline of the call covers all attempts.
        options.push(("timeout".to_owned(), "15 seconds".to_owned()));
        options.push(("connect_timeout".to_owned(), "5 seconds".to_owned()));
        let (objects, prefix) =
            object_store::parse_url_opts(&url, options).map_err(|error| wrong(error.to_string()))?;
        Ok(Self::with(objects, prefix, None, CALL_DEADLINE))
    }

    pub(super) fn with(
        objects: Box<dyn ObjectStore>,
        prefix: Path,
        directory: Option<PathBuf>,
        deadline: Duration,
    ) -> Self {
        Self { inner: Arc::new(Inner { objects, prefix, directory, deadline }) }
    }

    /// Copies a whole stream to `into`, at most the recorded size, and compares the bytes with their record. After an
    /// error, the caller must discard the bytes in `into`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Corrupt`], [`StoreError::TooSlow`] (20 s without a byte), and others.
    pub async fn fetch(
        &self,
        key: &OutputKey,
        record: &StreamRecord,
        into: &mut (dyn Write + Send),
    ) -> Result<(), StoreError> {
        let damaged = |problem: String| StoreError::Corrupt { problem };
        let expected = u64::try_from(record.bytes).unwrap_or(0);
        let location = self.execution_prefix(key).join(record.sha256.as_str());
        let found = self.with_deadline("read", self.inner.objects.get(&location)).await?;
        if found.meta.size != expected {
            return Err(damaged(format!("it has {} bytes, not {expected}", found.meta.size)));
        }
        let (mut stream, mut digest, mut read) = (found.into_stream(), Sha256::new(), 0);
        while let Some(bytes) = self.with_deadline("read", stream.try_next()).await? {
            read += bytes.len() as u64;
            if read > expected {
                return Err(damaged(format!("it has more than {expected} bytes")));
            }
            digest.update(&bytes);
            into.write_all(&bytes).map_err(StoreError::Write)?;
        }
        if read != expected || hexadecimal(&digest.finalize()) != record.sha256 {
            return Err(damaged("its SHA-256 is another one".to_owned()));
        }
        Ok(())
    }

    /// Reads at most `max_bytes` of a stream, from an offset on. Does not compare the bytes with their record, so call
    /// [`Self::fetch`] first.
    ///
    /// # Errors
    /// As for [`Self::fetch`].
    pub async fn read_at(
        &self,
        key: &OutputKey,
        record: &StreamRecord,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Bytes, StoreError> {
        let size = u64::try_from(record.bytes).unwrap_or(0);
        let range = offset.min(size)..offset.saturating_add(max_bytes as u64).min(size);
        let expected = range.end - range.start;
        if expected == 0 {
            return Ok(Bytes::new());
        }
        let location = self.execution_prefix(key).join(record.sha256.as_str());
        let bytes = self.with_deadline("read", self.inner.objects.get_range(&location, range)).await?;
        if bytes.len() as u64 != expected {
            return Err(StoreError::Corrupt {
                problem: format!("it ends within {expected} bytes from byte {offset} on"),
            });
        }
        Ok(bytes)
    }

    /// Deletes every object of an execution, including unfinished objects. An execution without objects is no error.
    ///
    /// # Errors
    /// [`StoreError::TooSlow`], [`StoreError::Failed`], [`StoreError::Directory`]. After an error, some objects can
    /// remain, and the caller should call this function again.
    pub async fn remove(&self, key: &OutputKey) -> Result<(), StoreError> {
        self.remove_matching(key, |_| true).await?;
        if let Some(directory) = self.inner.directory.as_deref() {
            // object_store does not list its own unfinished files, so the whole directory is deleted.
            let directory = file_of(directory, key);
            blocking(directory, |directory| std::fs::remove_dir_all(directory)).await?;
        }
        Ok(())
    }

    /// Deletes the unfinished objects that a crash left behind for an execution. `name` is the beginning of their
    /// names, because other uploads of the execution can be in progress.
    pub(super) async fn remove_partials(&self, key: &OutputKey, name: &'static str) -> Result<(), StoreError> {
        self.remove_matching(key, |found| found.starts_with(name) && found.ends_with(PARTIAL)).await?;
        if let Some(directory) = self.inner.directory.as_deref() {
            blocking(file_of(directory, key), move |directory| remove_staged(directory, name)).await?;
        }
        Ok(())
    }

    async fn remove_matching(&self, key: &OutputKey, is_meant: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let directory = self.execution_prefix(key);
        let objects = &self.inner.objects;
        // The list is short: two streams, a recording, and objects that remained after crashes.
        let listed = objects.list(Some(&directory)).map_ok(|object| object.location).try_collect::<Vec<Path>>();
        for location in self.with_deadline("list", listed).await? {
            if location.filename().is_some_and(&is_meant) {
                match self.with_deadline("delete", objects.delete(&location)).await {
                    Ok(()) | Err(StoreError::Missing) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Writes a small object in one call.
    pub(super) async fn put(&self, key: &OutputKey, sha256: &str, bytes: PutPayload) -> Result<(), StoreError> {
        let location = self.execution_prefix(key).join(sha256);
        self.with_deadline("write", self.inner.objects.put(&location, bytes)).await.map(drop)
    }

    /// Starts to write a large object under a unique name that starts with `name`.
    pub(super) async fn begin(
        &self,
        key: &OutputKey,
        name: &str,
    ) -> Result<(Path, Box<dyn MultipartUpload>), StoreError> {
        let name = format!("{name}-{}{PARTIAL}", uuid::Uuid::new_v4().simple());
        let partial = self.execution_prefix(key).join(name);
        let upload = self.with_deadline("begin to write", self.inner.objects.put_multipart(&partial)).await?;
        Ok((partial, upload))
    }

    /// Gives a finished object its final name.
    pub(super) async fn rename(&self, key: &OutputKey, partial: &Path, sha256: &str) -> Result<(), StoreError> {
        let location = self.execution_prefix(key).join(sha256);
        let deadline = self.inner.deadline.max(RENAME_DEADLINE);
        if self.inner.directory.is_some() {
            return within(deadline, "rename", self.inner.objects.rename(partial, &location)).await;
        }
        // A bucket cannot rename an object, so Writ copies it and deletes the original.
        within(deadline, "copy", self.inner.objects.copy(partial, &location)).await?;
        if let Err(error) = self.delete(partial).await {
            // The copy is stored. The original is deleted later, with the execution.
            tracing::warn!(%error, %partial, "leftover copy in the output store");
        }
        Ok(())
    }

    pub(super) async fn delete(&self, location: &Path) -> Result<(), StoreError> {
        self.with_deadline("delete", self.inner.objects.delete(location)).await
    }

    /// Returns the maximum size of one stream. Returns `None` if there is no limit.
    pub(super) fn max_bytes(&self) -> Option<u64> {
        self.inner.directory.is_none().then_some(MAX_RENAMED_BYTES)
    }

    /// Returns the size of each part of an upload except the last.
    pub(super) fn part_bytes(&self) -> usize {
        if self.inner.directory.is_some() { DIRECTORY_PART_BYTES } else { BUCKET_PART_BYTES }
    }

    /// Returns the size of each part of a recording except the last.
    pub(super) fn recording_part_bytes(&self) -> usize {
        if self.inner.directory.is_some() { RECORDING_PART_BYTES } else { BUCKET_PART_BYTES }
    }

    /// Makes one call within its deadline.
    pub(super) async fn with_deadline<T>(
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

    /// Returns the prefix of an execution's objects. `join` encodes characters that could lead out of this prefix.
    fn execution_prefix(&self, key: &OutputKey) -> Path {
        self.inner.prefix.clone().join(key.namespace.as_str()).join(key.uid.as_str())
    }
}

impl Display for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.inner.directory {
            Some(directory) => write!(formatter, "{}", directory.display()),
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

/// Returns the directory that a location names. Returns `None` if the location names a bucket.
fn directory_of(location: &str) -> Result<Option<PathBuf>, StoreError> {
    let wrong =
        |problem: &str| StoreError::InvalidLocation { location: location.to_owned(), problem: problem.to_owned() };
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

fn file_of(directory: &FilePath, key: &OutputKey) -> PathBuf {
    let inside = Path::from_iter([key.namespace.as_str(), key.uid.as_str()]);
    directory.join(inside.as_ref())
}

/// Deletes the unfinished files of object_store (`NAME#1`) whose names start with `name`.
fn remove_staged(directory: &FilePath, name: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let found = entry.file_name();
        let found = found.to_string_lossy();
        if found.starts_with(name) && found.contains('#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a blocking call to the file system on another thread. A missing file is no error.
async fn blocking(
    path: PathBuf,
    call: impl FnOnce(&FilePath) -> std::io::Result<()> + Send + 'static,
) -> Result<(), StoreError> {
    let own = path.clone();
    let called = tokio::time::timeout(CALL_DEADLINE, tokio::task::spawn_blocking(move || call(&own))).await;
    match called {
        Ok(Ok(Err(error))) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(Ok(result)) => result.map_err(|source| StoreError::Directory { path, source }),
        Ok(Err(error)) => Err(StoreError::Directory { path, source: std::io::Error::other(error) }),
        Err(_) => Err(StoreError::TooSlow { what: "clean up", seconds: CALL_DEADLINE.as_secs() }),
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
