//! Verification against an exchange that knows its book at every id.

use std::{collections::BTreeMap, time::Duration};

use fathom_market::{
    book::OrderBook,
    event::{BookDelta, BookSnapshot, Level, SeqIds},
    ids::Market,
};
use proptest::prelude::*;

use super::verify::{Finding, Look, Verifier};
use crate::fixtures::{S, binance, level};

const EVERY: Duration = Duration::from_secs(600);
const LEVELS: usize = 1000;

/// A venue: each delta changes a few levels of bids (1 to 50) and asks (51 to 100).
struct Exchange {
    deltas: Vec<BookDelta>,
}

impl Exchange {
    /// Changes of `(price, quantity)`, one delta each list; ids advance by three.
    fn new(changes: &[Vec<(i64, i64)>], market: Market) -> Self {
        let delta = |(at, changes): (usize, &Vec<(i64, i64)>)| {
            let first = 10 + 3 * at as u64;
            let prev = (market == Market::Futures).then_some(first as i64 - 1);
            let side = |bids: bool| {
                let own = changes.iter().filter(|(price, _)| (*price <= 50) == bids);
                own.map(|(price, qty)| level(*price, *qty)).collect()
            };
            BookDelta { ids: SeqIds { first, last: first + 2, prev }, bids: side(true), asks: side(false) }
        };
        Self { deltas: changes.iter().enumerate().map(delta).collect() }
    }

    /// The venue's book after so many deltas, as a snapshot of so many levels a side.
    fn snapshot(&self, deltas: usize, limit: usize) -> BookSnapshot {
        let (mut bids, mut asks) = (BTreeMap::from([(1, 7)]), BTreeMap::from([(100, 7)]));
        for delta in &self.deltas[..deltas] {
            for (side, changes) in [(&mut bids, &delta.bids), (&mut asks, &delta.asks)] {
                for Level { price, qty } in changes {
                    if *qty == 0 {
                        side.remove(price)
                    } else {
                        side.insert(*price, *qty)
                    };
                }
            }
        }
        let levels = |side: &mut dyn Iterator<Item = (&i64, &i64)>| {
            side.take(limit).map(|(price, qty)| level(*price, *qty)).collect()
        };
        BookSnapshot {
            last_id: 9 + 3 * deltas as u64,
            bids: levels(&mut bids.iter().rev()),
            asks: levels(&mut asks.iter()),
            limit,
        }
    }

    fn book(&self, deltas: usize, limit: usize) -> OrderBook {
        let snapshot = self.snapshot(deltas, limit);
        let mut book = OrderBook::new(LEVELS);
        book.load(&snapshot.bids, &snapshot.asks, limit).unwrap();
        book
    }
}

/// How one look goes: the book stands at `start` when it is asked for, the snapshot is of `snapshot`, and the book
/// stands at `end` when it comes. Then the rest of the deltas arrives.
struct Case {
    start: usize,
    snapshot: usize,
    end: usize,
    limit: usize,
}

fn verifier(market: Market) -> Verifier {
    Verifier::new(binance().sync_rule(market), LEVELS, Some(EVERY), 7, 0)
}

fn look(
    venue: &Exchange,
    market: Market,
    case: &Case,
    corrupt: impl FnOnce(&mut OrderBook),
) -> (Option<Finding>, Verifier) {
    let mut verifier = verifier(market);
    let mut book = venue.book(0, LEVELS);
    let mut corrupt = Some(corrupt);
    let mut id = 9;
    let mut found = None;
    for at in 0..=venue.deltas.len() {
        if at == case.start {
            verifier.begin(Look::Whole, 0);
            corrupt.take().unwrap()(&mut book);
        }
        if at == case.end {
            found = verifier.answered(venue.snapshot(case.snapshot, case.limit), &book, id, S);
        }
        let Some(delta) = venue.deltas.get(at) else { break };
        book.apply(&delta.bids, &delta.asks).unwrap();
        id = delta.ids.last;
        if verifier.is_recording() {
            verifier.record(delta.clone(), S);
        }
        found = found.or_else(|| verifier.compare(&book, id, S));
    }
    found = found.or_else(|| verifier.compare(&book, id, 100 * S));
    (found, verifier)
}

fn steady(deltas: usize) -> Vec<Vec<(i64, i64)>> {
    (0..deltas as i64).map(|at| vec![(40 + at % 10, 1 + at), (51 + at % 10, 2 + at)]).collect()
}

#[test]
fn a_snapshot_is_aligned_by_what_the_book_applied() {
    for market in Market::ALL {
        let venue = Exchange::new(&steady(20), market);
        // Older than the asking: cannot be aligned. At it, within the ring, at the book, ahead of it: can.
        let cases = [
            (10, 8, 15, None),
            (10, 10, 15, Some(Finding::Same)),
            (10, 12, 15, Some(Finding::Same)),
            (10, 15, 15, Some(Finding::Same)),
            (10, 18, 15, Some(Finding::Same)),
            (10, 10, 10, Some(Finding::Same)),
        ];
        for (start, snapshot, end, expected) in cases {
            let case = Case { start, snapshot, end, limit: LEVELS };
            let (found, verifier) = look(&venue, market, &case, |_| {});
            assert_eq!(found, expected, "{market} {start} {snapshot} {end}");
            let counts = verifier.counts();
            assert_eq!(counts.unaligned, u64::from(expected.is_none()), "{market} {start} {snapshot} {end}");
            assert_eq!(verifier.verified_us().is_some(), expected.is_some());
            assert!(!verifier.is_recording());
        }
    }
}

#[test]
fn a_venue_that_moves_on_while_the_stream_is_silent_is_told_from_a_quiet_one() {
    let venue = Exchange::new(&steady(20), Market::Spot);
    let book = venue.book(10, LEVELS);
    let mut verifier = verifier(Market::Spot);
    verifier.begin(Look::Glance, 0);
    assert_eq!(verifier.answered(venue.snapshot(13, 5), &book, 39, S), None, "it may still come");
    assert_eq!(verifier.compare(&book, 39, 11 * S), None);
    assert_eq!(verifier.compare(&book, 39, 11 * S + 1), Some(Finding::Behind(3)));
    assert_eq!((verifier.counts().behind, verifier.verified_us()), (1, None));

    // The venue's id went on without a change of this book.
    verifier.begin(Look::Glance, 20 * S);
    let same = BookSnapshot { last_id: 500, ..venue.snapshot(10, 5) };
    assert_eq!(verifier.answered(same.clone(), &book, 39, 21 * S), None);
    assert_eq!(verifier.compare(&book, 39, 60 * S), Some(Finding::Same));

    // Updates come, but late: that is no silence.
    verifier.begin(Look::Whole, 70 * S);
    assert_eq!(verifier.answered(venue.snapshot(20, LEVELS), &book, 39, 71 * S), None);
    verifier.record(venue.deltas[10].clone(), 72 * S);
    let later = venue.book(11, LEVELS);
    assert_eq!(verifier.compare(&later, 42, 100 * S), None);
    assert_eq!((verifier.compare(&later, 42, 132 * S), verifier.counts().unaligned), (None, 1));
}

#[test]
fn books_are_looked_at_once_an_interval_each_at_its_own_time() {
    let rule = binance().sync_rule(Market::Spot);
    let every = 600 * S;
    let mut first_looks: Vec<i64> = (0..200)
        .map(|seed| {
            let mut verifier = Verifier::new(rule, LEVELS, Some(EVERY), seed, 0);
            let looks: Vec<i64> = (0..3000)
                .filter(|second| {
                    verifier.heard(second * S);
                    let due = verifier.due(second * S);
                    if let Some(look) = due {
                        assert_eq!(look, Look::Whole);
                        verifier.begin(look, second * S);
                        let book = OrderBook::new(1);
                        let one =
                            BookSnapshot { last_id: 1, bids: vec![level(1, 1)], asks: vec![], limit: 5 };
                        verifier.answered(one, &book, 1, second * S);
                    }
                    due.is_some()
                })
                .collect();
            assert_eq!(looks.len(), 5, "{looks:?}");
            assert!(looks.windows(2).all(|pair| pair[1] - pair[0] == 600), "{looks:?}");
            looks[0] * S
        })
        .collect();
    first_looks.sort_unstable();
    assert!(first_looks.windows(2).all(|pair| pair[1] - pair[0] < every / 20), "spread over the interval");

    let mut verifier = Verifier::new(rule, LEVELS, Some(EVERY), 1, 0);
    let due = (0..600).find(|second| verifier.due(second * S) == Some(Look::Whole)).unwrap() * S;
    verifier.begin(Look::Whole, due);
    assert_eq!(verifier.due(due + S), None, "one at a time");
    verifier.failed(due + S);
    verifier.heard(due + S);
    assert_eq!((verifier.due(due + 60 * S), verifier.due(due + 61 * S)), (None, Some(Look::Whole)));
    assert_eq!(verifier.counts().failed, 1);
    verifier.begin(Look::Whole, due + 61 * S);
    let empty = BookSnapshot { last_id: 9, bids: vec![], asks: vec![], limit: 5 };
    assert_eq!(verifier.answered(empty, &OrderBook::new(1), 9, due + 62 * S), None);
    assert_eq!(verifier.counts().failed, 2, "an empty book says nothing");

    let mut off = Verifier::new(rule, LEVELS, None, 1, 0);
    assert_eq!((off.due(i64::MAX / 2), off.skipped()), (None, Some("off")));
    off.skip("ids_per_connection");
    assert_eq!(off.skipped(), Some("ids_per_connection"));
}

#[test]
fn a_silent_symbol_is_glanced_at_more_and_more_seldom() {
    let rule = binance().sync_rule(Market::Spot);
    let hours = Duration::from_secs(100 * 3600);
    let mut verifier = Verifier::new(rule, LEVELS, Some(hours), i64::MAX, 0);
    let book = OrderBook::new(1);
    let mut glances = Vec::new();
    for second in 0..7200 {
        if verifier.due(second * S) == Some(Look::Glance) {
            glances.push(second);
            verifier.begin(Look::Glance, second * S);
            let same = BookSnapshot { last_id: 1, bids: vec![level(1, 1)], asks: vec![], limit: 5 };
            verifier.answered(same, &book, 1, second * S);
        }
    }
    assert_eq!(glances, [61, 182, 423, 904, 1865, 3786], "twice the wait each time");
    verifier.heard(7200 * S);
    assert_eq!((verifier.due(7260 * S), verifier.due(7261 * S)), (None, Some(Look::Glance)));

    let mut slow = Verifier::new(rule, LEVELS, Some(hours), i64::MAX, 0);
    (1..=100).for_each(|at| slow.heard(at * 100 * S));
    assert_eq!(
        (slow.due(10_160 * S), slow.due(10_201 * S)),
        (None, Some(Look::Glance)),
        "its pauses are longer"
    );
}

#[test]
fn a_ring_that_overflows_gives_the_look_up() {
    let venue = Exchange::new(&steady(1), Market::Spot);
    let mut verifier = verifier(Market::Spot);
    verifier.begin(Look::Whole, 0);
    (0..2049).for_each(|_| verifier.record(venue.deltas[0].clone(), S));
    assert!(!verifier.is_recording());
    assert_eq!(verifier.counts().unaligned, 1);
    assert_eq!(verifier.answered(venue.snapshot(1, 5), &venue.book(1, 5), 12, S), None);
}

fn changes() -> impl Strategy<Value = Vec<Vec<(i64, i64)>>> {
    let qty = prop_oneof![1 => Just(0), 3 => 1_i64..1000];
    proptest::collection::vec(proptest::collection::vec((2_i64..100, qty), 1..8), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_sound_book_never_diverges_and_a_corrupted_level_is_always_found(
        changes in changes(),
        market in prop_oneof![Just(Market::Spot), Just(Market::Futures)],
        points in proptest::array::uniform3(any::<prop::sample::Index>()),
        limit in prop_oneof![Just(LEVELS), 5_usize..30],
    ) {
        let venue = Exchange::new(&changes, market);
        let mut points = points.map(|point| point.index(changes.len() + 1));
        points.sort_unstable();
        // The snapshot is of a time between asking and answer, or lies ahead of the book.
        for [start, snapshot, end] in [points, [points[0], points[2], points[1]]] {
            let case = Case { start, snapshot, end, limit };
            let (found, verifier) = look(&venue, market, &case, |_| {});
            prop_assert_eq!(found, Some(Finding::Same));
            prop_assert_eq!((verifier.counts().divergences, verifier.counts().unaligned), (0, 0));
            // Bid 1 is touched by no update, and known to a snapshot that reaches it.
            let (found, _) = look(&venue, market, &Case { limit: LEVELS, ..case }, |book| {
                book.apply(&[level(1, 8)], &[]).unwrap();
            });
            prop_assert_eq!(found, Some(Finding::Differs(1)));
        }
    }
}
