//! How updates of the venue's books chain to each other and to a REST snapshot (sheet section 6).
//!
//! Spot: "How to manage a local order book correctly" of `web-socket-streams.md`. USD-M: the page of the same name of the
//! futures documentation.

use fathom_market::{
    book::{Align, BookPosition, Link, SyncRule},
    event::SeqIds,
};

/// Spot: ids are consecutive, `U` is the previous `u` plus one. There is no `pu`.
#[derive(Clone, Copy, Debug)]
pub struct SpotSync;

impl SyncRule for SpotSync {
    fn chain(&self, prev: &SeqIds, next: &SeqIds) -> Link {
        self.follows(BookPosition { last_id: prev.last, from_snapshot: false }, next)
    }

    fn align(&self, snapshot_id: u64, ids: &SeqIds) -> Align {
        if ids.last <= snapshot_id {
            return Align::Old;
        }
        if ids.first <= snapshot_id.saturating_add(1) { Align::Joins } else { Align::Ahead }
    }

    fn follows(&self, book: BookPosition, ids: &SeqIds) -> Link {
        match self.align(book.last_id, ids) {
            Align::Old => Link::Duplicate,
            Align::Joins => Link::Next,
            Align::Ahead => Link::Gap { expected: book.last_id.saturating_add(1), got: ids.first },
        }
    }
}

/// USD-M futures: ids of one symbol are not consecutive; `pu` names the `u` of the event before.
#[derive(Clone, Copy, Debug)]
pub struct FuturesSync;

/// `pu`; a negative one (recorded: -1) means that there was no event before.
fn previous(ids: &SeqIds) -> Option<u64> {
    ids.prev.map(|prev| u64::try_from(prev).unwrap_or(0))
}

fn gap(expected: u64, ids: &SeqIds) -> Link {
    Link::Gap { expected, got: previous(ids).unwrap_or(ids.first) }
}

impl SyncRule for FuturesSync {
    fn chain(&self, prev: &SeqIds, next: &SeqIds) -> Link {
        self.follows(BookPosition { last_id: prev.last, from_snapshot: false }, next)
    }

    /// The official condition is `U <= id <= u`; `pu <= id <= u` holds where the snapshot falls between two events too,
    /// and is safe because quantities are absolute.
    fn align(&self, snapshot_id: u64, ids: &SeqIds) -> Align {
        if ids.last < snapshot_id {
            return Align::Old;
        }
        let reaches_back = ids.first <= snapshot_id || previous(ids).is_some_and(|prev| prev <= snapshot_id);
        if reaches_back { Align::Joins } else { Align::Ahead }
    }

    fn follows(&self, book: BookPosition, ids: &SeqIds) -> Link {
        if book.from_snapshot {
            return match self.align(book.last_id, ids) {
                Align::Old => Link::Duplicate,
                Align::Joins => Link::Next,
                Align::Ahead => gap(book.last_id, ids),
            };
        }
        if previous(ids) == Some(book.last_id) {
            Link::Next
        } else if ids.last <= book.last_id {
            Link::Duplicate
        } else {
            gap(book.last_id, ids)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(first: u64, last: u64, prev: Option<i64>) -> SeqIds {
        SeqIds { first, last, prev }
    }

    #[test]
    fn spot_updates_are_consecutive() {
        let cases = [
            (ids(157, 160, None), Align::Old),
            (ids(158, 161, None), Align::Joins),
            (ids(161, 165, None), Align::Joins),
            (ids(162, 165, None), Align::Ahead),
        ];
        for (ids, align) in cases {
            assert_eq!(SpotSync.align(160, &ids), align, "{ids:?}");
        }
        let prev = ids(157, 160, None);
        assert_eq!(SpotSync.chain(&prev, &ids(161, 161, None)), Link::Next);
        assert_eq!(SpotSync.chain(&prev, &ids(158, 160, None)), Link::Duplicate);
        assert_eq!(SpotSync.chain(&prev, &ids(163, 170, None)), Link::Gap { expected: 161, got: 163 });
    }

    /// Ids as recorded in 2024: `U` lies far above the snapshot although nothing is missing.
    #[test]
    fn futures_updates_name_their_predecessor() {
        let cases = [
            (ids(100, 149, Some(90)), Align::Old),
            (ids(100, 150, Some(90)), Align::Joins),
            (ids(140, 170, Some(139)), Align::Joins),
            (ids(900, 950, Some(150)), Align::Joins),
            (ids(900, 950, Some(151)), Align::Ahead),
            (ids(1, 150, Some(-1)), Align::Joins),
            (ids(900, 950, None), Align::Ahead),
        ];
        for (ids, align) in cases {
            assert_eq!(FuturesSync.align(150, &ids), align, "{ids:?}");
        }
        let prev = ids(100, 150, Some(90));
        assert_eq!(FuturesSync.chain(&prev, &ids(900, 950, Some(150))), Link::Next);
        assert_eq!(
            FuturesSync.chain(&prev, &ids(151, 160, Some(149))),
            Link::Gap { expected: 150, got: 149 }
        );
        assert_eq!(FuturesSync.chain(&prev, &ids(100, 150, Some(90))), Link::Duplicate);
        let on_snapshot = BookPosition { last_id: 150, from_snapshot: true };
        assert_eq!(FuturesSync.follows(on_snapshot, &ids(140, 170, Some(139))), Link::Next);
        assert_eq!(
            FuturesSync.follows(on_snapshot, &ids(900, 950, Some(151))),
            Link::Gap { expected: 150, got: 151 }
        );
    }
}
