//! F1: categories, pairs, statistics and ticks, to the letter.

use std::sync::Arc;

use fathom_market::{
    ids::{InstrumentId, Market, Scope, VenueId},
    table::{CategorySnapshotRow, SymbolSnapshotRow},
};

use super::{MINUTE, T0, World, dec, minute};

const VALUES: &str = r#""bidVolume":1234567890123456.789012345678,"askVolume":0.00000005,"avgPrice":61837.63,"symbolCount":7,"memberCount":10,"coverage":{"bid":6,"ask":5},"staleCount":2,"unpricedCount":1,"bidVolumeBase":1.5,"askVolumeBase":2.000000000001"#;

fn times(body: &serde_json::Value) -> Vec<i64> {
    body["data"].as_array().expect("data").iter().map(|row| row["time"].as_i64().expect("time")).collect()
}

/// The body without its last member, the time of the answer.
fn without_timestamp(text: &str) -> &str {
    text.rsplit_once(",\"timestamp\":").expect("a timestamp").0
}

#[actix_web::test]
async fn refusals_are_codes_and_come_in_their_order() {
    let world = World::new().await;
    let categories =
        r#"{"error":"INVALID_CATEGORY","validCategories":["TOTAL","TOTAL1","TOTAL2","TOTAL3","OTHERS"]}"#;
    let depths = r#"{"error":"INVALID_DEPTH","validDepths":[1.5,3,5,8,15,30]}"#;
    for (path, body) in [
        ("/api/categories/NOPE", categories),
        ("/api/categories/NOPE?depth=nonsense&marketType=nonsense", categories),
        ("/api/categories/COIN?depth=5", categories),
        ("/api/categories/TOTAL", r#"{"error":"MISSING_DEPTH"}"#),
        ("/api/categories/TOTAL?depth=&limit=x", r#"{"error":"MISSING_DEPTH"}"#),
        ("/api/categories/all", r#"{"error":"MISSING_DEPTH"}"#),
        ("/api/categories/all?marketType=nonsense", r#"{"error":"MISSING_DEPTH"}"#),
        ("/api/snapshots/BTCUSDT", r#"{"error":"MISSING_DEPTH"}"#),
        ("/api/categories/TOTAL?depth=4", depths),
        ("/api/categories/all?depth=5.0001", depths),
        ("/api/categories/TOTAL?depth=five&marketType=x", depths),
        (
            "/api/categories/TOTAL?depth=5&marketType=margin",
            r#"{"error":"INVALID_MARKET_TYPE","validMarketTypes":["SPOT","FUTURES"]}"#,
        ),
        (
            "/api/categories/all?depth=5&exchange=nowhere",
            r#"{"error":"INVALID_EXCHANGE","validExchanges":["binance","ALL"]}"#,
        ),
        (
            "/api/snapshots/BTCUSDT?depth=5&exchange=ALL",
            r#"{"error":"INVALID_EXCHANGE","validExchanges":["binance"]}"#,
        ),
    ] {
        let reply = world.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (400, body), "{path}");
        assert_eq!(reply.header("content-type"), "application/json");
    }
}

#[actix_web::test]
async fn a_bad_parameter_is_named() {
    let world = World::new().await;
    for (parameter, query) in [
        ("limit", "limit=0"),
        ("limit", "limit=10001"),
        ("limit", "limit=ten"),
        ("from", "from=-1"),
        ("from", "from=yesterday"),
        ("to", "to=1e3"),
        ("from", "from=20&to=10"),
        ("live", "live=perhaps"),
    ] {
        let reply = world.get(&format!("/api/categories/TOTAL?depth=5&{query}")).await;
        assert_eq!(reply.refusal(), (400, "INVALID_PARAMETER".to_owned()), "{query}");
        assert_eq!(reply.json()["parameter"], parameter, "{query}");
    }
    let reply = world.get("/api/ticks/BTCUSDT?last=0").await;
    assert_eq!((reply.refusal().0, reply.json()["parameter"].as_str()), (400, Some("last")));
}

#[actix_web::test]
async fn a_series_is_exact_ascending_and_the_newest_without_from() {
    let world = World::new().await;
    world.write((0..5).map(|n| minute(T0 + n * MINUTE)).collect()).await;

    let reply = world.get("/api/categories/total?depth=5.0&limit=1&marketType=spot").await;
    let time = (T0 + 4 * MINUTE) / 1000;
    let expected = format!(
        r#"{{"category":"TOTAL","marketType":"SPOT","exchange":"binance","depth":5,"data":[{{"time":{time},{VALUES}}}],"count":1,"coverage":{{"complete":true,"gaps":0,"lostMs":0}}"#
    );
    assert_eq!(without_timestamp(&reply.text), expected);
    let now_ms = reply.json()["timestamp"].as_i64().expect("timestamp");
    assert!((world.state.now_ms() - now_ms).abs() < 60_000, "{now_ms}");

    let seconds = |n: i64| (T0 + n * MINUTE) / 1000;
    let body = world.json("/api/categories/TOTAL?depth=5&limit=2").await;
    assert_eq!(times(&body), [seconds(3), seconds(4)]);
    let body = world.json("/api/categories/TOTAL?depth=5").await;
    assert_eq!((times(&body).len(), body["count"].as_i64()), (5, Some(5)));
    let (from, to) = (T0 + MINUTE, T0 + 3 * MINUTE);
    let body = world.json(&format!("/api/categories/TOTAL?depth=5&from={from}&limit=2")).await;
    assert_eq!(times(&body), [seconds(1), seconds(2)]);
    let body = world.json(&format!("/api/categories/TOTAL?depth=5&from={from}&to={to}")).await;
    assert_eq!(times(&body), [seconds(1), seconds(2), seconds(3)]);
    let body = world.json(&format!("/api/categories/TOTAL?depth=5&to={from}")).await;
    assert_eq!(times(&body), [seconds(0), seconds(1)]);
}

/// Every time of a series, page by page.
async fn paged(world: &World, path: &str) -> Vec<Vec<i64>> {
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let body = world.json(&format!("{path}{after}")).await;
        pages.push(times(&body));
        let Some(next) = body["next"].as_str() else { return pages };
        after = format!("&after={next}");
    }
}

#[actix_web::test]
async fn pages_go_on_where_the_last_one_ended_in_both_directions() {
    let world = World::new().await;
    world.write((0..5).map(|n| minute(T0 + n * MINUTE)).collect()).await;
    let minutes = |all: &[&[i64]]| -> Vec<Vec<i64>> {
        all.iter().map(|page| page.iter().map(|n| (T0 + n * MINUTE) / 1000).collect()).collect()
    };
    let path = "/api/categories/TOTAL?depth=5&limit=2";
    assert_eq!(paged(&world, path).await, minutes(&[&[3, 4], &[1, 2], &[0]]));
    let (from, to) = (T0 + MINUTE, T0 + 4 * MINUTE);
    let bounded = format!("{path}&from={from}&to={to}");
    assert_eq!(paged(&world, &bounded).await, minutes(&[&[1, 2], &[3, 4], &[]]));
    // A row that comes in between shifts no page.
    let first = world.json(path).await;
    world.write(vec![minute(T0 + 9 * MINUTE)]).await;
    let next = first["next"].as_str().expect("more");
    assert_eq!(times(&world.json(&format!("{path}&after={next}")).await), minutes(&[&[1, 2]])[0]);
    for bad in [format!("{path}&after=nonsense"), format!("{bounded}&after={next}")] {
        let reply = world.get(&bad).await;
        assert_eq!((reply.refusal().0, reply.json()["parameter"].as_str()), (400, Some("after")), "{bad}");
    }
}

#[actix_web::test]
async fn statistics_are_paged_by_name() {
    let world = World::new().await;
    let named = |category: &str, market: &str| CategorySnapshotRow {
        category: category.into(),
        market_type: market.into(),
        ..minute(T0)
    };
    let all = [("A", "SPOT"), ("A", "FUTURES"), ("B", "SPOT"), ("B", "FUTURES"), ("C", "SPOT")];
    world.write(all.iter().map(|(category, market)| named(category, market)).collect()).await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let body = world.json(&format!("/api/stats/categories?limit=2{after}")).await;
        let page = body["stats"].as_array().expect("stats");
        assert!(!page.is_empty() && page.len() <= 2);
        let name = |row: &serde_json::Value, key: &str| row[key].as_str().expect("text").to_owned();
        seen.extend(page.iter().map(|row| (name(row, "category"), name(row, "marketType"))));
        let Some(next) = body["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let wanted: Vec<_> = all.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect();
    assert_eq!(seen, wanted);
    assert_eq!(world.get("/api/stats/categories?after=x").await.refusal().0, 400);
}

#[actix_web::test]
async fn hours_and_days_of_a_category_are_exact() {
    use fathom_storage::Store as _;
    let world = World::new().await;
    const HOUR: i64 = 3_600_000;
    let start = T0 - T0 % 86_400_000;
    let row = |hour: i64, minutes: i64, usd: &str| CategorySnapshotRow {
        total_bid_volume_usd: dec(usd),
        ..minute(start + hour * HOUR + minutes * MINUTE)
    };
    world.write(vec![row(0, 0, "1"), row(0, 1, "2"), row(1, 0, "10"), row(2, 0, "11")]).await;
    while world.store.roll_up(100).await.expect("rolled up") > 0 {}
    let path = "/api/v1/categories/total/rollup?depth=5&width=1h";
    let body = world.json(&format!("{path}&from={start}&limit=2")).await;
    let bid = serde_json::json!({"avg": "1.5", "max": "2", "min": "1"});
    assert_eq!((&body["data"][0]["bidVolume"], &body["data"][0]["count"]), (&bid, &2.into()), "{body}");
    let next = body["next"].as_str().expect("more");
    let rest = world.json(&format!("{path}&from={start}&limit=2&after={next}")).await;
    assert_eq!(
        (rest["count"].as_u64(), rest["data"][0]["bucket"].as_i64()),
        (Some(1), Some(start + 2 * HOUR))
    );
    let day = world.json("/api/v1/categories/TOTAL/rollup?depth=5&width=1d").await;
    assert_eq!((day["data"][0]["bidVolume"]["avg"].as_str(), day["width"].as_str()), (Some("6"), Some("1d")));
    assert_eq!(world.get("/api/v1/categories/TOTAL/rollup?depth=5&width=1w").await.refusal().0, 400);
    assert_eq!(world.get("/api/v1/categories/NOPE/rollup?depth=5").await.refusal().1, "INVALID_CATEGORY");
}

#[actix_web::test]
async fn market_depth_category_and_exchange_choose_the_series() {
    let world = World::new().await;
    let base = minute(T0);
    world
        .write(vec![
            base.clone(),
            CategorySnapshotRow { scope: "ALL".into(), symbol_count: 70, ..base.clone() },
            CategorySnapshotRow { market_type: "FUTURES".into(), symbol_count: 71, ..base.clone() },
            CategorySnapshotRow { depth: dec("1.5"), symbol_count: 72, avg_price: None, ..base.clone() },
            CategorySnapshotRow { category: "OTHERS".into(), symbol_count: 73, ..base.clone() },
        ])
        .await;
    for (path, count) in [
        ("TOTAL?depth=5", 7),
        ("TOTAL?depth=5&exchange=Binance", 7),
        ("TOTAL?depth=5&exchange=all", 70),
        ("TOTAL?depth=5&marketType=Futures", 71),
        ("TOTAL?depth=1.5", 72),
        ("others?depth=5", 73),
    ] {
        let body = world.json(&format!("/api/categories/{path}")).await;
        assert_eq!(body["data"][0]["symbolCount"], count, "{path}");
    }
    let body = world.json("/api/categories/TOTAL?depth=1.5").await;
    assert!(body["data"][0]["avgPrice"].is_null());
    assert!(world.get("/api/categories/TOTAL?depth=1.50").await.text.contains(r#""depth":1.5,"#));
    let body = world.json("/api/categories/TOTAL1?depth=5").await;
    assert_eq!((body["count"].as_i64(), body["data"].as_array().map(Vec::len)), (Some(0), Some(0)));
}

#[actix_web::test]
async fn all_leaves_out_what_has_no_data_and_prefers_what_is_published() {
    let world = World::new().await;
    let others = |ms| CategorySnapshotRow { category: "OTHERS".into(), ..minute(ms) };
    let gone = CategorySnapshotRow { category: "GONE".into(), ..minute(T0) };
    world.write(vec![minute(T0), minute(T0 + MINUTE), others(T0), gone]).await;

    let reply = world.get("/api/categories/ALL?depth=5").await;
    let expected = format!(
        r#"{{"marketType":"SPOT","exchange":"binance","depth":5,"categories":{{"TOTAL":{{"timestamp":{},{VALUES}}},"OTHERS":{{"timestamp":{T0},{VALUES}}}}}"#,
        T0 + MINUTE
    );
    assert_eq!(without_timestamp(&reply.text), expected);
    assert_eq!(
        world.json("/api/categories/all?depth=5&marketType=FUTURES").await["categories"],
        serde_json::json!({})
    );

    let newer = vec![
        CategorySnapshotRow { depth: dec("1.5"), symbol_count: 1, ..minute(T0 + 2 * MINUTE) },
        CategorySnapshotRow { symbol_count: 99, ..minute(T0 + 2 * MINUTE) },
    ];
    let scope = Scope::Venue(VenueId::new("binance"));
    world.state.system.directory().put_latest(scope, Market::Spot, "TOTAL", Arc::new(newer));
    let body = world.json("/api/categories/all?depth=5").await;
    assert_eq!(body["categories"]["TOTAL"]["symbolCount"], 99);
    assert_eq!(body["categories"]["TOTAL"]["timestamp"], T0 + 2 * MINUTE);
    assert_eq!(body["categories"]["OTHERS"]["timestamp"], T0);
}

#[actix_web::test]
async fn what_is_published_is_answered_while_the_store_is_away_and_all_else_is_an_internal_error() {
    let world = World::new().await;
    let scope = Scope::Venue(VenueId::new("binance"));
    world.state.system.directory().put_latest(scope, Market::Spot, "TOTAL", Arc::new(vec![minute(T0)]));
    fathom_storage::Store::close(&*world.store).await;
    let body = world.json("/api/categories/all?depth=5").await;
    assert_eq!(body["categories"]["TOTAL"]["symbolCount"], 7);
    for path in [
        "/api/categories/TOTAL?depth=5",
        "/api/categories/all?depth=8",
        "/api/stats/categories",
        "/api/snapshots/BTCUSDT?depth=5",
    ] {
        let reply = world.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.text.as_str()),
            (500, r#"{"error":"INTERNAL_ERROR"}"#),
            "{path}"
        );
    }
}

#[actix_web::test]
async fn live_values_are_marked() {
    let world = World::new().await;
    world.write(vec![minute(T0)]).await;
    let body = world.json("/api/categories/TOTAL?depth=5&live=true").await;
    assert_eq!((body["live"].as_bool(), body["count"].as_i64()), (Some(true), Some(0)));
    let body = world.json("/api/categories/all?depth=5&live=1").await;
    assert_eq!((body["live"].as_bool(), &body["categories"]), (Some(true), &serde_json::json!({})));
    assert!(world.json("/api/categories/all?depth=5&live=false").await.get("live").is_none());
}

#[actix_web::test]
async fn statistics_have_their_old_names() {
    let world = World::new().await;
    world.write(vec![minute(T0), minute(T0 + MINUTE)]).await;
    let reply = world.get("/api/stats/categories").await;
    let expected = format!(
        r#"{{"stats":[{{"category":"TOTAL","marketType":"SPOT","_count":2,"_min":{{"timestamp":{T0}}},"_max":{{"timestamp":{}}}}}]"#,
        T0 + MINUTE
    );
    assert_eq!(without_timestamp(&reply.text), expected);
    assert_eq!(world.json("/api/stats/categories?exchange=ALL").await["stats"], serde_json::json!([]));
}

#[actix_web::test]
async fn a_pair_is_answered_in_the_form_of_a_category() {
    let world = World::new().await;
    let row = SymbolSnapshotRow {
        instrument_id: InstrumentId::derive(VenueId::new("binance"), Market::Futures, "BTCUSDT").0,
        depth: dec("5"),
        timestamp_ms: T0,
        bid_volume: dec("12.345"),
        ask_volume: dec("6.7"),
        bid_volume_usd: Some(dec("100000.000000000001")),
        ask_volume_usd: None,
        mid_price: Some(dec("61837.635")),
        best_bid: Some(dec("61837.63")),
        best_ask: Some(dec("61837.64")),
        state: "live".into(),
        bid_covered: true,
        ask_covered: false,
        last_update_id: 42,
        created_us: 0,
    };
    world.write(vec![row]).await;
    let expected = format!(
        r#"{{"symbol":"BTCUSDT","category":"COIN","marketType":"FUTURES","exchange":"binance","depth":5,"data":[{{"time":{},"bidVolume":100000.000000000001,"askVolume":null,"avgPrice":61837.635,"symbolCount":0,"memberCount":1,"coverage":{{"bid":1,"ask":0}},"staleCount":0,"unpricedCount":1,"bidVolumeBase":12.345,"askVolumeBase":6.7,"bestBid":61837.63,"bestAsk":61837.64,"state":"live","lastUpdateId":42}}],"count":1,"coverage":{{"complete":true,"gaps":0,"lostMs":0}}"#,
        T0 / 1000
    );
    for symbol in ["btcusdt", "BTC%2FUSDT:USDT", "BTC%2Fusdt"] {
        let reply = world.get(&format!("/api/snapshots/{symbol}?depth=5&marketType=FUTURES")).await;
        assert_eq!(without_timestamp(&reply.text), expected, "{symbol}");
    }
    assert_eq!(world.json("/api/snapshots/BTCUSDT?depth=5").await["count"], 0);
}

#[actix_web::test]
async fn ticks_of_an_unknown_symbol_are_an_empty_list() {
    let world = World::new().await;
    let reply = world.get("/api/ticks/nosuch").await;
    let expected = r#"{"symbol":"NOSUCH","marketType":"SPOT","exchange":"binance","ticks":[],"count":0"#;
    assert_eq!((reply.status.as_u16(), without_timestamp(&reply.text)), (200, expected));
    let reply = world.get("/api/ticks/nosuch?marketType=option").await;
    assert_eq!(reply.refusal(), (400, "INVALID_MARKET_TYPE".to_owned()));
}
