//! Simulated exchanges in a process of their own, their ledger, and faults on command.

use std::{path::Path, time::Duration};

use rust_decimal::Decimal;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::Value;

use super::{Book, Http, Process, Program};

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const PAGE: usize = 20_000;

/// A decimal as text, exactly.
fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// A trade that was sent.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names of the ledger")]
pub struct TradeEntry {
    pub symbol: String,
    pub channel: String,
    pub id: i64,
    #[serde(deserialize_with = "decimal")]
    pub price: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub qty: Decimal,
    pub ts_ms: i64,
    pub taker_sold: bool,
    pub sequence: u64,
    pub sent_ms: i64,
    pub to: Vec<Value>,
    pub delivered: bool,
}

/// A closed candle that was sent.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names of the ledger")]
pub struct KlineEntry {
    pub symbol: String,
    pub interval: String,
    pub open_ms: i64,
    #[serde(deserialize_with = "decimal")]
    pub open: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub high: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub low: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub close: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub volume: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub quote_volume: Decimal,
    pub trades: i64,
    #[serde(deserialize_with = "decimal")]
    pub taker_volume: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub taker_quote_volume: Decimal,
    pub sequence: u64,
    pub sent_ms: i64,
    pub delivered: bool,
}

/// A running simulator.
pub struct Simulator {
    /// Arguments that turn the service to it.
    pub set: Vec<String>,
    pub(super) program: Program,
    control: Http,
    _process: Process,
}

impl Simulator {
    /// `fathom simulate` with these arguments.
    pub fn start(program: &Program, folder: &Path, args: &[&str]) -> Self {
        let args: Vec<String> =
            std::iter::once("simulate").chain(args.iter().copied()).map(str::to_owned).collect();
        let mut process = Process::start(program, "simulator", folder, &args, &[]);
        let said: Value = process.line(STARTS_WITHIN, |line| serde_json::from_str(line).ok());
        let set = said["set"].as_array().expect("arguments").iter();
        let set = set.map(|argument| argument.as_str().expect("text").to_owned()).collect();
        let control = Http::new(said["control"].as_str().expect("control address"), None);
        Self { set, program: program.clone(), control, _process: process }
    }

    /// A client of its control server, for another thread.
    pub fn control(&self) -> Http {
        self.control.again()
    }

    /// `GET /sim/status`.
    pub fn status(&self) -> Value {
        self.control.json("/sim/status")
    }

    /// Its clock.
    pub fn now_ms(&self) -> i64 {
        self.status()["now_ms"].as_i64().expect("a clock")
    }

    /// The true book.
    pub fn book(&self, market: &str, symbol: &str) -> Book {
        Book::read(&self.control.json(&format!("/sim/book/{market}/{symbol}")), "id")
    }

    /// Puts a fault in and gives its id.
    pub fn fault(&self, fault: &Value) -> u64 {
        let answer = self.control.post("/sim/faults", fault).expect("control answers");
        assert_eq!(answer.status, 200, "{fault}: {}", answer.body);
        answer.body["id"].as_u64().expect("an id")
    }

    /// The newest page of a list of the ledger.
    pub fn entries(&self, kind: &str, market: &str) -> Vec<Value> {
        let answer = self.control.json(&format!("/sim/ledger?kind={kind}&market={market}"));
        answer["entries"].as_array().expect("entries").clone()
    }

    /// The name of a stream that an open connection has subscribed, by how it begins.
    pub fn stream(&self, market: &str, prefix: &str) -> Option<String> {
        self.subscribed(market, prefix).map(|(_, name)| name)
    }

    /// The open connection that has subscribed such a stream, and the stream's name.
    pub fn subscribed(&self, market: &str, prefix: &str) -> Option<(u64, String)> {
        let connections = self.entries("connections", market);
        connections.iter().filter(|connection| connection["closed_ms"].is_null()).find_map(|connection| {
            let events = connection["events"].as_array()?.iter();
            let named = events.filter(|event| event["kind"] == "subscribe");
            let mut names =
                named.filter_map(|event| event["detail"].as_str()).flat_map(|detail| detail.split(','));
            let name = names.find(|name| name.starts_with(prefix))?;
            Some((connection["id"].as_u64()?, name.to_owned()))
        })
    }

    /// Trades of a market, on both of its channels.
    pub fn trades(&self, market: &str) -> Vec<TradeEntry> {
        self.pages("trades", market, |trade: &TradeEntry| trade.sequence)
    }

    /// Closed candles of a market.
    pub fn klines(&self, market: &str) -> Vec<KlineEntry> {
        self.pages("klines", market, |kline: &KlineEntry| kline.sequence)
    }

    fn pages<T: DeserializeOwned>(&self, kind: &str, market: &str, sequence: fn(&T) -> u64) -> Vec<T> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let after = all.last().map_or(0, sequence);
            let path = format!("/sim/ledger?kind={kind}&market={market}&after={after}&limit={PAGE}");
            let mut answer = self.control.json(&path);
            let page: Vec<T> = serde_json::from_value(answer["entries"].take()).expect("entries");
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                let kept = answer["totals"][kind].as_u64().expect("totals");
                assert!(all.len() as u64 <= kept, "{kind} of {market}: {} of {kept}", all.len());
                return all;
            }
        }
    }

    /// The symbols that a client would collect: trading against USDT, perpetual on futures.
    pub fn symbols(&self, market: &str) -> Vec<String> {
        let key = format!("venues.binance.{market}.endpoints.rest=");
        let rest = self.set.iter().find_map(|argument| argument.strip_prefix(&key)).expect("REST address");
        let path = if market == "spot" { "/api/v3/exchangeInfo" } else { "/fapi/v1/exchangeInfo" };
        let authority = self.set.iter().find_map(|argument| argument.split_once(".extra_ca="));
        let http = match authority {
            Some((_, file)) => Http::trusting(rest, Path::new(file)),
            None => Http::new(rest, None),
        };
        let listed = http.json(path);
        let wanted = |symbol: &&Value| {
            symbol["status"] == "TRADING"
                && symbol["quoteAsset"] == "USDT"
                && (market == "spot" || symbol["contractType"] == "PERPETUAL")
        };
        let symbols = listed["symbols"].as_array().expect("symbols").iter().filter(wanted);
        symbols.map(|symbol| symbol["symbol"].as_str().expect("name").to_owned()).collect()
    }
}
