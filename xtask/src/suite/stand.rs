//! The two processes of a run, and what is asked of them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::{Value, json};

use super::{
    Options,
    dice::Dice,
    kind::{KINDS, Kind, Needs},
};
use crate::harness::{Answer, Http, Program, Service, Simulator, check, eventually};

/// Markets of the simulated venue.
pub const MARKETS: [&str; 2] = ["spot", "futures"];
/// Stored and compared timeframes.
pub const TIMEFRAMES: [&str; 2] = ["1m", "5m"];
const LIVE_WITHIN: Duration = Duration::from_secs(120);
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A symbol of a market.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `spot` or `futures`.
    pub market: &'static str,
    /// Native symbol.
    pub symbol: String,
}

impl Target {
    /// The actor of its book.
    pub fn book_actor(&self) -> String {
        format!("book/binance/{}/{}", self.market, self.symbol)
    }
}

/// The processes and how they were started.
pub struct Stand {
    folder: tempfile::TempDir,
    /// The simulated venue.
    pub simulator: Simulator,
    /// The service as it runs now.
    pub service: Service,
    /// What it collects, the busiest first.
    pub symbols: BTreeMap<&'static str, Vec<String>>,
    settings: Vec<String>,
    lives: u32,
}

impl Stand {
    /// Starts both and waits until every book is live.
    pub fn start(options: &Options) -> Self {
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        let count = options.symbols.to_string();
        let (rate, seed) = (options.rate.to_string(), options.seed.to_string());
        let mut args =
            vec!["--symbols", &count, "--plain", "--rate", &rate, "--levels", "1500", "--seed", &seed];
        let program = Program::new(&options.program);
        let help = program.output(folder.path(), &["simulate", "--help"]);
        let help_text = String::from_utf8_lossy(&help.stdout);
        if help_text.contains("--tls-dir") {
            args.extend(["--tls", "--tls-dir", "authority"]);
        }
        if help_text.contains("--history") {
            // A real venue keeps its trades: a repair that waits for the next minute's weight still finds them.
            args.extend(["--history", "1000000"]);
        }
        let simulator = Simulator::start(&program, folder.path(), &args);
        let symbols: BTreeMap<_, _> =
            MARKETS.into_iter().map(|market| (market, simulator.symbols(market))).collect();
        let settings = settings(&symbols, options);
        let service = begin(&simulator, folder.path(), 1, &settings);
        let stand = Self { folder, simulator, service, symbols, settings, lives: 1 };
        stand.service.await_live(stand.books(), LIVE_WITHIN);
        stand.await_marks();
        stand
    }

    /// Waits until something of every stream is stored: what comes before the first stored record of a stream was never
    /// collected, and no ledger can know of it.
    fn await_marks(&self) {
        let books = i64::try_from(self.books()).expect("few books");
        for channel in ["trade", "depth"] {
            let sql = format!("select count(*) from stream_marks where channel = '{channel}'");
            eventually(&format!("a stored {channel} of every book"), LIVE_WITHIN, || {
                let marked = self.service.db.number_or_zero(&sql);
                check(marked >= books, || format!("{marked} of {books}"))
            });
        }
    }

    /// How many books there are to be.
    pub fn books(&self) -> u64 {
        self.symbols.values().map(|list| list.len() as u64).sum()
    }

    /// Starts the service again on the same data. The one before has to have ended.
    pub fn begin_again(&mut self) {
        self.lives += 1;
        self.service = begin(&self.simulator, self.folder.path(), self.lives, &self.settings);
    }

    /// Sends a signal that ends the service, and waits for its end.
    ///
    /// # Errors
    /// When it ends in another way than it should.
    pub fn end(&mut self, signal: &str) -> Result<(), String> {
        self.service.process.signal(signal);
        let status = self.service.process.ended(ENDS_WITHIN);
        let well = signal == "KILL" || status.code() == Some(0);
        check(well, || format!("after {signal} the service ended with {status}"))
    }

    /// Any symbol.
    pub fn target(&self, dice: &mut Dice) -> Target {
        let market = *dice.pick(&MARKETS);
        Target { market, symbol: dice.pick(&self.symbols[market]).clone() }
    }

    /// The name under which the service has subscribed a stream of a symbol.
    ///
    /// # Errors
    /// When no open connection has it.
    pub fn stream(&self, target: &Target, channel: &str) -> Result<String, String> {
        self.subscribed(target, channel).map(|(_, name)| name)
    }

    /// The connection that carries a stream of a symbol, and the stream's name.
    ///
    /// # Errors
    /// When no open connection has it.
    pub fn subscribed(&self, target: &Target, channel: &str) -> Result<(u64, String), String> {
        let prefix = format!("{}@{channel}", target.symbol.to_lowercase());
        eventually_some(|| self.simulator.subscribed(target.market, &prefix))
            .ok_or_else(|| format!("nobody has subscribed {prefix}"))
    }

    /// Puts a fault in at the simulator.
    ///
    /// # Errors
    /// Its refusal.
    pub fn fault(&self, fault: &Value) -> Result<(), String> {
        let answer = self.simulator.control().post("/sim/faults", fault)?;
        check(answer.status == 200, || format!("{fault}: {} {}", answer.status, answer.body))
    }

    /// The shard that feeds a symbol.
    ///
    /// # Errors
    /// When there is none.
    pub fn shard(&self, target: &Target) -> Result<String, String> {
        let listed = self.service.http.get("/api/v1/shards")?.body;
        let feeds = |shard: &&Value| {
            let symbols = shard["symbols"].as_array();
            shard["market"] == target.market
                && symbols.is_some_and(|symbols| symbols.iter().any(|symbol| *symbol == *target.symbol))
        };
        let shards = listed["shards"].as_array().ok_or_else(|| format!("no shards: {listed:.200}"))?;
        let id = shards.iter().find(feeds).and_then(|shard| shard["id"].as_str());
        id.map(str::to_owned).ok_or_else(|| format!("no shard feeds {target:?}"))
    }

    /// The kinds of fault that these two processes can be made to have.
    pub fn available(&self) -> Vec<Kind> {
        let support = Support::probe(self);
        KINDS.iter().filter(|facts| support.has(facts.needs)).map(|facts| facts.kind).collect()
    }

    /// Whether the service shows a gap ledger.
    pub fn has_gap_ledger(&self) -> bool {
        self.service.http.get("/api/v1/gaps").is_ok_and(|answer| answer.status == 200)
    }

    /// Leaves the database and the logs for whoever looks into a failure.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Where the processes write.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn eventually_some<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..50 {
        if let Some(found) = look() {
            return Some(found);
        }
        crate::harness::pause(Duration::from_millis(100));
    }
    None
}

fn settings(symbols: &BTreeMap<&'static str, Vec<String>>, options: &Options) -> Vec<String> {
    let lists =
        symbols.iter().map(|(market, list)| format!("venues.binance.{market}.symbols={}", json!(list)));
    let timeframes = format!("candles.timeframes={}", json!(TIMEFRAMES));
    // One book of each market a second is within the venue's weight.
    let verify = format!("orderbook.verify_every={}s", options.verify_every().as_secs());
    let fixed = [
        timeframes.as_str(),
        verify.as_str(),
        "venues.refresh_every_ms=5000",
        // The greatest snapshots would spend the venue's weight on a few starts.
        "tiers.high.snapshot_levels=1000",
        // Depth updates are stored so that each can be looked for.
        "raw.depth_events=true",
        "retention.depth_events=off",
    ];
    lists.chain(fixed.iter().map(ToString::to_string)).chain(options.set.iter().cloned()).collect()
}

fn begin(simulator: &Simulator, folder: &Path, life: u32, settings: &[String]) -> Service {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Service::start_as(&format!("life-{life}"), folder, simulator, &settings)
}

/// What the two processes offer.
struct Support {
    simulator: Vec<String>,
    injection: bool,
    book_faults: String,
    handover: bool,
    resync: bool,
    tls: bool,
    control: Http,
}

impl Support {
    fn probe(stand: &Stand) -> Self {
        let (control, http) = (stand.simulator.control(), &stand.service.http);
        let tls = stand.simulator.set.iter().any(|set| set.contains("=wss://"));
        let refusal = |answer: Result<Answer, String>| {
            answer.map_or_else(|error| error, |answer| format!("{} {}", answer.status, answer.body))
        };
        // A kind that does not exist is answered with the list of those that do.
        let kinds = refusal(control.post("/sim/faults", &json!({"kind": "?", "market": "spot"})));
        let simulator = kinds.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        // Nobody has these names, so that nothing is done.
        let injected = refusal(http.post("/api/v1/actors/nobody/inject", &json!({"fault": "panic"})));
        let book_faults = refusal(http.post("/api/v1/actors/nobody/inject", &json!({"fault": "?"})));
        let resync = refusal(http.post("/api/v1/streams/nobody/resync", &json!({})));
        let target = Target { market: "spot", symbol: stand.symbols["spot"][0].clone() };
        let shard = stand.shard(&target).unwrap_or_default();
        // Another generation than any: refused after the mode was read.
        let handover = json!({"mode": "handover", "if_generation": u64::MAX});
        let handover = refusal(http.post(&format!("/api/v1/shards/{shard}/restart"), &handover));
        Self {
            simulator,
            injection: !injected.contains("NOT_FOUND") || injected.contains("ACTOR_NOT_FOUND"),
            book_faults,
            handover: handover.starts_with("412"),
            resync: !resync.contains("\"NOT_FOUND\""),
            tls,
            control,
        }
    }

    fn has(&self, needs: Needs) -> bool {
        let knows = |kind: &str| self.simulator.iter().any(|known| known == kind);
        match needs {
            Needs::Nothing => true,
            Needs::Simulator(kind) => knows(kind),
            Needs::Field(kind, field) => knows(kind) && self.takes(kind, field),
            Needs::Injection => self.injection,
            Needs::BookFault(name) => self.injection && self.book_faults.contains(name),
            Needs::Handover => self.handover,
            Needs::Resync => self.resync,
            Needs::Tls => self.tls && knows("wrong_certificate"),
        }
    }

    /// Whether a fault's field is known: a value of a wrong type is refused then, with the stream nobody has.
    fn takes(&self, kind: &str, field: &str) -> bool {
        let body = json!({"kind": kind, "market": "spot", "stream": "nobody@depth", field: "?"});
        let told = self.control.post("/sim/faults", &body);
        told.is_ok_and(|answer| answer.status == 400 && answer.body.to_string().contains("invalid type"))
    }
}
