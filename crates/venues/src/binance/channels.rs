//! Stream names: how they are built, what they mean, and which endpoint class delivers them (sheet sections 1 and 4).

use std::time::Duration;

use fathom_market::{
    event::Channel,
    ids::Market,
    instrument::{Instrument, InstrumentIdx},
    plan::{DepthSpeed, EndpointClass, StreamSpec},
    timeframe::Timeframe,
};

use crate::venue::Wanted;

/// Spot's only class.
pub(super) const STREAM: EndpointClass = EndpointClass("stream");
/// Futures' route of book data.
pub(super) const PUBLIC: EndpointClass = EndpointClass("public");
/// Futures' route of everything else.
pub(super) const MARKET: EndpointClass = EndpointClass("market");

/// The routes of USD-M futures by the stream's name after the `@`, or from its `!` on, up to the next `@` or `_`. A
/// stream asked on the other route is acknowledged and then silent for ever.
/// Source: "Important WebSocket Change Notice" of USD-M futures, 2026-03-06; `trade` as measured (sheet section 1).
const FUTURES_ROUTES: &[(&str, EndpointClass)] = &[
    ("bookTicker", PUBLIC),
    ("!bookTicker", PUBLIC),
    ("depth", PUBLIC),
    ("depth5", PUBLIC),
    ("depth10", PUBLIC),
    ("depth20", PUBLIC),
    ("rpiDepth", PUBLIC),
    ("trade", PUBLIC),
    ("aggTrade", MARKET),
    ("markPrice", MARKET),
    ("!markPrice", MARKET),
    ("kline", MARKET),
    ("continuousKline", MARKET),
    ("ticker", MARKET),
    ("!ticker", MARKET),
    ("miniTicker", MARKET),
    ("!miniTicker", MARKET),
    ("forceOrder", MARKET),
    ("!forceOrder", MARKET),
    ("!contractInfo", MARKET),
    ("compositeIndex", MARKET),
    ("!assetIndex", MARKET),
    ("tradingSession", MARKET),
];

/// The class that delivers a stream; `None` for a futures stream that the routing table does not know.
pub(super) fn class_of(market: Market, stream: &str) -> Option<EndpointClass> {
    if market == Market::Spot {
        return Some(STREAM);
    }
    let name = if stream.starts_with('!') { stream } else { suffix(stream).unwrap_or(stream) };
    let name = name.split(['@', '_']).next().unwrap_or(name);
    FUTURES_ROUTES.iter().find(|(known, _)| *known == name).map(|(_, class)| *class)
}

fn suffix(stream: &str) -> Option<&str> {
    stream.split_once('@').map(|(_, suffix)| suffix)
}

/// The symbol of a stream's name. Only ASCII letters have a case here: names hold other alphabets too.
pub(super) fn stream_symbol(stream: &str) -> String {
    stream.split('@').next().unwrap_or(stream).to_ascii_uppercase()
}

/// What the name of a stream says that its events do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// Spot's best bid and ask, whose events name no type.
    BookTicker,
    /// A replacement of the top levels, which on futures looks like an update.
    PartialDepth(usize),
    /// The futures book that includes retail price improvement orders.
    RpiDepth,
    /// Candles on the boundaries of UTC+8.
    ShiftedKline,
    /// Nothing.
    Other,
}

impl StreamKind {
    pub(super) fn of(stream: &str) -> Self {
        let Some(suffix) = suffix(stream) else {
            return if stream == "!bookTicker" { Self::BookTicker } else { Self::Other };
        };
        let (name, rest) = suffix.split_once('@').unwrap_or((suffix, ""));
        match name {
            "bookTicker" => Self::BookTicker,
            "depth5" => Self::PartialDepth(5),
            "depth10" => Self::PartialDepth(10),
            "depth20" => Self::PartialDepth(20),
            "rpiDepth" => Self::RpiDepth,
            _ if name.starts_with("kline_") && rest.starts_with('+') => Self::ShiftedKline,
            _ => Self::Other,
        }
    }
}

/// The timeframes of a market: futures have no `1s`.
pub(super) const fn timeframes(market: Market) -> &'static [Timeframe] {
    match market {
        Market::Spot => &Timeframe::ALL,
        Market::Futures => Timeframe::ALL.split_at(1).1,
    }
}

/// The streams that carry what is wanted of an instrument.
pub(super) fn streams(instrument: &Instrument, idx: InstrumentIdx, wanted: &Wanted) -> Vec<StreamSpec> {
    let market = instrument.market;
    let symbol = instrument.native.to_ascii_lowercase();
    let depth = match (wanted.depth, market) {
        (DepthSpeed::Fast, _) => "depth@100ms",
        (DepthSpeed::Slow, Market::Spot) => "depth",
        (DepthSpeed::Slow, Market::Futures) => "depth@500ms",
    };
    let trades = if wanted.raw_trades { "trade" } else { "aggTrade" };
    let mut channels = vec![
        (depth.to_owned(), Channel::Depth),
        ("bookTicker".to_owned(), Channel::Quote),
        (trades.to_owned(), Channel::Trade),
    ];
    let offered = wanted.timeframes.iter().filter(|timeframe| timeframes(market).contains(timeframe));
    channels.extend(offered.map(|timeframe| (format!("kline_{timeframe}"), Channel::Candle(*timeframe))));
    if market == Market::Futures {
        channels.push(("markPrice@1s".to_owned(), Channel::Funding));
    }
    if wanted.ticker {
        channels.push(("ticker".to_owned(), Channel::Ticker));
    }
    let spec = |(suffix, channel): (String, Channel)| {
        let name = format!("{symbol}@{suffix}");
        let class = class_of(market, &name).unwrap_or(if market == Market::Spot { STREAM } else { MARKET });
        // Only the mark price ticks whether anything happens or not.
        let expect_every = (channel == Channel::Funding).then_some(Duration::from_secs(10));
        StreamSpec { name, instrument: idx, channel, class, expect_every }
    };
    channels.into_iter().map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_of_the_sheet_has_its_route() {
        let public = [
            "btcusdt@bookTicker",
            "!bookTicker",
            "btcusdt@depth",
            "btcusdt@depth@100ms",
            "btcusdt@depth20@500ms",
        ];
        let public =
            public.into_iter().chain(["btcusdt@rpiDepth@500ms", "btcusdt@trade", "btcusdt_251226@depth5"]);
        for stream in public {
            assert_eq!(class_of(Market::Futures, stream), Some(PUBLIC), "{stream}");
        }
        let market = [
            "btcusdt@aggTrade",
            "btcusdt@markPrice@1s",
            "!markPrice@arr@1s",
            "btcusdt@kline_1M",
            "btcusdt_perpetual@continuousKline_1m",
            "!ticker@arr",
            "btcusdt@miniTicker",
            "!contractInfo",
            "!forceOrder@arr",
            "tradingSession",
        ];
        for stream in market {
            assert_eq!(class_of(Market::Futures, stream), Some(MARKET), "{stream}");
        }
        assert_eq!(class_of(Market::Futures, "btcusdt@unheardOf"), None);
        assert_eq!(class_of(Market::Spot, "btcusdt@aggTrade"), Some(STREAM));
    }

    #[test]
    fn names_tell_partial_depth_from_updates() {
        assert_eq!(StreamKind::of("btcusdt@depth20@100ms"), StreamKind::PartialDepth(20));
        assert_eq!(StreamKind::of("btcusdt@depth@100ms"), StreamKind::Other);
        assert_eq!(StreamKind::of("btcusdt@depth"), StreamKind::Other);
        assert_eq!(StreamKind::of("btcusdt@kline_1d@+08:00"), StreamKind::ShiftedKline);
        assert_eq!(StreamKind::of("btcusdt@kline_1d"), StreamKind::Other);
        assert_eq!(StreamKind::of("!bookTicker"), StreamKind::BookTicker);
        assert_eq!(stream_symbol("币安人生usdt@trade"), "币安人生USDT");
    }
}
