//! The only place that knows SSH, and the only one that knows russh. It knows no Kubernetes.
//!
//! The promises kept here: nothing is connected to that the installation refuses; a host that does not prove itself gets no
//! authentication attempt; every step has a deadline; what the machine sends is drained until the channel is closed.
//!
//! ```text
//! name --resolve, Network--> addresses --TCP, or a channel of another Connection--> stream
//!      --handshake, HostTrust--> Proof --Credentials--> Connection --open--> Session --start--> Event, ... Closed | Lost
//! ```

mod account;
mod admission;
mod algorithms;
mod clock;
mod connection;
mod credentials;
mod error;
mod handshake;
mod host_key;
mod login;
mod network;
mod reaching;
mod resolve;
mod scan;
mod session;
mod stream;
mod text;

pub use account::is_about_account;
pub use admission::{Admission, PatternError, Verdict};
pub use clock::judge_certificates_by;
pub use connection::{Connection, Login, Target, connect, connect_through};
pub use credentials::{Credentials, CredentialsError, EntryError, KeyEntry};
pub use error::{ConnectError, LoginRefusal};
pub use host_key::{HostTrust, Proof, ProvedBy, TrustError, TrustParts};
pub use network::{Cidr, CidrError, Network, Refusal};
pub use scan::{ScannedKey, scan};
pub use session::{Event, Session, Signal};
