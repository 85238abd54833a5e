//! The gap ledger, the coverage of streams, and what range answers say of theirs.

use fathom_actors::{directory::MarketEntry, instruments::row};
use fathom_market::{
    gap::{Gap, GapCause, GapStatus},
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentKind, InstrumentStatus, InstrumentTable},
    table::{CandleRow, TradeRow},
};
use fathom_storage::Store as _;
use fathom_venues::planner::MarketPlan;
use serde_json::{Value, json};

use super::{Arc, MINUTE, T0, World, dec, minute};

const BINANCE: VenueId = VenueId::new("binance");

fn btc() -> Instrument {
    Instrument {
        id: InstrumentId::derive(BINANCE, Market::Spot, "BTCUSDT"),
        venue: BINANCE,
        market: Market::Spot,
        native: "BTCUSDT".into(),
        unified: "BTC/USDT".into(),
        base: "BTC".into(),
        quote: "USDT".into(),
        settle: None,
        kind: InstrumentKind::Spot,
        status: InstrumentStatus::Trading,
        tick_size: dec("0.01"),
        lot_size: dec("0.001"),
        contract_size: dec("1"),
        price_scale: 2,
        qty_scale: 3,
        valid_from_us: 0,
    }
}

/// A world in which one pair is collected on spot.
async fn world() -> World {
    let world = World::new().await;
    world.write(vec![row(&btc())]).await;
    let plan = MarketPlan {
        venue: BINANCE,
        market: Market::Spot,
        shards: Vec::new(),
        snapshot_weight: 0,
        startup_weight: 0,
        weight_per_minute: 0,
    };
    world.state.system.directory().put_market(MarketEntry {
        venue: BINANCE,
        market: Market::Spot,
        table: Arc::new(InstrumentTable::new([btc()]).expect("one")),
        plan,
        missing: Vec::new(),
    });
    world
}

/// A gap of this many milliseconds.
fn gap(channel: &str, from_ms: i64, ms: i64, status: GapStatus) -> Gap {
    let (cause, from_us) = (GapCause::Disconnect, from_ms * 1000);
    let to_us = Some(from_us + ms * 1000);
    Gap {
        id: Gap::name(btc().id, channel, from_us, cause),
        instrument: btc().id,
        channel: channel.into(),
        cause,
        status,
        from_us,
        to_us,
        from_id: Some("7".into()),
        to_id: Some("10".into()),
        missing: Some(2),
        reason: None,
        opened_us: from_us,
        closed_us: (status != GapStatus::Open).then_some(from_us + ms * 1000),
        updated_us: from_us,
    }
}

fn ids(answer: &Value) -> Vec<String> {
    let gaps = answer["gaps"].as_array().expect("gaps");
    gaps.iter().map(|gap| gap["id"].as_str().expect("id").to_owned()).collect()
}

#[actix_web::test]
async fn the_ledger_is_told_as_one_and_the_board_wins() {
    let world = world().await;
    let old = gap("trade", T0, 500, GapStatus::Open);
    let lost = gap("quote", T0 + 10, 500, GapStatus::Lost);
    world.write(vec![old.row(), lost.row()]).await;
    let board = world.state.system.directory().gaps();
    let repaired = Gap { status: GapStatus::Repaired, updated_us: old.updated_us + 1, ..old.clone() };
    board.put(repaired);
    let mut live = gap("depth", T0 + 20, 0, GapStatus::Open);
    (live.to_us, live.to_id, live.missing) = (None, None, None);
    board.put(live.clone());

    let all = world.json("/api/v1/gaps").await;
    assert_eq!(ids(&all), [live.id.as_str(), &lost.id, &old.id]);
    assert_eq!((&all["next"], &all["complete"]), (&Value::Null, &json!(true)));
    let shown = &all["gaps"][2];
    let expected = json!({
        "id": old.id, "venue": "binance", "market": "spot", "symbol": "BTCUSDT", "channel": "trade",
        "cause": "disconnect", "status": "repaired", "from": T0, "to": T0 + 500, "fromId": "7", "toId": "10",
        "missing": 2, "reason": null, "openedAt": T0, "closedAt": null, "durationMs": 500,
    });
    assert_eq!(shown, &expected);

    for (question, wanted) in [
        ("status=open", vec![&live.id]),
        ("status=repaired", vec![&old.id]),
        ("channel=quote", vec![&lost.id]),
        ("cause=restart", vec![]),
        ("venue=binance&market=spot&symbol=btc/usdt&channel=depth", vec![&live.id]),
        ("market=futures", vec![]),
        (&format!("to={}", T0 + 5), vec![&old.id]),
        (&format!("from={}", T0 + 505), vec![&live.id, &lost.id]),
    ] {
        let answer = world.json(&format!("/api/v1/gaps?{question}")).await;
        assert_eq!(ids(&answer).iter().collect::<Vec<_>>(), wanted, "{question}");
    }
}

#[actix_web::test]
async fn pages_of_the_ledger_follow_each_other() {
    let world = world().await;
    let stored: Vec<Gap> = (0..5).map(|n| gap("trade", T0 + n, 1, GapStatus::Lost)).collect();
    world.write(stored.iter().map(Gap::row).collect()).await;
    let board = world.state.system.directory().gaps();
    for n in [1, 3] {
        let mut gap = gap("quote", T0 + n, 1, GapStatus::Lost);
        gap.updated_us += 9;
        board.put(gap);
    }
    let mut read: Vec<String> = Vec::new();
    let mut path = "/api/v1/gaps?limit=2".to_owned();
    loop {
        let page = world.json(&path).await;
        assert!(ids(&page).len() <= 2);
        read.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/gaps?limit=2&after={next}");
    }
    let from = |id: &String| Gap::begins(id).expect("a name") / 1000 - T0;
    assert_eq!(read.iter().map(from).collect::<Vec<_>>(), [4, 3, 3, 2, 1, 1, 0]);
}

#[actix_web::test]
async fn a_question_that_cannot_be_meant_names_its_parameter() {
    let world = world().await;
    for (question, parameter) in [
        ("gaps?status=shut", "status"),
        ("gaps?cause=magic", "cause"),
        ("gaps?channel=news", "channel"),
        ("gaps?venue=nowhere", "venue"),
        ("gaps?market=swap", "market"),
        ("gaps?symbol=BTCUSDT", "symbol"),
        ("gaps?after=odd", "after"),
        ("coverage", "stream"),
        ("coverage?stream=binance/spot/BTCUSDT/trade&from=5&to=5", "from"),
        ("coverage?stream=binance/spot/BTCUSDT/trade&from=5", "from"),
    ] {
        let reply = world.get(&format!("/api/v1/{question}")).await;
        assert_eq!(
            (reply.refusal().0, reply.json()["parameter"].as_str()),
            (400, Some(parameter)),
            "{question}"
        );
    }
    for stream in ["binance/spot/NOPE/trade", "binance/spot/BTCUSDT/news", "nowhere/spot/BTCUSDT/trade", "x"]
    {
        let reply = world.get(&format!("/api/v1/coverage?stream={stream}")).await;
        assert_eq!(reply.refusal(), (404, "STREAM_NOT_FOUND".to_owned()));
        assert_eq!(reply.json()["stream"], stream);
    }
}

#[actix_web::test]
async fn without_the_store_the_ledger_of_this_process_is_told_and_said_to_be_all() {
    let world = world().await;
    world.state.system.directory().gaps().put(gap("trade", T0, 5, GapStatus::Lost));
    world.store.close().await;
    let answer = world.json("/api/v1/gaps").await;
    assert_eq!((ids(&answer).len(), &answer["complete"]), (1, &json!(false)));
    assert!(answer["why"].as_str().is_some_and(|why| why.contains("store")));
    let path = format!("/api/v1/coverage?stream=binance/spot/BTCUSDT/trade&from={T0}&to={}", T0 + 10);
    let covered = world.json(&path).await;
    assert_eq!((&covered["complete"], &covered["covered"]), (&json!(false), &json!("0")));
}

fn trade(at_ms: i64) -> TradeRow {
    TradeRow {
        instrument_id: btc().id.0,
        kind: "agg".into(),
        trade_id: at_ms.to_string(),
        event_us: at_ms * 1000,
        recv_us: at_ms * 1000,
        price_m: 1,
        qty_m: 1,
        price_scale: 2,
        qty_scale: 3,
        side: "buy".into(),
        first_raw_id: None,
        last_raw_id: None,
    }
}

#[actix_web::test]
async fn the_coverage_of_a_stream_is_what_its_gaps_leave() {
    let world = world().await;
    world.write(vec![trade(T0 + 1000), trade(T0 + 9000)]).await;
    let lost = gap("trade", T0 + 3000, 1000, GapStatus::Lost);
    let again = gap("trade", T0 + 3500, 1500, GapStatus::Lost);
    let repaired = gap("trade", T0 + 7000, 1000, GapStatus::Repaired);
    let other = gap("quote", T0 + 2000, 1000, GapStatus::Lost);
    world.write([&lost, &again, &repaired, &other].map(Gap::row).into()).await;
    let asked = |from: i64, to: i64| {
        let (from, to) = (T0 + from, T0 + to);
        format!("/api/v1/coverage?stream=binance/spot/BTC/USDT/trade&from={from}&to={to}")
    };
    let covered = world.json(&asked(0, 10_000)).await;
    assert_eq!(covered["covered"], "0.7", "{covered}");
    assert_eq!(covered["complete"], false);
    let span = |from: i64, to: i64| json!({"from": T0 + from, "to": T0 + to});
    assert_eq!(covered["intervals"], json!([span(1000, 3000), span(5000, 10_000)]));
    assert_eq!((&covered["firstRecord"], &covered["lastRecord"]), (&json!(T0 + 1000), &json!(T0 + 9000)));
    assert_eq!(ids(&covered), [again.id, lost.id]);
    assert_eq!(covered["missing"], json!({"records": 4, "gapsWithoutCount": 0, "ms": 2000}));
    assert_eq!(covered["symbol"], "BTCUSDT");

    let whole = world.json(&asked(5000, 9000)).await;
    assert_eq!((&whole["complete"], &whole["covered"]), (&json!(true), &json!("1")));
    let never = world.json("/api/v1/coverage?stream=binance/spot/btcusdt/quote").await;
    assert_eq!((&never["covered"], &never["why"]), (&json!("0"), &json!(["nothing of it is stored"])));
}

fn candle(open_ms: i64) -> CandleRow {
    let one = dec("1");
    CandleRow {
        instrument_id: btc().id.0,
        timeframe: "1m".into(),
        open_ms,
        close_ms: open_ms + MINUTE - 1,
        open: one,
        high: one,
        low: one,
        close: one,
        volume: one,
        quote_volume: one,
        trades: 1,
        taker_buy_volume: one,
        taker_buy_quote_volume: one,
        closed: true,
        updated_us: 0,
    }
}

#[actix_web::test]
async fn minutes_carry_what_their_books_may_have_missed() {
    let world = world().await;
    world.write((0..5).map(|n| minute(T0 + n * MINUTE)).collect()).await;
    world.write(vec![candle(T0)]).await;
    let mut resynced = gap("depth", T0 + MINUTE, 1000, GapStatus::Resynced);
    resynced.closed_us = Some((T0 + MINUTE + 2000) * 1000);
    let chained = gap("depth", T0 + 2 * MINUTE, 1000, GapStatus::NoneMissed);
    let others = Gap { instrument: InstrumentId(1), id: "1-depth-5-disconnect".into(), ..resynced.clone() };
    world.write([&resynced, &chained, &others].map(Gap::row).into()).await;
    let path = "/api/categories/TOTAL?depth=5&limit=";
    let total = world.json(&format!("{path}5")).await;
    assert_eq!(
        total["coverage"],
        json!({"complete": false, "gaps": 1, "lostMs": 2000}),
        "until it is live again"
    );
    let newest = world.json(&format!("{path}3")).await;
    assert_eq!(newest["coverage"], json!({"complete": true, "gaps": 0, "lostMs": 0}));
    let without = world.json("/api/categories/TOTAL1?depth=5").await;
    assert_eq!(without["coverage"]["complete"], true, "no rows, and BTC is no member");
    let range = format!("from={T0}&to={}", T0 + 5 * MINUTE);
    let pair = world.json(&format!("/api/snapshots/BTCUSDT?depth=5&{range}")).await;
    assert_eq!(pair["coverage"], json!({"complete": false, "gaps": 1, "lostMs": 2000}));
}

#[actix_web::test]
async fn metrics_count_gaps_by_cause_and_status() {
    let world = world().await;
    let board = world.state.system.directory().gaps();
    board.put(gap("trade", T0, 5, GapStatus::Open));
    board.put(gap("candle:1m", T0, 5, GapStatus::Open));
    board.put(gap("trade", T0, 5, GapStatus::Repaired));
    let text = world.get("/metrics").await.text;
    for line in [
        "fathom_gaps_total{cause=\"disconnect\",status=\"open\"} 2",
        "fathom_gaps_total{cause=\"disconnect\",status=\"repaired\"} 1",
        "fathom_gaps_open{channel=\"candle\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is missing:\n{text}");
    }
    assert!(!text.contains("fathom_gaps_open{channel=\"trade\"}"));
}
