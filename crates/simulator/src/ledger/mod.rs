//! What the simulator sent, to whom, and what happened to whom: the truth that a test compares with what was stored.
//! Every list is bounded; `total` counts what was ever recorded. Takes no part in deciding what is sent.

pub(crate) mod entries;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fathom_market::ids::Market;

use entries::{
    ConnectionEntry, ConnectionEvent, Delivery, DepthEntry, FaultEntry, KlineEntry, LedgerQuery, Sending,
    Totals, TradeEntry, Violation,
};

use crate::engine::klines::Candle;
use crate::faults::Fault;
use crate::faults::active::Active;
use crate::hub::Written;
use crate::number::{now_ms, scaled};
use crate::roster::Roster;
use crate::universe::Listing;

/// Frames flushed this long before a line was cut may not have arrived.
const UNSURE_MS: i64 = 1000;
const CONNECTIONS_KEPT: usize = 10_000;

struct Ring<T> {
    rows: VecDeque<T>,
    total: u64,
}

impl<T> Ring<T> {
    const fn new() -> Self {
        Self { rows: VecDeque::new(), total: 0 }
    }

    fn push(&mut self, row: T, cap: usize) {
        if self.rows.len() >= cap {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
        self.total += 1;
    }
}

struct Row<T> {
    sequence: u64,
    sent_ms: i64,
    symbol: usize,
    to: Vec<Delivery>,
    what: T,
}

#[derive(Clone, Copy)]
pub(crate) struct TradeRow {
    pub channel: &'static str,
    pub id: i64,
    pub price: i64,
    pub qty: i64,
    pub ts_ms: i64,
    pub taker_sold: bool,
}

pub(crate) struct DepthRow {
    pub stream: String,
    pub first: u64,
    pub last: u64,
    pub previous: u64,
    pub levels: usize,
}

#[derive(Clone, Copy)]
pub(crate) struct KlineRow {
    pub interval: &'static str,
    pub candle: Candle,
}

struct MarketLog {
    roster: Arc<Roster>,
    trades: Ring<Row<TradeRow>>,
    klines: Ring<Row<KlineRow>>,
    depth: Ring<Row<DepthRow>>,
}

struct ConnectionLog {
    entry: ConnectionEntry,
    written: Arc<Written>,
}

impl ConnectionLog {
    fn line(&self) -> Line {
        let (done, lost) = self.written.state();
        Line { done, lost, cut_ms: self.entry.closed_ms.filter(|_| !self.entry.clean) }
    }

    fn delivered(&self, delivery: Delivery, sent_ms: i64) -> bool {
        let cut_ms = self.entry.closed_ms.filter(|_| !self.entry.clean);
        cut_ms.is_none_or(|cut| sent_ms + UNSURE_MS <= cut) && self.written.holds(delivery.number)
    }
}

/// What is known of a connection at a moment, to judge its deliveries without the ledger's lock.
pub(crate) struct Line {
    done: u64,
    lost: Vec<(u64, u64)>,
    cut_ms: Option<i64>,
}

impl Line {
    /// Whether a frame was written out, and the line not cut within the next second.
    pub(crate) fn delivered(&self, number: u64, sent_ms: i64) -> bool {
        self.done >= number
            && self.cut_ms.is_none_or(|cut| sent_ms + UNSURE_MS <= cut)
            && !self.lost.iter().any(|(from, to)| (*from..=*to).contains(&number))
    }
}

struct Inner {
    sequence: u64,
    markets: [MarketLog; 2],
    connections: BTreeMap<u64, ConnectionLog>,
    faults: Ring<Arc<Active>>,
    violations: Ring<Violation>,
}

/// The ledger; all methods may be called from any thread.
pub struct Ledger {
    inner: Mutex<Inner>,
    cap: usize,
}

const fn index(market: Market) -> usize {
    match market {
        Market::Spot => 0,
        Market::Futures => 1,
    }
}

impl Ledger {
    pub(crate) fn new(cap: usize, rosters: [Arc<Roster>; 2]) -> Self {
        let markets = rosters.map(|roster| MarketLog {
            roster,
            trades: Ring::new(),
            klines: Ring::new(),
            depth: Ring::new(),
        });
        let inner = Inner {
            sequence: 0,
            markets,
            connections: BTreeMap::new(),
            faults: Ring::new(),
            violations: Ring::new(),
        };
        Self { inner: Mutex::new(inner), cap }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn trade(
        &self,
        market: Market,
        symbol: usize,
        sent_ms: i64,
        to: Vec<Delivery>,
        what: TradeRow,
    ) {
        let mut inner = self.lock();
        inner.sequence += 1;
        let row = Row { sequence: inner.sequence, sent_ms, symbol, to, what };
        inner.markets[index(market)].trades.push(row, self.cap);
    }

    pub(crate) fn kline(
        &self,
        market: Market,
        symbol: usize,
        sent_ms: i64,
        to: Vec<Delivery>,
        what: KlineRow,
    ) {
        let mut inner = self.lock();
        inner.sequence += 1;
        let row = Row { sequence: inner.sequence, sent_ms, symbol, to, what };
        inner.markets[index(market)].klines.push(row, self.cap);
    }

    pub(crate) fn depth_sent(
        &self,
        market: Market,
        symbol: usize,
        sent_ms: i64,
        to: Vec<Delivery>,
        what: DepthRow,
    ) {
        let mut inner = self.lock();
        inner.sequence += 1;
        let row = Row { sequence: inner.sequence, sent_ms, symbol, to, what };
        inner.markets[index(market)].depth.push(row, self.cap);
    }

    pub(crate) fn opened(&self, id: u64, market: Market, class: &str, ms: i64, written: Arc<Written>) {
        let entry = ConnectionEntry {
            id,
            market,
            class: class.to_owned(),
            opened_ms: ms,
            closed_ms: None,
            clean: false,
            flushed: 0,
            events: vec![ConnectionEvent { ms, kind: "open".to_owned(), detail: String::new() }],
        };
        let mut inner = self.lock();
        inner.connections.insert(id, ConnectionLog { entry, written });
        if inner.connections.len() > CONNECTIONS_KEPT {
            inner.connections.pop_first();
        }
    }

    pub(crate) fn event(&self, id: u64, ms: i64, kind: &str, detail: String) {
        if let Some(log) = self.lock().connections.get_mut(&id)
            && log.entry.events.len() < 10_000
        {
            log.entry.events.push(ConnectionEvent { ms, kind: kind.to_owned(), detail });
        }
    }

    pub(crate) fn closed(&self, id: u64, ms: i64, clean: bool, reason: String) {
        self.event(id, ms, "close", reason);
        if let Some(log) = self.lock().connections.get_mut(&id) {
            log.entry.closed_ms = Some(ms);
            log.entry.clean = clean;
        }
    }

    pub(crate) fn violation(&self, market: Market, ms: i64, rule: &str, detail: String) {
        tracing::warn!(%market, rule, detail, "a client broke a rule of the venue");
        let violation = Violation { ms, market, rule: rule.to_owned(), detail };
        self.lock().violations.push(violation, 10_000);
    }

    /// Keeps a fault from now on.
    pub(crate) fn fault(&self, fault: &Fault, ms: i64) -> Arc<Active> {
        let mut inner = self.lock();
        let id = inner.faults.total + 1;
        tracing::info!(id, ?fault, "fault");
        let active = Arc::new(Active::new(id, fault.clone(), ms));
        inner.faults.push(Arc::clone(&active), 10_000);
        active
    }

    /// A fault by its id.
    pub(crate) fn fault_of(&self, id: u64) -> Option<Arc<Active>> {
        self.lock().faults.rows.iter().find(|active| active.id == id).cloned()
    }

    /// The connections of a market as they stand.
    pub(crate) fn lines(&self, market: Market) -> HashMap<u64, Line> {
        let inner = self.lock();
        let of_market = inner.connections.iter().filter(|(_, log)| log.entry.market == market);
        of_market.map(|(id, log)| (*id, log.line())).collect()
    }

    /// Trades of a market, oldest first.
    pub fn trades(&self, market: Market, query: &LedgerQuery) -> Vec<TradeEntry> {
        let inner = self.lock();
        let log = &inner.markets[index(market)];
        let rows = select(&inner, log, &log.trades, query);
        rows.map(|(row, listing, sending)| TradeEntry {
            symbol: listing.native.clone(),
            channel: row.channel.to_owned(),
            id: row.id,
            price: scaled(i128::from(row.price), listing.price_scale, listing.price_decimals),
            qty: scaled(i128::from(row.qty), listing.qty_scale, listing.qty_decimals),
            ts_ms: row.ts_ms,
            taker_sold: row.taker_sold,
            sending,
        })
        .collect()
    }

    /// Closed candles of a market, oldest first.
    pub fn klines(&self, market: Market, query: &LedgerQuery) -> Vec<KlineEntry> {
        let inner = self.lock();
        let log = &inner.markets[index(market)];
        let rows = select(&inner, log, &log.klines, query);
        rows.map(|(row, listing, sending)| kline_entry(row, listing, sending)).collect()
    }

    /// Diffs of a market that had a subscriber, oldest first.
    pub fn depth(&self, market: Market, query: &LedgerQuery) -> Vec<DepthEntry> {
        let inner = self.lock();
        let log = &inner.markets[index(market)];
        let rows = select(&inner, log, &log.depth, query);
        rows.map(|(row, listing, sending)| DepthEntry {
            symbol: listing.native.clone(),
            stream: row.stream.clone(),
            first: row.first,
            last: row.last,
            previous: row.previous,
            levels: row.levels,
            sending,
        })
        .collect()
    }

    /// Connections of a market, oldest first.
    pub fn connections(&self, market: Market) -> Vec<ConnectionEntry> {
        let inner = self.lock();
        let of_market = inner.connections.values().filter(|log| log.entry.market == market);
        of_market
            .map(|log| {
                let (done, lost) = log.written.state();
                let lost: u64 = lost.iter().map(|(from, to)| to - from + 1).sum();
                ConnectionEntry { flushed: done - lost, ..log.entry.clone() }
            })
            .collect()
    }

    /// Faults put in so far, oldest first.
    pub fn faults(&self) -> Vec<FaultEntry> {
        let now_ms = now_ms();
        self.lock().faults.rows.iter().map(|active| active.entry(now_ms)).collect()
    }

    /// How many faults were put in.
    pub fn fault_count(&self) -> u64 {
        self.lock().faults.total
    }

    /// Rules that clients broke, oldest first. A well-behaved client leaves this empty.
    pub fn violations(&self) -> Vec<Violation> {
        self.lock().violations.rows.iter().cloned().collect()
    }

    /// What was recorded in a market.
    pub fn totals(&self, market: Market) -> Totals {
        let inner = self.lock();
        let log = &inner.markets[index(market)];
        Totals { trades: log.trades.total, klines: log.klines.total, depth: log.depth.total }
    }
}

fn select<'a, T>(
    inner: &'a Inner,
    log: &'a MarketLog,
    ring: &'a Ring<Row<T>>,
    query: &'a LedgerQuery,
) -> impl Iterator<Item = (&'a T, &'a Listing, Sending)> {
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let start = ring.rows.partition_point(|row| row.sequence <= query.after);
    let rows = ring.rows.iter().skip(start).filter_map(|row| Some((row, log.roster.get(row.symbol)?)));
    rows.filter(|(_, listing)| query.symbol.as_ref().is_none_or(|symbol| *symbol == listing.native))
        .take(limit)
        .map(|(row, listing)| {
            let got = |to: &Delivery| {
                inner.connections.get(&to.connection).is_some_and(|log| log.delivered(*to, row.sent_ms))
            };
            let sending = Sending {
                sequence: row.sequence,
                sent_ms: row.sent_ms,
                to: row.to.clone(),
                delivered: row.to.iter().any(got),
            };
            (&row.what, listing, sending)
        })
}

fn kline_entry(row: &KlineRow, listing: &Listing, sending: Sending) -> KlineEntry {
    let candle = &row.candle;
    let price = |value: i64| scaled(i128::from(value), listing.price_scale, listing.price_decimals);
    let lots = |value: i128| scaled(value, listing.qty_scale, listing.qty_decimals);
    let quote = |value: i128| scaled(value, listing.price_scale + listing.qty_scale, listing.quote_decimals);
    KlineEntry {
        symbol: listing.native.clone(),
        interval: row.interval.to_owned(),
        open_ms: candle.open_ms,
        open: price(candle.open),
        high: price(candle.high),
        low: price(candle.low),
        close: price(candle.close),
        volume: lots(candle.volume),
        quote_volume: quote(candle.quote),
        trades: candle.count,
        taker_volume: lots(candle.taker_volume),
        taker_quote_volume: quote(candle.taker_quote),
        sending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let symbols = crate::config::Symbols::Named(vec!["BTCUSDT".to_owned()]);
        let roster = Arc::new(Roster::new(crate::universe::listings(Market::Spot, &symbols, 100)));
        Ledger::new(3, [Arc::clone(&roster), roster])
    }

    fn trade(ledger: &Ledger, id: i64, sent_ms: i64, number: u64) {
        let row =
            TradeRow { channel: "trade", id, price: 9_125_000, qty: 150, ts_ms: sent_ms, taker_sold: true };
        ledger.trade(Market::Spot, 0, sent_ms, vec![Delivery { connection: 1, number }], row);
    }

    #[test]
    fn only_what_was_written_on_a_sound_line_counts_as_delivered() {
        let ledger = ledger();
        let written = Arc::new(Written::default());
        written.add(2, false);
        ledger.opened(1, Market::Spot, "stream", 0, Arc::clone(&written));
        trade(&ledger, 1, 1_000, 1);
        trade(&ledger, 2, 5_000, 2);
        trade(&ledger, 3, 5_001, 3);
        let delivered = || -> Vec<bool> {
            let rows = ledger.trades(Market::Spot, &LedgerQuery::default());
            rows.iter().map(|row| row.sending.delivered).collect()
        };
        assert_eq!(delivered(), [true, true, false], "the third is not written out yet");
        ledger.closed(1, 5_500, false, "cut".to_owned());
        written.add(1, false);
        assert_eq!(delivered(), [true, false, false], "written less than a second before the cut");
        ledger.closed(1, 5_500, true, "closed".to_owned());
        assert_eq!(delivered(), [true, true, true]);
    }

    #[test]
    fn rows_are_bounded_paged_and_counted() {
        let ledger = ledger();
        (1..=5).for_each(|id| trade(&ledger, id, 0, 1));
        let rows = ledger.trades(Market::Spot, &LedgerQuery::default());
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!((rows[0].price.as_str(), rows[0].qty.as_str()), ("91250.00000000", "0.00150000"));
        let page = LedgerQuery { after: rows[0].sending.sequence, limit: 1, ..LedgerQuery::default() };
        assert_eq!(ledger.trades(Market::Spot, &page)[0].id, 4);
        let other = LedgerQuery { symbol: Some("ETHUSDT".to_owned()), ..LedgerQuery::default() };
        assert_eq!((ledger.trades(Market::Spot, &other).len(), ledger.totals(Market::Spot).trades), (0, 5));
    }
}
