//! Stream names and routes (binance sheet, sections 1, 3 and 4). A name that this cannot read exists nowhere: the venue
//! acknowledges it and stays silent.

use fathom_market::ids::Market;

use crate::engine::interval::Interval;

/// A stream of one symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    AggTrade,
    Trade,
    BookTicker,
    /// Diffs every so many milliseconds.
    Depth(u16),
    /// The best so many levels, every so many milliseconds.
    Partial(u8, u16),
    Kline(Interval),
    Ticker,
    MiniTicker,
    MarkPrice(u16),
}

/// A stream of a whole market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Global {
    MiniTickers,
    /// Futures only since 2026-03.
    Tickers,
    MarkPrices(u16),
    ContractInfo,
}

/// Where a connection arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Spot,
    Public,
    Market,
    /// Retired path of futures: accepted, serves the public class only.
    Unrouted,
}

impl Route {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Spot => "stream",
            Self::Public => "public",
            Self::Market => "market",
            Self::Unrouted => "unrouted",
        }
    }

    /// Whether a stream of the class is sent here.
    pub(crate) const fn carries(self, public: bool) -> bool {
        match self {
            Self::Spot => true,
            Self::Public | Self::Unrouted => public,
            Self::Market => !public,
        }
    }
}

impl Kind {
    /// Whether futures send it on `/public`.
    pub(crate) const fn is_public(self) -> bool {
        matches!(self, Self::BookTicker | Self::Depth(_) | Self::Partial(..) | Self::Trade)
    }

    /// The channel as faults and the ledger name it.
    pub(crate) const fn channel(self) -> &'static str {
        match self {
            Self::AggTrade => "aggTrade",
            Self::Trade => "trade",
            Self::BookTicker => "bookTicker",
            Self::Depth(_) => "depth",
            Self::Partial(..) => "partial",
            Self::Kline(_) => "kline",
            Self::Ticker => "ticker",
            Self::MiniTicker => "miniTicker",
            Self::MarkPrice(_) => "markPrice",
        }
    }

    /// Reads what follows `<symbol>@`; case matters.
    pub(crate) fn parse(market: Market, text: &str) -> Option<Self> {
        let spot = market == Market::Spot;
        let slow = if spot { 1000 } else { 250 };
        if let Some(interval) = text.strip_prefix("kline_") {
            let interval =
                Interval::parse(interval).filter(|interval| spot || *interval != Interval::SECOND)?;
            return Some(Self::Kline(interval));
        }
        let found = match text {
            "aggTrade" => Self::AggTrade,
            "trade" => Self::Trade,
            "bookTicker" => Self::BookTicker,
            "ticker" => Self::Ticker,
            "miniTicker" => Self::MiniTicker,
            "markPrice" if !spot => Self::MarkPrice(3000),
            "markPrice@1s" if !spot => Self::MarkPrice(1000),
            _ => return Self::parse_depth(text.strip_prefix("depth")?, spot, slow),
        };
        Some(found)
    }

    fn parse_depth(rest: &str, spot: bool, slow: u16) -> Option<Self> {
        let (levels, speed) = match rest.split_once('@') {
            Some((levels, speed)) => (levels, Some(speed)),
            None => (rest, None),
        };
        let ms = match speed {
            None => slow,
            Some("100ms") => 100,
            Some("500ms") if !spot => 500,
            Some(_) => return None,
        };
        match levels {
            "" => Some(Self::Depth(ms)),
            "5" => Some(Self::Partial(5, ms)),
            "10" => Some(Self::Partial(10, ms)),
            "20" => Some(Self::Partial(20, ms)),
            _ => None,
        }
    }
}

impl Global {
    /// The channel as faults and the ledger name it.
    pub(crate) const fn channel(self) -> &'static str {
        match self {
            Self::MiniTickers => "miniTicker",
            Self::Tickers => "ticker",
            Self::MarkPrices(_) => "markPrice",
            Self::ContractInfo => "contractInfo",
        }
    }

    pub(crate) fn parse(market: Market, name: &str) -> Option<Self> {
        let futures = market == Market::Futures;
        match name {
            "!miniTicker@arr" => Some(Self::MiniTickers),
            "!ticker@arr" if futures => Some(Self::Tickers),
            "!markPrice@arr" if futures => Some(Self::MarkPrices(3000)),
            "!markPrice@arr@1s" if futures => Some(Self::MarkPrices(1000)),
            "!contractInfo" if futures => Some(Self::ContractInfo),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_sheet_lists_them() {
        let spot = |text| Kind::parse(Market::Spot, text);
        let futures = |text| Kind::parse(Market::Futures, text);
        assert_eq!(spot("depth"), Some(Kind::Depth(1000)));
        assert_eq!(spot("depth@100ms"), Some(Kind::Depth(100)));
        assert_eq!(spot("depth@500ms"), None);
        assert_eq!(futures("depth"), Some(Kind::Depth(250)));
        assert_eq!(futures("depth20@500ms"), Some(Kind::Partial(20, 500)));
        assert_eq!(spot("aggtrade"), None, "case matters");
        assert_eq!(spot("kline_1s"), Some(Kind::Kline(Interval::SECOND)));
        assert_eq!(futures("kline_1s"), None);
        assert_ne!(spot("kline_1m"), spot("kline_1M"));
        assert_eq!(spot("markPrice"), None);
        assert_eq!(Global::parse(Market::Spot, "!ticker@arr"), None);
    }

    #[test]
    fn routes_split_the_futures_streams() {
        assert!(Route::Public.carries(Kind::Trade.is_public()));
        assert!(!Route::Public.carries(Kind::AggTrade.is_public()));
        assert!(!Route::Unrouted.carries(Kind::MarkPrice(1000).is_public()));
        assert!(Route::Market.carries(Kind::Ticker.is_public()));
    }
}
