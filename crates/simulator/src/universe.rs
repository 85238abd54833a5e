//! The instruments of a seeded market: which symbols exist, their ticks, lots and prices. Drawn from names only, so
//! that a symbol looks the same in every run and on both markets.

use fathom_market::ids::Market;

use crate::config::Symbols;
use crate::number::{mix, seed_of, unit};

/// Base assets, the ten of the category system first; the price in USD where it is well known.
const KNOWN: [(&str, f64); 30] = [
    ("BTC", 91_250.0),
    ("ETH", 3_050.0),
    ("XRP", 2.15),
    ("BNB", 880.0),
    ("SOL", 138.0),
    ("TRX", 0.281),
    ("DOGE", 0.152),
    ("ADA", 0.462),
    ("LINK", 13.4),
    ("BCH", 512.0),
    ("LTC", 94.0),
    ("AVAX", 14.2),
    ("DOT", 2.71),
    ("UNI", 7.05),
    ("AAVE", 172.0),
    ("XLM", 0.251),
    ("SUI", 1.62),
    ("HBAR", 0.145),
    ("NEAR", 2.13),
    ("APT", 2.95),
    ("PEPE", 0.000_004_75),
    ("SHIB", 0.000_008_4),
    ("BONK", 0.000_009_6),
    ("FLOKI", 0.000_046),
    ("WIF", 0.42),
    ("SOLV", 0.0136),
    ("ETHFI", 0.96),
    ("USDC", 1.0),
    ("FDUSD", 0.999),
    ("DOGS", 0.000_052),
];

/// Further base assets; their prices come from their names.
const OTHERS: &str = "ATOM FIL ICP ETC ARB OP INJ TIA SEI IMX GRT RNDR FET AGIX OCEAN LDO MKR SNX CRV COMP YFI SUSHI BAL KNC \
ZRX BAT ENJ MANA SAND AXS GALA CHZ FLOW THETA TFUEL VET ALGO XTZ EOS NEO IOTA QTUM ONT ZIL ICX ZEC DASH XMR DCR RVN SC DGB \
HOT CELR ANKR STORJ BAND REN OMG LRC SKL CTSI OGN KAVA RUNE EGLD ONE FTM ROSE CELO MINA KSM WAVES AR AUDIO MASK ENS LPT JASMY \
DYDX GMX GNS PERP RDNT MAGIC BLUR APE LOOKS HIGH ID EDU CYBER ARKM WLD PENDLE JTO PYTH JUP STRK MANTA ALT DYM PIXEL PORTAL AEVO \
BOME ENA W TNSR SAGA OMNI REZ BB NOT IO ZK LISTA ZRO BANANA RARE EIGEN SCR HMSTR CATI NEIRO TURBO MEW POPCAT GOAT MOODENG PNUT \
ACT THE ORCA VELODROME MOVE ME USUAL PENGU VANA BIO KAITO BERA LAYER SHELL RED NIL PARTI BABY FORTH HYPER INIT SIGN STO HAEDAL \
SYRUP SOPH RESOLV HOME SPK NEWT SAHARA ERA TREE PROVE TOWNS WLFI LINEA OPEN SOMI HOLO AVNT MIRA XPL FF ASTER EUL YB ZBT TURTLE \
GIGGLE KITE MMT ALLO BANK SXP TWT CAKE ALPHA BAKE DEGO CHR STX CKB ARPA COTI IOST WIN HIVE STEEM NKN MTL DENT KEY WAN FUN CVC \
STMX MDT DATA TRB RLC PHA BEL WOO AGLD RAD POLS YGG ALICE TLM SLP QUICK FARM BADGER DIA";

/// Where a price is so small that naive number code shows it in scientific notation.
const TINY: (&str, f64) = ("LUNCX", 0.000_001_23);

/// One instrument, with the venue's spelling rules for its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    /// Native symbol, upper case.
    pub native: String,
    /// The symbol in stream names: only ASCII letters are lowered.
    pub lower: String,
    pub base: String,
    pub quote: String,
    /// Margin asset on futures.
    pub margin: String,
    pub contract: Contract,
    /// Status at start.
    pub status: &'static str,
    /// Decimals of a price; the tick is one unit of the last.
    pub price_scale: u8,
    /// Decimals of a quantity; the lot is one unit of the last.
    pub qty_scale: u8,
    /// Decimals that are printed.
    pub price_decimals: u8,
    pub qty_decimals: u8,
    pub quote_decimals: u8,
    /// Price at the middle of its history, in ticks.
    pub anchor: f64,
    /// USD value of one quote unit, for sensible quantities.
    pub quote_usd: f64,
    /// Share of the market's steps, unnormalised.
    pub weight: f64,
    /// Levels on each side of its book.
    pub levels: usize,
    /// First candle.
    pub onboard_ms: i64,
    pub funding_hours: i64,
}

/// Contract kind on futures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contract {
    Spot,
    Perpetual,
    CurrentQuarter,
    TradFi,
}

impl Contract {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Spot => "",
            Self::Perpetual => "PERPETUAL",
            Self::CurrentQuarter => "CURRENT_QUARTER",
            Self::TradFi => "TRADIFI_PERPETUAL",
        }
    }
}

/// Delivery of perpetual contracts: a day in the year 2100.
pub(crate) const NEVER_MS: i64 = 4_133_404_800_000;
/// Delivery of the dated contract `BTCUSDT_270326`.
pub(crate) const DATED_MS: i64 = 1_806_048_000_000;
const DATED_NAME: &str = "BTCUSDT_270326";
const DAY_MS: i64 = 86_400_000;
/// Listing dates count back from here (2026-11-01), so that they do not move with the clock.
const EPOCH_MS: i64 = 1_793_491_200_000;

/// The instruments of a market.
pub(crate) fn listings(market: Market, symbols: &Symbols, max_levels: usize) -> Vec<Listing> {
    let mut found = match symbols {
        Symbols::Named(names) => names.iter().filter_map(|name| named(market, name)).collect(),
        Symbols::Count { bases, traps } => counted(market, *bases, *traps),
    };
    for (rank, listing) in found.iter_mut().enumerate() {
        #[allow(clippy::cast_precision_loss, reason = "a rank is small")]
        let share = 1.0 / (rank as f64 + 2.0);
        listing.weight = share;
        listing.levels = (max_levels / (1 + rank / 4).min(6)).max(50);
    }
    found
}

/// A symbol that is listed while the market runs; `None` for names that the market cannot have.
pub(crate) fn listed(market: Market, native: &str, now_ms: i64, levels: usize) -> Option<Listing> {
    let listing = named(market, native).filter(|listing| listing.native == native)?;
    Some(Listing { weight: 0.05, levels: levels.max(50), onboard_ms: now_ms, ..listing })
}

fn counted(market: Market, bases: usize, traps: bool) -> Vec<Listing> {
    let mut found: Vec<Listing> =
        all_bases().take(bases).filter_map(|base| pair(market, &base, "USDT")).collect();
    if !traps {
        return found;
    }
    let extra: &[&str] = match market {
        Market::Spot => &["SOLVUSDT", "ETHFIUSDT", "ETHBTC", "USDCUSDT", "LUNCXUSDT", "PEPEUSDT", "BTCUSDC"],
        Market::Futures => &[
            "BTCDOMUSDT",
            "SOLVUSDT",
            "ETHFIUSDT",
            "1000PEPEUSDT",
            "LUNCXUSDT",
            "币安人生USDT",
            "XAUUSDT",
            "BTCUSDC",
            DATED_NAME,
        ],
    };
    for name in extra {
        if let Some(listing) =
            named(market, name).filter(|new| found.iter().all(|old| old.native != new.native))
        {
            found.push(listing);
        }
    }
    let dead: &[(&str, &'static str)] = match market {
        Market::Spot => &[("LUNAUSDT", "BREAK"), ("FTTUSDT", "HALT"), ("SRMUSDT", "CANCEL_ONLY")],
        Market::Futures => {
            &[("BTCSTUSDT", "PENDING_TRADING"), ("SRMUSDT", "SETTLING"), ("RAYUSDT", "TRADING_HALT")]
        }
    };
    for (name, status) in dead {
        found.extend(named(market, name).map(|listing| Listing { status, ..listing }));
    }
    found
}

fn all_bases() -> impl Iterator<Item = String> {
    let known = KNOWN.iter().map(|(base, _)| (*base).to_owned());
    let others = OTHERS.split_ascii_whitespace().map(str::to_owned);
    let named = known.chain(others).filter(|base| !matches!(base.as_str(), "USDC" | "FDUSD"));
    named.chain((0..).map(|number| format!("SYN{number}")))
}

/// Builds the listing of a native symbol from the quotes that the universe knows.
fn named(market: Market, native: &str) -> Option<Listing> {
    if native == DATED_NAME && market == Market::Futures {
        let mut dated = pair(market, "BTC", "USDT")?;
        native.clone_into(&mut dated.native);
        dated.lower = native.to_ascii_lowercase();
        dated.contract = Contract::CurrentQuarter;
        return Some(dated);
    }
    let quote = ["USDT", "USDC", "FDUSD", "BTC", "ETH"]
        .into_iter()
        .find(|quote| native.len() > quote.len() && native.ends_with(quote))?;
    pair(market, &native[..native.len() - quote.len()], quote)
}

fn pair(market: Market, base: &str, quote: &str) -> Option<Listing> {
    let spot = market == Market::Spot;
    let futures_only = matches!(base, "BTCDOM" | "XAU") || base.starts_with("1000") || !base.is_ascii();
    if spot && futures_only {
        return None;
    }
    // Meme coins of tiny price trade on futures in units of a thousand.
    if !spot && matches!(base, "PEPE" | "SHIB" | "BONK" | "FLOKI") {
        return pair(market, &format!("1000{base}"), quote);
    }
    let quote_usd = usd_price(quote);
    let price = usd_price(base) / quote_usd;
    let price_scale = price_decimals(price, spot);
    let qty_scale = qty_decimals(price * quote_usd, spot).min(8 - price_scale.min(8));
    let native = format!("{base}{quote}");
    let hash = seed_of(7, base);
    let age_days = if usd_price_known(base).is_some() {
        2500
    } else {
        40 + i64::from(u16::try_from(hash % 1500).unwrap_or(0))
    };
    Some(Listing {
        lower: native.to_ascii_lowercase(),
        native,
        base: base.to_owned(),
        quote: quote.to_owned(),
        margin: quote.to_owned(),
        contract: match (spot, base) {
            (true, _) => Contract::Spot,
            (false, "XAU") => Contract::TradFi,
            (false, _) => Contract::Perpetual,
        },
        status: "TRADING",
        price_scale,
        qty_scale,
        price_decimals: if spot { 8 } else { price_scale },
        qty_decimals: if spot { 8 } else { qty_scale },
        quote_decimals: if spot { 8 } else { price_scale + qty_scale },
        anchor: price * 10_f64.powi(i32::from(price_scale)),
        quote_usd,
        weight: 1.0,
        levels: 1000,
        onboard_ms: EPOCH_MS - age_days * DAY_MS,
        funding_hours: match hash % 10 {
            0 => 1,
            1..=3 => 4,
            _ => 8,
        },
    })
}

/// Four to five significant digits in a tick, eight decimals at most.
fn price_decimals(price: f64, spot: bool) -> u8 {
    let fine: u8 = u8::from(!spot);
    let scale = match price {
        p if p >= 1000.0 => 2,
        p if p >= 100.0 => 2 + fine,
        p if p >= 1.0 => 4,
        p if p >= 0.1 => 5,
        p if p >= 0.001 => 6,
        p if p >= 0.0001 => 7,
        _ => 8,
    };
    if price >= 1000.0 && !spot { 1 } else { scale }
}

fn qty_decimals(usd: f64, spot: bool) -> u8 {
    let coarse: u8 = if spot { 2 } else { 0 };
    match usd {
        p if p >= 10_000.0 => 3 + coarse,
        p if p >= 500.0 => 3 + coarse.min(1),
        p if p >= 20.0 => 2 + coarse.min(1),
        p if p >= 1.0 => 1,
        _ => 0,
    }
}

fn usd_price_known(base: &str) -> Option<f64> {
    KNOWN.iter().find(|(known, _)| *known == base).map(|(_, price)| *price)
}

fn usd_price(base: &str) -> f64 {
    if let Some(price) = usd_price_known(base) {
        return price;
    }
    match base {
        "USDT" => 1.0,
        "BTCDOM" => 4850.0,
        "XAU" => 4080.0,
        "币安人生" => 0.118,
        _ if base == TINY.0 => TINY.1,
        _ => match base.strip_prefix("1000").and_then(usd_price_known) {
            Some(price) => 1000.0 * price,
            None => 10_f64.powf(unit(mix(11, seed_of(3, base))).mul_add(3.3, -2.0)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn natives(market: Market) -> Vec<String> {
        let all = Symbols::Count { bases: 230, traps: true };
        listings(market, &all, 6000).into_iter().map(|listing| listing.native).collect()
    }

    #[test]
    fn the_leading_ten_come_first_and_names_are_unique() {
        for market in Market::ALL {
            let names = natives(market);
            let leading = ["BTC", "ETH", "XRP", "BNB", "SOL", "TRX", "DOGE", "ADA", "LINK", "BCH"];
            assert!(
                names.iter().zip(leading).all(|(name, base)| *name == format!("{base}USDT")),
                "{names:?}"
            );
            let mut unique = names.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), names.len());
            assert!(names.len() >= 230);
        }
    }

    #[test]
    fn the_traps_are_there() {
        let futures = natives(Market::Futures);
        for trap in
            ["BTCDOMUSDT", "SOLVUSDT", "ETHFIUSDT", "1000PEPEUSDT", "币安人生USDT", DATED_NAME, "XAUUSDT"]
        {
            assert!(futures.iter().any(|name| name == trap), "{trap}");
        }
        let spot = natives(Market::Spot);
        assert!(spot.contains(&"ETHBTC".to_owned()) && spot.contains(&"USDCUSDT".to_owned()));
        assert!(!spot.contains(&"BTCDOMUSDT".to_owned()));
    }

    #[test]
    fn products_of_price_and_quantity_fit_eight_decimals_on_spot() {
        for listing in listings(Market::Spot, &Symbols::Count { bases: 300, traps: true }, 6000) {
            assert!(listing.price_scale + listing.qty_scale <= 8, "{}", listing.native);
            assert!(listing.anchor >= 50.0, "{} has too few ticks", listing.native);
        }
    }
}
