//! What every venue of the registry must hold. A new venue is tested by its line in the registry.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fathom_market::{
    book::Link,
    event::{Channel, SeqIds},
    ids::{InstrumentId, Market},
    instrument::{Instrument, InstrumentIdx, InstrumentKind, InstrumentStatus, InstrumentTable},
    plan::{DepthSpeed, RequestSpec, RestAnswer, StreamSpec},
    timeframe::Timeframe,
};
use fathom_venues::{RestError, Venue, Wanted, registry};
use proptest::prelude::*;
use rust_decimal::Decimal;

fn instrument(venue: &dyn Venue, market: Market, native: &str) -> Instrument {
    let (settle, kind) = match market {
        Market::Spot => (None, InstrumentKind::Spot),
        Market::Futures => (Some("USDT".into()), InstrumentKind::Perpetual),
    };
    Instrument {
        id: InstrumentId::derive(venue.id(), market, native),
        venue: venue.id(),
        market,
        native: native.into(),
        unified: native.into(),
        base: "BASE".into(),
        quote: "USDT".into(),
        settle,
        kind,
        status: InstrumentStatus::Trading,
        tick_size: Decimal::new(1, 2),
        lot_size: Decimal::new(1, 3),
        contract_size: Decimal::ONE,
        price_scale: 8,
        qty_scale: 8,
        valid_from_us: 0,
    }
}

fn table(venue: &dyn Venue, market: Market) -> InstrumentTable {
    let natives = ["BTCUSDT", "1000PEPEUSDT", "BTCUSDT_251226", "币安人生USDT"];
    InstrumentTable::new(natives.map(|native| instrument(venue, market, native))).unwrap()
}

fn wanted(venue: &dyn Venue, market: Market, depth: DepthSpeed, raw_trades: bool) -> Wanted {
    Wanted { timeframes: venue.timeframes(market).to_vec(), depth, raw_trades, ticker: true }
}

fn each(mut check: impl FnMut(&'static dyn Venue, Market)) {
    for venue in registry::VENUES {
        Market::ALL.into_iter().for_each(|market| check(*venue, market));
    }
}

fn all_streams(venue: &dyn Venue, market: Market) -> Vec<StreamSpec> {
    let wanted = wanted(venue, market, DepthSpeed::Fast, false);
    table(venue, market).iter().flat_map(|(idx, row)| venue.streams(row, idx, &wanted)).collect()
}

#[test]
fn ids_are_found_in_any_case_and_are_unique() {
    let ids: BTreeSet<_> = registry::ids().map(|id| id.as_str()).collect();
    assert_eq!(ids.len(), registry::VENUES.len());
    for id in ids {
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        assert_eq!(registry::venue(&id.to_ascii_uppercase()).unwrap().id().as_str(), id);
    }
    assert!(registry::venue("nowhere").is_none());
}

#[test]
fn every_class_has_an_address_and_every_limit_a_value() {
    each(|venue, market| {
        let endpoints = venue.endpoints(market);
        assert!(endpoints.rest.starts_with("https://") && !endpoints.rest.ends_with('/'));
        let classes: BTreeSet<_> = venue.classes(market).iter().map(|class| class.as_str()).collect();
        assert!(!classes.is_empty());
        assert_eq!(endpoints.ws.keys().copied().collect::<BTreeSet<_>>(), classes);
        assert!(endpoints.ws.values().all(|base| base.starts_with("wss://")));
        let limits = venue.socket_limits(market);
        assert!(limits.streams_per_socket > 0 && limits.connects > 0 && !limits.connect_window.is_zero());
        assert!((1..=13).contains(&limits.sockets_per_market));
        let rules = venue.budget_rules(market);
        assert!(!rules.is_empty());
        assert!(rules.iter().all(|rule| rule.capacity > 0 && rule.concurrency > 0 && !rule.window.is_zero()));
        let timeframes = venue.timeframes(market);
        assert!(timeframes.windows(2).all(|pair| pair[0] < pair[1]) && timeframes.contains(&Timeframe::M1));
    });
}

#[test]
fn streams_cover_what_is_wanted_and_belong_to_a_class() {
    each(|venue, market| {
        let row = instrument(venue, market, "BTCUSDT");
        for (depth, raw_trades) in [
            (DepthSpeed::Fast, false),
            (DepthSpeed::Slow, false),
            (DepthSpeed::Fast, true),
            (DepthSpeed::Slow, true),
        ] {
            let wanted = wanted(venue, market, depth, raw_trades);
            let streams = venue.streams(&row, InstrumentIdx(3), &wanted);
            let names: BTreeSet<_> = streams.iter().map(|stream| stream.name.as_str()).collect();
            assert_eq!(names.len(), streams.len(), "a stream is named once");
            assert!(streams.iter().all(|stream| stream.instrument == InstrumentIdx(3)));
            assert!(streams.iter().all(|stream| venue.classes(market).contains(&stream.class)));
            let channels: BTreeSet<_> = streams.iter().map(|stream| stream.channel).collect();
            let candles = wanted.timeframes.iter().map(|timeframe| Channel::Candle(*timeframe));
            for channel in candles.chain([Channel::Quote, Channel::Trade, Channel::Depth, Channel::Ticker]) {
                assert!(channels.contains(&channel), "{channel:?}");
            }
            assert_eq!(channels.contains(&Channel::Funding), market == Market::Futures);
            let of_depth = streams.iter().find(|stream| stream.channel == Channel::Depth).unwrap();
            assert_eq!(of_depth.class, venue.classes(market)[0], "the class of depth is named first");
        }
        let nothing =
            Wanted { timeframes: Vec::new(), depth: DepthSpeed::Fast, raw_trades: false, ticker: false };
        let few = venue.streams(&row, InstrumentIdx(0), &nothing);
        assert!(few.iter().all(|stream| !matches!(stream.channel, Channel::Candle(_) | Channel::Ticker)));
    });
}

#[test]
fn connecting_subscribes_every_stream_once() {
    each(|venue, market| {
        let all = all_streams(venue, market);
        for class in venue.classes(market) {
            let streams: Vec<_> = all.iter().filter(|stream| stream.class == *class).cloned().collect();
            let spec = venue.connect(market, *class, "wss://example.test/base", &streams, 41);
            assert!(spec.url.starts_with("wss://example.test/base"));
            let named = |frames: &[fathom_market::plan::OutFrame], name: &str| {
                let quoted = serde_json::to_string(name).unwrap();
                frames.iter().map(|frame| frame.text.matches(&quoted).count()).sum::<usize>()
            };
            let renewal = venue.resubscribe(market, &streams, 7);
            for stream in &streams {
                assert_eq!(named(&spec.subscribe, &stream.name), 1, "{}", stream.name);
                assert_eq!(named(&renewal, &stream.name), 2, "{}", stream.name);
            }
            let acks: Vec<_> = spec.subscribe.iter().filter_map(|frame| frame.ack).collect();
            assert!(
                acks.first().is_none_or(|first| *first == 41)
                    && acks.windows(2).all(|pair| pair[0] < pair[1])
            );
            let rules = &spec.rules;
            assert!(rules.messages_per_second > 0 && rules.max_frame_bytes >= 1 << 16);
            assert!(rules.idle_timeout < rules.life_limit && !rules.connect_deadline.is_zero());
            assert!(!rules.ack_deadline.is_zero() && !rules.first_data_deadline.is_zero());
        }
    });
}

#[test]
fn requests_draw_on_a_declared_budget() {
    each(|venue, market| {
        let rules = venue.budget_rules(market);
        let row = instrument(venue, market, "BTCUSDT");
        let check = |request: RequestSpec| {
            let rule = rules.iter().find(|rule| rule.group == request.group);
            assert!(rule.is_some_and(|rule| request.weight <= rule.capacity), "{request:?}");
            assert!(
                request.path.starts_with('/') && request.query.iter().all(|(_, value)| !value.is_empty())
            );
        };
        for levels in [1, 50, 500, 1000, 5000, 100_000] {
            let (request, limit) = venue.snapshot_request(&row, levels);
            let greatest = venue.snapshot_request(&row, usize::MAX).1;
            assert!(limit >= levels.min(greatest));
            check(request);
        }
        for limit in [1, 100, 1000, 100_000] {
            check(venue.candles_request(&row, Timeframe::M1, None, limit));
            check(venue.candles_request(&row, Timeframe::M1, Some(1_600_000_000_000), limit));
            venue.trades_request(&row, 1, limit).into_iter().for_each(check);
        }
        check(venue.instruments_request(market));
        check(venue.tickers_request(market));
        check(venue.time_request(market));
        let funding = venue.funding_request(market);
        assert!(market == Market::Futures || funding.is_none());
        funding.into_iter().for_each(check);
    });
}

/// All parsers of a venue on one answer; true where one took it.
fn accepted(venue: &dyn Venue, market: Market, answer: &RestAnswer) -> Vec<Result<(), RestError>> {
    let row = instrument(venue, market, "BTCUSDT");
    vec![
        venue.parse_instruments(market, answer, 0).map(drop),
        venue.parse_snapshot(&row, 100, answer).map(drop),
        venue.parse_candles(Timeframe::M1, answer, 0).map(drop),
        venue.parse_tickers(market, answer).map(drop),
        venue.parse_funding(market, answer).map(drop),
        venue.parse_trades(&row, InstrumentIdx(0), answer, 0).map(drop),
        venue.parse_time(answer).map(drop),
    ]
}

#[test]
fn refusals_and_empty_bodies_are_errors() {
    each(|venue, market| {
        let retry_after = Some(Duration::from_secs(9));
        for status in [400, 429, 500] {
            let answer = RestAnswer { status, retry_after, body: b"<html>no</html>".to_vec() };
            for result in accepted(venue, market, &answer) {
                let error = result.unwrap_err();
                assert!(!matches!(error, RestError::Body(_)), "{error}");
                if status == 429 {
                    assert_eq!(error, RestError::RateLimited { retry_after });
                }
            }
        }
        let empty = RestAnswer { status: 200, retry_after: None, body: Vec::new() };
        assert!(
            accepted(venue, market, &empty).iter().all(|result| matches!(result, Err(RestError::Body(_))))
        );
    });
}

#[test]
fn a_repeated_update_never_follows_itself() {
    each(|venue, market| {
        let rule = venue.sync_rule(market);
        let ids = SeqIds { first: 10, last: 20, prev: Some(9) };
        assert_ne!(rule.chain(&ids, &ids), Link::Next);
        let next = SeqIds { first: 21, last: 30, prev: Some(20) };
        assert_eq!(rule.chain(&ids, &next), Link::Next);
        let lost = SeqIds { first: 41, last: 50, prev: Some(40) };
        assert!(matches!(rule.chain(&ids, &lost), Link::Gap { .. }));
    });
}

proptest! {
    /// Arbitrary bytes, and JSON of arbitrary shape with keys that the venues use.
    #[test]
    fn decoders_and_parsers_are_total(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        text in r#"(\{"(stream|data|e|s|b|a|k|u|id|result|code)":|[\[\]{}",:0-9a-zA-Z@._-]){0,60}"#,
    ) {
        each(|venue, market| {
            for class in venue.classes(market) {
                let mut decoder = venue.decoder(market, *class, Arc::new(table(venue, market)));
                let mut out = Vec::new();
                decoder.decode(&bytes, 0, &mut out);
                decoder.decode(text.as_bytes(), 0, &mut out);
                decoder.set_table(Arc::new(InstrumentTable::default()));
                decoder.decode(text.as_bytes(), 0, &mut out);
            }
            for body in [bytes.clone(), text.clone().into_bytes()] {
                accepted(venue, market, &RestAnswer { status: 200, retry_after: None, body });
            }
        });
    }
}
