//! Standard output and standard error for Unix pipes. If the reader of a pipe exits (`writ explain ... | head`), the
//! program ends without a message.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code if the reader of the pipe is gone: 128 + 13, as a shell reports for SIGPIPE.
pub const READER_GONE: u8 = 141;

/// Flag that is set if a write fails because the reader of the pipe is gone. A broken connection to a server does not
/// set the flag.
#[derive(Clone, Debug, Default)]
pub struct ReaderGone(Arc<AtomicBool>);

impl ReaderGone {
    /// Returns true if a write has failed because the reader was gone.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Wraps a writer. If a write fails because the reader of `inner` is gone, the wrapper sets this flag.
    pub fn watch<W: Write>(&self, inner: W) -> Watched<W> {
        Watched { inner, gone: self.clone() }
    }
}

/// Writer that sets [`ReaderGone`] if a write fails because its reader is gone. See [`ReaderGone::watch`].
#[derive(Debug)]
pub struct Watched<W> {
    inner: W,
    gone: ReaderGone,
}

impl<W> Watched<W> {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if matches!(&result, Err(error) if error.kind() == ErrorKind::BrokenPipe) {
            self.gone.0.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.note(flushed)
    }
}
