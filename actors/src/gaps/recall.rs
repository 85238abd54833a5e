//! What the last process left: how far each stream was accepted, and which gaps were open. Read once at the start,
//! before anything is written; where the store is away then, later and in the background.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use fathom_market::{
    gap::{Gap, GapStatus},
    ids::InstrumentId,
    mark::StreamMark,
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
        let mut open = Vec::new();
        let mut query = GapQuery {
            status: Some(GapStatus::Open),
            limit: fathom_storage::read::MAX_ROWS,
            ..GapQuery::default()
        };
        loop {
            let page = store.history().gaps(&query).await?;
            let full = page.len() >= query.limit as usize;
            query.after = page.last().map(|row| (row.from_us, row.gap_id.clone()));
            open.extend(page.iter().filter_map(Gap::read).filter(|gap| gap.opened_us < started_us));
            if !full {
                break;
            }
        }
        // The newest come first.
        open.reverse();
        self.set(marks, open);
        Ok(())
    }
}
