//! A stream that can be cut from outside. russh's task owns the stream and lives on where only our end of it is dropped, for
//! as long as the other end keeps it: without this each deadline that strikes would leave a task and a socket behind, or a
//! channel of the connection that it goes through.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Reads as ended and refuses to be written once it is cut.
pub(super) struct Stream<S> {
    inner: S,
    token: CancellationToken,
    /// One for each direction: they may be polled by different tasks.
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Cuts its stream, at the latest when it is dropped.
pub(super) struct Guard(CancellationToken);

impl<S> Stream<S> {
    pub fn new(inner: S) -> (Self, Guard) {
        let token = CancellationToken::new();
        let waiting = || Box::pin(token.clone().cancelled_owned());
        (Self { inner, reading: waiting(), writing: waiting(), token: token.clone() }, Guard(token))
    }

    fn is_cut_for_writing(&mut self, context: &mut Context<'_>) -> bool {
        self.token.is_cancelled() || self.writing.as_mut().poll(context).is_ready()
    }
}

impl Guard {
    pub fn cut(&self) {
        self.0.cancel();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cut();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A future that is done may not be polled again, so the token is asked first.
        if self.token.is_cancelled() || self.reading.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut_for_writing(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut_for_writing(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing to wait for: being dropped ends it.
        if self.is_cut_for_writing(context) {
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
        let (stream, guard) = Stream::new(near);
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
