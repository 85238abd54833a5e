//! Scaled integers as the venue spells them, and the one clock of the simulator. Nothing here rounds.

/// Appends `mantissa / 10^scale` with at least `decimals` decimals (zero padded).
pub(crate) fn push_scaled(out: &mut String, mantissa: i128, scale: u8, decimals: u8) {
    let mut digits = [b'0'; 48];
    let mut at = digits.len();
    let mut rest = mantissa.unsigned_abs();
    let mut written = 0_usize;
    while rest > u128::from(u64::MAX) {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        written += 1;
    }
    let mut small = u64::try_from(rest).unwrap_or(0);
    let wanted = usize::from(scale) + 1;
    while small > 0 || written < wanted {
        at -= 1;
        digits[at] = b'0' + u8::try_from(small % 10).unwrap_or(0);
        small /= 10;
        written += 1;
    }
    if mantissa < 0 {
        out.push('-');
    }
    let text = std::str::from_utf8(&digits[at..]).unwrap_or("0");
    let (whole, fraction) = text.split_at(text.len() - usize::from(scale));
    out.push_str(whole);
    if scale == 0 && decimals == 0 {
        return;
    }
    out.push('.');
    out.push_str(fraction);
    for _ in scale..decimals {
        out.push('0');
    }
}

/// As [`push_scaled`], as a new text.
pub(crate) fn scaled(mantissa: i128, scale: u8, decimals: u8) -> String {
    let mut out = String::with_capacity(24);
    push_scaled(&mut out, mantissa, scale, decimals);
    out
}

/// A 64-bit mix of two words (splitmix64), the source of everything that is derived and not drawn.
pub(crate) fn mix(seed: u64, value: u64) -> u64 {
    let mut z = seed ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seed from a text (FNV-1a, mixed).
pub(crate) fn seed_of(seed: u64, text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(seed, hash)
}

/// The hash as a fraction in `[0, 1)`.
#[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(crate) fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// UTC wall clock in milliseconds.
#[allow(clippy::disallowed_methods, reason = "the simulator is the outside world: it owns its clock")]
pub(crate) fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_exactly() {
        assert_eq!(scaled(6_183_763, 2, 8), "61837.63000000");
        assert_eq!(scaled(123, 8, 8), "0.00000123");
        assert_eq!(scaled(0, 0, 0), "0");
        assert_eq!(scaled(0, 3, 3), "0.000");
        assert_eq!(scaled(-5, 2, 2), "-0.05");
        assert_eq!(scaled(7, 0, 2), "7.00");
        assert_eq!(scaled(123_456_789_012_345_678_901_234_567, 5, 8), "1234567890123456789012.34567000");
    }
}
