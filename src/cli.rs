//! Commands for people, next to `writ serve`: `writ explain` and `writ lint` about policies, `writ output` for the
//! output of a command, `writ ready` for readiness, `writ machine` for machines.
//!
//! # Guarantees
//! - `writ output` prints only the output that was recorded.
//! - `writ explain` and `writ lint` use the code of the controller, so they give its answers.
//! - No command shows more of a cluster's policy than the rights of its user do.

mod explain;
mod input;
mod lint;
#[cfg(feature = "operator")]
pub mod machine;
pub mod manifest;
mod output;
pub mod pipe;
mod ready;
mod remote;
pub mod schema;
pub mod store;

pub use explain::Explain;
pub use lint::Lint;
pub use output::Output;
pub use ready::Ready;

/// Result of a command, as an exit code.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CliExit {
    /// Allowed, or valid. Exit code 0.
    Success,
    /// Denied, or invalid. Exit code 3.
    Denied,
    /// The input cannot be used. Exit code 2, as for an unknown flag.
    Usage,
    /// The requested object does not exist. Exit code 4.
    NotAvailable,
    /// The requested object does not exist yet. Exit code 5.
    NotReady,
    /// The requested object differs from its record. Exit code 6.
    Corrupt,
}

impl CliExit {
    /// Returns the exit code.
    pub fn code(self) -> u8 {
        match self {
            CliExit::Success => 0,
            CliExit::Denied => 3,
            CliExit::Usage => 2,
            CliExit::NotAvailable => 4,
            CliExit::NotReady => 5,
            CliExit::Corrupt => 6,
        }
    }
}
