//! Selects the Machines whose statuses need new counts of running commands and queued executions.
//!
//! Writ limits these status writes, because each write goes to etcd. Namespaces take turns, so a namespace with many
//! busy machines does not delay the counts of another namespace.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::machine_key::MachineKey;

/// Interval between searches for outdated counts.
pub const RECOUNT_INTERVAL: Duration = Duration::from_secs(2);
/// Minimum interval between two writes of the counts of one Machine.
const BETWEEN_COUNTS: Duration = Duration::from_secs(5);
/// Maximum number of Machines for which counts are written in each [`RECOUNT_INTERVAL`]. This maximum allows 5 writes
/// per second. The API server needs about 2 ms for one write.
const MAX_COUNTS: usize = 10;

/// Last reported counts of a machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReportedCounts {
    /// Number of running commands, and number of queued executions. `None` if this process has reported nothing.
    pub counts: Option<(usize, usize)>,
    /// Time at which the last write of the counts was requested.
    pub at: Option<Instant>,
    /// True if the counts must be written now.
    pub is_due: bool,
}

impl ReportedCounts {
    /// Returns the time since the last write of the counts. Returns `None` if the counts are unchanged, or if the
    /// minimum interval has not passed.
    pub fn due_since(&self, counts: (usize, usize), now: Instant) -> Option<Duration> {
        let since = self.at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        (self.counts != Some(counts) && since >= BETWEEN_COUNTS).then_some(since)
    }
}

/// Chooses the Machines for the next status writes. `due` contains the Machines with outdated counts, and the time
/// since their last write. Namespaces take turns. In a namespace, the Machine with the longest time since its
/// last write comes first.
pub(crate) fn choose(mut due: Vec<(Duration, MachineKey)>) -> Vec<MachineKey> {
    due.sort_by(|left, right| right.cmp(left));
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut ranked: Vec<(usize, MachineKey)> = due
        .into_iter()
        .map(|(_, machine)| {
            let rank = taken.entry(machine.0.clone()).or_default();
            *rank += 1;
            (*rank, machine)
        })
        .collect();
    // A stable sort keeps the order by the last write within each rank.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(MAX_COUNTS).map(|(_, machine)| machine).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(namespace: &str, name: usize) -> MachineKey {
        (namespace.to_owned(), format!("web-{name}"))
    }

    #[test]
    fn numbers_are_told_when_they_change_and_not_more_often_than_every_five_seconds() {
        let now = Instant::now();
        let told = ReportedCounts { counts: Some((1, 2)), at: Some(now), is_due: false };
        assert_eq!(told.due_since((1, 2), now + Duration::from_secs(60)), None);
        assert_eq!(told.due_since((1, 3), now + Duration::from_secs(4)), None);
        assert_eq!(told.due_since((1, 3), now + BETWEEN_COUNTS), Some(BETWEEN_COUNTS));
        // The first counts are always due, because another process has perhaps reported other counts.
        assert!(ReportedCounts::default().due_since((0, 0), now).is_some());
    }

    #[test]
    fn a_namespace_with_many_busy_machines_leaves_turns_to_others_and_each_comes_around() {
        let mut ages: HashMap<MachineKey, u64> = (0..100).map(|name| (machine("many", name), 5)).collect();
        ages.insert(machine("few", 0), 5);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..12 {
            let chosen = choose(ages.iter().map(|(key, age)| (Duration::from_secs(*age), key.clone())).collect());
            assert_eq!(chosen.len(), MAX_COUNTS);
            assert!(chosen.contains(&machine("few", 0)));
            ages.values_mut().for_each(|age| *age += 2);
            for key in chosen {
                ages.insert(key.clone(), 5);
                seen.insert(key);
            }
        }
        assert_eq!(seen.len(), 101);
    }
}
