//! Frames written from the sheet, what they mean, and that the fast path means the same.

use fathom_market::{
    decimal::DecimalError,
    event::{Body, Channel, Event, Level, Side, TradeId, TradeKind},
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentIdx, InstrumentKind, InstrumentStatus, InstrumentTable},
    timeframe::Timeframe,
};
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::error::DecodeError;

const RECV: i64 = 1_700_000_000_000_000;

fn instrument(native: &str, price_scale: u8, qty_scale: u8) -> Instrument {
    let venue = VenueId::new("binance");
    Instrument {
        id: InstrumentId::derive(venue, Market::Futures, native),
        venue,
        market: Market::Futures,
        native: native.into(),
        unified: native.into(),
        base: "B".into(),
        quote: "Q".into(),
        settle: None,
        kind: InstrumentKind::Perpetual,
        status: InstrumentStatus::Trading,
        tick_size: Decimal::ONE,
        lot_size: Decimal::ONE,
        contract_size: Decimal::ONE,
        price_scale,
        qty_scale,
        valid_from_us: 0,
    }
}

fn table() -> InstrumentTable {
    let rows = [instrument("BTCUSDT", 8, 8), instrument("ETHUSDT", 2, 3), instrument("币安人生USDT", 5, 0)];
    InstrumentTable::new(rows).unwrap()
}

fn decode(frame: &str) -> Vec<Decoded> {
    let mut out = Vec::new();
    BinanceDecoder::new(&table()).decode(frame.as_bytes(), RECV, &mut out);
    out
}

fn one(frame: &str) -> Decoded {
    let mut out = decode(frame);
    assert_eq!(out.len(), 1, "{frame}");
    out.remove(0)
}

fn event(frame: &str) -> Event {
    match one(frame) {
        Decoded::Event(event) => event,
        other => panic!("{other:?} of {frame}"),
    }
}

/// Frames that the fast path must take: today's spellings of both markets, and those recorded in 2021 and 2024.
const FAST: &[&str] = &[
    r#"{"stream":"btcusdt@bookTicker","data":{"u":400900217,"s":"BTCUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}}"#,
    r#"{"stream":"ethusdt@bookTicker","data":{"e":"bookTicker","u":11139947831981,"s":"ETHUSDT","ps":"ETHUSDT","b":"1943.64","B":"113.445","a":"1943.65","A":"182.433","T":1785121247583,"E":1785121247584,"st":1}}"#,
    r#"{"stream":"ethusdt@bookTicker","data":{"e":"bookTicker","u":1,"s":"ETHUSDT","b":"0.00","B":"0","a":"1943.65","A":"182.433","T":1785121247583,"E":1785121247584}}"#,
    r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"BTCUSDT","a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782135,"m":true,"M":true}}"#,
    r#"{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"ETHUSDT","a":5933014,"p":"0.01","q":"100","nq":"0","f":100,"l":105,"T":1672515782130,"m":false,"st":1}}"#,
    r#"{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","E":1672515782136,"a":5933014,"s":"ETHUSDT","p":"0.01","q":"100","f":100,"l":105,"T":1672515782130,"m":false}}"#,
    r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}"#,
    r#"{"stream":"ethusdt@trade","data":{"e":"trade","E":1596240000596,"T":1596240000519,"s":"ETHUSDT","t":173525189,"p":"343.67","q":"0.467","X":"MARKET","m":true}}"#,
    r#"{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1672515782136,"s":"BTCUSDT","U":157,"u":160,"b":[["0.0024","10"],["61837.63000000","0.00000000"]],"a":[["0.0026","100"]]}}"#,
    r#"{"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1672515782136,"s":"BTCUSDT","U":157,"u":160,"b":[],"a":[]}}"#,
    r#"{"stream":"ethusdt@depth@500ms","data":{"e":"depthUpdate","E":1672515782136,"T":1672515782100,"s":"ETHUSDT","ps":"ETHUSDT","st":1,"U":157,"u":160,"pu":149,"b":[["24.5","10"]],"a":[["26","1.5"]]}}"#,
    r#"{"stream":"ethusdt@depth@0ms","data":{"e":"depthUpdate","E":1672515782136,"T":1672515782100,"s":"ETHUSDT","U":157,"u":160,"pu":149,"b":[["24.5","10"]],"a":[["26","1.5"]],"st":1}}"#,
];

/// Frames that only the full parser takes.
const SLOW: &[&str] = &[
    r#"{"stream":"!bookTicker","data":{"u":462118190224,"e":"bookTicker","s":"ETHUSDT","ps":"ETHUSDT","b":"172.74","B":"86","a":"172.81","A":"25","T":1653811915499,"E":1653811915502}}"#,
    r#"{"stream":"ethusdt@trade","data":{"e":"trade","E":1596034530241,"T":1596034530235,"s":"ETHUSDT","t":73701056,"p":"2366.55","q":"0.070","X":"INSURANCE_FUND","m":true}}"#,
    r#"{"stream":"ethusdt@depth20","data":{"e":"depthUpdate","E":1653863834495,"T":1653863834489,"s":"ETHUSDT","U":462549791905,"u":462549794973,"pu":-1,"b":[["29538.2","195"]],"a":[["29538.3","144"]]}}"#,
    r#"{"stream":"btcusdt@depth5@100ms","data":{"lastUpdateId":160,"bids":[["0.0024","10",[]]],"asks":[["0.0026","100"]]}}"#,
    r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1672515782136,"s":"BTCUSDT","k":{"t":1672515780000,"T":1672515839999,"s":"BTCUSDT","i":"1m","f":100,"L":200,"o":"0.0010","c":"0.0020","h":"0.0025","l":"0.0015","v":"1000","n":100,"x":false,"q":"1.0000","V":"500","Q":"0.500","B":"123456"}}}"#,
    r#"{"stream":"!markPrice@arr","data":[{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","i":"11784.62659091","P":"11784.25641265","r":"0.00038167","T":1562306400000,"st":1},{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSD_PERP","p":"1","r":"0","T":1,"st":2},{"e":"markPriceUpdate","E":1562305380000,"s":"ETHUSDT","p":"1.5","r":"","T":0}]}"#,
    r#"{"stream":"btcusdt@ticker","data":{"e":"24hrTicker","E":1672515782136,"s":"BTCUSDT","p":"0.0015","P":"250.00","w":"0.0018","x":"0.0009","c":"0.0025","Q":"10","b":"0.0024","B":"10","a":"0.0026","A":"100","o":"0.0010","h":"0.0025","l":"0.0010","v":"10000","q":"18","O":0,"C":86400000,"F":0,"L":18150,"n":18151}}"#,
    r#"{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker","E":1672515782136,"s":"BTCUSDT","c":"0.0025","o":"0.0010","h":"0.0025","l":"0.0010","v":"10000","q":"18"}]}"#,
    r#"{"e":"serverShutdown","E":1770123456789}"#,
    r#"{"result":null,"id":1}"#,
];

#[test]
fn todays_spellings_take_the_fast_path() {
    let mut decoder = BinanceDecoder::new(&table());
    for frame in FAST {
        assert!(decoder.is_fast(frame.as_bytes()), "{frame}");
        assert_same(frame.as_bytes());
    }
    for frame in SLOW {
        assert!(!decoder.is_fast(frame.as_bytes()), "{frame}");
    }
}

#[test]
fn quotes_carry_the_venues_times_or_none() {
    let spot = event(FAST[0]);
    assert_eq!(
        (spot.instrument, spot.event_us, spot.sent_us, spot.recv_us),
        (InstrumentIdx(0), None, None, RECV)
    );
    let Body::Quote(quote) = spot.body else { panic!("{spot:?}") };
    assert_eq!(quote.update_id, Some(400_900_217));
    assert_eq!(quote.bid, Level { price: 2_535_190_000, qty: 3_121_000_000 });
    let futures = event(FAST[1]);
    assert_eq!(futures.event_us, Some(1_785_121_247_583_000));
    assert_eq!(futures.sent_us, Some(1_785_121_247_584_000));
    let Body::Quote(quote) = futures.body else { panic!("{futures:?}") };
    assert_eq!(quote.ask, Level { price: 194_365, qty: 182_433 });
}

#[test]
fn trades_have_the_takers_side() {
    let aggregate = event(FAST[3]);
    assert_eq!(
        (aggregate.event_us, aggregate.sent_us),
        (Some(1_672_515_782_135_000), Some(1_672_515_782_136_000))
    );
    let Body::Trade(trade) = aggregate.body else { panic!("{aggregate:?}") };
    assert_eq!((trade.id, trade.kind), (TradeId::Number(12345), TradeKind::Aggregate));
    assert_eq!(
        (trade.raw_ids, trade.side, trade.price, trade.qty),
        (Some((100, 105)), Side::Sell, 100_000, 10_000_000_000)
    );
    let Body::Trade(trade) = event(FAST[6]).body else { panic!() };
    assert_eq!(
        (trade.id, trade.kind, trade.raw_ids),
        (TradeId::Number(3_735_683_259), TradeKind::Single, None)
    );
    assert_eq!(one(SLOW[1]), Decoded::Ignored("not_a_market_trade"));
}

#[test]
fn depth_is_an_update_or_a_replacement_by_the_streams_name() {
    let spot = event(FAST[8]);
    assert_eq!(spot.event_us, Some(1_672_515_782_136_000));
    let Body::Delta(delta) = spot.body else { panic!("{spot:?}") };
    assert_eq!((delta.ids.first, delta.ids.last, delta.ids.prev), (157, 160, None));
    assert_eq!(delta.bids[1], Level { price: 6_183_763_000_000, qty: 0 });
    let futures = event(FAST[10]);
    assert_eq!(futures.event_us, Some(1_672_515_782_100_000));
    let Body::Delta(delta) = futures.body else { panic!("{futures:?}") };
    assert_eq!((delta.ids.prev, delta.asks[0]), (Some(149), Level { price: 2600, qty: 1500 }));
    let Body::Snapshot(top) = event(SLOW[2]).body else { panic!() };
    assert_eq!((top.last_id, top.limit, top.bids[0].price), (462_549_794_973, 20, 2_953_820));
    let Body::Snapshot(top) = event(SLOW[3]).body else { panic!() };
    assert_eq!((top.last_id, top.limit, top.asks[0].qty), (160, 5, 10_000_000_000));
}

#[test]
fn a_level_beyond_the_scale_names_the_book_that_has_a_hole() {
    let frame = r#"{"stream":"ethusdt@depth","data":{"e":"depthUpdate","E":1,"s":"ETHUSDT","U":1,"u":2,"b":[["1.005","1"]],"a":[]}}"#;
    let error = DecodeError::LevelMisfit { symbol: "ETHUSDT".to_owned(), source: DecimalError::TooPrecise };
    let instrument = Some(InstrumentIdx(1));
    assert_eq!(one(frame), Decoded::Rejected { instrument, channel: Some(Channel::Depth), error });
    let broken = frame.replace(r#"["1.005","1"]"#, "7");
    let Decoded::Rejected { instrument: whose, channel, error } = one(&broken) else { panic!() };
    assert_eq!((whose, channel, error.reason()), (instrument, Some(Channel::Depth), "malformed"));
}

#[test]
fn candles_tickers_and_funding_are_exact() {
    let Body::Candle(candle) = event(SLOW[4]).body else { panic!() };
    assert_eq!(
        (candle.timeframe, candle.open_ms, candle.close_ms),
        (Timeframe::M1, 1_672_515_780_000, 1_672_515_839_999)
    );
    let (open, high) = (Decimal::new(1, 3), Decimal::new(25, 4));
    assert_eq!((candle.open, candle.high, candle.trades, candle.closed), (open, high, 100, false));
    assert_eq!(candle.taker_buy_quote_volume, Decimal::new(5, 1));
    let out = decode(SLOW[5]);
    assert_eq!(out[1], Decoded::Ignored("coin_margined"));
    let funding = |at: usize| match &out[at] {
        Decoded::Event(Event { body: Body::Funding(funding), .. }) => funding.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (funding(0).rate, funding(0).next_ms),
        (Some(Decimal::new(38_167, 8)), Some(1_562_306_400_000))
    );
    assert_eq!((funding(2).rate, funding(2).next_ms, funding(2).index_price), (None, None, None));
    let Body::Ticker(ticker) = event(SLOW[6]).body else { panic!() };
    assert_eq!(
        (ticker.last, ticker.bid, ticker.trades),
        (Some(high), Some(Decimal::new(24, 4)), Some(18_151))
    );
    let Body::Ticker(ticker) = event(SLOW[7]).body else { panic!() };
    assert_eq!((ticker.ask, ticker.quote_volume), (None, Some(Decimal::from(18))));
}

#[test]
fn replies_are_told_from_data() {
    assert_eq!(one(SLOW[9]), Decoded::Ack(1));
    assert_eq!(one(r#"{"result":["btcusdt@aggTrade"],"id":"3"}"#), Decoded::Ack(3));
    assert_eq!(one(r#"{"result":null,"id":null}"#), Decoded::Ignored("reply_without_id"));
    let refused = |id, message: &str| Decoded::Refused { id, message: message.to_owned() };
    assert_eq!(
        one(r#"{"code":0,"msg":"Unknown property","id":5}"#),
        refused(Some(5), "code 0: Unknown property")
    );
    assert_eq!(
        one(r#"{"error":{"code":4,"msg":"Too many subscriptions"},"id":19}"#),
        refused(Some(19), "code 4: Too many subscriptions")
    );
    assert_eq!(one(r#"{"code":2,"msg":"Invalid request: x"}"#), refused(None, "code 2: Invalid request: x"));
    assert_eq!(one(SLOW[8]), Decoded::ClosingSoon);
    let wrapped = r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}"#;
    assert_eq!(one(wrapped), Decoded::ClosingSoon);
    assert_eq!(
        one(r#"{"stream":"!contractInfo","data":{"e":"contractInfo","s":"X","cs":"TRADING","st":1}}"#),
        Decoded::InstrumentsChanged
    );
    assert_eq!(
        one(r#"{"stream":"!forceOrder@arr","data":{"e":"forceOrder","E":1,"o":{}}}"#),
        Decoded::Ignored("liquidation")
    );
    assert_eq!(
        one(r#"{"stream":"ethusdt@rpiDepth@500ms","data":{"e":"depthUpdate"}}"#),
        Decoded::Ignored("rpi_depth")
    );
    assert_eq!(one(r#"{"lastUpdateId":1,"bids":[],"asks":[]}"#), Decoded::Ignored("unnamed_event"));
}

#[test]
fn bare_events_name_their_type_or_their_line_does() {
    let bare = r#"{"e":"aggTrade","E":1,"s":"ETHUSDT","a":2,"p":"1","q":"1","f":1,"l":1,"T":1,"m":true}"#;
    assert!(matches!(event(bare).body, Body::Trade(_)));
    let array = format!("[{bare},{bare}]");
    assert_eq!(decode(&array).len(), 2);
    let ticker = r#"{"u":1,"s":"ETHUSDT","b":"1","B":"1","a":"2","A":"1"}"#;
    assert_eq!(one(ticker), Decoded::Ignored("unnamed_event"));
    let mut out = Vec::new();
    BinanceDecoder::of_stream(&table(), "ethusdt@bookTicker").decode(ticker.as_bytes(), RECV, &mut out);
    let book = r#"{"lastUpdateId":9,"bids":[["1","1"]],"asks":[]}"#;
    BinanceDecoder::of_stream(&table(), "ethusdt@depth5").decode(book.as_bytes(), RECV, &mut out);
    let Decoded::Event(Event { body: Body::Quote(_), .. }) = &out[0] else { panic!("{out:?}") };
    let Decoded::Event(Event { instrument: InstrumentIdx(1), body: Body::Snapshot(top), .. }) = &out[1]
    else {
        panic!("{out:?}")
    };
    assert_eq!((top.limit, top.last_id), (5, 9));
}

#[test]
fn numbers_may_be_bare_and_never_become_zero() {
    let bare = r#"{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","E":1,"s":"ETHUSDT","a":2,"p":1.25e1,"q":5E-3,"f":1,"l":1,"T":1,"m":true}}"#;
    let Body::Trade(trade) = event(bare).body else { panic!() };
    assert_eq!((trade.price, trade.qty), (1250, 5));
    let reason = |frame: &str| match one(frame) {
        Decoded::Rejected { error, instrument, .. } => (error.reason(), instrument.is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&bare.replace("1.25e1", "\"\"")), ("bad_number", true));
    assert_eq!(reason(&bare.replace("1.25e1", "\"NaN\"")), ("bad_number", true));
    assert_eq!(reason(&bare.replace("1.25e1", "\"-1\"")), ("unexpected_value", true));
    assert_eq!(reason(&bare.replace("1.25e1", "null")), ("missing_field", true));
    assert_eq!(reason(&bare.replace("\"m\":true", "\"\":true")), ("missing_field", true));
    assert_eq!(reason(&bare.replace("ETHUSDT", "BTCUSD_PERP")), ("unknown_symbol", false));
    let long = "X".repeat(1000);
    let Decoded::Rejected { error: DecodeError::UnknownSymbol(text), .. } =
        one(&bare.replace("ETHUSDT", &long))
    else {
        panic!()
    };
    assert!(text.len() <= 64);
}

#[test]
fn other_alphabets_and_microseconds_are_read() {
    let frame = r#"{"stream":"币安人生usdt@aggTrade","data":{"e":"aggTrade","E":1723161255343001,"s":"币安人生USDT","a":2,"p":"1.5","q":"1","f":1,"l":1,"T":1723161255343000,"m":true}}"#;
    let event = event(frame);
    assert_eq!((event.instrument, event.event_us), (InstrumentIdx(2), Some(1_723_161_255_343_000)));
}

fn assert_same(frame: &[u8]) {
    let mut decoder = BinanceDecoder::new(&table());
    let (mut fast, mut full) = (Vec::new(), Vec::new());
    decoder.decode(frame, RECV, &mut fast);
    decoder.decode_full(frame, RECV, &mut full);
    assert_eq!(fast, full, "{}", String::from_utf8_lossy(frame));
    assert!(!fast.is_empty() || frame.trim_ascii().starts_with(b"[") || full.is_empty());
}

#[derive(Clone, Debug)]
enum Mutation {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Delete(prop::sample::Index),
    /// Exchanges two comma-separated pieces, which reorders keys or moves them where they do not belong.
    Swap(prop::sample::Index, prop::sample::Index),
    /// Doubles a piece: a repeated key is malformed.
    Repeat(prop::sample::Index),
    Number(prop::sample::Index, String),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = prop_oneof![prop::sample::select(&b" \n\t\",:{}[]\\-.0123456789eE+"[..]), any::<u8>(),];
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), byte.clone()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        (at(), byte).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        at().prop_map(Mutation::Delete),
        (at(), at()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        at().prop_map(Mutation::Repeat),
        (at(), "-?[0-9]{0,21}\\.?[0-9]{0,12}([eE]-?[0-9]{1,2})?")
            .prop_map(|(at, text)| Mutation::Number(at, text)),
    ]
}

fn mutate(frame: &mut Vec<u8>, mutation: &Mutation) {
    let pieces = |frame: &[u8]| frame.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect::<Vec<_>>();
    match mutation {
        _ if frame.is_empty() => {}
        Mutation::Replace(at, byte) => {
            let at = at.index(frame.len());
            frame[at] = *byte;
        }
        Mutation::Insert(at, byte) => frame.insert(at.index(frame.len()), *byte),
        Mutation::Delete(at) => {
            frame.remove(at.index(frame.len()));
        }
        Mutation::Swap(a, b) => {
            let mut parts = pieces(frame);
            let (a, b) = (a.index(parts.len()), b.index(parts.len()));
            parts.swap(a, b);
            *frame = parts.join(&b","[..]);
        }
        Mutation::Repeat(at) => {
            let mut parts = pieces(frame);
            let at = at.index(parts.len());
            parts.insert(at, parts[at].clone());
            *frame = parts.join(&b","[..]);
        }
        Mutation::Number(at, text) => {
            let starts: Vec<_> = (1..frame.len())
                .filter(|at| frame[*at].is_ascii_digit() && !frame[at - 1].is_ascii_digit())
                .collect();
            if starts.is_empty() {
                return;
            }
            let start = starts[at.index(starts.len())];
            let end = (start..frame.len()).find(|at| !frame[*at].is_ascii_digit()).unwrap_or(frame.len());
            frame.splice(start..end, text.bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_fast_path_agrees_with_the_full_parser(
        at in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 0..4),
    ) {
        let all: Vec<_> = FAST.iter().chain(SLOW).collect();
        let mut frame = all[at.index(all.len())].as_bytes().to_vec();
        for mutation in &mutations {
            mutate(&mut frame, mutation);
        }
        assert_same(&frame);
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_same(&bytes);
    }
}
