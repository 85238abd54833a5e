//! A store that fails on command, for tests.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use fathom_market::{
    batch::{Batch, Column},
    mark::StreamMark,
    table::{CandleRow, CategorySnapshotRow, CollectorStateRow, InstrumentRow, SymbolSnapshotRow, Table},
};
use fathom_storage::{
    Accepted, Accounts, CandleQuery, CategoryQuery, History, Offered, Opening, PoisonRow, QuarantineQuery,
    QuarantinedRow, Resent, Retention, Sink, SnapshotQuery, SpoolStatus, Store, StoreError, StoreStatus,
    WriteOutcome, read::CategoryStat,
};
use rust_decimal::Decimal;

use super::TICK;

/// How the next write ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Transient,
    Unknown { stored: bool },
    PoisonSomewhere,
    Fatal,
    Hang,
    Slow,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) script: VecDeque<Next>,
    pub(super) down: bool,
    pub(super) poison: BTreeSet<i64>,
    pub(super) stored: BTreeSet<(Table, i64)>,
    pub(super) quarantined: BTreeMap<i64, String>,
    pub(super) no_room: bool,
    pub(super) dirty: u64,
    pub(super) calls: Vec<Vec<i64>>,
    pub(super) last: (u64, u64),
    pub(super) answer: (u64, u64),
    pub(super) accepted: BTreeMap<Table, Accepted>,
    pub(super) recorded: BTreeMap<Table, Offered>,
}

#[derive(Default)]
pub(crate) struct FakeStore(pub(super) Mutex<Inner>);

impl FakeStore {
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(super) fn ids(&self) -> Vec<i64> {
        self.inner().stored.iter().map(|(_, id)| *id).collect()
    }
}

fn ids(batch: &Batch) -> Vec<i64> {
    match &batch.columns()[0] {
        Column::Int(ids) => ids.clone(),
        Column::Text(names) => names.iter().map(|name| i64::from(name.len() as u32)).collect(),
        other => panic!("the first column is no id: {other:?}"),
    }
}

fn commit(inner: &mut Inner, batch: &Batch) -> WriteOutcome {
    let new = ids(batch).iter().filter(|id| inner.stored.insert((batch.table(), **id))).count() as u64;
    WriteOutcome::Committed { inserted: new, duplicate: batch.len() as u64 - new }
}

fn transient() -> WriteOutcome {
    WriteOutcome::Transient { retry_after: Duration::from_millis(1), error: "busy".into() }
}

#[async_trait]
impl Sink for FakeStore {
    async fn marks(&self) -> Result<Vec<StreamMark>, StoreError> {
        Ok(Vec::new())
    }

    fn accounts(&self) -> &dyn Accounts {
        self
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn write(&self, batch: &Batch) -> WriteOutcome {
        let next = {
            let mut inner = self.inner();
            inner.calls.push(ids(batch));
            if inner.down { Some(Next::Transient) } else { inner.script.pop_front() }
        };
        match next {
            Some(Next::Transient) => return transient(),
            Some(Next::PoisonSomewhere) => return WriteOutcome::Poison { rows: Vec::new() },
            Some(Next::Fatal) => return WriteOutcome::Fatal { error: "read-only".into() },
            Some(Next::Hang) => std::future::pending().await,
            Some(Next::Unknown { stored }) => {
                if stored {
                    commit(&mut self.inner(), batch);
                }
                return WriteOutcome::UnknownOutcome { error: "lost".into() };
            }
            // Longer than several ticks of the writer.
            Some(Next::Slow) => tokio::time::sleep(TICK * 4).await,
            None => {}
        }
        let mut inner = self.inner();
        let refused = ids(batch).into_iter().enumerate().filter(|(_, id)| inner.poison.contains(id));
        let rows: Vec<_> = refused.map(|(row, id)| PoisonRow { row, error: format!("row {id}") }).collect();
        if rows.is_empty() { commit(&mut inner, batch) } else { WriteOutcome::Poison { rows } }
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn expire(&self, kept: &[Retention], _: i64, limit: u64) -> Result<Vec<(Table, u64)>, StoreError> {
        if self.inner().down {
            return Err(StoreError::fatal("away"));
        }
        Ok(kept.iter().map(|kept| (kept.table, limit)).collect())
    }

    async fn roll_up(&self, limit: u64) -> Result<u64, StoreError> {
        let mut inner = self.inner();
        if inner.down {
            return Err(StoreError::fatal("away"));
        }
        let rolled = inner.dirty.min(limit);
        inner.dirty -= rolled;
        Ok(rolled)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn status(&self) -> StoreStatus {
        StoreStatus { kind: "fake", ..StoreStatus::default() }
    }

    fn history(&self) -> &dyn History {
        self
    }

    async fn close(&self) {}
}

#[async_trait]
impl Accounts for FakeStore {
    async fn open(&self) -> Result<Opening, StoreError> {
        Ok(Opening { epoch: 1, ..Opening::default() })
    }

    async fn accept(&self, batch: &Batch, offered: &[(Table, Offered)]) -> WriteOutcome {
        let outcome = self.write(batch).await;
        let mut inner = self.inner();
        let stored = ids(batch).iter().all(|id| inner.stored.contains(&(batch.table(), *id)));
        if (batch.epoch, batch.seq) > inner.last && stored {
            // As it went the first time, also when that answer was lost.
            let before = inner.accepted.get(&batch.table()).copied().unwrap_or_default();
            let of_table = inner.stored.iter().filter(|(table, _)| *table == batch.table()).count() as u64;
            let new = of_table - before.stored;
            inner.last = (batch.epoch, batch.seq);
            inner.answer = (new, batch.len() as u64 - new);
            let side = inner.accepted.entry(batch.table()).or_default();
            side.accepted += batch.len() as u64;
            side.stored += new;
            side.duplicate += batch.len() as u64 - new;
            inner.recorded.extend(offered.iter().copied());
        }
        match outcome {
            WriteOutcome::Committed { .. } => {
                let (inserted, duplicate) = inner.answer;
                WriteOutcome::Committed { inserted, duplicate }
            }
            other => other,
        }
    }

    async fn quarantine(
        &self,
        batch: &Batch,
        errors: &[String],
        offered: &[(Table, Offered)],
        _: i64,
    ) -> Result<bool, StoreError> {
        let mut inner = self.inner();
        if inner.no_room {
            return Ok(false);
        }
        inner.quarantined.extend(ids(batch).into_iter().zip(errors.iter().cloned()));
        inner.last = (batch.epoch, batch.seq);
        let side = inner.accepted.entry(batch.table()).or_default();
        side.accepted += batch.len() as u64;
        side.quarantined += batch.len() as u64;
        inner.recorded.extend(offered.iter().copied());
        Ok(true)
    }

    async fn record(&self, offered: &[(Table, Offered)]) -> Result<(), StoreError> {
        self.inner().recorded.extend(offered.iter().copied());
        Ok(())
    }

    async fn quarantined(&self, _: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn resend(&self, _: i64) -> Result<Resent, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn discard(&self, _: i64) -> Result<bool, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    fn accepted(&self) -> BTreeMap<Table, Accepted> {
        self.inner().accepted.clone()
    }

    fn spool(&self) -> Option<SpoolStatus> {
        None
    }
}

const UNREAD: &str = "nobody reads here";

#[async_trait]
impl History for FakeStore {
    async fn category_range(&self, _: &CategoryQuery) -> Result<Vec<CategorySnapshotRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn latest_categories(
        &self,
        _: &str,
        _: &str,
        _: Decimal,
    ) -> Result<Vec<CategorySnapshotRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn category_stats(&self, _: &str) -> Result<Vec<CategoryStat>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn symbol_range(&self, _: &SnapshotQuery) -> Result<Vec<SymbolSnapshotRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn candles(&self, _: &CandleQuery) -> Result<Vec<CandleRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn last_candle(&self, _: i64, _: &str) -> Result<Option<(i64, bool)>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn collector_state(&self) -> Result<Vec<CollectorStateRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn instruments(&self) -> Result<Vec<InstrumentRow>, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }

    async fn count(&self, _: Table) -> Result<u64, StoreError> {
        Err(StoreError::fatal(UNREAD))
    }
}
