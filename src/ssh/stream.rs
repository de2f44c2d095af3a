//! A stream that can be aborted from outside. A task of russh owns the stream, and keeps running after the client's
//! handle is dropped. Without an abort, this task would keep its socket until the server ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A stream that can be aborted. After the abort, reads return the end of the stream and writes fail.
pub(super) struct AbortableStream<S> {
    inner: S,
    token: CancellationToken,
    /// One future for reads and one future for writes, because different tasks can poll the two directions.
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Aborts the stream when `abort` is called, or when this value is dropped.
pub(super) struct AbortOnDrop(CancellationToken);

impl<S> AbortableStream<S> {
    pub fn new(inner: S) -> (Self, AbortOnDrop) {
        let token = CancellationToken::new();
        let waiting = || Box::pin(token.clone().cancelled_owned());
        (Self { inner, reading: waiting(), writing: waiting(), token: token.clone() }, AbortOnDrop(token))
    }

    fn is_aborted_for_writing(&mut self, context: &mut Context<'_>) -> bool {
        self.token.is_cancelled() || self.writing.as_mut().poll(context).is_ready()
    }
}

impl AbortOnDrop {
    pub fn abort(&self) {
        self.0.cancel();
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.abort();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AbortableStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A finished future must not be polled again, so the token is checked first.
        if self.token.is_cancelled() || self.reading.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AbortableStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_aborted_for_writing(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_aborted_for_writing(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An aborted stream needs no shutdown, because it ends when it is dropped.
        if self.is_aborted_for_writing(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_cut_wakes_who_reads_and_who_writes() {
        let (near, mut far) = duplex(4);
        let (stream, guard) = AbortableStream::new(near);
        let (mut read, mut write) = tokio::io::split(stream);
        far.write_all(b"ab").await.unwrap();
        let mut two = [0; 2];
        read.read_exact(&mut two).await.unwrap();
        let reader = tokio::spawn(async move { read.read_u8().await.map_err(|error| error.kind()) });
        let writer = tokio::spawn(async move {
            let written = write.write_all(b"more than four bytes").await.map_err(|error| error.kind());
            (written, write.shutdown().await.map_err(|error| error.kind()))
        });
        tokio::task::yield_now().await;
        drop(guard);
        assert_eq!(reader.await.unwrap(), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(writer.await.unwrap(), (Err(io::ErrorKind::BrokenPipe), Ok(())));
    }
}
