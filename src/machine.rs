//! Derives the status of a Machine, and the time of its next probe, from observations. Pure: no I/O, time is an
//! argument.
//!
//! # Guarantees
//!
//! - The status reports the result of a full login.
//! - Writ writes a change that matters to a user at most every 10 s for each Machine.
//! - If only `lastSeenTime` and `latencyMs` change, Writ writes the status at most every 10 minutes.
//! - The caller limits writes of changed counts.
//! - A host key that was pinned on first use stays pinned if the machine later shows another key. Only a key of
//!   `hostKeys` replaces the pinned key.
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
