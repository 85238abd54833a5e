//! The live side of the gap ledger: what is open now, and the last ones that were closed. The store keeps all of them.

pub mod recall;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use fathom_market::{
    gap::{Gap, GapStatus},
    ids::InstrumentId,
};

pub use self::recall::{Left, Recall};

/// Closed gaps that are remembered.
const REMEMBERED: usize = 4096;

/// Gaps by name. Shared by all books and readers; never held while waiting.
#[derive(Debug, Default)]
pub struct GapBoard(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<String, Gap>,
    closed: VecDeque<Gap>,
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

impl GapBoard {
    /// Enters a gap, or what has become of it.
    pub fn put(&self, gap: Gap) {
        let mut inner = self.lock();
        let known = inner.open.remove(&gap.id);
        if known.is_none_or(|known| known.status != gap.status) {
            *inner.counts.entry((gap.cause.as_str(), gap.status.as_str())).or_default() += 1;
        }
        if gap.status == GapStatus::Open {
            inner.open.insert(gap.id.clone(), gap);
            return;
        }
        if inner.closed.len() == REMEMBERED {
            inner.closed.pop_front();
        }
        inner.closed.push_back(gap);
    }

    /// The open ones, by name.
    pub fn open(&self) -> Vec<Gap> {
        self.lock().open.values().cloned().collect()
    }

    /// Those that are wanted, open or closed, each as it is now.
    pub fn find(&self, wanted: impl Fn(&Gap) -> bool) -> Vec<Gap> {
        let inner = self.lock();
        let mut found: BTreeMap<&str, &Gap> = BTreeMap::new();
        for gap in inner.closed.iter().chain(inner.open.values()).filter(|gap| wanted(gap)) {
            found.insert(&gap.id, gap);
        }
        found.into_values().cloned().collect()
    }

    /// Those of these instruments that were noticed since a time, open or closed.
    pub fn since(&self, opened_us: i64, instruments: &[InstrumentId]) -> Vec<Gap> {
        let inner = self.lock();
        let all = inner.open.values().chain(&inner.closed);
        all.filter(|gap| gap.opened_us >= opened_us && instruments.contains(&gap.instrument))
            .cloned()
            .collect()
    }

    /// The last ones that were closed, the newest last.
    pub fn closed(&self) -> Vec<Gap> {
        self.lock().closed.iter().cloned().collect()
    }

    /// How often a gap of a cause entered a status, since the process was started.
    pub fn counts(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.lock().counts.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is consistent between calls, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
