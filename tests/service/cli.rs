//! The command line: the commands that need no service, and `fathom ctl` against a running one.

use std::{path::Path, process::Output, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Service, Simulator, TOKEN, fathom, program};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command prints that has to end well.
fn printed(folder: &Path, args: &[&str]) -> String {
    let output = fathom(folder, args);
    assert!(output.status.success(), "{args:?}: {} {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// What a command complains of that has to be refused as wrongly used.
fn refused(folder: &Path, args: &[&str]) -> String {
    let output: Output = fathom(folder, args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

#[test]
fn the_plan_of_the_default_configuration_is_the_promised_one() {
    let folder = TempDir::new().expect("folder");
    let plan = printed(folder.path(), &["plan"]);
    let head = |market: &str| {
        let start = format!("binance {market}:");
        plan.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start} not in {plan}"))
    };
    assert!(head("spot").contains("200 symbols, 9 shards,"), "{plan}");
    assert!(head("futures").contains("200 symbols, 9 shards, 13 sockets"), "{plan}");
    assert!(plan.contains("cold start: 10500 weight of book snapshots"), "{plan}");
    assert!(!folder.path().join("data").exists(), "a plan writes nothing");
}

#[test]
fn a_wrong_configuration_is_refused_and_named() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path();
    for command in ["run", "plan", "check", "migrate"] {
        let complaint = refused(path, &[command, "--set", "http.prot=1"]);
        assert!(complaint.contains("http.prot") && complaint.contains("http.port"), "{complaint}");
    }
    let complaint = refused(path, &["run", "--set", "http.port=seventy"]);
    assert!(complaint.contains("http.port") && complaint.contains("seventy"), "{complaint}");
    let complaint = refused(path, &["run", "--set", "http.host=0.0.0.0"]);
    assert!(complaint.contains("token"), "{complaint}");
    let complaint =
        refused(path, &["replay", "x", "--venue", "nowhere", "--market", "spot", "--format", "hb"]);
    assert!(complaint.contains("nowhere") && complaint.contains("binance"), "{complaint}");
    assert_eq!(fathom(path, &["nonsense"]).status.code(), Some(2));
}

#[test]
fn check_and_migrate_make_a_database_that_is_up_to_date() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path();
    let said = printed(path, &["migrate"]);
    assert!(said.contains("is up to date"), "{said}");
    assert!(path.join("data/fathom.sqlite").exists());
    let checked = printed(path, &["check", "--offline"]);
    for line in ["ok      configuration", "ok      store"] {
        assert!(checked.contains(line), "{checked}");
    }
    assert!(printed(path, &["migrate"]).contains("is up to date"));
    let output = fathom(path, &["migrate", "--set", "store.path=/proc/no/such.sqlite"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn ctl_asks_and_commands_a_running_service() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path();
    let simulator = Simulator::start(&program(), path, &["--names", "BTCUSDT,ETHUSDT", "--rate", "40"]);
    let symbols = r#"=["BTCUSDT","ETHUSDT"]"#;
    let settings = ["spot", "futures"].map(|market| format!("venues.binance.{market}.symbols{symbols}"));
    let service = Service::start(path, &simulator, &settings.each_ref().map(String::as_str));
    service.await_live(4, Duration::from_secs(60));
    let url = service.http.base().to_owned();
    let ctl = |args: &[&str]| {
        let all = [&["ctl", "--url", &url, "--token", TOKEN], args].concat();
        serde_json::from_str::<Value>(&printed(path, &all)).expect("JSON")
    };

    let health = ctl(&["health"]);
    assert_eq!(health["process"]["pid"], service.process.pid());
    let shards = ctl(&["shards"]);
    let ids: Vec<&str> = shards["shards"]
        .as_array()
        .expect("shards")
        .iter()
        .filter_map(|shard| shard["id"].as_str())
        .collect();
    assert_eq!(ids.len(), 2, "{shards:#}");
    let book = ctl(&["actors", "book/binance/spot/BTCUSDT"]);
    assert_eq!(book["generation"], 1, "{book:#}");

    let done = ctl(&["restart", ids[0], "--reason", "a test"]);
    assert_eq!((&done["state"], &done["to_generation"]), (&"done".into(), &2.into()), "{done:#}");
    assert_eq!(ctl(&["shards", ids[0]])["generation"], 2);
    let done = ctl(&["restart", "book/binance/spot/BTCUSDT", "--mode", "kill"]);
    assert_eq!(done["state"], "done", "{done:#}");

    let output = fathom(path, &["ctl", "--url", &url, "--token", "wrong", "restart", ids[0]]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("401"), "{}", text(&output.stderr));
    let output = fathom(path, &["ctl", "--url", &url, "--token", TOKEN, "restart", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("404"), "{}", text(&output.stderr));
    service.stop("TERM");
}
