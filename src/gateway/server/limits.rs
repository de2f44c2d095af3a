//! Limits of the HTTP server.

use std::time::Duration;

/// Deadline for a TLS handshake. A handshake needs two round trips and a few milliseconds of work.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline for receiving the head of a request, from its first byte. The head of the first request of a connection has
/// this time from the start of the connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Time for which a connection may wait for its next request. The value is above the 60 s for which common load
/// balancers keep a connection, so that the load balancer closes it first and no request meets a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Time for which a client may accept no byte of an answer. A mobile network recovers within this time.
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// Maximum size of a request's head, in bytes. The largest credentials are tokens of a few KiB.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Maximum number of connections, with WebSockets. If each of them keeps an incomplete head, the heads take 64 MiB, an
/// eighth of the chart's limit of memory.
const MAX_CONNECTIONS: usize = 2048;
/// Maximum number of connections of one address: a quarter of all, so that one client cannot take the others' places.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 512;
/// Maximum number of connections of one address that have not sent a complete request yet. A burst of clients behind
/// one NAT gateway stays below it. A client that only opens connections holds an eighth of all places.
const MAX_NEW_CONNECTIONS_PER_ADDRESS: usize = 256;
/// Maximum size of a request's body, in bytes. The largest request is a bulk call with 100 machines.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Deadline for receiving the body of a request, from the end of its head. 64 KiB in 20 s are 26 kbit/s.
const BODY_DEADLINE: Duration = Duration::from_secs(20);
/// Interval between reads of the TLS files. Certificates are replaced days before they expire.
const TLS_POLL: Duration = Duration::from_secs(10);

/// Limits of a server. The default values are for production. Tests use shorter times.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Deadline for a TLS handshake.
    pub handshake_deadline: Duration,
    /// Deadline for receiving the head of a request.
    pub head_deadline: Duration,
    /// Time for which a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Time for which a client may accept no byte of an answer.
    pub send_deadline: Duration,
    /// Maximum size of a request's head, in bytes.
    pub max_head_bytes: usize,
    /// Maximum number of connections, with WebSockets.
    pub max_connections: usize,
    /// Maximum number of connections of one address. Ignored behind a proxy, whose address all connections have.
    pub max_connections_per_address: usize,
    /// Maximum number of connections of one address without a complete request. Ignored behind a proxy.
    pub max_new_connections_per_address: usize,
    /// Maximum size of a request's body, in bytes.
    pub max_body_bytes: usize,
    /// Deadline for receiving the body of a request, from the end of its head.
    pub body_deadline: Duration,
    /// Interval between reads of the TLS files.
    pub tls_poll: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            handshake_deadline: HANDSHAKE_DEADLINE,
            head_deadline: HEAD_DEADLINE,
            idle_timeout: IDLE_TIMEOUT,
            send_deadline: SEND_DEADLINE,
            max_head_bytes: MAX_HEAD_BYTES,
            max_connections: MAX_CONNECTIONS,
            max_connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            max_new_connections_per_address: MAX_NEW_CONNECTIONS_PER_ADDRESS,
            max_body_bytes: MAX_BODY_BYTES,
            body_deadline: BODY_DEADLINE,
            tls_poll: TLS_POLL,
        }
    }
}
