//! Limits the connections to the API server, and the memory for its answers. The namespaces take turns.
//!
//! - Each concurrent request needs its own connection, because kube uses HTTP/1.1. The client therefore sends only a
//!   limited number of requests concurrently.
//! - Answers can be large, because users decide how large an object is. The client therefore reads only a few answers
//!   concurrently.
//!
//! Watches are exempt, because their number is fixed, and only one event of a watch is in memory. Writes of Leases are
//! exempt too, so that this process keeps its Lease while other requests hang.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::{Body, DynBody};
use tower_layer::Layer;
use tower_service::Service;

use crate::fairness::{Pool, Size};

/// Maximum number of concurrent requests, and thereby of connections apart from watches. In a test, a burst without this
/// limit opened 280 connections, each with a TLS handshake. 64 requests keep an API server with 16 cores busy.
const CONCURRENT_REQUESTS: Size = Size { places: 64, share: 48 };
/// Maximum number of answers with one object that are read concurrently. These answers take at most 72 MiB: 16 objects
/// of at most 1.5 MiB (limit of etcd), each in up to three copies until it is decoded.
const CONCURRENT_OBJECTS: Size = Size { places: 16, share: 12 };
/// Maximum number of pages of lists that are read concurrently. These pages take at most 135 MiB: 3 pages with up to
/// ten objects, each object in up to three copies.
const CONCURRENT_PAGES: Size = Size { places: 3, share: 2 };

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Layer that limits the number of requests that are sent concurrently, and of answers that are read concurrently.
#[derive(Clone)]
pub(super) struct Gate {
    requests: Pool,
    objects: Pool,
    pages: Pool,
}

impl Gate {
    pub fn new() -> Self {
        let requests = Pool::new(CONCURRENT_REQUESTS);
        Self { requests, objects: Pool::new(CONCURRENT_OBJECTS), pages: Pool::new(CONCURRENT_PAGES) }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// Service that sends a request, and reads the body of its answer, only after it has received a permit.
pub(super) struct Gated<S> {
    inner: S,
    gate: Gate,
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
        let kind = if is_lease_write(&request) { AnswerKind::Unlimited } else { kind_of(request.uri()) };
        let pool = match kind {
            AnswerKind::Object => Some(self.gate.objects.clone()),
            AnswerKind::Page => Some(self.gate.pages.clone()),
            AnswerKind::Unlimited => None,
        };
        let requests = pool.is_some().then(|| self.gate.requests.clone());
        let namespace = namespace(request.uri()).to_owned();
        // The request is sent when this future is polled for the first time.
        let answer = self.inner.call(request);
        Box::pin(async move {
            let connection = match requests {
                None => None,
                Some(requests) => Some(requests.place(&namespace).await),
            };
            let answer = answer.await?;
            // Before the permit, nothing reads the body of the answer, so the body takes no memory in this process. The
            // deadline of the call includes the waiting time.
            let turn = match pool {
                None => None,
                Some(pool) => Some(pool.place(&namespace).await),
            };
            Ok(answer.map(|body| {
                let held = move |frame| {
                    let _until_the_end = (&turn, &connection);
                    frame
                };
                body.map_frame(held).boxed_unsync()
            }))
        })
    }
}

/// Kind of the answer to a request.
#[derive(Debug, Eq, PartialEq)]
enum AnswerKind {
    Object,
    Page,
    /// Answer to a watch, or to a write of a Lease.
    Unlimited,
}

fn is_lease_write<T>(request: &Request<T>) -> bool {
    request.method() != http::Method::GET && request.uri().path().starts_with("/apis/coordination.k8s.io/")
}

fn kind_of(uri: &Uri) -> AnswerKind {
    let mut kind = AnswerKind::Object;
    for parameter in uri.query().unwrap_or_default().split('&') {
        match parameter.split_once('=') {
            Some(("watch", _)) => return AnswerKind::Unlimited,
            Some(("limit", limit)) if limit != "1" => kind = AnswerKind::Page,
            _ => {}
        }
    }
    kind
}

/// Returns the namespace of a request, or an empty text if the request has no namespace. All requests without a
/// namespace share the permits of one namespace.
fn namespace(uri: &Uri) -> &str {
    let mut parts = uri.path().split('/');
    parts.find(|part| *part == "namespaces").and_then(|_| parts.next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// API server that answers each request after 10 ms, and counts the concurrent requests.
    #[derive(Clone, Default)]
    struct Counting {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Service<Request<Body>> for Counting {
        type Response = Response<Box<DynBody>>;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Box<DynBody>>, BoxError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let Self { now, most } = self.clone();
            Box::pin(async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                let body = http_body_util::Full::new(Bytes::from_static(b"{}")).map_err(BoxError::from);
                Ok(Response::new(Box::new(body) as Box<DynBody>))
            })
        }
    }

    /// Sends requests with this method and path concurrently. Returns the maximum number of requests in progress.
    async fn most_concurrent(method: http::Method, path: &str, count: usize) -> usize {
        let server = Counting::default();
        let mut gated = Gate::new().layer(server.clone());
        let request = || Request::builder().method(method.clone()).uri(path).body(Body::empty()).unwrap();
        let answers = (0..count).map(|_| gated.call(request()));
        let answers: Vec<_> = answers.collect();
        let read = |answer: <Gated<Counting> as Service<Request<Body>>>::Future| async move {
            answer.await.unwrap().into_body().collect().await.unwrap().to_bytes().len()
        };
        let lengths = futures::future::join_all(answers.into_iter().map(read)).await;
        assert!(lengths.len() == count && lengths.iter().all(|length| *length == 2));
        server.most.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn requests_wait_for_a_connection_and_watches_do_not() {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/a/leases/b";
        let secrets = "/api/v1/namespaces/a/secrets";
        assert_eq!(most_concurrent(http::Method::GET, secrets, 300).await, CONCURRENT_REQUESTS.share);
        assert_eq!(most_concurrent(http::Method::GET, lease, 300).await, CONCURRENT_REQUESTS.share);
        assert_eq!(most_concurrent(http::Method::PATCH, lease, 300).await, 300);
        assert_eq!(most_concurrent(http::Method::GET, &format!("{secrets}?watch=true"), 300).await, 300);
    }

    #[test]
    fn what_an_answer_is_and_whose_is_read_from_the_request() {
        let of = |uri: &str| {
            let uri: Uri = uri.parse().unwrap();
            (kind_of(&uri), namespace(&uri).to_owned())
        };
        let (a, none) = ("a".to_owned(), String::new());
        assert_eq!(of("/apis/writ.dev/v1alpha1/namespaces/a/machines/b"), (AnswerKind::Object, a.clone()));
        assert_eq!(of("/apis/writ.dev/v1alpha1/namespaces/a/machines?limit=1"), (AnswerKind::Object, a.clone()));
        assert_eq!(of("/apis/writ.dev/v1alpha1/namespaces/a/whitelists?&limit=10"), (AnswerKind::Page, a));
        assert_eq!(of("/apis/writ.dev/v1alpha1/machines?limit=500"), (AnswerKind::Page, none.clone()));
        assert_eq!(of("/apis/writ.dev/v1alpha1/machines?&watch=true&limit=10"), (AnswerKind::Unlimited, none));
    }
}
