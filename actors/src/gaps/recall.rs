//! What the last process left: how far each stream was accepted, and which gaps were open. Read once at the start,
//! before anything is written; where the store is away then, later and in the background.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use fathom_market::{
    gap::{Gap, GapStatus},
    ids::InstrumentId,
    mark::StreamMark,
    table::{GapRow, Table},
};
use fathom_storage::{GapQuery, Sink, StoreError};

/// What is left of one instrument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// How far its streams were accepted.
    pub marks: Vec<StreamMark>,
    /// Its open gaps, the oldest first.
    pub open: Vec<Gap>,
}

/// The newest word about a gap counts; of the same time the one that was said later.
fn enter(gaps: &mut BTreeMap<String, Gap>, gap: Gap) {
    if gaps.get(&gap.id).is_none_or(|known| known.updated_us <= gap.updated_us) {
        gaps.insert(gap.id.clone(), gap);
    }
}

/// What the last process left, for every instrument; empty until it has been read.
#[derive(Clone, Debug, Default)]
pub struct Recall(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    left: OnceLock<HashMap<InstrumentId, Left>>,
    /// When it was first asked for: the start of the process.
    started_us: OnceLock<i64>,
}

impl Recall {
    /// Enters what was read; the first wins.
    pub fn set(&self, marks: Vec<StreamMark>, open: Vec<Gap>) {
        let mut left: HashMap<InstrumentId, Left> = HashMap::new();
        for mark in marks {
            left.entry(InstrumentId(mark.instrument_id)).or_default().marks.push(mark);
        }
        for gap in open {
            left.entry(gap.instrument).or_default().open.push(gap);
        }
        // Whoever reads second reads the same.
        let _ = self.0.left.set(left);
    }

    /// Whether it has been read.
    pub fn is_read(&self) -> bool {
        self.0.left.get().is_some()
    }

    /// What is left of an instrument; `None` until it has been read.
    pub fn of(&self, instrument: InstrumentId) -> Option<Left> {
        self.0.left.get().map(|left| left.get(&instrument).cloned().unwrap_or_default())
    }

    /// Reads it from the store, unless that is done; gaps that were opened since the first call are this process's own.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn read(&self, store: &dyn Sink, now_us: i64) -> Result<(), StoreError> {
        let started_us = *self.0.started_us.get_or_init(|| now_us);
        if self.is_read() {
            return Ok(());
        }
        let marks = store.marks().await?;
        // First what waits: a row that reaches the store in between is then seen twice, and never not at all.
        let waiting = store.spooled(Table::DataGaps).await?;
        let mut gaps: BTreeMap<String, Gap> = BTreeMap::new();
        let mut query = GapQuery {
            status: Some(GapStatus::Open),
            limit: fathom_storage::read::MAX_ROWS,
            ..GapQuery::default()
        };
        loop {
            let page = store.history().gaps(&query).await?;
            let full = page.len() >= query.limit as usize;
            query.after = page.last().map(|row| (row.from_us, row.gap_id.clone()));
            page.iter().filter_map(Gap::read).for_each(|gap| enter(&mut gaps, gap));
            if !full {
                break;
            }
        }
        waiting.iter().flat_map(GapRow::all).filter_map(|row| Gap::read(&row)).for_each(|gap| {
            enter(&mut gaps, gap);
        });
        let is_left = |gap: &Gap| gap.status == GapStatus::Open && gap.opened_us < started_us;
        let mut open: Vec<Gap> = gaps.into_values().filter(is_left).collect();
        open.sort_by(|one, other| (one.from_us, &one.id).cmp(&(other.from_us, &other.id)));
        self.set(marks, open);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fathom_market::{batch::Batch, gap::GapCause};
    use fathom_storage::{
        Accounts as _, Drain as _, Spool, SpoolConfig, Spooled, SqliteConfig, SqliteStore, Store as _,
    };

    use super::*;

    fn gap(from_us: i64, status: GapStatus, updated_us: i64) -> Gap {
        let instrument = InstrumentId(7);
        Gap {
            id: Gap::name(instrument, "trade", from_us, GapCause::Disconnect),
            instrument,
            channel: "trade".into(),
            cause: GapCause::Disconnect,
            status,
            from_us,
            to_us: None,
            from_id: None,
            to_id: None,
            missing: None,
            reason: None,
            opened_us: from_us,
            closed_us: None,
            updated_us,
        }
    }

    fn batch(seq: u64, gaps: &[Gap]) -> Batch {
        let mut batch = Batch::of(gaps.iter().map(Gap::row));
        (batch.epoch, batch.seq) = (1, seq);
        batch
    }

    #[tokio::test]
    async fn gaps_that_wait_in_the_spool_are_left_as_well_and_the_newest_word_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&SqliteConfig::new(folder.path().join("store.db"))).await.unwrap();
        store.migrate().await.unwrap();
        let spool =
            Spool::open(SpoolConfig::new(folder.path().join("spool.db")), Arc::new(|| 50)).await.unwrap();
        let sink = Spooled::new(Arc::new(store), spool);
        sink.open().await.unwrap();
        let stored = batch(1, &[gap(10, GapStatus::Open, 10), gap(20, GapStatus::Open, 20)]);
        sink.accept(&stored, &[]).await;
        sink.step().await;
        // Another was opened and one was closed, and neither has reached the store.
        sink.accept(&batch(2, &[gap(30, GapStatus::Open, 30), gap(10, GapStatus::Lost, 40)]), &[]).await;
        sink.accept(&batch(3, &[gap(90, GapStatus::Open, 90)]), &[]).await;
        let recall = Recall::default();
        recall.read(&sink, 60).await.unwrap();
        let left = recall.of(InstrumentId(7)).unwrap().open;
        assert_eq!(left, [gap(20, GapStatus::Open, 20), gap(30, GapStatus::Open, 30)]);
    }
}
