//! Addresses and subscription frames (sheet sections 1 and 3).

use std::time::Duration;

use fathom_market::{
    ids::Market,
    plan::{ConnectSpec, EndpointClass, KeepAlive, OutFrame, SessionRules, StreamSpec},
};
use serde::Serialize;

use super::channels::MARKET;

/// A frame of several hundred names was reported to fail in silence.
const NAMES_PER_FRAME: usize = 100;
/// Tells of listings, settlements and changed brackets.
const LISTINGS: &str = "!contractInfo";

/// `{"method":"SUBSCRIBE","params":[...],"id":1}`.
#[derive(Serialize)]
struct Request<'a> {
    method: &'static str,
    params: Vec<&'a str>,
    id: u64,
}

/// The address of combined streams and the frames that subscribe them. Names never go into the address, whose length
/// is bounded.
pub(super) fn connect(
    market: Market,
    class: EndpointClass,
    base: &str,
    streams: &[StreamSpec],
    first_id: u64,
) -> ConnectSpec {
    let url = format!("{}/stream", base.trim_end_matches('/'));
    let mut subscribe = frames("SUBSCRIBE", streams, first_id);
    if market == Market::Futures && class == MARKET {
        // Of no instrument, and a few messages a day: each of these connections asks for it, so that the news does not
        // go with one of them.
        subscribe.push(frame("SUBSCRIBE", vec![LISTINGS], first_id + subscribe.len() as u64));
    }
    ConnectSpec { url, subscribe, rules: rules(market) }
}

/// Unsubscribes and subscribes again on an open line.
pub(super) fn resubscribe(streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame> {
    let mut all = unsubscribe(streams, first_id);
    all.extend(subscribe(streams, first_id + all.len() as u64));
    all
}

/// Subscribes more on an open line.
pub(super) fn subscribe(streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame> {
    frames("SUBSCRIBE", streams, first_id)
}

/// Gives up streams of an open line.
pub(super) fn unsubscribe(streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame> {
    frames("UNSUBSCRIBE", streams, first_id)
}

fn frames(method: &'static str, streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame> {
    let parts = (first_id..).zip(streams.chunks(NAMES_PER_FRAME));
    parts
        .map(|(id, part)| frame(method, part.iter().map(|stream| stream.name.as_str()).collect(), id))
        .collect()
}

fn frame(method: &'static str, params: Vec<&str>, id: u64) -> OutFrame {
    // A struct of text and a number always serializes.
    let text = serde_json::to_string(&Request { method, params, id }).unwrap_or_default();
    OutFrame { text, ack: Some(id) }
}

/// Timing of a session. The server pings every 20 s on spot and every 3 min on futures, and closes at 24 h.
fn rules(market: Market) -> SessionRules {
    let (idle_timeout, messages_per_second) = match market {
        Market::Spot => (Duration::from_secs(60), 4),
        Market::Futures => (Duration::from_secs(200), 8),
    };
    SessionRules {
        connect_deadline: Duration::from_secs(10),
        ack_deadline: Duration::from_secs(10),
        first_data_deadline: Duration::from_secs(30),
        idle_timeout,
        keep_alive: KeepAlive::ServerPings,
        life_limit: Duration::from_secs(24 * 3600),
        messages_per_second,
        max_frame_bytes: 4 << 20,
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::{event::Channel, instrument::InstrumentIdx};

    use super::*;
    use crate::binance::channels::STREAM;

    fn streams(names: impl IntoIterator<Item = String>) -> Vec<StreamSpec> {
        let spec = |name| StreamSpec {
            name,
            instrument: InstrumentIdx(0),
            channel: Channel::Trade,
            class: STREAM,
            expect_every: None,
        };
        names.into_iter().map(spec).collect()
    }

    #[test]
    fn frames_hold_a_hundred_names_and_keep_case_and_alphabet() {
        let names = streams((0..250).map(|n| format!("币{n}usdt@kline_1M")));
        let spec = connect(Market::Spot, STREAM, "wss://example.test:9443/", &names, 7);
        assert_eq!(spec.url, "wss://example.test:9443/stream");
        assert_eq!(
            spec.subscribe.iter().map(|frame| frame.ack).collect::<Vec<_>>(),
            [Some(7), Some(8), Some(9)]
        );
        assert!(
            spec.subscribe[2].text.starts_with(r#"{"method":"SUBSCRIBE","params":["币200usdt@kline_1M","#)
        );
        assert!(spec.subscribe[2].text.ends_with(r#""],"id":9}"#));
    }

    #[test]
    fn futures_hear_of_listings_on_the_route_that_tells_of_them() {
        use crate::binance::channels::PUBLIC;
        let names = streams(["btcusdt@aggTrade".to_owned()]);
        let of = |market, class| -> Vec<(String, Option<u64>)> {
            let spec = connect(market, class, "wss://x", &names, 4);
            spec.subscribe.into_iter().map(|frame| (frame.text, frame.ack)).collect()
        };
        let asked = of(Market::Futures, MARKET);
        let listings = r#"{"method":"SUBSCRIBE","params":["!contractInfo"],"id":5}"#.to_owned();
        assert_eq!((asked.len(), &asked[1]), (2, &(listings, Some(5))));
        assert_eq!((of(Market::Futures, PUBLIC).len(), of(Market::Spot, STREAM).len()), (1, 1));
    }

    #[test]
    fn renewal_unsubscribes_first_and_ids_grow() {
        let frames = resubscribe(&streams(["a@depth".to_owned()]), 3);
        let texts: Vec<_> = frames.iter().map(|frame| frame.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                r#"{"method":"UNSUBSCRIBE","params":["a@depth"],"id":3}"#,
                r#"{"method":"SUBSCRIBE","params":["a@depth"],"id":4}"#
            ]
        );
    }
}
