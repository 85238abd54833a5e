//! The first side of the accounts, and how much waits: shared by everybody who makes rows and by the writer. Decides, by the
//! declared policy, whose rows are refused while too much waits, and remembers what was. Never held while waiting.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use fathom_market::{batch::Batch, table::Table};
use fathom_storage::{Class, Offered, Opening, Policy, Refusal, policy::fill};

use super::refusals::{Noticed, Refusals};

/// How much may wait, and what goes first when too much does.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows that may wait on their way to the store.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Whose rows go first.
    pub policy: Policy,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 200_000, bytes: 128 * 1024 * 1024, policy: Policy::default() }
    }
}

/// Rows of a table on the first side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstSide {
    /// Made and refused, over the life of the database.
    pub offered: Offered,
    /// Accepted, likewise.
    pub accepted: u64,
    /// With their senders, or on their way to the writer.
    pub outside: u64,
}

/// How full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Rows that wait anywhere.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// How full the memory is, in thousandths of its bound.
    pub memory: u32,
    /// How full the spool is, likewise.
    pub spool: u32,
    /// Classes refused.
    pub step: u8,
}

/// The shared account.
#[derive(Debug)]
pub struct Account {
    limits: Limits,
    /// Read for every row; written under the lock.
    step: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tables: BTreeMap<Table, FirstSide>,
    saved: BTreeMap<Table, Offered>,
    rows: u64,
    bytes: u64,
    spool: u32,
    refusals: Refusals,
}

impl Default for Account {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Account {
    /// Nothing was ever offered.
    pub fn new(limits: Limits) -> Self {
        Self { limits, step: AtomicU8::new(0), inner: Mutex::default() }
    }

    /// Continues what the last process left.
    pub fn open(&self, opening: &Opening) {
        let mut inner = self.lock();
        for (table, offered) in &opening.offered {
            inner.tables.entry(*table).or_default().offered = *offered;
        }
        for (table, accepted) in &opening.accepted {
            inner.tables.entry(*table).or_default().accepted = accepted.accepted;
        }
    }

    /// Whether a row of this class is taken at present.
    pub fn admits(&self, class: Class) -> bool {
        !Policy::refuses(self.step.load(Relaxed), class)
    }

    /// Rows were made, and wait with their sender.
    pub fn made(&self, table: Table, rows: u64, bytes: u64) {
        let mut inner = self.lock();
        let side = inner.tables.entry(table).or_default();
        side.offered.offered += rows;
        side.outside += rows;
        inner.rows += rows;
        inner.bytes += bytes;
        self.weigh(&inner);
    }

    /// Rows that were not counted yet were made and are refused at once, as the policy says where it is the reason.
    pub fn refuse_new(&self, batch: &Batch, full: Option<Refusal>) {
        let mut inner = self.lock();
        let by_spool = inner.spool >= self.memory(&inner);
        let by_policy = if by_spool { Refusal::SpoolFull } else { Refusal::Overload };
        let why = full.unwrap_or(by_policy);
        let side = inner.tables.entry(batch.table()).or_default();
        side.offered.offered += batch.len() as u64;
        side.offered.refuse(why, batch.len() as u64);
        inner.refusals.note(batch, Noticed::Refused(why));
    }

    /// Rows that wait outside of the writer are refused after all.
    pub fn refuse_outside(&self, batch: &Batch, why: Refusal) {
        let mut inner = self.lock();
        let side = inner.tables.entry(batch.table()).or_default();
        side.outside = side.outside.saturating_sub(batch.len() as u64);
        self.refuse(&mut inner, batch, why);
    }

    /// Rows that the writer holds are refused after all.
    pub fn refuse_taken(&self, batch: &Batch, why: Refusal) {
        self.refuse(&mut self.lock(), batch, why);
    }

    fn refuse(&self, inner: &mut Inner, batch: &Batch, why: Refusal) {
        let side = inner.tables.entry(batch.table()).or_default();
        side.offered.refuse(why, batch.len() as u64);
        inner.refusals.note(batch, Noticed::Refused(why));
        self.gone(inner, batch);
    }

    /// The writer has rows in its hands.
    pub fn taken(&self, batch: &Batch) {
        let mut inner = self.lock();
        let side = inner.tables.entry(batch.table()).or_default();
        side.outside = side.outside.saturating_sub(batch.len() as u64);
    }

    /// Rows that the writer held are accepted.
    pub fn accepted(&self, batch: &Batch) {
        let mut inner = self.lock();
        inner.tables.entry(batch.table()).or_default().accepted += batch.len() as u64;
        self.gone(&mut inner, batch);
    }

    /// Accepted rows left the spool for their age.
    pub fn expired(&self, batch: &Batch) {
        self.lock().refusals.note(batch, Noticed::Expired);
    }

    /// Accepted rows turned out poison when the quarantine was full.
    pub fn found_no_room(&self, batch: &Batch) {
        self.lock().refusals.note(batch, Noticed::Refused(Refusal::QuarantineFull));
    }

    fn gone(&self, inner: &mut Inner, batch: &Batch) {
        inner.rows = inner.rows.saturating_sub(batch.len() as u64);
        inner.bytes = inner.bytes.saturating_sub(batch.bytes());
        self.weigh(inner);
    }

    /// How full the spool is, in thousandths of its bound.
    pub fn spool_is(&self, fill: u32) {
        let mut inner = self.lock();
        inner.spool = fill;
        self.weigh(&inner);
    }

    fn memory(&self, inner: &Inner) -> u32 {
        fill(inner.rows, self.limits.rows).max(fill(inner.bytes, self.limits.bytes))
    }

    fn weigh(&self, inner: &Inner) {
        self.step.store(self.limits.policy.step(self.memory(inner).max(inner.spool)), Relaxed);
    }

    /// How full it is.
    pub fn load(&self) -> Load {
        let inner = self.lock();
        let step = self.step.load(Relaxed);
        Load { rows: inner.rows, bytes: inner.bytes, memory: self.memory(&inner), spool: inner.spool, step }
    }

    /// The bounds.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The first side, by table.
    pub fn tables(&self) -> BTreeMap<Table, FirstSide> {
        self.lock().tables.clone()
    }

    /// What has changed since it was last persisted.
    pub fn unsaved(&self) -> Vec<(Table, Offered)> {
        let inner = self.lock();
        let changed =
            inner.tables.iter().filter(|(table, side)| inner.saved.get(table) != Some(&side.offered));
        changed.map(|(table, side)| (*table, side.offered)).collect()
    }

    /// This much is persisted.
    pub fn saved(&self, offered: &[(Table, Offered)]) {
        self.lock().saved.extend(offered.iter().copied());
    }

    /// What was refused or dropped: `work` sees it under the lock.
    pub fn refusals<T>(&self, work: impl FnOnce(&mut Refusals) -> T) -> T {
        work(&mut self.lock().refusals)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is consistent between calls, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
