use std::{fs, path::Path};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

struct Outcome {
    lines: Vec<Value>,
    summary: Value,
}

fn args(files: Vec<PathBuf>, market: Market, format: Format, books: bool) -> ReplayArgs {
    ReplayArgs { files, venue: "binance".to_owned(), market, format, books }
}

fn run_files(
    files: Vec<PathBuf>,
    market: Market,
    format: Format,
    books: bool,
) -> Result<Outcome, ReplayError> {
    let mut out = Vec::new();
    let summary = replay(&args(files, market, format, books), &mut out)?;
    let text = String::from_utf8(out).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Ok(Outcome { lines, summary })
}

fn file(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn run_text(text: &str, market: Market, format: Format, books: bool) -> Outcome {
    let folder = TempDir::new().unwrap();
    run_files(vec![file(&folder, "recording", text)], market, format, books).unwrap()
}

const DELTA_1: &str = r#"{"stream":"pepeusdt@depth@100ms","data":{"e":"depthUpdate","E":1700000000100,"s":"PEPEUSDT","U":8,"u":10,"b":[["0.00000700","5.00"]],"a":[]}}"#;
const SNAPSHOT: &str = r#"{"lastUpdateId":10,"bids":[["0.00000700","999999999999.00"],["0.00000699","1.50"]],"asks":[["0.00000701","2.00"]]}"#;
const DELTA_2: &str = r#"{"stream":"pepeusdt@depth@100ms","data":{"e":"depthUpdate","E":1700000000200,"s":"PEPEUSDT","U":11,"u":12,"b":[["0.00000699","0.00"]],"a":[["0.00000702","3.25"],["0.00000701","4.00"]]}}"#;
const GAP: &str = r#"{"stream":"pepeusdt@depth@100ms","data":{"e":"depthUpdate","E":1700000000400,"s":"PEPEUSDT","U":14,"u":15,"b":[],"a":[]}}"#;

fn hb(frames: &[&str]) -> String {
    let line =
        |(at, frame): (usize, &&str)| format!("{} {frame}\n", 1_700_000_000_123_456_789_i64 + at as i64);
    frames.iter().enumerate().map(line).collect()
}

#[test]
fn a_book_is_joined_and_printed_in_full() {
    let outcome = run_text(&hb(&[DELTA_1, SNAPSHOT, DELTA_2]), Market::Spot, Format::Hb, true);
    assert_eq!(
        outcome.lines,
        [
            json!({"type": "book", "venue": "binance", "market": "spot", "symbol": "PEPE/USDT", "native": "PEPEUSDT",
            "state": "live", "seq": 12, "bids": [["0.000007", "999999999999"]],
            "asks": [["0.00000701", "4"], ["0.00000702", "3.25"]]})
        ]
    );
    assert_eq!(outcome.summary["books"]["applied"], 1);
    assert_eq!(outcome.summary["books"]["dropped"], 1);
    assert_eq!(outcome.summary["counts"]["book"], 3);
}

#[test]
fn a_gap_leaves_a_book_syncing_until_another_snapshot() {
    let broken = run_text(&hb(&[DELTA_1, SNAPSHOT, DELTA_2, GAP]), Market::Spot, Format::Hb, true);
    let book = &broken.lines[0];
    assert_eq!((&book["state"], &book["seq"], &book["bids"]), (&json!("syncing"), &Value::Null, &json!([])));
    assert_eq!(broken.summary["gaps"], 1);
    let newer = SNAPSHOT.replace("\"lastUpdateId\":10", "\"lastUpdateId\":14");
    let healed = run_text(&hb(&[DELTA_1, SNAPSHOT, DELTA_2, GAP, &newer]), Market::Spot, Format::Hb, true);
    assert_eq!((&healed.lines[0]["state"], &healed.lines[0]["seq"]), (&json!("live"), &json!(15)));
    let deltas_only = run_text(&hb(&[DELTA_1, DELTA_2]), Market::Spot, Format::Hb, true);
    assert_eq!(
        (&deltas_only.lines[0]["state"], &deltas_only.summary["gaps"]),
        (&json!("syncing"), &json!(0))
    );
}

#[test]
fn events_keep_what_the_frame_said() {
    let outcome = run_text(&hb(&[DELTA_1, SNAPSHOT, DELTA_2]), Market::Spot, Format::Hb, false);
    let head = |seq: u64, event_us: Value, recv_us: i64| {
        json!({"type": "book", "venue": "binance", "market": "spot", "symbol": "PEPE/USDT", "native": "PEPEUSDT",
            "seq": seq, "event_us": event_us, "recv_us": recv_us})
    };
    let with = |mut head: Value, more: Value| {
        head.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        head
    };
    let recv_us = 1_700_000_000_123_456;
    assert_eq!(
        outcome.lines,
        [
            with(
                head(10, json!(1_700_000_000_100_000_i64), recv_us),
                json!({"kind": "delta", "first_id": 8, "last_id": 10, "bids": [["0.000007", "5"]], "asks": []})
            ),
            with(
                head(10, Value::Null, recv_us),
                json!({"kind": "snapshot", "bids": [["0.000007", "999999999999"], ["0.00000699", "1.5"]],
                    "asks": [["0.00000701", "2"]]})
            ),
            with(
                head(12, json!(1_700_000_000_200_000_i64), recv_us),
                json!({"kind": "delta", "first_id": 11, "last_id": 12, "bids": [["0.00000699", "0"]],
                    "asks": [["0.00000702", "3.25"], ["0.00000701", "4"]]})
            ),
        ]
    );
}

const RAW: &str = r#"
{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}
{"e":"aggTrade","E":1672515782136,"s":"BNBUSDT","a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782130,"m":true,"M":true}
{"stream":"bnbusdt@trade","data":{"e":"trade","E":1672515782136,"s":"BNBUSDT","t":9,"p":"0.00000005","q":"1.50","T":1672515782130,"m":false,"M":true}}
{"stream":"bnbusdt@kline_1m","data":{"e":"kline","E":1672515782136,"s":"BNBUSDT","k":{"t":1672515780000,"T":1672515839999,"s":"BNBUSDT","i":"1m","f":100,"L":200,"o":"0.0010","c":"0.0020","h":"0.0025","l":"0.0015","v":"1000","n":100,"x":false,"q":"1.0000","V":"500","Q":"0.00000000","B":"123456"}}}
{"stream":"bnbusdt@ticker","data":{"e":"24hrTicker","E":1672515782136,"s":"BNBUSDT","p":"-1","P":"2","w":"1","x":"1","c":"0.0025","Q":"10","b":"0.0024","B":"10","a":"0.0026","A":"100","o":"0.0010","h":"0.0025","l":"0.0010","v":"10000","q":"18","O":0,"C":1,"F":0,"L":18150,"n":18151}}
{"case":"x","raw":"{\"stream\":\"bnbusdt@depth5\",\"data\":{\"lastUpdateId\":7,\"bids\":[[\"1.0\",\"2.0\"]],\"asks\":[]}}"}
{"result":null,"id":1}
not json
{"stream":"bnbusdt@trade","data":{"e":"trade","s":"BNBUSDT","t":9,"p":"x","q":"1","T":1,"m":false}}
{"stream":"btcusdt_210625@trade","data":{"e":"trade","E":1,"s":"BTCUSDT_210625","t":9,"p":"1","q":"1","T":1,"m":false}}
"#;

#[test]
fn every_type_has_its_fields() {
    let outcome = run_text(RAW, Market::Spot, Format::Raw, false);
    let types: Vec<_> = outcome.lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["quote", "trade", "trade", "candle", "ticker", "book"]);
    let with_head = |line: usize, seq: Value, event_us: Value, more: Value| {
        let mut expected = json!({"type": types[line], "venue": "binance", "market": "spot", "symbol": "BNB/USDT",
            "native": "BNBUSDT", "seq": seq, "event_us": event_us, "recv_us": null});
        expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(outcome.lines[line], expected);
    };
    let (traded, sent) = (json!(1_672_515_782_130_000_i64), json!(1_672_515_782_136_000_i64));
    with_head(
        0,
        json!(400_900_217),
        Value::Null,
        json!({"bid": "25.3519", "bid_qty": "31.21", "ask": "25.3652", "ask_qty": "40.66"}),
    );
    with_head(
        1,
        json!(12345),
        traded.clone(),
        json!({"id": 12345, "kind": "aggregate", "price": "0.001", "qty": "100", "side": "sell", "first_id": 100,
            "last_id": 105}),
    );
    with_head(
        2,
        json!(9),
        traded,
        json!({"id": 9, "kind": "trade", "price": "0.00000005", "qty": "1.5", "side": "buy"}),
    );
    with_head(
        3,
        json!(1_672_515_780_000_i64),
        sent.clone(),
        json!({"timeframe": "1m", "open_ms": 1_672_515_780_000_i64, "close_ms": 1_672_515_839_999_i64,
            "open": "0.001", "high": "0.0025", "low": "0.0015", "close": "0.002", "volume": "1000",
            "quote_volume": "1", "trades": 100, "taker_buy_volume": "500", "taker_buy_quote_volume": "0",
            "closed": false}),
    );
    with_head(
        4,
        json!(1_672_515_782_136_i64),
        sent,
        json!({"last": "0.0025", "bid": "0.0024", "ask": "0.0026", "open": "0.001", "high": "0.0025", "low": "0.001",
            "volume": "10000", "quote_volume": "18", "trades": 18151}),
    );
    with_head(5, json!(7), Value::Null, json!({"kind": "snapshot", "bids": [["1", "2"]], "asks": []}));
    let Outcome { summary, .. } = &outcome;
    assert_eq!(summary["rejects"], json!({"malformed": 1, "bad_number": 1, "unknown_symbol": 1}));
    assert_eq!(summary["ignored"], json!({"ack": 1}));
}

#[test]
fn futures_have_funding_and_refuse_coin_margined_contracts() {
    let text = r#"
{"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate","E":1569888003001,"s":"BTCUSDT","p":"8291.34697815","r":"-0.00010000","T":1569916800000}}
{"stream":"btcusdt_210625@markPrice","data":{"e":"markPriceUpdate","E":1569888003001,"s":"BTCUSDT_210625","p":"8291.0","P":"1","i":"8290.50","r":"","T":0}}
{"stream":"btcusd_perp@aggTrade","data":{"e":"aggTrade","E":1616201883458,"a":41045788,"s":"BTCUSD_PERP","p":"58570.1","q":"58","f":91864326,"l":91864327,"T":1616201883304,"m":true}}
{"lastUpdateId":1,"symbol":"BTCUSD_PERP","bids":[["1","1"]],"asks":[]}
"#;
    let outcome = run_text(text, Market::Futures, Format::Raw, false);
    let picked: Vec<_> = outcome
        .lines
        .iter()
        .map(|line| {
            ["symbol", "seq", "mark_price", "index_price", "rate", "next_funding_ms"]
                .map(|key| line[key].clone())
        })
        .collect();
    assert_eq!(
        json!(picked),
        json!([
            ["BTC/USDT:USDT", null, "8291.34697815", null, "-0.0001", 1_569_916_800_000_i64],
            ["BTC/USDT:USDT-210625", null, "8291", "8290.5", null, null],
        ])
    );
    assert_eq!(outcome.summary["rejects"], json!({"unknown_symbol": 2}));
}

#[test]
fn cryptofeed_files_are_merged_by_time() {
    let url = "https://api.binance.com/api/v3/depth?symbol=PEPEUSDT&limit=1000";
    let stream = format!(
        "configuration: {{}}\nwss://h/stream <-> 1.0\n1.5: {DELTA_1}\n3.0000019: {DELTA_2}\ngarbled\n\nwss://h <- 4.0: {{\"a\":1}}\n"
    );
    let rest = format!("{url} -> 2.25: {SNAPSHOT}\nhttps://h/api/v3/time -> 2.5: {{}}\n");
    let listed = r#"https://h/api/v3/exchangeInfo -> 0.5: {"symbols":[{"symbol":"PEPEUSDT","status":"TRADING","baseAsset":"PEP","quoteAsset":"EUSDT","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.00000001"},{"filterType":"LOT_SIZE","stepSize":"1"}]}]}"#;
    let folder = TempDir::new().unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(stream.as_bytes()).unwrap();
    let files = vec![
        file(&folder, "stream.gz", gzip.finish().unwrap()),
        file(&folder, "rest.zst", zstd::encode_all(rest.as_bytes(), 1).unwrap()),
        file(&folder, "listed", listed),
    ];
    let outcome = run_files(files.clone(), Market::Spot, Format::Cf, false).unwrap();
    let picked: Vec<_> = outcome
        .lines
        .iter()
        .map(|line| {
            (
                line["kind"].as_str().unwrap(),
                line["recv_us"].as_i64().unwrap(),
                line["symbol"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        picked,
        [
            ("delta", 1_500_000, "PEP/EUSDT"),
            ("snapshot", 2_250_000, "PEP/EUSDT"),
            ("delta", 3_000_001, "PEP/EUSDT")
        ]
    );
    assert_eq!(outcome.summary["rejects"], json!({"malformed": 1}));
    assert_eq!(outcome.summary["ignored"], json!({"instruments": 1, "other_answer": 1}));
    let books = run_files(files, Market::Spot, Format::Cf, true).unwrap();
    assert_eq!((&books.lines[0]["state"], &books.lines[0]["seq"]), (&json!("live"), &json!(12)));
}

#[test]
fn one_book_of_several_waits_for_a_nameless_snapshot() {
    let generated = r#"{"stream":"btcusdt@depthSnapshot","generated":true,"data":{"lastUpdateId":5,"bids":[["1","1"]],"asks":[]}}"#;
    let text = format!("{generated}\n{DELTA_1}\n{SNAPSHOT}\n{DELTA_2}\n");
    let outcome = run_text(&text, Market::Spot, Format::Raw, true);
    let picked: Vec<_> =
        outcome.lines.iter().map(|line| json!([line["native"], line["state"], line["seq"]])).collect();
    assert_eq!(picked, [json!(["BTCUSDT", "live", 5]), json!(["PEPEUSDT", "live", 12])]);
}

#[test]
fn files_of_one_symbol_each_share_a_session() {
    let folder = TempDir::new().unwrap();
    let other = |frame: &str| frame.replace("pepeusdt", "btceur").replace("PEPEUSDT", "BTCEUR");
    let files = vec![
        file(&folder, "first", hb(&[DELTA_1, DELTA_2])),
        file(&folder, "second", hb(&[SNAPSHOT, &other(DELTA_2)])),
    ];
    let outcome = run_files(files, Market::Spot, Format::Hb, true).unwrap();
    let picked: Vec<_> =
        outcome.lines.iter().map(|line| json!([line["symbol"], line["state"], line["seq"]])).collect();
    assert_eq!(picked, [json!(["BTC/EUR", "live", 12]), json!(["PEPE/USDT", "syncing", null])]);
}

fn failure(files: Vec<PathBuf>, format: Format) -> String {
    match run_files(files, Market::Spot, format, false) {
        Err(ReplayError::Failed(error)) => format!("{error:#}"),
        Err(other) => panic!("{other:?}"),
        Ok(outcome) => panic!("{}", outcome.summary),
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = TempDir::new().unwrap();
    let good = file(&folder, "good", hb(&[DELTA_1]));
    let packed = zstd::encode_all(hb(&[DELTA_1; 50]).as_bytes(), 1).unwrap();
    let cases = [
        folder.path().join("missing"),
        folder.path().to_owned(),
        file(&folder, "cut.zst", &packed[..packed.len() - 3]),
        file(&folder, "text.gz", "1 {}\n"),
        file(&folder, "noise", [0_u8, 1, 2, b'\n', 255]),
    ];
    for path in cases {
        let said = failure(vec![good.clone(), path.clone()], Format::Hb);
        assert!(said.contains(&path.display().to_string()), "{said}");
    }
    let empty = run_files(vec![file(&folder, "empty", "")], Market::Spot, Format::Hb, true).unwrap();
    assert!(empty.lines.is_empty() && empty.summary["frames"] == 0);
}

#[test]
fn an_unknown_venue_is_a_usage_error() {
    let args = ReplayArgs { venue: "nyse".to_owned(), ..args(Vec::new(), Market::Spot, Format::Hb, false) };
    let error = replay(&args, &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, ReplayError::Usage(words) if words.contains("nyse")), "{error:?}");
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_went_away_is_told_from_other_failures() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder, "recording", hb(&[DELTA_1]));
    let Err(ReplayError::Failed(error)) =
        replay(&args(vec![path], Market::Spot, Format::Hb, false), &mut Closed)
    else {
        panic!("nothing could be written")
    };
    assert!(is_broken_pipe(&error));
    let missing = args(vec![Path::new("missing").to_owned()], Market::Spot, Format::Hb, false);
    let Err(ReplayError::Failed(error)) = replay(&missing, &mut Vec::new()) else { panic!() };
    assert!(!is_broken_pipe(&error));
}
