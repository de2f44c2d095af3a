//! What is said of a Machine, and when it is looked at next. Pure: no I/O, time is an argument.
//!
//! The promises kept here: what the status says was seen, by a full login; it is written where a person would want to know,
//! and at most every 10 s; the key that was frozen on first use is never replaced by another one.
//!
//! ```text
//! Sight (by a look, or by whoever connected) --report--> status, event
//!                                            --next_look--> when to look again
//! ```

mod report;
mod schedule;
mod sight;

pub use report::{Observed, Report, report};
pub use schedule::next_look;
pub use sight::{ProvedKey, Seen, Sight};
