//! The status of a Machine, and the time of its next probe. Pure: no I/O, time is an argument.
//!
//! # Guarantees
//!
//! - The status reports the result of a full login.
//! - The status is written if a user would want to know the change, and at most every 10 s.
//! - A host key that was pinned on first use is never replaced.
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
