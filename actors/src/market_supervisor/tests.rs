//! The market supervisor under a real kernel, with a venue that lists what the test says. No socket is ever opened: what a
//! shard subscribes is the business of its own tests.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use fathom_market::{
    batch::Column,
    ids::Market,
    plan::{DepthSpeed, Endpoints},
    table::Table,
};
use fathom_transport::{RestBudget, TlsConfig};
use fathom_venues::planner::{Redundancy, Tier, TierSpec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    board::MinuteBoard,
    directory::BookEntry,
    fanout::Fanout,
    fixtures::{BINANCE, LONG, World, binance, book_settings, depth_settings, instrument, patient},
    kernel::{
        ActorId, BreakerSpec, ChildSpec, Clock, Inbox, Inject, Kind, Operation, OperationId, OperationState,
        Overflow, State, Threshold, inbox::bounded, testkit::eventually,
    },
    settings::{HistorySettings, Retry, StreamSettings, WriterSettings},
    spawn::market_id,
    stream::{liveness::LivenessRules, reconnect::ReconnectRules},
    symbols::{Command, Reach, SymbolError},
    system::utc_clock,
    writer::{account::Limits, pending::FlushRules, tests::FakeStore},
};

/// Breaks off building at the n-th actor, once.
#[derive(Clone, Default)]
pub(crate) struct FaultPoint(Arc<AtomicU32>);

impl FaultPoint {
    pub(crate) fn pass(&self) {
        let counted = self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        assert_ne!(counted, Ok(1), "the one who builds is told to die");
    }
}

/// What is listed: status and greatest price by native symbol.
type Listing = Arc<Mutex<BTreeMap<&'static str, (&'static str, &'static str)>>>;

fn body(listing: &Listing) -> String {
    let row = |(base, (status, max)): (&&str, &(&str, &str))| {
        format!(
            r#"{{"symbol":"{base}USDT","status":"{status}","baseAsset":"{base}","quoteAsset":"USDT","filters":[
            {{"filterType":"PRICE_FILTER","maxPrice":"{max}","tickSize":"0.01"}},
            {{"filterType":"LOT_SIZE","maxQty":"1000","stepSize":"0.001"}}]}}"#
        )
    };
    let rows: Vec<String> = listing.lock().unwrap().iter().map(row).collect();
    format!(r#"{{"symbols":[{}]}}"#, rows.join(","))
}

/// Answers `exchangeInfo` with the listing and everything else with 404.
#[allow(clippy::disallowed_methods, reason = "the server ends with its test")]
async fn exchange(listing: Listing) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    actix_rt::spawn(async move {
        loop {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            let listing = listing.clone();
            actix_rt::spawn(async move {
                let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read(&mut chunk).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => head.extend_from_slice(&chunk[..read]),
                    }
                }
                let asked = head.windows(12).any(|part| part == b"exchangeInfo");
                let (status, body) =
                    if asked { ("200 OK", body(&listing)) } else { ("404 Not Found", String::new()) };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// A planned market of which nothing runs, whose venue lists these bases.
pub(crate) fn plan_of(bases: &[&str], clock: &Clock) -> MarketRuntime {
    let rows: Vec<Instrument> = bases.iter().map(|base| (*instrument(Market::Spot, base)).clone()).collect();
    let market = market(([127, 0, 0, 1], 1).into(), &[]);
    let catalogue = Catalogue::new(rows);
    let inputs = Inputs { market: &market, wishes: &[], catalogue: &catalogue, volumes: None, now_us: 0 };
    let Planned { table, plan, .. } = replan::first(&inputs).unwrap();
    let runtime = MarketRuntime::new(market.venue, market.market, table, plan, false, clock);
    runtime.catalogue.store(Arc::new(catalogue));
    runtime
}

struct Bench {
    world: World,
    spec: MarketSpec,
    listing: Listing,
    rows: Inbox<Batch>,
}

fn tiers() -> Vec<TierSpec> {
    let spec = |tier, symbols, per_shard| TierSpec {
        tier,
        symbols,
        per_shard,
        depth: DepthSpeed::Slow,
        snapshot_levels: 100,
        redundancy: Redundancy::Single,
    };
    vec![spec(Tier::High, 2, 2), spec(Tier::Low, 100, 2)]
}

/// A market at this address that wants these symbols.
pub(crate) fn market(rest: SocketAddr, symbols: &[&str]) -> MarketSettings {
    let mut endpoints = binance().endpoints(Market::Spot);
    endpoints = Endpoints { rest: format!("http://{rest}"), ..endpoints };
    endpoints.ws.values_mut().for_each(|address| *address = "ws://127.0.0.1:1".into());
    MarketSettings {
        venue: binance(),
        market: Market::Spot,
        endpoints,
        tls: TlsConfig::default().client_config().unwrap(),
        symbols: symbols.iter().map(|&symbol| symbol.to_owned()).collect(),
        tiers: tiers(),
        timeframes: Vec::new(),
        raw_trades: false,
        ticker: false,
        by_volume: false,
        refresh_every: Duration::from_secs(3600),
        budget_ceiling: None,
    }
}

fn settings(market: MarketSettings) -> Settings {
    Settings {
        markets: vec![market],
        symbols_file: None,
        depth: depth_settings(),
        book: book_settings(),
        stream: StreamSettings {
            reconnect: ReconnectRules {
                backoff: Backoff::default(),
                threshold: Threshold { failures: 100, window: Duration::from_secs(60) },
                breaker: BreakerSpec::default(),
            },
            liveness: LivenessRules::default(),
            rotate_after: None,
        },
        writer: WriterSettings {
            inbox: 64,
            flush: FlushRules { rows: 1, age: Duration::ZERO },
            limits: Limits::default(),
            write_deadline: LONG,
            hung_after: LONG,
            retention: Vec::new(),
            retention_every: LONG,
            rollup_every: LONG,
        },
        history: HistorySettings {
            catch_up: false,
            from_ms: None,
            page: 10,
            retry: Retry { max: 1, delay: Duration::from_secs(1) },
        },
        redis: None,
    }
}

impl Bench {
    /// A venue that lists these bases and a market that wants these symbols; building breaks off at the n-th actor.
    async fn new(listed: &[&'static str], wanted: &[&str], dies_at: u32) -> Self {
        Self::with_file(listed, wanted, dies_at, None).await
    }

    async fn with_file(
        listed: &[&'static str],
        wanted: &[&str],
        dies_at: u32,
        file: Option<PathBuf>,
    ) -> Self {
        fathom_transport::install_provider();
        let world = World::real();
        let listing = Listing::default();
        listing.lock().unwrap().extend(listed.iter().map(|&base| (base, ("TRADING", "1000"))));
        let market = market(exchange(listing.clone()).await, wanted);
        let settings = Arc::new(settings(market.clone()));
        let directory = Arc::new(Directory::default());
        let operations = world.control.operation_log().clone();
        let symbols =
            Symbols::new(&settings.markets, file, directory.clone(), operations, world.clock.clone());
        let (writer, rows) = bounded("rows", 1024, Overflow::Fault, &world.clock);
        let utc = utc_clock(&world.clock);
        let budget = RestBudget::new(utc.clone());
        let host = fathom_transport::rest::host_key(&market.endpoints.rest).unwrap();
        budget.configure(&host, binance().budget_rules(Market::Spot), None);
        let boards = vec![Arc::new(MinuteBoard::new(BINANCE, Market::Spot))];
        let spec = MarketSpec {
            desk: symbols.desk(BINANCE, Market::Spot).unwrap().clone(),
            symbols,
            control: world.control.clone(),
            supervisor: world.kernel.supervisor(),
            directory,
            boards: Arc::new(Boards::new(boards, Vec::new())),
            writer: writer.into(),
            live: Arc::new(Fanout::new(world.clock.clone())),
            store: Arc::new(FakeStore::default()),
            rest: RestClient::new(budget, market.tls.clone(), utc).unwrap(),
            fault: FaultPoint(Arc::new(AtomicU32::new(dies_at))),
            market,
            settings,
        };
        let of = spec.clone();
        let child = ChildSpec::builder(market_id("binance", "spot"), Kind("venue"), move |life| {
            MarketSupervisor::new(life, of.clone())
        });
        world.kernel.supervisor().spawn_detached(patient(child).build()).unwrap();
        Self { world, spec, listing, rows }
    }

    fn books(&self) -> Vec<BookEntry> {
        self.spec.directory.books(BINANCE, Market::Spot)
    }

    /// The collected symbols with the shards that they live in.
    fn homes(&self) -> Vec<String> {
        let home = |book: &BookEntry| {
            let shard = book.shard.strip_prefix("binance-spot-").unwrap();
            format!("{} {shard}", book.cell.instrument.base)
        };
        self.books().iter().map(home).collect()
    }

    async fn collects(&self, expected: &[&str]) {
        let so = eventually(LONG, || self.homes() == expected && !self.spec.desk.is_due()).await;
        let detail = self.world.control.detail::<MarketDetail>(&market_id("binance", "spot").into());
        assert!(so, "{:?} instead of {expected:?}: {detail:?}", self.homes());
        let members = |at_ms| {
            let board = self.spec.boards.get(BINANCE, Market::Spot).unwrap();
            board.close(at_ms).map(|view| view.members.len())
        };
        // Far in the future, and later each time: a boundary is closed once.
        let at_ms = self.world.clock.now_us() / 1000 + 3_600_000;
        assert_eq!(members(at_ms), Some(expected.len()), "the board counts on nobody else");
    }

    fn list(&self, base: &'static str, status: &'static str, max: &'static str) {
        self.listing.lock().unwrap().insert(base, (status, max));
    }

    /// As a line does when the venue announces a change.
    fn nudge(&self) {
        self.spec.desk.listings.store(true, Relaxed);
    }

    fn missing(&self) -> Vec<String> {
        let runtime = self.spec.directory.runtime(BINANCE, Market::Spot).unwrap();
        runtime.missing.load().iter().map(|one| format!("{} {}", one.symbol, one.reason)).collect()
    }

    /// The stored status of each new validity row.
    fn stored(&self) -> Vec<(String, String)> {
        let mut stored = Vec::new();
        while let Some(batch) = self.rows.try_recv() {
            if batch.table() != Table::Instruments {
                continue;
            }
            let text = |name: &str| {
                let at = batch.schema().columns.iter().position(|column| column.name == name).unwrap();
                let Column::Text(texts) = &batch.columns()[at] else { panic!("{name} is no text") };
                texts.clone()
            };
            stored.extend(text("base").into_iter().zip(text("status")));
        }
        stored
    }

    fn generations(&self) -> BTreeMap<String, u64> {
        let actors = self.world.control.health().actors.into_iter();
        let down = actors.filter(|actor| actor.state != State::Stopped);
        down.map(|actor| (actor.id.to_string(), actor.generation)).collect()
    }

    async fn over(&self, operation: &OperationId) -> Operation {
        let get = || self.world.control.operation(operation).unwrap();
        assert!(eventually(LONG, || get().finished_us.is_some()).await, "{:?}", get());
        get()
    }

    fn begin(&self, command: &Command) -> Result<OperationId, SymbolError> {
        self.spec.symbols.begin(command, Reach::default(), "test")
    }
}

fn add(symbol: &str) -> Command {
    Command::Add { symbols: vec![symbol.into()], tier: None }
}

fn remove(symbol: &str) -> Command {
    Command::Remove { symbols: vec![symbol.into()] }
}

#[actix_rt::test]
async fn one_who_dies_in_the_middle_goes_on_where_it_stopped() {
    // Three books, then two shards: at the first, in the middle of the books, between the kinds, at the last.
    for dies_at in [1, 2, 4, 5] {
        let bench = Bench::new(&["BTC", "ETH", "SOL"], &["BTCUSDT", "ETHUSDT", "SOLUSDT"], dies_at).await;
        bench.collects(&["BTC high-0", "ETH high-0", "SOL low-0"]).await;
        let supervisor: ActorId = market_id("binance", "spot").into();
        let health = bench.world.control.actor(&supervisor).unwrap();
        assert_eq!((health.exits.panics, health.generation), (1, 2), "at {dies_at}");
        let up = || bench.generations().values().filter(|generation| **generation > 0).count() == 7;
        assert!(eventually(LONG, up).await, "{:?}", bench.generations());
        let children: Vec<_> = bench
            .generations()
            .into_iter()
            .filter(|(id, generation)| id != supervisor.as_str() && *generation != 1)
            .collect();
        assert_eq!(children, [], "those that were there were left alone");
    }
}

#[actix_rt::test]
async fn listings_and_delistings_are_noticed_and_nobody_else_is_touched() {
    let bench = Bench::new(&["BTC", "ETH"], &["BTC/USDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"], 0).await;
    bench.collects(&["BTC high-0", "ETH high-0"]).await;
    assert_eq!(bench.missing(), ["SOLUSDT not_listed", "XRPUSDT not_listed"]);
    assert_eq!(bench.stored().len(), 2);
    let up = || bench.generations().values().all(|generation| *generation > 0);
    assert!(eventually(LONG, up).await, "{:?}", bench.generations());
    let before = bench.generations();

    bench.list("SOL", "TRADING", "1000");
    bench.nudge();
    bench.collects(&["BTC high-0", "ETH high-0", "SOL low-0"]).await;
    assert_eq!(bench.missing(), ["XRPUSDT not_listed"]);

    bench.listing.lock().unwrap().remove("ETH");
    bench.list("SOL", "BREAK", "1000");
    bench.nudge();
    bench.collects(&["BTC high-0"]).await;
    assert_eq!(bench.missing(), ["ETHUSDT not_listed", "SOLUSDT not_trading", "XRPUSDT not_listed"]);
    let row = |base: &str, status: &str| (base.to_owned(), status.to_owned());
    assert_eq!(bench.stored(), [row("SOL", "trading"), row("ETH", "other"), row("SOL", "halted")]);
    let is_over = || bench.spec.directory.shard("binance-spot-low-0").is_none();
    assert!(eventually(LONG, is_over).await, "a shard ends with its last symbol");

    bench.list("ETH", "TRADING", "1000");
    bench.nudge();
    bench.collects(&["BTC high-0", "ETH high-0"]).await;
    assert_eq!(bench.stored(), [row("ETH", "trading")]);
    let now = bench.generations();
    for id in ["book/binance/spot/BTCUSDT", "shard/binance-spot-high-0", "history/binance/spot"] {
        assert_eq!(now[id], before[id], "{id}");
    }
}

#[actix_rt::test]
async fn a_book_whose_units_changed_begins_again_and_no_other() {
    let bench = Bench::new(&["BTC", "ETH"], &["BTCUSDT", "ETHUSDT"], 0).await;
    bench.collects(&["BTC high-0", "ETH high-0"]).await;
    let scale = |base: &str| {
        let book = bench.spec.directory.book(BINANCE, Market::Spot, &format!("{base}USDT"));
        book.map(|book| book.cell.instrument.price_scale)
    };
    let cells: Vec<_> = bench.books().into_iter().map(|book| book.cell).collect();
    assert_eq!((scale("BTC"), scale("ETH")), (Some(8), Some(8)));
    bench.list("BTC", "TRADING", "100000000000");
    bench.nudge();
    assert!(eventually(LONG, || scale("BTC").is_some_and(|scale| scale < 8)).await, "{:?}", scale("BTC"));
    bench.collects(&["BTC high-0", "ETH high-0"]).await;
    let books = bench.books();
    assert!(!Arc::ptr_eq(&books[0].cell, &cells[0]));
    assert!(Arc::ptr_eq(&books[1].cell, &cells[1]), "the other one was left alone");
}

#[actix_rt::test]
async fn operators_change_what_is_wanted_and_it_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("symbols.json");
    let (listed, wanted) = (["BTC", "ETH", "SOL"], ["BTCUSDT", "ETHUSDT"]);
    let bench = Bench::with_file(&listed, &wanted, 0, Some(file.clone())).await;
    bench.collects(&["BTC high-0", "ETH high-0"]).await;
    let refused = |command: &Command| bench.begin(command).unwrap_err();
    let twice = refused(&add("btc/usdt"));
    assert_eq!(
        (twice.code(), twice.to_string().as_str()),
        ("duplicate_symbol", "Symbol BTC/USDT already exists")
    );
    assert_eq!(refused(&add("NOPEUSDT")).code(), "symbol_not_found");
    assert_eq!(refused(&remove("SOLUSDT")).code(), "symbol_not_found");
    assert_eq!(refused(&add("!")).code(), "invalid_command");

    let removed = bench.begin(&remove("BTC/USDT")).unwrap();
    bench.spec.symbols.save(&removed).await.unwrap();
    let added = bench.begin(&add("SOL/USDT")).unwrap();
    bench.spec.symbols.save(&added).await.unwrap();
    let removed = bench.over(&removed).await;
    assert_eq!((removed.state, removed.kind, removed.error), (OperationState::Done, "symbols.remove", None));
    bench.collects(&["ETH high-0", "SOL high-0"]).await;
    assert_eq!(bench.spec.symbols.names(Reach::default()), ["ETHUSDT", "SOLUSDT"]);
    let added = bench.world.control.operation(&added).unwrap();
    assert_eq!(added.finished_us, None, "its book is not live");

    let next = Bench::with_file(&listed, &wanted, 0, Some(file)).await;
    next.collects(&["ETH high-0", "SOL high-0"]).await;
    let views = next.spec.symbols.views(Reach::default(), next.world.clock.now_us());
    let seen: Vec<_> = views.iter().map(|view| (view.symbol.as_str(), view.state, view.tier)).collect();
    assert_eq!(seen, [("ETHUSDT", "collected", Some("high")), ("SOL/USDT", "collected", Some("high"))]);

    let tier = Command::Add { symbols: vec!["BTCUSDT".into()], tier: Some(Tier::Low) };
    next.begin(&tier).unwrap();
    next.collects(&["BTC low-0", "ETH high-0", "SOL high-0"]).await;
    next.begin(&Command::Set { symbols: vec!["SOLUSDT".into(), "BTCUSDT".into()] }).unwrap();
    next.collects(&["BTC low-0", "SOL high-0"]).await;
}

#[actix_rt::test]
async fn facts_that_the_writer_cannot_take_wait_and_hold_up_nothing() {
    let bench = Bench::new(&["BTC"], &["BTCUSDT", "SOLUSDT"], 0).await;
    bench.collects(&["BTC high-0"]).await;
    let filler = || Batch::of([crate::instruments::row(&instrument(Market::Spot, "FILL"))]);
    while bench.spec.writer.hand(filler()).is_ok() {}
    bench.list("SOL", "TRADING", "1000");
    bench.nudge();
    bench.collects(&["BTC high-0", "SOL high-0"]).await;
    let came = || bench.stored().iter().any(|(base, _)| base == "SOL");
    assert!(eventually(LONG, came).await, "stored once there is room");
}

#[actix_rt::test]
async fn a_book_that_is_restarted_too_often_takes_its_shard_with_it_and_nobody_else() {
    let bench = Bench::new(&["BTC", "ETH", "SOL"], &["BTCUSDT", "ETHUSDT", "SOLUSDT"], 0).await;
    bench.collects(&["BTC high-0", "ETH high-0", "SOL low-0"]).await;
    let control = &bench.world.control;
    let is_escalated = |id: &str| {
        let history = control.history(&id.into()).unwrap_or_default();
        history.iter().any(|record| record.cause == "escalation")
    };
    let book = ActorId::from("book/binance/spot/BTCUSDT");
    let panicked = || {
        // Refused while it is down.
        let _ = control.inject(&book, Inject::Panic);
        is_escalated("shard/binance-spot-high-0")
    };
    assert!(eventually(LONG, panicked).await, "{:?}", control.history(&book));
    assert!(eventually(LONG, || is_escalated("book/binance/spot/ETHUSDT")).await);
    for other in ["book/binance/spot/SOLUSDT", "shard/binance-spot-low-0", "history/binance/spot"] {
        assert!(!is_escalated(other), "{other}");
    }
}
