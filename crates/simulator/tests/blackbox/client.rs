//! A small client of the venue: raw HTTP, a WebSocket, and a book kept by the venue's own rules on text prices.

use std::collections::BTreeMap;
use std::time::Duration;

use fathom_market::ids::Market;
use fathom_simulator::{
    Limits, MarketConfig, SeededConfig, Simulator, SimulatorConfig, SimulatorHandle, Source, Symbols,
};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn small(events_per_second: f64) -> SeededConfig {
    let names = ["BTCUSDT", "ETHUSDT", "ETHBTC", "币安人生USDT", "XAUUSDT", "BTCUSDT_270326"];
    SeededConfig {
        seed: 42,
        symbols: Symbols::Named(names.map(str::to_owned).to_vec()),
        events_per_second,
        max_levels: 600,
        ..SeededConfig::default()
    }
}

pub(crate) fn start(events_per_second: f64) -> SimulatorHandle {
    Simulator::start(SimulatorConfig::seeded(&small(events_per_second))).unwrap()
}

/// A simulator of one market under changed limits.
pub(crate) fn start_with(market: Market, change: impl FnOnce(&mut MarketConfig)) -> SimulatorHandle {
    let mut config = MarketConfig::new(market, Source::Seeded(small(500.0)));
    config.limits = Limits::of(market);
    change(&mut config);
    let all = match market {
        Market::Spot => SimulatorConfig { spot: Some(config), ..SimulatorConfig::default() },
        Market::Futures => SimulatorConfig { futures: Some(config), ..SimulatorConfig::default() },
    };
    Simulator::start(all).unwrap()
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {:?}", self.status, self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let found = self.head.lines().filter_map(|line| line.split_once(':'));
        found
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .next()
    }
}

async fn request(method: &str, url: &str, body: &str) -> Reply {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut socket = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) async fn get(base: &str, path: &str) -> Reply {
    request("GET", &format!("{base}{path}"), "").await
}

pub(crate) async fn post(base: &str, path: &str, body: &str) -> Reply {
    request("POST", &format!("{base}{path}"), body).await
}

pub(crate) struct Ws(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What a read of the socket gave.
pub(crate) enum Got {
    Json(Value, String),
    Ping,
    Closed(Option<CloseFrame>),
}

impl Ws {
    pub(crate) async fn open(url: &str) -> Self {
        Self(connect_async(url).await.unwrap().0)
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text.to_owned())).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, names: &[&str]) {
        self.send(&serde_json::json!({"method": "SUBSCRIBE", "params": names, "id": 1}).to_string()).await;
    }

    /// The next thing, or `None` when nothing came for `wait`.
    pub(crate) async fn next_within(&mut self, wait: Duration) -> Option<Got> {
        let message = tokio::time::timeout(wait, self.0.next()).await.ok()?;
        Some(match message {
            None => Got::Closed(None),
            Some(Ok(Message::Text(text))) => {
                Got::Json(serde_json::from_str(&text).unwrap_or_default(), text.to_string())
            }
            Some(Ok(Message::Close(frame))) => Got::Closed(frame),
            Some(Err(Error::Io(_) | Error::Protocol(_) | Error::ConnectionClosed)) => Got::Closed(None),
            Some(Ok(_)) => Got::Ping,
            Some(Err(error)) => panic!("{error}"),
        })
    }

    /// The next JSON frame.
    pub(crate) async fn json(&mut self) -> Value {
        loop {
            match self.next_within(DEADLINE).await {
                Some(Got::Json(value, _)) => return value,
                Some(Got::Ping) => {}
                Some(Got::Closed(frame)) => panic!("closed: {frame:?}"),
                None => panic!("nothing came"),
            }
        }
    }

    /// The next data of a stream; others are passed over.
    pub(crate) async fn data(&mut self, stream: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            let mut value = self.json().await;
            if value["stream"] == stream {
                return value["data"].take();
            }
        }
        panic!("{stream} is silent");
    }

    /// Reads until the connection ends.
    pub(crate) async fn closed(&mut self) -> Option<CloseFrame> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            match self.next_within(DEADLINE).await {
                Some(Got::Closed(frame)) => return frame,
                Some(_) => {}
                None => break,
            }
        }
        panic!("the connection stays open");
    }
}

pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A book by the sheet's rules, on the texts of the venue: key is the price padded to sort.
pub(crate) struct Book {
    pub(crate) id: u64,
    pub(crate) futures: bool,
    pub(crate) applied: usize,
    chain: Option<u64>,
    sides: [BTreeMap<String, (String, String)>; 2],
}

fn key(price: &str) -> String {
    let (whole, fraction) = price.split_once('.').unwrap_or((price, ""));
    format!("{whole:0>20}.{fraction:0<20}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Book {
    pub(crate) fn new(snapshot: &Value, futures: bool) -> Self {
        let mut book = Self {
            id: snapshot["lastUpdateId"].as_u64().unwrap(),
            futures,
            applied: 0,
            chain: None,
            sides: Default::default(),
        };
        book.set(0, &snapshot["bids"]);
        book.set(1, &snapshot["asks"]);
        book
    }

    fn set(&mut self, side: usize, levels: &Value) {
        for level in levels.as_array().unwrap() {
            let (price, qty) = (text(&level[0]), text(&level[1]));
            if qty.bytes().all(|byte| matches!(byte, b'0' | b'.')) {
                self.sides[side].remove(&key(&price));
            } else {
                self.sides[side].insert(key(&price), (price, qty));
            }
        }
    }

    /// Applies a diff; an error is a gap.
    pub(crate) fn apply(&mut self, diff: &Value) -> Result<(), String> {
        let (first, last) = (diff["U"].as_u64().unwrap(), diff["u"].as_u64().unwrap());
        if self.futures {
            if last < self.id {
                return Ok(());
            }
            let previous = diff["pu"].as_u64().unwrap();
            let chained = match self.chain {
                Some(chain) => previous == chain,
                None => previous <= self.id && self.id <= last,
            };
            if !chained {
                return Err(format!("gap: pu {previous}, u {last}, book {} {:?}", self.id, self.chain));
            }
            self.chain = Some(last);
        } else {
            if last <= self.id {
                return Ok(());
            }
            if first > self.id + 1 {
                return Err(format!("gap: U {first}, book {}", self.id));
            }
        }
        self.set(0, &diff["b"]);
        self.set(1, &diff["a"]);
        self.id = last;
        self.applied += 1;
        Ok(())
    }

    pub(crate) fn levels(&self, side: usize) -> Vec<(String, String)> {
        let ascending = self.sides[side].values().cloned();
        if side == 0 { ascending.rev().collect() } else { ascending.collect() }
    }

    pub(crate) fn crossed(&self) -> bool {
        let best = (self.sides[0].keys().next_back(), self.sides[1].keys().next());
        matches!(best, (Some(bid), Some(ask)) if bid >= ask)
    }
}
