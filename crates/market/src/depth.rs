//! Depth of a book: what stands within bands around a reference price. Bounds are compared as integers, never rounded,
//! and every sum says whether the book's known range really reached the end of its band.

use rust_decimal::{Decimal, prelude::ToPrimitive};
use thiserror::Error;

use crate::{
    book::OrderBook,
    decimal::{DecimalError, to_scaled},
};

/// The greatest number of bands.
pub const MAX_BANDS: usize = 16;
/// Decimals of a percentage; with the two of "per cent" a band is a whole number of millionths.
const PERCENT_SCALE: u8 = 4;
/// One, in millionths.
const ONE: u64 = 1_000_000;
/// Greatest scale of a [`Decimal`].
const DECIMAL_SCALE: u32 = 28;
/// Mantissas of a [`Decimal`] are below this.
const DECIMAL_MANTISSA_LIMIT: u128 = 1 << 96;

/// Why bands are not usable.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BandError {
    /// None, or more than [`MAX_BANDS`].
    #[error("{0} depth bands, between 1 and {MAX_BANDS} are possible")]
    Count(usize),
    /// Not strictly between 0 and 100.
    #[error("depth band {0} % is not between 0 and 100")]
    OutOfRange(Decimal),
    /// More than four decimals.
    #[error("depth band {0} % has more than {PERCENT_SCALE} decimals")]
    TooPrecise(Decimal),
    /// Named twice.
    #[error("depth band {0} % is given twice")]
    Duplicate(Decimal),
}

/// Widths of depth bands, ascending, exact to the millionth of the reference price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepthBands {
    millionths: Box<[u64]>,
}

impl DepthBands {
    /// Bands of these percentages, in any order.
    ///
    /// # Errors
    /// See [`BandError`].
    pub fn new(percents: &[Decimal]) -> Result<Self, BandError> {
        if percents.is_empty() || percents.len() > MAX_BANDS {
            return Err(BandError::Count(percents.len()));
        }
        let mut millionths =
            percents.iter().map(|&percent| millionths_of(percent)).collect::<Result<Box<[u64]>, _>>()?;
        millionths.sort_unstable();
        if let Some(twice) = millionths.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BandError::Duplicate(percent_of(twice[0])));
        }
        Ok(Self { millionths })
    }

    /// Number of bands, at least one.
    pub fn count(&self) -> usize {
        self.millionths.len()
    }

    /// The percentages, ascending, without trailing zeros: the order of [`DepthSums::bands`].
    pub fn percents(&self) -> impl ExactSizeIterator<Item = Decimal> {
        self.millionths.iter().map(|&millionths| percent_of(millionths))
    }

    /// The index of a percentage.
    pub fn position(&self, percent: Decimal) -> Option<usize> {
        let millionths = millionths_of(percent).ok()?;
        self.millionths.binary_search(&millionths).ok()
    }
}

fn millionths_of(percent: Decimal) -> Result<u64, BandError> {
    if percent <= Decimal::ZERO || percent >= Decimal::ONE_HUNDRED {
        return Err(BandError::OutOfRange(percent));
    }
    let mantissa = to_scaled(percent, PERCENT_SCALE).map_err(|error| match error {
        DecimalError::TooPrecise => BandError::TooPrecise(percent),
        _ => BandError::OutOfRange(percent),
    })?;
    mantissa.to_u64().ok_or(BandError::OutOfRange(percent))
}

fn percent_of(millionths: u64) -> Decimal {
    Decimal::from_i128_with_scale(i128::from(millionths), u32::from(PERCENT_SCALE)).normalize()
}

/// Where bands are measured from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DepthReference {
    /// Both sides from the middle between best bid and best ask.
    #[default]
    Mid,
    /// Bids down from the best bid, asks up from the best ask.
    Best,
}

impl DepthReference {
    /// `mid` or `best`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mid => "mid",
            Self::Best => "best",
        }
    }

    /// Reads `mid` or `best`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Mid, Self::Best].into_iter().find(|reference| reference.as_str() == text)
    }
}

/// What stands within one band. Quantities are mantissas on the quantity scale, notionals (price times quantity, in
/// quote units) on the sum of price and quantity scale; see [`sum_to_decimal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandSums {
    /// Bid quantity.
    pub bid_qty: i128,
    /// Ask quantity.
    pub ask_qty: i128,
    /// Bid notional.
    pub bid_notional: i128,
    /// Ask notional.
    pub ask_notional: i128,
    /// False when the known range of the bids ends inside the band: the true sum may be greater.
    pub bid_covered: bool,
    /// False when the known range of the asks ends inside the band.
    pub ask_covered: bool,
}

/// Depth of one book at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepthSums {
    /// One entry a band, in the order of [`DepthBands::percents`]; each includes the narrower ones.
    pub bands: Vec<BandSums>,
}

impl OrderBook {
    /// Sums the levels within each band, its bounds included. `None` for a book that has an empty side or is crossed.
    ///
    /// Whole chunks are added by their own sums, so the cost is one pass over the chunks and, for each band and side,
    /// at most half a chunk of levels.
    pub fn depth(&self, bands: &DepthBands, reference: DepthReference) -> Option<DepthSums> {
        let (bid, ask) = (self.best_bid()?.price, self.best_ask()?.price);
        if bid >= ask {
            return None;
        }
        // Doubled, because the middle may lie half a mantissa up. Prices are positive, so two of them fit a u64.
        let (bid, ask) = (bid.cast_unsigned(), ask.cast_unsigned());
        let (bid_reference, ask_reference) = match reference {
            DepthReference::Mid => (bid + ask, bid + ask),
            DepthReference::Best => (2 * bid, 2 * ask),
        };
        let n_bands = bands.count();
        let (mut lowest, mut highest) = ([0_i64; MAX_BANDS], [0_i64; MAX_BANDS]);
        let mut sums = DepthSums { bands: vec![BandSums::default(); n_bands] };
        for (at, (&width, band)) in bands.millionths.iter().zip(&mut sums.bands).enumerate() {
            let down = Bound::new(bid_reference, ONE - width);
            let up = Bound::new(ask_reference, ONE + width);
            lowest[at] = down.ceil();
            highest[at] = up.floor();
            // Known as far as a price: the next one beyond must not belong to the band.
            band.bid_covered = self.known_bid().is_none_or(|known| known <= lowest[at]);
            band.ask_covered = self.known_ask().is_none_or(|known| known >= highest[at]);
        }
        self.bids.sums_within(&lowest[..n_bands], |band, side| {
            sums.bands[band].bid_qty = side.qty;
            sums.bands[band].bid_notional = side.notional;
        });
        self.asks.sums_within(&highest[..n_bands], |band, side| {
            sums.bands[band].ask_qty = side.qty;
            sums.bands[band].ask_notional = side.notional;
        });
        Some(sums)
    }

    /// The middle between best bid and best ask, exact. `None` when a side is empty.
    pub fn mid(&self, price_scale: u8) -> Option<Decimal> {
        let doubled = i128::from(self.best_bid()?.price) + i128::from(self.best_ask()?.price);
        Decimal::try_from_i128_with_scale(doubled * 5, u32::from(price_scale) + 1)
            .ok()
            .map(|mid| mid.normalize())
    }
}

/// `reference * factor / 2_000_000`: a doubled price times millionths, as a whole part and what is left of it.
struct Bound {
    whole: u64,
    has_rest: bool,
}

impl Bound {
    /// `factor` is below two million, so the bound is below `doubled` and no step leaves a u64.
    #[inline]
    fn new(doubled: u64, factor: u64) -> Self {
        const UNIT: u64 = 2 * ONE;
        let rest = (doubled % UNIT) * factor;
        Self { whole: (doubled / UNIT) * factor + rest / UNIT, has_rest: !rest.is_multiple_of(UNIT) }
    }

    /// Highest whole price not above the bound.
    #[inline]
    fn floor(&self) -> i64 {
        i64::try_from(self.whole).unwrap_or(i64::MAX)
    }

    /// Lowest whole price not below the bound.
    #[inline]
    fn ceil(&self) -> i64 {
        i64::try_from(self.whole + u64::from(self.has_rest)).unwrap_or(i64::MAX)
    }
}

/// A sum of mantissas on a scale (0 to 36) as a decimal, trailing zeros removed. Exact where the value has at most 28
/// significant digits and decimals, otherwise rounded half-even to as many decimals as a [`Decimal`] holds. A value
/// beyond 79 octillion (`7.9e28`), which no market reaches, is given as [`Decimal::MAX`] or [`Decimal::MIN`].
pub fn sum_to_decimal(sum: i128, scale: u8) -> Decimal {
    let scale = u32::from(scale);
    (scale.saturating_sub(DECIMAL_SCALE)..=scale)
        .find_map(|n_dropped| decimal_without(sum, scale, n_dropped))
        .unwrap_or(if sum < 0 { Decimal::MIN } else { Decimal::MAX })
}

/// The sum rounded half-even to `n_dropped` fewer decimals; `None` where it is still too long.
fn decimal_without(sum: i128, scale: u32, n_dropped: u32) -> Option<Decimal> {
    // From 10^39 on every sum is less than half a unit.
    let magnitude = 10_u128.checked_pow(n_dropped).map_or(0, |unit| {
        let (whole, rest) = (sum.unsigned_abs() / unit, sum.unsigned_abs() % unit);
        let up = rest > unit - rest || (rest == unit - rest && whole % 2 == 1);
        whole + u128::from(up)
    });
    if magnitude >= DECIMAL_MANTISSA_LIMIT {
        return None;
    }
    let magnitude = i128::try_from(magnitude).ok()?;
    let signed = if sum < 0 { -magnitude } else { magnitude };
    Decimal::try_from_i128_with_scale(signed, scale - n_dropped).ok().map(|value| value.normalize())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Level;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn bands(percents: &[&str]) -> DepthBands {
        DepthBands::new(&percents.iter().map(|text| decimal(text)).collect::<Vec<_>>()).unwrap()
    }

    fn levels(pairs: &[(i64, i64)]) -> Vec<Level> {
        pairs.iter().map(|&(price, qty)| Level { price, qty }).collect()
    }

    #[test]
    fn bands_are_checked_and_sorted() {
        let sorted = bands(&["30", "1.50", "3"]);
        assert_eq!(
            sorted.percents().map(|percent| percent.to_string()).collect::<Vec<_>>(),
            ["1.5", "3", "30"]
        );
        assert_eq!((sorted.position(decimal("3.0")), sorted.position(decimal("4"))), (Some(1), None));
        let cases = [
            (vec![], BandError::Count(0)),
            (vec!["1"; 17], BandError::Count(17)),
            (vec!["0"], BandError::OutOfRange(decimal("0"))),
            (vec!["-1"], BandError::OutOfRange(decimal("-1"))),
            (vec!["100"], BandError::OutOfRange(decimal("100"))),
            (vec!["0.00001"], BandError::TooPrecise(decimal("0.00001"))),
            (vec!["5", "3", "5.0"], BandError::Duplicate(decimal("5"))),
        ];
        for (percents, error) in cases {
            let percents: Vec<Decimal> = percents.into_iter().map(decimal).collect();
            assert_eq!(DepthBands::new(&percents), Err(error));
        }
    }

    #[test]
    fn bounds_belong_to_the_band() {
        let mut book = OrderBook::new(100);
        // Middle 1000: 10 % reaches exactly from 900 to 1100.
        book.apply(&levels(&[(999, 1), (900, 2), (899, 4)]), &levels(&[(1001, 1), (1100, 2), (1101, 4)]))
            .unwrap();
        let ten = book.depth(&bands(&["10"]), DepthReference::Mid).unwrap().bands[0];
        assert_eq!((ten.bid_qty, ten.ask_qty), (3, 3));
        assert_eq!((ten.bid_notional, ten.ask_notional), (999 + 1800, 1001 + 2200));
        // From the best prices: 999 * .9 = 899.1 and 1001 * 1.1 = 1101.1.
        let best = book.depth(&bands(&["10"]), DepthReference::Best).unwrap().bands[0];
        assert_eq!((best.bid_qty, best.ask_qty), (3, 7));
    }

    #[test]
    fn a_half_mantissa_of_the_middle_is_not_rounded() {
        let mut book = OrderBook::new(100);
        // Middle 1000.5: 0.1 % reaches from 999.4995 to 1001.5005.
        book.apply(&levels(&[(1000, 1), (999, 2)]), &levels(&[(1001, 1), (1002, 2)])).unwrap();
        let sums = book.depth(&bands(&["0.1", "0.15"]), DepthReference::Mid).unwrap();
        assert_eq!((sums.bands[0].bid_qty, sums.bands[0].ask_qty), (1, 1));
        assert_eq!((sums.bands[1].bid_qty, sums.bands[1].ask_qty), (3, 3));
        assert_eq!(book.mid(2), Some(decimal("10.005")));
    }

    #[test]
    fn a_book_without_a_market_has_no_depth() {
        let mut book = OrderBook::new(100);
        let five = bands(&["5"]);
        assert_eq!((book.depth(&five, DepthReference::Mid), book.mid(2)), (None, None));
        book.apply(&levels(&[(10, 1)]), &[]).unwrap();
        assert_eq!(book.depth(&five, DepthReference::Mid), None);
        book.apply(&[], &levels(&[(10, 1)])).unwrap();
        assert_eq!(book.depth(&five, DepthReference::Mid), None);
    }

    #[test]
    fn coverage_ends_with_the_known_range() {
        let mut book = OrderBook::new(100);
        book.load(&levels(&[(999, 1), (990, 1)]), &levels(&[(1001, 1)]), 2).unwrap();
        book.apply(&levels(&[(950, 5)]), &[]).unwrap();
        let sums = book.depth(&bands(&["0.5", "1", "1.05", "1.1", "10"]), DepthReference::Mid).unwrap();
        let covered: Vec<_> = sums.bands.iter().map(|band| (band.bid_covered, band.ask_covered)).collect();
        // 1.05 % ends at 989.5: no whole price lies between it and 990, the last known one.
        assert_eq!(covered, [(true, true), (true, true), (true, true), (false, true), (false, true)]);
        assert_eq!(sums.bands[4].bid_qty, 7, "a level beyond the known range is real");
    }

    #[test]
    fn prices_at_the_end_of_the_range_are_exact() {
        let mut book = OrderBook::new(100);
        let top = i64::MAX;
        book.apply(&levels(&[(top - 1, 1), (top / 2 + 1, 1), (top / 2, 1)]), &levels(&[(top, 1)])).unwrap();
        let half = book.depth(&bands(&["50"]), DepthReference::Best).unwrap().bands[0];
        assert_eq!((half.bid_qty, half.ask_qty), (3, 1));
        let less = book.depth(&bands(&["49.9999"]), DepthReference::Best).unwrap().bands[0];
        assert_eq!(less.bid_qty, 1);
    }

    #[test]
    fn sums_become_decimals() {
        let cases = [
            (0, 0, "0"),
            (1_234_500, 4, "123.45"),
            (-1_234_500, 4, "-123.45"),
            (12_345_678_901_234_567_890_123_456_789, 10, "1234567890123456789.0123456789"),
            // 29 digits above 2^96: one decimal less, half to even.
            (80_000_000_000_000_000_000_000_000_005, 10, "8000000000000000000"),
            (80_000_000_000_000_000_000_000_000_015, 10, "8000000000000000000.000000002"),
            (80_000_000_000_000_000_000_000_000_016, 10, "8000000000000000000.000000002"),
            (-80_000_000_000_000_000_000_000_000_016, 10, "-8000000000000000000.000000002"),
            (15, 29, "0.0000000000000000000000000002"),
            (25, 29, "0.0000000000000000000000000002"),
            (i128::MAX, 36, "170.14118346046923173168730372"),
            (i128::MAX, 200, "0"),
            (i128::MAX, 0, "79228162514264337593543950335"),
            (i128::MIN, 0, "-79228162514264337593543950335"),
        ];
        for (sum, scale, text) in cases {
            assert_eq!(sum_to_decimal(sum, scale).to_string(), text, "{sum} on scale {scale}");
        }
    }

    fn side() -> impl Strategy<Value = Vec<(i64, i64)>> {
        proptest::collection::vec((1_i64..5000, 1_i64..1_000_000_000), 1..900)
    }

    fn naive(side: &[Level], within: impl Fn(Decimal) -> bool) -> (Decimal, Decimal) {
        side.iter().filter(|level| within(Decimal::from(level.price))).fold(
            Default::default(),
            |(qty, notional), level| {
                let (price, add) = (Decimal::from(level.price), Decimal::from(level.qty));
                (qty + add, notional + price * add)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn depth_equals_the_naive_sum(
            bids in side(), asks in side(), limit in 1_usize..900, from_best in any::<bool>(),
            widths in proptest::collection::btree_set(1_i64..1_000_000, 1..=16),
        ) {
            let bids = levels(&bids);
            let asks: Vec<Level> = asks.iter().map(|&(price, qty)| Level { price: price + 5000, qty }).collect();
            let mut book = OrderBook::new(1000);
            book.load(&bids, &asks, limit).unwrap();
            let percents: Vec<Decimal> = widths.iter().map(|&width| Decimal::new(width, 4)).collect();
            let bands = DepthBands::new(&percents).unwrap();
            let reference = if from_best { DepthReference::Best } else { DepthReference::Mid };
            let depth = book.depth(&bands, reference).unwrap();

            let (bids, asks) = book.top(usize::MAX);
            let (bid, ask) = (Decimal::from(bids[0].price), Decimal::from(asks[0].price));
            let mid = (bid + ask) / Decimal::TWO;
            let (from_bid, from_ask) = if from_best { (bid, ask) } else { (mid, mid) };
            prop_assert_eq!(book.mid(0), Some(mid.normalize()));
            for (percent, band) in percents.iter().zip(&depth.bands) {
                let fraction = percent / Decimal::ONE_HUNDRED;
                let (low, high) = (from_bid * (Decimal::ONE - fraction), from_ask * (Decimal::ONE + fraction));
                let (bid_qty, bid_notional) = naive(&bids, |price| price >= low);
                let (ask_qty, ask_notional) = naive(&asks, |price| price <= high);
                prop_assert_eq!(Decimal::from(band.bid_qty), bid_qty);
                prop_assert_eq!(Decimal::from(band.ask_qty), ask_qty);
                prop_assert_eq!(Decimal::from(band.bid_notional), bid_notional);
                prop_assert_eq!(Decimal::from(band.ask_notional), ask_notional);
                let unknown_bid = book.known_bid().map(|known| Decimal::from(known - 1));
                let unknown_ask = book.known_ask().map(|known| Decimal::from(known + 1));
                prop_assert_eq!(band.bid_covered, unknown_bid.is_none_or(|price| price < low));
                prop_assert_eq!(band.ask_covered, unknown_ask.is_none_or(|price| price > high));
            }
        }

        #[test]
        fn short_sums_are_exact(sum in -(1_i64 << 62)..(1_i64 << 62), scale in 0_u8..=28) {
            let expected = Decimal::from_i128_with_scale(i128::from(sum), u32::from(scale));
            prop_assert_eq!(sum_to_decimal(i128::from(sum), scale), expected);
        }
    }
}
