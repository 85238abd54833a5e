//! Stored rows as JSON and back, without a loss: columns by their names, decimals as text.

use fathom_market::{
    batch::{Batch, Column},
    decimal::parse_decimal,
    table::CategorySnapshotRow,
};
use rust_decimal::Decimal;
use serde_json::{Map, Value};

/// A row of a batch as a JSON object.
pub fn row_json(batch: &Batch, at: usize) -> String {
    let names = batch.schema().columns.iter().map(|column| column.name.to_owned());
    let object: Map<String, Value> =
        names.zip(batch.columns().iter().map(|column| cell(column, at))).collect();
    Value::Object(object).to_string()
}

fn cell(column: &Column, at: usize) -> Value {
    let text = |value: &Decimal| Value::from(value.normalize().to_string());
    let found = match column {
        Column::Int(values) => values.get(at).map(|value| Value::from(*value)),
        Column::OptInt(values) => values.get(at).map(|value| Value::from(*value)),
        Column::Text(values) => values.get(at).map(|value| Value::from(value.as_str())),
        Column::OptText(values) => values.get(at).map(|value| Value::from(value.as_deref())),
        Column::Dec(values) => values.get(at).map(text),
        Column::OptDec(values) => values.get(at).and_then(|value| value.as_ref().map(text)),
        Column::Flag(values) => values.get(at).map(|value| Value::from(*value)),
    };
    found.unwrap_or(Value::Null)
}

/// A column of a row by its name.
pub(crate) struct RowView<'a> {
    batch: &'a Batch,
    at: usize,
}

impl<'a> RowView<'a> {
    pub(crate) const fn new(batch: &'a Batch, at: usize) -> Self {
        Self { batch, at }
    }

    fn column(&self, name: &str) -> Option<&'a Column> {
        let at = self.batch.schema().columns.iter().position(|column| column.name == name)?;
        self.batch.columns().get(at)
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        match self.column(name)? {
            Column::Int(values) => values.get(self.at).copied(),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        match self.column(name)? {
            Column::Text(values) => values.get(self.at).map(String::as_str),
            _ => None,
        }
    }

    pub(crate) fn depth(&self) -> Option<String> {
        match self.column("depth")? {
            Column::Dec(values) => values.get(self.at).map(|depth| depth_text(*depth)),
            _ => None,
        }
    }
}

/// A depth as it stands in keys: without trailing zeros.
pub fn depth_text(depth: Decimal) -> String {
    depth.normalize().to_string()
}

/// Reads what [`row_json`] wrote of a category's snapshot; `None` when a column is missing or of another kind.
pub fn category_row(json: &str) -> Option<CategorySnapshotRow> {
    let value: Value = serde_json::from_str(json).ok()?;
    let int = |name: &str| value.get(name)?.as_i64();
    let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let dec = |name: &str| parse_decimal(value.get(name)?.as_str()?).ok();
    Some(CategorySnapshotRow {
        scope: text("scope")?,
        market_type: text("market_type")?,
        category: text("category")?,
        depth: dec("depth")?,
        timestamp_ms: int("timestamp_ms")?,
        total_bid_volume: dec("total_bid_volume")?,
        total_ask_volume: dec("total_ask_volume")?,
        total_bid_volume_usd: dec("total_bid_volume_usd")?,
        total_ask_volume_usd: dec("total_ask_volume_usd")?,
        avg_price: match value.get("avg_price")? {
            Value::Null => None,
            _ => Some(dec("avg_price")?),
        },
        symbol_count: int("symbol_count")?,
        member_count: int("member_count")?,
        bid_covered: int("bid_covered")?,
        ask_covered: int("ask_covered")?,
        stale_count: int("stale_count")?,
        unpriced_count: int("unpriced_count")?,
        created_us: int("created_us")?,
    })
}
