//! `fathom replay` on recorded traffic, against books and counts made here from the same files without any part of
//! the program: `serde_json::Value`, `BTreeMap`, and the venue's published rule.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation fails the test"
)]

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rust_decimal::Decimal;
use serde_json::{Value, json};

/// The recordings; `None`, said aloud, where there are none.
fn captures() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/captures");
    let folder =
        env::var("FATHOM_CAPTURES").map_or_else(|_| PathBuf::from(default), PathBuf::from).join("binance");
    if folder.is_dir() {
        return Some(folder);
    }
    // Not `eprintln!`, which the test harness keeps to itself.
    let _ = writeln!(io::stderr(), "skipped: no recordings in {}; set FATHOM_CAPTURES", folder.display());
    None
}

fn command(folder: &Path, files: &[&str], market: &str, format: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fathom"));
    command.current_dir(folder).arg("replay").args(files);
    command.args(["--venue", "binance", "--market", market, "--format", format]).args(more);
    command
}

struct Replayed {
    lines: Vec<Value>,
    summary: Value,
}

fn replayed(folder: &Path, files: &[&str], market: &str, format: &str, more: &[&str]) -> Replayed {
    let Output { status, stdout, stderr } = command(folder, files, market, format, more).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let lines = stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    Replayed { lines, summary: serde_json::from_str(&said).unwrap() }
}

fn text(path: &Path) -> String {
    let mut text = String::new();
    let file = BufReader::new(File::open(path).unwrap());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => flate2::bufread::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap(),
        _ => zstd::stream::read::Decoder::with_buffer(file).unwrap().read_to_string(&mut text).unwrap(),
    };
    text
}

type Side = BTreeMap<Decimal, Decimal>;

/// A book by the venue's rule; updates before the snapshot wait.
#[derive(Default)]
struct Book {
    waiting: Vec<Value>,
    seq: Option<u64>,
    bids: Side,
    asks: Side,
    applied: u64,
}

fn set(side: &mut Side, levels: &Value) {
    for level in levels.as_array().unwrap() {
        let number = |at: usize| level[at].as_str().unwrap().parse::<Decimal>().unwrap();
        if number(1).is_zero() {
            side.remove(&number(0));
        } else {
            side.insert(number(0), number(1));
        }
    }
}

impl Book {
    fn snapshot(&mut self, body: &Value) {
        set(&mut self.bids, &body["bids"]);
        set(&mut self.asks, &body["asks"]);
        self.seq = body["lastUpdateId"].as_u64();
        for update in std::mem::take(&mut self.waiting) {
            self.update(update);
        }
    }

    fn update(&mut self, update: Value) {
        let Some(seq) = self.seq else { return self.waiting.push(update) };
        let (first, last) = (update["U"].as_u64().unwrap(), update["u"].as_u64().unwrap());
        let (stale, joins) = match update["pu"].as_u64() {
            Some(pu) if self.applied == 0 => (last < seq, pu <= seq || first <= seq),
            Some(pu) => (false, pu == seq),
            None => (last <= seq, first <= seq + 1),
        };
        if stale {
            return;
        }
        assert!(joins, "a gap at {seq}: {update}");
        set(&mut self.bids, &update["b"]);
        set(&mut self.asks, &update["a"]);
        (self.seq, self.applied) = (Some(last), self.applied + 1);
    }

    fn sides(&self) -> (Value, Value) {
        let level = |(price, qty): (&Decimal, &Decimal)| {
            json!([price.normalize().to_string(), qty.normalize().to_string()])
        };
        (self.bids.iter().rev().map(level).collect(), self.asks.iter().map(level).collect())
    }

    fn assert_equals(&self, line: &Value) {
        let (bids, asks) = self.sides();
        assert_eq!((&line["state"], line["seq"].as_u64()), (&json!("live"), self.seq), "{}", line["native"]);
        assert!(bids.as_array().unwrap().len() > 100);
        assert_eq!((&line["bids"], &line["asks"]), (&bids, &asks), "{}", line["native"]);
    }
}

fn hftbacktest(folder: &Path, files: &[&str]) -> Book {
    let mut book = Book::default();
    for name in files {
        for line in text(&folder.join(name)).lines() {
            let body: Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
            if body["data"]["e"] == "depthUpdate" {
                book.update(body["data"].clone());
            } else if body.get("stream").is_none() {
                book.snapshot(&body);
            }
        }
    }
    book
}

/// Quotes, trades, books, updates applied, and updates that a snapshot contained.
fn counts(summary: &Value) -> [u64; 5] {
    let of = |value: &Value| value.as_u64().unwrap();
    let (counts, books) = (&summary["counts"], &summary["books"]);
    [
        of(&counts["quote"]),
        of(&counts["trade"]),
        of(&counts["book"]),
        of(&books["applied"]),
        of(&books["dropped"]) + of(&books["duplicates"]),
    ]
}

#[test]
fn spot_books_go_on_over_a_days_end() {
    let Some(folder) = captures() else { return };
    let files = ["spot/btcusdt_20240808.hftb.gz", "spot/btcusdt_20240809.hftb.gz"];
    for (files, expected) in [
        (&files[..1], [28_040, 9757, 3452, 3449, 2]),
        (&files[..], [28_040 + 45_134, 9757 + 10_147, 3452 + 3044, 3449 + 3044, 2]),
    ] {
        let found = replayed(&folder, files, "spot", "hb", &["--books"]);
        assert_eq!(counts(&found.summary), expected);
        assert_eq!((&found.summary["gaps"], &found.summary["rejects"]), (&json!(0), &json!({})));
        assert_eq!((found.lines.len(), &found.lines[0]["symbol"]), (1, &json!("BTC/USDT")));
        let book = hftbacktest(&folder, files);
        assert_eq!(book.applied, expected[3]);
        book.assert_equals(&found.lines[0]);
    }
    let alone = replayed(&folder, &files[1..], "spot", "hb", &["--books"]);
    assert_eq!((&alone.lines[0]["state"], &alone.lines[0]["bids"]), (&json!("syncing"), &json!([])));
    assert_eq!(alone.summary["gaps"], 0);
}

#[test]
fn futures_books_follow_their_predecessors() {
    let Some(folder) = captures() else { return };
    let files = ["usdm/ethusdt_20240808.hftb.gz"];
    let found = replayed(&folder, &files, "futures", "hb", &["--books"]);
    assert_eq!(counts(&found.summary), [53_992, 14_076, 6587, 6581, 5]);
    assert_eq!((&found.summary["gaps"], &found.lines[0]["symbol"]), (&json!(0), &json!("ETH/USDT:USDT")));
    hftbacktest(&folder, &files).assert_equals(&found.lines[0]);
}

#[test]
fn snapshots_of_several_coins_arrive_among_their_updates() {
    let Some(folder) = captures() else { return };
    for (market, recording, expected) in [
        ("spot", "spot/alts_20211012", [84, 2, 181, 172, 5]),
        ("futures", "usdm/alts_20210722", [613, 91, 768, 752, 12]),
    ] {
        let files = ["stream.ws.zst", "depth_snapshots.http.zst", "exchangeInfo.http.zst"];
        let found = replayed(&folder.join(recording), &files, market, "cf", &["--books"]);
        assert_eq!(counts(&found.summary), expected, "{recording}");
        assert_eq!((&found.summary["gaps"], &found.summary["rejects"]), (&json!(0), &json!({})));
        let mut books: BTreeMap<String, Book> = BTreeMap::new();
        for line in text(&folder.join(recording).join(files[0])).lines() {
            let frame =
                line.split_once(": ").and_then(|(_, frame)| serde_json::from_str::<Value>(frame).ok());
            if let Some(frame) = frame.filter(|frame| frame["data"]["e"] == "depthUpdate") {
                let symbol = frame["data"]["s"].as_str().unwrap().to_owned();
                books.entry(symbol).or_default().update(frame["data"].clone());
            }
        }
        for line in text(&folder.join(recording).join(files[1])).lines() {
            let Some((url, answer)) = line.split_once(" -> ") else { continue };
            let symbol = url.split("symbol=").nth(1).unwrap().split('&').next().unwrap();
            let body = serde_json::from_str(answer.split_once(": ").unwrap().1).unwrap();
            books.get_mut(symbol).unwrap().snapshot(&body);
        }
        assert_eq!(found.lines.len(), books.len());
        for line in &found.lines {
            books[line["native"].as_str().unwrap()].assert_equals(line);
        }
    }
}

fn exact(text: &Value) -> Value {
    json!(text.as_str().unwrap().parse::<Decimal>().unwrap().normalize().to_string())
}

fn exact_levels(levels: &Value) -> Value {
    levels.as_array().unwrap().iter().map(|level| json!([exact(&level[0]), exact(&level[1])])).collect()
}

/// What a recorded frame ought to be printed as, but for names and receive time.
fn expected(frame: &Value) -> Value {
    let data = frame.get("data").unwrap_or(frame);
    let time = |key: &str| data[key].as_i64().map(|ms| ms * 1000);
    match data["e"].as_str() {
        Some("depthUpdate") => {
            let mut line = json!({"type": "book", "kind": "delta", "seq": data["u"], "first_id": data["U"],
                "last_id": data["u"], "event_us": time("T").or(time("E")),
                "bids": exact_levels(&data["b"]), "asks": exact_levels(&data["a"])});
            if !data["pu"].is_null() {
                line["prev_id"] = data["pu"].clone();
            }
            line
        }
        Some("trade") => json!({"type": "trade", "kind": "trade", "seq": data["t"], "id": data["t"],
            "event_us": time("T"), "price": exact(&data["p"]), "qty": exact(&data["q"]),
            "side": if data["m"] == true { "sell" } else { "buy" }}),
        None if data.get("lastUpdateId").is_some() => json!({"type": "book", "kind": "snapshot",
            "seq": data["lastUpdateId"], "event_us": time("T"),
            "bids": exact_levels(&data["bids"]), "asks": exact_levels(&data["asks"])}),
        _ => json!({"type": "quote", "seq": data["u"], "event_us": time("T"), "bid": exact(&data["b"]),
            "bid_qty": exact(&data["B"]), "ask": exact(&data["a"]), "ask_qty": exact(&data["A"])}),
    }
}

/// Fills of the insurance fund are no market prices and give no event.
fn is_market_trade(frame: &Value) -> bool {
    let origin = &frame["data"]["X"];
    origin.is_null() || origin == "MARKET"
}

#[test]
fn every_event_says_what_its_frame_said() {
    let Some(folder) = captures() else { return };
    for (market, name, symbol, native) in [
        ("spot", "spot/btcusdt_20240808.hftb.gz", "BTC/USDT", "BTCUSDT"),
        ("futures", "usdm/ethusdt_20240808.hftb.gz", "ETH/USDT:USDT", "ETHUSDT"),
    ] {
        let recorded = text(&folder.join(name));
        let frames = recorded.lines().map(|line| line.split_once(' ').unwrap());
        let frames =
            frames.map(|(at, frame)| (at.parse::<i64>().unwrap(), serde_json::from_str(frame).unwrap()));
        let frames: Vec<(i64, Value)> = frames.filter(|(_, frame)| is_market_trade(frame)).collect();
        let mut child = command(&folder, &[name], market, "hb", &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for (recv_ns, frame) in &frames {
            let mut wanted = expected(frame);
            let names = json!({"venue": "binance", "market": market, "symbol": symbol, "native": native,
                "recv_us": recv_ns / 1000});
            wanted.as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(line, wanted, "{frame}");
        }
        assert!(lines.next().is_none() && child.wait().unwrap().success());
    }
}

#[test]
fn single_frames_of_every_kind_are_replayed() {
    let Some(folder) = captures() else { return };
    let spot = replayed(&folder, &["spot/singles_tardis.jsonl"], "spot", "raw", &[]);
    assert_eq!(
        spot.summary["counts"],
        json!({"quote": 1, "trade": 2, "book": 6, "candle": 0, "ticker": 1, "funding": 0})
    );
    assert_eq!(spot.lines[3]["symbol"], "DOGE/BNB");
    let usdm = replayed(&folder, &["usdm/singles_tardis.jsonl"], "futures", "raw", &[]);
    assert_eq!(
        usdm.summary["counts"],
        json!({"quote": 1, "trade": 2, "book": 3, "candle": 0, "ticker": 2, "funding": 3})
    );
    // One aggregate of 2019 has no id.
    assert_eq!(usdm.summary["rejects"], json!({"missing_field": 1}));
    let dated = usdm.lines.iter().find(|line| line["native"] == "BTCBUSD_210129").unwrap();
    assert_eq!((&dated["symbol"], &dated["rate"]), (&json!("BTC/BUSD:BUSD-210129"), &Value::Null));
    for market in ["spot", "futures"] {
        let mixed = replayed(&folder, &["singles_parser_tests.jsonl"], market, "raw", &[]);
        assert!(mixed.lines.iter().all(|line| !line["native"].as_str().unwrap().contains("USD_")));
        assert!(mixed.summary["rejects"]["unknown_symbol"].as_u64().unwrap() > 8);
    }
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing = command(folder, &["no/such/file"], "spot", "hb", &[]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("no/such/file"));
    let venue = command(folder, &["Cargo.toml"], "spot", "hb", &["--books"])
        .args(["--venue", "nyse"])
        .output()
        .unwrap();
    assert_eq!(venue.status.code(), Some(2));
    let market = command(folder, &["Cargo.toml"], "options", "hb", &[]).output().unwrap();
    assert_eq!(market.status.code(), Some(2));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let Some(folder) = captures() else { return };
    let mut command = command(&folder, &["spot/btcusdt_20240808.hftb.gz"], "spot", "hb", &[]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
