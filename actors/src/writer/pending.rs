//! Rows that wait to be written, by table. Lives outside the writer's actor, so that a panic there loses none. Pure.

use std::{collections::BTreeMap, time::Duration};

use fathom_market::{batch::Batch, table::Table};
use serde::Serialize;

/// When a table's rows are written.
#[derive(Clone, Copy, Debug)]
pub struct FlushRules {
    /// At this many rows.
    pub rows: usize,
    /// At this age of the oldest one.
    pub age: Duration,
}

/// What became of the rows offered for one table. Every row offered is in exactly one of the others, or waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableCounts {
    /// Rows that reached the writer.
    pub offered: u64,
    /// Rows that the store added or updated.
    pub stored: u64,
    /// Rows that the store had already.
    pub duplicate: u64,
    /// Rows that the store refused for what they hold.
    pub poisoned: u64,
}

/// A table's open batch.
#[derive(Debug)]
struct Open {
    batch: Batch,
    since_us: i64,
}

/// The waiting rows.
#[derive(Debug)]
pub struct Pending {
    rules: FlushRules,
    open: BTreeMap<Table, Open>,
    in_flight: Option<Batch>,
    counts: BTreeMap<Table, TableCounts>,
    next_seq: u64,
}

impl Pending {
    /// Nothing waits.
    pub const fn new(rules: FlushRules) -> Self {
        Self { rules, open: BTreeMap::new(), in_flight: None, counts: BTreeMap::new(), next_seq: 1 }
    }

    /// Adds rows. True when their table is to be written now.
    pub fn add(&mut self, batch: Batch, now_us: i64) -> bool {
        let table = batch.table();
        self.counts.entry(table).or_default().offered += batch.len() as u64;
        let open =
            self.open.entry(table).or_insert_with(|| Open { batch: Batch::new(table), since_us: now_us });
        if open.batch.is_empty() {
            open.since_us = now_us;
        }
        let appended = open.batch.append(batch);
        debug_assert!(appended.is_ok(), "the open batch was made for this table");
        open.batch.len() >= self.rules.rows
    }

    /// The batch to write next: the one under way first, then the fullest that is due; with `all`, whatever there is.
    /// It stays here until [`Pending::settle`].
    pub fn next(&mut self, now_us: i64, all: bool) -> Option<Batch> {
        if let Some(batch) = &self.in_flight {
            return Some(batch.clone());
        }
        let age_us = i64::try_from(self.rules.age.as_micros()).unwrap_or(i64::MAX);
        let due =
            |open: &Open| all || open.batch.len() >= self.rules.rows || now_us - open.since_us >= age_us;
        let (&table, _) = self
            .open
            .iter()
            .filter(|(_, open)| !open.batch.is_empty() && due(open))
            .max_by_key(|(_, open)| open.batch.len())?;
        let mut batch = self.open.remove(&table)?.batch;
        batch.seq = self.next_seq;
        self.next_seq += 1;
        self.in_flight = Some(batch.clone());
        Some(batch)
    }

    /// The batch under way is stored.
    pub fn settle(&mut self, inserted: u64, duplicate: u64) {
        if let Some(batch) = self.in_flight.take() {
            let counts = self.counts.entry(batch.table()).or_default();
            counts.stored += inserted;
            counts.duplicate += duplicate;
        }
    }

    /// These rows of the batch under way can never be stored: they are taken out and given back; the others stay
    /// under way.
    pub fn poison(&mut self, rows: &[usize]) -> Option<Batch> {
        let batch = self.in_flight.take()?;
        let keep: Vec<usize> = (0..batch.len()).filter(|row| !rows.contains(row)).collect();
        let poisoned = batch.select(rows);
        self.counts.entry(batch.table()).or_default().poisoned += poisoned.len() as u64;
        if !keep.is_empty() {
            self.in_flight = Some(batch.select(&keep));
        }
        Some(poisoned)
    }

    /// Rows that wait or are under way.
    pub fn rows(&self) -> usize {
        self.open.values().map(|open| open.batch.len()).sum::<usize>()
            + self.in_flight.as_ref().map_or(0, Batch::len)
    }

    /// Age of the oldest waiting row, microseconds.
    pub fn oldest_age_us(&self, now_us: i64) -> i64 {
        self.open
            .values()
            .filter(|open| !open.batch.is_empty())
            .map(|open| now_us - open.since_us)
            .max()
            .unwrap_or(0)
    }

    /// What became of the rows of each table.
    pub fn counts(&self) -> &BTreeMap<Table, TableCounts> {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::table::CollectorStateRow;

    use super::*;

    const RULES: FlushRules = FlushRules { rows: 3, age: Duration::from_millis(500) };

    fn rows(ids: std::ops::Range<i64>) -> Batch {
        Batch::of(ids.map(|instrument_id| CollectorStateRow {
            instrument_id,
            timeframe: "1m".into(),
            last_timestamp_ms: 0,
            last_updated_us: 0,
            is_realtime: false,
        }))
    }

    fn counted(pending: &Pending) -> TableCounts {
        pending.counts()[&Table::CollectorState]
    }

    #[test]
    fn size_and_age_make_a_batch_due() {
        let mut pending = Pending::new(RULES);
        assert!(!pending.add(rows(0..2), 0));
        assert_eq!(pending.next(499_999, false), None);
        assert_eq!(pending.next(500_000, false).unwrap().len(), 2);
        pending.settle(2, 0);
        assert!(pending.add(rows(0..3), 600_000));
        assert_eq!(pending.next(600_000, false).unwrap().seq, 2);
    }

    #[test]
    fn a_batch_under_way_is_given_again_until_it_is_settled() {
        let mut pending = Pending::new(RULES);
        pending.add(rows(0..3), 0);
        let first = pending.next(0, true).unwrap();
        pending.add(rows(3..9), 0);
        assert_eq!(pending.next(0, true), Some(first));
        assert_eq!(pending.rows(), 9);
        pending.settle(2, 1);
        assert_eq!(pending.rows(), 6);
        assert_eq!(counted(&pending), TableCounts { offered: 9, stored: 2, duplicate: 1, poisoned: 0 });
    }

    #[test]
    fn poison_leaves_and_the_rest_stays() {
        let mut pending = Pending::new(RULES);
        pending.add(rows(0..3), 0);
        pending.next(0, true);
        let poisoned = pending.poison(&[1]).unwrap();
        assert_eq!(poisoned.columns(), rows(1..2).columns());
        assert_eq!(pending.next(0, true).unwrap().len(), 2);
        pending.settle(2, 0);
        assert_eq!(counted(&pending), TableCounts { offered: 3, stored: 2, duplicate: 0, poisoned: 1 });
        assert_eq!((pending.rows(), pending.next(0, true)), (0, None));
    }
}
