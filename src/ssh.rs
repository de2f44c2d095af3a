//! The only place that knows SSH, and the only one that knows russh. It knows no Kubernetes.
//!
//! The promises kept here: a host that does not prove one of its pinned keys gets no authentication attempt; every
//! step has a deadline; what the machine sends is drained until the channel is closed.
//!
//! ```text
//! Target + Credentials --connect (deadline)--> Connection --open--> Session --start--> Event, Event, ... Closed | Lost
//! ```

mod connection;
mod credentials;
mod handshake;
mod host_key;
mod session;

pub use connection::{ConnectError, Connection, Target, connect};
pub use credentials::{Credentials, CredentialsError};
pub use host_key::{PinError, PinnedKeys};
pub use session::{Event, Session, Signal};
