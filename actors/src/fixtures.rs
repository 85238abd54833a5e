//! What the tests of the market's actors share: instruments, settings, samples and a kernel whose clock they turn.

use std::{sync::Arc, time::Duration};

use fathom_market::{
    batch::Batch,
    category::Categories,
    depth::{DepthBands, DepthReference},
    event::{Candle, Level},
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentIdx, InstrumentKind, InstrumentStatus, unified_symbol},
    sample::{BandSums, DepthSample, SampleState},
    table::Table,
    timeframe::Timeframe,
    validate::Bounds,
};
use fathom_venues::{Venue, registry::venue};
use rust_decimal::Decimal;

use crate::{
    board::MinuteBoard,
    book::{BookActor, BookLedger, BookSpec, gaps::RepairRules},
    directory::{BookCell, BookEntry, Directory},
    feed::{FeedItem, RenewStream},
    history::{CaughtUp, HistoryJob},
    kernel::{
        ActorId, ActorRef, Backoff, ChildBuilder, ChildSpec, Clock, Control, Inbox, Kernel, KernelConfig,
        Kind, LivenessSpec, ManualClock, Outlet, Overflow, RestartLimits, Service, inbox::bounded,
    },
    settings::{BookSettings, DepthSettings, Retry},
};

/// A full minute.
pub(crate) const MINUTE_US: i64 = 1_700_000_040_000_000;
/// The same in milliseconds.
pub(crate) const MINUTE_MS: i64 = MINUTE_US / 1000;
/// A second.
pub(crate) const S: i64 = 1_000_000;
/// Longer than any machine needs.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// The one venue that is built in.
pub(crate) const BINANCE: VenueId = VenueId::new("binance");

pub(crate) fn binance() -> &'static dyn Venue {
    venue("binance").unwrap()
}

pub(crate) fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub(crate) const fn level(price: i64, qty: i64) -> Level {
    Level { price, qty }
}

/// A one-minute candle in which every amount is one.
pub(crate) fn candle(open_ms: i64, closed: bool) -> Candle {
    let one = Decimal::ONE;
    Candle {
        timeframe: Timeframe::M1,
        open_ms,
        close_ms: open_ms + 59_999,
        open: one,
        high: one,
        low: one,
        close: one,
        volume: one,
        quote_volume: one,
        trades: 1,
        taker_buy_volume: one,
        taker_buy_quote_volume: one,
        closed,
    }
}

/// Prices have two decimals, quantities three.
pub(crate) fn instrument_of(venue: VenueId, market: Market, base: &str, quote: &str) -> Arc<Instrument> {
    let native = format!("{base}{quote}");
    let (kind, settle) = match market {
        Market::Spot => (InstrumentKind::Spot, None),
        Market::Futures => (InstrumentKind::Perpetual, Some(quote)),
    };
    Arc::new(Instrument {
        id: InstrumentId::derive(venue, market, &native),
        venue,
        market,
        unified: unified_symbol(base, quote, settle, kind).into(),
        native: native.into(),
        base: base.into(),
        quote: quote.into(),
        settle: settle.map(Into::into),
        kind,
        status: InstrumentStatus::Trading,
        tick_size: dec("0.01"),
        lot_size: dec("0.001"),
        contract_size: Decimal::ONE,
        price_scale: 2,
        qty_scale: 3,
        valid_from_us: 0,
    })
}

pub(crate) fn instrument(market: Market, base: &str) -> Arc<Instrument> {
    instrument_of(BINANCE, market, base, "USDT")
}

/// Six bands; samples are waited for two seconds.
pub(crate) fn depth_settings() -> DepthSettings {
    let bands = DepthBands::new(&["1.5", "3", "5", "8", "15", "30"].map(dec)).unwrap();
    DepthSettings {
        levels: bands.percents().collect(),
        bands: Arc::new(bands),
        reference: DepthReference::Mid,
        categories: Arc::new(Categories::standard()),
        stablecoins: vec!["USDT".into()],
        grace: Duration::from_secs(2),
    }
}

pub(crate) fn book_settings() -> BookSettings {
    BookSettings {
        inbox: 64,
        max_levels: 1000,
        buffer: 4,
        tick_cap: 100,
        raw_tables: vec![Table::BookTicker, Table::Trades, Table::DepthEvents],
        stored_levels: 2,
        stored_every: Duration::from_secs(10),
        candle_every: Duration::from_secs(5),
        bounds: Bounds::default(),
        snapshot_retry: Retry { max: 3, delay: Duration::from_secs(1) },
        stale_after: Duration::from_secs(3),
        verify_every: None,
        poll: None,
        repair: RepairRules::default(),
    }
}

/// A live sample that holds `bid` and `ask` base units, valued at the mid, in each of the six bands.
pub(crate) fn sample(
    instrument: &Arc<Instrument>,
    boundary_ms: i64,
    mid: &str,
    bid: &str,
    ask: &str,
) -> DepthSample {
    let (mid, bid, ask) = (dec(mid), dec(bid), dec(ask));
    let band = BandSums {
        bid_volume: bid,
        ask_volume: ask,
        bid_quote: bid * mid,
        ask_quote: ask * mid,
        bid_covered: true,
        ask_covered: false,
    };
    DepthSample {
        instrument: instrument.clone(),
        boundary_ms,
        state: SampleState::Live,
        mid: Some(mid),
        best_bid: Some(mid),
        best_ask: Some(mid),
        last_id: 7,
        age_us: 0,
        bands: vec![band; 6],
    }
}

/// A book that never had a snapshot.
pub(crate) fn syncing(instrument: &Arc<Instrument>, boundary_ms: i64) -> DepthSample {
    let live = sample(instrument, boundary_ms, "1", "1", "1");
    DepthSample { state: SampleState::Syncing, last_id: 0, mid: None, bands: Vec::new(), ..live }
}

/// A kernel, with a clock that stands until it is turned or with the machine's.
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) control: Control,
    pub(crate) time: ManualClock,
    pub(crate) clock: Clock,
}

impl World {
    pub(crate) fn new(now_us: i64) -> Self {
        let time = ManualClock::new(now_us);
        Self::with(time.clock(), time)
    }

    pub(crate) fn real() -> Self {
        Self::with(Clock::system(), ManualClock::new(0))
    }

    fn with(clock: Clock, time: ManualClock) -> Self {
        let kernel = Kernel::start(KernelConfig { clock: clock.clone(), ..KernelConfig::default() }).unwrap();
        Self { control: kernel.control(), kernel, time, clock }
    }
}

/// Starts again at once and is never taken for stalled, however the clock is turned.
pub(crate) fn patient<A: Service>(child: ChildBuilder<A>) -> ChildBuilder<A> {
    let no_delay = Duration::from_nanos(1);
    child
        .liveness(LivenessSpec::try_new(Duration::from_secs(1_000_000), None).unwrap())
        .backoff(Backoff::try_new(no_delay, no_delay, 2, Duration::from_secs(60)).unwrap())
        .limits(RestartLimits::try_new(100, Duration::from_secs(60)).unwrap())
}

/// A book's actor that nothing reaches but what the test sends.
pub(crate) struct BookBench {
    pub(crate) actor: ActorRef<BookActor>,
    pub(crate) id: ActorId,
    pub(crate) cell: Arc<BookCell>,
    pub(crate) board: Arc<MinuteBoard>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) feed: Outlet<FeedItem>,
    pub(crate) jobs: Inbox<HistoryJob>,
    pub(crate) rows: Inbox<Batch>,
    pub(crate) renewals: Inbox<RenewStream>,
}

impl BookBench {
    pub(crate) async fn new(world: &World, instrument: &Arc<Instrument>) -> Self {
        Self::with(world, instrument, book_settings()).await
    }

    pub(crate) async fn with(world: &World, instrument: &Arc<Instrument>, settings: BookSettings) -> Self {
        let (feed, inbox) = bounded("feed", 64, Overflow::Fault, &world.clock);
        let (history, jobs) = bounded("jobs", 64, Overflow::Fault, &world.clock);
        let (writer, rows) = bounded("rows", 1024, Overflow::Fault, &world.clock);
        let (renew, renewals) = bounded("renewals", 64, Overflow::Fault, &world.clock);
        let directory = Arc::new(Directory::default());
        let cell = Arc::new(BookCell::new(instrument.clone()));
        let board = Arc::new(MinuteBoard::new(instrument.venue, instrument.market));
        board.expect(vec![instrument.clone()], world.clock.now_us() / 1000);
        let spec = BookSpec {
            venue: binance(),
            instrument: instrument.clone(),
            idx: InstrumentIdx(0),
            snapshot_levels: 100,
            inbox: inbox.clone(),
            renewals: [renew].into(),
            history,
            caught_up: CaughtUp::new(1, true),
            writer: writer.into(),
            board: board.clone(),
            cell: cell.clone(),
            applied: Arc::default(),
            ledger: BookLedger::new(
                binance(),
                instrument,
                &settings,
                directory.clone(),
                world.clock.now_us(),
            ),
            settings,
            depth: depth_settings(),
        };
        let id = format!("book/{}/{}/{}", instrument.venue, instrument.market, instrument.native);
        let child =
            ChildSpec::builder(id.as_str(), Kind("book"), move |life| BookActor::new(life, spec.clone()));
        let actor = world.kernel.supervisor().spawn(patient(child.inbox(&inbox)).build()).await.unwrap();
        Self { actor, id: id.as_str().into(), cell, board, directory, feed, jobs, rows, renewals }
    }

    /// As a reader finds it, with a cell that only the test publishes to.
    pub(crate) fn entry(&self, cell: Arc<BookCell>) -> BookEntry {
        BookEntry { cell, actor: self.actor.clone(), shard: "shard".into() }
    }
}
