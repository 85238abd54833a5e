//! Simulated exchanges in a process of their own, their ledger, and faults on command.

use std::{path::Path, time::Duration};

use rust_decimal::Decimal;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::Value;

use super::{Book, Http, Process};

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const PAGE: usize = 20_000;

/// A decimal as text, exactly.
fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// A trade that was sent.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TradeEntry {
    pub(crate) symbol: String,
    pub(crate) channel: String,
    pub(crate) id: i64,
    #[serde(deserialize_with = "decimal")]
    pub(crate) price: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub(crate) qty: Decimal,
    pub(crate) ts_ms: i64,
    pub(crate) taker_sold: bool,
    pub(crate) sequence: u64,
    pub(crate) sent_ms: i64,
    pub(crate) to: Vec<Value>,
    pub(crate) delivered: bool,
}

/// A closed candle that was sent.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct KlineEntry {
    pub(crate) symbol: String,
    pub(crate) interval: String,
    pub(crate) open_ms: i64,
    #[serde(deserialize_with = "decimal")]
    pub(crate) open: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub(crate) high: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub(crate) low: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub(crate) close: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub(crate) volume: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub(crate) quote_volume: Decimal,
    pub(crate) trades: i64,
    #[serde(deserialize_with = "decimal")]
    pub(crate) taker_volume: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub(crate) taker_quote_volume: Decimal,
    pub(crate) sequence: u64,
    pub(crate) sent_ms: i64,
    pub(crate) delivered: bool,
}

pub(crate) struct Simulator {
    /// Arguments that turn the service to it.
    pub(crate) set: Vec<String>,
    control: Http,
    _process: Process,
}

impl Simulator {
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        let args: Vec<String> =
            std::iter::once("simulate").chain(args.iter().copied()).map(str::to_owned).collect();
        let mut process = Process::start("simulator", folder, &args, &[]);
        let said: Value = process.line(STARTS_WITHIN, |line| serde_json::from_str(line).ok());
        let set = said["set"].as_array().expect("arguments").iter();
        let set = set.map(|argument| argument.as_str().expect("text").to_owned()).collect();
        let control = Http::new(said["control"].as_str().expect("control address"), None);
        Self { set, control, _process: process }
    }

    /// A client of its control server, for another thread.
    pub(crate) fn control(&self) -> Http {
        self.control.again()
    }

    pub(crate) fn status(&self) -> Value {
        self.control.json("/sim/status")
    }

    /// Its clock.
    pub(crate) fn now_ms(&self) -> i64 {
        self.status()["now_ms"].as_i64().expect("a clock")
    }

    /// The true book.
    pub(crate) fn book(&self, market: &str, symbol: &str) -> Book {
        Book::read(&self.control.json(&format!("/sim/book/{market}/{symbol}")), "id")
    }

    /// Puts a fault in and gives its id.
    pub(crate) fn fault(&self, fault: &Value) -> u64 {
        let answer = self.control.post("/sim/faults", fault).expect("control answers");
        assert_eq!(answer.status, 200, "{fault}: {}", answer.body);
        answer.body["id"].as_u64().expect("an id")
    }

    pub(crate) fn entries(&self, kind: &str, market: &str) -> Vec<Value> {
        let answer = self.control.json(&format!("/sim/ledger?kind={kind}&market={market}"));
        answer["entries"].as_array().expect("entries").clone()
    }

    /// Trades of a market, on both of its channels.
    pub(crate) fn trades(&self, market: &str) -> Vec<TradeEntry> {
        self.pages("trades", market, |trade: &TradeEntry| trade.sequence)
    }

    /// Closed candles of a market.
    pub(crate) fn klines(&self, market: &str) -> Vec<KlineEntry> {
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
    pub(crate) fn symbols(&self, market: &str) -> Vec<String> {
        let key = format!("venues.binance.{market}.endpoints.rest=");
        let rest = self.set.iter().find_map(|argument| argument.strip_prefix(&key)).expect("REST address");
        let path = if market == "spot" { "/api/v3/exchangeInfo" } else { "/fapi/v1/exchangeInfo" };
        let listed = Http::new(rest, None).json(path);
        let wanted = |symbol: &&Value| {
            symbol["status"] == "TRADING"
                && symbol["quoteAsset"] == "USDT"
                && (market == "spot" || symbol["contractType"] == "PERPETUAL")
        };
        let symbols = listed["symbols"].as_array().expect("symbols").iter().filter(wanted);
        symbols.map(|symbol| symbol["symbol"].as_str().expect("name").to_owned()).collect()
    }
}
