//! From what was made to commands. Pure: it holds the last candles of each series and nothing else.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use fathom_market::{
    batch::Batch,
    instrument::Instrument,
    table::{CandleRow, Table},
};
use redis::Pipeline;

use crate::{
    cache::Cache,
    config::RedisConfig,
    live::{Body, Live, LiveTick},
    message,
    names::Topic,
    rows::{RowView, row_json},
    series::Entry,
};

/// How long the sign of life outlives its last renewal.
const ALIVE: Duration = Duration::from_secs(10);

/// Commands that go out together.
#[derive(Debug, Default)]
pub struct Commands {
    pipeline: Pipeline,
    count: usize,
    messages: u64,
    /// Rows of sorted sets, by key and time.
    rows: BTreeSet<(String, i64)>,
}

impl Commands {
    /// True when there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// How many of them are messages to channels.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// The rows of sorted sets by key, each set's in the order of their times.
    pub(crate) const fn rows(&self) -> &BTreeSet<(String, i64)> {
        &self.rows
    }

    pub(crate) const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    fn add(&mut self, name: &str, arguments: &[&str]) {
        let command = self.pipeline.cmd(name);
        arguments.iter().for_each(|argument| {
            command.arg(*argument);
        });
        command.ignore();
        self.count += 1;
    }

    fn set(&mut self, key: &str, value: &str, ttl: Duration) {
        self.add("SET", &[key, value, "PX", &ttl.as_millis().max(1).to_string()]);
    }

    fn publish(&mut self, channels: &[String], message: &str) {
        for channel in channels {
            self.add("PUBLISH", &[channel, message]);
        }
        self.messages += channels.len() as u64;
    }
}

#[derive(Clone, Debug, Default)]
struct Candles {
    closed: Option<CandleRow>,
    open: Option<CandleRow>,
}

impl Candles {
    /// Takes a candle; false when a later word on its series is known.
    fn take(&mut self, row: &CandleRow) -> bool {
        let is_past = |closed: &CandleRow| {
            row.open_ms < closed.open_ms || (row.open_ms == closed.open_ms && !row.closed)
        };
        if self.closed.as_ref().is_some_and(is_past) {
            return false;
        }
        if row.closed {
            self.closed = Some(row.clone());
            self.open.take_if(|open| open.open_ms <= row.open_ms);
            return true;
        }
        if self.open.as_ref().is_some_and(|open| open.open_ms > row.open_ms) {
            return false;
        }
        self.open = Some(row.clone());
        true
    }
}

/// Makes commands.
#[derive(Debug)]
pub struct Composer {
    config: RedisConfig,
    /// By instrument, then timeframe.
    candles: HashMap<i64, HashMap<String, Candles>>,
}

impl Composer {
    /// Nothing is known.
    pub fn new(config: RedisConfig) -> Self {
        Self { config, candles: HashMap::new() }
    }

    /// Adds the sign of life, by which a server that takes no writes is found out.
    pub fn alive(&self, now_ms: i64, out: &mut Commands) {
        out.set(&self.config.names.alive(), &now_ms.to_string(), ALIVE);
    }

    /// Takes what must be remembered of something that is not sent: which candle was the last.
    pub fn note(&mut self, live: &Live) {
        if let Body::Candle(row) = &live.body {
            self.series(row).take(row);
        }
    }

    /// Adds what is to be said of something that was made.
    pub fn live(&mut self, live: &Live, out: &mut Commands) {
        let (names, ttl, of) = (&self.config.names, &self.config.ttl, &*live.instrument);
        match &live.body {
            Body::Candle(row) => self.candle(of, row, out),
            Body::Book(state, row) if state.is_usable() => {
                let Some(message) = message::orderbook(of, *state, row) else { return };
                out.set(&names.orderbook(of), &message, ttl.orderbook);
                out.publish(&names.channels(Topic::Orderbook, of), &message);
            }
            Body::Book(state, row) => self.doubt(of, &message::doubt(of, *state, row.timestamp_ms), out),
            Body::Doubt { state, at_ms } => self.doubt(of, &message::doubt(of, *state, *at_ms), out),
            Body::Ticker(row) => out.set(&names.ticker(of), &message::ticker(of, row), ttl.ticker),
        }
    }

    fn doubt(&self, of: &Instrument, message: &str, out: &mut Commands) {
        let names = &self.config.names;
        out.add("DEL", &[&names.orderbook(of)]);
        out.publish(&names.channels(Topic::Orderbook, of), message);
    }

    fn candle(&mut self, of: &Instrument, row: &CandleRow, out: &mut Commands) {
        let known = self.series(row);
        if !known.take(row) {
            return;
        }
        let (closed, open) = (known.closed.clone(), known.open.clone());
        let (names, ttl) = (&self.config.names, self.config.ttl.candles);
        let value = message::candles(of, &row.timeframe, closed.as_ref(), open.as_ref());
        out.set(&names.candles(of, &row.timeframe), &value, ttl);
        out.publish(&names.channels(Topic::Candles, of), &message::candle(of, row));
    }

    fn series(&mut self, row: &CandleRow) -> &mut Candles {
        let series = self.candles.entry(row.instrument_id).or_default();
        if !series.contains_key(&row.timeframe) {
            series.insert(row.timeframe.clone(), Candles::default());
        }
        series.entry(row.timeframe.clone()).or_default()
    }

    /// Adds accepted rows of snapshots to their sorted sets; rows of other tables are left.
    pub fn rows(
        &self,
        batch: &Batch,
        instrument: impl Fn(i64) -> Option<Arc<Instrument>>,
        cache: &Cache,
        now_ms: i64,
        out: &mut Commands,
    ) {
        for at in 0..batch.len() {
            let row = RowView::new(batch, at);
            let key = match batch.table() {
                Table::CategorySnapshots => self.category_key(&row),
                Table::SymbolSnapshots if self.config.pairs => self.pair_key(&row, &instrument),
                _ => return,
            };
            if let (Some(key), Some(at_ms)) = (key, row.int("timestamp_ms")) {
                self.row(&key, at_ms, &row_json(batch, at), cache, now_ms, out);
            }
        }
    }

    fn category_key(&self, row: &RowView<'_>) -> Option<String> {
        let names = &self.config.names;
        Some(names.category(
            row.text("scope")?,
            row.text("market_type")?,
            row.text("category")?,
            &row.depth()?,
        ))
    }

    fn pair_key(
        &self,
        row: &RowView<'_>,
        instrument: &impl Fn(i64) -> Option<Arc<Instrument>>,
    ) -> Option<String> {
        let of = instrument(row.int("instrument_id")?)?;
        Some(self.config.names.pair(&of, &row.depth()?))
    }

    fn row(&self, key: &str, at_ms: i64, json: &str, cache: &Cache, now_ms: i64, out: &mut Commands) {
        let (entry, marker) = cache.place(key, at_ms);
        if entry == Entry::Known || !out.rows.insert((key.to_owned(), at_ms)) {
            return;
        }
        let (at, window) = (at_ms.to_string(), self.config.window);
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        if entry == Entry::First {
            // Markers of earlier connections go; scores of rows are above zero.
            out.add("ZREMRANGEBYSCORE", &[key, "0", "0"]);
            out.add("ZADD", &[key, "0", &marker]);
        }
        // A row of this minute may be there of an earlier process.
        out.add("ZREMRANGEBYSCORE", &[key, &at, &at]);
        out.add("ZADD", &[key, &at, json]);
        out.add("ZREMRANGEBYSCORE", &[key, "(0", &format!("({}", now_ms - window_ms)]);
        out.add("PEXPIRE", &[key, &window_ms.to_string()]);
    }

    /// Adds ticks to the mirror of their rings, where there is one.
    pub fn ticks(&self, ticks: &[LiveTick], now_ms: i64, out: &mut Commands) {
        let Some(ttl) = self.config.ttl.ticks else { return };
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let mut touched: HashMap<i64, String> = HashMap::new();
        for LiveTick { instrument, tick } in ticks {
            let key = touched.entry(instrument.id.0).or_insert_with(|| self.config.names.ticks(instrument));
            let score = (tick.time_us / 1000).to_string();
            out.add("ZADD", &[key, &score, &message::tick(instrument, tick)]);
        }
        for key in touched.values() {
            out.add("ZREMRANGEBYSCORE", &[key, "-inf", &format!("({}", now_ms - ttl_ms)]);
            out.add("PEXPIRE", &[key, &ttl_ms.to_string()]);
        }
    }
}
