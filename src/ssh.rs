//! The SSH client. This module contains all code for SSH and russh, and no code for Kubernetes.
//!
//! # Guarantees
//! - Writ connects to no address that the installation refuses.
//! - Writ does not authenticate to a host with an unverified key.
//! - Every step has a deadline.
//! - Writ reads everything that a machine sends, until the channel is closed.
//!
//! ```text
//! name --resolve, AddressPolicy--> addresses --TCP, or a channel of another Connection--> stream
//!      --handshake, HostKeyVerifier--> VerifiedHostKey --Credentials--> Connection --open--> Session
//!      --exec--> SessionEvent, ... Closed | Lost
//! ```

mod account;
mod admission;
mod algorithms;
mod clock;
mod connection;
mod credentials;
mod dial;
mod error;
mod handshake;
mod host_key;
mod login;
mod network;
mod public_key;
mod resolve;
mod scan;
mod session;
mod stream;
mod text;

pub use account::is_about_account;
pub use admission::{Admission, PatternError, Verdict};
pub use clock::use_certificate_clock;
pub use connection::{Connection, Login, Target, connect, connect_through};
pub use credentials::{Credentials, CredentialsError, EntryError, KeyEntry};
pub use error::{ConnectError, LoginRefusal};
pub use host_key::{HostKeyConfig, HostKeyConfigError, HostKeyVerifier, VerifiedBy, VerifiedHostKey};
pub use network::{AddressPolicy, AddressRefusal, Cidr, CidrError};
pub use scan::{ScannedKey, scan};
pub use session::{Session, SessionEvent, Signal, TerminalSize};
