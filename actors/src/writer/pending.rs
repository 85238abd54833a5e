//! Rows that wait to be written, by table. Lives outside the writer's actor, so that a panic there loses none. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::kernel::clock::micros;
use fathom_market::{
    batch::{Batch, Column},
    gap::GapStatus,
    table::Table,
};
use fathom_storage::PoisonRow;

/// When a table's rows are written.
#[derive(Clone, Copy, Debug)]
pub struct FlushRules {
    /// At this many rows.
    pub rows: usize,
    /// At this age of the oldest one.
    pub age: Duration,
}

/// Open gaps whose names are remembered; the end of any other goes before the records.
const MAX_NAMED: usize = 65_536;

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
    /// Ends of gaps. They say that what filled a gap is stored, so they are written behind it.
    ends: Open,
    /// Gaps that were offered as open ones.
    named: BTreeSet<String>,
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
        let ends = Open { batch: Batch::new(Table::DataGaps), since_us: 0 };
        Self { rules, open, ends, named: BTreeSet::new(), under_way, since_us: 0, epoch, next_seq: 1 }
    }

    /// Adds rows. True when their table is to be written now.
    pub fn add(&mut self, batch: Batch, now_us: i64) -> bool {
        let table = batch.table();
        let batch = if table == Table::DataGaps { self.take_ends(batch, now_us) } else { batch };
        if batch.is_empty() {
            return self.ends.batch.len() >= self.rules.rows;
        }
        let open =
            self.open.entry(table).or_insert_with(|| Open { batch: Batch::new(table), since_us: now_us });
        if open.batch.is_empty() {
            open.since_us = now_us;
        }
        let appended = open.batch.append(batch);
        debug_assert!(appended.is_ok(), "the open batch was made for this table");
        open.batch.len() >= self.rules.rows
    }

    /// Puts the ends of gaps aside and gives the rest.
    fn take_ends(&mut self, batch: Batch, now_us: i64) -> Batch {
        let column = |name: &str| {
            let at = batch.schema().columns.iter().position(|column| column.name == name);
            match at.and_then(|at| batch.columns().get(at)) {
                Some(Column::Text(texts)) => texts.as_slice(),
                _ => &[],
            }
        };
        let (mut ends, mut rest) = (Vec::new(), Vec::new());
        for (row, (name, status)) in column("gap_id").iter().zip(column("status")).enumerate() {
            let is_open = status == GapStatus::Open.as_str();
            let known = if is_open { false } else { self.named.remove(name) };
            if is_open && self.named.len() < MAX_NAMED {
                self.named.insert(name.clone());
            }
            let ended = known || status == GapStatus::Repaired.as_str();
            if ended { ends.push(row) } else { rest.push(row) }
        }
        if ends.is_empty() {
            return batch;
        }
        if self.ends.batch.is_empty() {
            self.ends.since_us = now_us;
        }
        let appended = self.ends.batch.append(batch.select(&ends));
        debug_assert!(appended.is_ok(), "both are of one table");
        batch.select(&rest)
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
        let ends = !self.ends.batch.is_empty() && due(&self.ends);
        let fullest = self
            .open
            .iter()
            .filter(|(_, open)| !open.batch.is_empty() && due(open))
            .max_by_key(|(_, open)| open.batch.len())
            .map(|(table, _)| *table);
        let gaps = self.open.get(&Table::DataGaps).is_some_and(|open| !open.batch.is_empty());
        let table = match fullest {
            None if !ends => return None,
            // A record behind a hole must not be stored before the hole is.
            _ if gaps => Table::DataGaps,
            _ if ends => return self.ends(),
            None => return None,
            Some(table) => table,
        };
        let table = match table {
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

    /// Everything that may have filled a gap, and behind it the gaps' ends.
    fn ends(&mut self) -> Option<Work> {
        let mut since_us = self.ends.since_us;
        if let Some(open) = self.open.remove(&Table::Trades).filter(|open| !open.batch.is_empty()) {
            since_us = since_us.min(open.since_us);
            let work = Work::Write(self.numbered(open.batch));
            self.under_way.push_back(work);
        }
        self.series();
        self.since_us = self.since_us.min(since_us);
        let ends = std::mem::replace(&mut self.ends.batch, Batch::new(Table::DataGaps));
        let work = Work::Write(self.numbered(ends));
        self.under_way.push_back(work);
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
        let waiting = self
            .open
            .values()
            .chain([&self.ends])
            .filter(|open| !open.batch.is_empty())
            .map(|open| open.since_us);
        let under_way = (!self.under_way.is_empty()).then_some(self.since_us);
        waiting.chain(under_way).map(|since_us| now_us - since_us).max().unwrap_or(0)
    }

    fn all(&self) -> impl Iterator<Item = &Batch> {
        let under_way = self.under_way.iter().map(|work| &**work.batch());
        let ends = Some(&self.ends.batch).filter(|ends| !ends.is_empty());
        self.open.values().map(|open| &open.batch).chain(ends).chain(under_way)
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

    fn gap(name: &str, status: &str, updated_us: i64) -> fathom_market::table::GapRow {
        fathom_market::table::GapRow {
            gap_id: name.into(),
            instrument_id: 1,
            channel: "trade".into(),
            cause: "restart".into(),
            status: status.into(),
            from_us: 0,
            to_us: None,
            from_id: None,
            to_id: None,
            missing: None,
            reason: None,
            opened_us: 0,
            closed_us: None,
            updated_us,
        }
    }

    fn trades(count: usize) -> Batch {
        let trade = fathom_market::table::TradeRow {
            instrument_id: 1,
            kind: "agg".into(),
            trade_id: "1".into(),
            event_us: 0,
            recv_us: 0,
            price_m: 1,
            qty_m: 1,
            price_scale: 0,
            qty_scale: 0,
            side: "buy".into(),
            first_raw_id: None,
            last_raw_id: None,
        };
        Batch::of(vec![trade; count])
    }

    fn tables_in_order(pending: &mut Pending, now_us: i64) -> Vec<(Table, usize)> {
        let mut written = Vec::new();
        while let Some(work) = pending.next(now_us, false) {
            written.push((work.batch().table(), work.batch().len()));
            pending.settle(work.ticket()).unwrap();
        }
        written
    }

    #[test]
    fn a_hole_goes_before_the_records_behind_it_and_its_end_after_what_filled_it() {
        use Table::{CollectorState, DataGaps, Trades};
        let mut pending = pending();
        pending.add(trades(3), 0);
        pending.add(Batch::of([gap("a", "open", 1), gap("b", "lost", 1)]), 0);
        assert_eq!(tables_in_order(&mut pending, 0), [(DataGaps, 2), (Trades, 3)]);

        pending.add(trades(2), 1);
        pending.add(rows(0..1), 1);
        pending.add(Batch::of([gap("a", "lost", 2), gap("c", "repaired", 2), gap("d", "resynced", 2)]), 1);
        assert_eq!(pending.next(1, false), None);
        let order = [(DataGaps, 1), (Trades, 2), (CollectorState, 1), (DataGaps, 2)];
        assert_eq!(tables_in_order(&mut pending, 500_001), order);
        assert_eq!(pending.rows(), 0);

        assert!(!pending.add(Batch::of([gap("e", "repaired", 3)]), 0));
        assert_eq!((pending.rows(), pending.oldest_age_us(70)), (1, 70));
        assert_eq!(tables_in_order(&mut pending, 500_000), [(DataGaps, 1)], "nothing has to go before it");
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
