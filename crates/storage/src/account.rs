//! What becomes of every row, in two equations that hold by table and across a kill of the process:
//!
//! `offered = accepted + refused + waiting` and
//! `accepted = stored + duplicate + spooled + quarantined + discarded + expired`.
//!
//! The first side is kept by whoever offers rows; where rows are accepted, both are persisted in one transaction with them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fathom_market::{
    batch::{Batch, Column},
    table::Table,
};

use crate::{error::StoreError, store::WriteOutcome};

/// Why a row was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Too much waits in memory; the policy says whose rows go.
    Overload,
    /// The spool is too full; the policy says whose rows go.
    SpoolFull,
    /// The sender's own bound was reached.
    SenderFull,
    /// The sender ended with the row in its hands.
    SenderLost,
    /// The row is poison, and the quarantine has no room.
    QuarantineFull,
    /// The process was killed while the row waited.
    ProcessKilled,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Overload,
        Self::SpoolFull,
        Self::SenderFull,
        Self::SenderLost,
        Self::QuarantineFull,
        Self::ProcessKilled,
    ];

    /// The reason's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overload => "overload",
            Self::SpoolFull => "spool_full",
            Self::SenderFull => "sender_full",
            Self::SenderLost => "sender_lost",
            Self::QuarantineFull => "quarantine_full",
            Self::ProcessKilled => "process_killed",
        }
    }
}

/// The first side of a table: rows made, and rows refused, over the life of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// Rows made for the table.
    pub offered: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl Offered {
    /// So many rows made, none refused.
    pub fn of(offered: u64) -> Self {
        Self { offered, ..Self::default() }
    }

    /// Counts refused rows.
    pub const fn refuse(&mut self, why: Refusal, rows: u64) {
        self.refused[why as usize] += rows;
    }

    /// Rows refused for one reason.
    pub const fn refused_for(&self, why: Refusal) -> u64 {
        self.refused[why as usize]
    }

    /// Rows refused.
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Names and values, as persisted.
    pub(crate) fn figures(&self) -> Vec<(String, u64)> {
        let refused = Refusal::ALL.into_iter().filter(|why| self.refused_for(*why) > 0);
        let refused = refused.map(|why| (format!("refused:{}", why.as_str()), self.refused_for(why)));
        [("offered".to_owned(), self.offered)].into_iter().chain(refused).collect()
    }

    /// Takes a persisted value in; other figures change nothing.
    pub(crate) fn read(&mut self, figure: &str, rows: u64) {
        if figure == "offered" {
            self.offered = rows;
        }
        let why = figure.strip_prefix("refused:");
        if let Some(why) = Refusal::ALL.into_iter().find(|reason| Some(reason.as_str()) == why) {
            self.refused[why as usize] = rows;
        }
    }
}

/// The second side of a table: what became of the rows accepted, over the life of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Rows accepted.
    pub accepted: u64,
    /// Rows that the store added or updated.
    pub stored: u64,
    /// Rows that the store had already, or that lost to a newer one.
    pub duplicate: u64,
    /// Rows that wait in the spool.
    pub spooled: u64,
    /// Rows in quarantine.
    pub quarantined: u64,
    /// Rows that an operator removed from the quarantine, and those lost with a damaged file of the spool.
    pub discarded: u64,
    /// Rows that left the spool unstored: for their age, or as poison while the quarantine was full.
    pub expired: u64,
}

impl Accepted {
    /// Whether every accepted row is somewhere.
    pub const fn is_balanced(&self) -> bool {
        self.accepted
            == self.stored + self.duplicate + self.spooled + self.quarantined + self.discarded + self.expired
    }

    /// Adds another's figures.
    pub const fn add(&mut self, more: &Self) {
        self.accepted += more.accepted;
        self.stored += more.stored;
        self.duplicate += more.duplicate;
        self.spooled += more.spooled;
        self.quarantined += more.quarantined;
        self.discarded += more.discarded;
        self.expired += more.expired;
    }
}

/// How persisted figures of the second side change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) accepted: i64,
    pub(crate) stored: i64,
    pub(crate) duplicate: i64,
    pub(crate) spooled: i64,
    pub(crate) quarantined: i64,
    pub(crate) discarded: i64,
    pub(crate) expired: i64,
}

impl Change {
    /// All of a side, from nothing.
    pub(crate) const fn of(side: &Accepted) -> Self {
        Self {
            accepted: side.accepted.cast_signed(),
            stored: side.stored.cast_signed(),
            duplicate: side.duplicate.cast_signed(),
            spooled: side.spooled.cast_signed(),
            quarantined: side.quarantined.cast_signed(),
            discarded: side.discarded.cast_signed(),
            expired: side.expired.cast_signed(),
        }
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let all = [
            ("accepted", self.accepted),
            ("stored", self.stored),
            ("duplicate", self.duplicate),
            ("spooled", self.spooled),
            ("quarantined", self.quarantined),
            ("discarded", self.discarded),
            ("expired", self.expired),
        ];
        all.into_iter().filter(|(_, rows)| *rows != 0)
    }

    pub(crate) const fn apply(&self, to: &mut Accepted) {
        to.accepted = to.accepted.saturating_add_signed(self.accepted);
        to.stored = to.stored.saturating_add_signed(self.stored);
        to.duplicate = to.duplicate.saturating_add_signed(self.duplicate);
        to.spooled = to.spooled.saturating_add_signed(self.spooled);
        to.quarantined = to.quarantined.saturating_add_signed(self.quarantined);
        to.discarded = to.discarded.saturating_add_signed(self.discarded);
        to.expired = to.expired.saturating_add_signed(self.expired);
    }
}

/// What a start finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The number of this start, greater than that of any before that accepted something.
    pub epoch: u64,
    /// The first side as persisted. What was offered and is neither accepted nor refused was lost in a kill: it is booked here
    /// as refused for [`Refusal::ProcessKilled`].
    pub offered: BTreeMap<Table, Offered>,
    /// The second side.
    pub accepted: BTreeMap<Table, Accepted>,
}

/// A row in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// Its number.
    pub id: i64,
    /// The table's name.
    pub table: String,
    /// Rows that it stands for: one, except for a damaged record of the spool.
    pub rows: u64,
    /// The row as JSON by column name; `None` when it cannot be read.
    pub row: Option<String>,
    /// The store's words.
    pub error: String,
    /// When it came, microseconds.
    pub first_us: i64,
    /// Times that it was sent.
    pub attempts: u64,
    /// `waiting`, `refused_again` or `damaged`.
    pub status: String,
}

/// Which quarantined rows are asked for, in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineQuery {
    /// Of this table only.
    pub table: Option<Table>,
    /// Those behind this number.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// What came of sending a quarantined row again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resent {
    /// It is stored and has left the quarantine.
    Stored,
    /// The store has it already; it has left the quarantine.
    Duplicate,
    /// It was refused again and stays.
    Refused(String),
    /// There is no such row.
    Unknown,
}

/// How much the quarantine may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineLimits {
    /// Rows.
    pub rows: u64,
    /// Bytes of their batches.
    pub bytes: u64,
}

impl Default for QuarantineLimits {
    fn default() -> Self {
        Self { rows: 100_000, bytes: 64 * 1024 * 1024 }
    }
}

/// What the spool holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolStatus {
    /// Records.
    pub records: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// The bound of those.
    pub limit: u64,
    /// When the oldest record was accepted, microseconds.
    pub oldest_us: Option<i64>,
    /// Records that were found damaged since the start.
    pub damaged: u64,
    /// The name of a damaged file that was set aside since the start.
    pub set_aside: Option<String>,
    /// The last error.
    pub last_error: Option<String>,
}

/// Where rows are accepted: the store itself where it is in the process, else the spool before it.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Reads what the last process left. Writes nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn open(&self) -> Result<Opening, StoreError>;

    /// Accepts a batch whole or not at all, together with the first side of the tables given. A batch whose epoch and number
    /// were accepted before is answered as it was then, and changes nothing.
    async fn accept(&self, batch: &Batch, offered: &[(Table, Offered)]) -> WriteOutcome;

    /// Accepts rows into quarantine, with the store's words for each. False, and nothing changed, when it has no room.
    ///
    /// # Errors
    /// When it cannot be written.
    async fn quarantine(
        &self,
        batch: &Batch,
        errors: &[String],
        offered: &[(Table, Offered)],
        now_us: i64,
    ) -> Result<bool, StoreError>;

    /// Persists the first side alone.
    ///
    /// # Errors
    /// When it cannot be written.
    async fn record(&self, offered: &[(Table, Offered)]) -> Result<(), StoreError>;

    /// Rows in quarantine.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, StoreError>;

    /// Sends a quarantined row to the store again.
    ///
    /// # Errors
    /// When the store is away, or its answer was lost; the row stays.
    async fn resend(&self, id: i64) -> Result<Resent, StoreError>;

    /// Removes a quarantined row for good. False when there is none.
    ///
    /// # Errors
    /// When it cannot be written.
    async fn discard(&self, id: i64) -> Result<bool, StoreError>;

    /// The second side, as of the last commit.
    fn accepted(&self) -> BTreeMap<Table, Accepted>;

    /// The spool, where there is one.
    fn spool(&self) -> Option<SpoolStatus>;
}

/// A row as JSON by column name; decimals are text.
pub(crate) fn row_json(batch: &Batch, row: usize) -> String {
    use serde_json::Value;
    let cell = |column: &Column| match column {
        Column::Int(values) => values.get(row).map(|value| Value::from(*value)),
        Column::OptInt(values) => values.get(row).copied().flatten().map(Value::from),
        Column::Text(values) => values.get(row).cloned().map(Value::from),
        Column::OptText(values) => values.get(row).cloned().flatten().map(Value::from),
        Column::Dec(values) => values.get(row).map(|value| Value::from(value.to_string())),
        Column::OptDec(values) => {
            values.get(row).copied().flatten().map(|value| Value::from(value.to_string()))
        }
        Column::Flag(values) => values.get(row).map(|value| Value::from(*value)),
    };
    let names = batch.schema().columns.iter().map(|spec| spec.name.to_owned());
    let cells = batch.columns().iter().map(|column| cell(column).unwrap_or(Value::Null));
    Value::Object(names.zip(cells).collect()).to_string()
}
