//! Rows that wait to be written, by table. Lives outside the writer's actor, so that a panic there loses none. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::kernel::clock::micros;
use fathom_market::{batch::Batch, table::Table};
use fathom_storage::PoisonRow;

/// When a table's rows are written.
#[derive(Clone, Copy, Debug)]
pub struct FlushRules {
    /// At this many rows.
    pub rows: usize,
    /// At this age of the oldest one.
    pub age: Duration,
}

/// A table's open batch.
#[derive(Debug)]
struct Open {
    batch: Batch,
    since_us: i64,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Have these rows accepted.
    Write(Arc<Batch>),
    /// Have these rows, which the store refuses, accepted into quarantine, with its words for each.
    Quarantine(Arc<Batch>, Arc<[String]>),
}

impl Work {
    /// Its rows.
    pub const fn batch(&self) -> &Arc<Batch> {
        match self {
            Self::Write(batch) | Self::Quarantine(batch, _) => batch,
        }
    }

    /// Which piece of work it is: an instance that was given up may still come back with its outcome after its successor has
    /// gone on.
    pub fn ticket(&self) -> Ticket {
        Ticket { seq: self.batch().seq, rows: self.batch().len() }
    }
}

/// See [`Work::ticket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    seq: u64,
    rows: usize,
}

/// The waiting rows.
#[derive(Debug)]
pub struct Pending {
    rules: FlushRules,
    open: BTreeMap<Table, Open>,
    /// What came of one batch; the first is under way.
    under_way: VecDeque<Work>,
    since_us: i64,
    epoch: u64,
    next_seq: u64,
}

impl Pending {
    /// Nothing waits. The epoch is the number of this start of the program.
    pub fn new(rules: FlushRules, epoch: u64) -> Self {
        let (open, under_way) = (BTreeMap::new(), VecDeque::new());
        Self { rules, open, under_way, since_us: 0, epoch, next_seq: 1 }
    }

    /// Adds rows. True when their table is to be written now.
    pub fn add(&mut self, batch: Batch, now_us: i64) -> bool {
        let table = batch.table();
        let open =
            self.open.entry(table).or_insert_with(|| Open { batch: Batch::new(table), since_us: now_us });
        if open.batch.is_empty() {
            open.since_us = now_us;
        }
        let appended = open.batch.append(batch);
        debug_assert!(appended.is_ok(), "the open batch was made for this table");
        open.batch.len() >= self.rules.rows
    }

    /// What to do next: what is under way first, then the fullest table that is due; with `all`, whatever there is. It stays
    /// here until [`Pending::settle`].
    pub fn next(&mut self, now_us: i64, all: bool) -> Option<Work> {
        if let Some(work) = self.under_way.front() {
            return Some(work.clone());
        }
        let age_us = micros(self.rules.age);
        let due =
            |open: &Open| all || open.batch.len() >= self.rules.rows || now_us - open.since_us >= age_us;
        // A record behind a hole must not be stored before the hole is.
        let (&table, _) = self
            .open
            .iter()
            .filter(|(_, open)| !open.batch.is_empty() && due(open))
            .max_by_key(|(_, open)| open.batch.len())?;
        let gaps = self.open.get(&Table::DataGaps).is_some_and(|open| !open.batch.is_empty());
        let table = match table {
            _ if gaps => Table::DataGaps,
            // Candles come all the time: what follows them would never find a moment without any.
            Table::Candles | Table::CollectorState => return self.series(),
            table => table,
        };
        let Open { batch, since_us } = self.open.remove(&table)?;
        self.since_us = since_us;
        let work = Work::Write(self.numbered(batch));
        self.under_way.push_back(work.clone());
        Some(work)
    }

    /// Candles, and behind them how far they are stored: that may only be written after the candles themselves.
    fn series(&mut self) -> Option<Work> {
        let mut since_us = i64::MAX;
        for table in [Table::Candles, Table::CollectorState] {
            let Some(open) = self.open.remove(&table).filter(|open| !open.batch.is_empty()) else { continue };
            since_us = since_us.min(open.since_us);
            let work = Work::Write(self.numbered(open.batch));
            self.under_way.push_back(work);
        }
        self.since_us = since_us;
        self.under_way.front().cloned()
    }

    fn numbered(&mut self, mut batch: Batch) -> Arc<Batch> {
        (batch.epoch, batch.seq) = (self.epoch, self.next_seq);
        self.next_seq += 1;
        Arc::new(batch)
    }

    /// This piece of work is done, or can never be: its rows go. An outcome of any other than the one under way changes
    /// nothing.
    pub fn settle(&mut self, ticket: Ticket) -> Option<Arc<Batch>> {
        self.under_way.pop_front_if(|work| work.ticket() == ticket).map(|work| Arc::clone(work.batch()))
    }

    /// These rows of a batch are refused for what they hold: they go into quarantine, the others are written. With none named
    /// the culprits are looked for, half by half. True when the outcome was of the batch under way.
    pub fn poison(&mut self, ticket: Ticket, rows: &[PoisonRow]) -> bool {
        let Some(Work::Write(batch)) = self.under_way.pop_front_if(|work| work.ticket() == ticket) else {
            return false;
        };
        let parts = match (rows, batch.len()) {
            ([], 0 | 1) => vec![self.condemned(&batch, &[0], [UNEXPLAINED.to_owned()].into())],
            ([], len) => {
                let (first, second): (Vec<usize>, Vec<usize>) = (0..len).partition(|row| *row < len / 2);
                [first, second].map(|part| Work::Write(self.numbered(batch.select(&part)))).into()
            }
            (rows, len) => {
                let named: Vec<usize> = rows.iter().map(|row| row.row).filter(|row| *row < len).collect();
                let errors = rows.iter().filter(|row| row.row < len).map(|row| row.error.clone()).collect();
                let rest: Vec<usize> = (0..len).filter(|row| !named.contains(row)).collect();
                let mut parts = vec![self.condemned(&batch, &named, errors)];
                if !rest.is_empty() {
                    parts.push(Work::Write(self.numbered(batch.select(&rest))));
                }
                parts
            }
        };
        // Numbers rise in the order of the writing; what was split off earlier is numbered anew behind these parts.
        let later: Vec<Work> = self.under_way.drain(..).collect();
        self.under_way.extend(parts);
        for work in later {
            let work = match work {
                Work::Write(batch) => Work::Write(self.numbered(Batch::clone(&batch))),
                Work::Quarantine(batch, errors) => {
                    Work::Quarantine(self.numbered(Batch::clone(&batch)), errors)
                }
            };
            self.under_way.push_back(work);
        }
        true
    }

    fn condemned(&mut self, batch: &Batch, rows: &[usize], errors: Arc<[String]>) -> Work {
        Work::Quarantine(self.numbered(batch.select(rows)), errors)
    }

    /// True when so much waits that nothing more should be taken in. Some table is due then, or under way.
    pub fn is_full(&self) -> bool {
        self.rows() >= self.rules.rows.saturating_mul(Table::ALL.len() + 1)
    }

    /// Rows that wait or are under way.
    pub fn rows(&self) -> usize {
        self.all().map(Batch::len).sum()
    }

    /// Rows that wait or are under way, by table.
    pub fn by_table(&self) -> BTreeMap<Table, u64> {
        let mut rows = BTreeMap::new();
        for batch in self.all() {
            *rows.entry(batch.table()).or_default() += batch.len() as u64;
        }
        rows
    }

    /// Age of the oldest row that waits or is under way, microseconds.
    pub fn oldest_age_us(&self, now_us: i64) -> i64 {
        let waiting = self.open.values().filter(|open| !open.batch.is_empty()).map(|open| open.since_us);
        let under_way = (!self.under_way.is_empty()).then_some(self.since_us);
        waiting.chain(under_way).map(|since_us| now_us - since_us).max().unwrap_or(0)
    }

    fn all(&self) -> impl Iterator<Item = &Batch> {
        let under_way = self.under_way.iter().map(|work| &**work.batch());
        self.open.values().map(|open| &open.batch).chain(under_way)
    }
}

/// What stands for the store's words where it gives none.
const UNEXPLAINED: &str = "refused without a reason";

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

    fn pending() -> Pending {
        Pending::new(RULES, 7)
    }

    fn ticket(pending: &mut Pending) -> Ticket {
        pending.next(0, true).unwrap().ticket()
    }

    fn settle(pending: &mut Pending) -> usize {
        let ticket = ticket(pending);
        pending.settle(ticket).unwrap().len()
    }

    fn named(rows: &[usize]) -> Vec<PoisonRow> {
        rows.iter().map(|row| PoisonRow { row: *row, error: format!("row {row}") }).collect()
    }

    #[test]
    fn size_and_age_make_a_batch_due() {
        let mut pending = pending();
        assert!(!pending.add(rows(0..2), 0));
        assert_eq!(pending.next(499_999, false), None);
        let work = pending.next(500_000, false).unwrap();
        assert_eq!((work.batch().len(), work.batch().epoch, work.batch().seq), (2, 7, 1));
        assert_eq!(settle(&mut pending), 2);
        assert!(pending.add(rows(0..3), 600_000));
        assert_eq!(pending.next(600_000, false).unwrap().batch().seq, 2);
    }

    #[test]
    fn a_batch_under_way_is_given_again_until_it_is_settled() {
        let mut pending = pending();
        pending.add(rows(0..3), 0);
        let first = pending.next(0, true).unwrap();
        pending.add(rows(3..9), 0);
        assert_eq!(pending.next(0, true), Some(first));
        assert_eq!((pending.rows(), pending.oldest_age_us(70)), (9, 70));
        assert_eq!(settle(&mut pending), 3);
        assert_eq!(pending.by_table(), [(Table::CollectorState, 6)].into());
    }

    #[test]
    fn poison_goes_to_quarantine_and_the_rest_is_written() {
        let mut pending = pending();
        pending.add(rows(0..3), 0);
        let first = ticket(&mut pending);
        assert!(pending.poison(first, &named(&[1])));
        let Some(Work::Quarantine(condemned, errors)) = pending.next(0, true) else {
            panic!("not condemned")
        };
        assert_eq!((condemned.columns(), &*errors), (rows(1..2).columns(), &["row 1".to_owned()][..]));
        assert_eq!(pending.rows(), 3);
        assert_eq!((settle(&mut pending), settle(&mut pending)), (1, 2));
        assert_eq!((pending.rows(), pending.next(0, true)), (0, None));
    }

    #[test]
    fn an_outcome_that_comes_too_late_touches_no_other_batch() {
        let mut pending = pending();
        pending.add(rows(0..3), 0);
        let first = ticket(&mut pending);
        assert!(pending.poison(first, &named(&[0])));
        assert!(!pending.poison(first, &named(&[0])), "of the same batch, but of what it was before");
        assert_eq!(pending.settle(first), None);
        assert_eq!(pending.rows(), 3);
    }

    #[test]
    fn unknown_culprits_are_found_half_by_half_and_numbers_rise() {
        let mut pending = Pending::new(FlushRules { rows: 100, ..RULES }, 1);
        pending.add(rows(0..50), 0);
        let (mut written, mut condemned, mut last) = (Vec::new(), Vec::new(), 0);
        while let Some(work) = pending.next(0, true) {
            assert!(work.batch().seq > last);
            last = work.batch().seq;
            let fathom_market::batch::Column::Int(ids) = &work.batch().columns()[0] else { panic!("ids") };
            let ids = ids.clone();
            match &work {
                Work::Write(_) if ids.iter().any(|id| [7, 8, 33].contains(id)) => {
                    assert!(pending.poison(work.ticket(), &[]));
                }
                Work::Write(_) => {
                    written.extend(ids);
                    pending.settle(work.ticket()).unwrap();
                }
                Work::Quarantine(..) => {
                    condemned.extend(ids);
                    pending.settle(work.ticket()).unwrap();
                }
            }
        }
        assert_eq!((written.len(), condemned), (47, vec![7, 8, 33]));
    }

    #[test]
    fn it_is_full_before_it_grows_without_bound() {
        let mut pending = pending();
        let mut added = 0;
        while !pending.is_full() {
            pending.add(rows(added..added + 1), 0);
            added += 1;
        }
        assert_eq!(added as usize, RULES.rows * (Table::ALL.len() + 1));
        assert!(pending.next(0, false).is_some(), "what is full is due");
    }
}
