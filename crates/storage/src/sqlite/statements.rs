//! The text of every writing statement, built from the declared schemas. There is no word about a particular table here.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use fathom_market::table::{Conflict, Schema, Table};

/// SQLite's limit of bound values in a statement, `SQLITE_MAX_VARIABLE_NUMBER`.
const MAX_VARIABLES: usize = 32_766;
/// Beyond this a statement gains nothing and its program takes memory.
const MAX_ROWS: usize = 1024;

/// Insert statements by table and number of rows, built once. Numbers of rows are powers of two, so there are few.
#[derive(Debug, Default)]
pub(super) struct Inserts(HashMap<(Table, usize), Arc<str>>);

impl Inserts {
    pub(super) fn get(&mut self, table: Table, rows: usize) -> Arc<str> {
        let built = self.0.entry((table, rows)).or_insert_with(|| insert(table.schema(), rows).into());
        Arc::clone(built)
    }
}

/// Cuts a number of rows into powers of two that fit a statement, greatest first.
pub(super) fn chunks(schema: &Schema, rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let most = MAX_ROWS.min(MAX_VARIABLES / schema.columns.len().max(1)).max(1);
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = (rows - start).min(most);
        let size = 1 << left.checked_ilog2()?;
        let chunk = start..start + size;
        start = chunk.end;
        Some(chunk)
    })
}

/// The names of all columns, separated by commas.
pub(super) fn column_list(schema: &Schema) -> String {
    schema.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

fn insert(schema: &Schema, rows: usize) -> String {
    let mut row = "(".to_owned();
    row.push_str(&vec!["?"; schema.columns.len()].join(","));
    row.push(')');
    let mut sql = format!("insert into {} ({}) values ", schema.name, column_list(schema));
    sql.push_str(&vec![row; rows].join(","));
    sql.push_str(&on_conflict(schema));
    sql
}

fn on_conflict(schema: &Schema) -> String {
    let key = schema.key.join(", ");
    let Conflict::Newest(by) = schema.conflict else {
        return format!(" on conflict ({key}) do nothing");
    };
    let values: Vec<&str> =
        schema.columns.iter().map(|column| column.name).filter(|name| !schema.key.contains(name)).collect();
    let set = values.iter().map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
    // A tie replaces, but the same row again is a duplicate: it must change nothing and count as nothing.
    let table = schema.name;
    let mut sql = format!(" on conflict ({key}) do update set {set} where excluded.{by} > {table}.{by}");
    let differs = values
        .iter()
        .filter(|name| **name != by)
        .map(|name| format!("excluded.{name} is not {table}.{name}"));
    let differs = differs.collect::<Vec<_>>().join(" or ");
    if !differs.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(sql, " or (excluded.{by} = {table}.{by} and ({differs}))");
    }
    sql
}

/// The statements of a table of validity rows. Its key is the identity, then the start of the period.
#[derive(Debug)]
pub(super) struct Versioned {
    /// Whether a row adds nothing to the newest of its identity: its start, its compared value, its identity.
    pub(super) known: Arc<str>,
    /// Ends the row in force: the end, then the identity.
    pub(super) end: Arc<str>,
}

impl Versioned {
    pub(super) fn new(schema: &Schema, compared: &str) -> Self {
        let table = schema.name;
        let identity = schema.key.first().copied().unwrap_or_default();
        let start = schema.key.get(1).copied().unwrap_or_default();
        Self {
            known: format!(
                "select {start} >= ? or {compared} is ? from {table} where {identity} = ? order by {start} desc limit 1"
            )
            .into(),
            end: format!("update {table} set valid_to_us = ? where {identity} = ? and valid_to_us is null").into(),
        }
    }
}

/// Deletes the oldest rows: the age below which they go, then how many.
pub(super) fn expire(schema: &Schema, age: &str) -> String {
    let table = schema.name;
    let key = schema.key.join(", ");
    format!(
        "delete from {table} where ({key}) in (select {key} from {table} where {age} < ? order by {age} limit ?)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_every_row_once_and_fit_the_limit() {
        for table in Table::ALL {
            let schema = table.schema();
            for rows in [0, 1, 2, 3, 1000, 1024, 5000, 5001] {
                let mut next = 0;
                for chunk in chunks(schema, rows) {
                    assert_eq!(chunk.start, next);
                    assert!(chunk.len().is_power_of_two());
                    assert!(chunk.len() * schema.columns.len() <= MAX_VARIABLES);
                    next = chunk.end;
                }
                assert_eq!(next, rows);
            }
        }
    }

    #[test]
    fn statements_follow_the_policy() {
        let mut inserts = Inserts::default();
        let ticks = inserts.get(Table::BookTicker, 2);
        assert!(
            ticks.ends_with("on conflict (instrument_id, update_id, event_us, ordinal) do nothing"),
            "{ticks}"
        );
        assert_eq!(ticks.matches("(?,").count(), 2);
        let state = inserts.get(Table::CollectorState, 1);
        assert!(
            state.contains("where excluded.last_timestamp_ms > collector_state_raw.last_timestamp_ms"),
            "{state}"
        );
        assert!(!state.contains("set instrument_id"), "{state}");
    }
}
