//! Metrics of the gateway's HTTP server.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::{CauseLabels, OutcomeLabels};

/// Buckets for durations of requests, in seconds: from a read to 120 s, the longest wait for the end of a command.
const REQUEST_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

/// Labels of a request. The route is a template from the code, such as `/api/v1/commands/{id}`. Clients cannot choose
/// its value.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RouteLabels {
    route: String,
}

/// Metrics of the gateway's HTTP server.
#[derive(Debug)]
pub struct GatewayMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_progress: Gauge,
    connections: Gauge,
    connections_dropped: Family<CauseLabels, Counter>,
    sockets: Gauge,
    tls_reloads: Family<OutcomeLabels, Counter>,
    tls_files_unusable: Gauge,
    sessions_refused: Family<CauseLabels, Counter>,
}

impl GatewayMetrics {
    /// Creates the metrics in a registry, with value 0.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let durations = || Histogram::new(REQUEST_BUCKETS);
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(durations as fn() -> Histogram),
            in_progress: Gauge::default(),
            connections: Gauge::default(),
            connections_dropped: Family::default(),
            sockets: Gauge::default(),
            tls_reloads: Family::default(),
            tls_files_unusable: Gauge::default(),
            sessions_refused: Family::default(),
        };
        let requests = "Requests to the gateway, by route, method and class of the answer's status";
        registry.register("gateway_requests", requests, metrics.requests.clone());
        let durations = "Time from a request's head to the head of its answer";
        registry.register("gateway_request_duration_seconds", durations, metrics.durations.clone());
        let in_progress = "Requests without an answer yet";
        registry.register("gateway_requests_in_progress", in_progress, metrics.in_progress.clone());
        let connections = "Open connections to the gateway, with WebSockets";
        registry.register("gateway_connections", connections, metrics.connections.clone());
        let dropped = "Connections that the gateway closed or refused, by cause";
        registry.register("gateway_connections_dropped", dropped, metrics.connections_dropped.clone());
        let sockets = "Open WebSockets, and other long answers";
        registry.register("gateway_sockets", sockets, metrics.sockets.clone());
        let reloads = "Changes of the gateway's TLS files, by outcome";
        registry.register("gateway_tls_reloads", reloads, metrics.tls_reloads.clone());
        let unusable = "1 if the current TLS files are unusable and the gateway uses earlier ones";
        registry.register("gateway_tls_files_unusable", unusable, metrics.tls_files_unusable.clone());
        let sessions = "GatewaySessions that the gateway refused although their key was right, by cause";
        registry.register("gateway_sessions_refused", sessions, metrics.sessions_refused.clone());
        metrics
    }

    /// Records the head of a request. The returned guard counts the request.
    pub fn request_started(&self, route: &str, method: &'static str) -> RequestInProgress<'_> {
        self.in_progress.inc();
        RequestInProgress { metrics: self, route: route.to_owned(), method, since: Instant::now(), status: "aborted" }
    }

    /// Adds one to the number of open connections.
    pub fn connection_opened(&self) {
        self.connections.inc();
    }

    /// Subtracts one from the number of open connections.
    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    /// Counts a connection that the gateway closed or refused:
    ///
    /// - `refused`: all connections have a request in progress.
    /// - `replaced`: a new connection needed the place.
    /// - `late`: no request arrived in time.
    /// - `handshake`: the TLS handshake failed or did not end in time.
    pub fn connection_dropped(&self, cause: &'static str) {
        self.connections_dropped.get_or_create(&CauseLabels { cause }).inc();
    }

    /// Adds one to the number of open WebSockets.
    pub fn socket_opened(&self) {
        self.sockets.inc();
    }

    /// Subtracts one from the number of open WebSockets.
    pub fn socket_closed(&self) {
        self.sockets.dec();
    }

    /// Counts a session with the right key that the gateway refused. `cause` is a constant of the gateway.
    pub fn session_refused(&self, cause: &'static str) {
        self.sessions_refused.get_or_create(&CauseLabels { cause }).inc();
    }

    /// Counts a change of the TLS files. `is_usable` is false if the gateway keeps the earlier certificate.
    pub fn tls_reloaded(&self, is_usable: bool) {
        let outcome = if is_usable { "loaded" } else { "failed" };
        self.tls_reloads.get_or_create(&OutcomeLabels { outcome }).inc();
        self.tls_files_unusable.set(i64::from(!is_usable));
    }
}

/// Guard for a request in progress. Dropping the guard counts the request. Without an answer, the request counts as
/// aborted, because its client has closed the connection.
#[derive(Debug)]
pub struct RequestInProgress<'a> {
    metrics: &'a GatewayMetrics,
    route: String,
    method: &'static str,
    since: Instant,
    status: &'static str,
}

impl RequestInProgress<'_> {
    /// Counts the request with the status code of its answer.
    pub fn answered(mut self, status: u16) {
        self.status = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
    }
}

impl Drop for RequestInProgress<'_> {
    fn drop(&mut self) {
        self.metrics.in_progress.dec();
        let (route, method, status) = (std::mem::take(&mut self.route), self.method, self.status);
        let labels = RouteLabels { route: route.clone() };
        self.metrics.durations.get_or_create(&labels).observe(self.since.elapsed().as_secs_f64());
        self.metrics.requests.get_or_create(&RequestLabels { route, method, status }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_request_counts_once_with_its_answer_or_as_aborted() {
        let mut registry = Registry::default();
        let metrics = GatewayMetrics::register(&mut registry);
        let first = metrics.request_started("/api/v1/me", "GET");
        let second = metrics.request_started("/api/v1/me", "GET");
        assert!(text(&registry).contains("gateway_requests_in_progress 2"));
        first.answered(204);
        drop(second);
        let text = text(&registry);
        for line in [
            "gateway_requests_total{route=\"/api/v1/me\",method=\"GET\",status=\"2xx\"} 1",
            "gateway_requests_total{route=\"/api/v1/me\",method=\"GET\",status=\"aborted\"} 1",
            "gateway_request_duration_seconds_count{route=\"/api/v1/me\"} 2",
            "gateway_requests_in_progress 0",
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn unusable_tls_files_stay_visible_until_usable_ones_arrive() {
        let mut registry = Registry::default();
        let metrics = GatewayMetrics::register(&mut registry);
        metrics.tls_reloaded(false);
        assert!(text(&registry).contains("gateway_tls_files_unusable 1"));
        metrics.tls_reloaded(true);
        let text = text(&registry);
        assert!(text.contains("gateway_tls_files_unusable 0") && text.contains("{outcome=\"failed\"} 1"), "{text}");
    }
}
