//! The stored tables: each row type, its columns, key and conflict policy, declared once for every store.
//!
//! Prices and quantities of the busy tables are mantissas (`*_m`), with their decimals beside them in the row
//! (`price_scale`, `qty_scale`), so that a row explains itself after an instrument's scale changed. Slow tables hold
//! decimals. `*_us` are microseconds, `*_ms` milliseconds, UTC.

use rust_decimal::Decimal;

use crate::batch::{Batch, Cell, Column};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// 64-bit integer.
    Int,
    /// 64-bit integer or null.
    OptInt,
    /// Text.
    Text,
    /// Text or null.
    OptText,
    /// Decimal, `numeric(28,12)`.
    Dec,
    /// Decimal or null.
    OptDec,
    /// Boolean.
    Flag,
}

/// A column of a stored table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Name in the store.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What happens to a row whose key is already stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The first commit wins.
    KeepFirst,
    /// The row with the greatest value of this column wins; a tie replaces.
    Newest(&'static str),
    /// The table holds validity rows: nothing is written while the newest row of the key has the same value in this
    /// column; otherwise that row's `valid_to_us` is set and the new row is added.
    Versioned(&'static str),
}

/// The schema of a table.
#[derive(Debug)]
pub struct Schema {
    /// Name in the store.
    pub name: &'static str,
    /// Columns in order.
    pub columns: &'static [ColumnSpec],
    /// Natural key.
    pub key: &'static [&'static str],
    /// Conflict policy.
    pub conflict: Conflict,
    /// Column by which rows age, and how many of its units are a millisecond (1 or 1000).
    pub age: Option<(&'static str, i64)>,
}

/// A row of one table.
pub trait Row {
    /// Its table.
    const TABLE: Table;

    /// Appends the row to columns made for its table.
    fn append(self, columns: &mut [Column]);
}

macro_rules! field_type {
    (Int) => { i64 };
    (OptInt) => { Option<i64> };
    (Text) => { String };
    (OptText) => { Option<String> };
    (Dec) => { Decimal };
    (OptDec) => { Option<Decimal> };
    (Flag) => { bool };
}

macro_rules! tables {
    ($($(#[$meta:meta])* $table:ident($row:ident) $name:literal key[$($key:literal)+] $conflict:expr, age $age:expr; {
        $($field:ident: $kind:ident,)+
    })+) => {
        /// A stored table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table {
            $($(#[$meta])* $table,)+
        }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Self] = &[$(Self::$table),+];

            /// Columns, key and conflict policy.
            pub const fn schema(self) -> &'static Schema {
                match self {
                    $(Self::$table => &Schema {
                        name: $name,
                        columns: &[$(ColumnSpec { name: stringify!($field), kind: ColumnKind::$kind }),+],
                        key: &[$($key),+],
                        conflict: $conflict,
                        age: $age,
                    },)+
                }
            }
        }

        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq)]
            #[allow(missing_docs, reason = "the columns are described by the schema's conventions")]
            pub struct $row {
                $(pub $field: field_type!($kind),)+
            }

            impl $row {
                /// The rows of a batch; none of another table's.
                pub fn all(batch: &Batch) -> Vec<Self> {
                    let rows = (0..batch.len()).map(|row| {
                        let mut columns = batch.columns().iter();
                        Some(Self { $($field: Cell::read(columns.next()?, row)?,)+ })
                    });
                    if batch.table() == Table::$table { rows.flatten().collect() } else { Vec::new() }
                }
            }

            impl Row for $row {
                const TABLE: Table = Table::$table;

                fn append(self, columns: &mut [Column]) {
                    let mut columns = columns.iter_mut();
                    $(if let Some(column) = columns.next() {
                        self.$field.push_to(column);
                    })+
                }
            }
        )+
    };
}

tables! {
    /// Listed instruments, one row for each period in which their facts held.
    Instruments(InstrumentRow) "instruments" key["instrument_id" "valid_from_us"] Conflict::Versioned("facts"), age None; {
        instrument_id: Int,
        valid_from_us: Int,
        valid_to_us: OptInt,
        venue: Text,
        market: Text,
        native: Text,
        symbol: Text,
        base: Text,
        quote: Text,
        settle: OptText,
        kind: Text,
        expiry_ms: OptInt,
        status: Text,
        tick_size: Dec,
        lot_size: Dec,
        contract_size: Dec,
        price_scale: Int,
        qty_scale: Int,
        facts: Text,
    }
    /// Best bid and ask, every tick. `ordinal` tells ticks of one time apart where the venue gives no update id.
    BookTicker(BookTickerRow) "book_ticker_raw" key["instrument_id" "update_id" "event_us" "ordinal"] Conflict::KeepFirst, age Some(("event_us", 1000)); {
        instrument_id: Int,
        update_id: Int,
        event_us: Int,
        ordinal: Int,
        venue_time: Flag,
        recv_us: Int,
        bid_price_m: Int,
        bid_qty_m: Int,
        ask_price_m: Int,
        ask_qty_m: Int,
        price_scale: Int,
        qty_scale: Int,
    }
    /// Trades; `kind` is `trade` or `agg`, whose ids are different sequences.
    Trades(TradeRow) "trades_raw" key["instrument_id" "kind" "trade_id"] Conflict::KeepFirst, age Some(("event_us", 1000)); {
        instrument_id: Int,
        kind: Text,
        trade_id: Text,
        event_us: Int,
        recv_us: Int,
        price_m: Int,
        qty_m: Int,
        price_scale: Int,
        qty_scale: Int,
        side: Text,
        first_raw_id: OptInt,
        last_raw_id: OptInt,
    }
    /// Incremental depth as received; `bids` and `asks` are JSON `[["price","qty"],...]`.
    DepthEvents(DepthEventRow) "depth_events_raw" key["instrument_id" "last_id"] Conflict::KeepFirst, age Some(("event_us", 1000)); {
        instrument_id: Int,
        last_id: Int,
        first_id: Int,
        prev_id: OptInt,
        event_us: Int,
        recv_us: Int,
        bids: Text,
        asks: Text,
    }
    /// Stored order book tops; `bids` and `asks` are JSON `[["price","qty"],...]`, best first.
    OrderbookData(OrderbookRow) "orderbook_raw" key["instrument_id" "timestamp_ms"] Conflict::KeepFirst, age Some(("timestamp_ms", 1)); {
        instrument_id: Int,
        timestamp_ms: Int,
        last_update_id: Int,
        bids: Text,
        asks: Text,
    }
    /// Candles, open and closed.
    Candles(CandleRow) "candles_raw" key["instrument_id" "timeframe" "open_ms"] Conflict::Newest("updated_us"), age None; {
        instrument_id: Int,
        timeframe: Text,
        open_ms: Int,
        close_ms: Int,
        open: Dec,
        high: Dec,
        low: Dec,
        close: Dec,
        volume: Dec,
        quote_volume: Dec,
        trades: Int,
        taker_buy_volume: Dec,
        taker_buy_quote_volume: Dec,
        closed: Flag,
        updated_us: Int,
    }
    /// Depth of one pair at a minute boundary, one row a depth.
    SymbolSnapshots(SymbolSnapshotRow) "symbol_snapshots_raw" key["instrument_id" "depth" "timestamp_ms"] Conflict::KeepFirst, age Some(("timestamp_ms", 1)); {
        instrument_id: Int,
        depth: Dec,
        timestamp_ms: Int,
        bid_volume: Dec,
        ask_volume: Dec,
        bid_volume_usd: OptDec,
        ask_volume_usd: OptDec,
        mid_price: OptDec,
        best_bid: OptDec,
        best_ask: OptDec,
        state: Text,
        bid_covered: Flag,
        ask_covered: Flag,
        last_update_id: Int,
        created_us: Int,
    }
    /// Depth of a category at a minute boundary. `symbol_count` members are in the sums; the others are stale,
    /// without a dollar rate, or missing.
    CategorySnapshots(CategorySnapshotRow) "category_snapshots_raw" key["scope" "market_type" "category" "depth" "timestamp_ms"] Conflict::KeepFirst, age Some(("timestamp_ms", 1)); {
        scope: Text,
        market_type: Text,
        category: Text,
        depth: Dec,
        timestamp_ms: Int,
        total_bid_volume: Dec,
        total_ask_volume: Dec,
        total_bid_volume_usd: Dec,
        total_ask_volume_usd: Dec,
        avg_price: OptDec,
        symbol_count: Int,
        member_count: Int,
        bid_covered: Int,
        ask_covered: Int,
        stale_count: Int,
        unpriced_count: Int,
        created_us: Int,
    }
    /// Mark price and running funding rate.
    FundingRates(FundingRow) "funding_raw" key["instrument_id" "event_us"] Conflict::KeepFirst, age Some(("event_us", 1000)); {
        instrument_id: Int,
        event_us: Int,
        mark_price: Dec,
        index_price: OptDec,
        funding_rate: OptDec,
        next_funding_ms: OptInt,
    }
    /// One-second bars of the best bid and ask; mantissas on `price_scale`, the microprice on `price_scale + 4`.
    Bt1s(QuoteBarRow) "bt_1s_raw" key["instrument_id" "second_ms"] Conflict::KeepFirst, age Some(("second_ms", 1)); {
        instrument_id: Int,
        second_ms: Int,
        price_scale: Int,
        bid_open_m: Int,
        bid_high_m: Int,
        bid_low_m: Int,
        bid_close_m: Int,
        ask_open_m: Int,
        ask_high_m: Int,
        ask_low_m: Int,
        ask_close_m: Int,
        spread_open_m: Int,
        spread_high_m: Int,
        spread_low_m: Int,
        spread_close_m: Int,
        micro_open_m: Int,
        micro_high_m: Int,
        micro_low_m: Int,
        micro_close_m: Int,
        ticks: Int,
        partial: Flag,
    }
    /// One-second bars of trades.
    Trade1s(TradeBarRow) "trade_1s_raw" key["instrument_id" "second_ms"] Conflict::KeepFirst, age Some(("second_ms", 1)); {
        instrument_id: Int,
        second_ms: Int,
        price_scale: Int,
        qty_scale: Int,
        open_m: Int,
        high_m: Int,
        low_m: Int,
        close_m: Int,
        volume: Dec,
        buy_volume: Dec,
        sell_volume: Dec,
        quote_volume: Dec,
        vwap: Dec,
        trades: Int,
        partial: Flag,
    }
    /// One-second counts of depth updates, with the inputs of order flow imbalance: quantity added to and taken from
    /// each side (base units), and the best levels at the end of the second.
    Depth1s(DepthBarRow) "depth_1s_raw" key["instrument_id" "second_ms"] Conflict::KeepFirst, age Some(("second_ms", 1)); {
        instrument_id: Int,
        second_ms: Int,
        updates: Int,
        bid_changes: Int,
        ask_changes: Int,
        bid_added: Dec,
        bid_removed: Dec,
        ask_added: Dec,
        ask_removed: Dec,
        ofi: Dec,
        best_bid: OptDec,
        best_ask: OptDec,
        last_id: Int,
        partial: Flag,
    }
    /// 24 hour statistics, the newest of each instrument.
    Tickers(TickerRow) "tickers_raw" key["instrument_id"] Conflict::Newest("event_us"), age None; {
        instrument_id: Int,
        event_us: Int,
        last: OptDec,
        bid: OptDec,
        ask: OptDec,
        open: OptDec,
        high: OptDec,
        low: OptDec,
        volume: OptDec,
        quote_volume: OptDec,
        trades: OptInt,
    }
    /// How far each candle series is stored, so that a restart continues where it stopped.
    CollectorState(CollectorStateRow) "collector_state_raw" key["instrument_id" "timeframe"] Conflict::Newest("last_timestamp_ms"), age None; {
        instrument_id: Int,
        timeframe: Text,
        last_timestamp_ms: Int,
        last_updated_us: Int,
        is_realtime: Flag,
    }
    /// The gap ledger: intervals in which a stream may have missed data, and what became of each.
    DataGaps(GapRow) "data_gaps_raw" key["gap_id"] Conflict::Newest("updated_us"), age Some(("from_us", 1000)); {
        gap_id: Text,
        instrument_id: Int,
        channel: Text,
        cause: Text,
        status: Text,
        from_us: Int,
        to_us: OptInt,
        from_id: OptText,
        to_id: OptText,
        missing: OptInt,
        reason: OptText,
        opened_us: Int,
        closed_us: OptInt,
        updated_us: Int,
    }
}

impl Table {
    /// Finds a table by its name in the store.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|table| table.schema().name == name)
    }
}
