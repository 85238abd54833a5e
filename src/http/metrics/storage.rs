//! Metrics of the writer and the store.

use fathom_actors::{
    kernel::ActorId,
    writer::{RetentionStatus, RollupStatus, WriterStatus},
};
use fathom_market::table::Table;

use super::{Families, Type, exposition::Value};
use crate::http::{
    AppState,
    sinks::{drain_status, writer_status},
};

pub(super) fn gather(state: &AppState, out: &mut Families) {
    let store = state.system.store().status();
    let labels = [("store", store.kind)];
    let writer = writer_status(state);
    let up = store.reachable && writer.as_ref().is_none_or(|(_, status)| status.reachable);
    out.add("fathom_store_up", Type::Gauge, "Whether the store was reached last time.", &labels, up);
    if let Some(drain) = drain_status(state) {
        let help = "Records moved from the spool into the store by this instance.";
        out.add("fathom_spool_moved_total", Type::Counter, help, &[], drain.records);
        let help = "Failures since the last record that the store took.";
        out.add("fathom_spool_failures", Type::Gauge, help, &[], u64::from(drain.failures_in_a_row));
    }
    if let Some(bytes) = store.bytes {
        out.add("fathom_store_bytes", Type::Gauge, "Size of the store on disk.", &labels, bytes);
    }
    if let Some((_, status)) = writer {
        rows(&status, out);
        queue(&status, out);
        pressure(&status, out);
    }
    let retention = state.system.control().detail::<RetentionStatus>(&ActorId::from("retention"));
    if let Some((_, status)) = retention {
        let help = "Rows removed because of their age.";
        out.add("fathom_rows_expired_total", Type::Counter, help, &[], status.removed);
    }
    let rollup = state.system.control().detail::<RollupStatus>(&ActorId::from("rollup"));
    if let Some((_, status)) = rollup {
        let help = "Buckets of roll-ups brought up to date.";
        out.add("fathom_rollup_buckets_total", Type::Counter, help, &[], status.buckets);
    }
}

fn rows(status: &WriterStatus, out: &mut Families) {
    let candles = Table::Candles.schema().name;
    let stored = status.tables.get(candles).map_or(0, |counts| counts.stored);
    out.add("fathom_candles_stored_total", Type::Counter, "Candles added or updated.", &[], stored);
    for (table, counts) in &status.tables {
        for (outcome, count) in [
            ("offered", counts.offered),
            ("accepted", counts.accepted),
            ("stored", counts.stored),
            ("duplicate", counts.duplicate),
            ("discarded", counts.discarded),
            ("expired", counts.expired),
        ] {
            let labels = [("table", *table), ("outcome", outcome)];
            out.add("fathom_rows_total", Type::Counter, "Rows by what became of them.", &labels, count);
        }
        for (why, count) in &counts.refused {
            let labels = [("table", *table), ("reason", *why)];
            let help = "Rows refused on their way to the store.";
            out.add("fathom_rows_refused_total", Type::Counter, help, &labels, *count);
        }
        let gauges = [
            ("fathom_rows_waiting", "Rows that wait, by table.", counts.waiting),
            ("fathom_rows_spooled", "Rows in the spool, by table.", counts.spooled),
            ("fathom_rows_quarantined", "Rows in quarantine, by table.", counts.quarantined),
        ];
        for (name, help, count) in gauges {
            out.add(name, Type::Gauge, help, &[("table", table)], count);
        }
        let equations =
            [("offered", counts.offered_is_balanced()), ("accepted", counts.accepted_is_balanced())];
        for (equation, balanced) in equations {
            let labels = [("table", *table), ("equation", equation)];
            let help = "Whether every row is accounted for.";
            out.add("fathom_rows_balanced", Type::Gauge, help, &labels, balanced);
        }
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

fn pressure(status: &WriterStatus, out: &mut Families) {
    let mut gauge = |name, help, value: Value| out.add(name, Type::Gauge, help, &[], value);
    let load = &status.overload;
    gauge("fathom_memory_rows", "Rows that wait in memory anywhere.", load.waiting_rows.into());
    gauge("fathom_memory_bytes", "Bytes of them.", load.waiting_bytes.into());
    let memory = f64::from(load.memory_permille) / 1e3;
    gauge("fathom_memory_fill", "How full the memory before the store is, 1 is its bound.", memory.into());
    let refusing = load.refusing.len() as u64;
    gauge("fathom_refusing_classes", "Classes of rows that the policy refuses at present.", refusing.into());
    let Some(spool) = &status.spool else { return };
    gauge("fathom_spool_records", "Records in the spool.", spool.records.into());
    gauge("fathom_spool_bytes", "Bytes of them.", spool.bytes.into());
    gauge("fathom_spool_limit_bytes", "The bound of those.", spool.limit_bytes.into());
    let oldest = spool.oldest_ms.unwrap_or_default() as f64 / 1e3;
    gauge("fathom_spool_oldest_seconds", "Age of the oldest record in the spool.", oldest.into());
    let damaged = "Records of the spool found damaged.";
    out.add("fathom_spool_damaged_total", Type::Counter, damaged, &[], spool.damaged);
}
