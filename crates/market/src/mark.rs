//! How far each stream is stored: kept with every accepted batch, so that a start knows where the last one ended. And which
//! streams the rows of a batch belong to, for whoever has to say what is missing. Pure.

use rustc_hash::FxHashMap;

use crate::{
    batch::{Batch, Column},
    event::Channel,
    table::Table,
    timeframe::Timeframe,
};

/// The newest accepted record of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMark {
    /// The instrument.
    pub instrument_id: i64,
    /// The channel's word, see [`crate::gap::Gap::channel`].
    pub channel: String,
    /// When the record was received (for candles its open time), microseconds.
    pub last_us: i64,
    /// Its id, where the stream has ids.
    pub last_id: Option<String>,
}

/// The rows of one stream within a batch: the first and the last of them by time, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The instrument; 0 for rows of no single one, such as a category's.
    pub instrument_id: i64,
    /// The channel's word, see [`crate::gap::Gap::channel`]; of tables that carry no channel, their name.
    pub channel: String,
    /// Time of the first record, microseconds.
    pub first_us: i64,
    /// Its id, where the stream has ids.
    pub first_id: Option<String>,
    /// Time of the last record, microseconds.
    pub last_us: i64,
    /// Its id, where the stream has ids.
    pub last_id: Option<String>,
    /// Records.
    pub rows: u64,
}

/// Where a table says what stream and what time a row is of.
struct Layout {
    /// `None` where every row's channel is the same; else the column that tells candles apart.
    timeframe: Option<&'static str>,
    channel: &'static str,
    time: &'static str,
    /// Microseconds in a unit of `time`.
    unit: i64,
    id: Option<&'static str>,
    /// True where the rows tell how far a stream is stored.
    marks: bool,
}

fn layout(table: Table) -> Layout {
    let plain = |channel, time, unit| Layout { timeframe: None, channel, time, unit, id: None, marks: false };
    match table {
        Table::Trades => {
            Layout { id: Some("trade_id"), marks: true, ..plain(Channel::Trade.as_str(), "recv_us", 1) }
        }
        Table::BookTicker => {
            Layout { id: Some("update_id"), marks: true, ..plain(Channel::Quote.as_str(), "recv_us", 1) }
        }
        Table::DepthEvents => {
            Layout { id: Some("last_id"), marks: true, ..plain(Channel::Depth.as_str(), "recv_us", 1) }
        }
        Table::Bt1s => Layout { marks: true, ..plain(Channel::Quote.as_str(), "second_ms", 1000) },
        Table::Depth1s => {
            Layout { id: Some("last_id"), marks: true, ..plain(Channel::Depth.as_str(), "second_ms", 1000) }
        }
        Table::FundingRates => Layout { marks: true, ..plain(Channel::Funding.as_str(), "event_us", 1) },
        Table::Candles => Layout {
            timeframe: Some("timeframe"),
            marks: true,
            ..plain(Channel::Candle(Timeframe::M1).as_str(), "open_ms", 1000)
        },
        Table::Tickers => plain(Channel::Ticker.as_str(), "event_us", 1),
        Table::Trade1s => plain("trade_1s", "second_ms", 1000),
        Table::OrderbookData => {
            Layout { id: Some("last_update_id"), ..plain("orderbook", "timestamp_ms", 1000) }
        }
        Table::SymbolSnapshots => plain("symbol_snapshots", "timestamp_ms", 1000),
        Table::CategorySnapshots => plain("category_snapshots", "timestamp_ms", 1000),
        Table::Instruments => plain("instruments", "valid_from_us", 1),
        Table::CollectorState => plain("collector_state", "last_timestamp_ms", 1000),
        Table::DataGaps => plain("data_gaps", "from_us", 1),
    }
}

impl Batch {
    /// The newest record of each stream whose rows tell how far it is stored; of candles only closed ones do.
    pub fn marks(&self) -> Vec<StreamMark> {
        if !layout(self.table()).marks {
            return Vec::new();
        }
        let closed = match self.column("closed") {
            Some(Column::Flag(closed)) => Some(closed),
            _ => None,
        };
        let counts = |row: usize| closed.is_none_or(|closed| closed.get(row) == Some(&true));
        let marks = self.grouped(counts).into_iter().map(|group| StreamMark {
            last_id: self.id(group.last),
            channel: self.channel(group.last),
            instrument_id: group.instrument_id,
            last_us: group.last_us,
        });
        marks.collect()
    }

    /// What the rows cover, stream by stream.
    pub fn extents(&self) -> Vec<Extent> {
        let extents = self.grouped(|_| true).into_iter().map(|group| Extent {
            instrument_id: group.instrument_id,
            channel: self.channel(group.last),
            first_us: group.first_us,
            first_id: self.id(group.first),
            last_us: group.last_us,
            last_id: self.id(group.last),
            rows: group.rows,
        });
        extents.collect()
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        let at = self.schema().columns.iter().position(|column| column.name == name)?;
        self.columns().get(at)
    }

    fn grouped(&self, counts: impl Fn(usize) -> bool) -> Vec<Group> {
        let layout = layout(self.table());
        let ids = self.column("instrument_id");
        let (times, timeframes) =
            (self.column(layout.time), layout.timeframe.and_then(|name| self.column(name)));
        let mut at: FxHashMap<(i64, &str), usize> = FxHashMap::default();
        let mut groups: Vec<Group> = Vec::new();
        // A trade that was fetched later has an old id and a new time: where ids are numbers they say what is newest.
        let numbered = (self.table() == Table::Trades).then(|| self.column("trade_id")).flatten();
        let number = |row: usize| numbered.and_then(|column| text(column, row).parse::<u64>().ok());
        for row in (0..self.len()).filter(|row| counts(*row)) {
            let instrument_id = ids.map_or(0, |column| int(column, row));
            let us = times.map_or(0, |column| int(column, row)).saturating_mul(layout.unit);
            let timeframe = timeframes.map_or("", |column| text(column, row));
            let index = *at.entry((instrument_id, timeframe)).or_insert_with(|| {
                groups.push(Group {
                    instrument_id,
                    first: row,
                    first_us: us,
                    last: row,
                    last_us: us,
                    newest: number(row),
                    rows: 0,
                });
                groups.len() - 1
            });
            if let Some(group) = groups.get_mut(index) {
                group.note(row, us, number(row));
            }
        }
        groups
    }

    fn channel(&self, row: usize) -> String {
        let layout = layout(self.table());
        match layout.timeframe.and_then(|name| self.column(name)) {
            Some(timeframes) => format!("{}:{}", layout.channel, text(timeframes, row)),
            None => layout.channel.to_owned(),
        }
    }

    fn id(&self, row: usize) -> Option<String> {
        match self.column(layout(self.table()).id?)? {
            Column::Int(ids) => ids.get(row).filter(|id| **id != 0).map(i64::to_string),
            Column::Text(ids) => ids.get(row).cloned(),
            _ => None,
        }
    }
}

struct Group {
    instrument_id: i64,
    first: usize,
    first_us: i64,
    last: usize,
    last_us: i64,
    newest: Option<u64>,
    rows: u64,
}

impl Group {
    fn note(&mut self, row: usize, us: i64, number: Option<u64>) {
        self.rows += 1;
        if us < self.first_us {
            (self.first, self.first_us) = (row, us);
        }
        // Of records of one time the later one in the batch is the newest.
        let newer = match (number, self.newest) {
            (Some(number), Some(newest)) => number >= newest,
            _ => us >= self.last_us,
        };
        if newer {
            (self.last, self.last_us, self.newest) = (row, us, number);
        }
    }
}

fn int(column: &Column, row: usize) -> i64 {
    match column {
        Column::Int(values) => values.get(row).copied().unwrap_or_default(),
        _ => 0,
    }
}

fn text(column: &Column, row: usize) -> &str {
    match column {
        Column::Text(values) => values.get(row).map_or("", String::as_str),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;
    use crate::table::{CandleRow, CollectorStateRow, TradeRow};

    fn trade(instrument_id: i64, trade_id: u64, recv_us: i64) -> TradeRow {
        TradeRow {
            instrument_id,
            kind: "agg".into(),
            trade_id: trade_id.to_string(),
            event_us: recv_us - 5,
            recv_us,
            price_m: 1,
            qty_m: 1,
            price_scale: 0,
            qty_scale: 0,
            side: "buy".into(),
            first_raw_id: None,
            last_raw_id: None,
        }
    }

    fn candle(timeframe: &str, open_ms: i64, closed: bool) -> CandleRow {
        CandleRow {
            instrument_id: 7,
            timeframe: timeframe.into(),
            open_ms,
            close_ms: open_ms + 59_999,
            open: Decimal::ONE,
            high: Decimal::ONE,
            low: Decimal::ONE,
            close: Decimal::ONE,
            volume: Decimal::ONE,
            quote_volume: Decimal::ONE,
            trades: 1,
            taker_buy_volume: Decimal::ONE,
            taker_buy_quote_volume: Decimal::ONE,
            closed,
            updated_us: open_ms,
        }
    }

    fn mark(instrument_id: i64, channel: &str, last_us: i64, last_id: Option<&str>) -> StreamMark {
        StreamMark { instrument_id, channel: channel.into(), last_us, last_id: last_id.map(Into::into) }
    }

    #[test]
    fn the_newest_record_of_each_stream_is_its_mark() {
        let batch = Batch::of([trade(1, 10, 100), trade(2, 5, 90), trade(1, 11, 120), trade(1, 12, 120)]);
        assert_eq!(batch.marks(), [mark(1, "trade", 120, Some("12")), mark(2, "trade", 90, Some("5"))]);
    }

    #[test]
    fn a_trade_that_was_fetched_later_moves_no_mark() {
        let batch = Batch::of([trade(1, 12, 100), trade(1, 11, 900), trade(1, 13, 110)]);
        assert_eq!(batch.marks(), [mark(1, "trade", 110, Some("13"))]);
    }

    #[test]
    fn only_closed_candles_are_marks_each_timeframe_its_own() {
        let batch =
            Batch::of([candle("1m", 60_000, true), candle("1m", 120_000, false), candle("5m", 0, true)]);
        assert_eq!(batch.marks(), [mark(7, "candle:1m", 60_000_000, None), mark(7, "candle:5m", 0, None)]);
    }

    #[test]
    fn extents_have_exact_bounds_and_counts() {
        let batch = Batch::of([trade(1, 11, 120), trade(1, 10, 100), trade(1, 12, 130)]);
        let extents = batch.extents();
        assert_eq!(extents.len(), 1);
        let Extent { first_us, first_id, last_us, last_id, rows, .. } = &extents[0];
        assert_eq!((*first_us, *last_us, *rows), (100, 130, 3));
        assert_eq!((first_id.as_deref(), last_id.as_deref()), (Some("10"), Some("12")));
    }

    #[test]
    fn every_table_has_a_stream_whose_columns_exist() {
        for table in Table::ALL {
            let (layout, batch) = (layout(*table), Batch::new(*table));
            let named = [Some(layout.time), layout.timeframe, layout.id].into_iter().flatten();
            assert!(named.into_iter().all(|name| batch.column(name).is_some()), "{}", table.schema().name);
        }
        let state = CollectorStateRow {
            instrument_id: 1,
            timeframe: "1m".into(),
            last_timestamp_ms: 2,
            last_updated_us: 3,
            is_realtime: true,
        };
        assert!(Batch::of([state]).marks().is_empty());
    }
}
