//! Finds the few rules that can match a request, by the prefixes of the rules. The index finds every rule that matches.
//! A found rule can still differ from the request, so the caller must match it completely.

/// Delimiter after each word in a key (see [`key_of_words`]). No word contains this character, because words are
/// printable.
pub(super) const END_OF_WORD: char = '\0';

/// Sorted prefixes of rules.
#[derive(Clone, Debug, Default)]
pub(super) struct PrefixIndex(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    /// Prefix of every request that the rule matches.
    prefix: String,
    /// Position of the rule among all rules.
    rule: usize,
    /// Position of the parent: the nearest earlier entry whose `prefix` is a prefix of this entry's `prefix`. For
    /// example, `a` is the parent of `ab`, and `ab` is the parent of `abc`.
    parent: Option<usize>,
}

impl PrefixIndex {
    /// Builds the index from the position and the prefix of each rule.
    pub fn new(rules: impl Iterator<Item = (usize, String)>) -> Self {
        let entry = |(rule, prefix)| Entry { prefix, rule, parent: None };
        let mut entries: Vec<Entry> = rules.map(entry).collect();
        entries.sort_by(|left, right| left.prefix.cmp(&right.prefix));
        // `open` is the chain of parents of the current entry. The entries are sorted, so all entries that begin with
        // the same text are adjacent. An entry that the loop has removed from `open` is therefore never needed again.
        let mut open: Vec<(usize, String)> = Vec::new();
        for (index, entry) in entries.iter_mut().enumerate() {
            while open.pop_if(|(_, parent)| !entry.prefix.starts_with(parent.as_str())).is_some() {}
            entry.parent = open.last().map(|(parent, _)| *parent);
            open.push((index, entry.prefix.clone()));
        }
        Self(entries)
    }

    /// Adds to `found` the positions of all rules whose `prefix` is a prefix of `key`.
    pub fn rules_with_prefix_of(&self, key: &str, found: &mut Vec<usize>) {
        // All entries whose `prefix` is a prefix of `key` are in one chain of `parent` links. The chain starts at the
        // last entry that is not greater than `key`.
        let mut next = self.0.partition_point(|entry| entry.prefix.as_str() <= key).checked_sub(1);
        while let Some(entry) = next.and_then(|index| self.0.get(index)) {
            if key.starts_with(entry.prefix.as_str()) {
                found.push(entry.rule);
            }
            next = entry.parent;
        }
    }

    /// Compares `key` with the prefix of each rule. Returns the maximum number of equal bytes at the beginning. Returns
    /// `None` if there are no rules.
    pub fn longest_common_prefix(&self, key: &str) -> Option<usize> {
        // In sorted order, the entry with the longest common prefix is directly before or after `key`.
        let after = self.0.partition_point(|entry| entry.prefix.as_str() <= key);
        let neighbours =
            [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|index| self.0.get(index));
        neighbours.map(|entry| common(&entry.prefix, key)).max()
    }

    /// Counts the rules whose prefix begins with `part`. Returns the lowest position of these rules and their number.
    pub fn first_with_prefix(&self, part: &str) -> Option<(usize, usize)> {
        let start = self.0.partition_point(|entry| entry.prefix.as_str() < part);
        let behind = self.0.get(start..)?;
        let alike = behind.get(..behind.partition_point(|entry| entry.prefix.starts_with(part)))?;
        Some((alike.iter().map(|entry| entry.rule).min()?, alike.len()))
    }
}

/// Returns an argument vector as one text, with [`END_OF_WORD`] after each word.
pub(super) fn key_of_words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut key = String::new();
    words.for_each(|word| {
        key.push_str(word);
        key.push(END_OF_WORD);
    });
    key
}

/// Returns the words of a command as a key for [`super::RuleSet::deny_candidates`]. In this key, the program is a file
/// name without a directory.
pub(super) fn key_by_base_name<'a>(words: impl Iterator<Item = &'a str>) -> String {
    key_of_words(words.enumerate().map(|(index, word)| if index == 0 { super::base_name(word) } else { word }))
}

/// Returns the name of a rule as a key. Because of the delimiter at its end, the key of `restart` is not a prefix of
/// the key of `restart-all`.
pub(super) fn key_of_name(name: &str) -> String {
    key_of_words(std::iter::once(name))
}

/// Returns the length of the common prefix of two texts, in bytes.
fn common(left: &str, right: &str) -> usize {
    left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count()
}
