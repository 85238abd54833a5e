//! Categories of pairs, and the fold of one boundary's samples into what a category holds at a depth.
//!
//! Whether a pair belongs to a category is decided by its base asset as a whole, without regard to ASCII case:
//! `BTCDOM`, `SOLV`, `ETHFI` and `1000PEPE` are not `BTC`, `SOL`, `ETH` and `PEPE`.

use std::{borrow::Borrow, collections::BTreeSet, sync::Arc};

use rust_decimal::Decimal;
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::{
    decimal::{DecimalError, fit_column},
    ids::{InstrumentId, Market, Scope},
    instrument::Instrument,
    rates::UsdRates,
    sample::DepthSample,
    table::{CategorySnapshotRow, SymbolSnapshotRow},
};

/// Names that mean something else: one pair, and every category.
pub const RESERVED_NAMES: [&str; 2] = ["COIN", "ALL"];
/// The greatest length of a category's name.
pub const MAX_NAME_LEN: usize = 32;

/// Which base assets belong to a category. Asset names are kept in upper case by [`Categories::from_rules`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Every one.
    All,
    /// Every one but these.
    Exclude(BTreeSet<Box<str>>),
    /// These only.
    Include(BTreeSet<Box<str>>),
}

/// A category: its name and who belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryRule {
    /// Name, as shown in paths and tables. [`Categories::from_rules`] makes it upper case.
    pub name: Box<str>,
    /// Who belongs to it.
    pub members: Membership,
}

impl CategoryRule {
    /// A category of every base asset but these.
    pub fn all_but<A: AsRef<str>>(name: &str, assets: &[A]) -> Self {
        Self { name: name.into(), members: Membership::Exclude(set(assets)) }
    }

    /// A category of these base assets only.
    pub fn only<A: AsRef<str>>(name: &str, assets: &[A]) -> Self {
        Self { name: name.into(), members: Membership::Include(set(assets)) }
    }

    /// True when pairs of this base asset belong to the category.
    pub fn contains(&self, base: &str) -> bool {
        let listed =
            |assets: &BTreeSet<Box<str>>| assets.iter().any(|asset| asset.eq_ignore_ascii_case(base));
        match &self.members {
            Membership::All => true,
            Membership::Exclude(assets) => !listed(assets),
            Membership::Include(assets) => listed(assets),
        }
    }
}

fn set<A: AsRef<str>>(assets: &[A]) -> BTreeSet<Box<str>> {
    assets.iter().map(|asset| asset.as_ref().into()).collect()
}

/// Why the configured categories cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CategoryError {
    /// A category has no name.
    #[error("a category without a name")]
    EmptyName,
    /// The name is too long, or has other characters than letters, digits, `_` and `-`.
    #[error("category {0:?}: a name is 1 to 32 letters, digits, '_' or '-'")]
    BadName(Box<str>),
    /// The name means something else.
    #[error("category {0:?}: the name is reserved")]
    Reserved(Box<str>),
    /// Two categories have the same name, but for case.
    #[error("category {0:?} is defined twice")]
    Duplicate(Box<str>),
    /// The category includes nothing.
    #[error("category {0:?} includes no asset")]
    NoMembers(Box<str>),
    /// An asset has an empty name, or one with blanks or control characters in it.
    #[error("category {category:?}: bad asset name {asset:?}")]
    BadAsset {
        /// The category.
        category: Box<str>,
        /// What is written there.
        asset: Box<str>,
    },
}

/// The configured categories, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Categories {
    rules: Vec<CategoryRule>,
}

impl Categories {
    /// Checks rules and takes them in their order.
    ///
    /// # Errors
    /// The first fault found. No rules at all is no fault.
    pub fn from_rules(rules: Vec<CategoryRule>) -> Result<Self, CategoryError> {
        let mut checked = Self { rules: Vec::with_capacity(rules.len()) };
        for rule in rules {
            check_name(&rule.name)?;
            if checked.get(&rule.name).is_some() {
                return Err(CategoryError::Duplicate(rule.name));
            }
            let members = checked_members(&rule.name, rule.members)?;
            checked.rules.push(CategoryRule { name: rule.name.to_ascii_uppercase().into(), members });
        }
        Ok(checked)
    }

    /// `TOTAL`, `TOTAL1`, `TOTAL2`, `TOTAL3` and `OTHERS`.
    pub fn standard() -> Self {
        const TOP_TEN: [&str; 10] = ["BTC", "ETH", "XRP", "BNB", "SOL", "TRX", "DOGE", "ADA", "LINK", "BCH"];
        Self {
            rules: vec![
                CategoryRule { name: "TOTAL".into(), members: Membership::All },
                CategoryRule::all_but("TOTAL1", &["BTC"]),
                CategoryRule::all_but("TOTAL2", &["BTC", "ETH"]),
                CategoryRule::all_but("TOTAL3", &["BTC", "ETH", "SOL"]),
                CategoryRule::all_but("OTHERS", &TOP_TEN),
            ],
        }
    }

    /// Finds a category by its name, in any case.
    pub fn get(&self, name: &str) -> Option<&CategoryRule> {
        self.rules.iter().find(|rule| rule.name.eq_ignore_ascii_case(name))
    }

    /// The categories in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, CategoryRule> {
        self.rules.iter()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_ref())
    }
}

fn check_name(name: &str) -> Result<(), CategoryError> {
    if name.is_empty() {
        return Err(CategoryError::EmptyName);
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.len() > MAX_NAME_LEN || !name.bytes().all(good) {
        return Err(CategoryError::BadName(name.into()));
    }
    if RESERVED_NAMES.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err(CategoryError::Reserved(name.into()));
    }
    Ok(())
}

fn checked_members(category: &str, members: Membership) -> Result<Membership, CategoryError> {
    let upper = |assets: BTreeSet<Box<str>>| -> Result<BTreeSet<Box<str>>, CategoryError> {
        let bad =
            |asset: &str| asset.is_empty() || asset.chars().any(|c| c.is_whitespace() || c.is_control());
        match assets.iter().find(|asset| bad(asset)) {
            Some(asset) => Err(CategoryError::BadAsset { category: category.into(), asset: asset.clone() }),
            None => Ok(assets.iter().map(|asset| asset.to_ascii_uppercase().into()).collect()),
        }
    };
    match members {
        Membership::All => Ok(Membership::All),
        Membership::Exclude(assets) => Ok(Membership::Exclude(upper(assets)?)),
        Membership::Include(assets) if assets.is_empty() => Err(CategoryError::NoMembers(category.into())),
        Membership::Include(assets) => Ok(Membership::Include(upper(assets)?)),
    }
}

/// What a category holds within one depth. `member_count = symbol_count + stale_count + unpriced_count`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CategoryAggregate {
    /// Members in the sums.
    pub symbol_count: u32,
    /// Members expected.
    pub member_count: u32,
    /// Members in the sums whose known bids reach the depth.
    pub bid_covered: u32,
    /// Members in the sums whose known asks reach the depth.
    pub ask_covered: u32,
    /// Members whose book was stale, syncing, crossed, paused or one-sided, or that sent no sample of this depth.
    pub stale_count: u32,
    /// Members with a sound book but no dollar rate, or with amounts beyond what a decimal holds.
    pub unpriced_count: u32,
    /// Sum of bids, each in its own base units.
    pub bid_volume: Decimal,
    /// Sum of asks, each in its own base units.
    pub ask_volume: Decimal,
    /// Sum of bids in dollars.
    pub bid_usd: Decimal,
    /// Sum of asks in dollars.
    pub ask_usd: Decimal,
    /// Mean dollar price of the members in the sums, weighted by their bid and ask dollars in this band; `None`
    /// when there are no such dollars.
    pub avg_price: Option<Decimal>,
}

/// Folds samples into what a category of a scope and market holds within the depth at `depth_index`.
///
/// `expected` are the instruments that should have sent a sample, of any scope, market and base; the fold takes those
/// that belong. Samples of others are ignored, of two samples of one instrument the first is taken. The result does
/// not depend on the order of `expected`. A member whose addition would overflow is left out whole, as unpriced.
pub fn fold<S: Borrow<DepthSample>>(
    rule: &CategoryRule,
    scope: Scope,
    market: Market,
    depth_index: usize,
    samples: &[S],
    expected: &[Arc<Instrument>],
    rates: &UsdRates,
) -> CategoryAggregate {
    let belongs = |instrument: &Instrument| {
        let in_scope = matches!(scope, Scope::All) || scope == Scope::Venue(instrument.venue);
        in_scope && instrument.market == market && rule.contains(&instrument.base)
    };
    let mut members: Vec<&Instrument> =
        expected.iter().map(AsRef::as_ref).filter(|instrument| belongs(instrument)).collect();
    members.sort_unstable_by_key(|instrument| instrument.id);
    members.dedup_by_key(|instrument| instrument.id);

    let mut by_id = FxHashMap::<InstrumentId, &DepthSample>::default();
    for sample in samples.iter().map(Borrow::borrow) {
        by_id.entry(sample.instrument.id).or_insert(sample);
    }
    let mut total = CategoryAggregate::default();
    let mut price_sum = Decimal::ZERO;
    for member in members {
        total.member_count += 1;
        let Some(sample) = by_id.get(&member.id).filter(|sample| is_sound(sample, depth_index)) else {
            total.stale_count += 1;
            continue;
        };
        match add(&total, price_sum, sample, depth_index, rates) {
            Some((sum, prices)) => (total, price_sum) = (sum, prices),
            None => total.unpriced_count += 1,
        }
    }
    let weight = total.bid_usd.checked_add(total.ask_usd).filter(|weight| !weight.is_zero());
    total.avg_price = weight.and_then(|weight| price_sum.checked_div(weight));
    total
}

fn is_sound(sample: &DepthSample, depth_index: usize) -> bool {
    sample.usable_mid().is_some() && sample.usable_band(depth_index).is_some()
}

fn add(
    total: &CategoryAggregate,
    price_sum: Decimal,
    sample: &DepthSample,
    depth_index: usize,
    rates: &UsdRates,
) -> Option<(CategoryAggregate, Decimal)> {
    let (band, mid) = (sample.usable_band(depth_index)?, sample.usable_mid()?);
    let instrument = &sample.instrument;
    let rate = rates.usd(instrument.venue, instrument.market, &instrument.quote)?;
    let (bid_usd, ask_usd) = (band.bid_quote.checked_mul(rate)?, band.ask_quote.checked_mul(rate)?);
    let weight = bid_usd.checked_add(ask_usd)?;
    let weighted = mid.checked_mul(rate)?.checked_mul(weight)?;
    let sum = CategoryAggregate {
        symbol_count: total.symbol_count + 1,
        bid_covered: total.bid_covered + u32::from(band.bid_covered),
        ask_covered: total.ask_covered + u32::from(band.ask_covered),
        bid_volume: total.bid_volume.checked_add(band.bid_volume)?,
        ask_volume: total.ask_volume.checked_add(band.ask_volume)?,
        bid_usd: total.bid_usd.checked_add(bid_usd)?,
        ask_usd: total.ask_usd.checked_add(ask_usd)?,
        ..total.clone()
    };
    // The weights are summed once more, so that the mean can always be divided out.
    sum.bid_usd.checked_add(sum.ask_usd)?;
    Some((sum, price_sum.checked_add(weighted)?))
}

/// A row whose decimals fit their columns.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedRow<R> {
    /// The row.
    pub row: R,
    /// How many of its values were rounded to twelve decimals, for the caller's count.
    pub rounded: u32,
}

/// A value that its column cannot hold.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("column {column}: {error}")]
pub struct UnfitColumn {
    /// The column.
    pub column: &'static str,
    /// Why.
    pub error: DecimalError,
}

/// Which row an aggregate is stored as.
#[derive(Clone, Copy, Debug)]
pub struct CategoryKey<'a> {
    /// One venue or all.
    pub scope: Scope,
    /// Market type; stored as `SPOT` or `FUTURES`.
    pub market: Market,
    /// The category's name.
    pub category: &'a str,
    /// Depth from the mid, per cent.
    pub depth: Decimal,
    /// The minute boundary.
    pub boundary_ms: i64,
}

/// The stored row of an aggregate.
///
/// # Errors
/// When a sum has more integer digits than its column: the row goes to quarantine.
pub fn category_row(
    aggregate: &CategoryAggregate,
    key: &CategoryKey<'_>,
    created_us: i64,
) -> Result<FittedRow<CategorySnapshotRow>, UnfitColumn> {
    let mut fit = ColumnFitter::default();
    let row = CategorySnapshotRow {
        scope: key.scope.as_str().to_owned(),
        market_type: key.market.label().to_owned(),
        category: key.category.to_owned(),
        depth: fit.take("depth", key.depth)?,
        timestamp_ms: key.boundary_ms,
        total_bid_volume: fit.take("total_bid_volume", aggregate.bid_volume)?,
        total_ask_volume: fit.take("total_ask_volume", aggregate.ask_volume)?,
        total_bid_volume_usd: fit.take("total_bid_volume_usd", aggregate.bid_usd)?,
        total_ask_volume_usd: fit.take("total_ask_volume_usd", aggregate.ask_usd)?,
        avg_price: fit.take_opt("avg_price", aggregate.avg_price)?,
        symbol_count: i64::from(aggregate.symbol_count),
        member_count: i64::from(aggregate.member_count),
        bid_covered: i64::from(aggregate.bid_covered),
        ask_covered: i64::from(aggregate.ask_covered),
        stale_count: i64::from(aggregate.stale_count),
        unpriced_count: i64::from(aggregate.unpriced_count),
        created_us,
    };
    Ok(FittedRow { row, rounded: fit.rounded })
}

/// The stored row of one pair's sample at a depth (per cent) that is the `depth_index`th configured. `None` for a
/// sample that has no usable sums of it: a book in doubt leaves no numbers. Dollars are null without a rate.
///
/// # Errors
/// When a value has more integer digits than its column: the row goes to quarantine.
pub fn symbol_row(
    sample: &DepthSample,
    depth: Decimal,
    depth_index: usize,
    rates: &UsdRates,
    created_us: i64,
) -> Result<Option<FittedRow<SymbolSnapshotRow>>, UnfitColumn> {
    let Some(band) = sample.usable_band(depth_index) else { return Ok(None) };
    let instrument = &sample.instrument;
    let rate = rates.usd(instrument.venue, instrument.market, &instrument.quote);
    let dollars = |quote: Decimal| rate.and_then(|rate| quote.checked_mul(rate));
    let mut fit = ColumnFitter::default();
    let row = SymbolSnapshotRow {
        instrument_id: instrument.id.0,
        depth: fit.take("depth", depth)?,
        timestamp_ms: sample.boundary_ms,
        bid_volume: fit.take("bid_volume", band.bid_volume)?,
        ask_volume: fit.take("ask_volume", band.ask_volume)?,
        bid_volume_usd: fit.take_opt("bid_volume_usd", dollars(band.bid_quote))?,
        ask_volume_usd: fit.take_opt("ask_volume_usd", dollars(band.ask_quote))?,
        mid_price: fit.take_opt("mid_price", sample.mid)?,
        best_bid: fit.take_opt("best_bid", sample.best_bid)?,
        best_ask: fit.take_opt("best_ask", sample.best_ask)?,
        state: sample.state.as_str().to_owned(),
        bid_covered: band.bid_covered,
        ask_covered: band.ask_covered,
        // Ids beyond 63 bits are not known of any venue; the column cannot hold them.
        last_update_id: i64::try_from(sample.last_id).unwrap_or(i64::MAX),
        created_us,
    };
    Ok(Some(FittedRow { row, rounded: fit.rounded }))
}

#[derive(Default)]
struct ColumnFitter {
    rounded: u32,
}

impl ColumnFitter {
    fn take(&mut self, column: &'static str, value: Decimal) -> Result<Decimal, UnfitColumn> {
        let fitted = fit_column(value).map_err(|error| UnfitColumn { column, error })?;
        self.rounded += u32::from(fitted.rounded);
        Ok(fitted.value)
    }

    fn take_opt(
        &mut self,
        column: &'static str,
        value: Option<Decimal>,
    ) -> Result<Option<Decimal>, UnfitColumn> {
        value.map(|value| self.take(column, value)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        rates::DEFAULT_STABLECOINS,
        sample::{BandSums, SampleState, fixtures::*},
    };

    fn spot(base: &str, quote: &str, mid: &str, bid: &str, ask: &str) -> DepthSample {
        sample(&instrument(BINANCE, Market::Spot, base, quote), mid, bid, ask)
    }

    fn members(samples: &[DepthSample]) -> Vec<Arc<Instrument>> {
        samples.iter().map(|sample| Arc::clone(&sample.instrument)).collect()
    }

    fn total(samples: &[DepthSample], expected: &[Arc<Instrument>]) -> CategoryAggregate {
        let rates = UsdRates::from_samples(samples, &DEFAULT_STABLECOINS);
        fold(&Categories::standard().rules[0], Scope::All, Market::Spot, 0, samples, expected, &rates)
    }

    #[test]
    fn membership_is_by_the_whole_base_asset() {
        let categories = Categories::standard();
        assert_eq!(categories.names().collect::<Vec<_>>(), ["TOTAL", "TOTAL1", "TOTAL2", "TOTAL3", "OTHERS"]);
        let of = |base: &str| categories.iter().filter(|rule| rule.contains(base)).count();
        let cases = [
            ("BTC", 1),
            ("btc", 1),
            ("ETH", 2),
            ("SOL", 3),
            ("XRP", 4),
            ("BCH", 4),
            ("PEPE", 5),
            ("币安人生", 5),
        ];
        for (base, expected) in cases {
            assert_eq!(of(base), expected, "{base}");
        }
        for trap in ["BTCDOM", "SOLV", "ETHFI", "1000PEPE", "WBTC", "BTCST", "ADAUP", "LINKA"] {
            assert_eq!(of(trap), 5, "{trap}");
        }
        let meme = CategoryRule::only("MEME", &["PEPE"]);
        assert!(meme.contains("PEPE") && !meme.contains("1000PEPE"));
    }

    #[test]
    fn names_are_found_in_any_case_and_checked() {
        let categories = Categories::from_rules(vec![CategoryRule::only("defi", &["uni", "AAVE"])]).unwrap();
        let defi = categories.get("DeFi").unwrap();
        assert_eq!(defi.name.as_ref(), "DEFI");
        assert!(defi.contains("UNI") && defi.contains("aave") && !defi.contains("UNIX"));
        assert!(categories.get("MEME").is_none());

        let all = |name: &str| CategoryRule { name: name.into(), members: Membership::All };
        let long = "A".repeat(33);
        let cases = [
            (vec![all("")], CategoryError::EmptyName),
            (vec![all("A B")], CategoryError::BadName("A B".into())),
            (vec![all("ÄX")], CategoryError::BadName("ÄX".into())),
            (vec![all("A/B")], CategoryError::BadName("A/B".into())),
            (vec![all(&long)], CategoryError::BadName(long.as_str().into())),
            (vec![all("coin")], CategoryError::Reserved("coin".into())),
            (vec![all("ALL")], CategoryError::Reserved("ALL".into())),
            (vec![all("X"), all("x")], CategoryError::Duplicate("x".into())),
            (vec![CategoryRule::only::<&str>("X", &[])], CategoryError::NoMembers("X".into())),
            (
                vec![CategoryRule::all_but("X", &[""])],
                CategoryError::BadAsset { category: "X".into(), asset: "".into() },
            ),
        ];
        for (rules, expected) in cases {
            assert_eq!(Categories::from_rules(rules), Err(expected));
        }
        let standard = Categories::standard();
        assert_eq!(Categories::from_rules(standard.rules.clone()), Ok(standard));
    }

    #[test]
    fn the_five_categories_of_a_known_market() {
        let samples = [
            spot("BTC", "USDT", "60000", "2", "1"),
            spot("ETH", "USDT", "3000", "10", "20"),
            spot("SOL", "USDT", "150", "100", "100"),
            spot("XRP", "USDT", "0.5", "1000", "3000"),
            spot("SOLV", "USDT", "0.04", "5000", "2500"),
            spot("ETHFI", "BTC", "0.00002", "100", "50"),
            spot("PEPE", "XYZ", "1", "1", "1"),
            in_state(spot("UNI", "USDT", "7", "1", "1"), SampleState::Syncing),
        ];
        let expected = members(&samples);
        let rates = UsdRates::from_samples(&samples, &DEFAULT_STABLECOINS);
        let seen: Vec<_> = Categories::standard()
            .iter()
            .map(|rule| {
                let sum = fold(rule, Scope::All, Market::Spot, 0, &samples, &expected, &rates);
                let counts = [sum.member_count, sum.symbol_count, sum.stale_count, sum.unpriced_count];
                let sums = [sum.bid_volume, sum.ask_volume, sum.bid_usd, sum.ask_usd, sum.avg_price.unwrap()];
                (counts, sums.map(|sum| sum.round_dp(8).normalize().to_string()))
            })
            .collect();
        // Dollars: BTC 120000 + 60000, ETH 30000 + 60000, SOL 15000 + 15000, XRP 500 + 1500, SOLV 200 + 100,
        // ETHFI at 1.2 dollars 120 + 60. PEPE has no rate, UNI no sound book.
        let expected = [
            ([8, 6, 1, 1], ["6212", "5671", "165820", "136660", "36612.34206559"]),
            ([7, 5, 1, 1], ["6210", "5670", "45820", "76660", "2241.19225996"]),
            ([6, 4, 1, 1], ["6200", "5650", "15820", "16660", "138.58460591"]),
            ([5, 3, 1, 1], ["6100", "5550", "820", "1660", "0.49516129"]),
            ([4, 2, 1, 1], ["5100", "2550", "320", "160", "0.475"]),
        ];
        for (seen, (counts, sums)) in seen.iter().zip(expected) {
            assert_eq!(seen.0, counts);
            assert_eq!(seen.1, sums.map(str::to_owned));
        }
    }

    #[test]
    fn scope_and_market_select_and_missing_members_are_stale() {
        let bybit = sample(&instrument(BYBIT, Market::Spot, "BTC", "USDT"), "100", "1", "1");
        let futures = sample(&instrument(BINANCE, Market::Futures, "BTC", "USDT"), "100", "1", "1");
        let samples = [spot("BTC", "USDT", "100", "1", "2"), bybit, futures];
        let mut expected = members(&samples);
        expected.push(instrument(BINANCE, Market::Spot, "ADA", "USDT"));
        let rates = UsdRates::from_samples(&samples, &DEFAULT_STABLECOINS);
        let rule = &Categories::standard().rules[0];
        let count = |scope, market| {
            let sum = fold(rule, scope, market, 0, &samples, &expected, &rates);
            [sum.member_count, sum.symbol_count, sum.stale_count]
        };
        assert_eq!(count(Scope::All, Market::Spot), [3, 2, 1]);
        assert_eq!(count(Scope::Venue(BINANCE), Market::Spot), [2, 1, 1]);
        assert_eq!(count(Scope::Venue(BYBIT), Market::Spot), [1, 1, 0]);
        assert_eq!(count(Scope::Venue(BYBIT), Market::Futures), [0, 0, 0]);
        let deeper = fold(rule, Scope::All, Market::Spot, 1, &samples, &expected, &rates);
        assert_eq!((deeper.stale_count, deeper.symbol_count, deeper.avg_price), (3, 0, None));
    }

    #[test]
    fn no_live_member_or_no_depth_has_no_price() {
        let stale = [in_state(spot("BTC", "USDT", "100", "1", "1"), SampleState::Paused)];
        let sum = total(&stale, &members(&stale));
        assert_eq!((sum.stale_count, sum.avg_price), (1, None));
        let empty = [spot("BTC", "USDT", "100", "0", "0")];
        let sum = total(&empty, &members(&empty));
        assert_eq!((sum.symbol_count, sum.avg_price, sum.bid_covered), (1, None, 1));
    }

    #[test]
    fn a_member_that_overflows_is_left_out_whole() {
        let mut huge = spot("BTC", "USDT", "100", "1", "1");
        huge.bands[0].ask_quote = Decimal::MAX;
        let samples = [huge, spot("ETH", "USDT", "10", "1", "1")];
        let sum = total(&samples, &members(&samples));
        assert_eq!((sum.symbol_count, sum.unpriced_count), (1, 1));
        assert_eq!((sum.bid_volume, sum.ask_usd, sum.avg_price), (dec("1"), dec("10"), Some(dec("10"))));
    }

    #[test]
    fn rows_fit_their_columns() {
        let mut samples = [spot("ETH", "BTC", "0.05", "3", "1"), spot("BTC", "USDT", "3", "1", "1")];
        samples[0].bands[0].bid_quote = dec("0.1000000000005");
        let sum = total(&samples[..1], &members(&samples));
        assert_eq!((sum.unpriced_count, sum.stale_count), (1, 1), "no rate without BTC/USDT");
        let sum = total(&samples, &members(&samples));
        let key = CategoryKey {
            scope: Scope::Venue(BINANCE),
            market: Market::Spot,
            category: "TOTAL",
            depth: dec("1.5"),
            boundary_ms: 60_000,
        };
        let fitted = category_row(&sum, &key, 9).unwrap();
        assert_eq!(fitted.row.total_bid_volume_usd, dec("3.300000000002"), "half-even of ...0015");
        assert_eq!((fitted.row.scope.as_str(), fitted.row.market_type.as_str()), ("binance", "SPOT"));
        assert_eq!((fitted.row.symbol_count, fitted.row.member_count, fitted.row.created_us), (2, 2, 9));
        assert!(fitted.rounded >= 1);
        let huge = CategoryAggregate { bid_usd: dec("10000000000000000"), ..sum };
        assert_eq!(category_row(&huge, &key, 9).unwrap_err().column, "total_bid_volume_usd");

        let rates = UsdRates::from_samples(&samples, &DEFAULT_STABLECOINS);
        let pair = symbol_row(&samples[0], dec("5"), 0, &rates, 9).unwrap().unwrap();
        assert_eq!((pair.row.bid_volume_usd, pair.rounded), (Some(dec("0.300000000002")), 1));
        assert_eq!((pair.row.state.as_str(), pair.row.last_update_id, pair.row.depth), ("live", 7, dec("5")));
        let unpriced = symbol_row(&samples[0], dec("5"), 0, &UsdRates::default(), 9).unwrap().unwrap();
        assert_eq!((unpriced.row.bid_volume_usd, unpriced.row.bid_volume), (None, dec("3")));
        let stale = in_state(samples[0].clone(), SampleState::Stale);
        assert_eq!(symbol_row(&stale, dec("5"), 0, &rates, 9), Ok(None));
    }

    const BASES: [&str; 8] = ["BTC", "ETH", "SOL", "XRP", "SOLV", "ETHFI", "BTCDOM", "PEPE"];

    #[derive(Clone, Debug)]
    struct Drawn {
        samples: Vec<DepthSample>,
        expected: Vec<Arc<Instrument>>,
    }

    fn market() -> impl Strategy<Value = Drawn> {
        let pair = (
            0..8_usize,
            0..3_usize,
            1_i64..100_000,
            0_i64..1_000,
            0_i64..1_000,
            any::<[bool; 3]>(),
            0..8_usize,
        );
        proptest::collection::vec(pair, 0..25).prop_map(|pairs| {
            let mut drawn = Drawn { samples: Vec::new(), expected: Vec::new() };
            for (base, quote, mid, bid, ask, [bybit, bid_covered, ask_covered], state) in pairs {
                let venue = if bybit { BYBIT } else { BINANCE };
                let pair = instrument(venue, Market::Spot, BASES[base], ["USDT", "BTC", "XYZ"][quote]);
                if drawn.expected.iter().any(|known| known.id == pair.id)
                    || BASES[base] == "BTC" && quote == 1
                {
                    continue;
                }
                drawn.expected.push(Arc::clone(&pair));
                // The eighth "state" is a member that sends nothing.
                if let Some(state) = SampleState::ALL.get(state.saturating_sub(1)).filter(|_| state < 7) {
                    let mut made = sample(&pair, &mid.to_string(), &bid.to_string(), &ask.to_string());
                    let band = BandSums { bid_covered, ask_covered, ..made.bands[0].clone() };
                    made.bands = vec![band];
                    drawn.samples.push(in_state(made, *state));
                }
            }
            drawn
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_fold(drawn in market(), which in 0..5_usize, one_venue: bool) {
            let scope = if one_venue { Scope::Venue(BYBIT) } else { Scope::All };
            let excluded: &[&str] = [
                &[][..], &["BTC"], &["BTC", "ETH"], &["BTC", "ETH", "SOL"], &["BTC", "ETH", "SOL", "XRP"],
            ][which];
            let rates = UsdRates::from_samples(&drawn.samples, &DEFAULT_STABLECOINS);
            let rule = &Categories::standard().rules[which];
            let sum = fold(rule, scope, Market::Spot, 0, &drawn.samples, &drawn.expected, &rates);
            let belongs = |i: &Instrument| !excluded.contains(&i.base.as_ref()) && (!one_venue || i.venue == BYBIT);

            let members: Vec<_> = drawn.expected.iter().filter(|i| belongs(i)).collect();
            let live: Vec<_> = drawn.samples.iter().filter(|s| belongs(&s.instrument) && s.state.is_usable()).collect();
            let priced: Vec<_> = live.iter().filter_map(|s| {
                let rate = rates.usd(s.instrument.venue, Market::Spot, &s.instrument.quote)?;
                Some((s, &s.bands[0], rate))
            }).collect();
            let close = |a: Decimal, b: Decimal| (a - b).abs() <= dec("0.00000000001");
            prop_assert_eq!(sum.member_count as usize, members.len());
            prop_assert_eq!(sum.stale_count as usize, members.len() - live.len());
            prop_assert_eq!(sum.unpriced_count as usize, live.len() - priced.len());
            prop_assert_eq!(sum.symbol_count as usize, priced.len());
            prop_assert_eq!(sum.bid_covered as usize, priced.iter().filter(|p| p.1.bid_covered).count());
            prop_assert_eq!(sum.ask_covered as usize, priced.iter().filter(|p| p.1.ask_covered).count());
            prop_assert_eq!(sum.bid_volume, priced.iter().map(|p| p.1.bid_volume).sum::<Decimal>());
            prop_assert_eq!(sum.ask_volume, priced.iter().map(|p| p.1.ask_volume).sum::<Decimal>());
            prop_assert!(close(sum.bid_usd, priced.iter().map(|p| p.1.bid_quote * p.2).sum()));
            prop_assert!(close(sum.ask_usd, priced.iter().map(|p| p.1.ask_quote * p.2).sum()));
            let weight: Decimal = priced.iter().map(|p| (p.1.bid_quote + p.1.ask_quote) * p.2).sum();
            if weight.is_zero() {
                prop_assert_eq!(sum.avg_price, None);
            } else {
                let share = |quote: Decimal| quote / weight;
                let mean: Decimal = priced.iter()
                    .map(|p| p.0.mid.unwrap() * p.2 * share((p.1.bid_quote + p.1.ask_quote) * p.2)).sum();
                let avg = sum.avg_price.unwrap();
                prop_assert!((avg - mean).abs() <= mean * dec("0.000000000001"), "{avg} is not {mean}");
            }
            let mut turned = drawn.expected.clone();
            turned.reverse();
            prop_assert_eq!(&fold(rule, scope, Market::Spot, 0, &drawn.samples, &turned, &rates), &sum);
        }
    }
}
