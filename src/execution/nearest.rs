//! Suggestions for names that do not exist.

/// Maximum number of names that are compared. Comparing more names would take too long for a hint.
const MAX_NAMES: usize = 10_000;

/// Returns the name that is the fewest edits away from `wanted`. An edit adds, removes or replaces a character, or
/// swaps two neighbours. Returns `None` if every name is too many edits away. The maximum depends on the length of
/// `wanted`:
///
/// - up to 2 characters: always `None`
/// - 3 or 4 characters: one edit
/// - 5 or more characters: two edits
///
/// The hint reveals at most one name to the requester: an almost equal name in a namespace in which the requester may
/// create executions.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let maximum = match wanted.len() {
        0..=2 => return None,
        3 | 4 => 1,
        _ => 2,
    };
    let near = names.into_iter().take(MAX_NAMES).filter_map(|name| Some((distance(wanted, name, maximum)?, name)));
    // Of several equally near names, the first one in alphabetical order wins.
    near.min().map(|(_, name)| name)
}

/// Returns the number of edits from one name to another, or `None` if the number exceeds `maximum`.
fn distance(from: &str, to: &str, maximum: usize) -> Option<usize> {
    if from.len().abs_diff(to.len()) > maximum {
        return None;
    }
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, byte) in from.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut edits = at(&last, column) + usize::from(byte != other);
            edits = edits.min(at(&last, column + 1) + 1).min(at(&next, column) + 1);
            if row > 0 && column > 0 && from.get(row - 1) == Some(other) && to.get(column - 1) == Some(byte) {
                edits = edits.min(at(&before, column - 1) + 1);
            }
            next.push(edits);
        }
        if next.iter().min().is_none_or(|least| *least > maximum) {
            return None;
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().filter(|edits| *edits <= maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_with_few_edits() {
        let names = ["db-1", "web-1", "web-2", "web-10", "bastion.example", "a"];
        for (wanted, expected) in [
            ("web1", Some("web-1")),
            ("wbe-1", Some("web-1")),
            ("web-11", Some("web-1")),
            ("web-3", Some("web-1")),
            ("bastoin.exmple", Some("bastion.example")),
            ("bastion", None),
            ("db1", Some("db-1")),
            ("d-1", Some("db-1")),
            ("mail-1", None),
            ("xyz", None),
            ("b", None),
            ("", None),
        ] {
            assert_eq!(nearest(wanted, names), expected, "{wanted}");
        }
        assert_eq!(nearest("web-1", []), None);
    }
}
