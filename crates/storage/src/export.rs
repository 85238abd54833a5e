//! Whole tables out of a store, page by page in the order of their keys, to be written into another. A page goes on after a
//! key, so it costs the same wherever it lies, and whoever is interrupted goes on where they were.

use std::fmt::Write as _;

use fathom_market::{
    batch::{Batch, Column},
    table::{ColumnKind, Schema, Table},
};
use rust_decimal::Decimal;
use serde_json::Value;

use crate::error::StoreError;

/// Rows of a page at most; a greater limit is taken as this.
pub const MAX_PAGE: u32 = 50_000;

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
    /// A decimal.
    Dec(Decimal),
}

/// The key of a row with its age, by which some stores keep rows in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<Part>);

/// The columns of a [`Key`].
fn names(schema: &Schema) -> Vec<&'static str> {
    let age = schema.age.map(|(age, _)| age).filter(|age| !schema.key.contains(age));
    schema.key.iter().copied().chain(age).collect()
}

impl Key {
    /// The key of a batch's last row.
    pub fn last(batch: &Batch) -> Option<Self> {
        let row = batch.len().checked_sub(1)?;
        let part = |name: &str| match batch.column(name)? {
            Column::Int(values) => values.get(row).copied().map(Part::Int),
            Column::Text(values) => values.get(row).cloned().map(Part::Text),
            Column::Dec(values) => values.get(row).copied().map(Part::Dec),
            _ => None,
        };
        names(batch.schema()).into_iter().map(part).collect::<Option<_>>().map(Self)
    }

    /// As JSON, to be kept; decimals are text.
    pub fn to_json(&self) -> Value {
        let value = |part: &Part| match part {
            Part::Int(value) => Value::from(*value),
            Part::Text(value) => Value::from(value.clone()),
            Part::Dec(value) => Value::from(value.to_string()),
        };
        self.0.iter().map(value).collect()
    }

    /// Reads what [`Key::to_json`] gave for this table.
    pub fn read(table: Table, json: &Value) -> Option<Self> {
        let (schema, values) = (table.schema(), json.as_array()?);
        let names = names(schema);
        if values.len() != names.len() {
            return None;
        }
        let part = |(name, value): (&&'static str, &Value)| match kind_of(schema, name)? {
            ColumnKind::Int => value.as_i64().map(Part::Int),
            ColumnKind::Text => value.as_str().map(|text| Part::Text(text.to_owned())),
            ColumnKind::Dec => Decimal::from_str_exact(value.as_str()?).ok().map(Part::Dec),
            _ => None,
        };
        names.iter().zip(values).map(part).collect::<Option<_>>().map(Self)
    }

    /// The values of these columns.
    fn values(&self, schema: &Schema, order: &[&str]) -> Vec<Part> {
        let names = names(schema);
        let value = |name: &&str| self.0.get(names.iter().position(|known| known == name)?).cloned();
        order.iter().filter_map(value).collect()
    }
}

fn kind_of(schema: &Schema, name: &str) -> Option<ColumnKind> {
    schema.columns.iter().find(|column| column.name == name).map(|column| column.kind)
}

/// A span of time, milliseconds UTC. Rows of tables without a time lie in every span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first time.
    pub since_ms: Option<i64>,
    /// The first time that is no longer in it.
    pub until_ms: Option<i64>,
}

/// Which rows are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Of this table.
    pub table: Table,
    /// Those behind this key; without it from the first.
    pub after: Option<Key>,
    /// Of this span.
    pub span: Span,
    /// So many at most.
    pub limit: u32,
}

/// The column that says where in time a row lies, and how many of its units are a millisecond: that by which rows age; of
/// candles, which do not age, their opening.
pub fn time_of(table: Table) -> Option<(&'static str, i64)> {
    if table == Table::Candles { Some(("open_ms", 1)) } else { table.schema().age }
}

/// How a store's language compares keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    /// `(a, b) > (x, y)`, which finds its place in an index.
    Rows,
    /// `a > x or (a = x and b > y)`: some stores find no index for the other form.
    Spelled,
}

/// A question as text with `?` for each value, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) sql: String,
    pub(crate) values: Vec<Part>,
}

impl Question {
    /// With `$1`, `$2`, ... instead of `?`; no text of ours has a `?` that is not a value.
    #[allow(dead_code, reason = "for stores that number their values")]
    pub(crate) fn numbered(mut self) -> Self {
        let mut parts = self.sql.split('?');
        let mut sql = parts.next().unwrap_or_default().to_owned();
        for (at, part) in parts.enumerate() {
            // Writing to a string does not fail.
            let _ = write!(sql, "${}{part}", at + 1);
        }
        self.sql = sql;
        self
    }
}

/// The rows of a page in an order that a row's key decides and the store has an index for.
pub(crate) fn rows(page: &Page, compare: Compare, order: &[&str]) -> Question {
    let schema = page.table.schema();
    let columns = schema.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
    let by = order.join(", ");
    let (mut conditions, mut values) = within(page.table, page.span);
    if let Some(after) = page.after.as_ref().map(|key| key.values(schema, order)) {
        match compare {
            Compare::Rows => {
                conditions.push(format!("({by}) > ({})", vec!["?"; after.len()].join(", ")));
                values.extend(after);
            }
            Compare::Spelled => conditions.push(spelled(order, &after, &mut values)),
        }
    }
    let (condition, limit) = (all(&conditions), page.limit.min(MAX_PAGE));
    let sql = format!("select {columns} from {} where {condition} order by {by} limit {limit}", schema.name);
    Question { sql, values }
}

/// How many rows lie in a span, as the column `rows_in_span`.
pub(crate) fn count(table: Table, span: Span) -> Question {
    let (conditions, values) = within(table, span);
    let name = table.schema().name;
    Question {
        sql: format!("select count(*) as rows_in_span from {name} where {}", all(&conditions)),
        values,
    }
}

fn all(conditions: &[String]) -> String {
    if conditions.is_empty() { "1 = 1".to_owned() } else { conditions.join(" and ") }
}

fn within(table: Table, span: Span) -> (Vec<String>, Vec<Part>) {
    let (mut conditions, mut values) = (Vec::new(), Vec::new());
    let Some((time, per_ms)) = time_of(table) else { return (conditions, values) };
    for (bound, sign) in [(span.since_ms, ">="), (span.until_ms, "<")] {
        if let Some(ms) = bound {
            conditions.push(format!("{time} {sign} ?"));
            values.push(Part::Int(ms.saturating_mul(per_ms)));
        }
    }
    (conditions, values)
}

fn spelled(order: &[&str], after: &[Part], values: &mut Vec<Part>) -> String {
    let mut ways = Vec::with_capacity(after.len());
    for at in 0..after.len() {
        let way = order.iter().zip(after).take(at + 1).enumerate().map(|(place, (name, value))| {
            values.push(value.clone());
            format!("{name} {} ?", if place == at { ">" } else { "=" })
        });
        ways.push(format!("({})", way.collect::<Vec<_>>().join(" and ")));
    }
    format!("({})", ways.join(" or "))
}

/// A row whose values are read by the position of their column.
pub(crate) trait Cells {
    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error>;
    fn text(&self, at: usize) -> Result<Option<String>, sqlx::Error>;
    fn dec(&self, at: usize) -> Result<Option<Decimal>, sqlx::Error>;
    fn flag(&self, at: usize) -> Result<Option<bool>, sqlx::Error>;
}

/// Stored rows as a batch of their table.
pub(crate) fn batch<R: Cells>(table: Table, rows: &[R]) -> Result<Batch, StoreError> {
    let specs = table.schema().columns.iter().enumerate();
    let columns = specs.map(|(at, spec)| {
        let column = column(spec.kind, at, rows);
        column.map_err(|error| StoreError::fatal(format!("stored value of {}: {error}", spec.name)))
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Batch::from_columns(table, columns).map_err(|error| StoreError::fatal(error.to_string()))
}

fn column<R: Cells>(kind: ColumnKind, at: usize, rows: &[R]) -> Result<Column, sqlx::Error> {
    fn there<T>(value: Option<T>) -> Result<T, sqlx::Error> {
        value.ok_or_else(|| sqlx::Error::Decode("null where a value should be".into()))
    }
    Ok(match kind {
        ColumnKind::Int => Column::Int(rows.iter().map(|row| there(row.int(at)?)).collect::<Result<_, _>>()?),
        ColumnKind::OptInt => Column::OptInt(rows.iter().map(|row| row.int(at)).collect::<Result<_, _>>()?),
        ColumnKind::Text => {
            Column::Text(rows.iter().map(|row| there(row.text(at)?)).collect::<Result<_, _>>()?)
        }
        ColumnKind::OptText => {
            Column::OptText(rows.iter().map(|row| row.text(at)).collect::<Result<_, _>>()?)
        }
        ColumnKind::Dec => Column::Dec(rows.iter().map(|row| there(row.dec(at)?)).collect::<Result<_, _>>()?),
        ColumnKind::OptDec => Column::OptDec(rows.iter().map(|row| row.dec(at)).collect::<Result<_, _>>()?),
        ColumnKind::Flag => {
            Column::Flag(rows.iter().map(|row| there(row.flag(at)?)).collect::<Result<_, _>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(table: Table, after: Option<Key>) -> Page {
        let span = Span { since_ms: Some(5), until_ms: None };
        Page { table, after, span, limit: 9 }
    }

    #[test]
    fn a_page_goes_on_after_a_key_in_both_spellings() {
        let parts = [Part::Int(7), Part::Text("agg".into()), Part::Text("11".into()), Part::Int(5001)];
        let (key, order) = (Key(parts.to_vec()), ["instrument_id", "kind", "trade_id"]);
        let rows_form = rows(&page(Table::Trades, Some(key.clone())), Compare::Rows, &order).numbered();
        let wanted = "where event_us >= $1 and (instrument_id, kind, trade_id) > ($2, $3, $4) \
                      order by instrument_id, kind, trade_id limit 9";
        assert!(rows_form.sql.ends_with(wanted), "{}", rows_form.sql);
        assert_eq!(rows_form.values[0], Part::Int(5000));
        let by_age = ["instrument_id", "event_us", "kind", "trade_id"];
        let aged = rows(&page(Table::Trades, Some(key.clone())), Compare::Rows, &by_age);
        assert_eq!(aged.values[1..], [&parts[0], &parts[3], &parts[1], &parts[2]].map(Part::clone));
        let spelled = rows(&page(Table::Trades, Some(key)), Compare::Spelled, &order);
        let wanted = "((instrument_id > ?) or (instrument_id = ? and kind > ?) or \
                      (instrument_id = ? and kind = ? and trade_id > ?))";
        assert!(spelled.sql.contains(wanted), "{}", spelled.sql);
        assert_eq!(spelled.sql.matches('?').count(), spelled.values.len());
    }

    #[test]
    fn a_table_without_a_time_lies_in_every_span() {
        assert!(rows(&page(Table::Instruments, None), Compare::Rows, &["instrument_id"]).values.is_empty());
        assert_eq!(rows(&page(Table::Candles, None), Compare::Rows, &["open_ms"]).values, [Part::Int(5)]);
    }

    #[test]
    fn every_key_can_be_kept() {
        for table in Table::ALL {
            let schema = table.schema();
            let parts = names(schema).into_iter().map(|name| match kind_of(schema, name) {
                Some(ColumnKind::Int) => Part::Int(-3),
                Some(ColumnKind::Text) => Part::Text("a'b".into()),
                Some(ColumnKind::Dec) => Part::Dec(Decimal::new(15, 1)),
                other => panic!("{name} is {other:?}"),
            });
            let key = Key(parts.collect());
            assert_eq!(Key::read(*table, &key.to_json()), Some(key), "{}", schema.name);
            assert_eq!(Key::read(*table, &serde_json::json!([])), None);
        }
    }
}
