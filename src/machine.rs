//! The status of a Machine, and the time of its next probe. Pure: no I/O, time is an argument.
//!
//! # Guarantees
//!
//! - The status reports the result of a full login.
//! - Writ writes a change to the status only if it matters to a user, and at most every 10 s for each Machine. Counts
//!   of executions have a limit of their own.
//! - Writ never replaces a host key that was pinned on first use by the next key that a machine shows.
//!
//! ```text
//! MachineObservation (by a probe or by an attempt) --report-----> status, event
//!                                                  --next_probe-> delay until the next probe
//! ```

mod observation;
mod report;
mod schedule;

pub use observation::{MachineObservation, ProbeResult, VerifiedKey};
pub use report::{Report, ReportInput, report};
pub use schedule::{ProbeSchedule, next_probe};
