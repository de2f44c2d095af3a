//! Index of rules by prefixes. With the index, a request is matched against only a few of many rules. The index
//! excludes only rules that cannot match. Each rule that the index finds must still be matched as a whole.

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
    /// Position of the last earlier entry whose `prefix` is a prefix of this entry's `prefix`.
    parent: Option<usize>,
}

impl PrefixIndex {
    /// Builds the index from the position and the prefix of each rule.
    pub fn new(rules: impl Iterator<Item = (usize, String)>) -> Self {
        let entry = |(rule, prefix)| Entry { prefix, rule, parent: None };
        let mut entries: Vec<Entry> = rules.map(entry).collect();
        entries.sort_by(|left, right| left.prefix.cmp(&right.prefix));
        // In sorted order, all texts that start with a prefix follow directly after this prefix. `open` therefore holds
        // the earlier entries whose prefix is a prefix of the current entry.
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

    /// Returns the length of the longest common prefix of `key` and the prefix of any rule, in bytes. Returns `None` if
    /// there are no rules.
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

/// Returns the key of words for [`super::RuleSet::deny_candidates`]. In this key, the program is a file name without a
/// directory.
pub(super) fn key_by_base_name<'a>(words: impl Iterator<Item = &'a str>) -> String {
    key_of_words(words.enumerate().map(|(index, word)| if index == 0 { super::base_name(word) } else { word }))
}

/// Returns the name of a rule as a key. The key ends with a delimiter, so it is not a prefix of the key of a longer
/// name.
pub(super) fn key_of_name(name: &str) -> String {
    key_of_words(std::iter::once(name))
}

/// Returns the length of the common prefix of two texts, in bytes.
fn common(left: &str, right: &str) -> usize {
    left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count()
}
