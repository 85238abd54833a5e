//! How a venue's updates chain to each other and to a snapshot: the rule is the venue's, the questions are ours.

use crate::event::SeqIds;

/// How an update stands to what came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It follows, nothing is missing.
    Next,
    /// All of it is already contained.
    Duplicate,
    /// Something between is missing.
    Gap {
        /// The id that would have followed.
        expected: u64,
        /// The id that came.
        got: u64,
    },
}

/// How an update stands to a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// The snapshot contains it: drop it.
    Old,
    /// It is the first one to be applied on the snapshot.
    Joins,
    /// The snapshot is too old: something between is missing.
    Ahead,
}

/// Up to where a book has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookPosition {
    /// The last update id that the book contains.
    pub last_id: u64,
    /// True while no update was applied since the snapshot; many venues chain the first update differently.
    pub from_snapshot: bool,
}

/// A venue's sequence rule. Implementations are pure and hold no state of a book.
pub trait SyncRule: Send + Sync {
    /// Does `next` follow an event that ended at `prev` on one line?
    fn chain(&self, prev: &SeqIds, next: &SeqIds) -> Link;

    /// How does an update stand to a snapshot with this id?
    fn align(&self, snapshot_id: u64, ids: &SeqIds) -> Align;

    /// How does an update stand to a live book?
    fn follows(&self, book: BookPosition, ids: &SeqIds) -> Link;
}

/// The chain of one stream on one line (connection). It is checked before lines are merged, so that a loss on one line
/// is seen even where another line fills it.
///
/// A [`Link::Duplicate`] is passed on to the book all the same: only there a replay can be told from ids that a venue
/// has set back.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineChain {
    last: Option<SeqIds>,
}

impl LineChain {
    /// A chain that accepts any first event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the next event of the line. After a gap the chain goes on from the event that revealed it.
    pub fn check(&mut self, rule: &dyn SyncRule, ids: &SeqIds) -> Link {
        let link = self.last.map_or(Link::Next, |last| rule.chain(&last, ids));
        if link != Link::Duplicate {
            self.last = Some(*ids);
        }
        link
    }

    /// Forgets the line's past, as after a reconnect.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// The last event of the line.
    pub fn last(&self) -> Option<SeqIds> {
        self.last
    }
}

#[cfg(test)]
pub(crate) mod test_rules {
    //! The rules of `binance.md` sections 6.1 and 6.2, as the tests' own reading of them.

    use super::*;

    /// `U` and `u`, consecutive.
    pub(crate) struct SpotRule;

    impl SyncRule for SpotRule {
        fn chain(&self, prev: &SeqIds, next: &SeqIds) -> Link {
            self.follows(BookPosition { last_id: prev.last, from_snapshot: false }, next)
        }

        fn align(&self, snapshot_id: u64, ids: &SeqIds) -> Align {
            if ids.last <= snapshot_id {
                Align::Old
            } else if ids.first <= snapshot_id + 1 {
                Align::Joins
            } else {
                Align::Ahead
            }
        }

        fn follows(&self, book: BookPosition, ids: &SeqIds) -> Link {
            match self.align(book.last_id, ids) {
                Align::Old => Link::Duplicate,
                Align::Joins => Link::Next,
                Align::Ahead => Link::Gap { expected: book.last_id + 1, got: ids.first },
            }
        }
    }

    /// `pu` names the event before; ids are not consecutive.
    pub(crate) struct FuturesRule;

    fn previous(ids: &SeqIds) -> u64 {
        ids.prev.and_then(|prev| u64::try_from(prev).ok()).unwrap_or(0)
    }

    impl SyncRule for FuturesRule {
        fn chain(&self, prev: &SeqIds, next: &SeqIds) -> Link {
            self.follows(BookPosition { last_id: prev.last, from_snapshot: false }, next)
        }

        fn align(&self, snapshot_id: u64, ids: &SeqIds) -> Align {
            if ids.last < snapshot_id {
                Align::Old
            } else if previous(ids) <= snapshot_id || ids.first <= snapshot_id {
                Align::Joins
            } else {
                Align::Ahead
            }
        }

        fn follows(&self, book: BookPosition, ids: &SeqIds) -> Link {
            let gap = Link::Gap { expected: book.last_id, got: previous(ids) };
            if book.from_snapshot {
                return match self.align(book.last_id, ids) {
                    Align::Old => Link::Duplicate,
                    Align::Joins => Link::Next,
                    Align::Ahead => gap,
                };
            }
            if previous(ids) == book.last_id {
                Link::Next
            } else if ids.last <= book.last_id {
                Link::Duplicate
            } else {
                gap
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{test_rules::SpotRule, *};

    #[test]
    fn a_line_goes_on_after_its_gap() {
        let ids = |first, last| SeqIds { first, last, prev: None };
        let mut line = LineChain::new();
        let cases = [
            (ids(5, 7), Link::Next),
            (ids(8, 8), Link::Next),
            (ids(6, 8), Link::Duplicate),
            (ids(8, 9), Link::Next),
            (ids(12, 13), Link::Gap { expected: 10, got: 12 }),
            (ids(14, 14), Link::Next),
        ];
        for (next, link) in cases {
            assert_eq!(line.check(&SpotRule, &next), link, "{next:?}");
        }
        assert_eq!(line.last(), Some(ids(14, 14)));
        line.reset();
        assert_eq!(line.check(&SpotRule, &ids(1, 2)), Link::Next);
    }
}
