//! What a person asks at a terminal, beside `writ serve`: what a policy allows (`writ explain`), whether it is sound
//! (`writ lint`), what a command wrote (`writ output`), and whether a `writ serve` is ready (`writ ready`).
//!
//! The promises kept here: output is printed only where it is what was recorded; of a policy, the answer is the one that the controller would give, from the same code; and nothing is shown
//! of a cluster's policy that the caller's own rights do not show.

mod explain;
mod input;
mod lint;
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

/// How a command ends; its exit code.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Ending {
    /// Allowed; sound. 0.
    Good,
    /// Denied; broken. 3.
    Denied,
    /// What was given cannot be used. 2, as for a flag that is none.
    BadInput,
    /// What was asked for is not there. 4.
    Lacking,
    /// What was asked for is not there yet. 5.
    Unfinished,
    /// What was asked for is there, and is not what was recorded. 6.
    Damaged,
}

impl Ending {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Ending::Good => 0,
            Ending::Denied => 3,
            Ending::BadInput => 2,
            Ending::Lacking => 4,
            Ending::Unfinished => 5,
            Ending::Damaged => 6,
        }
    }
}
