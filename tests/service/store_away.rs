//! A service whose store is a server that is away: it starts, collects, says so, and keeps what it accepted over a kill.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Service, Simulator, check, eventually, program};

const WITHIN: Duration = Duration::from_secs(60);

fn start(name: &str, folder: &TempDir, simulator: &Simulator) -> Service {
    let settings = [
        r#"venues.binance.spot.symbols=["BTCUSDT","ETHUSDT"]"#,
        "venues.binance.futures.enabled=false",
        "store.kind=postgres",
        "store.url=postgres://nobody:hunter2@127.0.0.1:1/nowhere",
        "store.connect_timeout_ms=500",
    ];
    Service::start_as(name, folder.path(), simulator, &settings)
}

fn sink(service: &Service) -> Value {
    service.http.json("/api/v1/sinks/store")
}

fn spooled(service: &Service) -> u64 {
    sink(service)["spool"]["rows"].as_u64().unwrap_or_default()
}

#[test]
fn a_store_that_is_away_stops_neither_the_start_nor_the_collecting() {
    let folder = TempDir::new().expect("folder");
    let simulator =
        Simulator::start(&program(), folder.path(), &["--names", "BTCUSDT,ETHUSDT", "--rate", "40"]);
    let mut service = start("first", &folder, &simulator);
    service.await_live(2, WITHIN);
    eventually("rows wait in the spool", WITHIN, || {
        let rows = spooled(&service);
        check(rows > 100, || format!("{rows} rows"))
    });
    eventually("it says that and why its store takes nothing", WITHIN, || {
        let sink = sink(&service);
        let why = sink["why"].to_string();
        check(sink["reachable"] == false && why.contains("behind the spool"), || why.clone())
    });
    let probe = service.http.get("/readyz?scope=sink:store").expect("an answer");
    let told = probe.body.to_string();
    assert_eq!(probe.status, 503, "{told}");
    assert!(told.contains("wait in the spool"), "{told}");
    assert_eq!(service.http.get("/readyz").expect("an answer").status, 200, "it is ready for all else");
    assert!(!service.process.printed().contains("hunter2"), "no password is logged");

    let before = spooled(&service);
    service.process.signal("KILL");
    assert!(!service.process.ended(WITHIN).success());
    let service = start("second", &folder, &simulator);
    let after = spooled(&service);
    assert!(after >= before, "{after} rows are left of {before} that were accepted");
    eventually("both equations hold", WITHIN, || {
        let sink = sink(&service);
        check(sink["balanced"] == true && sink["spool"]["rows"].as_u64() > Some(before), || sink.to_string())
    });
    service.stop("TERM");
}
