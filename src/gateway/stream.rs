//! Streams of messages about executions, for WebSockets and as NDJSON.
//!
//! ```text
//! live registry, record --> ExecutionFeed --+
//!                                           +--> pump --> WebSocket (SocketRequest), or lines of NDJSON
//! watch of executions ----> ChangeFeed -----+
//! input of a session <--------------------------------- WebSocket (ExecConversation)
//! ```
//!
//! # Guarantees
//! 1. A feed makes its next message when the client has taken the previous one. So a slow client takes no memory for
//!    messages, and delays nobody.
//! 2. A client that does not take a message within 30 s loses its connection. It can resume by offset.
//! 3. A client that is gone ends its feed. It never ends a command, except the command of its own interactive session.
//! 4. When the process stops, each WebSocket closes with code 1001.

mod change_feed;
mod exec;
mod execution_feed;
mod lines;
mod message;
mod pending;
mod pump;
mod recorded;
mod text;
mod websocket;

pub use change_feed::ChangeFeed;
pub use exec::{ExecConversation, check_size};
pub use execution_feed::ExecutionFeed;
pub use lines::answer_lines;
pub use text::unfinished_length;
pub use websocket::{OptionalSocket, SocketRequest};
