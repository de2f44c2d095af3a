//! Limits the memory for answers of the API server.
//!
//! Answers can be large, because users decide how large an object is. The client therefore reads only a few answers
//! concurrently, and the namespaces take turns. Watches are exempt, because only one event of a watch is in memory.

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

/// Maximum number of answers with one object that are read concurrently. These answers take at most 72 MiB: 16 objects
/// of at most 1.5 MiB (limit of etcd), each in up to three copies until it is decoded.
const CONCURRENT_OBJECTS: Size = Size { places: 16, share: 12 };
/// Maximum number of pages of lists that are read concurrently. These pages take at most 135 MiB: 3 pages with up to
/// ten objects, each object in up to three copies.
const CONCURRENT_PAGES: Size = Size { places: 3, share: 2 };

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Layer that limits the number of answers that are read concurrently.
#[derive(Clone)]
pub(super) struct Gate {
    objects: Pool,
    pages: Pool,
}

impl Gate {
    pub fn new() -> Self {
        Self { objects: Pool::new(CONCURRENT_OBJECTS), pages: Pool::new(CONCURRENT_PAGES) }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// Service that reads the body of an answer only after it has received a permit.
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
        let pool = match kind_of(request.uri()) {
            AnswerKind::Object => Some(self.gate.objects.clone()),
            AnswerKind::Page => Some(self.gate.pages.clone()),
            AnswerKind::Stream => None,
        };
        let namespace = namespace(request.uri()).to_owned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // Before the permit, nothing reads the body of the answer, so the body takes no memory in this process. The
            // deadline of the call includes the waiting time.
            let turn = match pool {
                None => None,
                Some(pool) => Some(pool.place(&namespace).await),
            };
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

/// Kind of the answer to a request.
#[derive(Debug, Eq, PartialEq)]
enum AnswerKind {
    Object,
    Page,
    Stream,
}

fn kind_of(uri: &Uri) -> AnswerKind {
    let mut kind = AnswerKind::Object;
    for parameter in uri.query().unwrap_or_default().split('&') {
        match parameter.split_once('=') {
            Some(("watch", _)) => return AnswerKind::Stream,
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
    use super::*;

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
        assert_eq!(of("/apis/writ.dev/v1alpha1/machines?&watch=true&limit=10"), (AnswerKind::Stream, none));
    }
}
