//! Against a real server: keys of each test have a prefix of their own. Where none is to be had they are left out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fathom_market::{
    batch::Batch,
    event::Level,
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentKind, InstrumentStatus},
    sample::SampleState,
    table::{CandleRow, CategorySnapshotRow, OrderbookRow, SymbolSnapshotRow, TickerRow},
    ticks::Tick,
};
use fathom_testkit::Server;
use futures_util::StreamExt;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::{
    Address, Cache, Commands, Composer, FailureKind, Link, Live, Names, RedisConfig, Ttl,
    cache::CategoryRange,
    live::{Body, LiveTick},
};

const BINANCE: VenueId = VenueId::new("binance");
const MINUTE: i64 = 60_000;
/// A minute boundary.
const T0: i64 = 1_700_000_040_000;
const LONG: Duration = Duration::from_secs(20);

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn instrument(market: Market) -> Arc<Instrument> {
    Arc::new(Instrument {
        id: InstrumentId::derive(BINANCE, market, "BTCUSDT"),
        venue: BINANCE,
        market,
        native: "BTCUSDT".into(),
        unified: if market == Market::Spot { "BTC/USDT".into() } else { "BTC/USDT:USDT".into() },
        base: "BTC".into(),
        quote: "USDT".into(),
        settle: None,
        kind: InstrumentKind::Spot,
        status: InstrumentStatus::Trading,
        tick_size: dec("0.01"),
        lot_size: dec("0.001"),
        contract_size: Decimal::ONE,
        price_scale: 2,
        qty_scale: 3,
        valid_from_us: 0,
    })
}

fn config(url: &str) -> RedisConfig {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = format!("fathom-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    RedisConfig {
        address: Address::parse(url).unwrap(),
        names: Names { channel_prefix: format!("{own}:"), prefix: own, primary: BINANCE },
        ttl: Ttl {
            ticker: Duration::from_secs(5),
            orderbook: Duration::from_secs(1),
            candles: Duration::from_secs(10),
            ticks: Some(Duration::from_secs(3600)),
        },
        window: Duration::from_secs(7200),
        pairs: true,
        flush_every: Duration::from_millis(100),
        connect_within: Duration::from_secs(5),
        answer_within: Duration::from_secs(5),
        read_within: Duration::from_secs(5),
    }
}

/// A connection with its cache, and a second client that looks at what is there.
struct Bench {
    cache: Cache,
    link: Link,
    composer: Composer,
    config: RedisConfig,
    eye: redis::aio::MultiplexedConnection,
}

impl Bench {
    async fn new() -> Option<Self> {
        let config = config(&Server::Redis.url()?);
        let (cache, composer) = (Cache::new(config.clone()), Composer::new(config.clone()));
        let link = Link::connect(&config).await.unwrap();
        cache.opened(link.clone(), "m1".into());
        let eye = config.address.client().get_multiplexed_async_connection().await.unwrap();
        Some(Self { cache, link, composer, config, eye })
    }

    async fn send(&mut self, fill: impl FnOnce(&mut Composer, &Cache, &mut Commands)) {
        let mut commands = Commands::default();
        fill(&mut self.composer, &self.cache, &mut commands);
        self.link.send(&commands).await.unwrap();
        self.cache.wrote(&commands);
    }

    async fn live(&mut self, of: &Arc<Instrument>, body: Body) {
        let live = Live { instrument: of.clone(), body };
        self.send(|composer, _, out| composer.live(&live, out)).await;
    }

    /// Minutes of TOTAL at these numbers of minutes after T0, written at the time of the last.
    async fn minutes(&mut self, minutes: &[i64]) {
        let rows = minutes.iter().map(|at| minute(T0 + at * MINUTE));
        let (batch, now_ms) = (Batch::of(rows), T0 + minutes.iter().max().unwrap() * MINUTE);
        self.send(|composer, cache, out| composer.rows(&batch, |_| None, cache, now_ms, out)).await;
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        let mut asking = redis::cmd(command[0]);
        command[1..].iter().for_each(|argument| {
            asking.arg(*argument);
        });
        asking.query_async(&mut self.eye).await.unwrap()
    }

    async fn json(&mut self, key: &str) -> Value {
        let text: String = self.ask(&["GET", key]).await;
        serde_json::from_str(&text).unwrap()
    }

    fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", self.config.names.prefix)
    }
}

fn minute(timestamp_ms: i64) -> CategorySnapshotRow {
    CategorySnapshotRow {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "TOTAL".into(),
        depth: dec("1.5"),
        timestamp_ms,
        total_bid_volume: dec("1.5"),
        total_ask_volume: dec("2.000000000001"),
        total_bid_volume_usd: dec("1234567890123456.789012345678"),
        total_ask_volume_usd: dec("0.00000005"),
        avg_price: None,
        symbol_count: 7,
        member_count: 10,
        bid_covered: 6,
        ask_covered: 5,
        stale_count: 2,
        unpriced_count: 1,
        created_us: timestamp_ms * 1000 + 17,
    }
}

fn range(from: Option<i64>, to: Option<i64>, limit: u32) -> CategoryRange<'static> {
    let time = |at: i64| T0 + at * MINUTE;
    CategoryRange {
        scope: "binance",
        market: "SPOT",
        category: "TOTAL",
        depth: dec("1.50"),
        from_ms: from.map(time),
        to_ms: to.map(time),
        limit,
    }
}

fn candle(of: &Instrument, open_ms: i64, close: &str, closed: bool) -> CandleRow {
    CandleRow {
        instrument_id: of.id.0,
        timeframe: "1m".into(),
        open_ms,
        close_ms: open_ms + MINUTE - 1,
        open: dec("1.10"),
        high: dec("3"),
        low: dec("0.00000001"),
        close: dec(close),
        volume: dec("12345678901234567890.5"),
        quote_volume: dec("0"),
        trades: 3,
        taker_buy_volume: dec("1"),
        taker_buy_quote_volume: dec("2"),
        closed,
        updated_us: open_ms * 1000 + 1,
    }
}

fn book() -> OrderbookRow {
    OrderbookRow {
        instrument_id: 1,
        timestamp_ms: T0,
        last_update_id: 42,
        bids: r#"[["100.5","1"],["100","2.5"]]"#.into(),
        asks: "[]".into(),
    }
}

#[tokio::test]
async fn each_kind_has_its_key_its_json_and_its_time_to_live() {
    let Some(mut bench) = Bench::new().await else { return };
    let btc = instrument(Market::Spot);
    bench.send(|composer, _, out| composer.alive(T0, out)).await;
    assert_eq!(bench.json(&bench.key("alive")).await, json!(T0));
    bench.live(&btc, Body::Book(SampleState::Live, book())).await;
    let key = bench.key("orderbook:binance:spot:BTCUSDT");
    assert_eq!(
        bench.json(&key).await,
        json!({"type": "orderbook", "venue": "binance", "market": "spot", "symbol": "BTC/USDT", "native": "BTCUSDT",
            "state": "live", "lastUpdateId": 42, "timestamp": T0, "bids": [["100.5", "1"], ["100", "2.5"]], "asks": []})
    );
    let ticker = TickerRow {
        instrument_id: btc.id.0,
        event_us: T0 * 1000,
        last: Some(dec("100.50")),
        bid: None,
        ask: None,
        open: None,
        high: None,
        low: None,
        volume: Some(dec("7")),
        quote_volume: None,
        trades: Some(9),
    };
    bench.live(&btc, Body::Ticker(ticker)).await;
    let shown = bench.json(&bench.key("ticker:binance:spot:BTCUSDT")).await;
    assert_eq!((&shown["last"], &shown["bid"], &shown["trades"]), (&json!("100.5"), &json!(null), &json!(9)));
    bench.live(&btc, Body::Candle(candle(&btc, T0, "2", true))).await;
    bench.live(&btc, Body::Candle(candle(&btc, T0 + MINUTE, "2.5", false))).await;
    let shown = bench.json(&bench.key("candles:binance:spot:BTCUSDT:1m")).await;
    assert_eq!((&shown["closed"]["openTime"], &shown["open"]["close"]), (&json!(T0), &json!("2.5")));
    for (key, most) in [("ticker", 5000), ("orderbook", 1000), ("candles", 10_000)].map(|(kind, ttl)| {
        let of = if kind == "candles" { "BTCUSDT:1m" } else { "BTCUSDT" };
        (bench.key(&format!("{kind}:binance:spot:{of}")), ttl)
    }) {
        let ttl: i64 = bench.ask(&["PTTL", &key]).await;
        assert!(ttl <= most && (ttl > most - 1000 || ttl == -2), "{key}: {ttl}");
    }
}

#[tokio::test]
async fn a_book_in_doubt_leaves_the_cache_and_says_so_to_those_who_listen() {
    let Some(mut bench) = Bench::new().await else { return };
    let (spot, futures) = (instrument(Market::Spot), instrument(Market::Futures));
    let mut ears = bench.config.address.client().get_async_pubsub().await.unwrap();
    let prefix = bench.config.names.channel_prefix.clone();
    ears.psubscribe(format!("{prefix}*")).await.unwrap();
    bench.live(&spot, Body::Book(SampleState::Live, book())).await;
    bench.live(&spot, Body::Doubt { state: SampleState::Stale, at_ms: T0 + 5 }).await;
    bench.live(&spot, Body::Book(SampleState::Syncing, book())).await;
    bench.live(&futures, Body::Book(SampleState::Polled, book())).await;
    bench.live(&futures, Body::Candle(candle(&futures, T0, "2", true))).await;
    let kept: Vec<String> = bench.ask(&["KEYS", &bench.key("orderbook:*")]).await;
    assert_eq!(kept, [bench.key("orderbook:binance:futures:BTCUSDT")]);
    let mut heard = Vec::new();
    let mut messages = ears.on_message();
    while heard.len() < 11 {
        let message = tokio::time::timeout(LONG, messages.next()).await.unwrap().unwrap();
        let body: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
        let channel = message.get_channel_name()[prefix.len()..].to_owned();
        heard.push((channel, body["state"].as_str().unwrap_or("-").to_owned(), body["bids"] == json!([])));
    }
    let expected: Vec<(String, String, bool)> = [("live", false), ("stale", true), ("syncing", true)]
        .into_iter()
        .flat_map(|(state, empty)| {
            ["orderbook:binance:spot:BTCUSDT", "orderbook:BTCUSDT", "orderbook:all"]
                .map(|channel| (channel.to_owned(), state.to_owned(), empty))
        })
        .chain([
            ("orderbook:binance:futures:BTCUSDT".into(), "polled".into(), false),
            ("candles:binance:futures:BTCUSDT".into(), "-".into(), false),
        ])
        .collect();
    assert_eq!(heard, expected, "futures have no short channels");
}

#[tokio::test]
async fn the_newest_candles_come_back_as_they_went_or_not_at_all() {
    let Some(mut bench) = Bench::new().await else { return };
    let btc = instrument(Market::Spot);
    let cache = bench.cache.clone();
    assert_eq!(cache.latest_candles(&btc, "1m", 1).await, None);
    let (first, second) = (candle(&btc, T0, "2.50", true), candle(&btc, T0 + MINUTE, "2", false));
    bench.live(&btc, Body::Candle(first.clone())).await;
    assert_eq!(cache.latest_candles(&btc, "1m", 1).await, Some(vec![first.clone()]));
    assert_eq!(cache.latest_candles(&btc, "1m", 2).await, None, "the one before is in the store");
    bench.live(&btc, Body::Candle(second.clone())).await;
    // Words that come late change nothing.
    bench.live(&btc, Body::Candle(candle(&btc, T0, "9", false))).await;
    bench.live(&btc, Body::Candle(candle(&btc, T0 - MINUTE, "9", true))).await;
    assert_eq!(cache.latest_candles(&btc, "1m", 1).await, Some(vec![second.clone()]));
    assert_eq!(cache.latest_candles(&btc, "1m", 2).await, Some(vec![first, second]));
    assert_eq!(cache.latest_candles(&btc, "1m", 3).await, None);
    assert_eq!(cache.latest_candles(&btc, "5m", 1).await, None);
    bench.live(&btc, Body::Candle(candle(&btc, T0 + 5 * MINUTE, "3", false))).await;
    assert_eq!(cache.latest_candles(&btc, "1m", 2).await, None, "candles are missing between the two");
}

#[tokio::test]
async fn a_range_is_answered_only_where_nothing_can_be_missing() {
    let Some(mut bench) = Bench::new().await else { return };
    let cache = bench.cache.clone();
    let now = T0 + 5 * MINUTE;
    assert_eq!(cache.category_range(&range(Some(0), None, 100), now).await, None, "nothing was written");
    bench.minutes(&[0, 1]).await;
    bench.minutes(&[1, 2, 4, 4]).await;
    let rows = |minutes: &[i64]| Some(minutes.iter().map(|at| minute(T0 + at * MINUTE)).collect::<Vec<_>>());
    for (from, to, limit, expected) in [
        (Some(0), None, 100, rows(&[0, 1, 2, 4])),
        (Some(1), Some(2), 100, rows(&[1, 2])),
        (Some(0), None, 2, rows(&[0, 1])),
        (Some(3), Some(3), 100, rows(&[])),
        (Some(9), None, 100, rows(&[])),
        (None, None, 3, rows(&[1, 2, 4])),
        (None, Some(3), 2, rows(&[1, 2])),
        (None, None, 5, None),
        (Some(-1), None, 100, None),
    ] {
        let found = cache.category_range(&range(from, to, limit), now).await;
        assert_eq!(found, expected, "{from:?} {to:?} {limit}");
    }
    let late = T0 + 121 * MINUTE;
    assert_eq!(cache.category_range(&range(Some(1), None, 100), late).await, None, "beyond the window");
    assert!(cache.category_range(&range(Some(2), None, 100), late).await.is_some());
    assert_eq!(
        cache.category_range(&CategoryRange { category: "OTHERS", ..range(Some(0), None, 9) }, now).await,
        None
    );
}

#[tokio::test]
async fn a_set_that_was_lost_or_is_in_doubt_answers_again_only_from_its_next_row() {
    let Some(mut bench) = Bench::new().await else { return };
    let (cache, now) = (bench.cache.clone(), T0 + 9 * MINUTE);
    let key = bench.key("snapshots:binance:spot:TOTAL:1.5");
    bench.minutes(&[0, 1]).await;
    let _: i64 = bench.ask(&["DEL", &key]).await;
    bench.minutes(&[2]).await;
    assert_eq!(cache.category_range(&range(Some(0), None, 9), now).await, None, "evicted and begun anew");
    bench.minutes(&[3]).await;
    assert_eq!(cache.category_range(&range(Some(2), None, 9), now).await, None);
    assert_eq!(cache.category_range(&range(Some(3), None, 9), now).await.unwrap().len(), 1);
    cache.doubt();
    assert_eq!(cache.category_range(&range(Some(3), None, 9), now).await, None);
    bench.minutes(&[4]).await;
    assert_eq!(cache.category_range(&range(Some(4), None, 9), now).await.unwrap().len(), 1);
    // Of another service with the same prefix, or of somebody's hand.
    let other = CategorySnapshotRow { created_us: 1, ..minute(T0 + 4 * MINUTE) };
    let score = (T0 + 4 * MINUTE).to_string();
    for strange in [crate::rows::row_json(&Batch::of([other]), 0), "no JSON".to_owned()] {
        let _: i64 = bench.ask(&["ZADD", &key, &score, &strange]).await;
        assert_eq!(cache.category_range(&range(Some(4), None, 9), now).await, None, "{strange}");
        let _: i64 = bench.ask(&["DEL", &key]).await;
        bench.minutes(&[4]).await;
        assert!(cache.category_range(&range(Some(4), None, 9), now).await.is_some());
    }
    bench.cache.opened(bench.link.clone(), "m2".into());
    bench.minutes(&[5]).await;
    let markers: Vec<String> = bench.ask(&["ZRANGEBYSCORE", &key, "0", "0"]).await;
    assert_eq!(markers, ["m2"], "markers do not gather");
    cache.closed();
    assert_eq!(cache.category_range(&range(Some(5), None, 9), now).await, None);
    assert_eq!(cache.get(&key).await, None, "without a connection a read is a miss");
}

#[tokio::test]
async fn sets_hold_two_hours_and_end_when_nothing_comes() {
    let Some(mut bench) = Bench::new().await else { return };
    bench.minutes(&(0..=130).collect::<Vec<_>>()).await;
    let key = bench.key("snapshots:binance:spot:TOTAL:1.5");
    let times: Vec<(String, i64)> = bench.ask(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]).await;
    assert_eq!(times.len(), 122, "the marker, and 121 minutes");
    assert_eq!((times[1].1, times[121].1), (T0 + 10 * MINUTE, T0 + 130 * MINUTE));
    let ttl: i64 = bench.ask(&["PTTL", &key]).await;
    assert!((7_100_000..=7_200_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn pairs_and_ticks_have_sets_of_their_own() {
    let Some(mut bench) = Bench::new().await else { return };
    let btc = instrument(Market::Futures);
    let row = SymbolSnapshotRow {
        instrument_id: btc.id.0,
        depth: dec("5"),
        timestamp_ms: T0,
        bid_volume: dec("1"),
        ask_volume: dec("2"),
        bid_volume_usd: Some(dec("3")),
        ask_volume_usd: None,
        mid_price: Some(dec("100.25")),
        best_bid: None,
        best_ask: None,
        state: "live".into(),
        bid_covered: true,
        ask_covered: false,
        last_update_id: 7,
        created_us: 1,
    };
    let batch = Batch::of([SymbolSnapshotRow { instrument_id: 5, ..row.clone() }, row]);
    let found = |id: i64| (id == btc.id.0).then(|| btc.clone());
    bench.send(|composer, cache, out| composer.rows(&batch, found, cache, T0, out)).await;
    let key = bench.key("snapshots:binance:futures:BTCUSDT:5");
    let kept: Vec<String> = bench.ask(&["ZRANGEBYSCORE", &key, "1", "+inf"]).await;
    let shown: Value = serde_json::from_str(&kept[0]).unwrap();
    assert_eq!(
        (kept.len(), &shown["mid_price"], &shown["ask_volume_usd"]),
        (1, &json!("100.25"), &json!(null))
    );
    let ticks = [0, 1, 2].map(|at: i64| LiveTick {
        instrument: btc.clone(),
        tick: Tick {
            time_us: (T0 + at) * 1000,
            recv_us: (T0 + at) * 1000,
            bid: Level { price: 10_050, qty: 1500 },
            ask: Level { price: 10_051, qty: 1 },
            update_id: 4,
            venue_time: false,
        },
    });
    bench.send(|composer, _, out| composer.ticks(&ticks, T0 + 3_600_001, out)).await;
    let key = bench.key("ticks:binance:futures:BTCUSDT");
    let kept: Vec<String> = bench.ask(&["ZRANGE", &key, "0", "-1"]).await;
    let shown: Value = serde_json::from_str(&kept[0]).unwrap();
    assert_eq!(kept.len(), 2, "an hour is kept");
    assert_eq!(
        (&shown["bestBid"], &shown["bidVolume"], &shown["timestamp"]),
        (&json!("100.5"), &json!("1.5"), &json!(T0 + 1))
    );
}

#[tokio::test]
async fn what_the_server_refuses_has_a_name() {
    let Some(bench) = Bench::new().await else { return };
    let nobody =
        RedisConfig { address: Address::parse("redis://127.0.0.1:1/").unwrap(), ..bench.config.clone() };
    assert_eq!(Link::connect(&nobody).await.err().unwrap().kind, FailureKind::Unreachable);
    let mut url = Server::Redis.url().unwrap();
    url = url.replace("redis://", "redis://nobody-here:hunter2@");
    let denied = RedisConfig { address: Address::parse(&url).unwrap(), ..bench.config.clone() };
    let failure = Link::connect(&denied).await.err().unwrap();
    assert_eq!(failure.kind, FailureKind::Denied, "{failure}");
    assert!(!failure.to_string().contains("hunter2"));
    // The system takes the connection, and nobody ever speaks.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&format!("redis://{}/", deaf.local_addr().unwrap())).unwrap();
    let hung = RedisConfig { address, connect_within: Duration::from_millis(50), ..bench.config.clone() };
    assert_eq!(Link::connect(&hung).await.err().unwrap().kind, FailureKind::Timeout);
}
