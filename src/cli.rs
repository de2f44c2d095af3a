//! What a person asks at a terminal, beside `writ serve`: what a policy allows (`writ explain`), and whether it is sound
//! (`writ lint`).
//!
//! The promise kept here: the answer is the one that the controller would give, from the same code; and nothing is shown
//! of a cluster's policy that the caller's own rights do not show.

mod explain;
mod input;
mod lint;
mod remote;

pub use explain::Explain;
pub use lint::Lint;

/// How a command ends; its exit code.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Ending {
    /// Allowed; sound. 0.
    Good,
    /// Denied; broken. 3.
    Denied,
    /// What was given cannot be used. 2, as for a flag that is none.
    BadInput,
}

impl Ending {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Ending::Good => 0,
            Ending::Denied => 3,
            Ending::BadInput => 2,
        }
    }
}
