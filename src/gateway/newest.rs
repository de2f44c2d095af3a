//! Finds the newest executions of a scan, which is sorted by name. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::list_query::{Position, TimeRange};

/// The newest positions so far. Takes memory only for these.
#[derive(Debug)]
pub struct Newest {
    capacity: usize,
    times: TimeRange,
    /// Position of the last item of the page before. Only older positions count.
    after: Option<Position>,
    /// The oldest kept position is on top.
    kept: BinaryHeap<Reverse<Position>>,
}

impl Newest {
    /// Returns a value without positions, which keeps at most `capacity` positions.
    pub fn new(capacity: usize, times: TimeRange, after: Option<Position>) -> Self {
        Self { capacity, times, after, kept: BinaryHeap::new() }
    }

    /// Keeps a position if it is in the range and newer than another kept position.
    pub fn offer(&mut self, position: Position) {
        let is_older = self.after.as_ref().is_none_or(|after| position < *after);
        if !is_older || !self.times.contains(position.created) {
            return;
        }
        self.kept.push(Reverse(position));
        if self.kept.len() > self.capacity {
            self.kept.pop();
        }
    }

    /// Returns the positions, the newest first.
    pub fn into_positions(self) -> Vec<Position> {
        self.kept.into_sorted_vec().into_iter().map(|Reverse(position)| position).collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn position(second: i64, name: &str) -> Position {
        let created = Timestamp::from_second(second).unwrap();
        Position { created, name: name.to_owned(), uid: format!("uid-{name}") }
    }

    fn names(newest: Newest) -> Vec<String> {
        newest.into_positions().into_iter().map(|position| position.name).collect()
    }

    #[test]
    fn pages_list_each_position_once_and_the_newest_first() {
        let all = [position(5, "a"), position(9, "b"), position(1, "c"), position(9, "d"), position(7, "e")];
        let page = |after: Option<Position>| {
            let mut newest = Newest::new(2, TimeRange::default(), after);
            all.iter().cloned().for_each(|position| newest.offer(position));
            newest.into_positions()
        };
        let (mut listed, mut after) = (Vec::new(), None);
        for _ in 0..3 {
            let found = page(after);
            after = found.last().cloned();
            listed.extend(found.into_iter().map(|position| position.name));
        }
        assert_eq!(listed, ["d", "b", "e", "a", "c"]);
        assert!(page(Some(position(1, "c"))).is_empty());
    }

    #[test]
    fn positions_out_of_the_range_take_no_place() {
        let times = TimeRange { start: Some(position(2, "").created), end: Some(position(4, "").created) };
        let mut newest = Newest::new(2, times, None);
        for second in [9, 4, 3, 2, 1, 8] {
            newest.offer(position(second, &second.to_string()));
        }
        assert_eq!(names(newest), ["4", "3"]);
    }
}
