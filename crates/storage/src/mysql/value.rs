//! One value of a row, as a batch has it and as the store gives it back: equal when a reader could not tell them apart.

use fathom_market::{
    batch::{Batch, Column},
    table::ColumnKind,
};
use rust_decimal::Decimal;
use sqlx::{Arguments as _, Row as _, error::BoxDynError, mysql::MySqlArguments, mysql::MySqlRow};

/// One value. Decimals are equal whatever their trailing zeros.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Value {
    Null,
    Int(i64),
    Flag(bool),
    Dec(Decimal),
    Text(String),
}

impl Value {
    /// The value of a row; null where the column has none.
    pub(super) fn of(column: &Column, row: usize) -> Self {
        let value = match column {
            Column::Int(values) => values.get(row).copied().map(Self::Int),
            Column::OptInt(values) => values.get(row).copied().flatten().map(Self::Int),
            Column::Text(values) => values.get(row).cloned().map(Self::Text),
            Column::OptText(values) => values.get(row).cloned().flatten().map(Self::Text),
            Column::Dec(values) => values.get(row).copied().map(Self::Dec),
            Column::OptDec(values) => values.get(row).copied().flatten().map(Self::Dec),
            Column::Flag(values) => values.get(row).copied().map(Self::Flag),
        };
        value.unwrap_or(Self::Null)
    }

    /// A stored value by its position.
    pub(super) fn read(row: &MySqlRow, at: usize, kind: ColumnKind) -> Result<Self, sqlx::Error> {
        let value = match kind {
            ColumnKind::Int | ColumnKind::OptInt => row.try_get::<Option<i64>, _>(at)?.map(Self::Int),
            ColumnKind::Text | ColumnKind::OptText => row.try_get::<Option<String>, _>(at)?.map(Self::Text),
            ColumnKind::Dec | ColumnKind::OptDec => row.try_get::<Option<Decimal>, _>(at)?.map(Self::Dec),
            ColumnKind::Flag => row.try_get::<Option<bool>, _>(at)?.map(Self::Flag),
        };
        Ok(value.unwrap_or(Self::Null))
    }

    /// The next argument of a statement.
    pub(super) fn bind(&self, arguments: &mut MySqlArguments) -> Result<(), BoxDynError> {
        match self {
            Self::Null => arguments.add(None::<i64>),
            Self::Int(value) => arguments.add(*value),
            Self::Flag(value) => arguments.add(*value),
            Self::Dec(value) => arguments.add(*value),
            Self::Text(value) => arguments.add(value.as_str()),
        }
    }
}

/// The values of some columns in a row.
pub(super) fn values(batch: &Batch, columns: &[usize], row: usize) -> Vec<Value> {
    let column = |at: &usize| batch.columns().get(*at).map_or(Value::Null, |column| Value::of(column, row));
    columns.iter().map(column).collect()
}

/// Where the named columns stand in the batch's table.
pub(super) fn positions(batch: &Batch, names: &[&str]) -> Vec<usize> {
    let columns = batch.schema().columns;
    names.iter().filter_map(|name| columns.iter().position(|column| column.name == *name)).collect()
}
