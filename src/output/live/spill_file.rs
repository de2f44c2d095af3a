//! A spill file: the bytes of one stream that need not stay in memory. Only the spill thread writes to the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// A spill file. Each byte has the same offset in the file as in the stream.
#[derive(Debug)]
pub(super) struct SpillFile {
    /// Number of the file in this process.
    id: u64,
    pub path: PathBuf,
    pub file: File,
}

impl SpillFile {
    pub fn new(id: u64, path: PathBuf, file: File) -> Self {
        Self { id, path, file }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    /// Reads `length` bytes at an offset. Blocks.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}
