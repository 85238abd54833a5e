//! Rows of a batch in the binary form of `COPY`, and what that form or its columns cannot hold.
//! Format: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>.

use fathom_market::{
    batch::{Batch, Column},
    decimal::{COLUMN_SCALE, fit_column},
};
use rust_decimal::Decimal;

use crate::store::PoisonRow;

/// Signature, flags, length of the header's extension.
pub(super) const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A field count that ends the rows.
pub(super) const TRAILER: [u8; 2] = [0xff, 0xff];
/// A length that stands for null.
const NULL: [u8; 4] = [0xff; 4];
/// Below this mantissa a decimal of at most [`COLUMN_SCALE`] decimals fits the column whatever its scale.
const SURE_MANTISSA: u128 = 10_000_000_000_000_000;
const NEGATIVE: u16 = 0x4000;
/// Decimal digits in a digit of the server's.
const GROUP: u32 = 4;
const GROUP_BASE: u64 = 10_000;
/// Groups of 28 digits that need not begin at a group's edge.
const GROUPS: usize = 8;

/// Appends a row.
pub(super) fn row(out: &mut Vec<u8>, batch: &Batch, row: usize) {
    let columns = batch.columns();
    out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
    for column in columns {
        cell(out, column, row);
    }
}

/// Appends a value with its length; one that is missing in its column is null, which its table refuses.
pub(super) fn cell(out: &mut Vec<u8>, column: &Column, row: usize) {
    match column {
        Column::Int(values) => int(out, values.get(row).copied()),
        Column::OptInt(values) => int(out, values.get(row).copied().flatten()),
        Column::Text(values) => text(out, values.get(row).map(String::as_str)),
        Column::OptText(values) => text(out, values.get(row).and_then(Option::as_deref)),
        Column::Dec(values) => numeric(out, values.get(row).copied()),
        Column::OptDec(values) => numeric(out, values.get(row).copied().flatten()),
        Column::Flag(values) => match values.get(row) {
            Some(value) => out.extend_from_slice(&[0, 0, 0, 1, u8::from(*value)]),
            None => out.extend_from_slice(&NULL),
        },
    }
}

fn int(out: &mut Vec<u8>, value: Option<i64>) {
    let Some(value) = value else { return out.extend_from_slice(&NULL) };
    out.extend_from_slice(&8_u32.to_be_bytes());
    out.extend_from_slice(&value.to_be_bytes());
}

fn text(out: &mut Vec<u8>, value: Option<&str>) {
    let Some(value) = value else { return out.extend_from_slice(&NULL) };
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// Groups of four digits to both sides of the point, without zeros at either end: equal numbers are equal bytes.
fn numeric(out: &mut Vec<u8>, value: Option<Decimal>) {
    let Some(value) = value else { return out.extend_from_slice(&NULL) };
    let value = if value.scale() > COLUMN_SCALE { value.normalize() } else { value };
    let padding = (GROUP - value.scale() % GROUP) % GROUP;
    let mut rest = value.mantissa().unsigned_abs() * 10_u128.pow(padding);
    let mut weight = -1 - ((value.scale() + padding) / GROUP).cast_signed();
    let (mut groups, mut used) = ([0_u16; GROUPS], 0);
    for slot in groups.iter_mut().rev() {
        let group = match u64::try_from(rest) {
            Ok(0) => break,
            // Divisions of 128 bits are slow, and rare: most numbers fit in 64.
            Ok(small) => {
                rest = u128::from(small / GROUP_BASE);
                small % GROUP_BASE
            }
            Err(_) => {
                let group = (rest % u128::from(GROUP_BASE)) as u64;
                rest /= u128::from(GROUP_BASE);
                group
            }
        };
        *slot = group as u16;
        used += 1;
        weight += 1;
    }
    let digits = groups.get(GROUPS - used..).unwrap_or_default();
    let zeros = digits.iter().rev().take_while(|group| **group == 0).count();
    let digits = digits.get(..used - zeros).unwrap_or_default();
    let weight = if digits.is_empty() { 0 } else { weight };
    let sign = if value.is_sign_negative() && !digits.is_empty() { NEGATIVE } else { 0 };
    out.extend_from_slice(&(8 + 2 * digits.len() as u32).to_be_bytes());
    for part in [digits.len() as u16, (weight as i16).cast_unsigned(), sign, COLUMN_SCALE as u16] {
        out.extend_from_slice(&part.to_be_bytes());
    }
    for digit in digits {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// The rows that the store refuses whatever their table says: a decimal wider than `numeric(28,12)`, a zero byte in a text.
pub(super) fn misfits(batch: &Batch) -> Vec<PoisonRow> {
    let mut misfits = Vec::new();
    for (spec, column) in batch.schema().columns.iter().zip(batch.columns()) {
        let mut refuse = |row, error| misfits.push(PoisonRow { row, error });
        let wide = |value: &Decimal| {
            (!fits(*value)).then(|| format!("{} {value} does not fit numeric(28,12)", spec.name))
        };
        let zero =
            |text: &str| text.as_bytes().contains(&0).then(|| format!("{} holds a zero byte", spec.name));
        let mut each = |errors: &mut dyn Iterator<Item = Option<String>>| {
            errors
                .enumerate()
                .filter_map(|(row, error)| Some((row, error?)))
                .for_each(|(row, error)| refuse(row, error));
        };
        match column {
            Column::Dec(values) => each(&mut values.iter().map(wide)),
            Column::OptDec(values) => each(&mut values.iter().map(|value| value.as_ref().and_then(wide))),
            Column::Text(values) => each(&mut values.iter().map(|text| zero(text))),
            Column::OptText(values) => each(&mut values.iter().map(|text| text.as_deref().and_then(zero))),
            Column::Int(_) | Column::OptInt(_) | Column::Flag(_) => {}
        }
    }
    misfits.sort_by_key(|poison| poison.row);
    misfits.dedup_by_key(|poison| poison.row);
    misfits
}

fn fits(value: Decimal) -> bool {
    let sure = value.scale() <= COLUMN_SCALE && value.mantissa().unsigned_abs() < SURE_MANTISSA;
    sure || fit_column(value).is_ok_and(|fitted| !fitted.rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> Vec<i32> {
        let mut out = Vec::new();
        numeric(&mut out, Some(text.parse().unwrap()));
        out[4..].chunks(2).map(|part| i32::from(i16::from_be_bytes([part[0], part[1]]))).collect()
    }

    #[test]
    fn numbers_are_groups_of_four_digits_around_the_point() {
        // Groups, weight of the first, sign, decimals; then the groups.
        assert_eq!(encoded("0"), [0, 0, 0, 12]);
        assert_eq!(encoded("-0.00"), [0, 0, 0, 12]);
        assert_eq!(encoded("1"), [1, 0, 0, 12, 1]);
        assert_eq!(encoded("-12.5"), [2, 0, 0x4000, 12, 12, 5000]);
        assert_eq!(encoded("10000"), [1, 1, 0, 12, 1]);
        assert_eq!(encoded("0.00000005"), [1, -2, 0, 12, 5]);
        assert_eq!(encoded("123456.789"), [3, 1, 0, 12, 12, 3456, 7890]);
        let widest = [7, 3, 0, 12, 9999, 9999, 9999, 9999, 9999, 9999, 9999];
        assert_eq!(encoded("9999999999999999.999999999999"), widest);
        assert_eq!(encoded("0.0000000000010000000000000"), [1, -3, 0, 12, 1]);
    }

    #[test]
    fn equal_numbers_are_equal_bytes() {
        assert_eq!(encoded("1.50"), encoded("1.5"));
        assert_eq!(encoded("20000.0000"), encoded("20000"));
    }
}
