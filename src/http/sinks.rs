//! `/api/v1/sinks`: what became of every row that was offered, and whether the account is even.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::web::ServiceConfig;
use fathom_actors::{
    kernel::{ActorId, State},
    writer::{WriterStatus, pending::TableCounts},
};
use serde::Serialize;

use super::{
    AppState, Shared,
    error::{Answer, ok},
    read,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/sinks", list));
}

/// What the writer published last, and when.
pub(super) fn writer_status(state: &AppState) -> Option<(i64, Arc<WriterStatus>)> {
    state.system.control().detail(&writer())
}

fn writer() -> ActorId {
    ActorId::from("writer")
}

#[derive(Serialize)]
struct Listed {
    sinks: Vec<Sink>,
}

#[derive(Serialize)]
struct Sink {
    id: &'static str,
    kind: &'static str,
    actor: ActorId,
    actor_state: Option<State>,
    reachable: bool,
    bytes: Option<u64>,
    oldest_ms: i64,
    batches: u64,
    retries: u64,
    last_write_us: i64,
    last_error: Option<String>,
    observed_us: Option<i64>,
    tables: BTreeMap<&'static str, TableView>,
    equation: Equation,
}

#[derive(Serialize)]
struct TableView {
    #[serde(flatten)]
    counts: TableCounts,
    waiting: u64,
}

/// Every row offered is stored, a duplicate, poisoned, or waits.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Equation {
    offered: u64,
    stored: u64,
    duplicate: u64,
    poisoned: u64,
    waiting: u64,
    /// Whether the four add up to the rows offered.
    balanced: bool,
}

impl Equation {
    fn new(status: &WriterStatus) -> Self {
        let sum = |part: fn(&TableCounts) -> u64| status.tables.values().map(part).sum::<u64>();
        let (offered, stored) = (sum(|counts| counts.offered), sum(|counts| counts.stored));
        let (duplicate, poisoned) = (sum(|counts| counts.duplicate), sum(|counts| counts.poisoned));
        // Counted in the queue itself, not worked out from the others.
        let waiting = status.waiting as u64;
        let balanced = offered == stored + duplicate + poisoned + waiting;
        Self { offered, stored, duplicate, poisoned, waiting, balanced }
    }
}

/// Rows of a table that wait.
pub(super) const fn waiting(counts: &TableCounts) -> u64 {
    counts.offered.saturating_sub(counts.stored + counts.duplicate + counts.poisoned)
}

async fn list(state: Shared) -> Answer {
    let published = writer_status(&state);
    let store = state.system.store().status();
    let status = published.as_ref().map(|(_, status)| WriterStatus::clone(status)).unwrap_or_default();
    let equation = Equation::new(&status);
    let tables = status
        .tables
        .iter()
        .map(|(name, counts)| (*name, TableView { counts: *counts, waiting: waiting(counts) }));
    let sink = Sink {
        id: "store",
        kind: store.kind,
        actor: writer(),
        actor_state: state.system.control().actor(&writer()).map(|actor| actor.state),
        reachable: published.is_some() && status.reachable,
        bytes: store.bytes,
        oldest_ms: status.oldest_ms,
        batches: status.batches,
        retries: status.retries,
        last_write_us: status.last_write_us,
        last_error: status.last_error.clone(),
        observed_us: published.map(|(at_us, _)| at_us),
        tables: tables.collect(),
        equation,
    };
    ok(&Listed { sinks: vec![sink] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_even_only_when_every_row_is_somewhere() {
        let counts = TableCounts { offered: 10, stored: 5, duplicate: 2, poisoned: 1 };
        let mut status = WriterStatus { waiting: 2, ..WriterStatus::default() };
        status.tables.insert("candles_raw", counts);
        assert!(Equation::new(&status).balanced);
        assert_eq!(waiting(&counts), 2);
        status.waiting = 1;
        assert!(!Equation::new(&status).balanced);
    }
}
