//! The name that may be meant by one that does not exist.

/// Names that are compared at most: more would take too long for a hint.
const MOST_NAMES: usize = 10_000;

/// Of some names the one nearest to `wanted`, if it is near: one edit for 3 or 4 characters, two for more. An edit adds,
/// removes or replaces a character, or swaps two neighbours. Who asks learns one name that differs by so little from the one
/// they wrote, of a namespace in which they may create executions.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = match wanted.len() {
        0..=2 => return None,
        3 | 4 => 1,
        _ => 2,
    };
    let near = names.into_iter().take(MOST_NAMES).filter_map(|name| Some((distance(wanted, name, most)?, name)));
    // Of several as near, the first by its name: the answer does not depend on their order.
    near.min().map(|(_, name)| name)
}

/// Number of edits from one name to another; `None` if it is more than `most`.
fn distance(from: &str, to: &str, most: usize) -> Option<usize> {
    if from.len().abs_diff(to.len()) > most {
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
        if next.iter().min().is_none_or(|least| *least > most) {
            return None;
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().filter(|edits| *edits <= most)
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
