//! Layer of the client that records the `Date` header of each answer in the clock.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::DATE;
use http::{Request, Response};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use tower_layer::Layer;
use tower_service::Service;

use super::{Clock, Source};

/// Parser for HTTP dates, for example `Sun, 29 Nov 2026 20:41:34 GMT`.
static PARSER: DateTimeParser = DateTimeParser::new();

/// Layer that wraps a service in [`Timed`].
pub(in crate::cluster) struct Dates(pub Arc<Clock>);

/// Service that records the dates of its answers in the clock.
pub(in crate::cluster) struct Timed<S> {
    inner: S,
    clock: Arc<Clock>,
}

impl<S> Layer<S> for Dates {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner, clock: Arc::clone(&self.0) }
    }
}

impl<S, Asked, Answered> Service<Request<Asked>> for Timed<S>
where
    S: Service<Request<Asked>, Response = Response<Answered>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Asked>) -> Self::Future {
        let clock = Arc::clone(&self.clock);
        let sent = clock.reading();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(date) = date_of(&answer) {
                clock.record(Source::Date, date, sent);
            }
            Ok(answer)
        })
    }
}

fn date_of<T>(answer: &Response<T>) -> Option<Timestamp> {
    PARSER.parse_timestamp(answer.headers().get(DATE)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_and_what_is_none_is_nothing() {
        let with = |date: &str| date_of(&Response::builder().header(DATE, date).body(()).unwrap());
        assert_eq!(with("Sun, 29 Nov 2026 20:41:34 GMT"), Some("2026-11-29T20:41:34Z".parse().unwrap()));
        for none in ["", "soon", "1795985294", "Sun, 32 Nov 2026 20:41:34 GMT", "2026-11-29T20:41:34Z"] {
            assert_eq!(with(none), None, "{none}");
        }
        assert_eq!(date_of(&Response::new(())), None);
    }
}
