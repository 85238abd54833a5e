//! What is stored, where, and for how long; candles.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use fathom_market::{table::Table, timeframe::Timeframe};
use fathom_storage::{Durability, Policy, QuarantineLimits, Retention};

use super::server::StoreServer;
use crate::{
    address::Family,
    config::{
        error::ConfigError,
        raw::{Kind, Leaf},
        read::Reader,
    },
};

/// The store's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// The embedded store: one file, no server.
    Sqlite,
    /// PostgreSQL; with TimescaleDB where the extension is there.
    Postgres,
    /// PostgreSQL that must have TimescaleDB.
    Timescale,
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
}

impl StoreKind {
    const WORDS: [(&'static str, Self); 5] = [
        ("sqlite", Self::Sqlite),
        ("postgres", Self::Postgres),
        ("timescale", Self::Timescale),
        ("mysql", Self::Mysql),
        ("mariadb", Self::Mariadb),
    ];

    /// Whether it can be away while the service runs.
    pub const fn is_server(self) -> bool {
        !matches!(self, Self::Sqlite)
    }

    /// Whose protocol it speaks.
    pub const fn family(self) -> Family {
        match self {
            Self::Sqlite => Family::Sqlite,
            Self::Postgres | Self::Timescale => Family::Postgres,
            Self::Mysql | Self::Mariadb => Family::Mysql,
        }
    }

    /// What its addresses begin with.
    pub const fn scheme(self) -> &'static str {
        match self.family() {
            Family::Sqlite => "sqlite",
            Family::Postgres => "postgres",
            Family::Mysql => "mysql",
        }
    }
}

/// Whether rows are accepted into a spool before the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolMode {
    /// Where the store is not in the process.
    Auto,
    /// Before every store.
    Always,
    /// Never.
    Never,
}

/// The spool before the store.
#[derive(Clone, Debug)]
pub struct Spool {
    /// The file.
    pub path: PathBuf,
    /// Bytes that it may hold.
    pub max_bytes: u64,
    /// Records older than this are dropped.
    pub max_age: Duration,
}

impl Spool {
    pub(super) fn read(reader: &mut Reader<'_>, data_dir: &Path) -> Result<Self, ConfigError> {
        Ok(Self {
            path: reader.required("path", "the path of a file", |leaf| file(leaf, data_dir))?,
            max_bytes: reader.int("max_bytes", SMALLEST_SPOOL..=1 << 50)?,
            max_age: reader
                .age("max_age")?
                .ok_or_else(|| reader.invalid("max_age", "expected an age, such as 7d"))?,
        })
    }
}

/// Room for a few of the greatest batches.
const SMALLEST_SPOOL: u64 = 16 * 1024 * 1024;

fn file(leaf: &Leaf, data_dir: &Path) -> Option<PathBuf> {
    leaf.text().filter(|text| !text.is_empty()).map(|text| data_dir.join(text))
}

/// The store and its writer.
#[derive(Clone, Debug)]
pub struct Store {
    /// Kind.
    pub kind: StoreKind,
    /// The database file, of the kind that is one.
    pub path: PathBuf,
    /// The server, of the other kinds.
    pub server: Option<StoreServer>,
    /// What a commit outlives.
    pub durability: Durability,
    /// Rows after which a batch is written.
    pub batch_rows: usize,
    /// Age at which a batch is written.
    pub batch_age: Duration,
    /// Rows that may wait on their way to the store.
    pub inbox_rows: usize,
    /// Bytes of them.
    pub inbox_bytes: u64,
    /// Whose rows are refused first.
    pub policy: Policy,
    /// A write that takes longer is given up and tried again.
    pub write_deadline: Duration,
    /// A write that takes longer makes the store count as unreachable.
    pub hung_after: Duration,
    /// How much the quarantine may hold.
    pub quarantine: QuarantineLimits,
    /// Whether there is a spool.
    pub spool: SpoolMode,
}

impl Store {
    /// Where it is, without any password.
    pub fn shown(&self) -> String {
        self.server.as_ref().map_or_else(|| self.path.display().to_string(), |server| server.shown.clone())
    }

    pub(super) fn read(reader: &mut Reader<'_>, data_dir: &Path) -> Result<Self, ConfigError> {
        let kind = reader.choice("kind", &StoreKind::WORDS)?;
        let modes = [("auto", SpoolMode::Auto), ("always", SpoolMode::Always), ("never", SpoolMode::Never)];
        let durability = [("normal", Durability::Normal), ("full", Durability::Full)];
        let store = Self {
            kind,
            server: StoreServer::read(reader, kind)?,
            path: reader.required("path", "the path of a file", |leaf| file(leaf, data_dir))?,
            durability: reader.choice("durability", &durability)?,
            batch_rows: reader.int("batch_rows", 1..=100_000)?,
            batch_age: reader.millis("batch_ms", 10..=60_000)?,
            inbox_rows: reader.int("inbox_rows", 1..=10_000_000)?,
            inbox_bytes: reader.int("inbox_bytes", 1 << 20..=1 << 40)?,
            policy: policy(reader)?,
            write_deadline: reader.millis("write_deadline_ms", 1000..=600_000)?,
            hung_after: reader.millis("hung_after_ms", 100..=600_000)?,
            quarantine: QuarantineLimits {
                rows: reader.int("quarantine_rows", 0..=100_000_000)?,
                bytes: reader.int("quarantine_bytes", 0..=1 << 40)?,
            },
            spool: reader.choice("spool", &modes)?,
        };
        if store.inbox_rows < store.batch_rows {
            return Err(reader.invalid("inbox_rows", "expected at least store.batch_rows"));
        }
        if kind.is_server() && store.spool == SpoolMode::Never {
            let reason =
                "expected auto or always: a server can be away, and rows are accepted into the spool then";
            return Err(reader.invalid("spool", reason));
        }
        Ok(store)
    }
}

/// From which fill on each class of rows is refused, in percent.
fn policy(reader: &mut Reader<'_>) -> Result<Policy, ConfigError> {
    let keys =
        ["refuse_ticks_percent", "refuse_trades_percent", "refuse_passing_percent", "refuse_final_percent"];
    let mut thresholds = [0; 4];
    for (threshold, key) in thresholds.iter_mut().zip(keys) {
        *threshold = reader.int::<u32>(key, 1..=100)? * 10;
    }
    Policy::try_new(thresholds).map_err(|_| reader.invalid(keys[3], "expected percentages that do not fall"))
}

/// Tables whose rows age, with the name each has in the configuration.
pub(super) fn ageing_tables() -> impl Iterator<Item = (&'static str, Table)> {
    let ageing = Table::ALL.iter().filter(|table| table.schema().age.is_some());
    ageing.map(|table| {
        let name = table.schema().name;
        (name.strip_suffix("_raw").unwrap_or(name), *table)
    })
}

pub(super) fn read_retention(reader: &mut Reader<'_>) -> Result<Vec<Retention>, ConfigError> {
    let mut rules = Vec::new();
    for (name, table) in ageing_tables() {
        if let Some(keep) = reader.age(name)? {
            rules.push(Retention { table, keep });
        }
    }
    Ok(rules)
}

/// Hours and days of category snapshots, and bars made anew after a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollup {
    /// How often they are brought up to date.
    pub every: Duration,
}

impl Rollup {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        Ok(Self { every: reader.millis("every_ms", 1000..=3_600_000)? })
    }
}

/// Which raw events are stored. What is made of them (bars, books, snapshots) does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawTables {
    /// Every best bid and ask.
    pub book_ticker: bool,
    /// Every trade.
    pub trades: bool,
    /// Every incremental depth message.
    pub depth_events: bool,
}

impl RawTables {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            book_ticker: reader.flag("book_ticker")?,
            trades: reader.flag("trades")?,
            depth_events: reader.flag("depth_events")?,
        })
    }
}

/// Stored order book tops, a book's snapshot requests, and its comparison with the venue's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderbookSnapshots {
    /// Whether they are stored.
    pub enabled: bool,
    /// Levels a side.
    pub levels: usize,
    /// Time between two.
    pub interval: Duration,
    /// How often a live book is compared with the venue's own; `None` never.
    pub verify_every: Option<Duration>,
    /// Retries of a failed REST snapshot within a cycle.
    pub max_retries: u32,
    /// Wait before the first of them; it doubles.
    pub retry_delay: Duration,
}

impl OrderbookSnapshots {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            enabled: reader.flag("enabled")?,
            levels: reader.int("levels", 1..=5000)?,
            interval: reader.millis("interval_ms", 100..=3_600_000)?,
            verify_every: reader.age("verify_every")?,
            max_retries: reader.int("max_retries", 0..=100)?,
            retry_delay: reader.millis("retry_delay_ms", 1..=600_000)?,
        })
    }
}

/// What is fetched to fill gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gaps {
    /// Trades of one gap at most; 0 fetches none.
    pub max_trades: u64,
    /// How long one gap is worked on.
    pub deadline: Duration,
}

impl Gaps {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            max_trades: reader.int("max_trades", 0..=1_000_000_000)?,
            deadline: reader.millis("deadline_ms", 1000..=86_400_000)?,
        })
    }
}

/// Candles, live and from history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candles {
    /// Timeframes, shortest first, each once.
    pub timeframes: Vec<Timeframe>,
    /// How often the open candle is stored and published at least.
    pub publish_every: Duration,
    /// Whether history is fetched.
    pub backfill: bool,
    /// Where history starts, milliseconds since the epoch, UTC; `None` continues from the last stored candle.
    pub start_ms: Option<i64>,
    /// Candles of one history request.
    pub request_rows: usize,
    /// Retries of a failed history request.
    pub max_retries: u32,
    /// Wait before the first of them; it doubles.
    pub retry_delay: Duration,
}

impl Candles {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        const DATE: &str =
            "a date such as 2024-01-01 or 2024-01-01T00:00:00Z, or milliseconds since the epoch";
        let names = Timeframe::ALL.map(Timeframe::as_str).join(", ");
        let mut timeframes = reader.required_list("timeframes", &format!("a list of {names}"), |text| {
            Timeframe::parse(text.trim())
        })?;
        timeframes.sort_unstable();
        timeframes.dedup();
        let given_date =
            |leaf: &Leaf| (leaf.kind != Kind::Text || !leaf.text.trim().is_empty()).then_some(());
        let start_ms = reader.optional("start_date", DATE, |leaf| match given_date(leaf) {
            Some(()) => start_of(&leaf.text).map(Some),
            None => Some(None),
        })?;
        Ok(Self {
            timeframes,
            publish_every: reader.millis("publish_ms", 100..=60_000)?,
            backfill: reader.flag("backfill")?,
            start_ms: start_ms.flatten(),
            request_rows: reader.int("request_rows", 1..=1000)?,
            max_retries: reader.int("max_retries", 0..=100)?,
            retry_delay: reader.millis("retry_delay_ms", 1..=600_000)?,
        })
    }
}

/// Reads a date, a date and time (UTC unless it has an offset), or milliseconds since the epoch.
pub fn start_of(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    for format in ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Some(time.and_utc().timestamp_millis());
        }
    }
    text.parse::<i64>().ok().filter(|ms| *ms >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_dates_are_read_in_utc() {
        let expected = Some(1_704_067_200_000);
        assert_eq!(start_of("2024-01-01"), expected);
        assert_eq!(start_of("2024-01-01T00:00:00Z"), expected);
        assert_eq!(start_of("2024-01-01T02:00:00+02:00"), expected);
        assert_eq!(start_of("2024-01-01 00:00:00"), expected);
        assert_eq!(start_of("1704067200000"), expected);
        for broken in ["2024-13-01", "yesterday", "-1", ""] {
            assert_eq!(start_of(broken), None, "{broken}");
        }
    }
}
