//! Every recorded frame: what it decodes to, and that the fast path takes what it should.

use std::fmt::Write;

use fathom_market::{
    event::{Body, Event},
    ids::Market,
    instrument::InstrumentTable,
};
use fathom_venues::{Decoded, Decoder, binance::decode::BinanceDecoder};

use crate::captures::{Counts, Line, cryptofeed, folder, golden, hftbacktest, listed, named, text};

/// Names of counts and what they must be.
type Expected<const N: usize> = [(&'static str, u64); N];

/// Samples written out in the golden text of a long recording.
const SAMPLES: u64 = 3;

fn name(decoded: &Decoded) -> String {
    match decoded {
        Decoded::Event(Event { body, .. }) => match body {
            Body::Delta(_) => "event depth update".to_owned(),
            Body::Snapshot(_) => "event depth snapshot".to_owned(),
            body => format!("event {}", body.channel().as_str()),
        },
        Decoded::Ignored(why) => format!("ignored {why}"),
        Decoded::Rejected { channel, error, .. } => {
            format!("rejected {} {}", channel.map_or("unknown", |channel| channel.as_str()), error.reason())
        }
        other => format!("other {other:?}"),
    }
}

/// FNV-1a of everything that was decoded: any change of any value shows.
fn digest(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Decodes a long recording by both paths and compares its summary with the golden one.
fn long(recording: &str, table: &InstrumentTable, lines: &[Line]) -> Counts {
    let mut decoder = BinanceDecoder::new(table);
    let (mut out, mut full) = (Vec::new(), Vec::new());
    let (mut counts, mut samples, mut hash) = (Counts::default(), String::new(), 0xcbf2_9ce4_8422_2325);
    for line in lines {
        counts.add("frames");
        if decoder.is_fast(line.body.as_bytes()) {
            counts.add("frames of the fast path");
        }
        decoder.decode(line.body.as_bytes(), line.recv_us, &mut out);
        decoder.decode_full(line.body.as_bytes(), line.recv_us, &mut full);
        assert_eq!(out, full);
        for decoded in out.drain(..) {
            let name = name(&decoded);
            let shown = format!("{decoded:?}");
            hash = digest(hash, &shown);
            if counts.of(&name) < SAMPLES {
                writeln!(samples, "{shown}").unwrap();
            }
            counts.add(name);
        }
        full.clear();
    }
    let mut found = String::new();
    counts.write(&mut found);
    writeln!(found, "{hash:016x} digest\n{samples}").unwrap();
    golden(recording, &found);
    counts
}

/// Decodes single frames and compares each one's text with the golden one.
fn singles<'f>(
    recording: &str,
    frames: impl Iterator<Item = (&'f InstrumentTable, String, String)>,
) -> Counts {
    let (mut counts, mut events, mut out) = (Counts::default(), String::new(), Vec::new());
    for (table, case, frame) in frames {
        BinanceDecoder::new(table).decode(frame.as_bytes(), 0, &mut out);
        writeln!(events, "{case}").unwrap();
        counts.add("frames");
        for decoded in out.drain(..) {
            counts.add(name(&decoded));
            writeln!(events, "    {decoded:?}").unwrap();
        }
    }
    let mut found = String::new();
    counts.write(&mut found);
    golden(recording, &(found + &events));
    counts
}

fn assert_counts(counts: &Counts, expected: &[(&str, u64)]) {
    for (name, count) in expected {
        assert_eq!(counts.of(name), *count, "{name}");
    }
}

/// The counts are those that were verified when the recordings were collected.
#[test]
fn long_recordings_of_one_symbol() {
    let Some(folder) = folder() else { return };
    let spot = named(Market::Spot, &["BTCUSDT"]);
    let futures = named(Market::Futures, &["ETHUSDT"]);
    let cases: [(&str, &InstrumentTable, Expected<6>); 3] = [
        (
            "spot/btcusdt_20240808.hftb.gz",
            &spot,
            [
                ("frames", 41_249),
                ("frames of the fast path", 41_248),
                ("event quote", 28_040),
                ("event trade", 9757),
                ("event depth update", 3451),
                ("ignored unnamed_event", 1),
            ],
        ),
        (
            "spot/btcusdt_20240809.hftb.gz",
            &spot,
            [
                ("frames", 58_325),
                ("frames of the fast path", 58_325),
                ("event quote", 45_134),
                ("event trade", 10_147),
                ("event depth update", 3044),
                ("ignored unnamed_event", 0),
            ],
        ),
        (
            "usdm/ethusdt_20240808.hftb.gz",
            &futures,
            [
                ("frames", 74_655),
                ("event quote", 53_992),
                ("event depth update", 6586),
                ("ignored unnamed_event", 1),
                ("rejected trade bad_number", 0),
                ("rejected depth level_misfit", 0),
            ],
        ),
    ];
    for (recording, table, expected) in cases {
        let counts = long(recording, table, &hftbacktest(&text(&folder, recording)));
        assert_counts(&counts, &expected);
        if recording.starts_with("usdm") {
            assert_eq!(counts.of("event trade") + counts.of("ignored not_a_market_trade"), 14_076);
        }
    }
}

#[test]
fn recordings_of_several_small_coins() {
    let Some(folder) = folder() else { return };
    let cases: [(Market, &str, Expected<5>); 2] = [
        (
            Market::Spot,
            "spot/alts_20211012",
            [
                ("frames", 265),
                ("event depth update", 177),
                ("event quote", 84),
                ("event trade", 2),
                ("event candle", 2),
            ],
        ),
        (
            Market::Futures,
            "usdm/alts_20210722",
            [
                ("frames", 1535),
                ("event depth update", 764),
                ("event quote", 613),
                ("event trade", 91),
                ("event candle", 67),
            ],
        ),
    ];
    for (market, recording, expected) in cases {
        let info = cryptofeed(&text(&folder, &format!("{recording}/exchangeInfo.http.zst")));
        let table = listed(market, &info[0].body);
        let stream = format!("{recording}/stream.ws.zst");
        let counts = long(&stream, &table, &cryptofeed(&text(&folder, &stream)));
        assert_counts(&counts, &expected);
    }
}

#[test]
fn single_frames() {
    let Some(folder) = folder() else { return };
    let spot_names = ["BTCUSDT", "ETHUSDT", "ETHBTC", "BTCUSDC", "BNBBTC", "GNTBTC"];
    let spot = named(Market::Spot, &spot_names);
    let futures_names = ["BTCUSDT", "ETHUSDT", "BTCUSDT_220624", "ETHUSDT_210625", "BTCBUSD_210129"];
    let futures = named(Market::Futures, &futures_names);
    for (recording, table) in [("spot/singles_tardis.jsonl", &spot), ("usdm/singles_tardis.jsonl", &futures)]
    {
        let text = text(&folder, recording);
        let frames = text.lines().enumerate();
        singles(recording, frames.map(|(at, frame)| (table, format!("line {}", at + 1), frame.to_owned())));
    }
    let recording = "singles_parser_tests.jsonl";
    let text = text(&folder, recording);
    let counts = singles(
        recording,
        text.lines().enumerate().map(|(at, line)| {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let (name, frame) = (case["case"].as_str().unwrap(), case["raw"].as_str().unwrap());
            let table = if name.ends_with("/spot") { &spot } else { &futures };
            (table, format!("line {} {name}", at + 1), frame.to_owned())
        }),
    );
    assert_counts(&counts, &[("frames", 34), ("event depth snapshot", 1)]);
    // Coin-margined contracts are not in the table, and so every one of their frames is refused by name.
    assert!(
        counts.of("rejected depth unknown_symbol") == 3 && counts.of("rejected quote unknown_symbol") == 2
    );
}
