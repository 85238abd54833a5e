//! Values of a batch as arguments of a statement: decimals become plain text without trailing zeros, mantissas stay integers.

use fathom_market::{
    batch::{Batch, Column},
    decimal::{COLUMN_SCALE, fit_column},
};
use rust_decimal::Decimal;
use sqlx::{Arguments as _, error::BoxDynError, sqlite::SqliteArguments};

use crate::store::PoisonRow;

/// Below this mantissa a decimal of at most [`COLUMN_SCALE`] decimals fits the column whatever its scale.
const SURE_MANTISSA: i128 = 10_000_000_000_000_000;

/// The rows at these positions as arguments, row after row.
pub(super) fn rows(batch: &Batch, rows: &[usize]) -> Result<SqliteArguments, BoxDynError> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(rows.len() * batch.columns().len(), 0);
    for &row in rows {
        for column in batch.columns() {
            cell(&mut arguments, column, row)?;
        }
    }
    Ok(arguments)
}

/// One value as the next argument.
pub(super) fn cell(arguments: &mut SqliteArguments, column: &Column, row: usize) -> Result<(), BoxDynError> {
    match column {
        Column::Int(values) => arguments.add(at(values, row)?),
        Column::OptInt(values) => arguments.add(at(values, row)?),
        Column::Text(values) => arguments.add(at(values, row)?.as_str()),
        Column::OptText(values) => arguments.add(at(values, row)?.as_deref()),
        Column::Dec(values) => arguments.add(text(*at(values, row)?)),
        Column::OptDec(values) => arguments.add(at(values, row)?.map(text)),
        Column::Flag(values) => arguments.add(i64::from(*at(values, row)?)),
    }
}

fn at<T>(values: &[T], row: usize) -> Result<&T, BoxDynError> {
    values.get(row).ok_or_else(|| format!("row {row} is missing in a column").into())
}

/// A decimal as it is stored.
pub(super) fn text(value: Decimal) -> String {
    value.normalize().to_string()
}

/// The rows that hold a decimal wider than `numeric(28,12)`, which every store refuses alike.
pub(crate) fn misfits(batch: &Batch) -> Vec<PoisonRow> {
    let mut misfits = Vec::new();
    for (spec, column) in batch.schema().columns.iter().zip(batch.columns()) {
        let mut check = |row: usize, value: Decimal| {
            if !fits(value) {
                misfits.push(PoisonRow {
                    row,
                    error: format!("{} {value} does not fit numeric(28,12)", spec.name),
                });
            }
        };
        match column {
            Column::Dec(values) => values.iter().enumerate().for_each(|(row, value)| check(row, *value)),
            Column::OptDec(values) => {
                values.iter().enumerate().for_each(|(row, value)| {
                    if let Some(value) = value {
                        check(row, *value);
                    }
                });
            }
            _ => {}
        }
    }
    misfits.sort_by_key(|poison| poison.row);
    misfits.dedup_by_key(|poison| poison.row);
    misfits
}

fn fits(value: Decimal) -> bool {
    let sure = value.scale() <= COLUMN_SCALE && value.mantissa().abs() < SURE_MANTISSA;
    sure || fit_column(value).is_ok_and(|fitted| !fitted.rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_plain_and_normalized() {
        assert_eq!(text(Decimal::new(500, 10)), "0.00000005");
        assert_eq!(text(Decimal::new(-120, 1)), "-12");
        assert_eq!(text(-Decimal::ZERO), "0");
        assert_eq!(text(Decimal::new(1500, 0)), "1500");
    }

    #[test]
    fn the_column_holds_sixteen_and_twelve_digits() {
        let cases = [
            ("9999999999999999.999999999999", true),
            ("10000000000000000", false),
            ("0.000000000001", true),
            ("0.0000000000001", false),
            ("0.0000000000010000", true),
            ("-12345678901.25", true),
        ];
        for (number, expected) in cases {
            assert_eq!(fits(number.parse().unwrap()), expected, "{number}");
        }
    }
}
