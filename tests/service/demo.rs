//! `fathom demo`: one command, everything but the exchanges real.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Service, check, eventually, program};

const CATEGORIES: [&str; 5] = ["TOTAL", "TOTAL1", "TOTAL2", "TOTAL3", "OTHERS"];
/// A boundary is at most a minute away; the rest is grace for a loaded machine.
const NEXT_BOUNDARY: Duration = Duration::from_secs(90);

/// The categories of a market by name, when all are there.
fn categories(service: &Service, market: &str) -> Result<BTreeMap<String, Value>, String> {
    let answer = service.http.json(&format!("/api/categories/all?depth=5&marketType={market}"));
    let found: BTreeMap<String, Value> =
        serde_json::from_value(answer["categories"].clone()).expect("categories by name");
    check(CATEGORIES.iter().all(|name| found.contains_key(*name)), || format!("{answer:.300}"))?;
    Ok(found)
}

fn boundary(categories: &BTreeMap<String, Value>) -> i64 {
    let times: Vec<i64> = categories.values().filter_map(|values| values["timestamp"].as_i64()).collect();
    assert!(times.iter().all(|time| *time == times[0] && time % 60_000 == 0), "{times:?}");
    times[0]
}

#[test]
fn the_demo_measures_every_category_minute_by_minute_and_ends_well() {
    let folder = TempDir::new().expect("folder");
    let data = folder.path().join("demo");
    let data = data.to_str().expect("a name");
    let args = ["demo", "--port", "0", "--data-dir", data, "--symbols", "30", "--rate", "200"];
    let service = Service::run(&program(), "demo", folder.path(), &args.map(str::to_owned), "demo");

    let later_than = |market: &str, before: i64| {
        eventually(&format!("a minute of {market} after {before}"), NEXT_BOUNDARY, || {
            let found = categories(&service, market)?;
            check(boundary(&found) > before, || format!("still {}", boundary(&found)))?;
            Ok(found)
        })
    };
    let first = later_than("SPOT", 0);
    let second = later_than("SPOT", boundary(&first));
    assert_eq!(boundary(&second), boundary(&first) + 60_000, "a minute was left out");
    let futures = later_than("FUTURES", boundary(&first));
    for (market, found) in [("SPOT", &second), ("FUTURES", &futures)] {
        for name in CATEGORIES {
            is_measured(market, name, &found[name]);
        }
        let members = |name: &str| found[name]["memberCount"].as_i64().expect("members");
        assert_eq!(members("TOTAL1"), members("TOTAL") - 1, "{market} without BTC");
        assert_eq!(members("TOTAL3"), members("TOTAL") - 3, "{market} without BTC, ETH, SOL");
    }
    service.stop("INT");
}

fn is_measured(market: &str, name: &str, values: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{market} {name}: {values:#}"));
    let count = number(&values["symbolCount"]);
    let stale = number(&values["staleCount"]);
    assert!(count > 0.0, "{market} {name}: {values:#}");
    assert!(count + stale <= number(&values["memberCount"]), "{market} {name}: {values:#}");
    for side in ["bid", "ask"] {
        assert!(number(&values["coverage"][side]) <= count, "{market} {name}: {values:#}");
        assert!(number(&values[format!("{side}Volume")]) > 0.0, "{market} {name}: {values:#}");
    }
    assert!(number(&values["avgPrice"]) > 0.0, "{market} {name}: {values:#}");
}
