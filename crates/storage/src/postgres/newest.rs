//! The newest snapshot of each category. To search for them in every partition of two months takes tens of milliseconds, and
//! they are asked for all the time: what was found is kept, and only what came after is asked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fathom_market::{
    batch::{Batch, Column},
    table::{CategorySnapshotRow, Schema, Table},
};
use rust_decimal::Decimal;
use tokio::time::Instant;

use super::statements::column_list;

/// How long a search holds: what another process writes late, or removes, is seen after it.
const HOLDS: Duration = Duration::from_secs(60);

/// Scope, market and depth.
pub(super) type Series = (String, String, Decimal);

/// What was found of each series.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<HashMap<Series, (Instant, Vec<CategorySnapshotRow>)>>);

impl Newest {
    fn state(&self) -> MutexGuard<'_, HashMap<Series, (Instant, Vec<CategorySnapshotRow>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found when it was last searched, where that still holds.
    pub(super) fn found(&self, series: &Series) -> Option<(Instant, Vec<CategorySnapshotRow>)> {
        let state = self.state();
        state.get(series).filter(|(searched, rows)| searched.elapsed() < HOLDS && !rows.is_empty()).cloned()
    }

    /// Keeps what was found by a search begun at a time.
    pub(super) fn keep(&self, series: Series, searched: Instant, rows: &[CategorySnapshotRow]) {
        self.state().insert(series, (searched, rows.to_vec()));
    }

    /// Forgets what a written batch may have outdated: by a late row, or a category that was not there.
    pub(super) fn wrote(&self, batch: &Batch) {
        if batch.table() != Table::CategorySnapshots {
            return;
        }
        let [Some(Column::Text(names)), Some(Column::Int(times))] =
            ["category", "timestamp_ms"].map(|name| batch.column(name))
        else {
            return self.state().clear();
        };
        let first = times.iter().min().copied().unwrap_or(i64::MIN);
        self.state().retain(|_, (_, rows)| {
            let newest = rows.iter().map(|row| row.timestamp_ms).max().unwrap_or(i64::MAX);
            first > newest && names.iter().all(|name| rows.iter().any(|row| row.category == *name))
        });
    }
}

/// The newest of each category, of what was known and what came after.
pub(super) fn merged(
    known: Vec<CategorySnapshotRow>,
    mut later: Vec<CategorySnapshotRow>,
) -> Vec<CategorySnapshotRow> {
    later.sort_by_key(|row| row.timestamp_ms);
    let all = known.into_iter().chain(later).map(|row| (row.category.clone(), row));
    all.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Searches all of a series: scope, market, depth. Steps from name to name and takes the last of each, instead of reading two
/// months of minutes.
pub(super) fn search(schema: &Schema) -> String {
    let (name, columns) = (schema.name, column_list(schema));
    format!(
        "with recursive names (name) as ( \
             select min(category) from {name} where scope = $1 and market_type = $2 \
             union all \
             select (select min(category) from {name} where scope = $1 and market_type = $2 and category > names.name) \
             from names where names.name is not null \
         ) \
         select newest.* from names cross join lateral ( \
             select {columns} from {name} \
             where scope = $1 and market_type = $2 and category = names.name and depth = $3 \
             order by timestamp_ms desc limit 1 \
         ) newest where names.name is not null order by category"
    )
}

/// What came after a time: scope, market, depth, categories, the time. The planner leaves the partitions before it out.
pub(super) fn after(schema: &Schema) -> String {
    format!(
        "select {} from {} where scope = $1 and market_type = $2 and depth = $3 and category = any($4) and timestamp_ms > $5",
        column_list(schema),
        schema.name
    )
}
