//! Rows of one sender on their way to the writer: gathered in columns, sent together, bounded, accounted for.

use std::{collections::BTreeMap, sync::Arc};

use fathom_market::{
    batch::Batch,
    table::{Row, Table},
};
use fathom_storage::{Class, Refusal};

use crate::writer::account::Account;

/// Rows that may wait in one outbox while the writer's inbox is full.
const MAX_ROWS: usize = 20_000;
/// Rows that make the outbox worth sending before its time.
const SEND_ROWS: usize = 256;

/// The outbox of one sender. What it holds when it is dropped is booked as lost.
#[derive(Debug)]
pub struct Outbox {
    account: Arc<Account>,
    batches: BTreeMap<Table, Waiting>,
    rows: usize,
    refused: BTreeMap<Table, u64>,
}

#[derive(Debug)]
struct Waiting {
    batch: Batch,
    /// Rows and bytes at the end of the batch that the account does not know yet.
    new: (u64, u64),
}

impl Outbox {
    /// An outbox with the account of its writer.
    pub fn new(account: Arc<Account>) -> Self {
        Self { account, batches: BTreeMap::new(), rows: 0, refused: BTreeMap::new() }
    }

    /// Accounts from here on to the writer's account.
    pub fn attach(&mut self, account: Arc<Account>) {
        self.account = account;
    }

    /// Adds a row. Where too much waits the policy says whose rows are refused, and that is counted.
    pub fn push<R: Row>(&mut self, row: R) {
        if self.rows >= MAX_ROWS {
            return self.refuse(&Batch::of([row]), Some(Refusal::SenderFull));
        }
        if !self.account.admits(Class::Passing) && R::TABLE == Table::Candles {
            // Of candles the class depends on the row.
            let one = Batch::of([row]);
            if !self.account.admits(Class::of_row(&one, 0)) {
                return self.refuse(&one, None);
            }
            let added = self.waiting(R::TABLE).batch.append(one).is_ok();
            return self.note(R::TABLE, added);
        }
        if !self.account.admits(Class::of(R::TABLE)) {
            return self.refuse(&Batch::of([row]), None);
        }
        let added = self.waiting(R::TABLE).batch.push(row).is_ok();
        self.note(R::TABLE, added);
    }

    fn waiting(&mut self, table: Table) -> &mut Waiting {
        self.batches.entry(table).or_insert_with(|| Waiting { batch: Batch::new(table), new: (0, 0) })
    }

    fn note(&mut self, table: Table, added: bool) {
        if !added {
            return;
        }
        self.rows += 1;
        let waiting = self.waiting(table);
        waiting.new.0 += 1;
        waiting.new.1 += waiting.batch.row_bytes(waiting.batch.len() - 1);
    }

    fn refuse(&mut self, batch: &Batch, why: Option<Refusal>) {
        *self.refused.entry(batch.table()).or_default() += batch.len() as u64;
        self.account.refuse_new(batch, why);
    }

    /// True when there is enough to send before its time.
    pub const fn is_ready(&self) -> bool {
        self.rows >= SEND_ROWS
    }

    /// True when there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Sends each table's rows; `send` gives back what it cannot take, which waits for the next time. The gap ledger goes
    /// before everything else: a record behind a hole must not be stored while the hole is not.
    pub fn send(&mut self, mut send: impl FnMut(Batch) -> Result<(), Batch>) {
        self.count();
        if !self.send_table(Table::DataGaps, &mut send) {
            return;
        }
        let tables: Vec<Table> = self.batches.keys().copied().collect();
        for table in tables {
            self.send_table(table, &mut send);
        }
    }

    /// False when the rows of this table have to wait.
    fn send_table(&mut self, table: Table, send: &mut impl FnMut(Batch) -> Result<(), Batch>) -> bool {
        let Some(Waiting { batch, .. }) = self.batches.remove(&table) else { return true };
        let rows = batch.len();
        match send(batch) {
            Ok(()) => {
                self.rows -= rows;
                true
            }
            Err(batch) => {
                self.batches.insert(table, Waiting { batch, new: (0, 0) });
                false
            }
        }
    }

    /// Tells the account what is new.
    fn count(&mut self) {
        for (table, waiting) in &mut self.batches {
            let (rows, bytes) = std::mem::take(&mut waiting.new);
            if rows > 0 {
                self.account.made(*table, rows, bytes);
            }
        }
    }

    /// Rows refused so far, by table.
    pub const fn refused(&self) -> &BTreeMap<Table, u64> {
        &self.refused
    }
}

impl Default for Outbox {
    /// An outbox with an account of its own.
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.count();
        for waiting in self.batches.values() {
            self.account.refuse_outside(&waiting.batch, Refusal::SenderLost);
        }
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::table::CollectorStateRow;

    use super::*;

    fn row(instrument_id: i64) -> CollectorStateRow {
        let timeframe = "1m".into();
        CollectorStateRow {
            instrument_id,
            timeframe,
            last_timestamp_ms: 0,
            last_updated_us: 0,
            is_realtime: true,
        }
    }

    #[test]
    fn what_is_not_taken_waits_and_nothing_is_sent_twice() {
        let mut outbox = Outbox::default();
        outbox.push(row(1));
        outbox.send(Err);
        outbox.push(row(2));
        let mut sent = Vec::new();
        outbox.send(|batch| {
            sent.push(batch);
            Ok(())
        });
        assert_eq!(sent, [Batch::of([row(1), row(2)])]);
        assert!(outbox.is_empty());
        outbox.send(|_| panic!("nothing is left"));
    }

    #[test]
    fn a_full_outbox_refuses_and_counts() {
        let mut outbox = Outbox::default();
        for id in 0..MAX_ROWS as i64 + 3 {
            outbox.push(row(id));
        }
        assert_eq!(outbox.refused()[&Table::CollectorState], 3);
    }

    fn candle(closed: bool) -> fathom_market::table::CandleRow {
        let one = rust_decimal::Decimal::ONE;
        fathom_market::table::CandleRow {
            instrument_id: 1,
            timeframe: "1m".into(),
            open_ms: 0,
            close_ms: 59_999,
            open: one,
            high: one,
            low: one,
            close: one,
            volume: one,
            quote_volume: one,
            trades: 1,
            taker_buy_volume: one,
            taker_buy_quote_volume: one,
            closed,
            updated_us: 0,
        }
    }

    #[test]
    fn the_policy_refuses_an_open_candle_before_a_closed_one_and_every_row_is_accounted_for() {
        let account = Arc::new(Account::default());
        let mut outbox = Outbox::new(account.clone());
        account.spool_is(960);
        outbox.push(candle(false));
        outbox.push(candle(true));
        assert_eq!(outbox.refused()[&Table::Candles], 1);
        account.spool_is(1000);
        outbox.push(candle(true));
        assert_eq!(outbox.refused()[&Table::Candles], 2);
        drop(outbox);
        let side = account.tables()[&Table::Candles];
        assert_eq!((side.offered.offered, side.offered.refused(), side.outside), (3, 3, 0));
        let reasons = [Refusal::SpoolFull, Refusal::SenderLost].map(|why| side.offered.refused_for(why));
        assert_eq!((reasons, account.load().rows), ([2, 1], 0));
    }
}
