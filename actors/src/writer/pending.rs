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

/// Which batch was given out, as it was then: an instance that was given up may still come back with its outcome after
/// its successor has gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    seq: u64,
    rows: usize,
}

impl Ticket {
    /// The ticket of a batch from [`Pending::next`].
    pub fn of(batch: &Batch) -> Self {
        Self { seq: batch.seq, rows: batch.len() }
    }
}

/// The waiting rows.
#[derive(Debug)]
pub struct Pending {
    rules: FlushRules,
    open: BTreeMap<Table, Open>,
    in_flight: Option<Open>,
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
        if let Some(open) = &self.in_flight {
            return Some(open.batch.clone());
        }
        let age_us = i64::try_from(self.rules.age.as_micros()).unwrap_or(i64::MAX);
        let due =
            |open: &Open| all || open.batch.len() >= self.rules.rows || now_us - open.since_us >= age_us;
        let (&table, _) = self
            .open
            .iter()
            .filter(|(table, open)| !open.batch.is_empty() && due(open) && !self.is_ahead(**table))
            .max_by_key(|(_, open)| open.batch.len())?;
        let mut open = self.open.remove(&table)?;
        open.batch.seq = self.next_seq;
        self.next_seq += 1;
        let batch = open.batch.clone();
        self.in_flight = Some(open);
        Some(batch)
    }

    /// How far candles are stored may only be written after the candles themselves.
    fn is_ahead(&self, table: Table) -> bool {
        let candles = self.open.get(&Table::Candles);
        table == Table::CollectorState && candles.is_some_and(|open| !open.batch.is_empty())
    }

    /// This batch is stored. An outcome of any other than the one under way changes nothing.
    pub fn settle(&mut self, ticket: Ticket, inserted: u64, duplicate: u64) {
        let Some(Open { batch, .. }) = self.take_in_flight(ticket) else { return };
        let counts = self.counts.entry(batch.table()).or_default();
        counts.stored += inserted;
        counts.duplicate += duplicate;
    }

    /// These rows of this batch can never be stored, or none of it when the list is empty: they are taken out and given
    /// back; the others stay under way.
    pub fn poison(&mut self, ticket: Ticket, rows: &[usize]) -> Option<Batch> {
        let Open { batch, since_us } = self.take_in_flight(ticket)?;
        let keep: Vec<usize> =
            (0..batch.len()).filter(|row| !rows.is_empty() && !rows.contains(row)).collect();
        let poisoned = if rows.is_empty() { batch.clone() } else { batch.select(rows) };
        self.counts.entry(batch.table()).or_default().poisoned += poisoned.len() as u64;
        if !keep.is_empty() {
            self.in_flight = Some(Open { batch: batch.select(&keep), since_us });
        }
        Some(poisoned)
    }

    fn take_in_flight(&mut self, ticket: Ticket) -> Option<Open> {
        self.in_flight.take_if(|open| Ticket::of(&open.batch) == ticket)
    }

    /// True when so much waits that nothing more should be taken in. Some table is due then, or under way.
    pub fn is_full(&self) -> bool {
        self.rows() >= self.rules.rows.saturating_mul(Table::ALL.len() + 1)
    }

    /// Rows that wait or are under way.
    pub fn rows(&self) -> usize {
        self.all().map(|open| open.batch.len()).sum()
    }

    /// Age of the oldest row that waits or is under way, microseconds.
    pub fn oldest_age_us(&self, now_us: i64) -> i64 {
        let waiting = self.all().filter(|open| !open.batch.is_empty());
        waiting.map(|open| now_us - open.since_us).max().unwrap_or(0)
    }

    fn all(&self) -> impl Iterator<Item = &Open> {
        self.open.values().chain(&self.in_flight)
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

    fn ticket(pending: &mut Pending) -> Ticket {
        Ticket::of(&pending.next(0, true).unwrap())
    }

    fn settle(pending: &mut Pending, inserted: u64, duplicate: u64) {
        let ticket = ticket(pending);
        pending.settle(ticket, inserted, duplicate);
    }

    #[test]
    fn size_and_age_make_a_batch_due() {
        let mut pending = Pending::new(RULES);
        assert!(!pending.add(rows(0..2), 0));
        assert_eq!(pending.next(499_999, false), None);
        assert_eq!(pending.next(500_000, false).unwrap().len(), 2);
        settle(&mut pending, 2, 0);
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
        assert_eq!((pending.rows(), pending.oldest_age_us(70)), (9, 70));
        settle(&mut pending, 2, 1);
        assert_eq!(pending.rows(), 6);
        assert_eq!(counted(&pending), TableCounts { offered: 9, stored: 2, duplicate: 1, poisoned: 0 });
    }

    #[test]
    fn poison_leaves_and_the_rest_stays() {
        let mut pending = Pending::new(RULES);
        pending.add(rows(0..3), 0);
        pending.next(0, true);
        let ticket = ticket(&mut pending);
        let poisoned = pending.poison(ticket, &[1]).unwrap();
        assert_eq!(poisoned.columns(), rows(1..2).columns());
        assert_eq!(pending.next(0, true).unwrap().len(), 2);
        settle(&mut pending, 2, 0);
        assert_eq!(counted(&pending), TableCounts { offered: 3, stored: 2, duplicate: 0, poisoned: 1 });
        assert_eq!((pending.rows(), pending.next(0, true)), (0, None));
    }

    #[test]
    fn an_outcome_that_comes_too_late_touches_no_other_batch() {
        let mut pending = Pending::new(RULES);
        pending.add(rows(0..3), 0);
        let first = ticket(&mut pending);
        pending.poison(first, &[0]);
        assert_eq!(pending.poison(first, &[0]), None, "of the same batch, but of what it was before");
        pending.settle(first, 3, 0);
        assert_eq!(pending.rows(), 2);
        settle(&mut pending, 2, 0);
        pending.add(rows(3..6), 0);
        pending.next(0, true);
        pending.settle(first, 3, 0);
        assert_eq!((pending.rows(), counted(&pending).stored), (3, 2));
    }

    #[test]
    fn unknown_culprits_take_their_whole_batch_out() {
        let mut pending = Pending::new(RULES);
        pending.add(rows(0..3), 0);
        let first = ticket(&mut pending);
        pending.add(rows(3..5), 0);
        assert_eq!(pending.poison(first, &[]).unwrap().len(), 3);
        assert_eq!((pending.rows(), counted(&pending).poisoned), (2, 3));
    }

    #[test]
    fn it_is_full_before_it_grows_without_bound() {
        let mut pending = Pending::new(RULES);
        let mut added = 0;
        while !pending.is_full() {
            pending.add(rows(added..added + 1), 0);
            added += 1;
        }
        assert_eq!(added as usize, RULES.rows * (Table::ALL.len() + 1));
        assert!(pending.next(0, false).is_some(), "what is full is due");
    }
}
