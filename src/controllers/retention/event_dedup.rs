//! Limits repeated log lines and events. Writ can keep thousands of executions for the same reason, and reconciles each
//! of these executions every few minutes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Minimum interval between two reports of the same kind.
const REPEAT_AFTER: Duration = Duration::from_secs(3600);
/// Maximum number of remembered reports, which take about 100 KiB. At this number, new reports are dropped.
const MAX_REMEMBERED: usize = 1000;

/// Reports of the last hour.
#[derive(Debug, Default)]
pub(super) struct RecentReports {
    last: HashMap<String, Instant>,
}

impl RecentReports {
    /// Returns true if the report `what` must be made now. The report is then remembered.
    pub fn should_report(&mut self, what: &str, now: Instant) -> bool {
        self.last.retain(|_, reported| now.duration_since(*reported) < REPEAT_AFTER);
        if self.last.contains_key(what) || self.last.len() >= MAX_REMEMBERED {
            return false;
        }
        self.last.insert(what.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_reported_once_an_hour_and_the_memory_is_bounded() {
        let (mut reports, now) = (RecentReports::default(), Instant::now());
        assert!(reports.should_report("a", now) && reports.should_report("b", now));
        assert!(!reports.should_report("a", now + Duration::from_secs(3599)));
        assert!(reports.should_report("a", now + Duration::from_secs(3600)));
        for index in 0..2 * MAX_REMEMBERED {
            reports.should_report(&index.to_string(), now);
        }
        assert_eq!(reports.last.len(), MAX_REMEMBERED);
    }
}
