//! Executions that the controller has just read. Their attempts then need no further read before the claim, because the
//! claim fails if the execution has changed. The controller also uses them to report that an execution waits.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::lock;

use super::queued_execution::ReadExecution;

/// Maximum size of all kept executions together, in bytes of their JSON text. Most executions take 2 to 4 KiB, so about
/// 1,000 queued executions need no further read. The decoded form takes about as much memory as the text.
const MAX_BYTES: usize = 4_194_304;
/// Maximum size of one kept execution, in bytes of its JSON text.
const MAX_EXECUTION_BYTES: usize = 16_384;
/// Time after which a kept execution is dropped. An execution that waits longer has probably changed.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Executions by UID. Bounded by `MAX_BYTES`.
#[derive(Default)]
pub(super) struct RecentReads(Mutex<HashMap<String, (Instant, ReadExecution)>>);

impl RecentReads {
    /// Keeps an execution for its attempt, if the memory suffices.
    pub fn keep(&self, uid: &str, read: ReadExecution, now: Instant) {
        let mut reads = lock(&self.0);
        reads.retain(|_, (at, _)| now.saturating_duration_since(*at) < KEPT_FOR);
        reads.remove(uid);
        let bytes: usize = reads.values().map(|(_, read)| read.size.total).sum();
        if read.size.total <= MAX_EXECUTION_BYTES && bytes + read.size.total <= MAX_BYTES {
            reads.insert(uid.to_owned(), (now, read));
        }
    }

    /// Returns a copy of an execution.
    pub fn get(&self, uid: &str, now: Instant) -> Option<ReadExecution> {
        let reads = lock(&self.0);
        let (at, read) = reads.get(uid)?;
        (now.saturating_duration_since(*at) < KEPT_FOR).then(|| read.clone())
    }

    /// Removes and returns an execution.
    pub fn take(&self, uid: &str, now: Instant) -> Option<ReadExecution> {
        let (at, read) = lock(&self.0).remove(uid)?;
        (now.saturating_duration_since(at) < KEPT_FOR).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CommandExecution, CommandExecutionSpec};
    use crate::execution::ObjectSize;

    fn read(bytes: usize) -> ReadExecution {
        let execution = CommandExecution::new("x", CommandExecutionSpec::with_command("true"));
        ReadExecution { execution, size: ObjectSize { total: bytes, ..ObjectSize::default() } }
    }

    #[test]
    fn an_execution_is_kept_for_one_attempt_and_for_a_minute() {
        let reads = RecentReads::default();
        let now = Instant::now();
        reads.keep("u", read(100), now);
        assert!(reads.take("u", now).is_some() && reads.take("u", now).is_none());
        reads.keep("u", read(100), now);
        assert!(reads.get("u", now).is_some() && reads.get("u", now + KEPT_FOR).is_none());
        assert!(reads.take("u", now + KEPT_FOR).is_none());
        reads.keep("old", read(100), now);
        reads.keep("new", read(100), now + KEPT_FOR);
        assert_eq!(lock(&reads.0).len(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let (reads, now) = (RecentReads::default(), Instant::now());
        reads.keep("large", read(MAX_EXECUTION_BYTES + 1), now);
        assert!(reads.take("large", now).is_none());
        let most = MAX_BYTES / MAX_EXECUTION_BYTES;
        for index in 0..=most {
            reads.keep(&format!("u{index}"), read(MAX_EXECUTION_BYTES), now);
        }
        assert!(reads.take(&format!("u{most}"), now).is_none());
        assert!(reads.take("u0", now).is_some());
    }
}
