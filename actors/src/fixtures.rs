//! What the tests of the market's actors share: instruments, settings, samples and a kernel whose clock they turn.

use std::{sync::Arc, time::Duration};

use fathom_market::{
    category::Categories,
    depth::{DepthBands, DepthReference},
    event::Level,
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentKind, InstrumentStatus, unified_symbol},
    sample::{BandSums, DepthSample, SampleState},
    table::Table,
    validate::Bounds,
};
use fathom_venues::{Venue, registry::venue};
use rust_decimal::Decimal;

use crate::{
    kernel::{
        Backoff, ChildBuilder, Control, Kernel, KernelConfig, LivenessSpec, ManualClock, RestartLimits, Service,
    },
    settings::{BookSettings, DepthSettings, Retry},
};

/// A full minute.
pub const MINUTE_US: i64 = 1_700_000_040_000_000;
/// The same in milliseconds.
pub const MINUTE_MS: i64 = MINUTE_US / 1000;
/// A second.
pub const S: i64 = 1_000_000;
/// Longer than any machine needs.
pub const LONG: Duration = Duration::from_secs(30);
/// The one venue that is built in.
pub const BINANCE: VenueId = VenueId::new("binance");

pub fn binance() -> &'static dyn Venue {
    venue("binance").unwrap()
}

pub fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub const fn level(price: i64, qty: i64) -> Level {
    Level { price, qty }
}

/// Prices have two decimals, quantities three.
pub fn instrument_of(venue: VenueId, market: Market, base: &str, quote: &str) -> Arc<Instrument> {
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

pub fn instrument(market: Market, base: &str) -> Arc<Instrument> {
    instrument_of(BINANCE, market, base, "USDT")
}

/// Six bands; samples are waited for two seconds.
pub fn depth_settings() -> DepthSettings {
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

pub fn book_settings() -> BookSettings {
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
    }
}

/// A live sample that holds `bid` and `ask` base units, valued at the mid, in each of the six bands.
pub fn sample(instrument: &Arc<Instrument>, boundary_ms: i64, mid: &str, bid: &str, ask: &str) -> DepthSample {
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
pub fn syncing(instrument: &Arc<Instrument>, boundary_ms: i64) -> DepthSample {
    let live = sample(instrument, boundary_ms, "1", "1", "1");
    DepthSample { state: SampleState::Syncing, last_id: 0, mid: None, bands: Vec::new(), ..live }
}

/// A kernel whose clock stands until it is turned.
pub struct World {
    pub kernel: Kernel,
    pub control: Control,
    pub time: ManualClock,
}

impl World {
    pub fn new(now_us: i64) -> Self {
        let time = ManualClock::new(now_us);
        let kernel = Kernel::start(KernelConfig { clock: time.clock(), ..KernelConfig::default() }).unwrap();
        Self { control: kernel.control(), kernel, time }
    }
}

/// Starts again at once and is never taken for stalled, however the clock is turned.
pub fn patient<A: Service>(child: ChildBuilder<A>) -> ChildBuilder<A> {
    let no_delay = Duration::from_nanos(1);
    child
        .liveness(LivenessSpec::try_new(Duration::from_secs(1_000_000), None).unwrap())
        .backoff(Backoff::try_new(no_delay, no_delay, 2, Duration::from_secs(60)).unwrap())
        .limits(RestartLimits::try_new(100, Duration::from_secs(60)).unwrap())
}
