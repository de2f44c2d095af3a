//! The byte stream of a connection. It keeps the connection's place, and fails if the client does not read.
//!
//! WebSockets use the same stream after the upgrade. So the place, the deadline and the end of the server also apply to
//! them.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connections::Place;

/// Stream of a connection.
pub(super) struct ConnectionStream<S> {
    inner: S,
    place: Place,
    /// Completes if the connection must end at once. After an upgrade, only the stream can end the connection.
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Stall,
    flushing: Stall,
}

impl<S> ConnectionStream<S> {
    /// Creates the stream of a connection. A write or flush fails if the client accepts no byte for `send_deadline`.
    pub(super) fn new(inner: S, place: Place, send_deadline: Duration) -> Self {
        let stall = || Stall { deadline: send_deadline, timer: None };
        let closing = Box::pin(place.closing().cancelled_owned());
        Self { inner, place, closing, writing: stall(), flushing: stall() }
    }
}

/// Time for which an operation makes no progress.
struct Stall {
    deadline: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Returns the result of an operation, or an error if the operation has been pending for too long.
    fn bound<T>(&mut self, result: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.timer = None;
            return result;
        }
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(deadline)));
        timer.as_mut().poll(context).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ConnectionStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server closes the connection",
            )));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.place.progress().record_bytes();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ConnectionStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.writing.bound(result, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(context, parts);
        this.writing.bound(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    // A flush of TCP is always ready, so a flush must not end the stall of a write.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(context);
        this.flushing.bound(result, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_shutdown(context);
        this.flushing.bound(result, context)
    }
}
