//! Limit on the total size of all spill files, and the choice of the bytes to delete.

use std::collections::{BTreeMap, HashMap};

/// Minimum size of a full piece of a spill file, in bytes. The bytes after a full piece start a new piece. Writ deletes
/// whole pieces, the oldest piece first. The default limit of 4 GiB allows at most 4096 full pieces, and one smaller
/// piece for each file.
const PIECE_BYTES: u64 = 1 << 20;

/// Accounts of the bytes in spill files, by namespace.
#[derive(Debug)]
pub(super) struct SpillBudget {
    /// Limit of all files together, in bytes.
    limit: u64,
    /// Number of bytes in all files.
    used: u64,
    namespaces: HashMap<String, Usage>,
    /// For each file, its namespace and the numbers of its pieces, oldest piece first.
    files: HashMap<u64, (String, Vec<u64>)>,
    next_age: u64,
}

#[derive(Debug, Default)]
struct Usage {
    bytes: u64,
    /// Pieces by number. The numbers come from `next_age`, so the oldest piece has the lowest number.
    pieces: BTreeMap<u64, BudgetPiece>,
}

/// Consecutive bytes of one file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BudgetPiece {
    /// Number of the file.
    pub file: u64,
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte.
    pub end: u64,
}

impl SpillBudget {
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0, namespaces: HashMap::new(), files: HashMap::new(), next_age: 0 }
    }

    /// Returns the number of bytes in all files.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Returns a piece to delete before `namespace` stores `bytes` more bytes. Removes the piece from the accounts.
    ///
    /// - If the namespace would use more than half of the limit, returns the oldest piece of this namespace.
    /// - If only all files together would exceed the limit, returns the oldest piece of the namespace with the most
    ///   bytes.
    /// - If the bytes fit, or if the chosen namespace has no piece, returns `None`.
    pub fn next_victim(&mut self, namespace: &str, bytes: u64) -> Option<BudgetPiece> {
        let own = self.namespaces.get(namespace).map_or(0, |usage| usage.bytes);
        let victim = if own.saturating_add(bytes) > self.limit / 2 {
            namespace.to_owned()
        } else if self.used.saturating_add(bytes) > self.limit {
            self.namespaces.iter().max_by_key(|(_, usage)| usage.bytes)?.0.clone()
        } else {
            return None;
        };
        let (age, piece) = self.namespaces.get(&victim)?.pieces.first_key_value().map(|(age, piece)| (*age, *piece))?;
        self.take_off(&victim, age);
        if let Some((_, ages)) = self.files.get_mut(&piece.file) {
            ages.retain(|other| *other != age);
        }
        Some(piece)
    }

    /// Returns true if `namespace` can store `bytes` more bytes.
    pub fn fits(&self, namespace: &str, bytes: u64) -> bool {
        let own = self.namespaces.get(namespace).map_or(0, |usage| usage.bytes);
        own.saturating_add(bytes) <= self.limit / 2 && self.used.saturating_add(bytes) <= self.limit
    }

    /// Counts bytes that were appended to a file: the bytes from `start` to before `end`.
    pub fn add(&mut self, namespace: &str, file: u64, start: u64, end: u64) {
        let bytes = end.saturating_sub(start);
        self.used = self.used.saturating_add(bytes);
        let usage = self.namespaces.entry(namespace.to_owned()).or_default();
        usage.bytes = usage.bytes.saturating_add(bytes);
        let (_, ages) = self.files.entry(file).or_insert_with(|| (namespace.to_owned(), Vec::new()));
        let last = ages.last().and_then(|age| usage.pieces.get_mut(age));
        match last {
            Some(piece) if piece.end == start && piece.end - piece.start < PIECE_BYTES => piece.end = end,
            _ => {
                ages.push(self.next_age);
                usage.pieces.insert(self.next_age, BudgetPiece { file, start, end });
                self.next_age += 1;
            }
        }
    }

    /// Removes a file from the accounts.
    pub fn remove(&mut self, file: u64) {
        let Some((namespace, ages)) = self.files.remove(&file) else { return };
        for age in ages {
            self.take_off(&namespace, age);
        }
    }

    fn take_off(&mut self, namespace: &str, age: u64) {
        let Some(usage) = self.namespaces.get_mut(namespace) else { return };
        if let Some(piece) = usage.pieces.remove(&age) {
            let bytes = piece.end - piece.start;
            usage.bytes = usage.bytes.saturating_sub(bytes);
            self.used = self.used.saturating_sub(bytes);
        }
        if usage.pieces.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Frees space for a piece and adds the piece to the accounts. Returns the deleted pieces.
    fn append(budget: &mut SpillBudget, namespace: &str, file: u64, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut deleted = Vec::new();
        while let Some(piece) = budget.next_victim(namespace, end - start) {
            deleted.push((piece.file, piece.end));
        }
        assert!(budget.fits(namespace, end - start));
        budget.add(namespace, file, start, end);
        deleted
    }

    #[test]
    fn namespace_over_half_of_the_limit_deletes_its_own_oldest_bytes() {
        let mut budget = SpillBudget::new(8 * MIB);
        for piece in 0..4 {
            assert_eq!(append(&mut budget, "team", piece % 2, piece / 2 * MIB, (piece / 2 + 1) * MIB), []);
        }
        assert_eq!(append(&mut budget, "team", 2, 0, MIB), [(0, MIB)]);
        assert_eq!(append(&mut budget, "team", 2, MIB, 3 * MIB), [(1, MIB), (0, 2 * MIB)]);
        assert_eq!(budget.used(), 4 * MIB);
        assert_eq!(append(&mut budget, "other", 3, 0, MIB), [], "another namespace has its own half");
    }

    #[test]
    fn namespace_that_uses_most_gives_way_to_a_small_one() {
        let mut budget = SpillBudget::new(8 * MIB);
        for (file, namespace) in [(0, "large"), (1, "middle"), (2, "large"), (3, "middle"), (4, "large"), (5, "large")]
        {
            append(&mut budget, namespace, file, 0, MIB);
        }
        append(&mut budget, "middle", 6, 0, MIB);
        append(&mut budget, "small", 7, 0, MIB);
        assert_eq!(budget.used(), 8 * MIB);
        assert_eq!(append(&mut budget, "small", 7, MIB, 2 * MIB), [(0, MIB)]);
    }

    #[test]
    fn small_writes_of_one_file_share_a_piece() {
        let mut budget = SpillBudget::new(64 * MIB);
        for write in 0..100 {
            append(&mut budget, "team", write % 2, write / 2 * 32768, (write / 2 + 1) * 32768);
        }
        assert_eq!(budget.namespaces["team"].pieces.len(), 4);
        assert_eq!(budget.used(), 100 * 32768);
        budget.remove(0);
        assert_eq!(budget.used(), 50 * 32768);
        budget.remove(1);
        budget.remove(2);
        assert_eq!(budget.used(), 0);
        assert!(budget.namespaces.is_empty() && budget.files.is_empty());
    }

    #[test]
    fn bytes_that_never_fit_have_no_victim_and_do_not_fit() {
        let mut budget = SpillBudget::new(MIB);
        assert_eq!(budget.next_victim("team", MIB), None);
        assert!(!budget.fits("team", MIB));
    }
}
