//! What was told already: thousands of executions that stay for the same reason, looked at again every few minutes, must
//! not fill the log, nor the API server with events.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often the same is told.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// How many are remembered: 100 KiB. Where there are more, the rest is not told of for that hour.
const REMEMBERED: usize = 1000;

/// Remembers what was told, for an hour.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: HashMap<String, Instant>,
}

impl Told {
    /// Whether something is to be told now; it counts as told then.
    pub fn is_news(&mut self, what: &str, now: Instant) -> bool {
        self.last.retain(|_, told| now.duration_since(*told) < AGAIN_AFTER);
        if self.last.contains_key(what) || self.last.len() >= REMEMBERED {
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
    fn the_same_is_told_once_an_hour_and_no_more_than_can_be_remembered() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(told.is_news("a", now) && told.is_news("b", now));
        assert!(!told.is_news("a", now + Duration::from_secs(3599)));
        assert!(told.is_news("a", now + Duration::from_secs(3600)));
        for index in 0..2 * REMEMBERED {
            told.is_news(&index.to_string(), now);
        }
        assert_eq!(told.last.len(), REMEMBERED);
    }
}
