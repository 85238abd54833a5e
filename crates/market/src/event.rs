//! Normalized events, as a venue's decoder gives them.

use rust_decimal::Decimal;

use crate::{instrument::InstrumentIdx, timeframe::Timeframe};

/// One event of one instrument.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The instrument, as an index of the table that the decoder was made with.
    pub instrument: InstrumentIdx,
    /// Matching-engine or event time of the venue; `None` where the venue gives no time (Binance spot `bookTicker`).
    pub event_us: Option<i64>,
    /// Time at which the venue sent the event, where given.
    pub sent_us: Option<i64>,
    /// Time at which the frame was read from the socket.
    pub recv_us: i64,
    /// What happened.
    pub body: Body,
}

impl Event {
    /// Venue time, or the receive time where the venue gives none.
    pub fn time_us(&self) -> i64 {
        self.event_us.unwrap_or(self.recv_us)
    }
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Best bid and ask.
    Quote(Quote),
    /// A trade, or an aggregate of one taker order's fills.
    Trade(Trade),
    /// An incremental book update.
    Delta(BookDelta),
    /// A whole book, or its top levels.
    Snapshot(BookSnapshot),
    /// A candle, open or closed.
    Candle(Box<Candle>),
    /// 24 hour statistics.
    Ticker(Box<Ticker>),
    /// Mark price and funding.
    Funding(Box<Funding>),
}

impl Body {
    /// The channel that carries such events.
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Quote(_) => Channel::Quote,
            Self::Trade(_) => Channel::Trade,
            Self::Delta(_) | Self::Snapshot(_) => Channel::Depth,
            Self::Candle(candle) => Channel::Candle(candle.timeframe),
            Self::Ticker(_) => Channel::Ticker,
            Self::Funding(_) => Channel::Funding,
        }
    }
}

/// A kind of stream of one instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Best bid and ask.
    Quote,
    /// Trades.
    Trade,
    /// Incremental depth.
    Depth,
    /// Candles of one timeframe.
    Candle(Timeframe),
    /// 24 hour statistics.
    Ticker,
    /// Mark price and funding.
    Funding,
}

impl Channel {
    /// `quote`, `trade`, `depth`, `candle`, `ticker` or `funding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quote => "quote",
            Self::Trade => "trade",
            Self::Depth => "depth",
            Self::Candle(_) => "candle",
            Self::Ticker => "ticker",
            Self::Funding => "funding",
        }
    }
}

/// One price level: mantissas on the instrument's price and quantity scale. A quantity of zero removes the level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Price mantissa.
    pub price: i64,
    /// Absolute quantity mantissa, in base units.
    pub qty: i64,
}

/// Best bid and ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The venue's book update id, where given.
    pub update_id: Option<u64>,
    /// Best bid.
    pub bid: Level,
    /// Best ask.
    pub ask: Level,
}

/// Who took liquidity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The taker bought.
    Buy,
    /// The taker sold.
    Sell,
}

impl Side {
    /// `buy` or `sell`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

/// A trade id: a number, or text where a venue's ids exceed 64 bits (HTX).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TradeId {
    /// A numeric id, which grows.
    Number(u64),
    /// A textual id.
    Text(Box<str>),
}

impl std::fmt::Display for TradeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(id) => write!(f, "{id}"),
            Self::Text(id) => f.write_str(id),
        }
    }
}

/// Whether a trade is one fill or several merged by the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TradeKind {
    /// One fill.
    Single,
    /// An aggregate: ids are of the aggregate's own sequence.
    Aggregate,
}

/// A trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trade {
    /// Unique within instrument and kind.
    pub id: TradeId,
    /// One fill or several.
    pub kind: TradeKind,
    /// First and last raw trade id of an aggregate.
    pub raw_ids: Option<(u64, u64)>,
    /// Price mantissa on the instrument's price scale.
    pub price: i64,
    /// Quantity mantissa on the instrument's quantity scale, base units.
    pub qty: i64,
    /// Taker side.
    pub side: Side,
}

/// The sequence numbers of a book update, as the venue gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqIds {
    /// First update id covered (`U`).
    pub first: u64,
    /// Last update id covered (`u`).
    pub last: u64,
    /// Last update id of the previous event of the stream (`pu`), where given; negative ids are possible there.
    pub prev: Option<i64>,
}

/// An incremental book update, applied whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookDelta {
    /// Sequence numbers.
    pub ids: SeqIds,
    /// Changed bids, in the venue's order.
    pub bids: Vec<Level>,
    /// Changed asks, in the venue's order.
    pub asks: Vec<Level>,
}

/// A whole book, or its top levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookSnapshot {
    /// The update id that the snapshot includes.
    pub last_id: u64,
    /// Bids, best first.
    pub bids: Vec<Level>,
    /// Asks, best first.
    pub asks: Vec<Level>,
    /// Levels a side that were asked for; a side that has fewer is known whole.
    pub limit: usize,
}

/// A candle. Amounts are exact decimals, volumes in base and quote units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candle {
    /// Its length.
    pub timeframe: Timeframe,
    /// Start of the interval.
    pub open_ms: i64,
    /// Last millisecond of the interval.
    pub close_ms: i64,
    /// First price.
    pub open: Decimal,
    /// Highest price.
    pub high: Decimal,
    /// Lowest price.
    pub low: Decimal,
    /// Last price.
    pub close: Decimal,
    /// Base volume.
    pub volume: Decimal,
    /// Quote volume.
    pub quote_volume: Decimal,
    /// Number of trades.
    pub trades: u64,
    /// Base volume bought by takers.
    pub taker_buy_volume: Decimal,
    /// Quote volume bought by takers.
    pub taker_buy_quote_volume: Decimal,
    /// True once the venue says that it will not change.
    pub closed: bool,
}

/// 24 hour statistics; a field is `None` where the venue has it not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the field's standard terms")]
pub struct Ticker {
    pub last: Option<Decimal>,
    pub bid: Option<Decimal>,
    pub ask: Option<Decimal>,
    pub open: Option<Decimal>,
    pub high: Option<Decimal>,
    pub low: Option<Decimal>,
    pub volume: Option<Decimal>,
    pub quote_volume: Option<Decimal>,
    pub trades: Option<u64>,
}

/// Mark price and funding of a futures instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Funding {
    /// Mark price in quote units.
    pub mark_price: Decimal,
    /// Index price in quote units.
    pub index_price: Option<Decimal>,
    /// Running funding rate of the coming settlement, as a fraction; `None` for instruments without funding.
    pub rate: Option<Decimal>,
    /// Time of the next settlement; `None` for instruments without funding.
    pub next_ms: Option<i64>,
}
