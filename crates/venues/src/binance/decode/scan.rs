//! A cursor over the bytes of a frame that reads only the one spelling the fast path expects. `None` means "not that
//! spelling", never "bad frame": the full parser decides about those.

/// Integers of more digits are left to the full parser, so that no product here can overflow.
const MAX_DIGITS: usize = 18;

const POWERS: [i64; MAX_DIGITS + 1] = {
    let mut powers = [1_i64; MAX_DIGITS + 1];
    let mut i = 1;
    while i <= MAX_DIGITS {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// A position in a frame.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes a literal, or stays where it is.
    #[inline(always)]
    pub(super) fn skip<const N: usize>(&mut self, literal: &[u8; N]) -> bool {
        let found = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>) == Some(literal);
        if found {
            self.at += N;
        }
        found
    }

    /// Passes a literal that must be there.
    #[inline(always)]
    pub(super) fn expect<const N: usize>(&mut self, literal: &[u8; N]) -> Option<()> {
        self.skip(literal).then_some(())
    }

    /// Succeeds at the end of the frame.
    #[inline(always)]
    pub(super) fn end(&self) -> Option<()> {
        (self.at == self.bytes.len()).then_some(())
    }

    /// Plain ASCII text up to `stop`, which is passed too. Escapes, quotes, control and non-ASCII bytes end the fast path.
    #[inline(always)]
    pub(super) fn text_until(&mut self, stop: u8) -> Option<&'a [u8]> {
        let start = self.at;
        let rest = self.bytes.get(start..)?;
        for (length, &byte) in rest.iter().enumerate() {
            if byte == stop {
                self.at = start + length + 1;
                return rest.get(..length);
            }
            if !(0x20..0x7f).contains(&byte) || byte == b'\\' || byte == b'"' {
                return None;
            }
        }
        None
    }

    /// A JSON integer without sign.
    #[inline(always)]
    pub(super) fn integer(&mut self) -> Option<i64> {
        let start = self.at;
        let mut value: i64 = 0;
        if let Some(eight) = self.eight_digits() {
            value = eight;
            self.at += 8;
        }
        value = self.digits(value);
        let count = self.at - start;
        let leading_zero = count > 1 && self.bytes.get(start) == Some(&b'0');
        // What follows decides whether the number has ended; `1.5` and `1e3` are no integers.
        (count > 0 && count <= MAX_DIGITS && !leading_zero && matches!(self.peek(), Some(b',' | b'}')))
            .then_some(value)
    }

    /// An unsigned JSON integer.
    #[inline(always)]
    pub(super) fn id(&mut self) -> Option<u64> {
        self.integer().map(i64::cast_unsigned)
    }

    /// `true` or `false`.
    #[inline(always)]
    pub(super) fn boolean(&mut self) -> Option<bool> {
        if self.skip(b"true") {
            return Some(true);
        }
        self.skip(b"false").then_some(false)
    }

    /// The rest of a JSON string that holds a decimal without sign and exponent, its closing quote included, as a
    /// mantissa on `scale`.
    #[inline(always)]
    pub(super) fn decimal(&mut self, scale: u8) -> Option<i64> {
        let start = self.at;
        let integer = self.digits(0);
        let count = self.at - start;
        let scale = usize::from(scale);
        if count == 0 || count + scale > MAX_DIGITS {
            return None;
        }
        if self.skip(b"\"") {
            return Some(integer.wrapping_mul(POWERS[scale]));
        }
        self.expect(b".")?;
        // Spot writes every number with eight decimals.
        if scale == 8
            && let Some(fraction) = self.eight_digits()
            && self.bytes.get(self.at + 8) == Some(&b'"')
        {
            self.at += 9;
            return Some(integer.wrapping_mul(POWERS[8]).wrapping_add(fraction));
        }
        self.fraction(integer, scale)
    }

    /// Decimals of any number; non-zero ones beyond the scale are left to the full parser, which rejects them.
    #[inline(always)]
    fn fraction(&mut self, integer: i64, scale: usize) -> Option<i64> {
        let start = self.at;
        let mut value = integer;
        let mut used = 0;
        while let Some(byte) = self.peek() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            if used < scale {
                value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
                used += 1;
            } else if digit != 0 {
                return None;
            }
            self.at += 1;
        }
        if self.at == start {
            return None;
        }
        self.expect(b"\"")?;
        Some(value.wrapping_mul(*POWERS.get(scale - used)?))
    }

    #[inline(always)]
    fn digits(&mut self, mut value: i64) -> i64 {
        while let Some(byte) = self.peek() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
            self.at += 1;
        }
        value
    }

    /// The next eight bytes as digits, not passed. All of them are tested and converted at once.
    #[inline(always)]
    fn eight_digits(&self) -> Option<i64> {
        let chunk = self.bytes.get(self.at..)?.first_chunk::<8>()?;
        let values = u64::from_le_bytes(*chunk) ^ 0x3030_3030_3030_3030;
        if (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080 != 0 {
            return None;
        }
        // Pairs of digits, then fours, then all eight (the usual three-multiplication scheme).
        let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
        let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
        let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
        Some((low.wrapping_add(high) >> 32).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::decimal::parse_scaled;
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str, scale: u8) -> Option<i64> {
        let quoted = format!("{text}\"");
        let mut cursor = Cursor::new(quoted.as_bytes());
        let value = cursor.decimal(scale)?;
        cursor.end().map(|()| value)
    }

    #[test]
    fn decimals_are_exact_or_left_to_the_full_parser() {
        assert_eq!(decimal("61837.63000000", 8), Some(6_183_763_000_000));
        assert_eq!(decimal("61837.63000000", 2), Some(6_183_763));
        assert_eq!(decimal("2681.62", 8), Some(268_162_000_000));
        assert_eq!(decimal("5", 3), Some(5000));
        for left in ["", ".5", "5.", "-1", "1e3", "0.001", "1234567890123456789", "1..2", "1.2.3"] {
            assert_eq!(decimal(left, 2), None, "{left}");
        }
    }

    #[test]
    fn integers_end_where_json_ends_them() {
        let integer = |text: &str| Cursor::new(text.as_bytes()).integer();
        assert_eq!(integer("1723161255208,"), Some(1_723_161_255_208));
        assert_eq!(integer("0}"), Some(0));
        assert_eq!(integer("123456789012345678,"), Some(123_456_789_012_345_678));
        for left in
            ["", ",", "007,", "-1,", "1.5,", "1e3,", "1234567890123456789,", "12", "12345678901234567890123,"]
        {
            assert_eq!(integer(left), None, "{left}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_exact_reader_reads(text in "[0-9]{0,12}\\.?[0-9]{0,12}", scale in 0_u8..=18) {
            if let Some(value) = decimal(&text, scale) {
                prop_assert_eq!(Ok(value), parse_scaled(text.as_bytes(), scale));
            }
        }
    }
}
