//! How much of the API server's answers is in memory at a time. Each answer may be as large as somebody made it, so whole
//! answers are taken in turns, by the most that they may take. Watches are streams, of which one event is in memory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::{Body, DynBody};
use tokio::sync::Semaphore;
use tower_layer::Layer;
use tower_service::Service;

/// Answers with one object that may be taken in at a time. etcd stores 1.5 MiB of each, and up to three copies of a text
/// are in memory until it is decoded: 108 MiB at the very most. A list counts as many as its page may have.
const OBJECTS: u32 = 24;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Lets answers through in turns.
#[derive(Clone)]
pub(super) struct Gate {
    room: Arc<Semaphore>,
}

impl Gate {
    pub fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(OBJECTS as usize)) }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, room: Arc::clone(&self.room) }
    }
}

/// A way to the API server whose answers are taken in in turns.
pub(super) struct Gated<S> {
    inner: S,
    room: Arc<Semaphore>,
}

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let objects = objects(request.uri());
        let room = Arc::clone(&self.room);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // Waiting costs no memory: what is not read stays with the API server. The deadline of the call holds for it.
            let turn = if objects == 0 { None } else { Some(room.acquire_many_owned(objects).await?) };
            Ok(answer.map(|body| {
                let held = move |frame| {
                    let _until_the_end = &turn;
                    frame
                };
                body.map_frame(held).boxed_unsync()
            }))
        })
    }
}

/// How many objects the answer to a request may have; none for a stream.
fn objects(uri: &Uri) -> u32 {
    let mut objects = 1;
    for parameter in uri.query().unwrap_or_default().split('&') {
        match parameter.split_once('=') {
            Some(("watch", _)) => return 0,
            Some(("limit", limit)) => objects = limit.parse().unwrap_or(OBJECTS).clamp(1, OBJECTS),
            _ => {}
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_counts_as_many_as_it_may_have_and_a_watch_nothing() {
        let of = |uri: &str| objects(&uri.parse().unwrap());
        assert_eq!(of("/apis/writ.dev/v1alpha1/namespaces/a/machines/b"), 1);
        assert_eq!(of("/apis/writ.dev/v1alpha1/machines?&limit=10&resourceVersion=0"), 10);
        assert_eq!(of("/apis/writ.dev/v1alpha1/machines?limit=500"), OBJECTS);
        assert_eq!(of("/apis/writ.dev/v1alpha1/machines?&watch=true&limit=10"), 0);
    }
}
