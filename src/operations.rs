//! Log lines, and the endpoints for metrics and health.
//!
//! # Guarantees
//! - Writ never logs the output or the argument values of commands.
//! - Requests to the endpoints change nothing, and use a bounded amount of memory, time and sockets.

mod logs;
mod ops_server;

pub use logs::{LogFormat, start_logs};
pub use ops_server::OpsServer;
