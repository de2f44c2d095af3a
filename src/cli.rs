//! Commands for users, in addition to `writ serve`. `writ explain` and `writ lint` check policies, `writ output` prints
//! the output of a command, `writ ready` checks readiness, `writ machine` helps with machines, and `writ api-key`
//! manages API keys of the gateway.
//!
//! # Guarantees
//! - `writ output` prints only output whose size and digest match the record.
//! - `writ explain` and `writ lint` use the same code as the controller, so they give the same answers.
//! - No command shows more of a cluster's policy than its user may read.
//! - `writ api-key` shows an API key once, and never stores it.

mod api_key;
mod explain;
mod input;
mod lint;
#[cfg(feature = "operator")]
pub mod machine;
pub mod manifest;
mod object_name;
mod output;
pub mod pipe;
mod ready;
mod remote;
pub mod schema;
pub mod store;

pub use api_key::ApiKeyCommand;
pub use explain::Explain;
pub use lint::Lint;
pub use output::Output;
pub use ready::Ready;

/// Result of a subcommand, as an exit code.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CliExit {
    /// The request is allowed, the input is valid, or the subcommand did its work. Exit code 0.
    Success,
    /// The request is denied, or the input is invalid. Exit code 3.
    Denied,
    /// The input cannot be used. Exit code 2, the same as for an unknown flag.
    Usage,
    /// The requested output does not exist, or commands cannot be started on a Machine. Exit code 4.
    NotAvailable,
    /// The requested output does not exist yet, or the process is not ready. Exit code 5.
    NotReady,
    /// The output differs from its record. Exit code 6.
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
