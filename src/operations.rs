//! What who operates Writ looks at: log lines, and the endpoints for metrics and health.
//!
//! The promises kept here: output and argument values of commands are never logged; whatever is sent to the endpoints
//! costs a bounded amount of memory, time and sockets, and changes nothing.

mod endpoints;
mod logs;

pub use endpoints::Endpoints;
pub use logs::{LogFormat, start_logs};
