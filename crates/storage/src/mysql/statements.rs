//! The text of every writing statement, built from the declared schemas. There is no word about a particular table here.

use std::{collections::HashMap, ops::Range, sync::Arc};

use fathom_market::{
    batch::Batch,
    table::{Schema, Table},
};

use super::bind;

/// The protocol's limit of bound values in a statement.
const MAX_VARIABLES: usize = 65_535;
/// Beyond this a statement gains nothing and its preparation takes memory on both sides.
const MAX_ROWS: usize = 512;

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Adds rows whose keys must not be stored.
    Insert,
    /// Puts rows into the places of those with their keys.
    Replace,
    /// Reads the keys that are stored among some, and locks them.
    Keys,
    /// Reads the rows that are stored of some keys, and locks them.
    Rows,
}

/// Statements by table, kind and number of rows, built once. Numbers of rows are powers of two, so there are few.
#[derive(Debug, Default)]
pub(super) struct Statements(HashMap<(Table, Kind, usize), Arc<str>>);

impl Statements {
    pub(super) fn get(&mut self, table: Table, kind: Kind, rows: usize) -> Arc<str> {
        let built = self.0.entry((table, kind, rows)).or_insert_with(|| {
            let schema = table.schema();
            match kind {
                Kind::Insert => fill("insert", schema, rows),
                Kind::Replace => fill("replace", schema, rows),
                Kind::Keys => stored(schema, &schema.key.join(", "), rows),
                Kind::Rows => stored(schema, &column_list(schema), rows),
            }
            .into()
        });
        Arc::clone(built)
    }
}

/// Cuts positions into powers of two, the greatest first, that fit a statement and whose rows fit a message.
pub(super) fn chunks<'a>(
    batch: &'a Batch,
    rows: &'a [usize],
    max_packet: u64,
) -> impl Iterator<Item = &'a [usize]> {
    let most = MAX_ROWS.min(MAX_VARIABLES / batch.schema().columns.len().max(1)).max(1);
    let room = bind::room(max_packet);
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = rows.get(start..).filter(|left| !left.is_empty())?;
        let mut bytes = 0;
        let fitting = left.iter().take(most).take_while(|row| {
            bytes += batch.row_bytes(**row);
            bytes <= room
        });
        // One row goes alone, however great.
        let size = 1 << fitting.count().max(1).ilog2();
        let chunk: Range<usize> = start..start + size;
        start = chunk.end;
        rows.get(chunk)
    })
}

/// The names of all columns, separated by commas.
pub(super) fn column_list(schema: &Schema) -> String {
    schema.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

fn fill(verb: &str, schema: &Schema, rows: usize) -> String {
    let rows = vec![tuple(schema.columns.len()); rows].join(",");
    format!("{verb} into {} ({}) values {rows}", schema.name, column_list(schema))
}

fn stored(schema: &Schema, columns: &str, rows: usize) -> String {
    let keys = vec![tuple(schema.key.len()); rows].join(",");
    // The key's own tree is named: a poor estimate must not make this read and lock another.
    format!(
        "select {columns} from {} force index (primary) where ({}) in ({keys}) for update",
        schema.name,
        schema.key.join(", ")
    )
}

fn tuple(values: usize) -> String {
    format!("({})", vec!["?"; values].join(","))
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
                "select {start} >= ? or {compared} <=> ? from {table} where {identity} = ? \
                 order by {start} desc limit 1 for update"
            )
            .into(),
            end: format!("update {table} set valid_to_us = ? where {identity} = ? and valid_to_us is null")
                .into(),
        }
    }
}

/// Deletes the oldest rows: the age below which they go, then how many.
pub(super) fn expire(schema: &Schema, age: &str) -> String {
    format!("delete from {} where {age} < ? order by {age} limit ?", schema.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_follow_the_declared_schema() {
        let mut statements = Statements::default();
        let insert = statements.get(Table::CollectorState, Kind::Insert, 2);
        assert_eq!(
            &*insert,
            "insert into collector_state_raw (instrument_id, timeframe, last_timestamp_ms, last_updated_us, is_realtime) \
             values (?,?,?,?,?),(?,?,?,?,?)"
        );
        let keys = statements.get(Table::CollectorState, Kind::Keys, 1);
        assert_eq!(
            &*keys,
            "select instrument_id, timeframe from collector_state_raw force index (primary) \
             where (instrument_id, timeframe) in ((?,?)) for update"
        );
    }
}
