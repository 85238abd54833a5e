//! The server is killed again and again while rows come in. The market's side of the service must not notice: no shard
//! starts again, no line connects again, no book is in doubt. At the end every row is somewhere, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fathom_testkit::{Database, Private, Server};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::suite::tail::{Made, Tail};

use super::db::ServerDb;
use crate::{
    harness::{Service, Simulator, check, eventually, program, some},
    suite::number,
};

const SYMBOLS: [&str; 8] =
    ["BTCUSDT", "ETHUSDT", "XRPUSDT", "BNBUSDT", "SOLUSDT", "TRXUSDT", "DOGEUSDT", "ADAUSDT"];
const LIVE_WITHIN: Duration = Duration::from_secs(120);
const DRAINED_WITHIN: Duration = Duration::from_secs(300);
const MINUTE_MS: i64 = 60_000;
/// What was sent so shortly before the end may be on its way.
const SETTLED_MS: i64 = 10_000;
/// Rows of one key can only be told apart by the store, so these say whether something was stored twice or not at all.
const COUNTED: [&str; 4] = ["category_snapshots_raw", "symbol_snapshots_raw", "bt_1s_raw", "trade_1s_raw"];
const RAW: [&str; 3] = ["trades_raw", "book_ticker_raw", "depth_events_raw"];

#[test]
fn postgres_killed_under_load_loses_nothing_and_touches_no_shard() {
    killed_under_load(Server::Postgres, "postgres", &["raw.book_ticker=true", "raw.depth_events=true"]);
}

#[test]
fn mariadb_killed_under_load_loses_nothing_and_touches_no_shard() {
    killed_under_load(Server::Mariadb, "mariadb", &["raw.trades=false"]);
}

struct Run {
    // The database goes before its server.
    database: Database,
    private: Private,
    simulator: Simulator,
    service: Service,
    kind: &'static str,
    keeps_raw: bool,
    _folder: TempDir,
}

fn killed_under_load(server: Server, kind: &'static str, raw: &[&str]) {
    let Some(private) = Private::start(server) else { return };
    let kills = number("FATHOM_TEST_STORE_KILLS", 3);
    let mut run = Run::start(server, kind, private, raw);
    let tail = Tail::start(run.simulator.control());
    let shards = run.shards();
    let (begun_ms, begun) = (run.simulator.now_ms(), run.accepted());
    for kill in 1..=kills {
        run.kill(kill == 1);
        assert_eq!(run.shards(), shards, "after kill {kill}");
    }
    run.minute_after();
    let (ended_ms, ended) = (run.simulator.now_ms(), run.accepted());
    assert_eq!(run.shards(), shards, "at the end");
    let made = tail.end(ended_ms - SETTLED_MS);
    run.hold();
    let accounts = run.settled();
    run.rows_are_those_of_the_accounts(&accounts);
    run.minutes_are_complete(&made, begun_ms);
    let trades = run.trades_are_stored_once(&made, begun_ms);
    let candles = run.candles_are_stored(&made, begun_ms);
    let rate = (ended - begun) * 1000 / (ended_ms - begun_ms).max(1);
    eprintln!(
        "{kind}: {kills} kills, {rate} rows a second over {} s, {ended} rows accepted; {trades} trades and {candles} candles \
         compared",
        (ended_ms - begun_ms) / 1000
    );
    run.service.stop("TERM");
}

impl Run {
    fn start(server: Server, kind: &'static str, private: Private, raw: &[&str]) -> Self {
        let database = Database::at(server, private.url());
        let folder = TempDir::new().expect("folder");
        let (names, rate) = (SYMBOLS.join(","), number("FATHOM_TEST_RATE", 300).to_string());
        let simulator = Simulator::start(
            &program(),
            folder.path(),
            &["--names", &names, "--rate", &rate, "--levels", "1500", "--ledger", "1000000"],
        );
        let symbols = json!(SYMBOLS);
        let mut settings: Vec<String> = ["spot", "futures"]
            .iter()
            .map(|market| format!("venues.binance.{market}.symbols={symbols}"))
            .collect();
        settings.extend([format!("store.kind={kind}"), format!("store.url={}", database.url())]);
        settings.push(r#"candles.timeframes=["1m", "5m"]"#.to_owned());
        settings.push("tiers.high.snapshot_levels=1000".to_owned());
        settings.extend(raw.iter().map(|setting| (*setting).to_owned()));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let service = Service::start(folder.path(), &simulator, &settings);
        let keeps_raw = server == Server::Postgres;
        let run = Self { database, private, simulator, service, kind, keeps_raw, _folder: folder };
        run.service.await_live(2 * SYMBOLS.len() as u64, LIVE_WITHIN);
        run.awaits("rows are stored", |sink| figure(sink, "stored") > 1000);
        run
    }

    /// The store's sink; equal on both sides in every answer.
    fn sink(&self) -> Value {
        self.service.http.json("/api/v1/sinks/store")
    }

    fn accepted(&self) -> i64 {
        figure(&self.sink(), "accepted")
    }

    fn awaits(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{}: {what}", self.kind), DRAINED_WITHIN, || {
            let sink = self.sink();
            if is_so(&sink) { Ok(sink) } else { Err(format!("{sink:.900}")) }
        })
    }

    /// Generation and reconnects of each shard.
    fn shards(&self) -> BTreeMap<String, (u64, u64)> {
        let listed = self.service.http.json("/api/v1/shards");
        let of = |shard: &Value| {
            let lines = shard["lines"].as_array().expect("lines").iter();
            let reconnects = lines.map(|line| line["reconnects"].as_u64().expect("a count")).sum();
            (
                shard["id"].as_str().expect("an id").to_owned(),
                (shard["generation"].as_u64().expect("one"), reconnects),
            )
        };
        listed["shards"].as_array().expect("shards").iter().map(of).collect()
    }

    /// One kill: rows go on to be accepted and wait, and all of them leave when the server is back. `over_a_boundary` holds
    /// the server away while a minute ends.
    fn kill(&mut self, over_a_boundary: bool) {
        if over_a_boundary {
            eventually("the end of a minute is near", Duration::from_secs(70), || {
                let second = self.simulator.now_ms() % MINUTE_MS / 1000;
                check((52..58).contains(&second), || format!("{second} s"))
            });
        }
        let (before, at_ms) = (self.accepted(), self.simulator.now_ms());
        self.private.kill();
        self.awaits("the store is seen to be away and rows wait", |sink| {
            sink["reachable"] == false
                && sink["spool"]["rows"].as_i64() > Some(500)
                && figure(sink, "accepted") > before
        });
        if over_a_boundary {
            eventually("a minute has ended without the store", Duration::from_secs(30), || {
                let now_ms = self.simulator.now_ms();
                check(now_ms / MINUTE_MS > at_ms / MINUTE_MS && now_ms % MINUTE_MS > 3_000, || {
                    format!("{now_ms}")
                })
            });
        }
        assert_eq!(self.service.http.get("/livez").expect("it answers").status, 200);
        let books = self.service.books();
        assert_eq!(books.keys().collect::<Vec<_>>(), ["live"], "{books:?}");
        let stored = figure(&self.sink(), "stored");
        self.private.restart();
        self.awaits("what waited is stored", |sink| {
            sink["reachable"] == true
                && figure(sink, "stored") > stored
                && sink["spool"]["oldest_ms"].as_i64().is_none_or(|oldest| oldest < 5_000)
        });
    }

    /// Waits for a whole minute after the last kill.
    fn minute_after(&self) {
        let wanted = self.simulator.now_ms() / MINUTE_MS * MINUTE_MS + MINUTE_MS;
        let db = self.db();
        eventually("a minute after the last kill is stored", Duration::from_secs(120), || {
            let last = db.number("max(timestamp_ms)", "category_snapshots_raw");
            check(last >= wanted, || format!("{last} of {wanted}"))
        });
    }

    const fn server(&self) -> Server {
        if self.keeps_raw { Server::Postgres } else { Server::Mariadb }
    }

    fn db(&self) -> ServerDb {
        ServerDb::new(self.server(), self.database.url())
    }

    /// Nothing new comes in.
    fn hold(&self) {
        for shard in self.shards().keys() {
            let path = format!("/api/v1/shards/{shard}/pause");
            let answer = self.service.http.put(&path, &json!({"reason": "counting"})).expect("it answers");
            assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.body);
        }
    }

    /// Both equations hold, and everything accepted is in the store.
    fn settled(&self) -> Value {
        let mut last = None;
        eventually("every row is stored and nothing more comes", DRAINED_WITHIN, || {
            let sink = self.sink();
            let still = sink["offered"]["waiting"] == 0 && figure(&sink, "spooled") == 0;
            let same = last.replace(sink["offered"].clone()) == Some(sink["offered"].clone());
            check(still && same, || format!("{sink:.900}"))?;
            assert_eq!(sink["balanced"], true, "{sink:#}");
            assert_eq!(figure(&sink, "quarantined"), 0, "{sink:#}");
            assert_eq!(sink["offered"]["refused"], 0, "{sink:#}");
            Ok(sink)
        })
    }

    /// A commit whose answer was lost in a kill is counted as a duplicate when it comes again.
    fn rows_are_those_of_the_accounts(&self, sink: &Value) {
        let raw = if self.keeps_raw { &RAW[..] } else { &[] };
        for table in COUNTED.iter().chain(raw) {
            let figures = &sink["tables"][table];
            let of =
                |name: &str| figures[name].as_i64().unwrap_or_else(|| panic!("{name} of {table}: {figures}"));
            let rows = self.db().number("count(*)", table);
            let known = of("stored")..=of("stored") + of("duplicate");
            assert!(known.contains(&rows) && rows > 0, "{table}: {rows} rows, {figures}");
        }
    }

    /// Each minute from the first stored one on has each category, market and depth once.
    fn minutes_are_complete(&self, made: &Made, begun_ms: i64) {
        assert!(made.lost.is_empty(), "{:?}", made.lost);
        let from = "category_snapshots_raw group by timestamp_ms order by timestamp_ms";
        let each = "concat(scope, ' ', market_type, ' ', category, ' ', depth)";
        let rows = self.db().rows(&["timestamp_ms", "count(*)", &format!("count(distinct {each})")], from);
        let read = |cell: &Option<String>| cell.as_deref().unwrap_or("").parse::<i64>().expect("a number");
        let minutes: Vec<_> = rows.iter().map(|row| (read(&row[0]), read(&row[1]), read(&row[2]))).collect();
        let whole = minutes.iter().map(|minute| minute.1).max().unwrap_or(0);
        for pair in minutes.windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, MINUTE_MS, "a minute is missing: {minutes:?}");
        }
        for (minute, rows, distinct) in &minutes {
            assert_eq!((rows, distinct), (&whole, &whole), "minute {minute}: {minutes:?}");
        }
        assert!(minutes.len() >= 2 && minutes[0].0 >= begun_ms - 2 * MINUTE_MS, "{minutes:?}");
    }

    /// Every trade that was sent is stored; its key makes it once.
    fn trades_are_stored_once(&self, made: &Made, begun_ms: i64) -> usize {
        if !self.keeps_raw {
            return 0;
        }
        let rows = self.db().rows(&["market", "symbol", "trade_id"], "trades where kind = 'agg'");
        let mut stored = BTreeSet::new();
        for row in &rows {
            assert!(stored.insert(row.clone()), "{row:?} is stored twice");
        }
        let text = |text: &str| Some(text.to_owned());
        let mut compared = 0;
        let mut missing = Vec::new();
        for (target, trades) in &made.trades {
            for trade in trades.iter().filter(|trade| trade.delivered && trade.sent_ms >= begun_ms) {
                compared += 1;
                let key = vec![text(target.market), text(&target.symbol), text(&trade.id.to_string())];
                if !stored.contains(&key) {
                    missing.push(key);
                }
            }
        }
        assert!(missing.is_empty(), "of {compared} trades are missing {}", some(&missing));
        assert!(compared > 1000, "only {compared} trades were made");
        compared
    }

    /// Every candle that was closed is stored with its volume.
    fn candles_are_stored(&self, made: &Made, begun_ms: i64) -> usize {
        let columns = ["market", "symbol", "timeframe", "open_time", "trades"];
        let rows = self.db().rows(&columns, "candles");
        let cell = |cell: &Option<String>| cell.clone().unwrap_or_default();
        let stored: BTreeMap<Vec<String>, String> =
            rows.iter().map(|row| (row[..4].iter().map(cell).collect(), cell(&row[4]))).collect();
        assert_eq!(stored.len(), rows.len(), "a candle is shown twice");
        let due = made.klines.iter().filter(|(_, kline)| kline.delivered && kline.sent_ms >= begun_ms);
        let mut compared = 0;
        for (market, kline) in due {
            let key = [market, kline.symbol.as_str(), &kline.interval, &kline.open_ms.to_string()]
                .map(str::to_owned);
            let held = stored.get(key.as_slice());
            assert_eq!(held, Some(&kline.trades.to_string()), "{key:?}");
            compared += 1;
        }
        assert!(compared > 0, "no candle was closed");
        compared
    }
}

fn figure(sink: &Value, name: &str) -> i64 {
    sink["accepted"][name].as_i64().unwrap_or_else(|| panic!("no {name} in {sink:.300}"))
}
