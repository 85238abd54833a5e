//! What is read back from a store. Questions are plain values; no store's language appears here.

use async_trait::async_trait;
use fathom_market::{
    gap::{GapCause, GapStatus},
    table::{
        CandleRow, CategorySnapshotRow, CollectorStateRow, GapRow, InstrumentRow, SymbolSnapshotRow, Table,
    },
};
use rust_decimal::Decimal;

use crate::error::StoreError;

/// The greatest number of rows that a range gives; a greater limit is taken as this.
pub const MAX_ROWS: u32 = 10_000;

/// Snapshots of one category. Both ends of the range belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryQuery {
    /// A venue's id, or `ALL`.
    pub scope: String,
    /// `SPOT` or `FUTURES`.
    pub market_type: String,
    /// The category's name as stored.
    pub category: String,
    /// Depth, percent.
    pub depth: Decimal,
    /// First time, milliseconds; without it the newest rows are given.
    pub from_ms: Option<i64>,
    /// Last time, milliseconds.
    pub to_ms: Option<i64>,
    /// Rows at most.
    pub limit: u32,
}

/// Snapshots of one instrument. Both ends of the range belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotQuery {
    /// The instrument.
    pub instrument_id: i64,
    /// Depth, percent.
    pub depth: Decimal,
    /// First time, milliseconds; without it the newest rows are given.
    pub from_ms: Option<i64>,
    /// Last time, milliseconds.
    pub to_ms: Option<i64>,
    /// Rows at most.
    pub limit: u32,
}

/// Candles of one series by open time. Both ends of the range belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandleQuery {
    /// The instrument.
    pub instrument_id: i64,
    /// Canonical name of the timeframe.
    pub timeframe: String,
    /// First open time, milliseconds; without it the newest rows are given.
    pub from_ms: Option<i64>,
    /// Last open time, milliseconds.
    pub to_ms: Option<i64>,
    /// Rows at most.
    pub limit: u32,
}

/// Gaps of the ledger; what is not given does not matter. A gap lies in a range of time when a part of it does: one that
/// has not ended reaches into the future.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GapQuery {
    /// A venue's id.
    pub venue: Option<String>,
    /// `spot` or `futures`.
    pub market: Option<String>,
    /// One instrument.
    pub instrument_id: Option<i64>,
    /// The channel's word; `candle` means every timeframe.
    pub channel: Option<String>,
    /// Its cause.
    pub cause: Option<GapCause>,
    /// Its status.
    pub status: Option<GapStatus>,
    /// Only gaps in which something is missing as far as is known: open, resynced and lost ones.
    pub holes: bool,
    /// First time, microseconds.
    pub from_us: Option<i64>,
    /// Last time, microseconds.
    pub to_us: Option<i64>,
    /// Rows at most.
    pub limit: u32,
    /// Where the last gap of the page before began when it was read, microseconds, and its name.
    pub after: Option<(i64, String)>,
}

/// The width of a roll-up's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RollupWidth {
    /// Hours, UTC.
    Hour,
    /// Days, UTC.
    Day,
}

impl RollupWidth {
    /// Its length, milliseconds.
    pub const fn ms(self) -> i64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

/// Roll-ups of one category. Both ends of the range belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupQuery {
    /// A venue's id, or `ALL`.
    pub scope: String,
    /// `SPOT` or `FUTURES`.
    pub market_type: String,
    /// The category's name as stored.
    pub category: String,
    /// Depth, percent.
    pub depth: Decimal,
    /// The buckets' width.
    pub width: RollupWidth,
    /// Start of the first bucket, milliseconds; without it the newest rows are given.
    pub from_ms: Option<i64>,
    /// Start of the last bucket, milliseconds.
    pub to_ms: Option<i64>,
    /// Rows at most.
    pub limit: u32,
}

/// A category's snapshots of an hour or a day. Averages are over the snapshots of the bucket, rounded half-even to
/// twelve decimals; `avg_price` over those that have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryRollup {
    /// Start of the bucket, milliseconds.
    pub bucket_ms: i64,
    /// Bid depth in dollars: average, greatest, least.
    pub bid_volume_usd: [Decimal; 3],
    /// Ask depth in dollars: average, greatest, least.
    pub ask_volume_usd: [Decimal; 3],
    /// Average of the price.
    pub avg_price: Option<Decimal>,
    /// Average number of members in the sums.
    pub avg_symbol_count: Decimal,
    /// Snapshots in the bucket.
    pub count: u64,
}

/// How many snapshots of a category are stored, and from when to when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryStat {
    /// The category.
    pub category: String,
    /// `SPOT` or `FUTURES`.
    pub market_type: String,
    /// Rows of every depth.
    pub count: u64,
    /// Time of the first, milliseconds.
    pub first_ms: i64,
    /// Time of the last, milliseconds.
    pub last_ms: i64,
}

/// The reading side of a store. Ranges ascend by time: from `from_ms` on where it is given, else the newest `limit`.
/// Limits above [`MAX_ROWS`] are taken as that.
///
/// Every call fails when the store is away, and fatally when a stored value is not what its column should hold.
#[async_trait]
pub trait History: Send + Sync {
    /// Snapshots of a category.
    ///
    /// # Errors
    /// As the trait says.
    async fn category_range(&self, query: &CategoryQuery) -> Result<Vec<CategorySnapshotRow>, StoreError>;

    /// The newest snapshot of each category, by name.
    ///
    /// # Errors
    /// As the trait says.
    async fn latest_categories(
        &self,
        scope: &str,
        market_type: &str,
        depth: Decimal,
    ) -> Result<Vec<CategorySnapshotRow>, StoreError>;

    /// What is stored of each category and market, by name.
    ///
    /// # Errors
    /// As the trait says.
    async fn category_stats(&self, scope: &str) -> Result<Vec<CategoryStat>, StoreError>;

    /// Hourly or daily roll-ups of a category, as of the last [`crate::Store::roll_up`] or refresh.
    ///
    /// # Errors
    /// As the trait says.
    async fn category_rollup(&self, query: &RollupQuery) -> Result<Vec<CategoryRollup>, StoreError> {
        let _ = query;
        Err(StoreError::fatal("this store keeps no roll-ups"))
    }

    /// Snapshots of an instrument.
    ///
    /// # Errors
    /// As the trait says.
    async fn symbol_range(&self, query: &SnapshotQuery) -> Result<Vec<SymbolSnapshotRow>, StoreError>;

    /// Candles of a series.
    ///
    /// # Errors
    /// As the trait says.
    async fn candles(&self, query: &CandleQuery) -> Result<Vec<CandleRow>, StoreError>;

    /// Open time in milliseconds of the newest candle of a series, and whether it is closed.
    ///
    /// # Errors
    /// As the trait says.
    async fn last_candle(
        &self,
        instrument_id: i64,
        timeframe: &str,
    ) -> Result<Option<(i64, bool)>, StoreError>;

    /// How far each candle series is stored, all of them.
    ///
    /// # Errors
    /// As the trait says.
    async fn collector_state(&self) -> Result<Vec<CollectorStateRow>, StoreError>;

    /// The instruments in force, all of them.
    ///
    /// # Errors
    /// As the trait says.
    async fn instruments(&self) -> Result<Vec<InstrumentRow>, StoreError>;

    /// Gaps of the ledger, those that begin last first; of the same beginning in the order of their names, backwards.
    ///
    /// # Errors
    /// As the trait says.
    async fn gaps(&self, query: &GapQuery) -> Result<Vec<GapRow>, StoreError> {
        let _ = query;
        Err(StoreError::fatal("this store keeps no gaps"))
    }

    /// Times in milliseconds of the first and last row that is stored of an instrument, in a table of raw events, bars or
    /// candles; candles of one timeframe.
    ///
    /// # Errors
    /// As the trait says; and for a table that is not one of an instrument's times.
    async fn ends(
        &self,
        table: Table,
        instrument_id: i64,
        timeframe: Option<&str>,
    ) -> Result<Option<(i64, i64)>, StoreError> {
        let _ = (table, instrument_id, timeframe);
        Err(StoreError::fatal("this store does not tell how far a stream is stored"))
    }

    /// Rows of a table.
    ///
    /// # Errors
    /// As the trait says.
    async fn count(&self, table: Table) -> Result<u64, StoreError>;
}
