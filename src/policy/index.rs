//! Rules found by how they begin, so that a request is held against the few that it may be meant for, whatever their
//! number. It only leaves out rules that cannot match: each that it finds is still read as a whole.

/// Ends a word in what [`key_of_words`] gives. It stands in no word, as words are printable.
pub(super) const END_OF_WORD: char = '\0';

/// The beginnings of rules, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    /// What a request must begin with for the rule to match.
    beginning: String,
    /// Which rule it is, by its place among all.
    rule: usize,
    /// The last entry before this one whose beginning this one's begins with.
    shorter: Option<usize>,
}

impl Index {
    /// Of rules by their places, and what each begins with.
    pub fn new(rules: impl Iterator<Item = (usize, String)>) -> Self {
        let entry = |(rule, beginning)| Entry { beginning, rule, shorter: None };
        let mut entries: Vec<Entry> = rules.map(entry).collect();
        entries.sort_by(|left, right| left.beginning.cmp(&right.beginning));
        // What begins with another stands right behind it, or behind others that do.
        let mut open: Vec<(usize, String)> = Vec::new();
        for (index, entry) in entries.iter_mut().enumerate() {
            while open.pop_if(|(_, shorter)| !entry.beginning.starts_with(shorter.as_str())).is_some() {}
            entry.shorter = open.last().map(|(shorter, _)| *shorter);
            open.push((index, entry.beginning.clone()));
        }
        Self(entries)
    }

    /// Adds the places of the rules that `key` begins like to `found`.
    pub fn find(&self, key: &str, found: &mut Vec<usize>) {
        // All that `key` begins with are in one chain, and it starts at the last one that is not greater.
        let mut next = self.0.partition_point(|entry| entry.beginning.as_str() <= key).checked_sub(1);
        while let Some(entry) = next.and_then(|index| self.0.get(index)) {
            if key.starts_with(entry.beginning.as_str()) {
                found.push(entry.rule);
            }
            next = entry.shorter;
        }
    }

    /// The most bytes that a rule has in common with the beginning of `key`. None: there is no rule.
    pub fn most_in_common(&self, key: &str) -> Option<usize> {
        // Among sorted texts the nearest one is a neighbour.
        let after = self.0.partition_point(|entry| entry.beginning.as_str() <= key);
        let neighbours =
            [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|index| self.0.get(index));
        neighbours.map(|entry| common(&entry.beginning, key)).max()
    }

    /// The first rule, by its place, of those that begin with `part`, and how many they are.
    pub fn beginning_with(&self, part: &str) -> Option<(usize, usize)> {
        let start = self.0.partition_point(|entry| entry.beginning.as_str() < part);
        let behind = self.0.get(start..)?;
        let alike = behind.get(..behind.partition_point(|entry| entry.beginning.starts_with(part)))?;
        Some((alike.iter().map(|entry| entry.rule).min()?, alike.len()))
    }
}

/// An argument vector as one text.
pub(super) fn key_of_words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut key = String::new();
    words.for_each(|word| {
        key.push_str(word);
        key.push(END_OF_WORD);
    });
    key
}

/// The name of a rule as a key: nothing that is longer begins with it.
pub(super) fn key_of_name(name: &str) -> String {
    key_of_words(std::iter::once(name))
}

/// Up to where two texts are the same.
fn common(left: &str, right: &str) -> usize {
    left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count()
}
