//! Statistics over the executions of a Machine. Pure.

use super::outcome::StatusWord;

/// Numbers of executions by the word of their status, and their durations.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Number of all executions, also of those with an unknown phase.
    pub total: u64,
    /// Executions that wait.
    pub pending: u64,
    /// Claimed executions.
    pub sent: u64,
    /// Running commands.
    pub executing: u64,
    /// Commands that ended by themselves.
    pub completed: u64,
    /// Commands that reached their timeout.
    pub timeout: u64,
    /// Cancelled executions.
    pub cancelled: u64,
    /// Executions that did not run, or whose end is not known.
    pub failed: u64,
    /// Number of executions with a duration.
    measured: u64,
    /// Sum of all durations, in milliseconds.
    milliseconds: u64,
}

impl Statistics {
    /// Counts an execution. `word` is `None` if its phase is unknown.
    pub fn add(&mut self, word: Option<StatusWord>, duration_ms: Option<i64>) {
        self.total += 1;
        match word {
            Some(StatusWord::Pending) => self.pending += 1,
            Some(StatusWord::Sent) => self.sent += 1,
            Some(StatusWord::Executing) => self.executing += 1,
            Some(StatusWord::Completed) => self.completed += 1,
            Some(StatusWord::Timeout) => self.timeout += 1,
            Some(StatusWord::Cancelled) => self.cancelled += 1,
            Some(StatusWord::Failed) => self.failed += 1,
            None => {}
        }
        if let Some(duration) = duration_ms.and_then(|duration| u64::try_from(duration).ok()) {
            self.measured += 1;
            self.milliseconds = self.milliseconds.saturating_add(duration);
        }
    }

    /// Returns the average duration in milliseconds, or `None` if no execution has a duration.
    pub fn average_ms(&self) -> Option<i64> {
        let average = self.milliseconds.checked_div(self.measured)?;
        i64::try_from(average).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_counted_and_the_average_ignores_executions_without_duration() {
        let mut statistics = Statistics::default();
        assert_eq!(statistics.average_ms(), None);
        StatusWord::ALL.into_iter().for_each(|word| statistics.add(Some(word), None));
        statistics.add(Some(StatusWord::Completed), Some(1000));
        statistics.add(Some(StatusWord::Completed), Some(2001));
        statistics.add(None, Some(-5));
        let Statistics { total, completed, pending, sent, executing, timeout, cancelled, failed, .. } = statistics;
        assert_eq!((total, completed), (10, 3));
        assert_eq!([pending, sent, executing, timeout, cancelled, failed], [1; 6]);
        assert_eq!(statistics.average_ms(), Some(1500));
        statistics.add(None, Some(i64::MAX));
        statistics.add(None, Some(i64::MAX));
        statistics.add(None, Some(i64::MAX));
        assert!(statistics.average_ms().is_some());
    }
}
