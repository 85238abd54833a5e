//! WebSocket and REST over TLS with an authority of one's own: trusted where it is configured, and only there.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Service, Simulator, check, eventually, program};

const SYMBOLS: u64 = 3;
const LIVE_WITHIN: Duration = Duration::from_secs(90);

fn settings() -> Vec<String> {
    let names = json!(["BTCUSDT", "ETHUSDT", "SOLUSDT"]);
    ["spot", "futures"].into_iter().map(|market| format!("venues.binance.{market}.symbols={names}")).collect()
}

fn start(folder: &TempDir, simulator: &Simulator) -> Service {
    let settings = settings();
    Service::start(folder.path(), simulator, &settings.iter().map(String::as_str).collect::<Vec<_>>())
}

fn simulator(folder: &TempDir) -> Simulator {
    let authority = folder.path().join("authority");
    let args = ["--symbols", "5", "--rate", "200", "--levels", "500", "--plain", "--tls", "--tls-dir"];
    let path = authority.to_str().expect("a name");
    Simulator::start(&program(), folder.path(), &args.into_iter().chain([path]).collect::<Vec<_>>())
}

#[test]
fn books_come_over_wss_and_https_and_outlive_wrong_certificates() {
    let folder = TempDir::new().expect("folder");
    let simulator = simulator(&folder);
    assert!(simulator.set.iter().any(|set| set.contains("endpoints.rest=https://")), "{:?}", simulator.set);
    assert!(simulator.set.iter().any(|set| set.contains("=wss://")), "{:?}", simulator.set);
    let service = start(&folder, &simulator);
    service.await_live(2 * SYMBOLS, LIVE_WITHIN);

    for problem in ["other_authority", "expired"] {
        let wrong = json!({"kind": "wrong_certificate", "market": "spot", "problem": problem});
        let id = simulator.fault(&wrong);
        simulator.fault(&json!({"kind": "drop", "market": "spot"}));
        eventually("the wrong certificate was shown", LIVE_WITHIN, || {
            let faults = simulator.entries("faults", "spot");
            let shown = faults.iter().find(|fault| fault["id"] == id).expect("the fault").clone();
            check(shown["effects"].as_u64() >= Some(1), || shown.to_string())
        });
        eventually("books behind it are not served as live", LIVE_WITHIN, || {
            let books = service.books();
            check(books.get("live") == Some(&SYMBOLS), || format!("{books:?}"))
        });
        let ended = simulator.control().post(&format!("/sim/faults/{id}/end"), &json!({}));
        assert_eq!(ended.expect("control answers").status, 200);
        service.await_live(2 * SYMBOLS, LIVE_WITHIN);
    }
    service.stop("TERM");
}

#[test]
fn without_the_authority_nothing_is_collected() {
    let folder = TempDir::new().expect("folder");
    let mut simulator = simulator(&folder);
    simulator.set.retain(|set| !set.contains("extra_ca"));
    let mut service = start(&folder, &simulator);
    for market in ["spot", "futures"] {
        let market = format!("market={market}");
        service.process.line(LIVE_WITHIN, |line| {
            (line.contains(&market) && line.contains("UnknownIssuer")).then_some(())
        });
    }
    assert_eq!(service.books().get("live"), None);
    service.stop("TERM");
}
