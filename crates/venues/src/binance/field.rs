//! Reading single fields: what is missing, or cannot be used, is an error that names the field.

use fathom_market::decimal::{self, DecimalError};
use rust_decimal::Decimal;

use super::wire::Text;
use crate::error::DecodeError;

const MAX_QUOTED: usize = 64;
const MICROSECONDS_FROM: i64 = 100_000_000_000_000;

type Field<'f, 'a> = &'f Option<Text<'a>>;

/// A text cut to a length that is fit for a log line.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}

/// A text that must be there.
pub(super) fn text<'f>(field: Field<'f, '_>, name: &'static str) -> Result<&'f str, DecodeError> {
    field.as_ref().map(Text::as_str).ok_or(DecodeError::Missing(name))
}

fn unexpected(field: &'static str, value: &str) -> DecodeError {
    DecodeError::Unexpected { field, value: cut(value) }
}

fn number(field: &'static str, source: DecimalError) -> DecodeError {
    DecodeError::Number { field, source }
}

/// An id or a count.
pub(super) fn id(field: Field<'_, '_>, name: &'static str) -> Result<u64, DecodeError> {
    let text = text(field, name)?;
    text.parse().map_err(|_| unexpected(name, text))
}

/// An integer that may be negative.
pub(super) fn integer(field: Field<'_, '_>, name: &'static str) -> Result<i64, DecodeError> {
    let text = text(field, name)?;
    text.parse().map_err(|_| unexpected(name, text))
}

/// An integer that may be absent.
pub(super) fn integer_opt(field: Field<'_, '_>, name: &'static str) -> Result<Option<i64>, DecodeError> {
    field.is_some().then(|| integer(field, name)).transpose()
}

/// A mantissa on `scale`; prices and quantities are never negative.
pub(super) fn mantissa(field: Field<'_, '_>, name: &'static str, scale: u8) -> Result<i64, DecodeError> {
    let text = text(field, name)?;
    let value = decimal::parse_scaled(text.as_bytes(), scale).map_err(|source| number(name, source))?;
    if value < 0 { Err(unexpected(name, text)) } else { Ok(value) }
}

/// An exact decimal of either sign.
pub(super) fn signed(field: Field<'_, '_>, name: &'static str) -> Result<Decimal, DecodeError> {
    decimal::parse_decimal(text(field, name)?).map_err(|source| number(name, source))
}

/// An exact decimal that is not negative.
pub(super) fn amount(field: Field<'_, '_>, name: &'static str) -> Result<Decimal, DecodeError> {
    let value = signed(field, name)?;
    if value < Decimal::ZERO { Err(unexpected(name, text(field, name)?)) } else { Ok(value) }
}

/// An exact decimal that may be absent or empty.
pub(super) fn amount_opt(field: Field<'_, '_>, name: &'static str) -> Result<Option<Decimal>, DecodeError> {
    match field {
        Some(text) if !text.as_str().is_empty() => amount(field, name).map(Some),
        _ => Ok(None),
    }
}

/// Microseconds of a time of the venue: milliseconds, or microseconds where the socket was asked for them with
/// `timeUnit` (sheet section 3), which is told by the magnitude.
#[inline]
pub(super) const fn time_us(time: i64) -> i64 {
    if time >= MICROSECONDS_FROM { time } else { time.saturating_mul(1000) }
}

/// Milliseconds of a time of the venue.
pub(super) const fn time_ms(time: i64) -> i64 {
    if time >= MICROSECONDS_FROM { time / 1000 } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_magnitude() {
        assert_eq!(time_us(1_723_161_255_208), 1_723_161_255_208_000);
        assert_eq!(time_us(1_723_161_255_208_001), 1_723_161_255_208_001);
        assert_eq!(time_ms(1_723_161_255_208_001), 1_723_161_255_208);
    }

    #[test]
    fn an_unusable_number_is_named() {
        let field = |text: &str| Some(Text(text.to_owned().into()));
        assert_eq!(mantissa(&field("1.5"), "p", 0), Err(number("p", DecimalError::TooPrecise)));
        assert_eq!(mantissa(&field("-1"), "p", 0), Err(unexpected("p", "-1")));
        assert_eq!(amount(&None, "p"), Err(DecodeError::Missing("p")));
        assert_eq!(amount_opt(&field(""), "r"), Ok(None));
        assert_eq!(signed(&field("5E-8"), "r"), Ok(Decimal::new(5, 8)));
    }
}
