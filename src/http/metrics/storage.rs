//! Metrics of the writer and the store.

use fathom_actors::{
    kernel::ActorId,
    writer::{RetentionStatus, WriterStatus},
};
use fathom_market::table::Table;

use super::{Families, Type, exposition::Value};
use crate::http::{
    AppState,
    sinks::{waiting, writer_status},
};

pub(super) fn gather(state: &AppState, out: &mut Families) {
    let store = state.system.store().status();
    let labels = [("store", store.kind)];
    let writer = writer_status(state);
    let up = store.reachable && writer.as_ref().is_none_or(|(_, status)| status.reachable);
    out.add("fathom_store_up", Type::Gauge, "Whether the store was reached last time.", &labels, up);
    if let Some(bytes) = store.bytes {
        out.add("fathom_store_bytes", Type::Gauge, "Size of the store on disk.", &labels, bytes);
    }
    if let Some((_, status)) = writer {
        rows(&status, out);
        queue(&status, out);
    }
    let retention = state.system.control().detail::<RetentionStatus>(&ActorId::from("retention"));
    if let Some((_, status)) = retention {
        let help = "Rows removed because of their age.";
        out.add("fathom_rows_expired_total", Type::Counter, help, &[], status.removed);
    }
}

fn rows(status: &WriterStatus, out: &mut Families) {
    let candles = Table::Candles.schema().name;
    let stored = status.tables.get(candles).map_or(0, |counts| counts.stored);
    out.add("fathom_candles_stored_total", Type::Counter, "Candles added or updated.", &[], stored);
    for (table, counts) in &status.tables {
        for (outcome, count) in [
            ("offered", counts.offered),
            ("stored", counts.stored),
            ("duplicate", counts.duplicate),
            ("poisoned", counts.poisoned),
        ] {
            let labels = [("table", *table), ("outcome", outcome)];
            out.add("fathom_rows_total", Type::Counter, "Rows by what became of them.", &labels, count);
        }
        let help = "Rows that wait, by table.";
        out.add("fathom_rows_waiting", Type::Gauge, help, &[("table", table)], waiting(counts));
    }
}

fn queue(status: &WriterStatus, out: &mut Families) {
    let mut gauge = |name, help, value: Value| out.add(name, Type::Gauge, help, &[], value);
    gauge("fathom_writer_waiting_rows", "Rows that wait.", status.waiting.into());
    let oldest = status.oldest_ms as f64 / 1e3;
    gauge("fathom_writer_oldest_seconds", "Age of the oldest row that waits.", oldest.into());
    let last = status.last_write_us as f64 / 1e6;
    gauge("fathom_writer_last_write_seconds", "Duration of the last write.", last.into());
    out.add("fathom_writer_batches_total", Type::Counter, "Batches written.", &[], status.batches);
    out.add("fathom_writer_retries_total", Type::Counter, "Writes tried again.", &[], status.retries);
}
