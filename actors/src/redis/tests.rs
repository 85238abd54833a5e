//! The publisher under a real kernel, before a server of its own that is killed, made read-only, stopped and filled. Where
//! `redis-server` is not installed they are left out.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use fathom_delivery::{Address, Names, Ttl, cache::CategoryRange, live::Body};
use fathom_market::{
    ids::Market,
    sample::SampleState,
    table::{CategorySnapshotRow, OrderbookRow},
};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::{
    fixtures::{BINANCE, LONG, World, dec, instrument},
    kernel::testkit::eventually,
};

/// A private server; it is killed when it is dropped.
struct Server {
    port: u16,
    child: Child,
    folder: TempDir,
}

impl Server {
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let Ok(child) = launch(port, &folder) else {
            assert!(std::env::var_os("FATHOM_TEST_REQUIRE_SERVICES").is_none(), "no redis-server");
            eprintln!("left out: redis-server is not installed");
            return None;
        };
        Some(Self { port, child, folder })
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn again(&mut self) {
        self.child = launch(self.port, &self.folder).unwrap();
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Says a line to the server, and gives the first piece of its answer.
    fn say(&self, line: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = socket.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, folder: &TempDir) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
}

struct Bench {
    world: World,
    directory: Arc<Directory>,
    spec: RedisSpec,
}

impl Bench {
    async fn new(port: u16) -> Self {
        let world = World::real();
        let directory: Arc<Directory> = Arc::default();
        let spec = RedisSpec::new(config(port), &directory).unwrap();
        world.kernel.supervisor().spawn(child(spec.clone())).await.unwrap();
        Self { world, directory, spec }
    }

    fn status(&self) -> Arc<RedisStatus> {
        self.world.control.detail::<RedisStatus>(&ID.into()).unwrap().1
    }

    async fn shows(&self, what: impl Fn(&RedisStatus) -> bool) {
        let seen = eventually(LONG, || what(&self.status())).await;
        assert!(seen, "{:?}", self.status());
    }

    async fn is_connected(&self) {
        self.shows(|status| status.is_connected() && status.breaker == BreakerState::Closed).await;
    }

    async fn is_away(&self, kind: &str) {
        let open = |status: &RedisStatus| matches!(status.breaker, BreakerState::Open { .. });
        self.shows(|status| status.failures.contains_key(kind) && open(status)).await;
        let why = || self.world.control.actor(&ID.into()).unwrap().why;
        let told = || why().iter().any(|why| why.contains("redis: ") && why.contains("breaker open"));
        assert!(eventually(LONG, told).await, "{:?}", why());
    }

    /// Shows a book until it is in the cache.
    async fn reaches_the_cache(&self, base: &str) {
        let of = instrument(Market::Spot, base);
        let key = self.spec.config.names.orderbook(&of);
        let deadline = Instant::now() + LONG;
        while self.spec.cache.get(&key).await.is_none() {
            assert!(Instant::now() < deadline, "{base} never came: {:?}", self.status());
            self.show(base);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn show(&self, base: &str) {
        self.directory.derived().live.publish(|| book(base));
    }

    fn accept(&self, accepted: &Accepted) {
        self.directory.derived().accepted.publish(|| accepted.clone());
    }

    async fn range(&self, from_ms: i64) -> Option<usize> {
        let range = CategoryRange {
            scope: "binance",
            market: "SPOT",
            category: "TOTAL",
            depth: dec("5"),
            from_ms: Some(from_ms),
            to_ms: None,
            limit: 100,
        };
        self.spec.cache.category_range(&range, from_ms).await.map(|rows| rows.len())
    }

    /// Waits until a range from this time on is answered so.
    async fn range_is(&self, from_ms: i64, wanted: Option<usize>) {
        let deadline = Instant::now() + LONG;
        while self.range(from_ms).await != wanted {
            assert!(Instant::now() < deadline, "never {wanted:?}: {:?}", self.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn config(port: u16) -> RedisConfig {
    RedisConfig {
        address: Address::parse(&format!("redis://127.0.0.1:{port}/")).unwrap(),
        names: Names { prefix: "f".into(), channel_prefix: String::new(), primary: BINANCE },
        ttl: Ttl { ticker: LONG, orderbook: LONG, candles: LONG, ticks: Some(LONG) },
        window: Duration::from_secs(7200),
        pairs: true,
        flush_every: Duration::from_millis(20),
        connect_within: Duration::from_secs(2),
        answer_within: Duration::from_secs(2),
        read_within: Duration::from_millis(500),
    }
}

fn book(base: &str) -> Arc<Live> {
    let row = OrderbookRow {
        instrument_id: 1,
        timestamp_ms: 1,
        last_update_id: 1,
        bids: "[]".into(),
        asks: "[]".into(),
    };
    Arc::new(Live { instrument: instrument(Market::Spot, base), body: Body::Book(SampleState::Live, row) })
}

fn minute(timestamp_ms: i64) -> Accepted {
    let one = dec("1");
    Accepted::Rows(Arc::new(Batch::of([CategorySnapshotRow {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "TOTAL".into(),
        depth: dec("5"),
        timestamp_ms,
        total_bid_volume: one,
        total_ask_volume: one,
        total_bid_volume_usd: one,
        total_ask_volume_usd: one,
        avg_price: Some(one),
        symbol_count: 1,
        member_count: 1,
        bid_covered: 1,
        ask_covered: 1,
        stale_count: 0,
        unpriced_count: 0,
        created_us: 1,
    }])))
}

#[actix_rt::test]
async fn a_server_that_is_killed_shows_in_the_breaker_alone_and_is_found_again() {
    let Some(mut server) = Server::start() else { return };
    let bench = Bench::new(server.port).await;
    bench.is_connected().await;
    bench.reaches_the_cache("BTC").await;
    let now_ms = bench.world.clock.now_us() / 60_000_000 * 60_000;
    bench.accept(&minute(now_ms));
    bench.range_is(now_ms, Some(1)).await;
    server.kill();
    bench.is_away("unreachable").await;
    assert_eq!(bench.range(now_ms).await, None, "the store is asked");
    let discarded = bench.status().discarded;
    (0..1000).for_each(|number| bench.show(&format!("A{number}")));
    bench.accept(&minute(now_ms + 60_000));
    bench.shows(|status| status.discarded >= discarded + 1000).await;
    server.again();
    bench.is_connected().await;
    bench.reaches_the_cache("ETH").await;
    assert!(server.say("EXISTS f:orderbook:binance:spot:A7USDT").starts_with(":0"), "nothing old is sent");
    bench.accept(&minute(now_ms + 120_000));
    bench.range_is(now_ms + 120_000, Some(1)).await;
    assert_eq!(bench.range(now_ms).await, None, "a minute is missing in the set");
    assert_eq!(bench.world.control.actor(&ID.into()).unwrap().generation, 1, "its actor was never restarted");
}

#[actix_rt::test]
async fn a_server_that_takes_no_writes_counts_as_away_until_it_does() {
    let Some(server) = Server::start() else { return };
    let bench = Bench::new(server.port).await;
    bench.is_connected().await;
    server.say("REPLICAOF 127.0.0.1 1");
    bench.is_away("read_only").await;
    server.say("REPLICAOF NO ONE");
    bench.is_connected().await;
    server.say("CONFIG SET maxmemory 1");
    bench.is_away("out_of_memory").await;
    server.say("CONFIG SET maxmemory 0");
    bench.is_connected().await;
    bench.reaches_the_cache("BTC").await;
}

#[actix_rt::test]
async fn a_server_that_hangs_holds_up_nobody_and_little_waits_for_it() {
    let Some(server) = Server::start() else { return };
    let bench = Bench::new(server.port).await;
    bench.is_connected().await;
    bench.reaches_the_cache("BTC").await;
    server.signal("-STOP");
    let asked = Instant::now();
    assert_eq!(bench.spec.cache.get("f:orderbook:binance:spot:BTCUSDT").await, None);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let shown = Instant::now();
    let books: Vec<Arc<Live>> = (0..LIVE_KEYS + 4000).map(|number| book(&format!("B{number}"))).collect();
    for book in books.iter().chain(&books[LIVE_KEYS..]) {
        bench.directory.derived().live.publish(|| book.clone());
    }
    assert!(shown.elapsed() < Duration::from_secs(5), "{:?} for {} books", shown.elapsed(), books.len());
    let health = bench.spec.live.gauge().health();
    assert!(health.len <= LIVE_KEYS && health.high_water <= LIVE_KEYS, "{health:?}");
    assert!(health.conflated_total > 0, "{health:?}");
    bench.is_away("timeout").await;
    server.signal("-CONT");
    bench.is_connected().await;
    bench.reaches_the_cache("ETH").await;
}

#[actix_rt::test]
async fn where_rows_may_be_missing_the_cache_is_believed_only_from_the_next_on() {
    let Some(server) = Server::start() else { return };
    let bench = Bench::new(server.port).await;
    bench.is_connected().await;
    let first_ms = bench.world.clock.now_us() / 60_000_000 * 60_000;
    bench.accept(&minute(first_ms));
    bench.range_is(first_ms, Some(1)).await;
    bench.accept(&Accepted::SetAside(Table::Candles));
    bench.accept(&minute(first_ms + 60_000));
    bench.range_is(first_ms, Some(2)).await;
    bench.accept(&Accepted::SetAside(Table::CategorySnapshots));
    bench.range_is(first_ms, None).await;
    let next_ms = first_ms + 120_000;
    bench.accept(&minute(next_ms));
    bench.range_is(next_ms, Some(1)).await;
    // A burst that its queue cannot hold while the server is looked at from elsewhere.
    server.signal("-STOP");
    (0..=ACCEPTED_BATCHES + BATCHES_AT_ONCE).for_each(|_| bench.accept(&Accepted::SetAside(Table::Trades)));
    server.signal("-CONT");
    bench.range_is(next_ms, None).await;
    bench.accept(&minute(next_ms + 60_000));
    bench.range_is(next_ms + 60_000, Some(1)).await;
}

#[actix_rt::test]
async fn an_instance_that_panics_is_followed_by_one_that_trusts_nothing_of_it() {
    let Some(server) = Server::start() else { return };
    let bench = Bench::new(server.port).await;
    bench.is_connected().await;
    let now_ms = bench.world.clock.now_us() / 60_000_000 * 60_000;
    bench.accept(&minute(now_ms));
    bench.range_is(now_ms, Some(1)).await;
    bench.world.control.inject(&ID.into(), crate::kernel::Inject::Panic).unwrap();
    let next = || bench.world.control.actor(&ID.into()).unwrap().generation == 2;
    assert!(eventually(LONG, next).await);
    bench.reaches_the_cache("ETH").await;
    assert_eq!(bench.range(now_ms).await, None);
    bench.accept(&minute(now_ms + 60_000));
    bench.range_is(now_ms + 60_000, Some(1)).await;
}
