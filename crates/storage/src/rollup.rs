//! Roll-ups of category snapshots: how snapshots of an hour become one row, and hours a day. Pure, and the same for every
//! store: sums are exact, and an average is divided once, half-even to twelve decimals, when it is read.
//!
//! What a store has to do:
//! - A snapshot that is written marks its hour as dirty, in the transaction that writes it; so a late row, replayed from a
//!   spool an hour or a week later, is found like any other.
//! - [`crate::Store::roll_up`] folds the snapshots of dirty hours anew ([`Fold::one`], [`Fold::all`]), and the days of these hours from the
//!   hours ([`Fold::all`]), in the transaction that removes the marks.
//! - Before snapshots expire, the dirty hours among them are rolled up, and the floor is raised to the age below which rows
//!   go. An hour that begins below the floor and is rolled up keeps its row for good ([`keeps`]): what is left of its
//!   snapshots does not tell what it was. Its day is folded from hours, and so stays right too.

use std::fmt;

use fathom_market::decimal::COLUMN_SCALE;
use rust_decimal::Decimal;

use crate::{
    error::StoreError,
    read::{CategoryRollup, RollupWidth},
};

/// `10^COLUMN_SCALE`.
const UNIT: i128 = 1_000_000_000_000;

/// A sum of column values in units of `10^-12`. A column value has 28 digits, so ten thousand million of them fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exact(i128);

impl Exact {
    /// A column value.
    ///
    /// # Errors
    /// When it has more than twelve decimals: no column holds such a value.
    pub fn of(value: Decimal) -> Result<Self, StoreError> {
        let value = value.normalize();
        let missing = COLUMN_SCALE.checked_sub(value.scale());
        let units = missing.and_then(|missing| value.mantissa().checked_mul(10_i128.checked_pow(missing)?));
        units.map(Self).ok_or_else(|| StoreError::fatal(format!("{value} is not a value of a column")))
    }

    /// Reads a plain decimal of at most twelve decimals and any number of digits, as stores write sums.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let bad = || StoreError::fatal(format!("stored sum {text:?} is not a decimal"));
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || part.len() > COLUMN_SCALE as usize || !all_digits {
            return Err(bad());
        }
        let whole: i128 = whole.parse().map_err(|_| bad())?;
        let part: i128 = format!("{part:0<12}").parse().map_err(|_| bad())?;
        let units = whole.checked_mul(UNIT).and_then(|units| units.checked_add(part)).ok_or_else(bad)?;
        Ok(Self(if negative { -units } else { units }))
    }

    /// The sum divided by a number of rows, rounded half-even; `None` without rows, or beyond what a decimal holds.
    pub fn over(self, rows: i64) -> Option<Decimal> {
        let per = i128::from(rows);
        if per <= 0 {
            return None;
        }
        let (floor, rest) = (self.0.div_euclid(per), self.0.rem_euclid(per));
        let up = match rest.cmp(&(per - rest)) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => floor & 1,
            std::cmp::Ordering::Greater => 1,
        };
        Decimal::try_from_i128_with_scale(floor + up, COLUMN_SCALE).ok().map(|value| value.normalize())
    }

    fn whole(number: i64) -> Self {
        Self(i128::from(number) * UNIT)
    }

    const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) =
            (self.0.unsigned_abs() / UNIT.unsigned_abs(), self.0.unsigned_abs() % UNIT.unsigned_abs());
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}")?;
        if part == 0 {
            return Ok(());
        }
        let part = format!("{part:012}");
        write!(f, ".{}", part.trim_end_matches('0'))
    }
}

/// Sum, greatest and least of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The sum.
    pub sum: Exact,
    /// The greatest.
    pub max: Exact,
    /// The least.
    pub min: Exact,
}

impl Extent {
    const fn one(value: Exact) -> Self {
        Self { sum: value, max: value, min: value }
    }

    fn merge(&mut self, other: Self) {
        self.sum = self.sum.plus(other.sum);
        self.max = self.max.max(other.max);
        self.min = self.min.min(other.min);
    }

    fn read(self, rows: i64) -> Option<[Decimal; 3]> {
        Some([self.sum.over(rows)?, self.max.over(1)?, self.min.over(1)?])
    }
}

/// Snapshots of one category, folded: what is stored of an hour and of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// Bid depth in dollars.
    pub bid: Extent,
    /// Ask depth in dollars.
    pub ask: Extent,
    /// Sum of the prices of those that have one.
    pub price_sum: Exact,
    /// How many have a price.
    pub priced: i64,
    /// Sum of the members in their sums.
    pub symbols: i64,
    /// How many there are.
    pub count: i64,
}

impl Fold {
    /// One snapshot: bid and ask depth in dollars, price, members.
    ///
    /// # Errors
    /// For a value that no column holds.
    pub fn one(bid: Decimal, ask: Decimal, price: Option<Decimal>, symbols: i64) -> Result<Self, StoreError> {
        Ok(Self {
            bid: Extent::one(Exact::of(bid)?),
            ask: Extent::one(Exact::of(ask)?),
            price_sum: price.map(Exact::of).transpose()?.unwrap_or_default(),
            priced: i64::from(price.is_some()),
            symbols,
            count: 1,
        })
    }

    /// Takes in what does not overlap with it.
    fn merge(&mut self, other: Self) {
        self.bid.merge(other.bid);
        self.ask.merge(other.ask);
        self.price_sum = self.price_sum.plus(other.price_sum);
        self.priced += other.priced;
        self.symbols += other.symbols;
        self.count += other.count;
    }

    /// Folds parts that do not overlap; `None` of none.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        parts.into_iter().reduce(|mut all, part| {
            all.merge(part);
            all
        })
    }

    /// As it is read back.
    ///
    /// # Errors
    /// When what is stored is no fold of snapshots.
    pub fn read(&self, bucket_ms: i64) -> Result<CategoryRollup, StoreError> {
        let bad = || StoreError::fatal(format!("the roll-up of {bucket_ms} is damaged"));
        Ok(CategoryRollup {
            bucket_ms,
            bid_volume_usd: self.bid.read(self.count).ok_or_else(bad)?,
            ask_volume_usd: self.ask.read(self.count).ok_or_else(bad)?,
            avg_price: self.price_sum.over(self.priced),
            avg_symbol_count: Exact::whole(self.symbols).over(self.count).ok_or_else(bad)?,
            count: self.count.unsigned_abs(),
        })
    }
}

/// One category at one depth: what roll-ups are grouped by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// A venue's id, or `ALL`.
    pub scope: String,
    /// `SPOT` or `FUTURES`.
    pub market_type: String,
    /// The category.
    pub category: String,
    /// Depth, percent.
    pub depth: Decimal,
}

/// The start of the bucket in which a time lies, milliseconds.
pub const fn bucket_ms(width: RollupWidth, time_ms: i64) -> i64 {
    time_ms - time_ms.rem_euclid(width.ms())
}

/// Whether an hour's row stays as it is, whatever was written into the hour since: snapshots below the floor may be gone.
pub const fn keeps(hour_ms: i64, floor_ms: i64, is_rolled_up: bool) -> bool {
    is_rolled_up && hour_ms < floor_ms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::RoundingStrategy;

    use super::*;

    fn dec(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn one(bid: &str, ask: &str, price: Option<&str>, symbols: i64) -> Fold {
        Fold::one(dec(bid), dec(ask), price.map(dec), symbols).unwrap()
    }

    #[test]
    fn averages_are_rounded_half_even_to_twelve_decimals() {
        let cases = [
            ("1", 3, "0.333333333333"),
            ("2", 3, "0.666666666667"),
            ("0.000000000001", 2, "0"),
            ("0.000000000003", 2, "0.000000000002"),
            ("-0.000000000001", 2, "0"),
            ("-0.000000000003", 2, "-0.000000000002"),
            ("-1", 3, "-0.333333333333"),
            ("14399999999999998560", 1440, "9999999999999999"),
        ];
        for (sum, rows, wanted) in cases {
            assert_eq!(Exact::parse(sum).unwrap().over(rows), Some(dec(wanted)), "{sum} / {rows}");
        }
        assert_eq!(Exact::parse("1").unwrap().over(0), None);
    }

    #[test]
    fn sums_are_read_and_written_exactly_and_nothing_else_is_read() {
        let sums = ["0", "-0.5", "0.00000005", "14399999999999998560.000000000001", "7"];
        for sum in sums {
            assert_eq!(Exact::parse(sum).unwrap().to_string(), sum);
        }
        assert_eq!(Exact::parse("12.500000000000").unwrap().to_string(), "12.5");
        for text in ["", "-", ".5", "1e3", "+1", "0.0000000000001", "1 ", "--1", "1.-5", "NaN"] {
            assert!(Exact::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bucket_without_a_price_has_no_average_of_it() {
        let fold = Fold::all([one("10", "4", None, 3), one("20", "6", None, 4)]).unwrap();
        let read = fold.read(7).unwrap();
        assert_eq!((read.bucket_ms, read.avg_price, read.count), (7, None, 2));
        assert_eq!(read.bid_volume_usd, [dec("15"), dec("20"), dec("10")]);
        assert_eq!(read.ask_volume_usd, [dec("5"), dec("6"), dec("4")]);
        assert_eq!(read.avg_symbol_count, dec("3.5"));
        let priced = Fold::all([fold, one("1", "1", Some("100"), 1)]).unwrap();
        assert_eq!(priced.read(7).unwrap().avg_price, Some(dec("100")));
        assert_eq!(Fold::all([]), None);
    }

    #[test]
    fn an_hour_is_kept_once_its_rows_may_be_gone() {
        assert!(keeps(0, 1, true));
        assert!(!keeps(0, 0, true));
        assert!(!keeps(0, 1, false));
        assert_eq!(bucket_ms(RollupWidth::Hour, -1), -3_600_000);
        assert_eq!(bucket_ms(RollupWidth::Day, 86_400_000 + 5), 86_400_000);
    }

    proptest! {
        #[test]
        fn folding_parts_is_folding_all_and_agrees_with_decimals(
            rows in prop::collection::vec((0..10_i64.pow(15), 0..10_i64.pow(15), prop::option::of(1..10_i64.pow(12)), 0..500_i64), 1..60),
            cut in 0..60_usize,
        ) {
            let folded: Vec<Fold> = rows.iter().map(|(bid, ask, price, symbols)| {
                Fold::one(Decimal::new(*bid, 6), Decimal::new(*ask, 12), price.map(|price| Decimal::new(price, 8)), *symbols).unwrap()
            }).collect();
            let all = Fold::all(folded.iter().copied()).unwrap();
            let (left, right) = folded.split_at(cut.min(folded.len()));
            let parts = [Fold::all(left.iter().copied()), Fold::all(right.iter().copied())];
            prop_assert_eq!(Fold::all(parts.into_iter().flatten()), Some(all));
            let count = Decimal::from(rows.len());
            let naive: Decimal = rows.iter().map(|row| Decimal::new(row.0, 6)).sum::<Decimal>() / count;
            let naive = naive.round_dp_with_strategy(12, RoundingStrategy::MidpointNearestEven);
            let read = all.read(0).unwrap();
            prop_assert_eq!(read.bid_volume_usd[0], naive);
            prop_assert_eq!(read.bid_volume_usd[1], Decimal::new(rows.iter().map(|row| row.0).max().unwrap(), 6));
            prop_assert_eq!(read.ask_volume_usd[2], Decimal::new(rows.iter().map(|row| row.1).min().unwrap(), 12));
        }
    }
}
