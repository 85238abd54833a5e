//! Exact arithmetic of bars: microprice, order flow, and ratios rounded half-even once.

use rust_decimal::Decimal;

use crate::{
    decimal::{COLUMN_SCALE, fit_column},
    event::Level,
};

/// Decimals that a microprice has beyond those of prices.
pub const MICRO_DECIMALS: u8 = 4;
const MICRO_UNIT: i128 = 10_000;

/// The weighted mid, `(ask * bid_qty + bid * ask_qty) / (bid_qty + ask_qty)`, as a mantissa on the price scale plus
/// [`MICRO_DECIMALS`], rounded half-even. It is the first-order estimate that Stoikov, "The micro-price: a high-frequency
/// estimator of future prices" (Quantitative Finance, 2018), starts from and improves on, and what market data users
/// commonly call the microprice. `None` without quantity on either side, for values that are not positive (a quantity
/// may be zero), and when the result needs more than 63 bits.
pub fn microprice(bid: Level, ask: Level) -> Option<i64> {
    if bid.price <= 0 || ask.price <= 0 || bid.qty < 0 || ask.qty < 0 {
        return None;
    }
    let quantity = i128::from(bid.qty) + i128::from(ask.qty);
    // Two products of 63 bits each: their sum fits 127.
    let weighted = i128::from(ask.price) * i128::from(bid.qty) + i128::from(bid.price) * i128::from(ask.qty);
    let (micro, _) = ratio_half_even(weighted, MICRO_UNIT, quantity)?;
    i64::try_from(micro).ok()
}

/// Best bid and ask of a book; a side may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopOfBook {
    /// Best bid.
    pub bid: Option<Level>,
    /// Best ask.
    pub ask: Option<Level>,
}

/// The contribution `e_n` of one book update to order flow imbalance, quantity mantissa: Cont, Kukanov, Stoikov, "The
/// price impact of order book events" (Journal of Financial Econometrics, 2014), equation (10):
/// `1{Pb >= Pb'} qb - 1{Pb <= Pb'} qb' - 1{Pa <= Pa'} qa + 1{Pa >= Pa'} qa'`, with `'` for the state before.
/// An empty side counts as a quantity of zero at the worst price.
pub fn order_flow(before: TopOfBook, after: TopOfBook) -> i128 {
    // Prices are turned so that greater is better on both sides.
    let side = |before: Option<Level>, after: Option<Level>, sign: i64| {
        let rank = |level: Option<Level>| level.map(|level| i128::from(level.price) * i128::from(sign));
        let quantity = |level: Option<Level>| level.map_or(0, |level| i128::from(level.qty));
        let gained = if rank(after) >= rank(before) { quantity(after) } else { 0 };
        let lost = if rank(after) <= rank(before) { quantity(before) } else { 0 };
        gained - lost
    };
    side(before.bid, after.bid, 1) - side(before.ask, after.ask, -1)
}

/// `mantissa / per` on `scale`, as a column holds it; rounded half-even once.
pub(super) fn column_ratio(mantissa: i128, per: i128, scale: u32, rounded: &mut u64) -> Option<Decimal> {
    let (value, inexact) = match COLUMN_SCALE.checked_sub(scale) {
        // Nothing to divide and nothing to round: the mantissa stays as it is.
        Some(_) if per == 1 => (Decimal::try_from_i128_with_scale(mantissa, scale).ok()?, false),
        Some(missing) => on_column_scale(mantissa, 10_i128.checked_pow(missing)?, per)?,
        None => {
            let unit = 10_i128.checked_pow(scale - COLUMN_SCALE)?;
            on_column_scale(mantissa, 1, per.checked_mul(unit)?)?
        }
    };
    *rounded += u64::from(inexact);
    fit_column(value).ok().map(|fitted| fitted.value)
}

fn on_column_scale(n: i128, factor: i128, per: i128) -> Option<(Decimal, bool)> {
    let (units, inexact) = ratio_half_even(n, factor, per)?;
    Some((Decimal::try_from_i128_with_scale(units, COLUMN_SCALE).ok()?, inexact))
}

/// `n * factor / d` rounded half-even, and whether it was rounded; `None` unless `d > 0` and everything fits.
fn ratio_half_even(n: i128, factor: i128, d: i128) -> Option<(i128, bool)> {
    if d <= 0 {
        return None;
    }
    // Whole and remainder apart, so that the product with the factor does not overflow.
    let rest = n.rem_euclid(d).checked_mul(factor)?;
    let floor = n.div_euclid(d).checked_mul(factor)?.checked_add(rest.div_euclid(d))?;
    let rest = rest.rem_euclid(d);
    let up = match rest.cmp(&(d - rest)) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => floor & 1,
        std::cmp::Ordering::Greater => 1,
    };
    Some((floor.checked_add(up)?, rest != 0))
}
