//! The merge by cases, and against what two lines with delays, losses and deaths make of one true sequence.

use fathom_market::event::{Body, BookDelta, Candle, Level, Quote, SeqIds, Side, Trade, TradeId, TradeKind};
use fathom_market::timeframe::Timeframe;
use fathom_venues::{MergeRule, TradeIds};
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::fixtures::binance;

const IDX: InstrumentIdx = InstrumentIdx(0);
const MS: i64 = 1000;

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Event(u64),
    Gap(u64, u64),
    Opened,
    Cut,
    SetBack,
}
use Told::{Cut, Event as Passed, Gap, Opened, SetBack};

#[derive(Default)]
struct Ear(Vec<Told>);

impl Sink for Ear {
    fn event(&mut self, event: Event) {
        self.0.push(Passed(id_of(&event)));
    }

    fn gap(&mut self, _: InstrumentIdx, expected: u64, got: u64) {
        self.0.push(Gap(expected, got));
    }

    fn unreadable(&mut self, _: InstrumentIdx, _: Channel, _: &'static str) {}

    fn opened(&mut self, _: InstrumentIdx, _: Channel) {
        self.0.push(Opened);
    }

    fn set_back(&mut self, _: InstrumentIdx, _: Channel) {
        self.0.push(SetBack);
    }

    fn cut(&mut self, _: InstrumentIdx, _: Channel) {
        self.0.push(Cut);
    }
}

/// What kinds of stream there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Depth,
    Consecutive,
    Increasing,
    Opaque,
    Quote,
    Timed,
}

const SORTS: [Sort; 6] =
    [Sort::Depth, Sort::Consecutive, Sort::Increasing, Sort::Opaque, Sort::Quote, Sort::Timed];

fn merge(sort: Sort, rule: MergeRule) -> Merge {
    let trades = match sort {
        Sort::Increasing => TradeIds::Increasing,
        Sort::Opaque => TradeIds::Opaque,
        _ => TradeIds::Consecutive,
    };
    Merge::with(
        Rules { sync: binance().sync_rule(Market::Spot), merge: rule, trades },
        MergeLimits::default(),
    )
}

fn candle(n: u64) -> Candle {
    Candle {
        timeframe: Timeframe::M1,
        open_ms: 0,
        close_ms: 59_999,
        open: Decimal::ONE,
        high: Decimal::ONE,
        low: Decimal::ONE,
        close: Decimal::ONE,
        volume: Decimal::from(n),
        quote_volume: Decimal::ONE,
        trades: n,
        taker_buy_volume: Decimal::ONE,
        taker_buy_quote_volume: Decimal::ONE,
        closed: false,
    }
}

fn event(sort: Sort, id: u64, recv_us: i64) -> Event {
    let level = Level { price: 1, qty: 1 };
    let trade = |id| {
        let (kind, side) = (TradeKind::Aggregate, Side::Buy);
        Body::Trade(Trade { id, kind, raw_ids: None, price: 1, qty: 1, side })
    };
    let body = match sort {
        Sort::Depth => {
            let ids = SeqIds { first: id, last: id, prev: None };
            Body::Delta(BookDelta { ids, bids: vec![level], asks: vec![] })
        }
        Sort::Consecutive | Sort::Increasing => trade(TradeId::Number(id)),
        Sort::Opaque => trade(TradeId::Text(format!("t{id}").into())),
        Sort::Quote => Body::Quote(Quote { update_id: Some(id), bid: level, ask: level }),
        Sort::Timed => Body::Candle(Box::new(candle(id))),
    };
    let event_us = (sort == Sort::Timed).then(|| i64::try_from(id).unwrap());
    Event { instrument: IDX, event_us, sent_us: None, recv_us, body }
}

fn id_of(event: &Event) -> u64 {
    match &event.body {
        Body::Delta(delta) => delta.ids.last,
        Body::Trade(Trade { id: TradeId::Number(id), .. }) => *id,
        Body::Trade(Trade { id: TradeId::Text(id), .. }) => id[1..].parse().unwrap(),
        Body::Quote(quote) => quote.update_id.unwrap_or_default(),
        Body::Candle(candle) => candle.trades,
        other => panic!("{other:?}"),
    }
}

/// A merge with its ear; times in milliseconds.
struct Bench {
    sort: Sort,
    merge: Merge,
    ear: Ear,
}

impl Bench {
    fn new(sort: Sort) -> Self {
        Self { sort, merge: merge(sort, MergeRule::GlobalId), ear: Ear::default() }
    }

    fn says(&mut self, line: LineKey, id: u64, at_ms: i64) {
        self.merge.offer(line, event(self.sort, id, at_ms * MS), &mut self.ear);
    }

    fn say(&mut self, line: LineKey, ids: impl IntoIterator<Item = u64>, at_ms: i64) {
        ids.into_iter().for_each(|id| self.says(line, id, at_ms));
    }

    fn leave(&mut self, line: LineKey, at_ms: i64) -> usize {
        self.merge.leave(line, at_ms * MS, &mut self.ear).values().map(Vec::len).sum()
    }

    fn expire(&mut self, at_ms: i64) {
        self.merge.expire(at_ms * MS, &mut self.ear);
    }

    fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.ear.0)
    }

    fn channel(&self) -> Channel {
        event(self.sort, 1, 0).body.channel()
    }
}

fn passed(ids: impl IntoIterator<Item = u64>) -> Vec<Told> {
    ids.into_iter().map(Passed).collect()
}

#[test]
fn a_single_line_is_passed_as_it_comes_and_its_holes_are_told() {
    let mut bench = Bench::new(Sort::Depth);
    let a = bench.merge.enter(1);
    bench.say(a, [5, 6, 6, 9, 10], 0);
    assert_eq!(bench.told(), [Opened, Passed(5), Passed(6), Gap(7, 9), Passed(9), Passed(10)]);
    let counters = bench.merge.counters(0);
    assert_eq!((counters.passed, counters.duplicates, counters.gaps, counters.missed), (4, 1, 1, 1));
    assert_eq!(bench.leave(a, 1), 1);
    let b = bench.merge.enter(1);
    bench.says(b, 2, 2);
    assert_eq!(bench.told(), [Opened, Passed(2)], "a stream that nobody carried has no past");
    assert_eq!(bench.merge.counters(9 * MS).dark_us, MS, "between one line and the next");
    bench.says(a, 11, 3);
    assert_eq!(bench.told(), [], "a connection that has left is not heard");
}

#[test]
fn the_first_to_bring_an_event_wins_whatever_the_ids_are_like() {
    for sort in SORTS {
        let mut bench = Bench::new(sort);
        let (a, b) = (bench.merge.enter(1), bench.merge.enter(1));
        bench.say(a, [1, 2], 0);
        bench.say(b, [2, 3, 4], 1);
        bench.say(a, [3, 4, 5], 2);
        bench.say(b, [5, 6], 3);
        let told: Vec<Told> = bench.told().into_iter().filter(|told| *told != Opened).collect();
        assert_eq!(told, passed(1..=6), "{sort:?}");
        let (ta, tb) = (bench.merge.tally(a), bench.merge.tally(b));
        assert_eq!((ta.passed, ta.duplicates), (3, 2), "{sort:?}");
        assert_eq!((tb.passed, tb.duplicates), (3, 2), "{sort:?}");
        assert_eq!(bench.leave(a, 4) + bench.merge.held(), 0, "{sort:?}: b carries on");
        bench.say(b, [7], 5);
        assert_eq!(bench.told(), passed([7]), "{sort:?}");
        assert_eq!(bench.leave(b, 6), 1, "{sort:?}");
    }
}

#[test]
fn a_new_line_that_is_ahead_waits_for_the_one_that_speaks() {
    for sort in SORTS.into_iter().filter(|sort| *sort != Sort::Opaque) {
        let mut bench = Bench::new(sort);
        let (a, b) = (bench.merge.enter(1), bench.merge.enter(1));
        bench.say(a, 1..=3, 0);
        bench.say(b, 6..=8, 10);
        assert!(!bench.merge.is_warm(b, IDX, bench.channel(), Some(0)), "{sort:?}: what it brought waits");
        bench.say(a, 4..=6, 20);
        bench.told();
        assert_eq!(bench.merge.held(), 0, "{sort:?}: six came of both, so seven and eight fit");
        assert!(bench.merge.is_warm(b, IDX, bench.channel(), None), "{sort:?}");
        bench.say(a, 7..=9, 30);
        assert_eq!(bench.told(), passed([9]), "{sort:?}");
    }
}

#[test]
fn a_hole_of_one_line_is_filled_by_the_other() {
    for sort in [Sort::Depth, Sort::Consecutive] {
        let mut bench = Bench::new(sort);
        let (a, b) = (bench.merge.enter(1), bench.merge.enter(1));
        bench.say(a, [1], 0);
        bench.say(b, [1], 0);
        bench.say(a, [3, 4], 10);
        assert_eq!(bench.told(), [Opened, Passed(1)], "{sort:?}");
        bench.say(b, [2], 20);
        assert_eq!(bench.told(), passed(2..=4), "{sort:?}");
        assert_eq!((bench.merge.counters(0).gaps, bench.merge.held()), (0, 0), "{sort:?}");
    }
}

#[test]
fn a_hole_that_no_line_can_fill_is_told_at_once_and_otherwise_after_its_time() {
    let mut bench = Bench::new(Sort::Depth);
    let (a, b) = (bench.merge.enter(1), bench.merge.enter(1));
    bench.say(a, [1], 0);
    bench.say(b, [1], 0);
    bench.say(a, [3], 10);
    bench.say(b, [4], 20);
    assert_eq!(bench.told(), [Opened, Passed(1), Gap(2, 3), Passed(3), Passed(4)], "both are past it");

    bench.say(a, [7], 30);
    bench.expire(2029);
    assert_eq!(bench.told(), []);
    bench.expire(2030);
    assert_eq!(bench.told(), [Gap(5, 7), Passed(7)], "b may be dead");
    bench.say(b, [5, 6, 7, 8], 2100);
    assert_eq!(bench.told(), [Passed(8)], "too late to be in order");

    bench.say(a, [10], 2200);
    assert_eq!(bench.told(), []);
    assert_eq!(bench.leave(b, 2210), 0);
    assert_eq!(bench.told(), [Gap(9, 10), Passed(10)], "nobody is left to fill it");
    bench.say(a, [11], 2300);
    assert_eq!(bench.told(), passed([11]));
}

#[test]
fn what_a_dead_line_left_behind_is_not_lost() {
    let mut bench = Bench::new(Sort::Consecutive);
    let (a, b) = (bench.merge.enter(1), bench.merge.enter(1));
    bench.say(a, [1], 0);
    bench.say(b, [1], 0);
    bench.say(a, [3, 4], 10);
    assert_eq!(bench.leave(a, 20), 0);
    bench.say(b, [2], 30);
    assert_eq!(bench.told(), [Opened, Passed(1), Passed(2), Passed(3), Passed(4)]);
    bench.say(b, [3, 4, 5], 40);
    assert_eq!(bench.told(), passed([5]));
    let c = bench.merge.enter(1);
    bench.say(c, [5], 50);
    bench.say(b, [7], 60);
    assert_eq!(bench.leave(c, 70) + bench.leave(b, 80), 1);
    assert_eq!(bench.told(), passed([7]), "the last one to leave takes nothing with it");
    assert_eq!(bench.merge.counters(0).missed, 1);
    assert_eq!(bench.merge.held(), 0);
}

#[test]
fn a_late_trade_is_passed_when_its_hole_was_told() {
    let mut bench = Bench::new(Sort::Consecutive);
    let a = bench.merge.enter(1);
    bench.say(a, [1, 5, 3, 3, 1, 2, 4, 4, 6], 0);
    assert_eq!(bench.told(), [vec![Opened], passed([1, 5, 3, 2, 4, 6])].concat());
    assert_eq!(bench.merge.counters(0).duplicates, 3);
}

#[test]
fn the_buffers_are_bounded() {
    let mut bench = Bench::new(Sort::Depth);
    let (a, b) = (bench.merge.enter(1), bench.merge.enter(1));
    bench.say(a, [1], 0);
    bench.say(b, [1], 0);
    bench.say(a, 3..=1027, 1);
    let told = bench.told();
    assert_eq!(told[2..4], [Gap(2, 3), Passed(3)]);
    assert_eq!((told.len(), bench.merge.held()), (2 + 1 + 1025, 0));
}

#[test]
fn candles_of_one_time_are_told_apart_by_what_they_say() {
    let mut bench = Bench::new(Sort::Timed);
    let (a, b) = (bench.merge.enter(1), bench.merge.enter(1));
    let mut say = |line, time: i64, n: u64| {
        let body = Body::Candle(Box::new(candle(n)));
        let event = Event { instrument: IDX, event_us: Some(time), sent_us: None, recv_us: time, body };
        bench.merge.offer(line, event, &mut bench.ear);
    };
    for (time, n) in [(10, 1), (10, 2), (11, 2)] {
        say(a, time, n);
    }
    for (time, n) in [(10, 1), (10, 2), (11, 2), (11, 3), (9, 9)] {
        say(b, time, n);
    }
    assert_eq!(bench.told(), [vec![Opened], passed([1, 2, 2, 3])].concat());
}

#[test]
fn ids_of_a_connection_are_passed_from_one_line_at_a_time() {
    let mut bench = Bench::new(Sort::Depth);
    bench.merge = merge(Sort::Depth, MergeRule::PerConnection);
    let (a, b) = (bench.merge.enter(1), bench.merge.enter(1));
    bench.say(a, [1, 2], 0);
    bench.say(b, [71, 72], 5);
    bench.say(a, [3, 5], 10);
    assert_eq!(bench.told(), [Opened, Passed(1), Passed(2), Passed(3), Gap(4, 5), Passed(5)]);
    assert_eq!(bench.leave(a, 15), 0);
    bench.say(b, [73, 74], 20);
    assert_eq!(bench.told(), [Cut, Passed(73), Passed(74)]);
    let c = bench.merge.enter(1);
    bench.say(c, [8], 25);
    assert_eq!(bench.told(), []);
    bench.say(c, [9], 2021);
    assert_eq!(bench.told(), [Cut, Passed(9)], "b has said nothing for two seconds");
}

#[test]
fn a_quiet_stream_is_warm_by_its_acknowledged_subscription() {
    let mut bench = Bench::new(Sort::Depth);
    let (a, b) = (bench.merge.enter(1), bench.merge.enter(2));
    bench.says(a, 1, 0);
    let warm = |bench: &Bench, acked_ms: Option<i64>| {
        bench.merge.is_warm(b, IDX, Channel::Depth, acked_ms.map(|at| at * MS))
    };
    assert!(!warm(&bench, Some(5)), "not attached");
    assert!(bench.merge.attach(b, IDX, Channel::Depth, 5 * MS, &mut bench.ear));
    assert!(warm(&bench, Some(5)) && !warm(&bench, None));
    bench.says(a, 2, 10);
    assert!(!warm(&bench, Some(5)), "a spoke after b was subscribed, and b did not");
    assert_eq!(bench.merge.behind_since_us(b, IDX, Channel::Depth), Some(10 * MS));
    bench.says(b, 2, 20);
    assert!(warm(&bench, None));
    assert_eq!(bench.merge.behind_since_us(b, IDX, Channel::Depth), None);
    bench.says(a, 3, 25);
    assert_eq!(bench.merge.behind_since_us(b, IDX, Channel::Depth), Some(25 * MS));
    assert!(bench.merge.leave_strangers(2, 30 * MS, &mut bench.ear).is_empty(), "b carries on");
    assert_eq!(bench.merge.behind_since_us(b, IDX, Channel::Depth), None, "nobody is before it");
    bench.says(b, 3, 40);
    bench.says(b, 4, 50);
    assert_eq!(bench.told(), [vec![Opened], passed(1..=4)].concat());
}

#[test]
fn a_stream_that_was_given_up_is_not_taken_again() {
    let mut bench = Bench::new(Sort::Depth);
    let a = bench.merge.enter(1);
    bench.says(a, 1, 0);
    bench.merge.mute(a, IDX, Channel::Depth, MS, &mut bench.ear);
    bench.says(a, 2, 2);
    assert_eq!(bench.told(), [Opened, Passed(1)]);
    assert!(!bench.merge.is_carried(IDX, Channel::Depth));
    assert_eq!(bench.merge.counters(9 * MS).dark_us, 0, "nobody misses it");
    bench.merge.unmute(a, IDX, Channel::Depth);
    bench.says(a, 3, 10);
    assert_eq!(bench.told(), [Opened, Passed(3)]);
}

/// One connection of a line: it is subscribed from one id on, brings each after a delay unless it is lost, and dies.
#[derive(Clone, Debug)]
struct Connection {
    line: usize,
    from: u64,
    to: u64,
    delay_ms: i64,
    lost: Vec<u64>,
}

/// The venue makes one event each so many milliseconds.
const EVERY_MS: i64 = 10;

impl Connection {
    const fn dies_ms(&self) -> i64 {
        self.to as i64 * EVERY_MS
    }

    /// What arrives when; what is on its way when the connection dies never does.
    fn arrivals(&self) -> impl Iterator<Item = (i64, u64)> {
        let arrives = |id: u64| (i64::try_from(id).unwrap() * EVERY_MS + self.delay_ms, id);
        let alive = |(at, id): &(i64, u64)| *at < self.dies_ms() && !self.lost.contains(id);
        (self.from..self.to).map(arrives).filter(alive)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Brings(u64),
    Tick,
    Dies,
}

/// Plays connections into a merge; what was told, with a mark where no line was left.
fn play(sort: Sort, connections: &[Connection]) -> (Vec<Told>, Counters, usize) {
    let mut bench = Bench::new(sort);
    let keys: Vec<LineKey> =
        connections.iter().map(|connection| bench.merge.enter(connection.line as u64)).collect();
    let mut acts: Vec<(i64, usize, Act)> = Vec::new();
    for (at, connection) in connections.iter().enumerate() {
        acts.extend(connection.arrivals().map(|(ms, id)| (ms, at, Act::Brings(id))));
        acts.push((connection.dies_ms(), at, Act::Dies));
    }
    let end = acts.iter().map(|(ms, ..)| *ms).max().unwrap_or(0) + 5000;
    acts.extend((0..end).step_by(100).map(|ms| (ms, 0, Act::Tick)));
    acts.sort_by_key(|(ms, at, act)| (*ms, matches!(act, Act::Dies), *at, *act));
    for (ms, at, act) in acts {
        match act {
            Act::Brings(id) => bench.says(keys[at], id, ms),
            Act::Tick => bench.expire(ms),
            Act::Dies => {
                if bench.leave(keys[at], ms) > 0 {
                    bench.ear.0.push(Cut);
                }
            }
        }
    }
    let held = bench.merge.held();
    (bench.told(), bench.merge.counters(end * MS), held)
}

fn ids(told: &[Told]) -> Vec<u64> {
    told.iter().filter_map(|told| if let Passed(id) = told { Some(*id) } else { None }).collect()
}

fn connections() -> impl Strategy<Value = Vec<Connection>> {
    let connection = (5_u64..120, 0_u64..40, 0_i64..900, proptest::collection::vec(0_u64..400, 0..12));
    let line = proptest::collection::vec(connection, 1..5);
    (line.clone(), line).prop_map(|(a, b)| {
        let mut all = Vec::new();
        for (line, parts) in [(0, a), (1, b)] {
            let mut from = 1;
            for (length, pause, delay_ms, lost) in parts {
                all.push(Connection { line, from, to: from + length, delay_ms, lost });
                from += length + pause;
            }
        }
        all
    })
}

/// Two lines that die in turn, each only after the other has been subscribed and heard: at each moment one has everything.
fn relays() -> impl Strategy<Value = Vec<Connection>> {
    let part = (30_u64..120, 0_i64..900);
    proptest::collection::vec(part, 2..8).prop_map(|parts| {
        let mut all: Vec<Connection> = Vec::new();
        let mut from = 1;
        for (at, (length, delay_ms)) in parts.into_iter().enumerate() {
            if let Some(before) = all.last_mut() {
                let overlap = before.delay_ms.max(delay_ms) / EVERY_MS + 3;
                before.to = before.to.max(from + u64::try_from(overlap).unwrap());
            }
            // The next one begins after this one's first event was heard.
            let to = from + length + 160;
            all.push(Connection { line: at % 2, from, to, delay_ms, lost: Vec::new() });
            from = to - 60;
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_doubled_and_every_hole_is_told(connections in connections()) {
        for sort in SORTS {
            let (told, counters, held) = play(sort, &connections);
            let ids = ids(&told);
            let mut unique = ids.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), ids.len(), "{:?}: doubled in {:?}", sort, told);
            prop_assert_eq!(held, 0);
            prop_assert_eq!(counters.passed as usize, ids.len());
            if !matches!(sort, Sort::Opaque | Sort::Consecutive) {
                prop_assert!(ids.is_sorted(), "{:?}: {:?}", sort, told);
            }
            if sort == Sort::Depth {
                let mut expected = None;
                for told in &told {
                    match told {
                        Passed(id) => {
                            prop_assert!(expected.is_none_or(|expected| expected == *id), "{id} in {told:?}");
                            expected = Some(id + 1);
                        }
                        Gap(from, to) => {
                            prop_assert!(expected.is_none_or(|expected| expected == *from));
                            expected = Some(*to);
                        }
                        Cut => expected = None,
                        Opened | SetBack => {}
                    }
                }
            }
        }
    }

    #[test]
    fn where_one_line_has_everything_nothing_is_missing(connections in relays()) {
        for sort in SORTS {
            let (told, counters, _) = play(sort, &connections);
            let ids = {
                let mut ids = ids(&told);
                ids.sort_unstable();
                ids
            };
            let last = *ids.last().unwrap();
            prop_assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "{:?}", sort);
            prop_assert_eq!((counters.gaps, counters.missed), (0, 0));
            prop_assert_eq!(told.iter().filter(|told| **told == Cut).count(), 1, "only at the end");
        }
    }
}

#[test]
fn numbers_that_a_venue_sets_back_are_followed_and_told() {
    let at = |sort, id, at_ms: i64| Event { event_us: Some(at_ms * MS), ..event(sort, id, at_ms * MS) };
    for sort in [Sort::Depth, Sort::Consecutive, Sort::Increasing, Sort::Quote] {
        let mut bench = Bench::new(sort);
        let a = bench.merge.enter(1);
        for (id, at_ms) in [(1000, 0), (1001, 100), (5, 200), (6, 5000), (7, 5100)] {
            bench.merge.offer(a, at(sort, id, at_ms), &mut bench.ear);
        }
        // What lies a little behind may be a repetition; what is seconds newer is none.
        let expected = [Opened, Passed(1000), Passed(1001), SetBack, Passed(6), Passed(7)];
        assert_eq!(bench.told(), expected, "{sort:?}");
        let counters = bench.merge.counters(0);
        assert_eq!((counters.gaps, counters.duplicates), (1, 1), "{sort:?}");
    }
}

#[test]
fn a_clock_that_is_set_back_is_followed_after_a_while_and_repetitions_are_not() {
    for sort in [Sort::Timed, Sort::Quote, Sort::Depth] {
        let mut bench = Bench::new(sort);
        let a = bench.merge.enter(1);
        bench.say(a, [1000, 1001], 0);
        // The same few again and again, for ever.
        for at_ms in (0..60_000).step_by(1000) {
            bench.say(a, [900, 901, 1001], at_ms);
        }
        for at_ms in (0..60_000).step_by(1000) {
            bench.says(a, 900, at_ms);
        }
        assert_eq!(bench.told(), [Opened, Passed(1000), Passed(1001)], "{sort:?}");
        for (id, at_ms) in (10..).zip((60_000..75_000).step_by(1000)) {
            bench.says(a, id, at_ms);
        }
        let told = bench.told();
        assert_eq!(told[..2], [SetBack, Passed(20)], "{sort:?}");
        assert_eq!(told.len(), 6, "{sort:?}: {told:?}");
    }
}
