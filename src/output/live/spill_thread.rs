//! The thread that writes spill files, frees space for them and deletes them. No other thread writes to the disk.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

use super::super::StreamKind;
use super::budget::{BudgetPiece, SpillBudget};
use super::entry::Entry;
use super::spill_file::SpillFile;
use super::spill_queue::{Job, SpillQueue};
use super::stream::Batch;
use super::{GapReason, LiveOptions};

/// Maximum number of bytes that the thread writes for one stream before another stream has its turn.
const BATCH_BYTES: usize = 1 << 20;
/// Suffix of the names of spill files.
const SUFFIX: &str = ".spill";
/// Minimum interval between log lines about a failing disk, because all running commands can fail on the same disk.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Function that writes bytes at an offset. Tests use a function that fails or is slow.
pub(super) type WriteAt = Box<dyn Fn(&File, &[u8], u64) -> io::Result<()> + Send>;

/// Creates the directory (mode 0700), deletes the files of an earlier process, and starts the thread.
///
/// # Errors
/// The directory cannot be used, or no thread can be started.
pub(super) fn start(options: &LiveOptions, write: WriteAt) -> io::Result<Arc<SpillQueue<Entry>>> {
    let directory = options.directory.clone();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    delete_leftovers(&directory)?;
    let queue = Arc::new(SpillQueue::new());
    let worker = Worker {
        queue: Arc::clone(&queue),
        directory,
        prefix: uuid::Uuid::new_v4().simple().to_string(),
        budget: SpillBudget::new(options.spill_bytes),
        files: HashMap::new(),
        next_id: 0,
        write,
        logged: None,
    };
    std::thread::Builder::new().name("spill".to_owned()).spawn(move || worker.run())?;
    Ok(queue)
}

fn delete_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// State of the spill thread.
struct Worker {
    queue: Arc<SpillQueue<Entry>>,
    directory: PathBuf,
    /// First part of the names of this process's files. No other process has the same prefix.
    prefix: String,
    budget: SpillBudget,
    /// The files, each with its execution and stream.
    files: HashMap<u64, (Weak<Entry>, StreamKind, Arc<SpillFile>)>,
    next_id: u64,
    write: WriteAt,
    /// Time of the last log line about the disk.
    logged: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        while let Some(job) = self.queue.next() {
            match job {
                Job::Write(entry, stream) => self.write_next(&entry, stream),
                Job::Release(file) => self.release(&file),
            }
            self.queue.set_used(self.budget.used());
        }
        // The process ends, so no viewer can read the files.
        for (_, _, file) in self.files.into_values() {
            let _ = fs::remove_file(&file.path);
        }
    }

    fn write_next(&mut self, entry: &Arc<Entry>, stream: StreamKind) {
        let Some((generation, batch)) = entry.next_batch(stream, BATCH_BYTES) else { return };
        let bytes: u64 = batch.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if !self.make_room(&entry.namespace, bytes) {
            return entry.stop_spilling((stream, generation), GapReason::SpillBudget);
        }
        match self.append(entry, stream, &batch) {
            Ok(file) => {
                self.budget.add(&entry.namespace, file.id(), batch.offset, batch.offset + bytes);
                if !entry.batch_written((stream, generation), &file, bytes) && batch.file.is_none() {
                    self.release(&file);
                }
            }
            Err(error) => {
                let now = Instant::now();
                if self.logged.is_none_or(|logged| now.duration_since(logged) >= LOG_INTERVAL) {
                    self.logged = Some(now);
                    tracing::warn!(
                        directory = %self.directory.display(), %error, namespace = entry.namespace, name = entry.name,
                        "spill file unwritable; viewers of large outputs get gaps"
                    );
                }
                entry.stop_spilling((stream, generation), GapReason::DiskFailed);
            }
        }
    }

    fn append(&mut self, entry: &Arc<Entry>, stream: StreamKind, batch: &Batch) -> io::Result<Arc<SpillFile>> {
        let file = match &batch.file {
            Some(file) => Arc::clone(file),
            None => self.create(entry, stream)?,
        };
        let mut offset = batch.offset;
        for chunk in &batch.chunks {
            if let Err(error) = (self.write)(&file.file, chunk, offset) {
                match batch.file {
                    // Removes the bytes of the failed batch, because the budget does not count these bytes.
                    Some(_) => drop(file.file.set_len(batch.offset)),
                    None => self.release(&file),
                }
                return Err(error);
            }
            offset += chunk.len() as u64;
        }
        Ok(file)
    }

    fn create(&mut self, entry: &Arc<Entry>, stream: StreamKind) -> io::Result<Arc<SpillFile>> {
        let id = self.next_id;
        self.next_id += 1;
        let path = self.directory.join(format!("{}-{id}-{}{SUFFIX}", self.prefix, stream.as_str()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let file = Arc::new(SpillFile::new(id, path, file));
        self.files.insert(id, (Arc::downgrade(entry), stream, Arc::clone(&file)));
        Ok(file)
    }

    /// Deletes the oldest bytes until `bytes` more bytes fit. Returns false if the new bytes do not fit even then.
    fn make_room(&mut self, namespace: &str, bytes: u64) -> bool {
        while let Some(piece) = self.budget.next_victim(namespace, bytes) {
            self.delete_piece(piece);
        }
        self.budget.fits(namespace, bytes)
    }

    fn delete_piece(&mut self, piece: BudgetPiece) {
        let Some((entry, stream, file)) = self.files.get(&piece.file) else { return };
        let entry = entry.upgrade();
        if let Some(entry) = &entry {
            // This call comes before the deletion, so that `Entry::read_file` discards the zeros that replace deleted
            // bytes.
            entry.delete_from_file(*stream, piece.file, Some(piece.end));
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(&file.file, hole, 0, piece.end).is_err() {
            // The file system cannot punch holes, so the whole file is emptied. Later bytes keep their offsets.
            if let Some(entry) = &entry {
                entry.delete_from_file(*stream, piece.file, None);
            }
            let _ = file.file.set_len(0);
            self.budget.remove(piece.file);
        }
    }

    /// Deletes a file. The disk frees its bytes when the last read of the file ends.
    fn release(&mut self, file: &SpillFile) {
        self.budget.remove(file.id());
        self.files.remove(&file.id());
        // If the deletion fails, the next start of the process deletes the file.
        let _ = fs::remove_file(&file.path);
    }
}
