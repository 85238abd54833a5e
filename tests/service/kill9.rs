//! The service is killed in the middle of its work and started again on the same database.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde_json::json;
use sqlx::Row;
use tempfile::TempDir;

use xtask::suite::kind::Kind;

use crate::harness::{Service, Simulator, check, eventually, program, some};
use crate::suite::{holds, number, options};

const SYMBOLS: [&str; 8] =
    ["BTCUSDT", "ETHUSDT", "XRPUSDT", "BNBUSDT", "SOLUSDT", "TRXUSDT", "DOGEUSDT", "ADAUSDT"];
const NEXT_BOUNDARY: Duration = Duration::from_secs(100);
const GROWS_WITHIN: Duration = Duration::from_secs(60);
/// What was sent so long before a kill is committed.
const COMMITTED_WITHIN_MS: i64 = 10_000;
/// Trades that a generation has to store before it is killed.
const WORTH_KILLING: i64 = 200;

const TRADES: &str = "select count(*) from trades_raw";
const CATEGORIES: &str = "select count(*) from category_snapshots_raw";

/// What is committed at a moment.
#[derive(Default)]
struct Stored {
    trades: BTreeSet<String>,
    categories: BTreeMap<String, String>,
}

impl Stored {
    fn read(service: &Service) -> Self {
        let trades =
            service.db.rows("select instrument_id || ' ' || kind || ' ' || trade_id from trades_raw");
        let categories = service.db.rows(
            "select scope || ' ' || market_type || ' ' || category || ' ' || depth || ' ' || timestamp_ms,
                    created_us || ' ' || total_bid_volume_usd || ' ' || symbol_count
             from category_snapshots_raw",
        );
        Self {
            trades: trades.iter().map(|row| row.get(0)).collect(),
            categories: categories.iter().map(|row| (row.get(0), row.get(1))).collect(),
        }
    }

    /// Everything of this is in the other, as it was: the first commit of a minute holds for good.
    fn is_kept_in(&self, later: &Self) {
        let lost: Vec<_> = self.trades.difference(&later.trades).take(5).collect();
        assert!(lost.is_empty(), "stored trades are gone: {lost:?}");
        for (key, was) in &self.categories {
            assert_eq!(later.categories.get(key), Some(was), "{key}");
        }
    }
}

fn start(name: &str, folder: &Path, simulator: &Simulator) -> Service {
    let symbols = json!(SYMBOLS);
    let settings = ["spot", "futures"].map(|market| format!("venues.binance.{market}.symbols={symbols}"));
    Service::start_as(name, folder, simulator, &settings.each_ref().map(String::as_str))
}

/// Waits until a count has grown beyond what it was.
fn grown(service: &Service, what: &str, sql: &str, before: i64, deadline: Duration) {
    eventually(what, deadline, || {
        let now = service.db.number_or_zero(sql);
        check(now > before, || format!("{now} after {before}"))
    });
}

fn nothing_is_doubled(service: &Service) {
    let doubled = [
        "select count(*) from (select venue, market, symbol, kind, trade_id from trades
            group by 1, 2, 3, 4, 5 having count(*) > 1)",
        "select count(*) from (select venue, market, symbol, timeframe, timestamp from candles
            group by 1, 2, 3, 4, 5 having count(*) > 1)",
        "select count(*) from (select scope, market_type, category, depth, timestamp from category_snapshots
            group by 1, 2, 3, 4, 5 having count(*) > 1)",
        "select count(*) from (select venue, market, symbol, depth, timestamp from symbol_snapshots
            group by 1, 2, 3, 4, 5 having count(*) > 1)",
        "select count(*) from category_snapshots where timestamp % 60000 <> 0",
    ];
    for sql in doubled {
        assert_eq!(service.db.number(sql), 0, "{sql}");
    }
    let shown = service.db.number("select count(*) from trades");
    assert!(shown <= service.db.number(TRADES) && shown > 0, "{shown} trades are shown");
    let sound: String = service.db.rows("pragma integrity_check")[0].get(0);
    assert_eq!(sound, "ok");
}

/// Whatever any life was sent, and had the time to commit, is stored. Gives the number of those trades.
fn nothing_committed_is_lost(service: &Service, simulator: &Simulator, killed_ms: &[i64]) -> usize {
    let until_ms = simulator.now_ms();
    let hasty =
        |sent_ms: i64| killed_ms.iter().any(|kill| (0..COMMITTED_WITHIN_MS).contains(&(kill - sent_ms)));
    let due = |market: &str| {
        let trades = simulator.trades(market).into_iter().filter(|trade| trade.channel == "aggTrade");
        let due =
            trades.filter(|trade| trade.delivered && trade.sent_ms <= until_ms && !hasty(trade.sent_ms));
        due.map(|trade| format!("{market} {} {}", trade.symbol, trade.id)).collect::<Vec<_>>()
    };
    let due: Vec<String> = ["spot", "futures"].into_iter().flat_map(due).collect();
    eventually("every trade delivered in time is stored", GROWS_WITHIN, || {
        let rows = service
            .db
            .rows("select market || ' ' || symbol || ' ' || trade_id from trades where kind = 'agg'");
        let stored: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let missing: Vec<_> = due.iter().filter(|trade| !stored.contains(*trade)).collect();
        check(missing.is_empty(), || format!("of {} are missing {}", due.len(), some(&missing)))
    });
    due.len()
}

#[test]
fn a_killed_service_starts_again_and_goes_on() {
    let folder = TempDir::new().expect("folder");
    let names = SYMBOLS.join(",");
    let simulator = Simulator::start(&program(), folder.path(), &["--names", &names, "--rate", "250"]);
    let mut before = Stored::default();
    let (mut pids, mut killed_ms) = (BTreeSet::new(), Vec::new());
    for life in 1..=3 {
        let mut service = start(&format!("life-{life}"), folder.path(), &simulator);
        assert!(pids.insert(service.http.json("/api/v1/version")["pid"].as_u64().expect("a pid")));
        let trades = before.trades.len() as i64 + WORTH_KILLING;
        grown(&service, "trades are stored", TRADES, trades, GROWS_WITHIN);
        if life == 1 {
            // Killed right after the rows of a minute appear.
            grown(&service, "a category's minute is stored", CATEGORIES, 0, NEXT_BOUNDARY);
        }
        let stored = Stored::read(&service);
        before.is_kept_in(&stored);
        before = stored;
        service.process.signal("KILL");
        killed_ms.push(simulator.now_ms());
        assert!(!service.process.ended(GROWS_WITHIN).success());
    }
    let service = start("life-4", folder.path(), &simulator);
    assert!(pids.insert(service.http.json("/api/v1/version")["pid"].as_u64().expect("a pid")));
    service.await_live(2 * SYMBOLS.len() as u64, GROWS_WITHIN);
    let rows = before.categories.len() as i64;
    grown(&service, "categories go on after the kills", CATEGORIES, rows, NEXT_BOUNDARY);
    grown(&service, "trades go on", TRADES, before.trades.len() as i64, GROWS_WITHIN);
    let after = Stored::read(&service);
    before.is_kept_in(&after);
    nothing_is_doubled(&service);
    let compared = nothing_committed_is_lost(&service, &simulator, &killed_ms);
    eprintln!(
        "{compared} delivered trades compared; {} trades and {} category rows outlived three kills; {} and {} at the end",
        before.trades.len(),
        before.categories.len(),
        after.trades.len(),
        after.categories.len()
    );
    service.stop("TERM");
}

/// Kills at random moments under load. After each start every book is true again; at the end each trade that was made is
/// stored once, the accounts are even, and the hole of each kill is in the ledger, to the message.
/// `FATHOM_TEST_KILLS=50 FATHOM_TEST_RATE=7000` is the whole of it: about 20 000 messages a second.
#[test]
fn kills_at_random_moments_lose_nothing_that_was_accepted() {
    let kills = number("FATHOM_TEST_KILLS", 6);
    let mut options = options(0, number("FATHOM_TEST_RATE", 1_000) as f64);
    options.every = Duration::from_secs(4);
    // Each takes longer than that; the schedule ends with its last kill, not with its time.
    options.span = options.every * u32::try_from(kills).expect("a number of kills") * 10;
    options.faults = Some(kills as usize);
    options.only = vec![Kind::Kill];
    let report = holds(&options);
    assert_eq!(report.outcomes.len() as u64, kills);
    assert!(report.outcomes.iter().all(|outcome| outcome.healed.is_some()), "{:?}", report.outcomes);
}
