//! How stored and live values are shown. The only place that decides between numbers and text for decimals.

use chrono::{DateTime, SecondsFormat};
use fathom_market::table::{CategorySnapshotRow, SymbolSnapshotRow};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

/// A decimal as an exact JSON number: its digits are written, no float is made of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Num(pub(super) Decimal);

impl Serialize for Num {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(text(self.0)).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Decimals as exact JSON numbers.
pub(super) fn nums(values: &[Decimal]) -> Vec<Num> {
    values.iter().copied().map(Num).collect()
}

/// A decimal as plain text without trailing zeros.
pub(super) fn text(value: Decimal) -> String {
    value.normalize().to_string()
}

/// Microseconds UTC as `2026-11-21T06:38:33.010Z`.
pub(super) fn iso(us: i64) -> String {
    DateTime::from_timestamp_micros(us)
        .map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// How many books in the sums really reach the depth.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Coverage {
    bid: i64,
    ask: i64,
}

/// What a category, or one pair, holds within a depth. Volumes are dollars unless they say base.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DepthValues {
    bid_volume: Option<Num>,
    ask_volume: Option<Num>,
    avg_price: Option<Num>,
    symbol_count: i64,
    member_count: i64,
    coverage: Coverage,
    stale_count: i64,
    unpriced_count: i64,
    bid_volume_base: Num,
    ask_volume_base: Num,
}

impl From<&CategorySnapshotRow> for DepthValues {
    fn from(row: &CategorySnapshotRow) -> Self {
        Self {
            bid_volume: Some(Num(row.total_bid_volume_usd)),
            ask_volume: Some(Num(row.total_ask_volume_usd)),
            avg_price: row.avg_price.map(Num),
            symbol_count: row.symbol_count,
            member_count: row.member_count,
            coverage: Coverage { bid: row.bid_covered, ask: row.ask_covered },
            stale_count: row.stale_count,
            unpriced_count: row.unpriced_count,
            bid_volume_base: Num(row.total_bid_volume),
            ask_volume_base: Num(row.total_ask_volume),
        }
    }
}

impl From<&SymbolSnapshotRow> for DepthValues {
    /// A pair is a category of one member. Its price is the mid in quote units.
    fn from(row: &SymbolSnapshotRow) -> Self {
        let priced = row.bid_volume_usd.is_some() && row.ask_volume_usd.is_some();
        Self {
            bid_volume: row.bid_volume_usd.map(Num),
            ask_volume: row.ask_volume_usd.map(Num),
            avg_price: row.mid_price.map(Num),
            symbol_count: i64::from(priced),
            member_count: 1,
            coverage: Coverage { bid: i64::from(row.bid_covered), ask: i64::from(row.ask_covered) },
            stale_count: 0,
            unpriced_count: i64::from(!priced),
            bid_volume_base: Num(row.bid_volume),
            ask_volume_base: Num(row.ask_volume),
        }
    }
}

/// One minute of a series; the time in seconds, as charts want it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SeriesPoint {
    time: i64,
    #[serde(flatten)]
    values: DepthValues,
}

impl From<&CategorySnapshotRow> for SeriesPoint {
    fn from(row: &CategorySnapshotRow) -> Self {
        Self { time: row.timestamp_ms / 1000, values: row.into() }
    }
}

/// One minute of a pair.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PairPoint {
    #[serde(flatten)]
    point: SeriesPoint,
    best_bid: Option<Num>,
    best_ask: Option<Num>,
    state: String,
    last_update_id: i64,
}

impl From<&SymbolSnapshotRow> for PairPoint {
    fn from(row: &SymbolSnapshotRow) -> Self {
        Self {
            point: SeriesPoint { time: row.timestamp_ms / 1000, values: row.into() },
            best_bid: row.best_bid.map(Num),
            best_ask: row.best_ask.map(Num),
            state: row.state.clone(),
            last_update_id: row.last_update_id,
        }
    }
}

/// The newest minute; the time in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LatestPoint {
    timestamp: i64,
    #[serde(flatten)]
    values: DepthValues,
}

impl From<&CategorySnapshotRow> for LatestPoint {
    fn from(row: &CategorySnapshotRow) -> Self {
        Self { timestamp: row.timestamp_ms, values: row.into() }
    }
}

/// Serializes pairs as an object, in their order.
pub(super) fn in_order<K: Serialize, V: Serialize, S: Serializer>(
    pairs: &[(K, V)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_digit_by_digit() {
        let shown = |value: &str| serde_json::to_string(&Num(value.parse().expect("decimal"))).expect("json");
        assert_eq!(shown("0.00000005"), "0.00000005");
        assert_eq!(shown("12345678901234567.890123456700"), "12345678901234567.8901234567");
        assert_eq!(shown("5.00"), "5");
        assert_eq!(shown("-0.10"), "-0.1");
        assert_eq!(shown("0.000"), "0");
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(iso(1_000_000_123_456), "1970-01-12T13:46:40.123Z");
    }
}
