//! One symbol as the venue serves it: its book and topics, and in a seeded market its engine, candles and timers. All
//! that is sent for the symbol leaves from here, in order, under one lock.

use std::collections::VecDeque;
use std::sync::Arc;

use fathom_market::ids::Market;

use super::book::{Book, Levels, Mark as BookMark, Side};
use super::funding::Funding;
use super::interval::Interval;
use super::klines::{Candle, Fill, Klines};
use super::path::PricePath;
use super::symbol::{Step, SymbolEngine, Trade, typical_lots};
use crate::config::SeededConfig;
use crate::hub::made::Memory;
use crate::hub::topic::{Message, Topic};
use crate::ledger::entries::Delivery;
use crate::ledger::{KlineRow, Ledger, TradeRow};
use crate::number::seed_of;
use crate::universe::Listing;
use crate::wire::streams::Kind;
use crate::wire::{AggTrade, Mark, Quote, Ticker, futures, spot};

/// What a cell is told on every call.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub market: Market,
    pub index: usize,
    pub listing: &'a Listing,
    pub ledger: &'a Ledger,
    pub now_ms: i64,
    /// The time that events carry.
    pub event_ms: i64,
}

/// Push periods, ms; each has its own beat in [`Sim::beats`].
const PERIODS: [u16; 6] = [100, 250, 500, 1000, 2000, 3000];

/// One symbol.
pub(crate) struct Cell {
    pub status: String,
    pub book: Book,
    pub topics: Vec<Topic<Kind>>,
    memory: Arc<Memory>,
    pub sim: Option<Sim>,
    pub quotes: u64,
}

/// The seeded part of a symbol.
pub(crate) struct Sim {
    engine: SymbolEngine,
    pub klines: Klines,
    pub funding: Funding,
    step: Step,
    /// Aggregates that were sent, for REST.
    pub aggregates: VecDeque<AggTrade>,
    /// Aggregates of the running 100 ms (futures).
    pending: Vec<AggTrade>,
    next_aggregate: i64,
    last_qty: i64,
    beats: [i64; PERIODS.len()],
    pub(super) marks: [BookMark; 4],
    /// Candle last sent per interval: open and trade count.
    sent: Vec<(Interval, i64, u64)>,
    history: usize,
}

impl Cell {
    /// A symbol of a replay: its book comes with the frames.
    pub(crate) fn recorded(memory: &Arc<Memory>) -> Self {
        Self {
            status: "TRADING".to_owned(),
            book: Book::default(),
            topics: Vec::new(),
            memory: Arc::clone(memory),
            sim: None,
            quotes: 0,
        }
    }

    /// A symbol of a seeded market.
    pub(crate) fn seeded(
        market: Market,
        listing: &Listing,
        config: &SeededConfig,
        first_id: u64,
        now_ms: i64,
        memory: &Arc<Memory>,
    ) -> Self {
        let futures = market == Market::Futures;
        let shape = seed_of(config.seed, &listing.native);
        let path = PricePath::new(shape, listing.anchor, typical_lots(listing) * 20.0);
        let klines = Klines::new(path, listing.onboard_ms, now_ms);
        let engine_seed = seed_of(shape, market.as_str());
        let (engine, drawn) =
            SymbolEngine::new(listing, futures, engine_seed, first_id, klines.start_price());
        let trading = listing.status == "TRADING";
        let book = if trading { drawn } else { Book::new(first_id, Levels::new(), Levels::new()) };
        let mark = book.mark();
        let sim = Sim {
            engine,
            klines,
            funding: Funding::new(shape, listing),
            step: Step::default(),
            aggregates: VecDeque::new(),
            pending: Vec::new(),
            next_aggregate: i64::try_from(first_id / 200).unwrap_or(1).max(1),
            last_qty: 0,
            beats: PERIODS.map(|period| beat(now_ms, 0, period)),
            marks: [mark; 4],
            sent: Vec::new(),
            history: config.trade_history.max(1),
        };
        Self {
            status: listing.status.to_owned(),
            book,
            topics: Vec::new(),
            memory: Arc::clone(memory),
            sim: Some(sim),
            quotes: 0,
        }
    }

    /// Trading starts or stops.
    pub(crate) fn set_status(&mut self, status: &str, listing: &Listing, market: Market, now_ms: i64) {
        status.clone_into(&mut self.status);
        let empty = self.book.best(Side::Bid).is_none() && self.book.best(Side::Ask).is_none();
        if let Some(sim) = self.sim.as_mut().filter(|_| status == "TRADING" && empty) {
            let seed = seed_of(now_ms.cast_unsigned(), &listing.native);
            let price = sim.klines.start_price();
            let futures = market == Market::Futures;
            (sim.engine, self.book) = SymbolEngine::new(listing, futures, seed, self.book.id() + 1, price);
            sim.marks = [self.book.mark(); 4];
        }
    }

    pub(crate) fn topic(&mut self, kind: Kind, name: &str) -> &mut Topic<Kind> {
        let found = self.topics.iter().position(|topic| topic.name == name);
        let at = found.unwrap_or_else(|| {
            self.topics.push(Topic::new(kind, name, &self.memory));
            self.topics.len() - 1
        });
        if let (Kind::Kline(interval), Some(sim)) = (kind, self.sim.as_mut()) {
            sim.klines.watch(interval);
        }
        &mut self.topics[at]
    }

    /// Sends a message of `id` to whoever listens.
    pub(super) fn send(
        &mut self,
        kind: Kind,
        id: u64,
        now_ms: i64,
        encode: impl FnOnce(&mut String),
    ) -> Vec<Delivery> {
        let Some(topic) = self.topics.iter_mut().find(|topic| topic.kind == kind) else {
            return Vec::new();
        };
        if topic.is_idle() {
            topic.unheard(id, id, now_ms);
            return Vec::new();
        }
        let mut data = String::with_capacity(320);
        encode(&mut data);
        topic.publish(&Message { data: &data, first: id, id }, now_ms, &mut |_| None)
    }

    pub(super) fn heard(&self, kind: Kind) -> bool {
        self.topics.iter().any(|topic| topic.kind == kind && !topic.is_idle())
    }

    /// The best of both sides.
    pub(crate) fn quote(&self) -> Option<Quote> {
        Some(Quote { id: self.book.id(), bid: self.book.best(Side::Bid)?, ask: self.book.best(Side::Ask)? })
    }

    /// One market step, with everything that is sent at once.
    pub(crate) fn step(&mut self, ctx: &Context<'_>) {
        if self.status != "TRADING" {
            return;
        }
        self.close_candles(ctx);
        let Some(sim) = self.sim.as_mut() else { return };
        let mut step = std::mem::take(&mut sim.step);
        sim.engine.step(&mut self.book, ctx.now_ms, &mut step);
        for trade in &mut step.trades {
            trade.ms = ctx.event_ms;
            self.traded(ctx, trade);
        }
        if step.top_changed
            && let Some(quote) = self.quote()
        {
            self.quotes += 1;
            self.send(Kind::BookTicker, quote.id, ctx.now_ms, |out| match ctx.market {
                Market::Spot => spot::book_ticker(out, ctx.listing, &quote),
                Market::Futures => futures::book_ticker(out, ctx.listing, ctx.event_ms, &quote),
            });
        }
        if let Some(sim) = self.sim.as_mut() {
            sim.step = step;
        }
    }

    fn traded(&mut self, ctx: &Context<'_>, trade: &Trade) {
        let Some(sim) = self.sim.as_mut() else { return };
        let Trade { id, price, qty, ms, taker_sold } = *trade;
        sim.klines.add(&Fill { id, price, qty, taker_sold });
        sim.last_qty = qty;
        let merged = sim.merge(ctx.market, trade);
        let to = self.send(Kind::Trade, id.unsigned_abs(), ctx.now_ms, |out| match ctx.market {
            Market::Spot => spot::trade(out, ctx.listing, ctx.event_ms, trade),
            Market::Futures => futures::trade(out, ctx.listing, ctx.event_ms, trade),
        });
        let row = TradeRow { channel: "trade", id, price, qty, ts_ms: ms, taker_sold };
        ctx.ledger.trade(ctx.market, ctx.index, ctx.now_ms, to, row);
        if let Some(aggregate) = merged {
            self.aggregated(ctx, aggregate);
        }
    }

    fn aggregated(&mut self, ctx: &Context<'_>, trade: AggTrade) {
        let to = self.send(Kind::AggTrade, trade.id.unsigned_abs(), ctx.now_ms, |out| match ctx.market {
            Market::Spot => spot::agg_trade(out, ctx.listing, ctx.event_ms, &trade),
            Market::Futures => futures::agg_trade(out, ctx.listing, ctx.event_ms, &trade),
        });
        let AggTrade { id, price, qty, ms, taker_sold, .. } = trade;
        let row = TradeRow { channel: "aggTrade", id, price, qty, ts_ms: ms, taker_sold };
        ctx.ledger.trade(ctx.market, ctx.index, ctx.now_ms, to, row);
        if let Some(sim) = self.sim.as_mut() {
            if sim.aggregates.len() >= sim.history {
                sim.aggregates.pop_front();
            }
            sim.aggregates.push_back(trade);
        }
    }

    fn close_candles(&mut self, ctx: &Context<'_>) {
        let Some(sim) = self.sim.as_mut() else { return };
        let mut closed = Vec::new();
        sim.klines.roll(ctx.now_ms, &mut closed);
        for (interval, candle) in closed {
            let to = self.send_candle(ctx, interval, &candle, true);
            if interval != Interval::SECOND || !to.is_empty() {
                let row = KlineRow { interval: interval.name(), candle };
                ctx.ledger.kline(ctx.market, ctx.index, ctx.now_ms, to, row);
            }
        }
    }

    fn send_candle(
        &mut self,
        ctx: &Context<'_>,
        interval: Interval,
        candle: &Candle,
        closed: bool,
    ) -> Vec<Delivery> {
        self.send(Kind::Kline(interval), candle.open_ms.unsigned_abs(), ctx.now_ms, |out| match ctx.market {
            Market::Spot => spot::kline(out, ctx.listing, ctx.event_ms, interval, candle, closed),
            Market::Futures => futures::kline(out, ctx.listing, ctx.event_ms, interval, candle, closed),
        })
    }

    /// Everything that is pushed by the clock.
    pub(crate) fn tick(&mut self, ctx: &Context<'_>) {
        if self.status != "TRADING" {
            return;
        }
        self.close_candles(ctx);
        let Some(sim) = self.sim.as_mut() else { return };
        let mut due = [false; PERIODS.len()];
        for ((due, last), period) in due.iter_mut().zip(&mut sim.beats).zip(PERIODS) {
            let now = beat(ctx.now_ms, ctx.index, period);
            *due = now != *last;
            *last = now;
        }
        let futures = ctx.market == Market::Futures;
        if due[0] && futures {
            for aggregate in std::mem::take(&mut sim.pending) {
                self.aggregated(ctx, aggregate);
            }
        }
        for (slot, period) in PERIODS.into_iter().enumerate().take(4) {
            if due[slot] {
                self.push_depth(ctx, slot, period);
            }
        }
        self.push_candles(ctx, due[1] && futures || due[4] && !futures, due[3] && !futures);
        if due[3] && !futures || due[4] && futures {
            self.push_tickers(ctx);
        }
        for (slot, period) in [(3, 1000), (5, 3000)] {
            if futures && due[slot] {
                self.push_mark(ctx, period);
            }
        }
    }

    /// Running candles that changed since they were last sent.
    fn push_candles(&mut self, ctx: &Context<'_>, most: bool, seconds: bool) {
        if !most && !seconds {
            return;
        }
        let heard =
            self.topics.iter().filter(|topic| !topic.is_idle()).filter_map(|topic| match topic.kind {
                Kind::Kline(interval)
                    if (interval == Interval::SECOND && seconds)
                        || (interval != Interval::SECOND && most) =>
                {
                    Some(interval)
                }
                _ => None,
            });
        for interval in heard.collect::<Vec<_>>() {
            let Some(sim) = self.sim.as_mut() else { return };
            let candle = sim.klines.current(interval);
            let now = (interval, candle.open_ms, candle.count);
            match sim.sent.iter_mut().find(|sent| sent.0 == interval) {
                Some(sent) if *sent == now => continue,
                Some(sent) => *sent = now,
                None => sim.sent.push(now),
            }
            self.send_candle(ctx, interval, &candle, false);
        }
    }

    /// The values of the 24 h ticker; `None` in a replay.
    pub(crate) fn ticker(&mut self, now_ms: i64) -> Option<Ticker> {
        let quote = self.quote();
        let sim = self.sim.as_mut()?;
        Some(Ticker { day: sim.klines.day(), now_ms, last_qty: sim.last_qty, quote })
    }

    fn push_tickers(&mut self, ctx: &Context<'_>) {
        let (full, mini) = (self.heard(Kind::Ticker), self.heard(Kind::MiniTicker));
        if !full && !mini {
            return;
        }
        let Some(ticker) = self.ticker(ctx.event_ms) else { return };
        self.send(Kind::Ticker, ctx.event_ms.unsigned_abs(), ctx.now_ms, |out| match ctx.market {
            Market::Spot => spot::ticker(out, ctx.listing, &ticker),
            Market::Futures => futures::ticker(out, ctx.listing, &ticker),
        });
        self.send(Kind::MiniTicker, ctx.event_ms.unsigned_abs(), ctx.now_ms, |out| match ctx.market {
            Market::Spot => spot::mini_ticker(out, ctx.listing, &ticker),
            Market::Futures => futures::mini_ticker(out, ctx.listing, &ticker),
        });
    }

    /// Mark price and funding; `None` off futures.
    pub(crate) fn mark(&self, listing: &Listing, now_ms: i64) -> Option<Mark> {
        let quote = self.quote()?;
        Some(self.sim.as_ref()?.funding.mark(listing, quote.bid.0, quote.ask.0, now_ms))
    }

    fn push_mark(&mut self, ctx: &Context<'_>, period: u16) {
        if !self.heard(Kind::MarkPrice(period)) {
            return;
        }
        let Some(mark) = self.mark(ctx.listing, ctx.event_ms) else { return };
        self.send(Kind::MarkPrice(period), ctx.event_ms.unsigned_abs(), ctx.now_ms, |out| {
            futures::mark_price(out, ctx.listing, ctx.event_ms, &mark)
        });
    }
}

impl Sim {
    /// Joins a fill to the aggregates. Spot: its own aggregate at once. Futures: fills of equal price and taker side
    /// within 100 ms become one, sent by the clock.
    fn merge(&mut self, market: Market, trade: &Trade) -> Option<AggTrade> {
        let Trade { id, price, qty, ms, taker_sold } = *trade;
        let same = |open: &&mut AggTrade| {
            open.price == price && open.taker_sold == taker_sold && open.last + 1 == id
        };
        if let Some(open) = self.pending.last_mut().filter(same) {
            open.qty += qty;
            open.last = id;
            return None;
        }
        let aggregate = AggTrade { id: self.next_aggregate, price, qty, first: id, last: id, ms, taker_sold };
        self.next_aggregate += 1;
        if market == Market::Spot {
            return Some(aggregate);
        }
        self.pending.push(aggregate);
        None
    }
}

/// The number of the period that holds `now_ms`; symbols are spread over it.
fn beat(now_ms: i64, index: usize, period: u16) -> i64 {
    let phase = i64::try_from(index).unwrap_or(0) * 7 % i64::from(period);
    (now_ms + phase).div_euclid(i64::from(period))
}
