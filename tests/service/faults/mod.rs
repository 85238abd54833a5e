//! Minutes of a whole market under faults: connections cut and closed, streams that fall silent, holes in sequences, 429
//! and 418. Books that are served stay true all the while, everything that was delivered is stored once, no rule of the
//! exchange is broken, and in the end all is well again.

mod injected;
mod sampler;
mod verify;

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use self::{
    injected::{Faults, SCHEDULE},
    sampler::Sampler,
};
use crate::harness::{Service, Simulator, check, eventually, program};

/// Symbols of each market.
const SYMBOLS: usize = 100;
const DEFAULT_SECONDS: u64 = 100;
/// A cold start may have to wait for the next minute's weight.
const LIVE_WITHIN: Duration = Duration::from_secs(180);
const HEALS_WITHIN: Duration = Duration::from_secs(120);
const MINUTE_MS: i64 = 60_000;
/// What a boundary needs to be in the store: the grace, and the writer's.
const SETTLED_MS: i64 = 10_000;

/// How long faults are put in for; `FATHOM_TEST_FAULT_SECONDS` asks for more or less.
fn span() -> Duration {
    let seconds = std::env::var("FATHOM_TEST_FAULT_SECONDS").ok();
    let seconds = seconds.map_or(DEFAULT_SECONDS, |text| text.parse().expect("FATHOM_TEST_FAULT_SECONDS"));
    Duration::from_secs(seconds)
}

/// The symbols of each market, the busiest first.
type Symbols = BTreeMap<&'static str, Vec<String>>;

fn start(folder: &Path, simulator: &Simulator, symbols: &Symbols) -> Service {
    let mut settings: Vec<String> = symbols
        .iter()
        .map(|(market, list)| format!("venues.binance.{market}.symbols={}", json!(list)))
        .collect();
    // The greatest snapshots would spend the exchange's weight on the cold start alone.
    settings.push("tiers.high.snapshot_levels=1000".to_owned());
    settings.push(r#"candles.timeframes=["1m","5m"]"#.to_owned());
    Service::start(folder, simulator, &settings.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_market_under_faults_is_collected_truly_and_completely() {
    let folder = TempDir::new().expect("folder");
    let sized = ["--symbols", "100", "--rate", "300", "--levels", "1500", "--seed", "7"];
    let simulator = Simulator::start(&program(), folder.path(), &sized);
    let symbols: Symbols = ["spot", "futures"]
        .into_iter()
        .map(|market| (market, simulator.symbols(market).into_iter().take(SYMBOLS).collect()))
        .collect();
    assert!(symbols.values().all(|list| list.len() == SYMBOLS), "{symbols:?}");
    let service = start(folder.path(), &simulator, &symbols);
    let count = 2 * SYMBOLS as u64;
    service.await_live(count, LIVE_WITHIN);

    let live_ms = simulator.now_ms();
    let sampler = Sampler::start(&service.http, simulator.control(), &symbols);
    let faults = under_faults(&service, &simulator, &symbols, live_ms);
    service.await_live(count, HEALS_WITHIN);
    let sampled = sampler.end();
    assert!(sampled.compared > 50, "only {} books were compared", sampled.compared);

    let until_ms = simulator.now_ms();
    let trades = verify::trades(&service, &simulator, live_ms, until_ms);
    let klines = verify::klines(&service, &simulator, until_ms);
    let minutes = verify::category_minutes(&service, live_ms, until_ms - SETTLED_MS, SYMBOLS as i64);
    assert!(minutes >= 2, "{minutes} minutes of categories");
    faults.were_noticed(&service);
    for market in ["spot", "futures"] {
        let violations = simulator.entries("violations", market);
        assert!(violations.is_empty(), "{violations:#?}");
    }
    eprintln!(
        "{} faults in {} s: {trades} trades, {klines} candles, {minutes} minutes compared; {} books equal, {} refused as not live",
        faults.count(),
        (until_ms - live_ms) / 1000,
        sampled.compared,
        sampled.refused,
    );
    service.stop("TERM");
}

/// Puts the faults in, spread over the span, and waits until two boundaries have passed.
fn under_faults(service: &Service, simulator: &Simulator, symbols: &Symbols, live_ms: i64) -> Faults {
    let (begun, span) = (Instant::now(), span());
    let mut faults = Faults::default();
    for (percent, what) in SCHEDULE {
        let due = span * *percent / 100;
        eventually("the next fault is due", span + HEALS_WITHIN, || {
            check(begun.elapsed() >= due, || format!("{due:?}"))
        });
        what(&mut faults, service, simulator, symbols);
    }
    let second_boundary = (live_ms / MINUTE_MS + 2) * MINUTE_MS + SETTLED_MS;
    eventually("the span and two boundaries are over", span + 3 * HEALS_WITHIN, || {
        let (elapsed, now_ms) = (begun.elapsed(), simulator.now_ms());
        check(elapsed >= span && now_ms >= second_boundary, || format!("{elapsed:?}, {now_ms}"))
    });
    faults
}
