//! Values of a batch as arguments of a statement, and the rows that no statement may carry.

use fathom_market::batch::{Batch, Column};
use sqlx::{Arguments as _, error::BoxDynError, mysql::MySqlArguments};

use crate::{sqlite::bind::misfits as too_wide, store::PoisonRow};

/// What a message holds beside the values, bytes.
const ENVELOPE: u64 = 64 * 1024;

/// The rows at these positions as arguments, row after row.
pub(super) fn rows(batch: &Batch, rows: &[usize]) -> Result<MySqlArguments, BoxDynError> {
    let mut arguments = MySqlArguments::default();
    arguments.reserve(rows.len() * batch.columns().len(), 0);
    for &row in rows {
        for column in batch.columns() {
            cell(&mut arguments, column, row)?;
        }
    }
    Ok(arguments)
}

/// One value as the next argument.
pub(super) fn cell(arguments: &mut MySqlArguments, column: &Column, row: usize) -> Result<(), BoxDynError> {
    match column {
        Column::Int(values) => arguments.add(at(values, row)?),
        Column::OptInt(values) => arguments.add(at(values, row)?),
        Column::Text(values) => arguments.add(at(values, row)?.as_str()),
        Column::OptText(values) => arguments.add(at(values, row)?.as_deref()),
        Column::Dec(values) => arguments.add(at(values, row)?),
        Column::OptDec(values) => arguments.add(at(values, row)?),
        Column::Flag(values) => arguments.add(at(values, row)?),
    }
}

fn at<T>(values: &[T], row: usize) -> Result<&T, BoxDynError> {
    values.get(row).ok_or_else(|| format!("row {row} is missing in a column").into())
}

/// The bytes that the rows of one message may take.
pub(super) const fn room(max_packet: u64) -> u64 {
    max_packet.saturating_sub(ENVELOPE)
}

/// The rows that are refused before anything is sent: a decimal wider than its column, a key that ends with a blank, which the
/// server does not tell from one without, and a row greater than a message.
pub(super) fn misfits(batch: &Batch, max_packet: u64) -> Vec<PoisonRow> {
    let mut misfits = too_wide(batch);
    for name in batch.schema().key {
        let Some(Column::Text(values)) = batch.column(name) else { continue };
        let blank = values.iter().enumerate().filter(|(_, value)| value.ends_with(' '));
        misfits.extend(
            blank.map(|(row, value)| PoisonRow { row, error: format!("{name} {value:?} ends with a blank") }),
        );
    }
    let too_long = (0..batch.len())
        .map(|row| (row, batch.row_bytes(row)))
        .filter(|(_, bytes)| *bytes > room(max_packet));
    misfits.extend(too_long.map(|(row, bytes)| PoisonRow {
        row,
        error: format!("a row of {bytes} bytes does not fit max_allowed_packet, {max_packet}"),
    }));
    misfits.sort_by_key(|poison| poison.row);
    misfits.dedup_by_key(|poison| poison.row);
    misfits
}
