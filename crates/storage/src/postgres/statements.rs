//! The text of the writing statements, built from the declared schemas. There is no word about a particular table here.

use fathom_market::table::{Conflict, Schema};

use super::layout::key;

/// The names of all columns, separated by commas.
pub(super) fn column_list(schema: &Schema) -> String {
    schema.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

/// Rows in binary form straight into a table.
pub(super) fn copy_into(table: &str, schema: &Schema) -> String {
    format!("copy {table} ({}) from stdin (format binary)", column_list(schema))
}

/// The connection's own table of rows that come to be merged; it is empty at the end of every transaction.
pub(super) fn stage_name(schema: &Schema) -> String {
    format!("fathom_stage_{}", schema.name)
}

/// Makes the stage where it is missing.
pub(super) fn stage(schema: &Schema) -> String {
    format!(
        "create temp table if not exists {} (like {}) on commit delete rows",
        stage_name(schema),
        schema.name
    )
}

/// Merges the stage into its table by the table's policy: of rows with the same key the first staged comes first. Updates go
/// in the order of the key, so that two writers of the same rows wait for each other instead of locking each other out.
pub(super) fn merge(schema: &Schema) -> String {
    let (table, columns, stage) = (schema.name, column_list(schema), stage_name(schema));
    let key = key(schema).join(", ");
    let insert = format!("insert into {table} ({columns}) select {columns} from {stage}");
    let Conflict::Newest(by) = schema.conflict else {
        return format!("{insert} on conflict ({key}) do nothing");
    };
    let values = schema.columns.iter().map(|column| column.name).filter(|name| !schema.key.contains(name));
    let values: Vec<&str> = values.collect();
    let set = values.iter().map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
    let differs = values
        .iter()
        .filter(|name| **name != by)
        .map(|name| format!("excluded.{name} is distinct from {table}.{name}"))
        .collect::<Vec<_>>();
    // A tie replaces, but the same row again is a duplicate: it must change nothing and count as nothing.
    let tie = match differs.as_slice() {
        [] => String::new(),
        differs => format!(" or (excluded.{by} = {table}.{by} and ({}))", differs.join(" or ")),
    };
    format!(
        "{insert} order by {key} on conflict ({key}) do update set {set} where excluded.{by} > {table}.{by}{tie}"
    )
}

/// The statements of a table of validity rows. Its key is the identity, then the start of the period.
#[derive(Debug)]
pub(super) struct Versioned {
    /// Keeps other writers away until the end of the transaction: what one reads, another must not outdate.
    pub(super) lock: String,
    /// Whether a row adds nothing to the newest of its identity: its start, its compared value, its identity.
    pub(super) known: String,
    /// Ends the row in force: the end, then the identity.
    pub(super) end: String,
    /// Adds a row.
    pub(super) insert: String,
}

impl Versioned {
    pub(super) fn new(schema: &Schema, compared: &str) -> Self {
        let table = schema.name;
        let identity = schema.key.first().copied().unwrap_or_default();
        let start = schema.key.get(1).copied().unwrap_or_default();
        let places = (1..=schema.columns.len()).map(|at| format!("${at}")).collect::<Vec<_>>().join(", ");
        Self {
            lock: format!("lock table {table} in share row exclusive mode"),
            known: format!(
                "select {start} >= $1 or {compared} is not distinct from $2 from {table} where {identity} = $3 \
                 order by {start} desc limit 1"
            ),
            end: format!("update {table} set valid_to_us = $1 where {identity} = $2 and valid_to_us is null"),
            insert: format!("insert into {table} ({}) values ({places})", column_list(schema)),
        }
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::table::Table;

    use super::*;

    #[test]
    fn statements_follow_the_policy() {
        let ticks = merge(Table::BookTicker.schema());
        assert!(
            ticks.ends_with("on conflict (instrument_id, event_us, update_id, ordinal) do nothing"),
            "{ticks}"
        );
        let state = merge(Table::CollectorState.schema());
        assert!(
            state.contains("where excluded.last_timestamp_ms > collector_state_raw.last_timestamp_ms"),
            "{state}"
        );
        assert!(!state.contains("set instrument_id"), "{state}");
    }
}
