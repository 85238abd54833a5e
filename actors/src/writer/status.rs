//! What the writer publishes: the account of every row, how full it is, and how the store does.

use std::collections::BTreeMap;

use fathom_market::table::Table;
use fathom_storage::{Accepted, Policy, Refusal, SpoolStatus};
use serde::Serialize;

use super::account::{Account, FirstSide, Load};

/// What became of a table's rows, over the life of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableFigures {
    /// Rows made for the table.
    pub offered: u64,
    /// Rows accepted.
    pub accepted: u64,
    /// Rows refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Rows that wait: with their senders, on their way, or with the writer.
    pub waiting: u64,
    /// Rows that the store added or updated.
    pub stored: u64,
    /// Rows that the store had already, or that lost to a newer one.
    pub duplicate: u64,
    /// Rows in the spool.
    pub spooled: u64,
    /// Rows in quarantine.
    pub quarantined: u64,
    /// Rows that an operator removed from the quarantine.
    pub discarded: u64,
    /// Rows that left the spool for their age.
    pub expired: u64,
}

impl TableFigures {
    fn new(first: &FirstSide, held: u64, second: &Accepted) -> Self {
        let refused = Refusal::ALL.into_iter().filter(|why| first.offered.refused_for(*why) > 0);
        Self {
            offered: first.offered.offered,
            accepted: first.accepted,
            refused: refused.map(|why| (why.as_str(), first.offered.refused_for(why))).collect(),
            waiting: first.outside + held,
            stored: second.stored,
            duplicate: second.duplicate,
            spooled: second.spooled,
            quarantined: second.quarantined,
            discarded: second.discarded,
            expired: second.expired,
        }
    }

    /// Rows refused for whatever reason.
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Whether every row offered is accepted, refused, or waits.
    pub fn offered_is_balanced(&self) -> bool {
        self.offered == self.accepted + self.refused() + self.waiting
    }

    /// Whether every row accepted is somewhere.
    pub const fn accepted_is_balanced(&self) -> bool {
        self.accepted
            == self.stored + self.duplicate + self.spooled + self.quarantined + self.discarded + self.expired
    }

    /// Adds another table's figures.
    pub fn add(&mut self, more: &Self) {
        self.offered += more.offered;
        self.accepted += more.accepted;
        for (why, rows) in &more.refused {
            *self.refused.entry(why).or_default() += rows;
        }
        self.waiting += more.waiting;
        self.stored += more.stored;
        self.duplicate += more.duplicate;
        self.spooled += more.spooled;
        self.quarantined += more.quarantined;
        self.discarded += more.discarded;
        self.expired += more.expired;
    }
}

/// The figures of every table that has any.
pub(super) fn figures(
    account: &Account,
    held: &BTreeMap<Table, u64>,
    second: &BTreeMap<Table, Accepted>,
) -> BTreeMap<&'static str, TableFigures> {
    let none = Accepted::default();
    let figures = account.tables().into_iter().map(|(table, first)| {
        let (held, second) = (held.get(&table).copied().unwrap_or(0), second.get(&table).unwrap_or(&none));
        (table.schema().name, TableFigures::new(&first, held, second))
    });
    figures.collect()
}

/// How much waits, and what is refused for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overload {
    /// Rows that wait anywhere.
    pub waiting_rows: u64,
    /// Bytes of them.
    pub waiting_bytes: u64,
    /// How full the memory is, in thousandths of its bound.
    pub memory_permille: u32,
    /// How full the spool is, likewise.
    pub spool_permille: u32,
    /// Classes of rows refused at present.
    pub refusing: Vec<&'static str>,
    /// Streams of which rows were refused lately.
    pub streams: usize,
}

impl Overload {
    pub(super) fn new(load: &Load, streams: usize) -> Self {
        Self {
            waiting_rows: load.rows,
            waiting_bytes: load.bytes,
            memory_permille: load.memory,
            spool_permille: load.spool,
            refusing: Policy::refused(load.step),
            streams,
        }
    }
}

/// The spool, as published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpoolView {
    /// Records.
    pub records: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// The bound of those.
    pub limit_bytes: u64,
    /// Age of the oldest record, milliseconds.
    pub oldest_ms: Option<i64>,
    /// Records that were found damaged since the start.
    pub damaged: u64,
    /// A damaged file that was set aside since the start.
    pub set_aside: Option<String>,
    /// The last error.
    pub last_error: Option<String>,
}

impl SpoolView {
    pub(super) fn new(status: SpoolStatus, now_us: i64) -> Self {
        let SpoolStatus { records, rows, bytes, limit, oldest_us, damaged, set_aside, last_error } = status;
        let oldest_ms = oldest_us.map(|oldest| (now_us - oldest) / 1000);
        Self { records, rows, bytes, limit_bytes: limit, oldest_ms, damaged, set_aside, last_error }
    }
}

/// What the writer publishes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WriterStatus {
    /// `sqlite`, ...
    pub store: &'static str,
    /// Whether the last write went through, and the present one is not overdue.
    pub reachable: bool,
    /// Rows that wait with the writer.
    pub waiting: usize,
    /// Age of the oldest of them, milliseconds.
    pub oldest_ms: i64,
    /// Batches written.
    pub batches: u64,
    /// Duration of the last write, microseconds.
    pub last_write_us: i64,
    /// How long the write under way takes already, microseconds.
    pub writing_us: Option<i64>,
    /// Writes that failed and were tried again.
    pub retries: u64,
    /// Failures since the last write that went through.
    pub failures_in_a_row: u64,
    /// The last error, while the writes fail.
    pub last_error: Option<String>,
    /// How much waits, and what is refused for it.
    pub overload: Overload,
    /// The spool, where there is one.
    pub spool: Option<SpoolView>,
    /// What became of the rows, by table.
    pub tables: BTreeMap<&'static str, TableFigures>,
}

impl WriterStatus {
    /// The figures of all tables together.
    pub fn total(&self) -> TableFigures {
        let mut total = TableFigures::default();
        self.tables.values().for_each(|figures| total.add(figures));
        total
    }
}
