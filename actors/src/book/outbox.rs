//! Rows of one book on their way to the writer: gathered in columns, sent together, bounded. Pure.

use std::collections::BTreeMap;

use fathom_market::{
    batch::Batch,
    table::{Row, Table},
};

/// Rows that may wait while the writer's inbox is full. Beyond it rows are refused and counted.
const MAX_ROWS: usize = 20_000;
/// Rows that make the outbox worth sending before its time.
const SEND_ROWS: usize = 256;

/// The outbox of one book.
#[derive(Debug, Default)]
pub struct Outbox {
    batches: BTreeMap<Table, Batch>,
    rows: usize,
    refused: BTreeMap<Table, u64>,
}

impl Outbox {
    /// Adds a row; a full outbox refuses it and counts that.
    pub fn push<R: Row>(&mut self, row: R) {
        if self.rows >= MAX_ROWS {
            *self.refused.entry(R::TABLE).or_default() += 1;
            return;
        }
        let batch = self.batches.entry(R::TABLE).or_insert_with(|| Batch::new(R::TABLE));
        if batch.push(row).is_ok() {
            self.rows += 1;
        }
    }

    /// True when there is enough to send before its time.
    pub const fn is_ready(&self) -> bool {
        self.rows >= SEND_ROWS
    }

    /// True when there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Sends each table's rows; `send` gives back what it cannot take, which waits for the next time.
    pub fn send(&mut self, mut send: impl FnMut(Batch) -> Result<(), Batch>) {
        for (table, batch) in std::mem::take(&mut self.batches) {
            let rows = batch.len();
            match send(batch) {
                Ok(()) => self.rows -= rows,
                Err(batch) => {
                    self.batches.insert(table, batch);
                }
            }
        }
    }

    /// Rows refused so far, by table.
    pub const fn refused(&self) -> &BTreeMap<Table, u64> {
        &self.refused
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
}
