//! One line with the built-in venue's decoder and rules: what it passes on, drops, tells and counts.

use std::{sync::Arc, time::Duration};

use fathom_market::{
    event::{Body, Channel, Event},
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
    timeframe::Timeframe,
};
use fathom_venues::{Wanted, planner::EndpointPlan, planner::Redundancy};

use super::{
    line::{Line, LineSpec, Notices, Reshaped, Sink},
    liveness::LivenessRules,
    merge::{Merge, Tally},
    reconnect::{ConnectionState, standard_rules},
    status::Role,
};
use crate::fixtures::{MINUTE_US, S, binance, instrument};

#[derive(Debug, PartialEq)]
enum Told {
    Delta(u64),
    Other(Channel),
    Gap(u32, u64, u64),
    Unreadable(u32, Channel, &'static str),
}

#[derive(Default)]
struct Ear(Vec<Told>);

impl Sink for Ear {
    fn event(&mut self, event: Event) {
        self.0.push(match event.body {
            Body::Delta(delta) => Told::Delta(delta.ids.last),
            other => Told::Other(other.channel()),
        });
    }

    fn gap(&mut self, instrument: InstrumentIdx, expected: u64, got: u64) {
        self.0.push(Told::Gap(instrument.0, expected, got));
    }

    fn unreadable(&mut self, instrument: InstrumentIdx, channel: Channel, reason: &'static str) {
        self.0.push(Told::Unreadable(instrument.0, channel, reason));
    }

    fn opened(&mut self, _: InstrumentIdx, _: Channel) {}

    fn set_back(&mut self, _: InstrumentIdx, _: Channel) {}

    fn cut(&mut self, _: InstrumentIdx, _: Channel) {}
}

/// A line's way through a merge, as its shard has it.
struct Through<'a> {
    merge: &'a mut Merge,
    line: super::merge::LineKey,
    ear: &'a mut Ear,
}

impl Sink for Through<'_> {
    fn event(&mut self, event: Event) {
        self.merge.offer(self.line, event, self.ear);
    }

    fn gap(&mut self, instrument: InstrumentIdx, expected: u64, got: u64) {
        self.ear.gap(instrument, expected, got);
    }

    fn unreadable(&mut self, instrument: InstrumentIdx, channel: Channel, reason: &'static str) {
        self.ear.unreadable(instrument, channel, reason);
    }

    fn opened(&mut self, _: InstrumentIdx, _: Channel) {}

    fn set_back(&mut self, _: InstrumentIdx, _: Channel) {}

    fn cut(&mut self, _: InstrumentIdx, _: Channel) {}
}

const BTC: InstrumentIdx = InstrumentIdx(0);

fn plan() -> (Arc<InstrumentTable>, EndpointPlan) {
    let rows = ["BTC", "ETH"].map(|base| (*instrument(Market::Spot, base)).clone());
    let table = Arc::new(InstrumentTable::new(rows).unwrap());
    let wanted = Wanted {
        timeframes: vec![Timeframe::M1],
        depth: fathom_market::plan::DepthSpeed::Fast,
        raw_trades: false,
        ticker: false,
    };
    let streams = table.iter().flat_map(|(idx, instrument)| binance().streams(instrument, idx, &wanted));
    let class = binance().classes(Market::Spot)[0];
    let plan = EndpointPlan { class, streams: streams.collect(), redundancy: Redundancy::Single };
    (table, plan)
}

fn bench() -> (Line, Merge) {
    let (table, plan) = plan();
    let mut merge = Merge::new(binance(), Market::Spot);
    let spec = LineSpec {
        venue: binance(),
        market: Market::Spot,
        base: "wss://example.test".into(),
        plan,
        letter: 'a',
    };
    let (key, rules) = (merge.enter(1), standard_rules().unwrap());
    (Line::new(spec, key, table, rules, LivenessRules::default(), MINUTE_US), merge)
}

fn line() -> Line {
    bench().0
}

fn depth(symbol: &str, first: u64, last: u64) -> String {
    let (lower, upper) = (symbol.to_lowercase(), symbol);
    format!(
        r#"{{"stream":"{lower}@depth@100ms","data":{{"e":"depthUpdate","E":1,"s":"{upper}","U":{first},"u":{last},"b":[["99.99","1.5"]],"a":[]}}}}"#
    )
}

fn quote() -> String {
    r#"{"stream":"btcusdt@bookTicker","data":{"u":4,"s":"BTCUSDT","b":"99.99","B":"1","a":"100.01","A":"1"}}"#
        .into()
}

fn read(line: &mut Line, frames: &[String]) -> (Vec<Told>, Notices) {
    let mut ear = Ear::default();
    let notices = line.read(frames.iter().map(|frame| frame.as_bytes()), MINUTE_US + S, &mut ear);
    (ear.0, notices)
}

fn read_through(line: &mut Line, merge: &mut Merge, frames: &[String]) -> (Vec<Told>, Notices) {
    let mut ear = Ear::default();
    let mut through = Through { merge, line: line.key, ear: &mut ear };
    let notices = line.read(frames.iter().map(|frame| frame.as_bytes()), MINUTE_US + S, &mut through);
    (ear.0, notices)
}

#[test]
fn replays_are_dropped_and_a_gap_is_told_before_what_showed_it() {
    let (mut line, mut merge) = bench();
    let frames = [
        depth("BTCUSDT", 10, 12),
        depth("ETHUSDT", 500, 510),
        depth("BTCUSDT", 11, 12),
        quote(),
        depth("BTCUSDT", 13, 13),
        depth("BTCUSDT", 20, 21),
        depth("ETHUSDT", 511, 512),
    ];
    let (told, notices) = read_through(&mut line, &mut merge, &frames);
    let expected = [
        Told::Delta(12),
        Told::Delta(510),
        Told::Other(Channel::Quote),
        Told::Delta(13),
        Told::Gap(0, 14, 20),
        Told::Delta(21),
        Told::Delta(512),
    ];
    assert_eq!((told.as_slice(), notices), (expected.as_slice(), Notices::default()));
    assert_eq!(merge.tally(line.key), Tally { passed: 6, duplicates: 1, gaps: 0 });
    assert_eq!((line.seen.events, line.seen.rejects.len()), (7, 0));

    merge.leave(line.key, MINUTE_US + S, &mut Ear::default());
    line.key = merge.enter(1);
    line.open(LivenessRules::default(), MINUTE_US + S);
    let (told, _) = read_through(&mut line, &mut merge, &[depth("BTCUSDT", 90, 91)]);
    assert_eq!(told, [Told::Delta(91)], "a new connection has no past");
}

#[test]
fn a_rejected_record_is_told_where_its_instrument_is_known() {
    let mut line = line();
    let misfit = depth("BTCUSDT", 10, 12).replace("99.99", "99.999");
    let unknown = depth("NOPEUSDT", 1, 2);
    let (told, _) = read(&mut line, &[misfit, unknown, "{".into()]);
    assert_eq!(told, [Told::Unreadable(0, Channel::Depth, "level_misfit")]);
    let rejects: Vec<_> = line.seen.rejects.iter().map(|(reason, count)| (*reason, *count)).collect();
    assert_eq!(rejects, [("level_misfit", 1), ("malformed", 1), ("unknown_symbol", 1)]);
    assert_eq!(line.seen.events, 0, "nothing that would count as data");
}

#[test]
fn answers_and_announcements_are_no_events() {
    let mut line = line();
    let frames = [
        r#"{"result":null,"id":1}"#.to_owned(),
        r#"{"error":{"code":2,"msg":"Invalid request"},"id":2}"#.into(),
        r#"{"e":"serverShutdown","E":1770123456789}"#.into(),
    ];
    let (told, notices) = read(&mut line, &frames);
    assert_eq!((told, line.seen.events), (vec![], 0));
    assert!(notices.closing_soon && !notices.instruments_changed);
    assert_eq!(notices.refused.len(), 1);
    assert!(notices.refused[0].contains("Invalid request"), "{:?}", notices.refused);
}

#[test]
fn it_knows_what_it_carries() {
    let line = line();
    let carries = line.carries();
    assert_eq!(carries.keys().map(|idx| idx.0).collect::<Vec<_>>(), [0, 1]);
    for channels in carries.values() {
        let mut channels = channels.clone();
        channels.sort();
        assert_eq!(
            channels,
            [Channel::Quote, Channel::Trade, Channel::Depth, Channel::Candle(Timeframe::M1)]
        );
    }
    assert!(line.has(BTC, Channel::Depth));
    assert!(!line.has(BTC, Channel::Funding) && !line.has(InstrumentIdx(2), Channel::Depth));
    assert!(line.stream_name(0).starts_with("btcusdt@"), "{}", line.stream_name(0));
    assert_eq!(line.stream_name(99), "?");
}

#[test]
fn its_status_says_what_happened() {
    let mut line = line();
    let class = binance().classes(Market::Spot)[0].as_str();
    assert_eq!(line.id(), format!("{class}/a"));
    let status = published(&line, MINUTE_US);
    assert_eq!((status.state, status.connection, status.streams), (ConnectionState::Disconnected, 0, 8));
    let connect = line.open(LivenessRules::default(), MINUTE_US);
    assert_eq!(published(&line, MINUTE_US).state, ConnectionState::Connecting);
    read(&mut line, &[depth("BTCUSDT", 10, 12), depth("BTCUSDT", 13, 13), quote()]);
    line.reconnect.delivered(MINUTE_US + S);
    let frames = line.renew(&[0, 5, 99]);
    let status = published(&line, MINUTE_US + 2 * S);
    assert_eq!(
        (status.state, status.connection, status.connected_us),
        (ConnectionState::Connected, 1, Some(MINUTE_US + S))
    );
    assert_eq!((status.frames, status.last_frame_us), (3, Some(MINUTE_US + S)));
    assert_eq!((status.streams, status.streams_live, status.renewed), (8, 2, 2));

    let mut ids: Vec<u64> = connect.subscribe.iter().chain(&frames).filter_map(|frame| frame.ack).collect();
    let asked = ids.len();
    assert!(asked >= 2, "{frames:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), asked, "no request id is used twice");
    assert_eq!(line.reconnect.ended(MINUTE_US + 60 * S, 0), Duration::ZERO);
    assert_eq!(published(&line, MINUTE_US + 60 * S).reconnects, 1);
}

fn published(line: &Line, now_us: i64) -> super::LineStatus {
    line.status(Role::Current, Tally { passed: 3, duplicates: 1, gaps: 0 }, None, now_us)
}

#[test]
fn a_changed_plan_touches_only_what_differs() {
    let mut line = line();
    let (_, whole) = plan();
    let half = EndpointPlan { streams: whole.streams[..4].to_vec(), ..whole.clone() };
    let reshaped = line.reshape(&half, MINUTE_US);
    assert_eq!((reshaped.frames.len(), reshaped.added.len()), (0, 0), "nothing is open");
    assert!(reshaped.removed.iter().all(|(instrument, _)| instrument.0 == 1) && reshaped.removed.len() == 4);
    assert_eq!(line.reshape(&half, MINUTE_US), Reshaped::default());
    assert_eq!(line.reshape(&whole, MINUTE_US).added, reshaped.removed);
    assert_eq!(line.status(Role::Next, Tally::default(), None, MINUTE_US).streams, 8);
}

#[test]
fn streams_are_subscribed_once_all_their_requests_are_acknowledged() {
    let mut line = line();
    line.open(LivenessRules::default(), MINUTE_US);
    assert_eq!(line.acked_us(), None);
    let (_, notices) = read(&mut line, &[r#"{"result":null,"id":7}"#.into()]);
    assert_eq!((notices.subscribed.len(), line.acked_us()), (0, None));
    let (_, notices) = read(&mut line, &[r#"{"result":null,"id":1}"#.into()]);
    assert_eq!((notices.subscribed.len(), line.acked_us()), (8, Some(MINUTE_US + S)));
    let next =
        line.beside(line.key, plan().0, standard_rules().unwrap(), LivenessRules::default(), MINUTE_US);
    assert_eq!((next.connection, next.acked_us()), (1, None));
}
