//! Sends each request with a token that can be replaced while the process runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use tower_layer::Layer;
use tower_service::Service;

use super::ClusterError;

/// The current token, as the value of a header. Clones share the token.
#[derive(Clone, Default)]
pub(super) struct OwnToken(Arc<RwLock<Option<HeaderValue>>>);

impl OwnToken {
    /// Replaces the token.
    pub fn set(&self, token: &str) -> Result<(), ClusterError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClusterError::Undecodable {
            target: "the token of a ServiceAccount".to_owned(),
            message: "it has characters that a header cannot have".to_owned(),
        })?;
        // Hides the value in debug output.
        value.set_sensitive(true);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    fn value(&self) -> Option<HeaderValue> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S> Layer<S> for OwnToken {
    type Service = WithToken<S>;

    fn layer(&self, inner: S) -> WithToken<S> {
        WithToken { inner, token: self.clone() }
    }
}

/// Service that adds the token to each request.
#[derive(Clone)]
pub(super) struct WithToken<S> {
    inner: S,
    token: OwnToken,
}

impl<S, B> Service<Request<B>> for WithToken<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(value) = self.token.value() {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        self.inner.call(request)
    }
}
