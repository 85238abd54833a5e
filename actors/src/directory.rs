//! What is collected, for readers: instruments, their books and shards, and the newest published values. Reading it
//! never waits for an actor.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use dashmap::DashMap;
use fathom_market::{
    ids::{InstrumentId, Market, Scope, VenueId},
    instrument::{Instrument, InstrumentTable},
    sample::{DepthSample, SampleState},
    table::CategorySnapshotRow,
};
use fathom_venues::planner::MarketPlan;

use crate::{
    book::{BookActor, gaps::SharedGaps},
    derived::Derived,
    gaps::{GapBoard, Recall},
    kernel::ActorRef,
    latency::Latency,
    runtime::MarketRuntime,
    stream::ShardStatus,
};

/// A published value of a book older than this says nothing of the present.
pub const PUBLISHED_FOR_US: i64 = 3_000_000;

/// What a book publishes.
pub struct BookCell {
    /// The instrument.
    pub instrument: Arc<Instrument>,
    live: ArcSwapOption<DepthSample>,
    observed_us: AtomicI64,
    ticks: AtomicI64,
}

impl BookCell {
    /// Nothing has been published.
    pub fn new(instrument: Arc<Instrument>) -> Self {
        let (observed_us, ticks) = (AtomicI64::new(0), AtomicI64::new(0));
        Self { instrument, live: ArcSwapOption::empty(), observed_us, ticks }
    }

    /// Publishes a sample taken now.
    pub fn publish(&self, sample: Arc<DepthSample>, now_us: i64) {
        self.live.store(Some(sample));
        self.observed_us.store(now_us, Relaxed);
    }

    /// Publishes the number of ticks held.
    pub fn publish_ticks(&self, ticks: usize) {
        self.ticks.store(i64::try_from(ticks).unwrap_or(i64::MAX), Relaxed);
    }

    /// Ticks held.
    pub fn ticks(&self) -> i64 {
        self.ticks.load(Relaxed)
    }

    /// The newest sample and its age. One whose actor has fallen silent is turned stale: its numbers are not served.
    pub fn sample(&self, now_us: i64) -> Option<(DepthSample, i64)> {
        let mut sample = DepthSample::clone(&*self.live.load_full()?);
        let age_us = now_us - self.observed_us.load(Relaxed);
        if age_us > PUBLISHED_FOR_US && sample.state.is_usable() {
            sample.state = SampleState::Stale;
            sample.bands.clear();
        }
        Some((sample, age_us))
    }

    /// The book's state as readers may believe it.
    pub fn state(&self, now_us: i64) -> SampleState {
        self.sample(now_us).map_or(SampleState::Syncing, |(sample, _)| sample.state)
    }
}

/// A book, as found by readers.
#[derive(Clone)]
pub struct BookEntry {
    /// What it publishes.
    pub cell: Arc<BookCell>,
    /// Its actor.
    pub actor: ActorRef<BookActor>,
    /// The shard that feeds its depth.
    pub shard: Arc<str>,
}

/// One collected venue and market.
pub struct MarketEntry {
    /// Venue.
    pub venue: VenueId,
    /// Market.
    pub market: Market,
    /// The instruments; those that were collected once included.
    pub table: Arc<InstrumentTable>,
    /// The plan.
    pub plan: MarketPlan,
    /// Wanted symbols that the venue lacks.
    pub missing: Vec<String>,
}

impl MarketEntry {
    /// The instruments that are collected now.
    pub fn collected(&self) -> impl Iterator<Item = &Arc<Instrument>> {
        let planned = self.plan.shards.iter().flat_map(|shard| &shard.instruments);
        planned.filter_map(|planned| self.table.get(planned.idx))
    }
}

/// The newest committed minute of a category.
pub type LatestCategory = Arc<Vec<CategorySnapshotRow>>;

/// Everything that readers look up.
#[derive(Default)]
pub struct Directory {
    markets: DashMap<(VenueId, Market), Arc<MarketEntry>>,
    runtimes: DashMap<(VenueId, Market), Arc<MarketRuntime>>,
    books: DashMap<(VenueId, Market, Box<str>), BookEntry>,
    shards: DashMap<Box<str>, Arc<ArcSwap<ShardStatus>>>,
    latest: DashMap<(Scope, Market, Box<str>), LatestCategory>,
    gaps: GapBoard,
    trackers: DashMap<InstrumentId, SharedGaps>,
    applied: Arc<Latency>,
    derived: Arc<Derived>,
    recall: Recall,
}

impl Directory {
    /// The gaps that are open, and the last ones that were closed.
    pub const fn gaps(&self) -> &GapBoard {
        &self.gaps
    }

    /// What an instrument that is or was collected may have missed.
    pub fn tracker(&self, instrument: InstrumentId) -> Option<SharedGaps> {
        self.trackers.get(&instrument).map(|tracker| tracker.clone())
    }

    /// Enters the tracker of an instrument; it stays when the symbol is taken out, for it may come again.
    pub fn put_tracker(&self, instrument: InstrumentId, tracker: SharedGaps) {
        self.trackers.insert(instrument, tracker);
    }

    /// From the read of a socket until its book has what was read.
    pub const fn applied(&self) -> &Arc<Latency> {
        &self.applied
    }

    /// What is made of events, for whoever publishes it.
    pub const fn derived(&self) -> &Arc<Derived> {
        &self.derived
    }

    /// What the last process left.
    pub const fn recall(&self) -> &Recall {
        &self.recall
    }

    /// Enters a planned market.
    pub fn put_market(&self, entry: MarketEntry) {
        self.markets.insert((entry.venue, entry.market), Arc::new(entry));
    }

    /// A planned market; `None` before its instruments are known.
    pub fn market(&self, venue: VenueId, market: Market) -> Option<Arc<MarketEntry>> {
        self.markets.get(&(venue, market)).map(|entry| entry.clone())
    }

    /// Enters the state of a market, before anything of it is built.
    pub fn put_runtime(&self, runtime: Arc<MarketRuntime>) {
        self.runtimes.insert((runtime.venue, runtime.market), runtime);
    }

    /// The state of a market; `None` before its instruments are known.
    pub fn runtime(&self, venue: VenueId, market: Market) -> Option<Arc<MarketRuntime>> {
        self.runtimes.get(&(venue, market)).map(|runtime| runtime.clone())
    }

    /// All planned markets, in order.
    pub fn markets(&self) -> Vec<Arc<MarketEntry>> {
        let mut markets: Vec<_> = self.markets.iter().map(|entry| entry.value().clone()).collect();
        markets.sort_by_key(|entry| (entry.venue, entry.market));
        markets
    }

    /// Enters a book.
    pub fn put_book(&self, entry: BookEntry) {
        let instrument = &entry.cell.instrument;
        self.books.insert((instrument.venue, instrument.market, instrument.native.clone()), entry);
    }

    /// Forgets the book of an instrument.
    pub fn remove_book(&self, instrument: &Instrument) {
        self.books.remove(&(instrument.venue, instrument.market, instrument.native.clone()));
    }

    /// True when the instrument has a book.
    pub fn has_book(&self, instrument: &Instrument) -> bool {
        self.books.contains_key(&(instrument.venue, instrument.market, instrument.native.clone()))
    }

    /// Finds a book by native or unified symbol, in any case.
    pub fn book(&self, venue: VenueId, market: Market, symbol: &str) -> Option<BookEntry> {
        if let Some(entry) = self.books.get(&(venue, market, symbol.into())) {
            return Some(entry.clone());
        }
        let entry = self.market(venue, market)?;
        let found = entry.table.iter().map(|(_, instrument)| instrument).find(|instrument| {
            instrument.native.eq_ignore_ascii_case(symbol) || instrument.unified.eq_ignore_ascii_case(symbol)
        })?;
        self.books.get(&(venue, market, found.native.clone())).map(|entry| entry.clone())
    }

    /// The books of a venue and market, in the order of their native symbols.
    pub fn books(&self, venue: VenueId, market: Market) -> Vec<BookEntry> {
        let mut books: Vec<_> = self
            .books
            .iter()
            .filter(|entry| entry.key().0 == venue && entry.key().1 == market)
            .map(|entry| entry.value().clone())
            .collect();
        books.sort_by(|a, b| a.cell.instrument.native.cmp(&b.cell.instrument.native));
        books
    }

    /// Enters a shard's published status.
    pub fn put_shard(&self, id: &str, status: Arc<ArcSwap<ShardStatus>>) {
        self.shards.insert(id.into(), status);
    }

    /// Forgets a shard that is over.
    pub fn remove_shard(&self, id: &str) {
        self.shards.remove(id);
    }

    /// A shard's published status.
    pub fn shard(&self, id: &str) -> Option<Arc<ShardStatus>> {
        self.shards.get(id).map(|status| status.load_full())
    }

    /// Every shard's published status, in the order of their ids.
    pub fn shards(&self) -> Vec<Arc<ShardStatus>> {
        let mut shards: Vec<_> = self.shards.iter().map(|status| status.load_full()).collect();
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        shards
    }

    /// Publishes the rows of one category at one boundary, one a depth.
    pub fn put_latest(&self, scope: Scope, market: Market, category: &str, rows: LatestCategory) {
        self.latest.insert((scope, market, category.into()), rows);
    }

    /// The newest rows of a category, one a depth.
    pub fn latest(&self, scope: Scope, market: Market, category: &str) -> Option<LatestCategory> {
        self.latest.get(&(scope, market, category.into())).map(|rows| rows.clone())
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::event::Level;

    use super::*;
    use crate::{
        book::GetBook,
        fixtures::{BINANCE, BookBench, LONG, MINUTE_MS, MINUTE_US, World, instrument, sample},
    };

    #[test]
    fn a_cell_that_nobody_renews_turns_stale_and_shows_no_numbers() {
        let btc = instrument(Market::Spot, "BTC");
        let cell = BookCell::new(btc.clone());
        assert!(cell.sample(MINUTE_US).is_none());
        assert_eq!(cell.state(MINUTE_US), SampleState::Syncing);
        cell.publish(Arc::new(sample(&btc, MINUTE_MS, "100", "1", "1")), MINUTE_US);
        let (young, age_us) = cell.sample(MINUTE_US + PUBLISHED_FOR_US).unwrap();
        assert_eq!((young.state, young.bands.len(), age_us), (SampleState::Live, 6, PUBLISHED_FOR_US));
        let (old, age_us) = cell.sample(MINUTE_US + PUBLISHED_FOR_US + 1).unwrap();
        assert_eq!((old.state, old.bands.len(), age_us), (SampleState::Stale, 0, PUBLISHED_FOR_US + 1));
        assert_eq!(cell.state(MINUTE_US + PUBLISHED_FOR_US + 1), SampleState::Stale);
        let crossed = DepthSample { state: SampleState::Crossed, ..sample(&btc, MINUTE_MS, "100", "1", "1") };
        cell.publish(Arc::new(crossed), MINUTE_US);
        assert_eq!(cell.state(i64::MAX), SampleState::Crossed, "what was in doubt keeps its reason");
        cell.publish_ticks(7);
        assert_eq!(cell.ticks(), 7);
    }

    #[actix_rt::test]
    async fn a_book_is_found_by_any_of_its_names() {
        let world = World::new(MINUTE_US);
        let directory = Directory::default();
        let instruments = ["ETH", "BTC"].map(|base| instrument(Market::Spot, base));
        for instrument in &instruments {
            let book = BookBench::new(&world, instrument).await;
            directory.put_book(book.entry(book.cell.clone()));
        }
        let find = |symbol: &str| {
            let entry = directory.book(BINANCE, Market::Spot, symbol)?;
            Some(entry.cell.instrument.native.to_string())
        };
        assert_eq!(
            (find("BTCUSDT").as_deref(), find("btc/usdt")),
            (Some("BTCUSDT"), None),
            "before its market"
        );
        let table =
            InstrumentTable::new(instruments.iter().map(|instrument| (**instrument).clone())).unwrap();
        directory.put_market(MarketEntry {
            venue: BINANCE,
            market: Market::Spot,
            table: Arc::new(table),
            plan: MarketPlan {
                venue: BINANCE,
                market: Market::Spot,
                shards: Vec::new(),
                snapshot_weight: 0,
                startup_weight: 0,
                weight_per_minute: 0,
            },
            missing: Vec::new(),
        });
        for name in ["BTCUSDT", "btcusdt", "BtcUsdt", "BTC/USDT", "btc/usdt"] {
            assert_eq!(find(name).as_deref(), Some("BTCUSDT"), "{name}");
        }
        for name in ["", "BTC", "BTC/USDT:USDT", "BTCUSDTX"] {
            assert_eq!(find(name), None, "{name}");
        }
        assert!(directory.book(BINANCE, Market::Futures, "BTCUSDT").is_none());
        let books = directory.books(BINANCE, Market::Spot);
        assert_eq!(
            books.iter().map(|book| &*book.cell.instrument.native).collect::<Vec<_>>(),
            ["BTCUSDT", "ETHUSDT"]
        );
        assert!(directory.books(BINANCE, Market::Futures).is_empty());
        assert_eq!(directory.markets().len(), 1);
        let answer = books[0].actor.ask(GetBook { levels: 5 }, LONG).await.unwrap();
        assert_eq!((answer.state, answer.bids), (SampleState::Syncing, Vec::<Level>::new()));
    }

    #[test]
    fn the_newest_rows_of_a_category_are_found_by_scope_and_market() {
        let directory = Directory::default();
        let rows: LatestCategory = Arc::new(Vec::new());
        directory.put_latest(Scope::All, Market::Spot, "TOTAL", rows.clone());
        assert!(Arc::ptr_eq(&directory.latest(Scope::All, Market::Spot, "TOTAL").unwrap(), &rows));
        assert!(directory.latest(Scope::All, Market::Futures, "TOTAL").is_none());
        assert!(directory.latest(Scope::All, Market::Spot, "TOTAL1").is_none());
    }
}
