//! Values of a batch as arguments of a statement, for the few that are written row by row.

use fathom_market::batch::Column;
use sqlx::{Arguments as _, error::BoxDynError, postgres::PgArguments};

/// One row of these columns as arguments.
pub(super) fn arguments(columns: &[&Column], row: usize) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for column in columns {
        cell(&mut arguments, column, row).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn cell(arguments: &mut PgArguments, column: &Column, row: usize) -> Result<(), BoxDynError> {
    match column {
        Column::Int(values) => arguments.add(*at(values, row)?),
        Column::OptInt(values) => arguments.add(*at(values, row)?),
        Column::Text(values) => arguments.add(at(values, row)?.as_str()),
        Column::OptText(values) => arguments.add(at(values, row)?.as_deref()),
        Column::Dec(values) => arguments.add(*at(values, row)?),
        Column::OptDec(values) => arguments.add(*at(values, row)?),
        Column::Flag(values) => arguments.add(*at(values, row)?),
    }
}

fn at<T>(values: &[T], row: usize) -> Result<&T, BoxDynError> {
    values.get(row).ok_or_else(|| format!("row {row} is missing in a column").into())
}
