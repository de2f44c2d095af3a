//! How much of the API server's answers is in memory at a time. Each answer may be as large as somebody made it, so whole
//! answers are taken in turns, and the namespaces take turns. Watches are streams, of which one event is in memory.

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

/// Answers with one object that may be taken in at a time. etcd stores 1.5 MiB of each, and up to three copies of a text
/// are in memory until it is decoded: 72 MiB at the very most.
const OBJECTS: Size = Size { places: 16, share: 12 };
/// Pages of lists that may be taken in at a time. A page has up to ten objects: 135 MiB at the very most.
const PAGES: Size = Size { places: 3, share: 2 };

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Lets answers through in turns.
#[derive(Clone)]
pub(super) struct Gate {
    objects: Pool,
    pages: Pool,
}

impl Gate {
    pub fn new() -> Self {
        Self { objects: Pool::new(OBJECTS), pages: Pool::new(PAGES) }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// A way to the API server whose answers are taken in in turns.
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
            Kind::Object => Some(self.gate.objects.clone()),
            Kind::Page => Some(self.gate.pages.clone()),
            Kind::Stream => None,
        };
        let namespace = namespace(request.uri()).to_owned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // Waiting costs no memory: what is not read stays with the API server. The deadline of the call holds for it.
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

/// What the answer to a request is.
#[derive(Debug, Eq, PartialEq)]
enum Kind {
    Object,
    Page,
    Stream,
}

fn kind_of(uri: &Uri) -> Kind {
    let mut kind = Kind::Object;
    for parameter in uri.query().unwrap_or_default().split('&') {
        match parameter.split_once('=') {
            Some(("watch", _)) => return Kind::Stream,
            Some(("limit", limit)) if limit != "1" => kind = Kind::Page,
            _ => {}
        }
    }
    kind
}

/// Whose turn it takes. What is of no namespace takes turns like one.
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
        assert_eq!(of("/apis/writ.dev/v1alpha1/namespaces/a/machines/b"), (Kind::Object, a.clone()));
        assert_eq!(of("/apis/writ.dev/v1alpha1/namespaces/a/machines?limit=1"), (Kind::Object, a.clone()));
        assert_eq!(of("/apis/writ.dev/v1alpha1/namespaces/a/whitelists?&limit=10"), (Kind::Page, a));
        assert_eq!(of("/apis/writ.dev/v1alpha1/machines?limit=500"), (Kind::Page, none.clone()));
        assert_eq!(of("/apis/writ.dev/v1alpha1/machines?&watch=true&limit=10"), (Kind::Stream, none));
    }
}
