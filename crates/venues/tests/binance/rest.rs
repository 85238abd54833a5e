//! Every recorded REST body: rows, rejected rows, and samples of what they say.

use std::fmt::{Debug, Write};

use fathom_market::{ids::Market, instrument::InstrumentIdx, timeframe::Timeframe};
use fathom_venues::{
    DecodeError, Parsed, RestError, Venue,
    binance::{Binance, rest},
};

use crate::captures::{answer, cryptofeed, folder, golden, listed, named, text};

/// Writes counts and the first and last row.
fn summary<T: Debug>(out: &mut String, parsed: Result<Parsed<T>, RestError>) -> (usize, usize) {
    let parsed = parsed.unwrap();
    writeln!(out, "    {} rows, {} rejected", parsed.rows.len(), parsed.rejected.len()).unwrap();
    let ends = parsed.rows.first().into_iter().chain(parsed.rows.last().filter(|_| parsed.rows.len() > 1));
    for row in ends {
        writeln!(out, "    {row:?}").unwrap();
    }
    for error in parsed.rejected.iter().take(2) {
        writeln!(out, "    {error:?}").unwrap();
    }
    (parsed.rows.len(), parsed.rejected.len())
}

fn recorded(market: Market, recording: &str, text: &str) -> (usize, usize) {
    let (mut out, mut trades, mut trades_rejected) = (String::new(), 0, 0);
    let table = named(market, &["BTCUSDT"]);
    let instrument = table.get(InstrumentIdx(0)).unwrap();
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let (path, query) = (case["path"].as_str().unwrap(), case["query"].as_str().unwrap());
        writeln!(out, "{path} {query}").unwrap();
        let answer = answer(&case["body"].to_string());
        let endpoint = path.trim_start_matches("/api/v3/").trim_start_matches("/fapi/v1/");
        match endpoint {
            "aggTrades" => {
                let parsed = Binance.parse_trades(instrument, InstrumentIdx(0), &answer, 0);
                let (rows, rejected) = summary(&mut out, parsed);
                (trades, trades_rejected) = (trades + rows, trades_rejected + rejected);
            }
            "klines" => {
                let (rows, rejected) =
                    summary(&mut out, Binance.parse_candles(Timeframe::M5, &answer, i64::MAX));
                assert!(rows > 0 && rejected == 0);
            }
            "ticker/24hr" => assert_eq!(summary(&mut out, Binance.parse_tickers(market, &answer)).1, 0),
            "ticker/bookTicker" => assert_eq!(summary(&mut out, rest::parse_best_prices(&answer)).1, 0),
            "premiumIndex" => assert_eq!(summary(&mut out, Binance.parse_funding(market, &answer)).1, 0),
            "fundingRate" => assert_eq!(summary(&mut out, rest::parse_funding_history(&answer)).1, 0),
            "fundingInfo" => assert_eq!(summary(&mut out, rest::parse_funding_intervals(&answer)).1, 0),
            "exchangeInfo" => {
                assert_eq!(summary(&mut out, Binance.parse_instruments(market, &answer, 0)).1, 0)
            }
            "time" => writeln!(out, "    {:?}", Binance.parse_time(&answer)).unwrap(),
            "depth" => {
                let book = Binance.parse_snapshot(instrument, 1000, &answer).unwrap();
                writeln!(out, "    {} {:?} {:?}", book.last_id, book.bids[0], book.asks.last()).unwrap();
            }
            _ => writeln!(out, "    not asked by the collector").unwrap(),
        }
    }
    golden(recording, &out);
    (trades, trades_rejected)
}

#[test]
fn recorded_bodies() {
    let Some(folder) = folder() else { return };
    let recording = "spot/rest_recorded.jsonl.zst";
    let spot = text(&folder, recording);
    let (_, rejected) = recorded(Market::Spot, recording, &spot);
    // A recorder's fault: these rows have the key "" in place of `m`.
    assert_eq!(rejected, spot.matches(r#""":"#).count());
    let recording = "usdm/rest_recorded.jsonl.zst";
    let (_, rejected) = recorded(Market::Futures, recording, &text(&folder, recording));
    assert_eq!(rejected, 0);
}

#[test]
fn recorded_instruments() {
    let Some(folder) = folder() else { return };
    for (market, recording) in [
        (Market::Spot, "spot/alts_20211012/exchangeInfo.http.zst"),
        (Market::Futures, "usdm/alts_20210722/exchangeInfo.http.zst"),
    ] {
        let lines = cryptofeed(&text(&folder, recording));
        let table = listed(market, &lines[0].body);
        let mut out = format!("{} instruments\n", table.len());
        for (_, row) in table.iter() {
            writeln!(
                out,
                "{} {} {} {:?} tick {} lot {} scales {} {}",
                row.native,
                row.unified,
                row.status.as_str(),
                row.kind,
                row.tick_size,
                row.lot_size,
                row.price_scale,
                row.qty_scale
            )
            .unwrap();
        }
        golden(recording, &out);
    }
}

#[test]
fn a_refusal_is_no_body() {
    let refused = fathom_market::plan::RestAnswer { status: 418, ..answer("") };
    assert_eq!(Binance.parse_time(&refused), Err(RestError::Banned { retry_after: None }));
    let broken = Binance.parse_time(&answer("{}"));
    assert_eq!(broken, Err(RestError::Body(DecodeError::Missing("serverTime"))));
}
