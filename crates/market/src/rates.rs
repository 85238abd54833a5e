//! Dollar rates of quote assets, from the mids of one boundary's samples.
//!
//! A configured stablecoin is worth 1. Any other asset needs a pair against a stablecoin, either way round, or one
//! against an asset that has such a pair. An asset without a route has no rate: it is never taken as 1.
//! Dated futures price a delivery, not the asset, and give no rate.

use std::{borrow::Cow, cmp::Reverse, collections::BTreeMap};

use rust_decimal::Decimal;

use crate::{
    ids::{InstrumentId, Market, VenueId},
    instrument::InstrumentKind,
    sample::DepthSample,
};

/// Assets taken as a dollar unless configured otherwise.
pub const DEFAULT_STABLECOINS: [&str; 12] =
    ["USDT", "USDC", "FDUSD", "USD", "TUSD", "USD1", "DAI", "USDE", "PYUSD", "RLUSD", "USDP", "BUSD"];

/// How the dollar rate of an asset was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Dollars for one unit of the asset.
    pub usd: Decimal,
    /// Dollars of bid and ask depth, in the first configured band, of its thinnest leg.
    pub depth_usd: Decimal,
    /// The pairs used, one or two, the asset's own pair first.
    pub legs: Vec<InstrumentId>,
}

type Routes = BTreeMap<Box<str>, Route>;

/// The dollar rates of one boundary.
///
/// A rate is looked up among the pairs of the same venue and market first, then among all of the venue's, then among
/// all venues'. Within one of these a direct pair goes before two hops; among equals the deepest wins, then the
/// stablecoin named first in the configuration, then the names. The order of the samples is of no consequence.
#[derive(Clone, Debug, Default)]
pub struct UsdRates {
    stablecoins: Vec<Box<str>>,
    by_market: BTreeMap<(VenueId, Market), Routes>,
    by_venue: BTreeMap<VenueId, Routes>,
    anywhere: Routes,
}

impl UsdRates {
    /// Finds the rates that these samples give; unusable samples give none. Names of assets are compared whole and
    /// without regard to ASCII case.
    pub fn from_samples<'a, S: AsRef<str>>(
        samples: impl IntoIterator<Item = &'a DepthSample>,
        stablecoins: &[S],
    ) -> Self {
        let stablecoins: Vec<Box<str>> = stablecoins.iter().map(|coin| upper(coin.as_ref()).into()).collect();
        let edges: Vec<Edge<'a>> = samples.into_iter().filter_map(Edge::pair).flatten().collect();
        let (mut by_market, mut by_venue) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for edge in &edges {
            by_market.entry((edge.venue, edge.market)).or_default().push(edge);
            by_venue.entry(edge.venue).or_default().push(edge);
        }
        let find = |edges: &[&Edge<'a>]| find_routes(edges, &stablecoins);
        Self {
            by_market: by_market.iter().map(|(key, edges)| (*key, find(edges))).collect(),
            by_venue: by_venue.iter().map(|(key, edges)| (*key, find(edges))).collect(),
            anywhere: find(&edges.iter().collect::<Vec<_>>()),
            stablecoins,
        }
    }

    /// Dollars for one unit of an asset, as seen from a venue and market; `None` without a route.
    pub fn usd(&self, venue: VenueId, market: Market, asset: &str) -> Option<Decimal> {
        if self.is_stable(asset) {
            Some(Decimal::ONE)
        } else {
            self.route(venue, market, asset).map(|route| route.usd)
        }
    }

    /// The route of an asset that is no stablecoin.
    pub fn route(&self, venue: VenueId, market: Market, asset: &str) -> Option<&Route> {
        let asset = upper(asset);
        let same_market = self.by_market.get(&(venue, market)).and_then(|routes| routes.get(asset.as_ref()));
        let same_venue = || self.by_venue.get(&venue).and_then(|routes| routes.get(asset.as_ref()));
        same_market.or_else(same_venue).or_else(|| self.anywhere.get(asset.as_ref()))
    }

    /// True when the asset is taken as a dollar.
    pub fn is_stable(&self, asset: &str) -> bool {
        self.stablecoins.iter().any(|coin| coin.eq_ignore_ascii_case(asset))
    }
}

/// One direction of a pair: what `asset` is worth in `via`.
struct Edge<'a> {
    asset: Cow<'a, str>,
    via: Cow<'a, str>,
    mid: Decimal,
    /// True when the pair is `via/asset`, so that the mid divides.
    inverse: bool,
    /// Depth of the first band in units of `via`.
    depth: Decimal,
    venue: VenueId,
    market: Market,
    native: &'a str,
    id: InstrumentId,
}

impl<'a> Edge<'a> {
    fn pair(sample: &'a DepthSample) -> Option<[Self; 2]> {
        let instrument = &sample.instrument;
        if matches!(instrument.kind, InstrumentKind::Dated { .. }) {
            return None;
        }
        let mid = sample.usable_mid()?;
        let band = sample.usable_band(0);
        let sum = |bid: Decimal, ask: Decimal| bid.checked_add(ask).unwrap_or(Decimal::ZERO);
        let edge = |inverse: bool| {
            let (asset, via) = if inverse {
                (&instrument.quote, &instrument.base)
            } else {
                (&instrument.base, &instrument.quote)
            };
            let depth = band.map(|band| {
                if inverse {
                    sum(band.bid_volume, band.ask_volume)
                } else {
                    sum(band.bid_quote, band.ask_quote)
                }
            });
            Self {
                asset: upper(asset),
                via: upper(via),
                mid,
                inverse,
                depth: depth.unwrap_or_default(),
                venue: instrument.venue,
                market: instrument.market,
                native: &instrument.native,
                id: instrument.id,
            }
        };
        Some([edge(false), edge(true)])
    }

    /// Dollars for one unit of the asset, when one unit of `via` is worth `via_usd`; `None` when out of range.
    fn usd(&self, via_usd: Decimal) -> Option<Decimal> {
        let usd = if self.inverse { via_usd.checked_div(self.mid) } else { via_usd.checked_mul(self.mid) };
        usd.filter(|usd| *usd > Decimal::ZERO)
    }

    /// Orders candidates of equal length; the least is the best.
    fn rank(&self, depth_usd: Decimal, stable_order: usize) -> Rank<'_> {
        (Reverse(depth_usd), stable_order, self.via.as_ref(), self.venue, self.market, self.native)
    }
}

type Rank<'e> = (Reverse<Decimal>, usize, &'e str, VenueId, Market, &'e str);

fn find_routes(edges: &[&Edge<'_>], stablecoins: &[Box<str>]) -> Routes {
    let stable_order = |asset: &str| stablecoins.iter().position(|coin| coin.as_ref() == asset);
    let priced = edges.iter().filter(|edge| stable_order(&edge.asset).is_none());
    let direct = best(priced.clone().filter_map(|edge| {
        let order = stable_order(&edge.via)?;
        let route = Route { usd: edge.usd(Decimal::ONE)?, depth_usd: edge.depth, legs: vec![edge.id] };
        Some((*edge, order, route))
    }));
    let mut routes =
        best(priced.filter(|edge| !direct.contains_key(edge.asset.as_ref())).filter_map(|edge| {
            let via = direct.get(edge.via.as_ref())?;
            let own_depth = edge.depth.checked_mul(via.usd).unwrap_or(Decimal::MAX);
            let legs = [edge.id].into_iter().chain(via.legs.iter().copied()).collect();
            let route = Route { usd: edge.usd(via.usd)?, depth_usd: own_depth.min(via.depth_usd), legs };
            Some((*edge, 0, route))
        }));
    routes.extend(direct);
    routes
}

fn best<'e>(candidates: impl Iterator<Item = (&'e Edge<'e>, usize, Route)>) -> Routes {
    let mut best = BTreeMap::<&str, (Rank<'e>, Route)>::new();
    for (edge, order, route) in candidates {
        let rank = edge.rank(route.depth_usd, order);
        let known = best.get(edge.asset.as_ref());
        if known.is_none_or(|(known, _)| rank < *known) {
            best.insert(edge.asset.as_ref(), (rank, route));
        }
    }
    best.into_iter().map(|(asset, (_, route))| (asset.into(), route)).collect()
}

fn upper(asset: &str) -> Cow<'_, str> {
    if asset.bytes().any(|byte| byte.is_ascii_lowercase()) {
        Cow::Owned(asset.to_ascii_uppercase())
    } else {
        Cow::Borrowed(asset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        instrument::Instrument,
        sample::{SampleState, fixtures::*},
    };

    fn spot(base: &str, quote: &str, mid: &str, each_side: &str) -> DepthSample {
        sample(&instrument(BINANCE, Market::Spot, base, quote), mid, each_side, each_side)
    }

    fn rates(samples: &[DepthSample]) -> UsdRates {
        UsdRates::from_samples(samples, &DEFAULT_STABLECOINS)
    }

    fn usd(rates: &UsdRates, asset: &str) -> Option<String> {
        rates.usd(BINANCE, Market::Spot, asset).map(|usd| usd.normalize().to_string())
    }

    #[test]
    fn routes_are_direct_inverse_or_of_two_hops() {
        let samples = [
            spot("BTC", "USDT", "60000", "1"),
            spot("USDT", "TRY", "40", "100"),
            spot("ETH", "BTC", "0.05", "10"),
            spot("BTC", "EUR", "50000", "1"),
            spot("XYZ", "ABC", "2", "1"),
            in_state(spot("SOL", "USDT", "150", "1"), SampleState::Stale),
        ];
        let rates = rates(&samples);
        let cases = [
            ("USDT", Some("1")),
            ("usdc", Some("1")),
            ("BTC", Some("60000")),
            ("btc", Some("60000")),
            ("TRY", Some("0.025")),
            ("ETH", Some("3000")),
            ("EUR", Some("1.2")),
            ("SOL", None),
            ("XYZ", None),
            ("ABC", None),
            ("BTCDOM", None),
        ];
        for (asset, expected) in cases {
            assert_eq!(usd(&rates, asset).as_deref(), expected, "{asset}");
        }
        let route = rates.route(BINANCE, Market::Spot, "ETH").unwrap();
        assert_eq!(route.legs, [samples[2].instrument.id, samples[0].instrument.id]);
        assert_eq!(route.depth_usd, dec("60000"), "the thinner leg: 20 ETH at 0.05 BTC");
    }

    #[test]
    fn the_deepest_direct_pair_wins_and_ties_go_by_configured_order() {
        let deep = [spot("BTC", "USDT", "100", "1"), spot("BTC", "USDC", "101", "2")];
        assert_eq!(usd(&rates(&deep), "BTC").as_deref(), Some("101"));
        let tie = [
            spot("BTC", "USDC", "100", "1"),
            spot("BTC", "FDUSD", "100", "1"),
            spot("BTC", "USDT", "100", "1"),
        ];
        let route = |coins: &[&str]| {
            UsdRates::from_samples(&tie, coins)
                .route(BINANCE, Market::Spot, "BTC")
                .map(|route| route.legs.clone())
        };
        assert_eq!(route(&["USDT", "USDC", "FDUSD"]), Some(vec![tie[2].instrument.id]));
        assert_eq!(route(&["FDUSD", "USDT", "USDC"]), Some(vec![tie[1].instrument.id]));
        assert_eq!(route(&["EUR"]), None);
        let direct_first = [
            spot("ETH", "USDT", "3000", "0.001"),
            spot("ETH", "BTC", "0.06", "1000"),
            spot("BTC", "USDT", "60000", "1000"),
        ];
        assert_eq!(usd(&rates(&direct_first), "ETH").as_deref(), Some("3000"));
    }

    #[test]
    fn the_nearest_market_gives_the_rate() {
        let pair = |venue, market, mid| sample(&instrument(venue, market, "BTC", "USDT"), mid, "1", "1");
        let all = [
            pair(BINANCE, Market::Spot, "100"),
            pair(BINANCE, Market::Futures, "101"),
            sample(&instrument(BYBIT, Market::Spot, "BTC", "USDT"), "102", "50", "50"),
        ];
        let seen = |samples: &[DepthSample]| rates(samples).usd(BINANCE, Market::Spot, "BTC");
        assert_eq!(seen(&all), Some(dec("100")));
        assert_eq!(seen(&all[1..]), Some(dec("101")));
        assert_eq!(seen(&all[2..]), Some(dec("102")));
        assert_eq!(seen(&[]), None);
    }

    #[test]
    fn dated_futures_and_empty_books_give_no_rate() {
        let mut dated = spot("BTC", "USDT", "100", "1");
        let facts =
            Instrument { kind: InstrumentKind::Dated { expiry_ms: 1 }, ..(*dated.instrument).clone() };
        dated.instrument = Arc::new(facts);
        let mut empty = spot("ETH", "USDT", "100", "1");
        empty.mid = None;
        let mut zero = spot("SOL", "USDT", "100", "1");
        zero.mid = Some(Decimal::ZERO);
        let rates = rates(&[dated, empty, zero]);
        assert!(["BTC", "ETH", "SOL"].iter().all(|asset| usd(&rates, asset).is_none()));
    }

    #[test]
    fn what_is_out_of_range_has_no_rate() {
        let samples =
            [spot("BIG", "USDT", "70000000000000000000000000000", "0"), spot("HUGE", "BIG", "100", "1")];
        assert_eq!(usd(&rates(&samples), "HUGE"), None);
    }

    const ASSETS: [&str; 6] = ["USDT", "USDC", "BTC", "ETH", "TRY", "XYZ"];

    fn arbitrary_samples() -> impl Strategy<Value = Vec<DepthSample>> {
        let one =
            (0..6_usize, 0..6_usize, 1_i64..1_000_000, 0_i64..1000, any::<bool>(), any::<bool>(), 0..5_u8);
        proptest::collection::vec(one, 0..14).prop_map(|drawn| {
            let samples = drawn.into_iter().filter(|drawn| drawn.0 != drawn.1);
            let samples = samples.map(|(base, quote, mid, side, other_venue, futures, state)| {
                let venue = if other_venue { BYBIT } else { BINANCE };
                let market = if futures { Market::Futures } else { Market::Spot };
                let pair = instrument(venue, market, ASSETS[base], ASSETS[quote]);
                let made = sample(&pair, &Decimal::new(mid, 3).to_string(), &side.to_string(), "1");
                if state == 0 { in_state(made, SampleState::Crossed) } else { made }
            });
            // A board holds one sample of an instrument.
            samples
                .map(|sample| (sample.instrument.id, sample))
                .collect::<BTreeMap<_, _>>()
                .into_values()
                .collect()
        })
    }

    /// What a unit of `asset` is worth by one pair, in the pair's other asset.
    fn other_side(sample: &DepthSample, asset: &str) -> Option<(String, Decimal)> {
        let (mid, pair) = (sample.usable_mid()?, &sample.instrument);
        if pair.base.as_ref() == asset {
            Some((pair.quote.to_string(), mid))
        } else {
            (pair.quote.as_ref() == asset).then(|| (pair.base.to_string(), Decimal::ONE / mid))
        }
    }

    fn naive(samples: &[DepthSample], asset: &str) -> Vec<Decimal> {
        let stable = |asset: &str| asset == "USDT" || asset == "USDC";
        let hops = |asset: &str| samples.iter().filter_map(|s| other_side(s, asset)).collect::<Vec<_>>();
        let direct = |asset: &str| {
            hops(asset).into_iter().filter(|(via, _)| stable(via)).map(|(_, rate)| rate).collect::<Vec<_>>()
        };
        let first = direct(asset);
        if !first.is_empty() {
            return first;
        }
        let second = hops(asset).into_iter();
        second.flat_map(|(via, rate)| direct(&via).into_iter().map(move |usd| usd * rate)).collect()
    }

    proptest! {
        #[test]
        fn each_rate_is_one_that_a_plain_search_finds(samples in arbitrary_samples(), rotation in 0_usize..14) {
            let found = rates(&samples);
            let mut turned = samples.clone();
            turned.rotate_left(rotation.min(samples.len()));
            turned.reverse();
            let again = rates(&turned);
            for asset in &ASSETS[2..] {
                for market in Market::ALL {
                    prop_assert_eq!(found.route(BINANCE, market, asset), again.route(BINANCE, market, asset));
                    let near: Vec<_> = samples.iter()
                        .filter(|s| s.instrument.venue == BINANCE && s.instrument.market == market).cloned().collect();
                    let same_venue: Vec<_> = samples.iter().filter(|s| s.instrument.venue == BINANCE).cloned().collect();
                    let expected = [near, same_venue, samples.clone()].iter()
                        .map(|level| naive(level, asset)).find(|level| !level.is_empty()).unwrap_or_default();
                    match found.usd(BINANCE, market, asset) {
                        None => prop_assert!(expected.is_empty(), "{asset} has a route: {expected:?}"),
                        // The naive search multiplies by a rounded reciprocal.
                        Some(usd) => prop_assert!(
                            expected.iter().any(|e| (*e - usd).abs() <= usd * dec("0.000000000000001")),
                            "{asset}: {usd} is none of {expected:?}"
                        ),
                    }
                }
            }
        }
    }
}
