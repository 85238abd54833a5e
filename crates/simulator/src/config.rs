//! What a simulator is asked to be. Plain values; nothing here does IO.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use fathom_market::ids::Market;

/// A whole simulated venue: up to two markets and a control server.
#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    /// Address that every server binds; loopback by default.
    pub host: IpAddr,
    /// Port of the control server; 0 takes a free one.
    pub control_port: u16,
    /// The spot market, if simulated.
    pub spot: Option<MarketConfig>,
    /// The USD-M futures market, if simulated.
    pub futures: Option<MarketConfig>,
    /// Rows that the ledger keeps of each kind and market; older ones are dropped and counted.
    pub ledger_cap: usize,
    /// Messages of each market whose ids and receivers are remembered, 40 bytes each; at most 15 minutes.
    pub remembered: usize,
    /// TLS on every server but control, with an authority made at the start.
    pub tls: Option<TlsConfig>,
}

/// TLS of a simulated venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where `ca.pem` is written, the authority to be trusted. Made where it is missing.
    pub folder: PathBuf,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            control_port: 0,
            spot: None,
            futures: None,
            ledger_cap: 200_000,
            remembered: 2_000_000,
            tls: None,
        }
    }
}

impl SimulatorConfig {
    /// Both markets seeded alike.
    pub fn seeded(config: &SeededConfig) -> Self {
        Self {
            spot: Some(MarketConfig::new(Market::Spot, Source::Seeded(config.clone()))),
            futures: Some(MarketConfig::new(Market::Futures, Source::Seeded(config.clone()))),
            ..Self::default()
        }
    }

    /// One market served from recorded frames.
    pub fn recorded(config: RecordedConfig) -> Self {
        let market = config.market;
        let served = Some(MarketConfig::new(market, Source::Recorded(config)));
        match market {
            Market::Spot => Self { spot: served, ..Self::default() },
            Market::Futures => Self { futures: served, ..Self::default() },
        }
    }

    /// The configuration of one market.
    pub fn market(&self, market: Market) -> Option<&MarketConfig> {
        match market {
            Market::Spot => self.spot.as_ref(),
            Market::Futures => self.futures.as_ref(),
        }
    }
}

/// One market of the venue.
#[derive(Clone, Debug)]
pub struct MarketConfig {
    /// Where its data come from.
    pub source: Source,
    /// Port of the REST server; 0 takes a free one.
    pub rest_port: u16,
    /// Port of the WebSocket server; 0 takes a free one.
    pub ws_port: u16,
    /// The venue's rules; breaking one is recorded and punished.
    pub limits: Limits,
    /// Frames that may wait for a slow client before its connection is closed.
    pub queue_frames: usize,
    /// Bytes that may wait for a slow client before its connection is closed.
    pub queue_bytes: usize,
}

impl MarketConfig {
    /// The venue's own limits, free ports, queues of 50 000 frames or 64 MiB.
    pub fn new(market: Market, source: Source) -> Self {
        Self {
            source,
            rest_port: 0,
            ws_port: 0,
            limits: Limits::of(market),
            queue_frames: 50_000,
            queue_bytes: 64 << 20,
        }
    }
}

/// Where a market's data come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A market drawn from a seed.
    Seeded(SeededConfig),
    /// Frames recorded from the real venue.
    Recorded(RecordedConfig),
}

/// A seeded market. The same seed gives the same prices, quantities and books, step by step; times are the real clock.
#[derive(Clone, Debug)]
pub struct SeededConfig {
    /// The seed.
    pub seed: u64,
    /// Which symbols exist.
    pub symbols: Symbols,
    /// Market steps a second over all symbols; a step is one change of a book or one taker order.
    pub events_per_second: f64,
    /// Data frames a second that all connections together shall get; the steps follow. `None` leaves the steps as they are.
    pub messages_per_second: Option<f64>,
    /// First trade and book id; `None` derives it from the clock so that ids never go back over restarts.
    pub first_id: Option<u64>,
    /// Levels on each side of the busiest book; quieter books have fewer, down to a sixth of it.
    pub max_levels: usize,
    /// How many milliseconds a REST depth answer lags the stream, as the venue's caches do.
    pub snapshot_lag_ms: u64,
    /// Aggregate trades kept per symbol for REST.
    pub trade_history: usize,
}

impl Default for SeededConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            symbols: Symbols::Count { bases: 50, traps: true },
            events_per_second: 400.0,
            messages_per_second: None,
            first_id: None,
            max_levels: 6000,
            snapshot_lag_ms: 0,
            trade_history: 20_000,
        }
    }
}

/// The symbols of a seeded market.
#[derive(Clone, Debug)]
pub enum Symbols {
    /// The first `bases` assets against USDT, BTC first.
    Count {
        /// How many base assets (about 240 are known, generated names follow).
        bases: usize,
        /// Adds the names that trap naive code, dead symbols and contracts of other kinds.
        traps: bool,
    },
    /// Exactly these native symbols, such as `BTCUSDT`; those that a market cannot have are left out there.
    Named(Vec<String>),
}

/// A market served from recorded frames (`<receive time ns> <json>` lines, gzip).
#[derive(Clone, Debug)]
pub struct RecordedConfig {
    /// The market that was recorded.
    pub market: Market,
    /// The files, in order; together one unbroken session.
    pub files: Vec<PathBuf>,
    /// Pace against the recording: 1 is real time, 10 ten times faster, 0 as fast as the clients read.
    pub speed: f64,
    /// What sets the replay going.
    pub start: ReplayStart,
    /// How long a depth request made before its moment of the replay may wait.
    pub snapshot_wait: Duration,
}

impl RecordedConfig {
    /// Real time, starting with the first depth subscription, depth requests waiting up to 30 s.
    pub fn new(market: Market, files: Vec<PathBuf>) -> Self {
        Self {
            market,
            files,
            speed: 1.0,
            start: ReplayStart::DepthSubscribed,
            snapshot_wait: Duration::from_secs(30),
        }
    }
}

/// What sets a replay going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStart {
    /// The first subscription to a recorded depth stream.
    DepthSubscribed,
    /// Every stream that the recording holds has a subscriber.
    AllSubscribed,
    /// [`crate::SimulatorHandle::start_replay`] or `POST /sim/replay/start`.
    Command,
}

/// The venue's rules (binance sheet, section 2).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams on one connection.
    pub streams_per_connection: usize,
    /// Stream names in one SUBSCRIBE frame before it fails silently.
    pub names_per_frame: usize,
    /// Frames a second from a client, pings and pongs counted.
    pub messages_per_second: usize,
    /// Connection attempts in five minutes from one address.
    pub connects_per_5_min: usize,
    /// REST weight in a calendar minute from one address.
    pub weight_per_minute: u32,
    /// Requests in five minutes to the funding endpoints.
    pub funding_requests_per_5_min: u32,
    /// Server ping interval.
    pub ping_every: Duration,
    /// A connection without a pong for this long is closed.
    pub pong_within: Duration,
    /// A connection is closed at this age.
    pub max_life: Duration,
    /// Requests tolerated after a 429 and before its `Retry-After` is over; the next one earns a ban.
    pub tolerated_after_429: u32,
    /// Length of the first ban; each further one doubles, up to three days.
    pub ban: Duration,
}

impl Limits {
    /// The limits of the sheet.
    pub fn of(market: Market) -> Self {
        let spot = market == Market::Spot;
        Self {
            streams_per_connection: 1024,
            names_per_frame: 400,
            messages_per_second: if spot { 5 } else { 10 },
            connects_per_5_min: 300,
            weight_per_minute: if spot { 6000 } else { 2400 },
            funding_requests_per_5_min: 500,
            ping_every: Duration::from_secs(if spot { 20 } else { 180 }),
            pong_within: Duration::from_secs(if spot { 60 } else { 600 }),
            max_life: Duration::from_secs(24 * 3600),
            tolerated_after_429: 3,
            ban: Duration::from_secs(120),
        }
    }
}
