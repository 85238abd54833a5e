//! `/api/v1/sinks`: what became of every row that was offered, whether both accounts are even, and the rows in quarantine.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use actix_web::{
    Route,
    web::{self, Path, Query, ServiceConfig},
};
use fathom_actors::{
    kernel::{ActorId, State},
    writer::{
        TableFigures, WriterStatus,
        drain::DrainStatus,
        status::{Overload, SpoolView},
    },
};
use fathom_market::table::Table;
use fathom_storage::{QuarantineQuery, QuarantinedRow, Resent, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    AppState, Shared,
    audit::Deed,
    auth::Caller,
    error::{Answer, ApiError, ok},
    read, write,
};

/// The one sink that is built so far.
const STORE: &str = "store";
/// Rows of a quarantine that are told at once, and sent again at once, where no limit is given.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/sinks", list));
    config.service(read("/api/v1/sinks/{id}/quarantine", quarantined));
    config.service(write("/api/v1/sinks/{id}/quarantine/resend", resend_all));
    config.service(write("/api/v1/sinks/{id}/quarantine/{row}/resend", resend));
    let removing = web::resource("/api/v1/sinks/{id}/quarantine/{row}")
        .route(Route::new().guard(actix_web::guard::Delete()).to(discard))
        .default_service(web::to(|| async { ApiError::method("DELETE") }));
    config.service(removing);
    config.service(read("/api/v1/sinks/{id}", one));
}

/// What the writer published last, and when.
pub(super) fn writer_status(state: &AppState) -> Option<(i64, Arc<WriterStatus>)> {
    state.system.control().detail(&writer())
}

/// What the drain of the spool published last.
pub(super) fn drain_status(state: &AppState) -> Option<Arc<DrainStatus>> {
    state.system.control().detail(&ActorId::from("drain")).map(|(_, status)| status)
}

fn writer() -> ActorId {
    ActorId::from("writer")
}

#[derive(Serialize)]
struct Listed {
    sinks: Vec<Sink>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Sink {
    id: &'static str,
    kind: &'static str,
    actor: ActorId,
    actor_state: Option<State>,
    reachable: bool,
    why: Vec<String>,
    bytes: Option<u64>,
    oldest_ms: i64,
    batches: u64,
    retries: u64,
    failures_in_a_row: u64,
    last_write_us: i64,
    writing_us: Option<i64>,
    last_error: Option<String>,
    observed_us: Option<i64>,
    overload: Overload,
    spool: Option<SpoolView>,
    drain: Option<DrainStatus>,
    tables: BTreeMap<&'static str, TableView>,
    #[serde(flatten)]
    equations: Equations,
}

#[derive(Serialize)]
struct TableView {
    #[serde(flatten)]
    figures: TableFigures,
    balanced: bool,
}

/// Both equations over all tables.
#[derive(Debug, Serialize)]
struct Equations {
    offered: FirstSide,
    accepted: SecondSide,
    /// Whether both hold, for every table.
    balanced: bool,
}

/// Every row offered is accepted, refused, or waits.
#[derive(Debug, Serialize)]
struct FirstSide {
    offered: u64,
    accepted: u64,
    refused: u64,
    refused_by: BTreeMap<&'static str, u64>,
    waiting: u64,
    balanced: bool,
}

/// Every row accepted is in one of these places.
#[derive(Debug, Serialize)]
struct SecondSide {
    accepted: u64,
    stored: u64,
    duplicate: u64,
    spooled: u64,
    quarantined: u64,
    discarded: u64,
    expired: u64,
    balanced: bool,
}

impl Equations {
    fn new(status: &WriterStatus) -> Self {
        let total = status.total();
        let first = status.tables.values().all(TableFigures::offered_is_balanced);
        let second = status.tables.values().all(TableFigures::accepted_is_balanced);
        Self {
            offered: FirstSide {
                offered: total.offered,
                accepted: total.accepted,
                refused: total.refused(),
                waiting: total.waiting,
                balanced: first,
                refused_by: total.refused,
            },
            accepted: SecondSide {
                accepted: total.accepted,
                stored: total.stored,
                duplicate: total.duplicate,
                spooled: total.spooled,
                quarantined: total.quarantined,
                discarded: total.discarded,
                expired: total.expired,
                balanced: second,
            },
            balanced: first && second,
        }
    }
}

async fn list(state: Shared) -> Answer {
    ok(&Listed { sinks: vec![sink(&state)], next: None })
}

async fn one(state: Shared, id: Path<String>) -> Answer {
    known(&id)?;
    ok(&sink(&state))
}

fn known(id: &str) -> Result<(), ApiError> {
    if id == STORE {
        return Ok(());
    }
    Err(ApiError::not_found("SINK_NOT_FOUND", format!("no sink {id}")).with("id", id))
}

fn sink(state: &AppState) -> Sink {
    let published = writer_status(state);
    let store = state.system.store().status();
    let status = published.as_ref().map(|(_, status)| WriterStatus::clone(status)).unwrap_or_default();
    let drain = drain_status(state).map(|drain| DrainStatus::clone(&drain));
    let actor = state.system.control().actor(&writer());
    let equations = Equations::new(&status);
    let tables = status.tables.into_iter().map(|(name, figures)| {
        let balanced = figures.offered_is_balanced() && figures.accepted_is_balanced();
        (name, TableView { figures, balanced })
    });
    let moving = drain.as_ref().is_none_or(|drain| drain.last_error.is_none());
    let drain_error = drain.as_ref().and_then(|drain| drain.last_error.clone());
    let mut why = actor.as_ref().map(|actor| actor.why.clone()).unwrap_or_default();
    why.extend(drain_error.iter().map(|error| format!("behind the spool: {error}")));
    Sink {
        id: STORE,
        kind: store.kind,
        actor: writer(),
        actor_state: actor.map(|actor| actor.state),
        reachable: published.is_some() && status.reachable && moving,
        why,
        bytes: store.bytes,
        oldest_ms: status.oldest_ms,
        batches: status.batches,
        retries: status.retries,
        failures_in_a_row: status.failures_in_a_row,
        last_write_us: status.last_write_us,
        writing_us: status.writing_us,
        last_error: status.last_error.or(drain_error),
        observed_us: published.map(|(at_us, _)| at_us),
        overload: status.overload,
        spool: status.spool,
        drain,
        tables: tables.collect(),
        equations,
    }
}

#[derive(Deserialize)]
struct PageOf {
    table: Option<String>,
    limit: Option<u32>,
    after: Option<i64>,
}

impl PageOf {
    fn query(&self) -> Result<QuarantineQuery, ApiError> {
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(ApiError::parameter("limit", &limit.to_string(), "a number from 1 to 1000"));
        }
        let table = self.table.as_deref().map(table_of).transpose()?;
        Ok(QuarantineQuery { table, after: self.after.unwrap_or(0), limit })
    }
}

/// A table by its name in the store, with or without `_raw`.
fn table_of(name: &str) -> Result<Table, ApiError> {
    let found = Table::by_name(name).or_else(|| Table::by_name(&format!("{name}_raw")));
    found.ok_or_else(|| ApiError::parameter("table", name, "the name of a table"))
}

#[derive(Serialize)]
struct QuarantinePage {
    rows: Vec<RowView>,
    next: Option<i64>,
}

#[derive(Serialize)]
struct RowView {
    id: i64,
    table: String,
    rows: u64,
    row: Option<Box<RawValue>>,
    error: String,
    first_us: i64,
    attempts: u64,
    status: String,
}

impl RowView {
    fn new(row: QuarantinedRow) -> Self {
        let QuarantinedRow { id, table, rows, row, error, first_us, attempts, status } = row;
        let row = row.and_then(|json| RawValue::from_string(json).ok());
        Self { id, table, rows, row, error, first_us, attempts, status }
    }
}

async fn quarantined(state: Shared, id: Path<String>, page: Query<PageOf>) -> Answer {
    known(&id)?;
    let query = page.query()?;
    let rows = state.system.store().accounts().quarantined(&query).await?;
    let next = (rows.len() as u32 == query.limit).then(|| rows.last().map(|row| row.id)).flatten();
    ok(&QuarantinePage { rows: rows.into_iter().map(RowView::new).collect(), next })
}

/// What came of sending rows again.
#[derive(Default, Serialize)]
struct ResentView {
    stored: u64,
    duplicate: u64,
    refused: u64,
    /// The last refusal.
    error: Option<String>,
}

impl ResentView {
    fn note(&mut self, resent: Resent) {
        match resent {
            Resent::Stored => self.stored += 1,
            Resent::Duplicate => self.duplicate += 1,
            Resent::Refused(error) => {
                self.refused += 1;
                self.error = Some(error);
            }
            Resent::Unknown => {}
        }
    }
}

/// Sending again and removing are idempotent by themselves: a key may be given, and a second call finds the row gone.
async fn resend(state: Shared, caller: Caller, path: Path<(String, i64)>) -> Answer {
    let (sink, row) = path.into_inner();
    known(&sink)?;
    let resent = state.system.store().accounts().resend(row).await;
    audit(&state, &caller, "resend", row, &resent);
    let resent = resent?;
    if resent == Resent::Unknown {
        return Err(unknown(row));
    }
    let mut view = ResentView::default();
    view.note(resent);
    ok(&view)
}

async fn resend_all(state: Shared, caller: Caller, id: Path<String>, page: Query<PageOf>) -> Answer {
    known(&id)?;
    let query = page.query()?;
    let (store, mut view) = (state.system.store(), ResentView::default());
    let rows = store.accounts().quarantined(&query).await?;
    for row in rows {
        let resent = store.accounts().resend(row.id).await;
        audit(&state, &caller, "resend", row.id, &resent);
        view.note(resent?);
    }
    ok(&view)
}

async fn discard(state: Shared, caller: Caller, path: Path<(String, i64)>) -> Answer {
    #[derive(Serialize)]
    struct Discarded {
        discarded: i64,
    }
    let (sink, row) = path.into_inner();
    known(&sink)?;
    let gone = state.system.store().accounts().discard(row).await;
    audit(&state, &caller, "discard", row, &gone);
    if gone? { ok(&Discarded { discarded: row }) } else { Err(unknown(row)) }
}

fn unknown(row: i64) -> ApiError {
    ApiError::not_found("ROW_NOT_FOUND", format!("no row {row} in quarantine")).with("row", row)
}

fn audit<T>(state: &AppState, caller: &Caller, action: &'static str, row: i64, done: &Result<T, StoreError>) {
    let deed = Deed { action, target: &format!("quarantined row {row}"), reason: "" };
    let done = done.as_ref().map(|_| None).map_err(|error| error as &dyn Display);
    state.audit.note(state, caller, &deed, done);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_are_even_only_when_every_row_is_somewhere() {
        let even = TableFigures {
            offered: 12,
            accepted: 8,
            refused: [("overload", 2)].into(),
            waiting: 2,
            stored: 4,
            duplicate: 1,
            spooled: 1,
            quarantined: 1,
            discarded: 1,
            expired: 0,
        };
        let with = |figures: TableFigures| {
            let mut status = WriterStatus::default();
            status.tables.insert("candles_raw", figures);
            Equations::new(&status)
        };
        assert!(with(even.clone()).balanced);
        let lost = with(TableFigures { waiting: 1, ..even.clone() });
        assert!(!lost.offered.balanced && lost.accepted.balanced && !lost.balanced);
        assert!(!with(TableFigures { stored: 5, ..even }).accepted.balanced);
    }
}
