//! One simulated market: its symbols, who is connected and subscribed, and the faults put into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use fathom_market::ids::Market;
use tokio::sync::watch;

use crate::config::{MarketConfig, Source};
use crate::engine::book::BookState;
use crate::engine::cell::{Cell, Context};
use crate::faults::Target;
use crate::faults::active::Active;
use crate::faults::market::MarketFaults;
use crate::hub::Conn;
use crate::hub::made::{MadeRing, Memory};
use crate::hub::rules::Leaving;
use crate::hub::topic::{Message, Topic};
use crate::ledger::Ledger;
use crate::limits::Addresses;
use crate::number::now_ms;
use crate::rate::Rate;
use crate::recorded::Replay;
use crate::roster::Roster;
use crate::universe::{Contract, DATED_MS, Listing, NEVER_MS, listed};
use crate::wire::streams::{Global, Kind, Route};
use crate::wire::{futures, rows, spot};

/// A market and everything in it.
pub(crate) struct MarketState {
    pub market: Market,
    pub config: MarketConfig,
    /// Whether its servers speak TLS.
    pub tls: bool,
    pub roster: Arc<Roster>,
    pub ledger: Arc<Ledger>,
    pub faults: Arc<MarketFaults>,
    /// Told of whenever the life of connections changes.
    pub life_changed: watch::Sender<u64>,
    pub rate: Rate,
    pub memory: Arc<Memory>,
    pub addresses: Addresses,
    /// The replay, in a market of recorded frames.
    pub replay: Option<Arc<Replay>>,
    cells: Box<[OnceLock<Mutex<Cell>>]>,
    /// How often symbols came, went, started or stopped.
    changes: AtomicU64,
    globals: Mutex<Vec<Topic<Global>>>,
    global_beat: AtomicI64,
    conns: Mutex<BTreeMap<u64, Connected>>,
}

struct Connected {
    conn: Arc<Conn>,
    streams: BTreeSet<String>,
}

/// What a stream name means on a market.
enum Meaning {
    Symbol(usize, Kind),
    Global(Global),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MarketState {
    pub(crate) fn new(
        market: Market,
        config: MarketConfig,
        roster: Arc<Roster>,
        cells: Vec<Cell>,
        ledger: Arc<Ledger>,
        (replay, memory): (Option<Arc<Replay>>, Arc<Memory>),
        tls: bool,
    ) -> Self {
        let (steps, messages) = match &config.source {
            Source::Seeded(seeded) => (seeded.events_per_second, seeded.messages_per_second),
            Source::Recorded(_) => (0.0, None),
        };
        let mut slots: Box<[OnceLock<_>]> =
            std::iter::repeat_with(OnceLock::new).take(roster.capacity()).collect();
        for (slot, cell) in slots.iter_mut().zip(cells) {
            *slot = OnceLock::from(Mutex::new(cell));
        }
        Self {
            market,
            addresses: Addresses::new(config.limits.clone()),
            config,
            tls,
            roster,
            ledger,
            faults: Arc::default(),
            life_changed: watch::Sender::new(0),
            rate: Rate::new(steps, messages),
            memory,
            replay,
            cells: slots,
            changes: AtomicU64::new(0),
            globals: Mutex::default(),
            global_beat: AtomicI64::new(0),
            conns: Mutex::default(),
        }
    }

    /// The index of a native symbol.
    pub(crate) fn symbol(&self, native: &str) -> Option<usize> {
        self.roster.find(native)
    }

    #[allow(clippy::expect_used, reason = "a symbol is found only after its cell was made")]
    fn cell(&self, index: usize) -> MutexGuard<'_, Cell> {
        lock(self.cells[index].get().expect("the cell of a symbol"))
    }

    /// Works on one symbol, under its lock.
    pub(crate) fn with_cell<T>(
        &self,
        index: usize,
        now_ms: i64,
        act: impl FnOnce(&mut Cell, &Context<'_>) -> T,
    ) -> T {
        let ctx = Context {
            market: self.market,
            index,
            listing: &self.roster[index],
            ledger: &self.ledger,
            now_ms,
            event_ms: self.event_ms(now_ms),
        };
        act(&mut self.cell(index), &ctx)
    }

    /// The time that events and `serverTime` carry.
    pub(crate) fn event_ms(&self, now_ms: i64) -> i64 {
        now_ms + self.faults.shift_ms(now_ms)
    }

    /// How often symbols came, went, started or stopped.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Upper bounds of the symbols' shares of the market's steps.
    pub(crate) fn shares(&self) -> Vec<f64> {
        let share = |sum: &mut f64, (index, listing): (usize, &Listing)| {
            *sum += if self.cell(index).status == "TRADING" { listing.weight } else { 0.0 };
            Some(*sum)
        };
        self.roster.iter().enumerate().scan(0.0, share).collect()
    }

    /// A symbol starts or stops, and on futures that is told.
    pub(crate) fn set_status(&self, index: usize, status: &str, now_ms: i64) {
        self.with_cell(index, now_ms, |cell, ctx| cell.set_status(status, ctx.listing, ctx.market, now_ms));
        self.changes.fetch_add(1, Ordering::AcqRel);
        if self.market == Market::Futures {
            let (listing, event_ms) = (&self.roster[index], self.event_ms(now_ms));
            let data = futures::contract_info(listing, status, event_ms, delivery_ms(listing));
            let id = event_ms.unsigned_abs();
            let message = Message { data: &data, first: id, id };
            self.with_global(Global::ContractInfo, "!contractInfo", |topic| {
                topic.publish(&message, now_ms, &mut |_| None)
            });
        }
    }

    /// A new symbol; `None` when the market cannot have it, or has no room.
    pub(crate) fn list(&self, native: &str, now_ms: i64) -> Option<usize> {
        let Source::Seeded(seeded) = &self.config.source else { return None };
        let listing = listed(self.market, native, now_ms, seeded.max_levels / 6)?;
        let first_id = seeded.first_id.unwrap_or(now_ms.unsigned_abs() * 1000);
        let cell = Cell::seeded(self.market, &listing, seeded, first_id, now_ms, &self.memory);
        self.roster.add(listing, |index| {
            let _ = self.cells[index].set(Mutex::new(cell));
        })
    }

    fn meaning(&self, name: &str) -> Option<Meaning> {
        if let Some(global) = Global::parse(self.market, name) {
            return Some(Meaning::Global(global));
        }
        let (symbol, what) = name.split_once('@')?;
        let index = self.roster.by_lower(symbol)?;
        let kind = match what {
            "depth@0ms" if self.replay.is_some() => Kind::Depth(0),
            _ => Kind::parse(self.market, what)?,
        };
        Some(Meaning::Symbol(index, kind))
    }

    pub(crate) fn connected(&self, conn: &Arc<Conn>) {
        lock(&self.conns).insert(conn.id, Connected { conn: Arc::clone(conn), streams: BTreeSet::new() });
    }

    /// Forgets a connection and its subscriptions.
    pub(crate) fn disconnected(&self, id: u64) {
        let Some(gone) = lock(&self.conns).remove(&id) else { return };
        for name in gone.streams {
            self.leave(id, &name, Leaving::Gone);
        }
        gone.conn.gone(now_ms());
    }

    pub(crate) fn streams_of(&self, id: u64) -> Vec<String> {
        lock(&self.conns)
            .get(&id)
            .map(|connected| connected.streams.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Subscribes; false when the venue would acknowledge and stay silent.
    pub(crate) fn subscribe(&self, conn: &Arc<Conn>, name: &str, raw: bool) -> bool {
        if let Some(connected) = lock(&self.conns).get_mut(&conn.id) {
            connected.streams.insert(name.to_owned());
        }
        match self.meaning(name) {
            Some(Meaning::Symbol(index, kind)) if conn.route.carries(kind.is_public()) => {
                self.cell(index).topic(kind, name).join(conn, raw, now_ms());
                if let Some(replay) = &self.replay {
                    replay.subscribed(index, kind);
                }
                true
            }
            Some(Meaning::Global(kind)) if conn.route.carries(false) => {
                self.with_global(kind, name, |topic| topic.join(conn, raw, now_ms()));
                true
            }
            _ => false,
        }
    }

    pub(crate) fn unsubscribe(&self, conn: u64, name: &str) {
        if let Some(connected) = lock(&self.conns).get_mut(&conn) {
            connected.streams.remove(name);
        }
        self.leave(conn, name, Leaving::Unsubscribed);
    }

    fn leave(&self, conn: u64, name: &str, how: Leaving) {
        let now_ms = now_ms();
        match self.meaning(name) {
            Some(Meaning::Symbol(index, kind)) => self.cell(index).topic(kind, name).leave(conn, how, now_ms),
            Some(Meaning::Global(kind)) => {
                self.with_global(kind, name, |topic| topic.leave(conn, how, now_ms))
            }
            None => {}
        }
    }

    fn with_global<T>(&self, kind: Global, name: &str, act: impl FnOnce(&mut Topic<Global>) -> T) -> T {
        let mut globals = lock(&self.globals);
        let at = globals.iter().position(|topic| topic.name == name).unwrap_or_else(|| {
            globals.push(Topic::new(kind, name, &self.memory));
            globals.len() - 1
        });
        act(&mut globals[at])
    }

    /// All-market arrays, each second.
    pub(crate) fn tick_globals(&self, now_ms: i64) {
        let second = now_ms.div_euclid(1000);
        if self.global_beat.swap(second, Ordering::AcqRel) == second {
            return;
        }
        let wanted: Vec<(Global, String)> = {
            let globals = lock(&self.globals);
            globals
                .iter()
                .filter(|topic| !topic.is_idle())
                .map(|topic| (topic.kind, topic.name.clone()))
                .collect()
        };
        for (kind, name) in wanted {
            if matches!(kind, Global::MarkPrices(3000)) && second % 3 != 0 {
                continue;
            }
            for data in self.array(kind, now_ms) {
                let id = now_ms.unsigned_abs();
                let message = Message { data: &data, first: id, id };
                self.with_global(kind, &name, |topic| topic.publish(&message, now_ms, &mut |_| None));
            }
        }
    }

    /// The messages of an all-market stream; TradFi contracts come in an array of their own.
    fn array(&self, kind: Global, now_ms: i64) -> Vec<String> {
        let (mut main, mut tradfi) = (Vec::new(), Vec::new());
        for index in 0..self.roster.len() {
            let element = self.with_cell(index, now_ms, |cell, ctx| element(kind, cell, ctx));
            let Some(element) = element else { continue };
            if self.roster[index].contract == Contract::TradFi { &mut tradfi } else { &mut main }
                .push(element);
        }
        if matches!(kind, Global::MarkPrices(_)) {
            main.push(futures::coin_margined_mark(self.event_ms(now_ms)));
        } else {
            main.append(&mut tradfi);
        }
        [main, tradfi].into_iter().filter(|part| !part.is_empty()).map(rows::array).collect()
    }

    /// The book of a symbol, now or as it was at an id.
    pub(crate) fn book_at(&self, index: usize, id: Option<u64>) -> Option<BookState> {
        let cell = self.cell(index);
        cell.book.at(id.unwrap_or(cell.book.id()))
    }

    /// Best quotes that changed, over all symbols.
    pub(crate) fn quotes(&self) -> u64 {
        (0..self.roster.len()).map(|index| self.cell(index).quotes).sum()
    }

    pub(crate) fn open_connections(&self) -> usize {
        lock(&self.conns).len()
    }

    pub(crate) fn knows_stream(&self, name: &str) -> bool {
        self.meaning(name).is_some()
    }

    /// Whether a target means a stream.
    fn hits(&self, target: &Target, name: &str) -> bool {
        let (symbol, channel) = match self.meaning(name) {
            Some(Meaning::Symbol(index, kind)) => (self.roster[index].native.as_str(), kind.channel()),
            Some(Meaning::Global(kind)) => ("", kind.channel()),
            None => return false,
        };
        target.stream.as_ref().is_none_or(|wanted| wanted == name)
            && target.symbol.as_ref().is_none_or(|wanted| wanted == symbol)
            && target.channel.as_ref().is_none_or(|wanted| wanted == channel)
    }

    /// The connections that a target means, the oldest first.
    pub(crate) fn connections_hit(&self, target: &Target) -> Vec<Arc<Conn>> {
        let any = target.stream.is_none() && target.symbol.is_none() && target.channel.is_none();
        let conns = lock(&self.conns);
        let hit = conns.values().filter(|connected| {
            target.connection.is_none_or(|id| connected.conn.id == id)
                && (any || connected.streams.iter().any(|name| self.hits(target, name)))
        });
        hit.map(|connected| Arc::clone(&connected.conn)).collect()
    }

    /// The streams that a target means: one by its name, else those that somebody has subscribed. `books` leaves only
    /// differences of books.
    pub(crate) fn streams_hit(&self, target: &Target, books: bool) -> BTreeSet<String> {
        let fits = |name: &String| {
            let depth = matches!(self.meaning(name), Some(Meaning::Symbol(_, Kind::Depth(_))));
            self.hits(target, name) && (depth || !books)
        };
        if let Some(name) = &target.stream {
            return Some(name.clone()).filter(fits).into_iter().collect();
        }
        let conns = lock(&self.conns);
        let of = |connected: &&Connected| target.connection.is_none_or(|id| connected.conn.id == id);
        conns
            .values()
            .filter(of)
            .flat_map(|connected| &connected.streams)
            .filter(|name| fits(name))
            .cloned()
            .collect()
    }

    pub(crate) fn afflict_stream(&self, name: &str, active: &Arc<Active>) {
        match self.meaning(name) {
            Some(Meaning::Symbol(index, kind)) => self.cell(index).topic(kind, name).afflict(active),
            Some(Meaning::Global(kind)) => self.with_global(kind, name, |topic| topic.afflict(active)),
            None => {}
        }
    }

    /// Looks at every stream that was ever subscribed: the symbol's index, name, channel, and what it made.
    pub(crate) fn each_stream(
        &self,
        symbol: Option<usize>,
        mut see: impl FnMut(Option<usize>, &str, &str, &MadeRing),
    ) {
        for index in symbol.map_or(0..self.roster.len(), |index| index..index + 1) {
            for topic in &self.cell(index).topics {
                see(Some(index), &topic.name, topic.kind.channel(), &topic.made);
            }
        }
        if symbol.is_none() {
            for topic in lock(&self.globals).iter() {
                see(None, &topic.name, topic.kind.channel(), &topic.made);
            }
        }
    }

    /// The route that a path's first part names.
    pub(crate) fn route(&self, path: &str) -> Option<(Route, bool)> {
        let (route, rest) = match (self.market, path) {
            (Market::Spot, _) => (Route::Spot, path),
            (Market::Futures, _) if path.starts_with("/public/") => (Route::Public, &path["/public".len()..]),
            (Market::Futures, _) if path.starts_with("/market/") => (Route::Market, &path["/market".len()..]),
            (Market::Futures, _) => (Route::Unrouted, path),
        };
        match rest {
            "/stream" => Some((route, false)),
            "/ws" => Some((route, true)),
            _ if rest.starts_with("/ws/") => Some((route, true)),
            _ => None,
        }
    }

    /// How much the REST book lags the stream, ms.
    pub(crate) fn snapshot_age(&self, symbol: &str, now_ms: i64) -> i64 {
        let lag = match &self.config.source {
            Source::Seeded(seeded) => i64::try_from(seeded.snapshot_lag_ms.min(60_000)).unwrap_or(0),
            Source::Recorded(_) => 0,
        };
        self.faults.snapshot_age(symbol, now_ms).unwrap_or(lag)
    }
}

/// When a contract is delivered.
pub(crate) fn delivery_ms(listing: &Listing) -> i64 {
    if listing.contract == Contract::CurrentQuarter { DATED_MS } else { NEVER_MS }
}

fn element(kind: Global, cell: &mut Cell, ctx: &Context<'_>) -> Option<String> {
    let mut out = String::new();
    match kind {
        Global::ContractInfo => return None,
        Global::MarkPrices(_) => {
            futures::mark_price(&mut out, ctx.listing, ctx.event_ms, &cell.mark(ctx.listing, ctx.event_ms)?)
        }
        Global::Tickers => futures::ticker(&mut out, ctx.listing, &cell.ticker(ctx.event_ms)?),
        Global::MiniTickers => {
            let ticker = cell.ticker(ctx.event_ms)?;
            match ctx.market {
                Market::Spot => spot::mini_ticker(&mut out, ctx.listing, &ticker),
                Market::Futures => futures::mini_ticker(&mut out, ctx.listing, &ticker),
            }
        }
    }
    Some(out)
}
