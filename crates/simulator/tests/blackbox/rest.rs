use fathom_market::ids::Market;
use fathom_simulator::{SeededConfig, Simulator, SimulatorConfig, Symbols};
use serde_json::Value;

use crate::client::{get, start};

fn filter<'a>(symbol: &'a Value, kind: &str) -> &'a Value {
    symbol["filters"].as_array().unwrap().iter().find(|filter| filter["filterType"] == kind).unwrap()
}

fn find<'a>(info: &'a Value, name: &str) -> &'a Value {
    let symbols = info["symbols"].as_array().unwrap();
    symbols.iter().find(|symbol| symbol["symbol"] == name).unwrap_or_else(|| panic!("{name}"))
}

#[tokio::test]
async fn exchange_info_lists_the_living_and_the_dead() {
    let config = SeededConfig {
        symbols: Symbols::Count { bases: 200, traps: true },
        max_levels: 100,
        ..SeededConfig::default()
    };
    let simulator = Simulator::start(SimulatorConfig::seeded(&config)).unwrap();
    let spot = get(&simulator.rest_url(Market::Spot).unwrap(), "/api/v3/exchangeInfo").await.json();
    assert!(spot["symbols"].as_array().unwrap().len() > 200);
    let btc = find(&spot, "BTCUSDT");
    assert_eq!((&btc["status"], &btc["baseAsset"]), (&"TRADING".into(), &"BTC".into()));
    assert_eq!(filter(btc, "PRICE_FILTER")["tickSize"], "0.01000000");
    assert_eq!(filter(btc, "LOT_SIZE")["stepSize"], "0.00001000");
    assert_eq!(filter(btc, "NOTIONAL")["minNotional"], "5.00000000");
    assert!(btc["permissionSets"][0].is_array());
    assert_eq!(find(&spot, "LUNAUSDT")["status"], "BREAK");
    let futures = get(&simulator.rest_url(Market::Futures).unwrap(), "/fapi/v1/exchangeInfo").await.json();
    assert_eq!(find(&futures, "BTCUSDT_270326")["contractType"], "CURRENT_QUARTER");
    assert_eq!(find(&futures, "XAUUSDT")["contractType"], "TRADIFI_PERPETUAL");
    assert_eq!(find(&futures, "BTCSTUSDT")["contractType"], "");
    assert_eq!(find(&futures, "1000PEPEUSDT")["baseAsset"], "1000PEPE");
    assert_eq!(filter(find(&futures, "BTCUSDT"), "MIN_NOTIONAL")["notional"], "5");
    assert_eq!(futures["rateLimits"][0]["limit"], 2400);
}

#[tokio::test]
async fn errors_have_the_venues_codes() {
    let simulator = start(100.0);
    let (spot, futures) =
        (simulator.rest_url(Market::Spot).unwrap(), simulator.rest_url(Market::Futures).unwrap());
    for (base, path, code) in [
        (&spot, "/api/v3/depth?symbol=NOPE", -1121),
        (&spot, "/api/v3/depth?symbol=btcusdt", -1121),
        (&spot, "/api/v3/depth", -1102),
        (&spot, "/api/v3/depth?symbol=", -1105),
        (&spot, "/api/v3/klines?symbol=BTCUSDT&interval=7m", -1120),
        (&spot, "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=x", -1100),
        (&futures, "/fapi/v1/depth?symbol=BTCUSDT&limit=7", -1130),
        (&futures, "/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=1&startTime=5", -1128),
    ] {
        let reply = get(base, path).await;
        assert_eq!((reply.status, reply.json()["code"].as_i64()), (400, Some(code)), "{path}");
    }
    assert_eq!(get(&spot, "/api/v1/depth?symbol=BTCUSDT").await.status, 404);
    assert_eq!(get(&spot, "/fapi/v1/ping").await.status, 404);
}

#[tokio::test]
async fn candles_page_through_history() {
    let simulator = start(100.0);
    let base = simulator.rest_url(Market::Spot).unwrap();
    let page = |query: &str| {
        let path = format!("/api/v3/klines?symbol=BTCUSDT&{query}");
        let base = base.clone();
        async move { get(&base, &path).await.json() }
    };
    let newest = page("interval=1m&limit=10").await;
    assert_eq!(newest.as_array().unwrap().len(), 10);
    let open = newest[0][0].as_i64().unwrap();
    let again = page(&format!("interval=1m&startTime={open}&limit=3")).await;
    assert_eq!((&again[0], &again[2]), (&newest[0], &newest[2]), "history does not change");
    assert_eq!(newest[0][6].as_i64().unwrap(), open + 59_999);
    let first = page("interval=1d&startTime=0&limit=2").await;
    assert!(
        first[0][0].as_i64().unwrap() > 1_500_000_000_000,
        "the first row is the first candle that exists"
    );
    let months = page("interval=1M&limit=1000").await;
    assert!(months.as_array().unwrap().len() > 60);
    assert_eq!(page("interval=1m&endTime=1000").await, serde_json::json!([]));
}

#[tokio::test]
async fn market_wide_answers_hold_every_living_symbol() {
    let simulator = start(100.0);
    let base = simulator.rest_url(Market::Futures).unwrap();
    let tickers = get(&base, "/fapi/v1/ticker/24hr").await.json();
    assert_eq!(tickers.as_array().unwrap().len(), simulator.symbols(Market::Futures).len());
    assert!(tickers[0].get("bidPrice").is_none());
    let book = get(&base, "/fapi/v1/ticker/bookTicker?symbol=BTCUSDT").await.json();
    assert!(book["time"].is_i64());
    let premium = get(&base, "/fapi/v1/premiumIndex?symbol=BTCUSDT").await.json();
    assert!(premium["nextFundingTime"].as_i64().unwrap() > premium["time"].as_i64().unwrap());
    let rates = get(&base, "/fapi/v1/fundingRate?symbol=BTCUSDT&limit=5").await.json();
    let times: Vec<i64> =
        rates.as_array().unwrap().iter().map(|row| row["fundingTime"].as_i64().unwrap()).collect();
    assert_eq!(times.len(), 5);
    assert!(times.is_sorted());
    let one = get(&base, "/fapi/v1/ticker/24hr?symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT").await.json();
    assert_eq!(one["symbol"], "币安人生USDT");
    assert_eq!(
        get(&base, "/fapi/v1/time").await.header("x-mbx-used-weight-1m").map(|used| used != "0"),
        Some(true)
    );
}
