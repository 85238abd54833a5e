//! One instrument's core as its actor uses it, with the rules of the built-in venue, and the numbers of its samples.

use std::{sync::Arc, time::Duration};

use fathom_delivery::live::Body as Made;
use fathom_market::{
    batch::Batch,
    book::{BookState, Cause},
    depth::DepthReference,
    event::{
        Body, BookDelta, BookSnapshot, Candle, Channel, Event, Funding, Level, Quote, SeqIds, Side, Ticker,
        Trade, TradeId, TradeKind,
    },
    ids::Market,
    instrument::InstrumentIdx,
    sample::{BandSums, SampleState},
    table::{
        BookTickerRow, CandleRow, CollectorStateRow, DepthEventRow, FundingRow, OrderbookRow, Table,
        TickerRow, TradeRow,
    },
    timeframe::Timeframe,
};

use super::core::{Action, BookCore, boundary_before};
use crate::{
    derived::Derived,
    feed::FeedItem,
    fixtures::{MINUTE_MS, MINUTE_US, S, binance, book_settings, dec, depth_settings, instrument, level},
    history::CaughtUp,
    kernel::Overflow,
    settings::{BookSettings, DepthSettings},
};

/// Ten seconds into a minute.
const START: i64 = MINUTE_US + 10 * S;

struct Bench {
    core: BookCore,
    now: i64,
    id: i64,
    actions: Vec<Action>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Market::Spot, book_settings(), depth_settings())
    }

    fn with(market: Market, settings: BookSettings, depth: DepthSettings) -> Self {
        let instrument = instrument(market, "BTC");
        let id = instrument.id.0;
        let core = BookCore::new(instrument, binance().sync_rule(market), settings, depth, START);
        Self { core, now: START, id, actions: Vec::new() }
    }

    /// A live book: bids 99.99 and 99.98, asks 100.01 and 100.02, last id 12.
    fn live() -> Self {
        Self::new().made_live()
    }

    fn made_live(mut self) -> Self {
        self.item(FeedItem::Open { channels: vec![Channel::Depth, Channel::Quote] });
        self.delta(11, 12, &[(9999, 1000)], &[]);
        assert!(self.snapshot(10));
        self
    }

    fn item(&mut self, item: FeedItem) {
        self.core.on_item(item, self.now, &mut self.actions);
    }

    fn event(&mut self, event_us: Option<i64>, body: Body) {
        let event = Event { instrument: InstrumentIdx(0), event_us, sent_us: None, recv_us: self.now, body };
        self.item(FeedItem::Events(vec![event]));
    }

    fn delta(&mut self, first: u64, last: u64, bids: &[(i64, i64)], asks: &[(i64, i64)]) {
        self.event(Some(self.now - 1000), delta(first, last, None, bids, asks));
    }

    fn quote(&mut self, update_id: Option<u64>, bid: i64, ask: i64) {
        self.event(None, Body::Quote(Quote { update_id, bid: level(bid, 5), ask: level(ask, 6) }));
    }

    fn candle(&mut self, candle: Candle) {
        self.event(Some(self.now), Body::Candle(Box::new(candle)));
    }

    fn after(&mut self, us: i64) {
        self.now += us;
        self.core.on_tick(self.now, &mut self.actions);
    }

    /// Ticks, with a pulse each, as the actor does ten times a second; what `each` does comes first.
    fn pass(&mut self, us: i64, mut each: impl FnMut(&mut Self)) {
        let end = self.now + us;
        while self.now < end {
            self.item(FeedItem::Pulse);
            each(self);
            self.after(100_000);
        }
    }

    fn wanted(&self) -> Option<Duration> {
        self.core.wants_snapshot(self.now)
    }

    /// Asks for a snapshot and answers at once.
    fn snapshot(&mut self, last_id: u64) -> bool {
        let epoch = self.core.keeper_mut().begin_sync();
        self.core.on_snapshot(&snapshot(last_id), epoch, self.now)
    }

    fn state(&self) -> (BookState, Cause) {
        (self.core.keeper().state(), self.core.keeper().cause())
    }

    fn top(&self) -> (Vec<Level>, Vec<Level>) {
        self.core.keeper().book().top(2)
    }

    fn rejected(&self) -> Vec<(&'static str, u64)> {
        self.core.rejects().iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    /// Everything that was to be stored since the last call, ordered by table.
    fn rows(&mut self) -> Vec<Batch> {
        let mut rows = Vec::new();
        self.core.outbox().send(|batch| {
            rows.push(batch);
            Ok(())
        });
        rows
    }

    fn rows_of(&mut self, table: Table) -> Option<Batch> {
        self.rows().into_iter().find(|batch| batch.table() == table)
    }

    fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

fn levels(levels: &[(i64, i64)]) -> Vec<Level> {
    levels.iter().map(|&(price, qty)| level(price, qty)).collect()
}

fn delta(first: u64, last: u64, prev: Option<i64>, bids: &[(i64, i64)], asks: &[(i64, i64)]) -> Body {
    Body::Delta(BookDelta { ids: SeqIds { first, last, prev }, bids: levels(bids), asks: levels(asks) })
}

fn snapshot(last_id: u64) -> BookSnapshot {
    let (bids, asks) = (levels(&[(9998, 2000)]), levels(&[(10_001, 3000), (10_002, 4000)]));
    BookSnapshot { last_id, bids, asks, limit: 100 }
}

fn candle(open_ms: i64, close: &str, closed: bool) -> Candle {
    Candle {
        timeframe: Timeframe::M1,
        open_ms,
        close_ms: open_ms + 59_999,
        open: dec("100"),
        high: dec("102"),
        low: dec("99"),
        close: dec(close),
        volume: dec("10"),
        quote_volume: dec("1000"),
        trades: 5,
        taker_buy_volume: dec("4"),
        taker_buy_quote_volume: dec("400"),
        closed,
    }
}

fn candle_row(instrument_id: i64, candle: &Candle, updated_us: i64) -> CandleRow {
    CandleRow {
        instrument_id,
        timeframe: "1m".into(),
        open_ms: candle.open_ms,
        close_ms: candle.close_ms,
        open: candle.open,
        high: candle.high,
        low: candle.low,
        close: candle.close,
        volume: candle.volume,
        quote_volume: candle.quote_volume,
        trades: 5,
        taker_buy_volume: candle.taker_buy_volume,
        taker_buy_quote_volume: candle.taker_buy_quote_volume,
        closed: candle.closed,
        updated_us,
    }
}

fn collected(instrument_id: i64, last_timestamp_ms: i64, last_updated_us: i64, is_realtime: bool) -> Batch {
    let timeframe = "1m".into();
    Batch::of([CollectorStateRow {
        instrument_id,
        timeframe,
        last_timestamp_ms,
        last_updated_us,
        is_realtime,
    }])
}

#[test]
fn no_snapshot_is_asked_before_depth_speaks_or_is_open_and_quiet() {
    let mut bench = Bench::new();
    bench.pass(20 * S, |_| {});
    assert_eq!(bench.wanted(), None, "no line is open");
    bench.item(FeedItem::Open { channels: vec![Channel::Quote, Channel::Trade] });
    bench.pass(20 * S, |_| {});
    assert_eq!(bench.wanted(), None, "the line of depth is not");
    bench.item(FeedItem::Open { channels: vec![Channel::Depth] });
    bench.pass(3 * S, |_| {});
    assert_eq!(bench.wanted(), None);
    bench.now += 1;
    assert_eq!(bench.wanted(), Some(Duration::ZERO), "open and quiet");
    assert!(bench.snapshot(10));
    assert_eq!((bench.wanted(), bench.state().0), (None, BookState::Live));

    let mut bench = Bench::new();
    bench.delta(11, 12, &[(9999, 1)], &[]);
    assert_eq!(bench.wanted(), Some(Duration::ZERO), "depth spoke");
    let mut later = Bench::new();
    later.core.resume(START);
    later.pass(4 * S, |_| {});
    assert_eq!(later.wanted(), None, "a later instance knows nothing of its line");
    later.item(FeedItem::Open { channels: vec![Channel::Depth] });
    later.pass(4 * S, |_| {});
    assert_eq!(later.wanted(), Some(Duration::ZERO), "the next pulse told it");
}

#[test]
fn failed_snapshots_are_asked_again_more_and_more_slowly() {
    let mut bench = Bench::new();
    bench.delta(11, 12, &[(9999, 1)], &[]);
    let mut delays = Vec::new();
    for _ in 0..5 {
        delays.extend(bench.wanted());
        let epoch = bench.core.keeper_mut().begin_sync();
        assert_eq!(bench.wanted(), None, "one is on its way");
        bench.core.keeper_mut().snapshot_failed(epoch);
    }
    assert_eq!(delays.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 2, 4, 60]);
    let old = bench.core.keeper_mut().begin_sync();
    let epoch = bench.core.keeper_mut().begin_sync();
    assert!(!bench.core.on_snapshot(&snapshot(10), old, START), "the answer to an older request");
    assert!(bench.core.on_snapshot(&snapshot(10), epoch, START));
}

#[test]
fn a_snapshot_joins_what_was_buffered() {
    let mut bench = Bench::new();
    bench.delta(5, 8, &[(9990, 7)], &[]);
    bench.delta(9, 12, &[(9999, 1000)], &[(10_001, 0)]);
    bench.delta(13, 13, &[], &[(10_002, 4500)]);
    assert!(!bench.snapshot(3), "older than the first update");
    assert_eq!(
        (bench.wanted(), bench.rejected()),
        (Some(Duration::from_secs(1)), vec![("snapshot_too_old", 1)])
    );
    assert!(bench.snapshot(10));
    assert_eq!(bench.core.keeper().last_id(), Some(13));
    assert_eq!(bench.top(), (levels(&[(9999, 1000), (9998, 2000)]), levels(&[(10_002, 4500)])));
    bench.delta(14, 15, &[(9999, 0)], &[]);
    assert_eq!(bench.top().0, levels(&[(9998, 2000)]));
    assert_eq!(bench.core.keeper().last_id(), Some(15));

    let mut futures = Bench::with(Market::Futures, book_settings(), depth_settings());
    for (first, last, prev) in [(80, 90, 70), (300, 310, 90), (500, 510, 310)] {
        futures.event(None, delta(first, last, Some(prev), &[(9999, 1)], &[]));
    }
    assert!(futures.snapshot(200), "ids of futures are not consecutive, `pu` joins them");
    assert_eq!(futures.core.keeper().last_id(), Some(510));
    futures.event(None, delta(700, 710, Some(509), &[(9999, 2)], &[]));
    assert_eq!(futures.state(), (BookState::Syncing, Cause::Gap { expected: 510, got: 509 }));
}

/// Its name, what happens, the state and cause that follow, and the count that it raises.
type Blow = (&'static str, fn(&mut Bench), BookState, Cause, (&'static str, u64));

#[test]
fn every_doubt_takes_the_book_out_of_live_and_leads_to_a_new_snapshot() {
    let gap = Cause::Gap { expected: 13, got: 20 };
    let blows: [Blow; 8] = [
        (
            "line's gap",
            |b| b.item(FeedItem::Gap { expected: 13, got: 20 }),
            BookState::Syncing,
            gap,
            ("gap", 1),
        ),
        ("gap", |b| b.delta(20, 21, &[(9999, 2)], &[]), BookState::Syncing, gap, ("gap", 1)),
        (
            "unreadable",
            |b| b.item(FeedItem::Unreadable { channel: Channel::Depth, reason: "level_misfit" }),
            BookState::Syncing,
            Cause::Unreadable,
            ("level_misfit", 1),
        ),
        (
            "impossible",
            |b| b.delta(13, 13, &[(9999, -1)], &[]),
            BookState::Syncing,
            Cause::Unreadable,
            ("non_positive_quantity", 1),
        ),
        (
            "overflow",
            |b| b.item(FeedItem::Overflow { events: 7 }),
            BookState::Syncing,
            Cause::UpdatesLost,
            ("inbox_overflow", 7),
        ),
        (
            "crossed",
            |b| b.delta(13, 19, &[(10_001, 2)], &[]),
            BookState::Crossed,
            Cause::Crossed,
            ("crossed", 1),
        ),
        (
            "ids reset",
            |b| {
                b.now += 2 * S;
                b.delta(1, 2, &[(9999, 2)], &[]);
            },
            BookState::Syncing,
            Cause::IdsReset,
            ("ids_reset", 1),
        ),
        (
            "reset",
            |b| b.item(FeedItem::Reset { channels: vec![Channel::Trade, Channel::Depth], cause: "lost" }),
            BookState::Syncing,
            Cause::Disconnected,
            ("", 0),
        ),
    ];
    for (name, blow, state, cause, rejected) in blows {
        let mut bench = Bench::live();
        assert_eq!(bench.state(), (BookState::Live, Cause::Synced), "{name}");
        blow(&mut bench);
        assert_eq!(bench.state(), (state, cause), "{name}");
        assert_eq!(bench.rejected(), Vec::from_iter((rejected.1 > 0).then_some(rejected)), "{name}");
        let sample = bench.core.sample(0, bench.now);
        assert!(!sample.state.is_usable() && sample.bands.is_empty() && sample.mid.is_none(), "{name}");
        bench.after(S);
        if cause == Cause::IdsReset {
            assert_eq!(bench.wanted(), Some(Duration::ZERO), "{name}");
            continue;
        }
        bench.delta(if cause == gap { 22 } else { 20 }, 30, &[(9999, 900)], &[]);
        assert_eq!(bench.wanted(), Some(Duration::ZERO), "{name}");
        assert!(bench.snapshot(25), "{name}");
        assert_eq!((bench.state().0, bench.wanted()), (BookState::Live, None), "{name}");
    }
}

#[test]
fn what_does_not_concern_depth_leaves_a_live_book_alone() {
    let mut bench = Bench::live();
    bench.item(FeedItem::Unreadable { channel: Channel::Trade, reason: "malformed" });
    bench.item(FeedItem::Reset { channels: vec![Channel::Trade, Channel::Quote], cause: "lost" });
    bench.item(FeedItem::Open { channels: vec![Channel::Trade] });
    bench.delta(11, 12, &[(9999, 1)], &[]);
    bench.after(S);
    assert_eq!((bench.state().0, bench.wanted()), (BookState::Live, None));
    assert_eq!(bench.top().0[0], level(9999, 1000), "a replay changes nothing");
    assert_eq!(bench.rejected(), [("malformed", 1)]);
}

#[test]
fn a_full_buffer_starts_over_without_a_hole() {
    let mut bench = Bench::new();
    for id in 11..=15 {
        bench.delta(id, id, &[(9999, 1)], &[]);
    }
    assert_eq!((bench.rejected(), bench.core.keeper().n_buffered()), (vec![("buffer_overflow", 1)], 1));
    assert!(!bench.snapshot(10), "11 to 14 are gone");
    assert!(bench.snapshot(14));
    assert_eq!(bench.core.keeper().last_id(), Some(15));
}

#[test]
fn quotes_trades_and_depth_become_rows() {
    let mut bench = Bench::new();
    let (id, now) = (bench.id, bench.now);
    bench.quote(Some(41), 9999, 10_001);
    bench.quote(None, 9998, 10_001);
    bench.quote(None, 9999, 10_001);
    let quote = |update_id, ordinal, bid_price_m| BookTickerRow {
        instrument_id: id,
        update_id,
        event_us: now,
        ordinal,
        venue_time: false,
        recv_us: now,
        bid_price_m,
        bid_qty_m: 5,
        ask_price_m: 10_001,
        ask_qty_m: 6,
        price_scale: 2,
        qty_scale: 3,
    };
    let timed = Body::Quote(Quote { update_id: Some(42), bid: level(9999, 5), ask: level(10_001, 6) });
    bench.event(Some(now - 7), timed);
    let mut rows = [quote(41, 0, 9999), quote(0, 0, 9998), quote(0, 1, 9999), quote(42, 0, 9999)];
    (rows[3].event_us, rows[3].venue_time) = (now - 7, true);
    assert_eq!(bench.rows(), [Batch::of(rows)]);
    assert_eq!(bench.core.ticks().len(), 4);

    let trade =
        |id, kind, raw_ids, side| Body::Trade(Trade { id, kind, raw_ids, price: 10_000, qty: 250, side });
    bench.event(Some(now - 9), trade(TradeId::Number(7), TradeKind::Aggregate, Some((100, 105)), Side::Sell));
    bench.event(None, trade(TradeId::Text("x-1".into()), TradeKind::Single, None, Side::Buy));
    let row = |kind: &str, trade_id: &str, event_us, side: &str, raw: Option<(i64, i64)>| TradeRow {
        instrument_id: id,
        kind: kind.into(),
        trade_id: trade_id.into(),
        event_us,
        recv_us: now,
        price_m: 10_000,
        qty_m: 250,
        price_scale: 2,
        qty_scale: 3,
        side: side.into(),
        first_raw_id: raw.map(|raw| raw.0),
        last_raw_id: raw.map(|raw| raw.1),
    };
    let expected =
        [row("agg", "7", now - 9, "sell", Some((100, 105))), row("trade", "x-1", now, "buy", None)];
    assert_eq!(bench.rows(), [Batch::of(expected)]);

    bench.event(Some(now - 3), delta(11, 12, Some(-1), &[(9999, 1500), (9998, 0)], &[]));
    let depth = DepthEventRow {
        instrument_id: id,
        last_id: 12,
        first_id: 11,
        prev_id: Some(-1),
        event_us: now - 3,
        recv_us: now,
        bids: r#"[["99.99","1.5"],["99.98","0"]]"#.into(),
        asks: "[]".into(),
    };
    assert_eq!(bench.rows(), [Batch::of([depth])]);
    assert_eq!(bench.rejected(), []);
}

#[test]
fn raw_tables_that_are_not_kept_get_no_rows() {
    let settings = BookSettings { raw_tables: Vec::new(), ..book_settings() };
    let mut bench = Bench::with(Market::Spot, settings, depth_settings()).made_live();
    bench.quote(Some(12), 9999, 10_001);
    let trade = Trade {
        id: TradeId::Number(1),
        kind: TradeKind::Single,
        raw_ids: None,
        price: 10_000,
        qty: 1,
        side: Side::Buy,
    };
    bench.event(None, Body::Trade(trade));
    assert_eq!(bench.rows(), []);
    bench.delta(13, 13, &[(9999, 900)], &[]);
    bench.core.finish(bench.now);
    let tables: Vec<_> = bench.rows().iter().map(|batch| (batch.table(), batch.len())).collect();
    assert_eq!(
        tables,
        [(Table::Bt1s, 1), (Table::Trade1s, 1), (Table::Depth1s, 1)],
        "bars are made all the same"
    );
}

#[test]
fn bars_are_stored_when_their_second_is_over() {
    let mut bench = Bench::new();
    bench.quote(Some(1), 9999, 10_001);
    bench.after(S + 499_999);
    assert_eq!(bench.rows().iter().filter(|batch| batch.table() == Table::Bt1s).count(), 0);
    bench.after(1);
    assert_eq!(bench.rows_of(Table::Bt1s).map(|batch| batch.len()), Some(1));
    bench.after(5 * S);
    assert_eq!(bench.rows(), []);
}

#[test]
fn tickers_and_funding_become_rows() {
    let mut bench = Bench::with(Market::Futures, book_settings(), depth_settings());
    let (id, now) = (bench.id, bench.now);
    let ticker = Ticker {
        last: Some(dec("100.5")),
        bid: Some(dec("100")),
        ask: None,
        volume: Some(dec("12.5")),
        trades: Some(9),
        ..Ticker::default()
    };
    bench.event(Some(now - 5), Body::Ticker(Box::new(ticker)));
    let row = TickerRow {
        instrument_id: id,
        event_us: now - 5,
        last: Some(dec("100.5")),
        bid: Some(dec("100")),
        ask: None,
        open: None,
        high: None,
        low: None,
        volume: Some(dec("12.5")),
        quote_volume: None,
        trades: Some(9),
    };
    assert_eq!(bench.rows(), [Batch::of([row])]);

    let mut fund = |after: i64, mark: &str, rate: &str| {
        bench.now += after;
        let rate = Some(dec(rate));
        let funding =
            Funding { mark_price: dec(mark), index_price: Some(dec("99")), rate, next_ms: Some(MINUTE_MS) };
        let event_us = bench.now - 5;
        bench.event(Some(event_us), Body::Funding(Box::new(funding)));
        let row = FundingRow {
            instrument_id: id,
            event_us,
            mark_price: dec(mark),
            index_price: Some(dec("99")),
            funding_rate: rate,
            next_funding_ms: Some(MINUTE_MS),
        };
        let rows = bench.rows();
        if !rows.is_empty() {
            assert_eq!(rows, [Batch::of([row])]);
        }
        rows.len()
    };
    assert_eq!(fund(0, "100", "0.0001"), 1);
    assert_eq!(fund(3 * S, "101", "0.0001"), 0, "the rate is the same");
    assert_eq!(fund(3 * S, "101", "0.0002"), 1);
    assert_eq!(fund(60 * S - 1, "101", "0.0002"), 0);
    assert_eq!(fund(1, "101", "0.0002"), 1, "a minute old");
}

#[test]
fn what_is_rejected_becomes_no_row_and_is_counted() {
    let mut bench = Bench::live();
    bench.rows();
    let level = |price| level(price, 1);
    let odd_trade = Trade {
        id: TradeId::Number(1),
        kind: TradeKind::Single,
        raw_ids: None,
        price: 1,
        qty: 0,
        side: Side::Buy,
    };
    let misshapen = Candle { high: dec("1"), ..candle(MINUTE_MS, "100", true) };
    let absurd = Funding { mark_price: dec("1"), index_price: None, rate: Some(dec("2")), next_ms: None };
    let crossed = Ticker { bid: Some(dec("2")), ask: Some(dec("1")), ..Ticker::default() };
    let vast = Candle {
        high: dec("70000000000000000000000000000"),
        close: dec("70000000000000000000000000000"),
        ..candle(MINUTE_MS, "100", true)
    };
    let bodies = [
        Body::Quote(Quote { update_id: Some(13), bid: level(10_001), ask: level(10_001) }),
        Body::Trade(odd_trade),
        Body::Candle(Box::new(misshapen)),
        Body::Candle(Box::new(vast)),
        Body::Funding(Box::new(absurd)),
        Body::Ticker(Box::new(crossed)),
        Body::Snapshot(snapshot(50)),
    ];
    for body in bodies {
        bench.event(None, body);
    }
    let begun = collected(bench.id, MINUTE_MS - 60_000, bench.now, true);
    assert_eq!(bench.rows(), [begun], "a candle was seen: its minute is fetched again");
    let expected = [
        ("absurd_rate", 1),
        ("candle_out_of_range", 1),
        ("candle_shape", 1),
        ("crossed", 2),
        ("non_positive_quantity", 1),
        ("unsolicited_snapshot", 1),
    ];
    assert_eq!(bench.rejected(), expected);
    assert_eq!(bench.state().0, BookState::Live, "none of them was an update of the book");
}

#[test]
fn an_open_candle_is_stored_now_and_then_and_a_closed_one_at_once() {
    let mut bench = Bench::new();
    let id = bench.id;
    let mut stored = Vec::new();
    for second in 0..12 {
        let close = format!("100.{second:02}");
        bench.candle(candle(MINUTE_MS, &close, false));
        let updated = candle_row(id, &candle(MINUTE_MS, &close, false), bench.now);
        bench.after(S);
        if let Some(batch) = bench.rows_of(Table::Candles) {
            assert_eq!(batch, Batch::of([updated]));
            stored.push(second);
        }
    }
    assert_eq!(stored, [0, 5, 10], "each with the newest values");
    bench.rows();
    bench.after(20 * S);
    assert_eq!(bench.rows_of(Table::Candles).map(|batch| batch.len()), Some(1), "what changed since");
    bench.after(20 * S);
    assert_eq!(bench.rows(), [], "nothing changed");

    let last = candle(MINUTE_MS, "101", true);
    bench.candle(last.clone());
    let closed = [Batch::of([candle_row(id, &last, bench.now)]), collected(id, MINUTE_MS, bench.now, true)];
    assert_eq!(bench.rows(), closed);
    bench.after(20 * S);
    assert_eq!(bench.rows(), []);

    bench.candle(candle(MINUTE_MS + 60_000, "101", false));
    bench.core.finish(bench.now);
    assert_eq!(
        bench.rows_of(Table::Candles).map(|batch| batch.len()),
        Some(1),
        "the end loses no open candle"
    );
}

#[test]
fn a_candle_without_its_last_word_is_fetched() {
    let mut bench = Bench::new();
    let id = bench.id;
    bench.candle(candle(MINUTE_MS, "100", false));
    bench.candle(candle(MINUTE_MS, "101", true));
    bench.candle(candle(MINUTE_MS + 60_000, "101", false));
    assert_eq!(bench.actions(), [], "the one before was closed");
    bench.candle(candle(MINUTE_MS + 120_000, "101", false));
    assert_eq!(bench.actions(), [Action::FetchCandle(Timeframe::M1, MINUTE_MS + 60_000)]);
    bench.candle(candle(MINUTE_MS + 120_000, "100", false));
    assert_eq!(bench.actions(), [], "asked once");
    bench.candle(candle(MINUTE_MS + 180_000, "101", true));
    assert_eq!(bench.actions(), [], "the hole that was asked for reaches to this one");
    bench.now += 61 * S;
    bench.candle(candle(MINUTE_MS + 240_000, "101", false));
    assert_eq!(
        bench.actions(),
        [Action::FetchCandle(Timeframe::M1, MINUTE_MS + 60_000)],
        "it was not filled"
    );
    bench.rows();

    let fetched = candle(MINUTE_MS + 60_000, "100", true);
    let misshapen = Candle { low: dec("500"), ..fetched.clone() };
    bench.item(FeedItem::Candles { candles: vec![fetched.clone(), misshapen], asked_us: 77 });
    let row = candle_row(id, &fetched, 77);
    assert_eq!(bench.rows(), [Batch::of([row]), collected(id, MINUTE_MS + 60_000, 77, false)]);
    assert_eq!(bench.rejected(), [("candle_shape", 1)]);
}

#[test]
fn live_candles_move_the_stored_end_only_once_the_series_is_caught_up() {
    let caught_up = CaughtUp::new(1, false);
    let mut bench = Bench::new();
    bench.core = bench.core.catching_up(caught_up.clone(), InstrumentIdx(0));
    bench.candle(candle(MINUTE_MS, "100", true));
    assert_eq!(bench.rows_of(Table::CollectorState), None, "what lies before may be missing");
    bench.item(FeedItem::CaughtUp { timeframe: Timeframe::M1, stored_ms: Some(MINUTE_MS) });
    assert!(caught_up.has(InstrumentIdx(0), Timeframe::M1));
    bench.candle(candle(MINUTE_MS + 60_000, "100", true));
    let state = collected(bench.id, MINUTE_MS + 60_000, bench.now, true);
    assert_eq!(bench.rows_of(Table::CollectorState), Some(state));
}

#[test]
fn a_series_of_which_nothing_is_stored_begins_with_its_first_live_candle_before_that_has_closed() {
    let mut bench = Bench::new();
    bench.core = bench.core.catching_up(CaughtUp::new(1, false), InstrumentIdx(0));
    bench.candle(candle(MINUTE_MS, "100", false));
    assert_eq!(bench.rows_of(Table::CollectorState), None, "the catch-up has not looked yet");
    bench.item(FeedItem::CaughtUp { timeframe: Timeframe::M1, stored_ms: None });
    bench.candle(candle(MINUTE_MS, "101", false));
    let begun = collected(bench.id, MINUTE_MS - 60_000, bench.now, true);
    assert_eq!(bench.rows_of(Table::CollectorState), Some(begun));
    bench.candle(candle(MINUTE_MS, "102", false));
    assert_eq!(bench.rows_of(Table::CollectorState), None, "said once");
}

#[test]
fn a_sample_holds_what_came_before_its_boundary_and_nothing_after() {
    let mut bench = Bench::live();
    bench.now = MINUTE_US + 60 * S + 5000;
    bench.delta(13, 13, &[(9999, 7000)], &[]);
    bench.item(FeedItem::Boundary { at_ms: MINUTE_MS + 60_000 });
    assert_eq!(bench.actions(), [Action::Sample(MINUTE_MS + 60_000)]);
    let sample = bench.core.sample(MINUTE_MS + 60_000, bench.now);
    bench.delta(14, 14, &[(9999, 0)], &[]);
    assert_eq!(
        (sample.last_id, sample.boundary_ms, sample.state),
        (13, MINUTE_MS + 60_000, SampleState::Live)
    );
    assert_eq!(sample.bands[0].bid_volume, dec("9"));
    assert_eq!(bench.core.sample(0, bench.now).last_id, 14);

    bench.item(FeedItem::Boundary { at_ms: MINUTE_MS + 60_000 });
    bench.pass(50 * S, |_| {});
    assert_eq!(bench.actions(), [], "each boundary once, whatever says so");
}

#[test]
fn a_boundary_that_the_feed_misses_is_sampled_by_time() {
    let mut bench = Bench::live();
    let boundary = MINUTE_MS + 60_000;
    bench.now = boundary * 1000;
    bench.after(999_999);
    assert_eq!(bench.actions(), [], "half of the grace is left to the feed");
    bench.after(1);
    assert_eq!(bench.actions(), [Action::Sample(boundary)]);
    bench.item(FeedItem::Boundary { at_ms: boundary });
    bench.item(FeedItem::Boundary { at_ms: MINUTE_MS });
    bench.after(S);
    assert_eq!(bench.actions(), []);
    assert_eq!([boundary_before(-1), boundary_before(0), boundary_before(60 * S - 1)], [-60_000, 0, 0]);
}

#[test]
fn a_book_is_stored_once_an_interval_and_only_while_live() {
    let mut bench = Bench::new();
    bench.after(60 * S);
    assert_eq!(bench.rows(), []);
    let mut bench = Bench::live();
    bench.rows();
    let row = |bench: &Bench, at_ms, last_update_id| OrderbookRow {
        instrument_id: bench.id,
        timestamp_ms: at_ms,
        last_update_id,
        bids: r#"[["99.99","1"],["99.98","2"]]"#.into(),
        asks: r#"[["100.01","3"],["100.02","4"]]"#.into(),
    };
    let mut stored = Vec::new();
    bench.pass(25 * S, |bench| stored.extend(bench.rows_of(Table::OrderbookData)));
    let expected = [10_100, 20_000, 30_000].map(|ms| Batch::of([row(&bench, MINUTE_MS + ms, 12)]));
    assert_eq!(stored, expected);
    bench.item(FeedItem::Reset { channels: vec![Channel::Depth], cause: "lost" });
    bench.pass(25 * S, |bench| assert_eq!(bench.rows(), []));
}

#[test]
fn what_is_made_is_shown_to_those_who_listen_and_a_book_in_doubt_says_so_once() {
    let derived: Arc<Derived> = Arc::default();
    let live = derived.live.subscribe("live", 1000, Overflow::Fault).unwrap();
    let ticks = derived.ticks.subscribe("ticks", 10, Overflow::Fault).unwrap();
    let settings = BookSettings { stored_levels: 0, ..book_settings() };
    let mut bench = Bench::with(Market::Spot, settings, depth_settings());
    bench.core = bench.core.showing(derived);
    let shown =
        || -> Vec<Made> { std::iter::from_fn(|| live.try_recv()).map(|live| live.body.clone()).collect() };
    bench.after(S);
    bench.after(S);
    assert!(matches!(shown()[..], [Made::Doubt { state: SampleState::Syncing, .. }]));
    let mut bench = bench.made_live();
    bench.pass(25 * S, |_| {});
    let books = shown();
    assert_eq!(books.len(), 3, "one an interval: {books:?}");
    for book in &books {
        let Made::Book(SampleState::Live, row) = book else { panic!("{book:?}") };
        assert_eq!((row.last_update_id, &*row.bids), (12, r#"[["99.99","1"],["99.98","2"]]"#));
    }
    bench.quote(Some(13), 9999, 10_001);
    assert_eq!(ticks.try_recv().unwrap().tick.update_id, 13);
    let (open, closed) = (candle(MINUTE_MS, "100", false), candle(MINUTE_MS, "100", true));
    bench.candle(open);
    bench.candle(closed);
    let candles = vec![candle(MINUTE_MS - 60_000, "100", true)];
    bench.item(FeedItem::Candles { candles, asked_us: bench.now });
    let candles = shown();
    assert!(
        matches!(&candles[..], [Made::Candle(row)] if row.closed && row.open_ms == MINUTE_MS),
        "{candles:?}"
    );
    bench.event(Some(bench.now), Body::Ticker(Box::default()));
    assert!(matches!(shown()[..], [Made::Ticker(_)]));
    bench.item(FeedItem::Reset { channels: vec![Channel::Depth], cause: "lost" });
    bench.pass(5 * S, |_| {});
    let doubt = shown();
    assert!(matches!(doubt[..], [Made::Doubt { .. }]), "{doubt:?}");
}

/// Quotes run ahead of the book once a second until it is no longer live.
fn run_ahead(bench: &mut Bench) -> i64 {
    let (from, mut id) = (bench.now, 100);
    while bench.state().0 == BookState::Live {
        assert!(bench.now - from < 10 * S, "never found out");
        id += 1;
        bench.quote(Some(id), 9997, 9998);
        bench.pass(S, |_| {});
    }
    bench.now - from
}

#[test]
fn a_silent_depth_stream_is_found_out_and_not_believed_until_it_speaks() {
    let mut bench = Bench::live();
    let took = run_ahead(&mut bench);
    assert!(took <= 4 * S, "{took}");
    assert_eq!(bench.state(), (BookState::Stale, Cause::Disagrees));
    assert_eq!(bench.actions(), [Action::Renew(Channel::Depth)]);
    assert!(!bench.core.sample(0, bench.now).state.is_usable());

    let mut asked = Vec::new();
    let from = bench.now;
    bench.pass(24 * S, |bench| {
        assert_eq!((bench.wanted(), bench.state().0), (None, BookState::Stale));
        bench.quote(Some(200), 9997, 9998);
        if bench.actions().contains(&Action::Renew(Channel::Depth)) {
            asked.push((bench.now - from) / S);
        }
    });
    assert_eq!(asked.len(), 2, "every eleven seconds: {asked:?}");
    assert!((10..=11).contains(&asked[0]) && (21..=23).contains(&asked[1]), "{asked:?}");

    bench.delta(300, 301, &[(9996, 1)], &[]);
    assert_eq!(bench.wanted(), Some(Duration::ZERO), "it speaks");
    assert!(bench.snapshot(300));
    bench.actions();
    bench.pass(20 * S, |_| {});
    assert_eq!((bench.state().0, bench.actions()), (BookState::Live, vec![]));
}

#[test]
fn a_snapshot_under_way_does_not_revive_a_book_whose_stream_is_dead() {
    let mut bench = Bench::live();
    let epoch = bench.core.keeper_mut().begin_sync();
    run_ahead(&mut bench);
    assert!(!bench.core.on_snapshot(&snapshot(100), epoch, bench.now));
    assert_eq!((bench.state(), bench.wanted()), ((BookState::Stale, Cause::Disagrees), None));
    bench.delta(300, 301, &[(9996, 1)], &[]);
    assert!(bench.snapshot(300));
}

#[test]
fn a_market_that_is_quiet_for_hours_is_left_alone() {
    let settings = BookSettings { stored_levels: 0, ..book_settings() };
    let mut bench = Bench::with(Market::Spot, settings, depth_settings()).made_live();
    bench.quote(Some(12), 9999, 10_001);
    for _ in 0..6 * 3600 {
        bench.item(FeedItem::Pulse);
        bench.after(S);
        assert_eq!((bench.state().0, bench.wanted()), (BookState::Live, None));
    }
    let actions = bench.actions();
    assert_eq!(actions.len(), 360, "a sample a minute");
    assert!(actions.iter().all(|action| matches!(action, Action::Sample(_))));
    assert_eq!(bench.rejected(), []);
}

#[test]
fn a_line_without_a_pulse_is_not_believed_and_no_snapshot_helps() {
    let mut bench = Bench::live();
    bench.after(4 * S);
    assert_eq!(bench.state().0, BookState::Live);
    let epoch = bench.core.keeper_mut().begin_sync();
    bench.after(1);
    assert_eq!(bench.state(), (BookState::Stale, Cause::Silent));
    assert!(!bench.core.on_snapshot(&snapshot(20), epoch, bench.now), "it was under way");
    for _ in 0..100 {
        bench.after(S);
        assert_eq!((bench.state().0, bench.wanted()), (BookState::Stale, None));
    }
    assert_eq!(bench.actions().iter().filter(|action| !matches!(action, Action::Sample(_))).count(), 0);
    bench.pass(S, |_| {});
    assert!(bench.wanted().is_some(), "the line lives again");
    assert!(bench.snapshot(20));
    bench.pass(10 * S, |_| {});
    assert_eq!(bench.state(), (BookState::Live, Cause::Synced));
}

/// Bids 99 (1), 97.6 (2), 90 (4), asks 101 (1), 103 (2), 125 (8); known from 90 to 125.
fn measured(reference: DepthReference) -> Vec<BandSums> {
    let depth = DepthSettings { reference, ..depth_settings() };
    let mut bench = Bench::with(Market::Spot, book_settings(), depth);
    bench.item(FeedItem::Open { channels: vec![Channel::Depth] });
    let bids = levels(&[(9900, 1000), (9760, 2000), (9000, 4000)]);
    let asks = levels(&[(10_100, 1000), (10_300, 2000), (12_500, 8000)]);
    let epoch = bench.core.keeper_mut().begin_sync();
    let snapshot = BookSnapshot { last_id: 10, bids, asks, limit: 3 };
    assert!(bench.core.on_snapshot(&snapshot, epoch, bench.now));
    let sample = bench.core.sample(MINUTE_MS, bench.now + 5);
    assert_eq!(
        (sample.mid, sample.best_bid, sample.best_ask),
        (Some(dec("100")), Some(dec("99")), Some(dec("101")))
    );
    assert_eq!((sample.last_id, sample.age_us, sample.boundary_ms), (10, 5, MINUTE_MS));
    assert_eq!(sample.instrument.id.0, bench.id);
    sample.bands
}

fn band(bid: [&str; 2], ask: [&str; 2], covered: (bool, bool)) -> BandSums {
    BandSums {
        bid_volume: dec(bid[0]),
        bid_quote: dec(bid[1]),
        ask_volume: dec(ask[0]),
        ask_quote: dec(ask[1]),
        bid_covered: covered.0,
        ask_covered: covered.1,
    }
}

#[test]
fn samples_hold_the_exact_sums_of_every_band() {
    let (one, two, all) = (["1", "99"], ["3", "294.2"], ["7", "654.2"]);
    let (ask_one, ask_two, ask_all) = (["1", "101"], ["3", "307"], ["11", "1307"]);
    let both = (true, true);
    let by_mid = [
        band(one, ask_one, both),
        band(two, ask_two, both),
        band(two, ask_two, both),
        band(two, ask_two, both),
        band(all, ask_two, (false, true)),
        band(all, ask_all, (false, false)),
    ];
    assert_eq!(measured(DepthReference::Mid), by_mid);
    // From 99 down: 97.515, 96.03, 94.05, 91.08, 84.15, 69.3. From 101 up: 102.515, 104.03, 106.05, 109.08, 116.15, 131.3.
    let by_best = [
        band(two, ask_one, both),
        band(two, ask_two, both),
        band(two, ask_two, both),
        band(two, ask_two, both),
        band(all, ask_two, (false, true)),
        band(all, ask_all, (false, false)),
    ];
    assert_eq!(measured(DepthReference::Best), by_best);
}

#[test]
fn a_quote_that_depth_leaves_behind_renews_the_quotes() {
    let mut bench = Bench::live();
    bench.quote(Some(12), 9999, 10_001);
    let mut id = 12;
    let mut asked = Vec::new();
    bench.pass(20 * S, |bench| {
        id += 1;
        bench.delta(id, id, &[(9999, 0), (9998, 1000 + id as i64)], &[]);
        asked.extend(bench.actions().into_iter().filter(|action| !matches!(action, Action::Sample(_))));
    });
    assert!((2..=4).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|action| *action == Action::Renew(Channel::Quote)));
    assert_eq!(bench.state().0, BookState::Live, "the book is not to blame");
}

fn open_gaps(core: &mut BookCore) -> Vec<(String, &'static str, &'static str)> {
    let mut gaps: Vec<_> =
        core.ledger().into_iter().map(|gap| (gap.channel, gap.cause.as_str(), gap.status.as_str())).collect();
    gaps.sort();
    gaps
}

#[test]
fn what_was_missed_in_a_silence_that_was_healed_is_in_the_ledger() {
    let mut bench = Bench::live();
    let quote = |bench: &mut Bench, id| {
        let body = Body::Quote(Quote { update_id: Some(id), bid: level(9999, 1), ask: level(10_001, 1) });
        bench.event(None, body);
    };
    quote(&mut bench, 12);
    open_gaps(&mut bench.core);
    bench.item(FeedItem::Silent { channels: vec![Channel::Quote, Channel::Depth, Channel::Trade] });
    let gap = |status| vec![("quote".to_owned(), "silence", status)];
    assert_eq!(open_gaps(&mut bench.core), gap("open"), "ids tell of the others");
    assert_eq!(bench.core.keeper().state(), BookState::Live);
    bench.now += S;
    quote(&mut bench, 13);
    assert_eq!(open_gaps(&mut bench.core), gap("lost"));
}

#[test]
fn ids_that_were_set_back_make_the_book_load_anew_and_open_a_gap() {
    let mut bench = Bench::live();
    open_gaps(&mut bench.core);
    bench.item(FeedItem::SetBack { channel: Channel::Depth });
    assert_eq!(bench.core.keeper().state(), BookState::Syncing);
    assert_eq!(open_gaps(&mut bench.core), [("depth".to_owned(), "sequence", "open")]);
    assert_eq!(bench.core.rejects()["set_back"], 1);
    bench.delta(3, 4, &[(9999, 1000)], &[]);
    assert!(bench.snapshot(2));
    assert_eq!(open_gaps(&mut bench.core), [("depth".to_owned(), "sequence", "resynced")]);
}

#[test]
fn what_an_operator_does_has_its_own_words_in_the_ledger() {
    let mut bench = Bench::live();
    open_gaps(&mut bench.core);
    bench.core.resync(bench.now);
    assert_eq!(open_gaps(&mut bench.core), [("depth".to_owned(), "operator", "open")]);
    let mut bench = Bench::live();
    open_gaps(&mut bench.core);
    bench.item(FeedItem::Reset { channels: vec![Channel::Depth], cause: "shard_paused" });
    assert_eq!(open_gaps(&mut bench.core), [("depth".to_owned(), "paused", "open")]);
}
