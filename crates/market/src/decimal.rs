//! Exact decimals. A number is read from its text into an integer mantissa on a known scale, or into a
//! [`Decimal`]; what does not fit is an error, never a rounded or a zero value.

use rust_decimal::{Decimal, RoundingStrategy};
use thiserror::Error;

/// The greatest number of decimals that a mantissa's scale may have.
pub const MAX_SCALE: u8 = 18;
/// Decimals of a stored column, `numeric(28,12)`.
pub const COLUMN_SCALE: u32 = 12;
const COLUMN_INTEGER_LIMIT: i64 = 10_000_000_000_000_000;

/// Why a text is not a usable decimal.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecimalError {
    /// There is no text.
    #[error("empty number")]
    Empty,
    /// The text is not a decimal number.
    #[error("not a decimal number")]
    NotANumber,
    /// The number has more decimals than the scale holds.
    #[error("more decimals than the scale holds")]
    TooPrecise,
    /// The number is too large for its type.
    #[error("number out of range")]
    OutOfRange,
}

/// `10^scale`; `scale` is at most [`MAX_SCALE`].
pub const fn power_of_ten(scale: u8) -> i64 {
    let mut unit = 1_i64;
    let mut i = 0;
    while i < scale {
        unit *= 10;
        i += 1;
    }
    unit
}

/// A decimal text cut into sign, digits and the power of ten of its last digit; leading and trailing zeros are gone.
struct Parts {
    negative: bool,
    mantissa: i128,
    exponent: i32,
}

/// Reads `-12.340`, `5E-8`, `1e+3`, `.5`, `5.`. Not accepted: `+`-signed, `NaN`, `inf`, blanks, digit separators.
fn parts(text: &[u8]) -> Result<Parts, DecimalError> {
    if text.is_empty() {
        return Err(DecimalError::Empty);
    }
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut mantissa: i128 = 0;
    let mut pending_zeros: i32 = 0;
    let mut exponent: i32 = 0;
    let (mut digits, mut seen_point) = (0_usize, false);
    let mut at = 0;
    while let Some(&byte) = rest.get(at) {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                if seen_point {
                    exponent -= 1;
                }
                // Zeros wait until a digit follows, so that "1.50000000000000000000000000000000000000000" fits.
                if byte == b'0' {
                    pending_zeros += i32::from(mantissa != 0);
                } else {
                    mantissa = append(mantissa, pending_zeros, byte)?;
                    pending_zeros = 0;
                }
            }
            b'.' if !seen_point => seen_point = true,
            b'e' | b'E' => {
                exponent =
                    exponent.checked_add(exponent_of(&rest[at + 1..])?).ok_or(DecimalError::OutOfRange)?;
                at = rest.len();
                continue;
            }
            _ => return Err(DecimalError::NotANumber),
        }
        at += 1;
    }
    if digits == 0 {
        return Err(DecimalError::NotANumber);
    }
    let exponent = if mantissa == 0 { 0 } else { exponent + pending_zeros };
    Ok(Parts { negative, mantissa, exponent })
}

fn append(mantissa: i128, zeros: i32, digit: u8) -> Result<i128, DecimalError> {
    let shift = 10_i128.checked_pow(zeros.unsigned_abs() + 1).ok_or(DecimalError::OutOfRange)?;
    mantissa
        .checked_mul(shift)
        .and_then(|shifted| shifted.checked_add(i128::from(digit - b'0')))
        .ok_or(DecimalError::OutOfRange)
}

fn exponent_of(text: &[u8]) -> Result<i32, DecimalError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecimalError::NotANumber);
    }
    let magnitude = digits.iter().try_fold(0_i32, |value, digit| {
        value.checked_mul(10)?.checked_add(i32::from(digit - b'0')).filter(|value| *value < 100_000)
    });
    let magnitude = magnitude.ok_or(DecimalError::OutOfRange)?;
    Ok(if negative { -magnitude } else { magnitude })
}

/// Reads a decimal text as an integer mantissa on `scale`: `"61837.630"` on scale 2 is 6 183 763.
///
/// # Errors
/// [`DecimalError::TooPrecise`] when a non-zero digit lies beyond `scale`: nothing is rounded.
pub fn parse_scaled(text: &[u8], scale: u8) -> Result<i64, DecimalError> {
    if let Some(plain) = parse_plain(text, scale) {
        return Ok(plain);
    }
    let parts = parts(text)?;
    if parts.mantissa == 0 {
        return Ok(0);
    }
    let shift = parts.exponent + i32::from(scale);
    if shift < 0 {
        return Err(DecimalError::TooPrecise);
    }
    let unit = 10_i128.checked_pow(shift.unsigned_abs()).ok_or(DecimalError::OutOfRange)?;
    let value = parts.mantissa.checked_mul(unit).ok_or(DecimalError::OutOfRange)?;
    let signed = if parts.negative { -value } else { value };
    i64::try_from(signed).map_err(|_| DecimalError::OutOfRange)
}

/// The common spelling, digits with at most one point and no sign; `None` sends everything else to the full parser.
#[inline]
fn parse_plain(text: &[u8], scale: u8) -> Option<i64> {
    if text.is_empty() || text.len() > 18 || scale > MAX_SCALE {
        return None;
    }
    let mut value: i64 = 0;
    let mut at = 0;
    while at < text.len() && text[at] != b'.' {
        let digit = text[at].wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
        at += 1;
    }
    if at == 0 {
        return None;
    }
    let mut missing = scale;
    if at < text.len() {
        let fraction = &text[at + 1..];
        if fraction.is_empty() {
            return None;
        }
        for &byte in fraction {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            if missing > 0 {
                value = value.checked_mul(10)?.checked_add(i64::from(digit))?;
                missing -= 1;
            } else if digit != 0 {
                return None;
            }
        }
    }
    value.checked_mul(power_of_ten(missing))
}

/// Reads a decimal text exactly, exponents included.
///
/// # Errors
/// Out of range when it has more than 28 significant digits or decimals: a [`Decimal`] would round it silently.
pub fn parse_decimal(text: &str) -> Result<Decimal, DecimalError> {
    let parts = parts(text.as_bytes())?;
    let (mantissa, scale) = if parts.exponent > 0 {
        let unit = 10_i128.checked_pow(parts.exponent.unsigned_abs()).ok_or(DecimalError::OutOfRange)?;
        (parts.mantissa.checked_mul(unit).ok_or(DecimalError::OutOfRange)?, 0)
    } else {
        (parts.mantissa, parts.exponent.unsigned_abs())
    };
    let signed = if parts.negative { -mantissa } else { mantissa };
    if scale > 28 {
        return Err(DecimalError::TooPrecise);
    }
    Decimal::try_from_i128_with_scale(signed, scale).map_err(|_| DecimalError::OutOfRange)
}

/// A mantissa on a scale as a decimal, trailing zeros removed.
pub fn to_decimal(mantissa: i64, scale: u8) -> Decimal {
    Decimal::new(mantissa, u32::from(scale)).normalize()
}

/// A decimal as a mantissa on a scale.
///
/// # Errors
/// As [`parse_scaled`].
pub fn to_scaled(value: Decimal, scale: u8) -> Result<i64, DecimalError> {
    let value = value.normalize();
    let missing = u32::from(scale).checked_sub(value.scale()).ok_or(DecimalError::TooPrecise)?;
    let unit = 10_i128.checked_pow(missing).ok_or(DecimalError::OutOfRange)?;
    let mantissa = value.mantissa().checked_mul(unit).ok_or(DecimalError::OutOfRange)?;
    i64::try_from(mantissa).map_err(|_| DecimalError::OutOfRange)
}

/// The decimals that a text such as `"0.00100000"` really uses (3).
///
/// # Errors
/// As [`parse_decimal`].
pub fn decimals_used(text: &str) -> Result<u8, DecimalError> {
    let parts = parts(text.as_bytes())?;
    u8::try_from((-parts.exponent).max(0)).map_err(|_| DecimalError::OutOfRange)
}

/// A value made to fit a stored `numeric(28,12)` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// The value to store.
    pub value: Decimal,
    /// True when digits beyond the twelfth decimal were rounded half-even; the caller counts it.
    pub rounded: bool,
}

/// Makes a value fit the stored column.
///
/// # Errors
/// [`DecimalError::OutOfRange`] for sixteen or more integer digits: the row goes to quarantine.
pub fn fit_column(value: Decimal) -> Result<Fitted, DecimalError> {
    let fitted =
        value.round_dp_with_strategy(COLUMN_SCALE, RoundingStrategy::MidpointNearestEven).normalize();
    if fitted.abs() >= Decimal::from(COLUMN_INTEGER_LIMIT) {
        return Err(DecimalError::OutOfRange);
    }
    Ok(Fitted { value: fitted, rounded: fitted != value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_written() {
        let cases: &[(&str, u8, Result<i64, DecimalError>)] = &[
            ("61837.63000000", 2, Ok(6_183_763)),
            ("61837.63000000", 8, Ok(6_183_763_000_000)),
            ("5E-8", 8, Ok(5)),
            ("5e-8", 7, Err(DecimalError::TooPrecise)),
            ("1.5e3", 0, Ok(1500)),
            ("0.00000000", 0, Ok(0)),
            ("-0.0375", 4, Ok(-375)),
            (".5", 1, Ok(5)),
            ("1.50000000000000000000000000000000000000000000", 1, Ok(15)),
            ("9223372036854775807", 0, Ok(i64::MAX)),
            ("9223372036854775808", 0, Err(DecimalError::OutOfRange)),
            ("1e400", 0, Err(DecimalError::OutOfRange)),
            ("", 0, Err(DecimalError::Empty)),
            ("-", 0, Err(DecimalError::NotANumber)),
            (".", 0, Err(DecimalError::NotANumber)),
            ("1.2.3", 4, Err(DecimalError::NotANumber)),
            ("NaN", 4, Err(DecimalError::NotANumber)),
            (" 1", 4, Err(DecimalError::NotANumber)),
            ("1e", 4, Err(DecimalError::NotANumber)),
            ("0x10", 4, Err(DecimalError::NotANumber)),
        ];
        for (text, scale, expected) in cases {
            assert_eq!(parse_scaled(text.as_bytes(), *scale), *expected, "{text} on scale {scale}");
        }
    }

    #[test]
    fn scientific_notation_is_exact() {
        assert_eq!(parse_decimal("5E-8").unwrap().to_string(), "0.00000005");
        assert_eq!(parse_decimal("9.121E-7").unwrap().to_string(), "0.0000009121");
        assert_eq!(parse_decimal("1e28"), Ok(Decimal::from_i128_with_scale(10_i128.pow(28), 0)));
        assert_eq!(parse_decimal("3.7926195623317025069215307012553570751"), Err(DecimalError::TooPrecise));
    }

    #[test]
    fn columns_round_half_even_and_refuse_what_is_too_large() {
        let rounded = fit_column(parse_decimal("1.0000000000005").unwrap()).unwrap();
        assert_eq!((rounded.value.to_string().as_str(), rounded.rounded), ("1", true));
        let exact = fit_column(parse_decimal("9999999999999999.5").unwrap()).unwrap();
        assert!(!exact.rounded);
        assert_eq!(fit_column(parse_decimal("10000000000000000").unwrap()), Err(DecimalError::OutOfRange));
    }

    proptest! {
        #[test]
        fn scaled_and_decimal_agree(mantissa in any::<i64>(), scale in 0_u8..=18) {
            let text = Decimal::new(mantissa, u32::from(scale)).to_string();
            prop_assert_eq!(parse_scaled(text.as_bytes(), scale), Ok(mantissa));
            prop_assert_eq!(parse_decimal(&text).unwrap(), Decimal::new(mantissa, u32::from(scale)));
            prop_assert_eq!(to_scaled(to_decimal(mantissa, scale), scale), Ok(mantissa));
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40), scale in 0_u8..=18) {
            if let Ok(value) = parse_scaled(&bytes, scale) {
                let text = std::str::from_utf8(&bytes).unwrap();
                prop_assert_eq!(to_scaled(parse_decimal(text).unwrap(), scale), Ok(value));
            }
        }
    }
}
