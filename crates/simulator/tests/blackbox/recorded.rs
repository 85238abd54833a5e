use std::io::Read;
use std::path::PathBuf;

use fathom_market::ids::Market;
use fathom_simulator::{
    LedgerQuery, RecordedConfig, ReplayStart, Simulator, SimulatorConfig, SimulatorHandle,
};
use serde_json::Value;

use crate::client::{Book, DEADLINE, Got, Ws, eventually, get};

fn captures(files: &[&str]) -> Option<Vec<PathBuf>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/captures");
    let folder = std::env::var("FATHOM_CAPTURES").map_or_else(|_| PathBuf::from(default), PathBuf::from);
    let paths: Vec<PathBuf> = files.iter().map(|file| folder.join("binance").join(file)).collect();
    if paths.iter().all(|path| path.exists()) {
        return Some(paths);
    }
    println!("skipped: no recorded frames under {}", folder.display());
    None
}

fn texts(files: &[PathBuf]) -> Vec<String> {
    let mut lines = Vec::new();
    for file in files {
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(std::fs::File::open(file).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        lines.extend(text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()));
    }
    lines
}

fn replay(market: Market, files: &[PathBuf], speed: f64) -> SimulatorHandle {
    let config = RecordedConfig {
        speed,
        start: ReplayStart::AllSubscribed,
        ..RecordedConfig::new(market, files.to_vec())
    };
    Simulator::start(SimulatorConfig::recorded(config)).unwrap()
}

/// Plays a recording as fast as the client reads; every frame must arrive as it was, and the book must stay whole.
async fn replays(market: Market, files: &[PathBuf], symbol: &str, recorded_depth: &str, asked_depth: &str) {
    let simulator = replay(market, files, 0.0);
    let lower = symbol.to_lowercase();
    let mut ws = Ws::open(&format!("{}/stream", simulator.ws_url(market, "public").unwrap())).await;
    let names = [asked_depth, &format!("{lower}@trade"), &format!("{lower}@bookTicker")];
    ws.subscribe(&names).await;
    let rest = if market == Market::Spot { "/api/v3/depth" } else { "/fapi/v1/depth" };
    let base = simulator.rest_url(market).unwrap();
    let path = format!("{rest}?symbol={symbol}&limit=1000");
    let lines = texts(files);
    let expected: Vec<String> = lines
        .iter()
        .filter(|line| line.starts_with(r#"{"stream""#))
        .map(|line| line.replacen(recorded_depth, asked_depth, 1))
        .collect();
    let snapshot = tokio::task::spawn(async move { get(&base, &path).await });
    let (mut at, mut diffs) = (0, Vec::new());
    while at < expected.len() {
        match ws.next_within(DEADLINE).await {
            Some(Got::Json(value, text)) if value.get("stream").is_some() => {
                assert_eq!(text, expected[at], "frame {at}");
                at += 1;
                if value["stream"] == asked_depth {
                    diffs.push(value["data"].clone());
                }
            }
            Some(Got::Json(..) | Got::Ping) => {}
            _ => panic!("ended after {at} of {}", expected.len()),
        }
    }
    let snapshot: Value = snapshot.await.unwrap().json();
    let recorded: Value =
        serde_json::from_str(lines.iter().find(|line| line.contains("lastUpdateId")).unwrap()).unwrap();
    assert_eq!(snapshot["lastUpdateId"], recorded["lastUpdateId"]);
    let mut book = Book::new(&recorded, market == Market::Futures);
    for diff in &diffs {
        book.apply(diff).unwrap();
    }
    let truth = simulator.book(market, symbol, None).unwrap();
    let unpadded =
        |levels: Vec<(String, String)>| levels.into_iter().map(|(price, _)| price).collect::<Vec<_>>();
    assert_eq!((truth.id, unpadded(truth.bids)), (book.id, unpadded(book.levels(0))));
    let status = simulator.status(market).unwrap();
    assert_eq!(status.recorded.depth as usize, diffs.len());
    eventually("the replay ends", async || {
        simulator.status(market).unwrap().replay.is_some_and(|replay| replay.finished)
    })
    .await;
    let first = simulator.ledger().trades(market, &LedgerQuery { limit: 1, ..LedgerQuery::default() });
    assert_eq!(first[0].channel, "trade");
    assert_eq!(simulator.ledger().violations(), vec![]);
}

#[tokio::test]
async fn a_spot_session_over_two_files_is_served_as_recorded() {
    let Some(files) = captures(&["spot/btcusdt_20240808.hftb.gz", "spot/btcusdt_20240809.hftb.gz"]) else {
        return;
    };
    replays(Market::Spot, &files, "BTCUSDT", "btcusdt@depth@100ms", "btcusdt@depth").await;
}

#[tokio::test]
async fn a_futures_session_is_served_as_recorded() {
    let Some(files) = captures(&["usdm/ethusdt_20240808.hftb.gz"]) else { return };
    replays(Market::Futures, &files, "ETHUSDT", "ethusdt@depth@0ms", "ethusdt@depth@100ms").await;
}

#[tokio::test]
async fn the_manifest_says_what_is_in_the_files() {
    let Some(files) = captures(&["spot/btcusdt_20240808.hftb.gz"]) else { return };
    let config = RecordedConfig { start: ReplayStart::Command, ..RecordedConfig::new(Market::Spot, files) };
    let simulator = Simulator::start(SimulatorConfig::recorded(config)).unwrap();
    let manifest = simulator.manifest(Market::Spot).unwrap();
    assert_eq!((manifest.frames, manifest.snapshots, manifest.symbols.len()), (41_248, 1, 1));
    let symbol = &manifest.symbols[0];
    assert_eq!(
        (symbol.native.as_str(), symbol.price_decimals, symbol.qty_decimals),
        ("BTCUSDT", 2, 6),
        "three levels use a sixth decimal"
    );
    assert_eq!(symbol.streams["btcusdt@depth@100ms"], 3451);
    let base = simulator.rest_url(Market::Spot).unwrap();
    let info = get(&base, "/api/v3/exchangeInfo").await.json();
    assert_eq!(
        (&info["symbols"][0]["baseAsset"], &info["symbols"][0]["quoteAsset"]),
        (&"BTC".into(), &"USDT".into())
    );
    assert_eq!(info["symbols"][0]["filters"][0]["tickSize"], "0.01000000");
    assert_eq!(get(&base, "/api/v3/klines?symbol=BTCUSDT&interval=1m").await.body, "[]");
    let time = get(&base, "/api/v3/time").await.json()["serverTime"].as_i64().unwrap();
    assert_eq!(time, manifest.first_ns / 1_000_000);
    // The snapshot stands 0.27 s into the recording: held back until the replay is there.
    let waiting =
        tokio::task::spawn(async move { get(&base, "/api/v3/depth?symbol=BTCUSDT&limit=5000").await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    simulator.start_replay();
    assert_eq!(waiting.await.unwrap().status, 200);
}
