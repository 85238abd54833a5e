use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    book::sync::test_rules::{FuturesRule, SpotRule},
    event::{Level, SeqIds},
};

fn level(price: i64, qty: i64) -> Level {
    Level { price, qty }
}

fn keeper(rule: &'static dyn SyncRule) -> BookKeeper {
    BookKeeper::new(rule, KeeperLimits { buffer: 4, max_levels: 50, max_backwards: 1000 }, 0)
}

fn spot(first: u64, last: u64) -> BookDelta {
    BookDelta { ids: SeqIds { first, last, prev: None }, bids: vec![level(10, 1)], asks: Vec::new() }
}

fn futures(prev: i64, first: u64, last: u64) -> BookDelta {
    BookDelta { ids: SeqIds { first, last, prev: Some(prev) }, bids: vec![level(10, 1)], asks: Vec::new() }
}

fn snapshot(last_id: u64) -> BookSnapshot {
    BookSnapshot { last_id, bids: vec![level(9, 5)], asks: vec![level(20, 5)], limit: 100 }
}

fn live(rule: &'static dyn SyncRule, last_id: u64) -> BookKeeper {
    let mut keeper = keeper(rule);
    let epoch = keeper.begin_sync();
    assert_eq!(keeper.on_snapshot(&snapshot(last_id), epoch, 0), Step::Synced { replayed: 0, dropped: 0 });
    keeper
}

/// Buffered ids, the snapshot's id, the outcome, the book's id after it.
type Start<I> = (&'static [I], u64, Step, Option<u64>);

#[test]
fn spot_starts_as_the_sheet_says() {
    let too_old = Step::NeedSnapshot { cause: Cause::SnapshotTooOld };
    // Ids are (U, u).
    let cases: &[Start<(u64, u64)>] = &[
        (&[(101, 103), (104, 104)], 99, too_old, None),
        (&[(101, 103), (104, 104)], 100, Step::Synced { replayed: 2, dropped: 0 }, Some(104)),
        (&[(101, 103), (104, 104)], 102, Step::Synced { replayed: 2, dropped: 0 }, Some(104)),
        (&[(101, 103), (104, 104)], 103, Step::Synced { replayed: 1, dropped: 1 }, Some(104)),
        (&[(101, 103), (104, 104)], 104, Step::Synced { replayed: 0, dropped: 2 }, Some(104)),
        (&[(101, 103), (104, 104)], 120, Step::Synced { replayed: 0, dropped: 2 }, Some(120)),
        (&[], 7, Step::Synced { replayed: 0, dropped: 0 }, Some(7)),
    ];
    for (buffered, id, step, last_id) in cases {
        let mut keeper = keeper(&SpotRule);
        let epoch = keeper.begin_sync();
        for &(first, last) in *buffered {
            assert_eq!(keeper.on_delta(spot(first, last), None, 1), Step::Buffered);
        }
        assert_eq!(keeper.on_snapshot(&snapshot(*id), epoch, 2), *step, "snapshot {id}");
        assert_eq!((keeper.last_id(), keeper.needs_snapshot()), (*last_id, last_id.is_none()));
        assert_eq!(keeper.live_book().is_some(), last_id.is_some());
    }
}

#[test]
fn futures_start_as_the_sheet_says() {
    let too_old = Step::NeedSnapshot { cause: Cause::SnapshotTooOld };
    // Ids are (pu, U, u): the recorded kinds are `u` equal to the snapshot's id, and `U` equal to it.
    let cases: &[Start<(i64, u64, u64)>] = &[
        (&[(90, 150, 160), (160, 190, 200)], 80, too_old, None),
        (&[(90, 150, 160), (160, 190, 200)], 90, Step::Synced { replayed: 2, dropped: 0 }, Some(200)),
        (&[(90, 150, 160), (160, 190, 200)], 150, Step::Synced { replayed: 2, dropped: 0 }, Some(200)),
        (&[(90, 150, 160), (160, 190, 200)], 160, Step::Synced { replayed: 2, dropped: 0 }, Some(200)),
        (&[(90, 150, 160), (160, 190, 200)], 170, Step::Synced { replayed: 1, dropped: 1 }, Some(200)),
        (&[(90, 150, 160)], 170, Step::Synced { replayed: 0, dropped: 1 }, Some(170)),
        (&[(-1, 150, 160)], 160, Step::Synced { replayed: 1, dropped: 0 }, Some(160)),
    ];
    for (buffered, id, step, last_id) in cases {
        let mut keeper = keeper(&FuturesRule);
        let epoch = keeper.begin_sync();
        for &(prev, first, last) in *buffered {
            assert_eq!(keeper.on_delta(futures(prev, first, last), None, 1), Step::Buffered);
        }
        assert_eq!(keeper.on_snapshot(&snapshot(*id), epoch, 2), *step, "snapshot {id}");
        assert_eq!(keeper.last_id(), *last_id);
    }
}

#[test]
fn a_live_book_follows_its_chain() {
    let mut spot_book = live(&SpotRule, 100);
    assert_eq!(spot_book.on_delta(spot(95, 100), Some(5), 5), Step::Ignored(IgnoreReason::Duplicate));
    assert_eq!(spot_book.on_delta(spot(99, 102), Some(6), 7), Step::Applied);
    assert_eq!(
        (spot_book.last_id(), spot_book.last_event_us(), spot_book.last_recv_us()),
        (Some(102), Some(6), Some(7))
    );
    assert_eq!(spot_book.book().best_bid(), Some(level(10, 1)));
    assert_eq!(spot_book.on_delta(spot(104, 105), Some(8), 9), Step::Gap { expected: 103, got: 104 });
    assert_eq!((spot_book.state(), spot_book.since_us()), (BookState::Syncing, 9));
    assert_eq!(spot_book.cause(), Cause::Gap { expected: 103, got: 104 });
    assert!(spot_book.book().is_empty() && spot_book.last_id().is_none() && spot_book.needs_snapshot());
    assert_eq!(spot_book.n_buffered(), 1, "buffering goes on from the update that revealed the gap");

    let mut futures_book = live(&FuturesRule, 170);
    assert_eq!(
        futures_book.on_delta(futures(160, 165, 169), None, 5),
        Step::Ignored(IgnoreReason::Duplicate)
    );
    assert_eq!(futures_book.on_delta(futures(160, 190, 200), None, 5), Step::Applied);
    assert_eq!(
        futures_book.on_delta(futures(160, 190, 200), None, 5),
        Step::Ignored(IgnoreReason::Duplicate)
    );
    assert_eq!(futures_book.on_delta(futures(200, 7000, 7100), None, 5), Step::Applied);
    assert_eq!(
        futures_book.on_delta(futures(7101, 7102, 7103), None, 5),
        Step::Gap { expected: 7100, got: 7101 }
    );
}

#[test]
fn a_gap_in_the_buffer_keeps_the_attempt() {
    let mut keeper = keeper(&SpotRule);
    let epoch = keeper.begin_sync();
    keeper.on_delta(spot(1, 5), None, 1);
    assert_eq!(keeper.on_delta(spot(8, 9), None, 1), Step::Gap { expected: 6, got: 8 });
    assert_eq!(keeper.on_delta(spot(8, 9), None, 1), Step::Ignored(IgnoreReason::Duplicate));
    assert_eq!(keeper.open_attempt(), Some(epoch));
    assert_eq!(
        keeper.on_snapshot(&snapshot(5), epoch, 2),
        Step::NeedSnapshot { cause: Cause::SnapshotTooOld }
    );
    assert_eq!(keeper.failed_attempts(), 1);
    let epoch = keeper.begin_sync();
    assert_eq!(keeper.on_snapshot(&snapshot(7), epoch, 3), Step::Synced { replayed: 1, dropped: 0 });
    assert_eq!((keeper.failed_attempts(), keeper.state(), keeper.since_us()), (0, BookState::Live, 3));
}

#[test]
fn answers_to_attempts_given_up_are_ignored() {
    let mut keeper = keeper(&SpotRule);
    let first = keeper.begin_sync();
    let second = keeper.begin_sync();
    let ignored = Step::Ignored(IgnoreReason::OldEpoch);
    assert_eq!(keeper.on_snapshot(&snapshot(5), first, 1), ignored);
    assert_eq!(keeper.snapshot_failed(first), ignored);
    assert_eq!(keeper.snapshot_failed(second), Step::NeedSnapshot { cause: Cause::SnapshotFailed });
    assert_eq!(keeper.on_snapshot(&snapshot(5), second, 1), ignored);
    let third = keeper.begin_sync();
    keeper.reset(Cause::Disconnected, 2);
    assert_eq!(keeper.on_snapshot(&snapshot(5), third, 3), ignored);
    assert!(keeper.needs_snapshot());
}

#[test]
fn a_full_buffer_restarts_the_attempt() {
    let mut keeper = keeper(&SpotRule);
    let epoch = keeper.begin_sync();
    for id in 1..=4 {
        assert_eq!(keeper.on_delta(spot(id, id), None, 1), Step::Buffered);
    }
    assert_eq!(keeper.on_delta(spot(5, 5), None, 1), Step::NeedSnapshot { cause: Cause::BufferOverflow });
    assert_eq!((keeper.n_buffered(), keeper.counters().overflows, keeper.needs_snapshot()), (1, 1, true));
    assert_eq!(keeper.on_snapshot(&snapshot(0), epoch, 1), Step::Ignored(IgnoreReason::OldEpoch));
    let epoch = keeper.begin_sync();
    assert_eq!(keeper.on_snapshot(&snapshot(4), epoch, 1), Step::Synced { replayed: 1, dropped: 0 });
}

#[test]
fn a_crossed_book_is_never_live() {
    let mut keeper = live(&SpotRule, 100);
    let mut crossing = spot(101, 101);
    crossing.bids = vec![level(20, 1)];
    assert_eq!(keeper.on_delta(crossing, None, 4), Step::NeedSnapshot { cause: Cause::Crossed });
    assert_eq!(
        (keeper.state(), keeper.since_us(), keeper.live_book().is_some()),
        (BookState::Crossed, 4, false)
    );
    assert_eq!((keeper.counters().crossed, keeper.counters().resyncs), (1, 1));

    let epoch = keeper.begin_sync();
    let mut crossed = snapshot(101);
    crossed.asks = vec![level(9, 1)];
    assert_eq!(keeper.on_snapshot(&crossed, epoch, 5), Step::NeedSnapshot { cause: Cause::Crossed });
    assert_eq!(keeper.state(), BookState::Crossed);

    let epoch = keeper.begin_sync();
    assert_eq!(keeper.on_snapshot(&snapshot(101), epoch, 6), Step::Synced { replayed: 0, dropped: 1 });
}

#[test]
fn an_empty_snapshot_is_a_book() {
    let mut keeper = keeper(&SpotRule);
    let epoch = keeper.begin_sync();
    let empty = BookSnapshot { last_id: 3, bids: Vec::new(), asks: Vec::new(), limit: 100 };
    assert_eq!(keeper.on_snapshot(&empty, epoch, 1), Step::Synced { replayed: 0, dropped: 0 });
    assert_eq!(keeper.state(), BookState::Live);
    assert!(keeper.book().is_empty());
}

#[test]
fn impossible_levels_make_a_book_resync() {
    let error = BookError::BadPrice { price: -1 };
    let mut bad = spot(101, 101);
    bad.asks = vec![level(-1, 1)];
    let mut keeper = live(&SpotRule, 100);
    assert_eq!(keeper.on_delta(bad.clone(), None, 1), Step::Refused(error));
    assert_eq!(
        (keeper.state(), keeper.cause(), keeper.n_buffered()),
        (BookState::Syncing, Cause::Refused(error), 0)
    );
    keeper.on_delta(spot(100, 100), None, 1);
    assert_eq!(keeper.on_delta(bad, None, 1), Step::Refused(error));
    assert_eq!(keeper.n_buffered(), 0, "a buffer with a hole is useless");

    let epoch = keeper.begin_sync();
    let mut large = snapshot(200);
    large.bids = (1..=51).map(|price| level(price, 1)).collect();
    large.asks = Vec::new();
    let too_many = Cause::Refused(BookError::TooManyLevels { levels: 51, limit: 50 });
    assert_eq!(keeper.on_snapshot(&large, epoch, 2), Step::NeedSnapshot { cause: too_many });
    assert_eq!(keeper.counters().refused, 3);
}

#[test]
fn ids_that_were_set_back_are_no_replay() {
    const SECOND: i64 = 1_000_000;
    let reset = Step::NeedSnapshot { cause: Cause::IdsReset };
    let replay = Step::Ignored(IgnoreReason::Duplicate);
    let mut keeper = live(&SpotRule, 100);
    assert_eq!(
        keeper.on_delta(spot(90, 95), Some(99 * SECOND), 1),
        replay,
        "a snapshot can be ahead of the stream"
    );
    assert_eq!(keeper.on_delta(spot(101, 101), Some(10 * SECOND), 1), Step::Applied);
    assert_eq!(keeper.on_delta(spot(101, 101), Some(10 * SECOND), 1), replay);
    assert_eq!(keeper.on_delta(spot(90, 95), Some(9 * SECOND), 1), replay);
    assert_eq!(keeper.on_delta(spot(1, 2), Some(12 * SECOND), 1), reset);
    assert_eq!((keeper.state(), keeper.n_buffered()), (BookState::Syncing, 1));
    assert_eq!(keeper.on_delta(spot(3, 4), Some(13 * SECOND), 1), Step::Buffered);

    let mut timeless = live(&SpotRule, 5000);
    assert_eq!(timeless.on_delta(spot(4000, 4000), None, 1), replay);
    assert_eq!(timeless.on_delta(spot(3999, 3999), None, 1), reset);
}

#[test]
fn a_refresh_leaves_the_book_live() {
    let mut keeper = live(&SpotRule, 100);
    let epoch = keeper.begin_sync();
    assert_eq!(keeper.on_delta(spot(101, 102), None, 1), Step::Applied);
    let too_old = Step::NeedSnapshot { cause: Cause::SnapshotTooOld };
    assert_eq!(keeper.on_snapshot(&snapshot(99), epoch, 2), too_old);
    assert_eq!(
        (keeper.state(), keeper.last_id(), keeper.needs_snapshot()),
        (BookState::Live, Some(102), false)
    );

    assert_eq!(keeper.on_delta(spot(103, 103), None, 3), Step::Applied);
    let epoch = keeper.begin_sync();
    let mut deeper = snapshot(100);
    deeper.bids.push(level(8, 8));
    assert_eq!(keeper.on_snapshot(&deeper, epoch, 4), Step::Synced { replayed: 2, dropped: 0 });
    assert_eq!((keeper.last_id(), keeper.book().n_bids(), keeper.since_us()), (Some(103), 3, 0));
    assert_eq!((keeper.counters().resyncs, keeper.counters().synced), (0, 2));

    // With nothing buffered, an older snapshot must not take the book back.
    let epoch = keeper.begin_sync();
    assert_eq!(keeper.on_snapshot(&snapshot(102), epoch, 5), too_old);
    assert_eq!(keeper.on_delta(spot(104, 104), None, 6), Step::Applied);

    // A full buffer ends the refresh, not the book.
    let epoch = keeper.begin_sync();
    for id in 105..=109 {
        assert_eq!(keeper.on_delta(spot(id, id), None, 7), Step::Applied);
    }
    assert_eq!((keeper.counters().overflows, keeper.open_attempt()), (1, None));
    assert_eq!(keeper.on_snapshot(&snapshot(108), epoch, 8), Step::Ignored(IgnoreReason::OldEpoch));
    assert_eq!(keeper.state(), BookState::Live);
}

#[test]
fn a_book_that_leaves_its_known_range_asks_for_more() {
    let mut keeper = keeper(&SpotRule);
    let epoch = keeper.begin_sync();
    let mut shallow = snapshot(1);
    shallow.bids = vec![level(9, 1), level(8, 1), level(7, 1)];
    shallow.limit = 3;
    keeper.on_snapshot(&shallow, epoch, 1);
    assert!(!keeper.needs_deeper_snapshot(2));
    let mut eaten = spot(2, 2);
    eaten.bids = vec![level(9, 0), level(8, 0), level(5, 1)];
    assert_eq!(keeper.on_delta(eaten, None, 2), Step::Applied);
    assert!(keeper.needs_deeper_snapshot(2) && !keeper.needs_deeper_snapshot(1));
    keeper.begin_sync();
    assert!(!keeper.needs_deeper_snapshot(2), "one attempt at a time");
}

#[test]
fn stale_paused_and_polled_books_are_not_live() {
    let mut keeper = live(&SpotRule, 100);
    keeper.mark_stale(Cause::Silent, 5);
    assert_eq!((keeper.state(), keeper.since_us(), keeper.cause()), (BookState::Stale, 5, Cause::Silent));
    assert!(keeper.needs_snapshot() && keeper.live_book().is_none() && !keeper.book().is_empty());
    assert_eq!(keeper.on_delta(spot(101, 101), None, 6), Step::Buffered);
    let epoch = keeper.begin_sync();
    assert_eq!(keeper.state(), BookState::Stale);
    assert_eq!(keeper.on_snapshot(&snapshot(100), epoch, 7), Step::Synced { replayed: 1, dropped: 0 });

    keeper.pause(8);
    let paused = Step::Ignored(IgnoreReason::Paused);
    let epoch = keeper.begin_sync();
    assert_eq!(keeper.on_delta(spot(102, 102), None, 9), paused);
    assert_eq!(keeper.on_snapshot(&snapshot(102), epoch, 9), Step::Ignored(IgnoreReason::OldEpoch));
    let steps =
        [keeper.reset(Cause::Disconnected, 9), keeper.mark_stale(Cause::Silent, 9), keeper.on_gap(1, 2, 9)];
    assert_eq!(steps, [paused; 3]);
    assert!(!keeper.needs_snapshot() && keeper.book().is_empty());
    keeper.resume(10);
    assert!(keeper.needs_snapshot());

    assert!(keeper.on_polled(&snapshot(7), 11) == Step::Synced { replayed: 0, dropped: 0 });
    assert_eq!((keeper.state(), keeper.cause()), (BookState::Polled, Cause::Operator));
}

#[test]
fn a_polled_book_is_replaced_by_the_next_poll_and_by_its_stream() {
    let synced = Step::Synced { replayed: 0, dropped: 0 };
    let mut keeper = live(&SpotRule, 6);
    assert_eq!(keeper.on_polled(&snapshot(7), 9), Step::Ignored(IgnoreReason::Live));
    keeper.reset(Cause::Disconnected, 10);
    assert_eq!(keeper.on_polled(&snapshot(7), 11), synced);
    assert_eq!(keeper.on_polled(&snapshot(8), 12), synced);
    let shown = (keeper.state(), keeper.since_us(), keeper.last_id(), keeper.cause(), keeper.last_recv_us());
    assert_eq!(shown, (BookState::Polled, 11, Some(8), Cause::Disconnected, Some(12)));
    assert!(keeper.live_book().is_none() && keeper.counters().polled == 2);

    // Its line fails to come back: what was polled is still as good.
    keeper.reset(Cause::Disconnected, 13);
    assert_eq!((keeper.state(), keeper.last_id()), (BookState::Polled, Some(8)));
    let mut crossed = snapshot(9);
    crossed.bids = vec![level(1000, 1)];
    assert_eq!(keeper.on_polled(&crossed, 14), Step::NeedSnapshot { cause: Cause::Crossed });
    assert_eq!((keeper.state(), keeper.last_id()), (BookState::Polled, Some(8)));

    // Its stream is back: it stays polled, and is still polled, until snapshot and updates are joined.
    assert_eq!(keeper.on_delta(spot(21, 22), None, 20), Step::Buffered);
    assert!(keeper.needs_snapshot());
    let epoch = keeper.begin_sync();
    assert!(!keeper.needs_snapshot());
    assert_eq!(keeper.on_polled(&snapshot(21), 21), synced);
    assert_eq!(keeper.on_delta(spot(23, 23), None, 22), Step::Buffered);
    assert_eq!(keeper.on_snapshot(&snapshot(20), epoch, 23), Step::Synced { replayed: 2, dropped: 0 });
    assert_eq!((keeper.state(), keeper.last_id()), (BookState::Live, Some(23)));

    keeper.reset(Cause::Disconnected, 30);
    keeper.on_polled(&snapshot(40), 31);
    keeper.on_delta(spot(50, 51), None, 32);
    let epoch = keeper.begin_sync();
    assert!(matches!(keeper.on_delta(spot(60, 61), None, 33), Step::Gap { expected: 52, got: 60 }));
    assert_eq!(
        keeper.state(),
        BookState::Polled,
        "a break of what is buffered says nothing of the polled book"
    );
    assert_eq!(keeper.on_snapshot(&snapshot(60), epoch, 34), Step::Synced { replayed: 1, dropped: 0 });
    keeper.reset(Cause::Disconnected, 40);
    keeper.on_polled(&snapshot(70), 41);
    keeper.mark_stale(Cause::Silent, 99);
    assert_eq!((keeper.state(), keeper.cause()), (BookState::Stale, Cause::Silent));
}

/// One change of the exchange's book; quantities and ids are the exchange's.
#[derive(Clone, Copy, Debug)]
struct Change {
    id: u64,
    is_bid: bool,
    level: Level,
}

/// An exchange that knows its book at every id. Bids stay below 50 and asks above, so it never crosses.
struct Exchange {
    changes: Vec<Change>,
    events: Vec<BookDelta>,
}

impl Exchange {
    /// `raw`: for each event its changes; `steps`: what an id grows by (futures) or one (spot).
    fn new(raw: &[Vec<(bool, i64, i64, u64)>], consecutive: bool) -> Self {
        let (mut changes, mut events) = (Vec::new(), Vec::new());
        let (mut id, mut last_event) = (100, 100_u64);
        for event in raw {
            let start = changes.len();
            for &(is_bid, price, qty, step) in event {
                id += if consecutive { 1 } else { step };
                let price = if is_bid { price } else { price + 50 };
                changes.push(Change { id, is_bid, level: level(price, qty) });
            }
            let own = &changes[start..];
            let side = |bids: bool| {
                own.iter().filter(|change| change.is_bid == bids).map(|change| change.level).collect()
            };
            let prev = (!consecutive).then_some(last_event.cast_signed());
            events.push(BookDelta {
                ids: SeqIds { first: own[0].id, last: id, prev },
                bids: side(true),
                asks: side(false),
            });
            last_event = id;
        }
        Self { changes, events }
    }

    fn at(&self, id: u64) -> (Vec<Level>, Vec<Level>) {
        let mut sides = [BTreeMap::new(), BTreeMap::new()];
        for change in self.changes.iter().take_while(|change| change.id <= id) {
            let side = &mut sides[usize::from(change.is_bid)];
            match change.level.qty {
                0 => side.remove(&change.level.price),
                qty => side.insert(change.level.price, qty),
            };
        }
        let [asks, bids] = sides;
        let flat = |(price, qty)| level(price, qty);
        (bids.into_iter().rev().map(flat).collect(), asks.into_iter().map(flat).collect())
    }

    fn snapshot(&self, id: u64) -> BookSnapshot {
        let (bids, asks) = self.at(id);
        BookSnapshot { last_id: id, bids, asks, limit: 1000 }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Deliver,
    Drop,
    Replay(usize),
    Begin,
    /// The newest snapshot minus a lag in changes.
    Answer(usize),
    LateAnswer,
    Fail,
    Stale,
    Reset,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => Just(Act::Deliver),
        1 => Just(Act::Drop),
        2 => (1_usize..6).prop_map(Act::Replay),
        3 => Just(Act::Begin),
        4 => (0_usize..12).prop_map(Act::Answer),
        1 => Just(Act::LateAnswer),
        1 => Just(Act::Fail),
        1 => Just(Act::Stale),
        1 => Just(Act::Reset),
    ];
    proptest::collection::vec(act, 1..150)
}

fn events() -> impl Strategy<Value = Vec<Vec<(bool, i64, i64, u64)>>> {
    let change = (any::<bool>(), 1_i64..50, prop_oneof![1 => Just(0), 2 => 1_i64..100], 1_u64..40);
    proptest::collection::vec(proptest::collection::vec(change, 1..5), 160)
}

struct Run {
    exchange: Exchange,
    keeper: BookKeeper,
    sent: usize,
}

impl Run {
    fn deliver(&mut self, event: usize) -> Step {
        let time = i64::try_from(event).unwrap() * 100_000;
        self.keeper.on_delta(self.exchange.events[event].clone(), Some(time), time)
    }

    /// What a snapshot shows is ahead of the stream by up to one event, and `lag` changes behind that.
    fn answer(&mut self, epoch: u64, lag: usize) -> Step {
        let newest = self.exchange.events[self.sent.min(self.exchange.events.len() - 1)].ids.last;
        let known = self.exchange.changes.partition_point(|change| change.id <= newest);
        let id = self.exchange.changes[known.saturating_sub(1 + lag)].id;
        let snapshot = self.exchange.snapshot(id);
        self.keeper.on_snapshot(&snapshot, epoch, 0)
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Deliver => {
                self.deliver(self.sent);
                self.sent += 1;
            }
            Act::Drop => self.sent += 1,
            Act::Replay(back) => {
                if let Some(event) = self.sent.checked_sub(back) {
                    self.deliver(event);
                }
            }
            Act::Begin => {
                self.keeper.begin_sync();
            }
            Act::Answer(lag) => {
                if let Some(epoch) = self.keeper.open_attempt() {
                    self.answer(epoch, lag);
                }
            }
            Act::LateAnswer => {
                let step = self.answer(0, 0);
                assert_eq!(step, Step::Ignored(IgnoreReason::OldEpoch));
            }
            Act::Fail => {
                self.keeper.open_attempt().map(|epoch| self.keeper.snapshot_failed(epoch));
            }
            Act::Stale => {
                self.keeper.mark_stale(Cause::Disagrees, 0);
            }
            Act::Reset => {
                self.keeper.reset(Cause::Disconnected, 0);
            }
        }
    }

    fn check(&self) {
        assert!(self.keeper.n_buffered() <= 20);
        let Some(book) = self.keeper.live_book() else { return };
        let last_id = self.keeper.last_id().expect("a live book has a position");
        assert_eq!(book.top(usize::MAX), self.exchange.at(last_id), "book at {last_id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_live_book_is_the_exchanges_book(raw in events(), acts in acts(), consecutive in any::<bool>()) {
        let rule: &'static dyn SyncRule = if consecutive { &SpotRule } else { &FuturesRule };
        let limits = KeeperLimits { buffer: 20, ..KeeperLimits::default() };
        let exchange = Exchange::new(&raw, consecutive);
        let mut run = Run { exchange, keeper: BookKeeper::new(rule, limits, 0), sent: 0 };
        for act in &acts {
            run.act(act);
            run.check();
        }

        // Whatever happened, one attempt with a snapshot of now makes the book live, and it stays so.
        let epoch = run.keeper.begin_sync();
        let step = run.answer(epoch, 0);
        prop_assert!(matches!(step, Step::Synced { .. }), "{:?}", step);
        run.check();
        for _ in 0..5 {
            let live = run.keeper.live_book().is_some();
            prop_assert!(live);
            run.act(&Act::Deliver);
            run.check();
        }
        prop_assert_eq!(run.keeper.last_id(), Some(run.exchange.events[run.sent - 1].ids.last));
    }

    #[test]
    fn a_lost_update_is_always_seen(raw in events(), consecutive in any::<bool>(), lost in 1_usize..100) {
        let rule: &'static dyn SyncRule = if consecutive { &SpotRule } else { &FuturesRule };
        let exchange = Exchange::new(&raw, consecutive);
        let mut run = Run { exchange, keeper: BookKeeper::new(rule, KeeperLimits::default(), 0), sent: 0 };
        let epoch = run.keeper.begin_sync();
        run.act(&Act::Deliver);
        let snapshot = run.exchange.snapshot(run.exchange.events[0].ids.last);
        run.keeper.on_snapshot(&snapshot, epoch, 0);
        for event in 1..lost {
            prop_assert_eq!(run.deliver(event), Step::Applied);
        }
        let step = run.deliver(lost + 1);
        prop_assert!(matches!(step, Step::Gap { .. }), "{:?}", step);
        prop_assert!(run.keeper.live_book().is_none());
        prop_assert_eq!(run.keeper.counters().gaps, 1);
    }
}
