//! A recorded session of the real exchange, served by the simulator: the books of the service are, level for level,
//! those that an independent reading of the recording gives, and every trade is stored once.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::read::MultiGzDecoder;
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::Row;
use tempfile::TempDir;

use crate::harness::{Book, Service, Simulator, check, eventually, fathom, program, some};

/// A session and how it is replayed.
pub(crate) struct Session {
    pub(crate) market: &'static str,
    symbol: &'static str,
    files: &'static [&'static str],
    /// Fast enough that the streams which the recording lacks are not missed before its end.
    speed: &'static str,
}

pub(crate) const SPOT: Session = Session {
    market: "spot",
    symbol: "BTCUSDT",
    files: &["binance/spot/btcusdt_20240808.hftb.gz", "binance/spot/btcusdt_20240809.hftb.gz"],
    speed: "20",
};
const FUTURES: Session = Session {
    market: "futures",
    symbol: "ETHUSDT",
    files: &["binance/usdm/ethusdt_20240808.hftb.gz"],
    speed: "20",
};

const REPLAYED_WITHIN: Duration = Duration::from_secs(180);
pub(crate) const STORED_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_recorded_spot_session_is_kept_exactly() {
    replayed(&SPOT);
}

#[test]
fn a_recorded_futures_session_is_kept_exactly() {
    replayed(&FUTURES);
}

fn captures() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/captures");
    std::env::var_os("FATHOM_CAPTURES").map_or_else(|| default.into(), PathBuf::from)
}

/// The files of a session; `None`, said on standard error, leaves the test out.
pub(crate) fn recording(session: &Session) -> Option<Vec<PathBuf>> {
    let files: Vec<PathBuf> = session.files.iter().map(|file| captures().join(file)).collect();
    if let Some(missing) = files.iter().find(|file| !file.exists()) {
        eprintln!("skipped: no recorded capture {}", missing.display());
        return None;
    }
    Some(files)
}

fn replayed(session: &Session) {
    let Some(files) = recording(session) else { return };
    let truth = Truth::read(session.market, &files);
    let folder = TempDir::new().expect("folder");
    let simulator = simulator(folder.path(), session, &files);
    let service = service(folder.path(), session, &simulator);
    let book = final_book(&service, session, truth.id);
    if let Some(difference) = truth.book().difference(&book) {
        panic!("recorded and served book differ: {difference}");
    }
    let compared = trades_are_stored_once(&service, &simulator, session, &truth);
    replay_prints_the_same(folder.path(), session, &files, &truth);
    eprintln!(
        "{} {}: {} levels and {compared} of {} trades compared",
        session.market,
        session.symbol,
        book.bids.len() + book.asks.len(),
        truth.trades.len()
    );
    service.stop("TERM");
}

pub(crate) fn simulator(folder: &Path, session: &Session, files: &[PathBuf]) -> Simulator {
    let flag = format!("--{}", session.market);
    let names: Vec<&str> = files.iter().map(|file| file.to_str().expect("a name")).collect();
    let mut args = vec!["--speed", session.speed];
    args.extend(names.iter().flat_map(|name| [flag.as_str(), *name]));
    Simulator::start(&program(), folder, &args)
}

fn service(folder: &Path, session: &Session, simulator: &Simulator) -> Service {
    service_on(folder, session, simulator, &[])
}

pub(crate) fn service_on(
    folder: &Path,
    session: &Session,
    simulator: &Simulator,
    further: &[String],
) -> Service {
    let market = session.market;
    let other = if market == "spot" { "futures" } else { "spot" };
    let settings = [
        format!("venues.binance.{other}.enabled=false"),
        format!(r#"venues.binance.{market}.symbols=["{}"]"#, session.symbol),
        format!("venues.binance.{market}.trades=raw"),
        // The session is years old.
        "retention.trades=off".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().chain(further).map(String::as_str).collect();
    Service::start(folder, simulator, &settings)
}

/// The book at the recording's last update, taken at once: when the recording is over the quotes are ahead of the depth,
/// and the book is rightly doubted a moment later.
pub(crate) fn final_book(service: &Service, session: &Session, id: u64) -> Book {
    let book = eventually("the recording's last update is in the book", REPLAYED_WITHIN, || {
        let book = service.book(session.market, session.symbol, "all")?;
        check(book.id == id, || format!("at id {} of {id}", book.id))?;
        Ok(book)
    });
    let actor = format!("book/binance/{}/{}", session.market, session.symbol);
    let detail = service.actor(&actor)["detail"].clone();
    assert_eq!(detail["gaps"], 0, "{detail:#}");
    assert_eq!(detail["resyncs"], 0, "{detail:#}");
    assert!(detail["applied"].as_u64() > Some(1000), "{detail:#}");
    book
}

/// A trade as recorded, by id.
pub(crate) type Trades = BTreeMap<i64, Trade>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trade {
    pub(crate) price: Decimal,
    pub(crate) qty: Decimal,
    pub(crate) ts_ms: i64,
    pub(crate) taker_sold: bool,
}

/// Every recorded trade from the first that was sent to the service; gives their number.
fn trades_are_stored_once(
    service: &Service,
    simulator: &Simulator,
    session: &Session,
    truth: &Truth,
) -> usize {
    let sent = simulator.trades(session.market);
    let first = sent.iter().filter(|trade| !trade.to.is_empty()).map(|trade| trade.id).min();
    let expected: Trades =
        truth.trades.range(first.expect("trades were sent")..).map(|(id, t)| (*id, *t)).collect();
    assert!(expected.len() * 100 >= truth.trades.len() * 99, "{} of {}", expected.len(), truth.trades.len());
    eventually("every trade is stored", STORED_WITHIN, || {
        let stored = stored_trades(service, session.symbol);
        let missing: Vec<_> = expected.keys().filter(|id| !stored.contains_key(id)).collect();
        check(missing.is_empty(), || format!("missing {}", some(&missing)))
    });
    let stored = stored_trades(service, session.symbol);
    let wrong: Vec<_> = expected.iter().filter(|(id, trade)| stored[id] != **trade).collect();
    assert!(wrong.is_empty(), "differ: {}", some(&wrong));
    assert_eq!(stored.len(), expected.len(), "more trades than were sent");
    expected.len()
}

fn stored_trades(service: &Service, symbol: &str) -> HashMap<i64, Trade> {
    let sql = format!(
        "select r.trade_id, r.event_us, r.price_m, r.price_scale, r.qty_m, r.qty_scale, r.side from trades_raw r
         join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null
         where i.native = '{symbol}' and r.kind = 'trade'"
    );
    let rows = service.db.rows(&sql);
    let count = rows.len();
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let decimal = |at: usize| Decimal::new(row.get(at), row.get::<u32, _>(at + 1));
        let (id, time_us, side): (&str, i64, &str) = (row.get(0), row.get(1), row.get(6));
        assert_eq!(time_us % 1000, 0, "trade {id}");
        let trade =
            Trade { price: decimal(2), qty: decimal(4), ts_ms: time_us / 1000, taker_sold: side == "sell" };
        (id.parse().expect("a number"), trade)
    };
    let trades: HashMap<i64, Trade> = rows.iter().map(read).collect();
    assert_eq!(trades.len(), count, "a trade is stored twice");
    trades
}

fn replay_prints_the_same(folder: &Path, session: &Session, files: &[PathBuf], truth: &Truth) {
    let mut args = vec!["replay"];
    args.extend(files.iter().map(|file| file.to_str().expect("a name")));
    args.extend(["--venue", "binance", "--market", session.market, "--format", "hb", "--books"]);
    let output = fathom(folder, &args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("one book as JSON");
    assert_eq!((&printed["state"], &printed["native"]), (&"live".into(), &session.symbol.into()));
    let difference = truth.book().difference(&Book::read(&printed, "seq"));
    assert_eq!(difference, None, "recorded and replayed book; {said}");
}

/// The recording, read with nothing of the program: the final book by the exchange's own rule, and the trades.
pub(crate) struct Truth {
    pub(crate) id: u64,
    bids: BTreeMap<Decimal, Decimal>,
    asks: BTreeMap<Decimal, Decimal>,
    pub(crate) trades: Trades,
}

impl Truth {
    pub(crate) fn read(market: &str, files: &[PathBuf]) -> Self {
        let mut truth = Self { id: 0, bids: BTreeMap::new(), asks: BTreeMap::new(), trades: Trades::new() };
        let mut depth = Vec::new();
        let mut snapshot = None;
        for line in files.iter().flat_map(|file| lines(file)) {
            let (_, json) = line.split_once(' ').expect("a time and a frame");
            let frame: Value = serde_json::from_str(json).expect("JSON");
            let data = &frame["data"];
            match data["e"].as_str() {
                Some("depthUpdate") => depth.push(data.clone()),
                Some("trade") => truth.trade(data),
                _ if frame["lastUpdateId"].is_u64() => snapshot = snapshot.or(Some(frame)),
                _ => {}
            }
        }
        truth.load(&snapshot.expect("a snapshot"));
        truth.apply_all(market == "spot", &depth);
        truth
    }

    fn trade(&mut self, data: &Value) {
        let trade = Trade {
            price: decimal(&data["p"]),
            qty: decimal(&data["q"]),
            ts_ms: data["T"].as_i64().expect("a time"),
            taker_sold: data["m"].as_bool().expect("a side"),
        };
        self.trades.insert(data["t"].as_i64().expect("an id"), trade);
    }

    fn load(&mut self, snapshot: &Value) {
        self.id = number(&snapshot["lastUpdateId"]);
        set(&mut self.bids, &snapshot["bids"]);
        set(&mut self.asks, &snapshot["asks"]);
    }

    /// Spot: the first update holds the id after the snapshot's, each next one follows on. Futures: the first holds the
    /// snapshot's id, each next one names its predecessor.
    fn apply_all(&mut self, spot: bool, depth: &[Value]) {
        let mut last = None;
        for update in depth {
            let (first, end) = (number(&update["U"]), number(&update["u"]));
            let old = if spot { end <= self.id } else { end < self.id };
            if last.is_none() && old {
                continue;
            }
            let follows = match last {
                None => first <= self.id + u64::from(spot) && end >= self.id,
                Some(last) if spot => first == last + 1,
                Some(last) => number(&update["pu"]) == last,
            };
            assert!(follows, "the recording has a gap at {first}");
            set(&mut self.bids, &update["b"]);
            set(&mut self.asks, &update["a"]);
            last = Some(end);
        }
        self.id = last.expect("an update after the snapshot");
    }

    pub(crate) fn book(&self) -> Book {
        let pair = |(price, qty): (&Decimal, &Decimal)| (*price, *qty);
        Book {
            id: self.id,
            bids: self.bids.iter().rev().map(pair).collect(),
            asks: self.asks.iter().map(pair).collect(),
        }
    }
}

fn lines(file: &Path) -> impl Iterator<Item = String> + use<> {
    let reader = BufReader::new(MultiGzDecoder::new(File::open(file).expect("readable")));
    reader.lines().map(|line| line.expect("text")).filter(|line| !line.trim().is_empty())
}

fn decimal(value: &Value) -> Decimal {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no decimal"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no id"))
}

fn set(side: &mut BTreeMap<Decimal, Decimal>, levels: &Value) {
    for level in levels.as_array().expect("levels") {
        let (price, qty) = (decimal(&level[0]), decimal(&level[1]));
        if qty.is_zero() {
            side.remove(&price);
        } else {
            side.insert(price, qty);
        }
    }
}
