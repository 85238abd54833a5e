//! From when on each sorted set is known to hold every row that was accepted. Pure.
//!
//! A set answers for the store only where nothing can be missing in it: from the first row that was written since the
//! connection was made, as long as nothing failed, was dropped, or came out of order. A marker in the set itself, named
//! after the connection, tells whether it is still the one that was written.

use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    since_ms: i64,
    last_ms: i64,
}

/// What to do with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The set is begun with it: write the marker too.
    First,
    /// It follows what is there.
    Next,
    /// It is there already; the first one counts, as in the store.
    Known,
    /// It is older than what is there.
    Late,
}

/// The sets that are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sets {
    known: HashMap<String, Known>,
    marker: String,
}

impl Sets {
    /// Nothing is known any more; sets are begun anew, under another marker.
    pub(crate) fn begin(&mut self, marker: String) {
        self.known.clear();
        self.marker = marker;
    }

    pub(crate) fn marker(&self) -> &str {
        &self.marker
    }

    /// What a row at this time is to its set.
    pub(crate) fn place(&self, key: &str, at_ms: i64) -> Entry {
        match self.known.get(key) {
            None => Entry::First,
            Some(known) if at_ms > known.last_ms => Entry::Next,
            Some(known) if at_ms == known.last_ms => Entry::Known,
            Some(_) => Entry::Late,
        }
    }

    /// A row was written.
    pub(crate) fn wrote(&mut self, key: &str, at_ms: i64) {
        match self.known.get_mut(key) {
            None => {
                self.known.insert(key.to_owned(), Known { since_ms: at_ms, last_ms: at_ms });
            }
            Some(known) if at_ms < known.last_ms => known.since_ms = known.last_ms + 1,
            Some(known) => known.last_ms = at_ms,
        }
    }

    /// From when on the set is complete; `None` where nothing is known of it.
    pub(crate) fn since(&self, key: &str) -> Option<i64> {
        self.known.get(key).map(|known| known.since_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_complete_from_its_first_row_and_after_one_that_came_late() {
        let mut sets = Sets::default();
        sets.begin("a".into());
        assert_eq!((sets.place("k", 60), sets.since("k")), (Entry::First, None));
        sets.wrote("k", 60);
        assert_eq!((sets.place("k", 60), sets.place("k", 120)), (Entry::Known, Entry::Next));
        sets.wrote("k", 180);
        assert_eq!((sets.since("k"), sets.place("k", 120)), (Some(60), Entry::Late));
        sets.wrote("k", 120);
        assert_eq!(sets.since("k"), Some(181), "what lies before may not be in order");
        sets.begin("b".into());
        assert_eq!((sets.since("k"), sets.marker()), (None, "b"));
    }
}
