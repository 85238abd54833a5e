//! One simulated market: its symbols, who is connected and subscribed, and the faults put into it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fathom_market::ids::Market;

use crate::config::{MarketConfig, Source};
use crate::engine::book::BookState;
use crate::engine::cell::{Cell, Context};
use crate::faults::{DropHow, Fault, FaultError, MarketFaults};
use crate::hub::{Conn, End, Topic};
use crate::ledger::Ledger;
use crate::limits::Addresses;
use crate::recorded::Replay;
use crate::universe::{Contract, DATED_MS, Listing, NEVER_MS};
use crate::wire::streams::{Global, Kind, Route};
use crate::wire::{futures, rows, spot};

/// A market and everything in it.
pub(crate) struct MarketState {
    pub market: Market,
    pub config: MarketConfig,
    pub listings: Arc<[Listing]>,
    pub ledger: Arc<Ledger>,
    pub faults: MarketFaults,
    pub addresses: Addresses,
    /// The replay, in a market of recorded frames.
    pub replay: Option<Arc<Replay>>,
    by_lower: HashMap<String, usize>,
    cells: Vec<Mutex<Cell>>,
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
        listings: Arc<[Listing]>,
        cells: Vec<Cell>,
        ledger: Arc<Ledger>,
        replay: Option<Arc<Replay>>,
    ) -> Self {
        let by_lower =
            listings.iter().enumerate().map(|(index, listing)| (listing.lower.clone(), index)).collect();
        Self {
            market,
            addresses: Addresses::new(config.limits.clone()),
            config,
            listings,
            ledger,
            faults: MarketFaults::default(),
            replay,
            by_lower,
            cells: cells.into_iter().map(Mutex::new).collect(),
            globals: Mutex::default(),
            global_beat: AtomicI64::new(0),
            conns: Mutex::default(),
        }
    }

    /// The index of a native symbol.
    pub(crate) fn symbol(&self, native: &str) -> Option<usize> {
        let index = *self.by_lower.get(&native.to_ascii_lowercase())?;
        (self.listings[index].native == native).then_some(index)
    }

    /// Works on one symbol, under its lock.
    pub(crate) fn with_cell<T>(
        &self,
        index: usize,
        now_ms: i64,
        act: impl FnOnce(&mut Cell, &Context<'_>) -> T,
    ) -> T {
        let listing = &self.listings[index];
        let ctx = Context { market: self.market, index, listing, ledger: &self.ledger, now_ms };
        act(&mut lock(&self.cells[index]), &ctx)
    }

    fn meaning(&self, name: &str) -> Option<Meaning> {
        if let Some(global) = Global::parse(self.market, name) {
            return Some(Meaning::Global(global));
        }
        let (symbol, what) = name.split_once('@')?;
        let index = *self.by_lower.get(symbol)?;
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
            self.leave(id, &name);
        }
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
                lock(&self.cells[index]).topic(kind, name).join(conn, raw);
                if let Some(replay) = &self.replay {
                    replay.subscribed(index, kind);
                }
                true
            }
            Some(Meaning::Global(kind)) if conn.route.carries(false) => {
                self.with_global(kind, name, |topic| topic.join(conn, raw));
                true
            }
            _ => false,
        }
    }

    pub(crate) fn unsubscribe(&self, conn: u64, name: &str) {
        if let Some(connected) = lock(&self.conns).get_mut(&conn) {
            connected.streams.remove(name);
        }
        self.leave(conn, name);
    }

    fn leave(&self, conn: u64, name: &str) {
        match self.meaning(name) {
            Some(Meaning::Symbol(index, kind)) => lock(&self.cells[index]).topic(kind, name).leave(conn),
            Some(Meaning::Global(kind)) => self.with_global(kind, name, |topic| topic.leave(conn)),
            None => {}
        }
    }

    fn with_global<T>(&self, kind: Global, name: &str, act: impl FnOnce(&mut Topic<Global>) -> T) -> T {
        let mut globals = lock(&self.globals);
        let at = globals.iter().position(|topic| topic.name == name).unwrap_or_else(|| {
            globals.push(Topic::new(kind, name));
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
                self.with_global(kind, &name, |topic| topic.publish(&data, now_ms));
            }
        }
    }

    /// The messages of an all-market stream; TradFi contracts come in an array of their own.
    fn array(&self, kind: Global, now_ms: i64) -> Vec<String> {
        let (mut main, mut tradfi) = (Vec::new(), Vec::new());
        for index in 0..self.listings.len() {
            let element = self.with_cell(index, now_ms, |cell, ctx| element(kind, cell, ctx));
            let Some(element) = element else { continue };
            if self.listings[index].contract == Contract::TradFi { &mut tradfi } else { &mut main }
                .push(element);
        }
        if matches!(kind, Global::MarkPrices(_)) {
            main.push(futures::coin_margined_mark(now_ms));
        } else {
            main.append(&mut tradfi);
        }
        [main, tradfi].into_iter().filter(|part| !part.is_empty()).map(rows::array).collect()
    }

    /// The book of a symbol, now or as it was at an id.
    pub(crate) fn book_at(&self, index: usize, id: Option<u64>) -> Option<BookState> {
        let cell = lock(&self.cells[index]);
        cell.book.at(id.unwrap_or(cell.book.id()))
    }

    /// Best quotes that changed, over all symbols.
    pub(crate) fn quotes(&self) -> u64 {
        self.cells.iter().map(|cell| lock(cell).quotes).sum()
    }

    pub(crate) fn open_connections(&self) -> usize {
        lock(&self.conns).len()
    }

    fn matching(&self, connection: Option<u64>, stream: Option<&str>) -> Vec<Arc<Conn>> {
        let conns = lock(&self.conns);
        let hit = conns.values().filter(|connected| {
            connection.is_none_or(|id| connected.conn.id == id)
                && stream.is_none_or(|name| connected.streams.contains(name))
        });
        hit.map(|connected| Arc::clone(&connected.conn)).collect()
    }

    /// Puts a fault in.
    pub(crate) fn inject(&self, fault: &Fault, now_ms: i64) -> Result<u64, FaultError> {
        let until = |ms: u64| now_ms.saturating_add_unsigned(ms);
        let (to_ms, hit) = match fault {
            Fault::Drop { connection, stream, how, .. } => {
                let conns = self.matching(*connection, stream.as_deref());
                for conn in &conns {
                    conn.finish(match how {
                        DropHow::Cut => End::Cut("fault".to_owned()),
                        DropHow::Close => End::Close(1001, "fault".to_owned()),
                    });
                }
                (Some(now_ms), nonempty(&conns)?)
            }
            Fault::HalfOpen { connection, stream, .. } => {
                let conns = self.matching(*connection, stream.as_deref());
                conns.iter().for_each(|conn| conn.half_open.store(true, Ordering::Release));
                (None, nonempty(&conns)?)
            }
            Fault::Silence { stream, for_ms, .. } => {
                let to_ms = for_ms.map(until);
                (to_ms, self.on_stream(stream, |hooks| hooks.silence(to_ms))?)
            }
            Fault::Skip { stream, count, .. } => (None, self.on_stream(stream, |hooks| hooks.skip(*count))?),
            Fault::Duplicate { stream, count, .. } => {
                (None, self.on_stream(stream, |hooks| hooks.duplicate(*count))?)
            }
            Fault::Garbage { stream, count, .. } => {
                (None, self.on_stream(stream, |hooks| hooks.garbage(*count))?)
            }
            Fault::Reorder { stream, .. } => (None, self.on_stream(stream, |hooks| hooks.reorder())?),
            Fault::RefuseConnections { for_ms, .. } => {
                self.faults.refuse_until(until(*for_ms));
                (Some(until(*for_ms)), Vec::new())
            }
            Fault::RestError { status, retry_after_s, for_ms, path, .. } => {
                if !matches!(status, 429 | 418 | 500 | 503) {
                    return Err(FaultError::BadStatus(*status));
                }
                self.faults.add_rest(*status, *retry_after_s, path.clone(), until(*for_ms));
                (Some(until(*for_ms)), Vec::new())
            }
            Fault::StaleSnapshot { age_ms, for_ms, .. } => {
                let age = i64::try_from((*age_ms).min(60_000)).unwrap_or(60_000);
                self.faults.stale_until(age, until(*for_ms));
                (Some(until(*for_ms)), Vec::new())
            }
            Fault::SetStatus { symbol, status, .. } => {
                self.set_status(symbol, status, now_ms)?;
                (None, Vec::new())
            }
        };
        Ok(self.ledger.fault(fault, now_ms, to_ms, hit))
    }

    fn set_status(&self, symbol: &str, status: &str, now_ms: i64) -> Result<(), FaultError> {
        let index = self.symbol(symbol).ok_or_else(|| FaultError::UnknownSymbol(symbol.to_owned()))?;
        self.with_cell(index, now_ms, |cell, ctx| cell.set_status(status, ctx.listing, ctx.market, now_ms));
        if self.market == Market::Futures {
            let listing = &self.listings[index];
            let data = futures::contract_info(listing, status, now_ms, delivery_ms(listing));
            self.with_global(Global::ContractInfo, "!contractInfo", |topic| topic.publish(&data, now_ms));
        }
        Ok(())
    }

    fn on_stream(&self, name: &str, act: impl FnOnce(&mut dyn Hooks)) -> Result<Vec<u64>, FaultError> {
        match self.meaning(name) {
            Some(Meaning::Symbol(index, kind)) => {
                let mut cell = lock(&self.cells[index]);
                let topic = cell.topic(kind, name);
                act(topic);
                Ok(topic.connections().map(|conn| conn.id).collect())
            }
            Some(Meaning::Global(kind)) => Ok(self.with_global(kind, name, |topic| {
                act(topic);
                topic.connections().map(|conn| conn.id).collect()
            })),
            None => Err(FaultError::UnknownStream(name.to_owned())),
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
    pub(crate) fn snapshot_age(&self, now_ms: i64) -> i64 {
        let lag = match &self.config.source {
            Source::Seeded(seeded) => i64::try_from(seeded.snapshot_lag_ms.min(60_000)).unwrap_or(0),
            Source::Recorded(_) => 0,
        };
        self.faults.snapshot_age(now_ms).unwrap_or(lag)
    }
}

/// Faults of a topic, whatever its key.
trait Hooks {
    fn silence(&mut self, until_ms: Option<i64>);
    fn skip(&mut self, count: u32);
    fn duplicate(&mut self, count: u32);
    fn garbage(&mut self, count: u32);
    fn reorder(&mut self);
}

impl<K> Hooks for Topic<K> {
    fn silence(&mut self, until_ms: Option<i64>) {
        Self::silence(self, until_ms);
    }
    fn skip(&mut self, count: u32) {
        Self::skip(self, count);
    }
    fn duplicate(&mut self, count: u32) {
        Self::duplicate(self, count);
    }
    fn garbage(&mut self, count: u32) {
        Self::garbage(self, count);
    }
    fn reorder(&mut self) {
        Self::reorder(self);
    }
}

fn nonempty(conns: &[Arc<Conn>]) -> Result<Vec<u64>, FaultError> {
    if conns.is_empty() {
        return Err(FaultError::NoConnection);
    }
    Ok(conns.iter().map(|conn| conn.id).collect())
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
            futures::mark_price(&mut out, ctx.listing, ctx.now_ms, &cell.mark(ctx.listing, ctx.now_ms)?)
        }
        Global::Tickers => futures::ticker(&mut out, ctx.listing, &cell.ticker(ctx.now_ms)?),
        Global::MiniTickers => {
            let ticker = cell.ticker(ctx.now_ms)?;
            match ctx.market {
                Market::Spot => spot::mini_ticker(&mut out, ctx.listing, &ticker),
                Market::Futures => futures::mini_ticker(&mut out, ctx.listing, &ticker),
            }
        }
    }
    Some(out)
}
