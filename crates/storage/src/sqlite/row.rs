//! Rows read back: stored values become the fields of a row by the names of their columns.

use fathom_market::table::{
    CandleRow, CategorySnapshotRow, CollectorStateRow, GapRow, InstrumentRow, SymbolSnapshotRow,
};
use rust_decimal::Decimal;
use sqlx::{Row as _, sqlite::SqliteRow};

use crate::error::StoreError;

/// A type that a stored value can be read as.
pub(super) trait Readable: Sized {
    fn read(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error>;
}

/// The value of a column.
pub(super) fn value<T: Readable>(row: &SqliteRow, name: &str) -> Result<T, StoreError> {
    T::read(row, name).map_err(|error| StoreError::fatal(format!("stored value of {name}: {error}")))
}

macro_rules! readable {
    ($($type:ty),+) => {
        $(impl Readable for $type {
            fn read(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error> {
                row.try_get(name)
            }
        })+
    };
}

readable!(i64, Option<i64>, String, Option<String>);

impl Readable for bool {
    fn read(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error> {
        Ok(row.try_get::<i64, _>(name)? != 0)
    }
}

impl Readable for Decimal {
    fn read(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error> {
        decimal(row.try_get(name)?)
    }
}

impl Readable for Option<Decimal> {
    fn read(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error> {
        row.try_get::<Option<&str>, _>(name)?.map(decimal).transpose()
    }
}

pub(super) fn decimal(text: &str) -> Result<Decimal, sqlx::Error> {
    Decimal::from_str_exact(text).map_err(|error| sqlx::Error::Decode(format!("{text}: {error}").into()))
}

/// A row type that is read back whole.
pub(super) trait FromStored: fathom_market::table::Row + Send + Sized {
    fn from_stored(row: &SqliteRow) -> Result<Self, StoreError>;
}

macro_rules! from_stored {
    ($row:ident { $($field:ident),+ $(,)? }) => {
        impl FromStored for $row {
            fn from_stored(row: &SqliteRow) -> Result<Self, StoreError> {
                Ok(Self { $($field: value(row, stringify!($field))?),+ })
            }
        }
    };
}

from_stored!(InstrumentRow {
    instrument_id,
    valid_from_us,
    valid_to_us,
    venue,
    market,
    native,
    symbol,
    base,
    quote,
    settle,
    kind,
    expiry_ms,
    status,
    tick_size,
    lot_size,
    contract_size,
    price_scale,
    qty_scale,
    facts,
});

from_stored!(CandleRow {
    instrument_id,
    timeframe,
    open_ms,
    close_ms,
    open,
    high,
    low,
    close,
    volume,
    quote_volume,
    trades,
    taker_buy_volume,
    taker_buy_quote_volume,
    closed,
    updated_us,
});

from_stored!(SymbolSnapshotRow {
    instrument_id,
    depth,
    timestamp_ms,
    bid_volume,
    ask_volume,
    bid_volume_usd,
    ask_volume_usd,
    mid_price,
    best_bid,
    best_ask,
    state,
    bid_covered,
    ask_covered,
    last_update_id,
    created_us,
});

from_stored!(CategorySnapshotRow {
    scope,
    market_type,
    category,
    depth,
    timestamp_ms,
    total_bid_volume,
    total_ask_volume,
    total_bid_volume_usd,
    total_ask_volume_usd,
    avg_price,
    symbol_count,
    member_count,
    bid_covered,
    ask_covered,
    stale_count,
    unpriced_count,
    created_us,
});

from_stored!(CollectorStateRow { instrument_id, timeframe, last_timestamp_ms, last_updated_us, is_realtime });

from_stored!(GapRow {
    gap_id,
    instrument_id,
    channel,
    cause,
    status,
    from_us,
    to_us,
    from_id,
    to_id,
    missing,
    reason,
    opened_us,
    closed_us,
    updated_us,
});
