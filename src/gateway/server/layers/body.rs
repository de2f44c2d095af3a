//! Limits for the body of a request: its size, and the time until it has arrived.
//!
//! The limits apply while a route reads the body. So a client without a credential cannot make Writ keep its body.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body as RouterBody, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::gateway::error::ApiError;

/// Number of bytes above the limit that Writ reads and discards before it answers. A client that still sends when the
/// connection closes often loses the answer.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

/// Limits for the body of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyBounds {
    /// Maximum size, in bytes.
    pub max_bytes: usize,
    /// Deadline for receiving the body, from the end of the head.
    pub deadline: Duration,
}

/// Part of a body, or the error that ends it.
type FrameResult = Result<Frame<Bytes>, axum::Error>;

/// Error of a body that exceeds a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
enum BodyError {
    #[error("the body is too large")]
    TooLarge,
    #[error("the body has not arrived in time")]
    Late,
}

/// Limit that the body of a request exceeds. The route reads the body, and the layer answers.
#[derive(Debug, Default)]
struct Verdict {
    error: AtomicU8,
    /// True if the route did not read the body to its end.
    is_unread: AtomicBool,
}

impl Verdict {
    fn set(&self, error: BodyError) {
        self.error.store(if error == BodyError::TooLarge { 1 } else { 2 }, Ordering::Relaxed);
    }

    fn get(&self) -> Option<BodyError> {
        match self.error.load(Ordering::Relaxed) {
            1 => Some(BodyError::TooLarge),
            2 => Some(BodyError::Late),
            _ => None,
        }
    }
}

/// Bounds the body of a request. If the route refuses the request because of a limit, the answer is 413 or 408.
pub(super) async fn bound_body(State(bounds): State<BodyBounds>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let deadline = Instant::now() + bounds.deadline;
    let verdict = Arc::new(Verdict::default());
    let is_announced_too_large = request.body().size_hint().lower() > bounds.max_bytes as u64;
    let waits_for_permission = request.headers().contains_key(EXPECT);
    let request = request.map(|body| {
        let timer = None;
        let room = Room::Left(bounds.max_bytes);
        BoundedBody { body, room, deadline, timer, is_ended: false, verdict: Arc::clone(&verdict) }
    });
    if is_announced_too_large {
        // A client that waits for permission has sent nothing that Writ could discard.
        if !waits_for_permission {
            let mut body = request.into_body();
            body.room = Room::Discarding(MAX_DISCARDED_BYTES + bounds.max_bytes);
            let _ = body.frame().await;
        }
        return announce_close(refusal(BodyError::TooLarge, bounds));
    }
    let response = next.run(request.map(RouterBody::new)).await;
    let response = match verdict.get() {
        // A route that succeeds although it did not receive the body keeps its answer.
        Some(error) if response.status().is_client_error() => refusal(error, bounds),
        _ => response,
    };
    if verdict.is_unread.load(Ordering::Relaxed) { announce_close(response) } else { response }
}

/// Announces that the connection ends. hyper closes it if the body was not read, and a client that does not know that
/// loses its next request.
fn announce_close(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn refusal(error: BodyError, bounds: BodyBounds) -> Response {
    let error = match error {
        BodyError::TooLarge => {
            let message = format!("the body must have at most {} bytes", bounds.max_bytes);
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "Request too large", "TooLarge", message)
        }
        BodyError::Late => {
            let message = format!("the body must arrive within {} s", bounds.deadline.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", "BodyLate", message)
        }
    };
    error.into_response()
}

/// Room for the next bytes of a body.
#[derive(Clone, Copy, Debug)]
enum Room {
    /// The body may have this number of bytes more.
    Left(usize),
    /// The body is too large. Writ discards this number of bytes more.
    Discarding(usize),
}

/// Body with limits.
struct BoundedBody {
    body: RouterBody,
    room: Room,
    deadline: Instant,
    /// Timer for the deadline. Most bodies arrive with their head, and need none.
    timer: Option<Pin<Box<Sleep>>>,
    /// True if the route has received the end of the body.
    is_ended: bool,
    verdict: Arc<Verdict>,
}

impl Drop for BoundedBody {
    fn drop(&mut self) {
        if !self.is_ended && !self.is_end_stream() {
            self.verdict.is_unread.store(true, Ordering::Relaxed);
        }
    }
}

impl BoundedBody {
    fn refuse(&self, error: BodyError) -> Poll<Option<FrameResult>> {
        self.verdict.set(error);
        Poll::Ready(Some(Err(axum::Error::new(error))))
    }

    /// Returns the next part of the body, or `Late` if the deadline has passed.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<FrameResult>, BodyError>> {
        if let Poll::Ready(part) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(Ok(part));
        }
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(BodyError::Late))
    }
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        loop {
            let part = ready!(self.poll_part(context));
            let bytes = |part: &Option<FrameResult>| match part {
                Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                _ => 0,
            };
            match (self.room, part) {
                (Room::Left(_), Err(error)) => return self.refuse(error),
                (Room::Left(left), Ok(part)) => match left.checked_sub(bytes(&part)) {
                    Some(left) => {
                        self.room = Room::Left(left);
                        self.is_ended = part.is_none();
                        return Poll::Ready(part);
                    }
                    None => self.room = Room::Discarding(MAX_DISCARDED_BYTES),
                },
                (Room::Discarding(left), Ok(part @ Some(Ok(_)))) => match left.checked_sub(bytes(&part)) {
                    Some(left) => self.room = Room::Discarding(left),
                    None => return self.refuse(BodyError::TooLarge),
                },
                (Room::Discarding(_), _) => return self.refuse(BodyError::TooLarge),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.room, Room::Left(_)) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn bounded(parts: &[usize], max_bytes: usize) -> (BoundedBody, Arc<Verdict>) {
        let parts: Vec<_> = parts.iter().map(|size| Ok::<_, Infallible>(Bytes::from(vec![b'a'; *size]))).collect();
        let body = RouterBody::from_stream(futures::stream::iter(parts));
        with_limit(body, max_bytes, Duration::from_secs(60))
    }

    fn with_limit(body: RouterBody, max_bytes: usize, time: Duration) -> (BoundedBody, Arc<Verdict>) {
        let verdict = Arc::new(Verdict::default());
        let (deadline, shared) = (Instant::now() + time, Arc::clone(&verdict));
        let room = Room::Left(max_bytes);
        (BoundedBody { body, room, deadline, timer: None, is_ended: false, verdict: shared }, verdict)
    }

    #[tokio::test]
    async fn a_body_of_the_maximum_size_passes() {
        let (body, verdict) = bounded(&[3, 0, 7], 10);
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 10);
        assert_eq!(verdict.get(), None);
    }

    #[tokio::test]
    async fn a_larger_body_fails_and_its_end_is_discarded() {
        let (body, verdict) = bounded(&[3, 8, 100, 5], 10);
        assert!(body.collect().await.is_err());
        assert_eq!(verdict.get(), Some(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_discarded_up_to_a_limit() {
        let endless = futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b'a'; 1000])));
        let (body, verdict) = with_limit(RouterBody::from_stream(endless), 10, Duration::from_secs(60));
        assert!(body.collect().await.is_err());
        assert_eq!(verdict.get(), Some(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_fails_at_the_deadline() {
        let silent = RouterBody::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
        let (body, verdict) = with_limit(silent, 10, Duration::from_millis(20));
        assert!(body.collect().await.is_err());
        assert_eq!(verdict.get(), Some(BodyError::Late));
    }

    #[tokio::test]
    async fn bytes_that_have_arrived_are_readable_after_the_deadline() {
        let (mut body, verdict) = bounded(&[5], 10);
        body.deadline = Instant::now();
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 5);
        assert_eq!(verdict.get(), None);
    }
    #[tokio::test]
    async fn only_a_body_that_nobody_read_to_its_end_closes_the_connection() {
        let (body, verdict) = bounded(&[3, 7], 10);
        drop(body);
        assert!(verdict.is_unread.load(Ordering::Relaxed));
        let (mut body, verdict) = bounded(&[3, 7], 10);
        let _ = body.frame().await;
        drop(body);
        assert!(verdict.is_unread.load(Ordering::Relaxed));
        let (body, verdict) = bounded(&[3, 7], 10);
        body.collect().await.unwrap();
        assert!(!verdict.is_unread.load(Ordering::Relaxed));
    }
}
