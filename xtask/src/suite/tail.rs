//! Follows the simulator's ledger, which keeps only its newest rows, so that at the end everything that was made is known.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::stand::{MARKETS, TIMEFRAMES, Target};
use crate::harness::{Http, KlineEntry, pause};

const BETWEEN: Duration = Duration::from_millis(700);
const PAGE: usize = 5_000;
/// A row is read once it is so old: whether it was delivered is known by then.
const SETTLED_MS: i64 = 3_000;
/// No end is set.
const ON: i64 = i64::MAX;

/// A trade of the channel that is collected.
#[derive(Clone, Copy, Debug)]
pub struct TradeMade {
    /// Its id.
    pub id: i64,
    /// When it was sent.
    pub sent_ms: i64,
    /// Whether somebody got it.
    pub delivered: bool,
    /// The newest connection that it was sent on; 0 for none.
    pub connection: u64,
}

/// A depth message.
#[derive(Clone, Copy, Debug)]
pub struct DepthMade {
    /// Its first id.
    pub first: i64,
    /// Its last id.
    pub last: i64,
    /// When it was sent.
    pub sent_ms: i64,
    /// Whether somebody got it.
    pub delivered: bool,
    /// The newest connection that it was sent on; 0 for none.
    pub connection: u64,
}

/// Everything that was made.
#[derive(Default)]
pub struct Made {
    /// Aggregate trades by symbol, in order.
    pub trades: BTreeMap<Target, Vec<TradeMade>>,
    /// Depth messages by symbol, in order.
    pub depth: BTreeMap<Target, Vec<DepthMade>>,
    /// Closed candles of the collected timeframes.
    pub klines: Vec<(&'static str, KlineEntry)>,
    /// What could not be followed.
    pub lost: Vec<String>,
}

/// A follower at work.
pub struct Tail {
    until_ms: Arc<AtomicI64>,
    thread: JoinHandle<Made>,
}

impl Tail {
    /// Follows from the ledger's oldest row on.
    pub fn start(control: Http) -> Self {
        let until_ms = Arc::new(AtomicI64::new(ON));
        let until = until_ms.clone();
        let thread = std::thread::spawn(move || Follower::new(control).run(&until));
        Self { until_ms, thread }
    }

    /// Reads what was sent until then and ends.
    pub fn end(self, until_ms: i64) -> Made {
        self.until_ms.store(until_ms, Ordering::Release);
        self.thread
            .join()
            .unwrap_or_else(|_| Made { lost: vec!["the follower fell".to_owned()], ..Made::default() })
    }
}

#[derive(Deserialize)]
struct Sending {
    symbol: String,
    sequence: u64,
    sent_ms: i64,
    delivered: bool,
    to: Vec<Delivery>,
}

#[derive(Deserialize)]
struct Delivery {
    connection: u64,
}

#[derive(Deserialize)]
struct Trade {
    id: i64,
    channel: String,
    #[serde(flatten)]
    sending: Sending,
}

#[derive(Deserialize)]
struct Depth {
    first: i64,
    last: i64,
    #[serde(flatten)]
    sending: Sending,
}

struct Follower {
    control: Http,
    after: BTreeMap<(&'static str, &'static str), u64>,
    read: BTreeMap<(&'static str, &'static str), u64>,
    made: Made,
}

impl Follower {
    fn new(control: Http) -> Self {
        Self { control, after: BTreeMap::new(), read: BTreeMap::new(), made: Made::default() }
    }

    fn run(mut self, until: &AtomicI64) -> Made {
        loop {
            let until_ms = until.load(Ordering::Acquire);
            let mut behind = false;
            for market in MARKETS {
                behind |= self.trades(market, until_ms);
                behind |= self.depth(market, until_ms);
                behind |= self.klines(market, until_ms);
            }
            if until_ms != ON && !behind {
                return self.made;
            }
            pause(BETWEEN);
        }
    }

    fn trades(&mut self, market: &'static str, until_ms: i64) -> bool {
        let of = |row: &Trade| (row.sending.sequence, row.sending.sent_ms);
        let (rows, behind) = self.page("trades", market, until_ms, of);
        for row in rows.into_iter().filter(|row: &Trade| row.channel == "aggTrade") {
            let Sending { symbol, sent_ms, delivered, to, .. } = row.sending;
            let connection = to.iter().map(|delivery| delivery.connection).max().unwrap_or(0);
            let made = TradeMade { id: row.id, sent_ms, delivered, connection };
            self.made.trades.entry(Target { market, symbol }).or_default().push(made);
        }
        behind
    }

    fn depth(&mut self, market: &'static str, until_ms: i64) -> bool {
        let of = |row: &Depth| (row.sending.sequence, row.sending.sent_ms);
        let (rows, behind) = self.page("depth", market, until_ms, of);
        for row in rows {
            let Depth { first, last, sending: Sending { symbol, sent_ms, delivered, to, .. } } = row;
            let connection = to.iter().map(|delivery| delivery.connection).max().unwrap_or(0);
            let made = DepthMade { first, last, sent_ms, delivered, connection };
            self.made.depth.entry(Target { market, symbol }).or_default().push(made);
        }
        behind
    }

    fn klines(&mut self, market: &'static str, until_ms: i64) -> bool {
        let of = |row: &KlineEntry| (row.sequence, row.sent_ms);
        let (rows, behind) = self.page("klines", market, until_ms, of);
        let kept = rows.into_iter().filter(|row: &KlineEntry| TIMEFRAMES.contains(&row.interval.as_str()));
        self.made.klines.extend(kept.map(|row| (market, row)));
        behind
    }

    /// The next rows that are old enough, and whether there may be more.
    fn page<T: DeserializeOwned>(
        &mut self,
        kind: &'static str,
        market: &'static str,
        until_ms: i64,
        of: fn(&T) -> (u64, i64),
    ) -> (Vec<T>, bool) {
        let mut all = Vec::new();
        loop {
            match self.ask(kind, market, of) {
                Ok((rows, full)) => {
                    let old = rows.into_iter().filter(|row: &T| of(row).1 <= until_ms);
                    all.extend(old);
                    if !full {
                        return (all, false);
                    }
                }
                Err(error) => {
                    if self.made.lost.len() < 20 {
                        self.made.lost.push(format!("{kind} of {market}: {error}"));
                    }
                    return (all, false);
                }
            }
        }
    }

    fn ask<T: DeserializeOwned>(
        &mut self,
        kind: &'static str,
        market: &'static str,
        of: fn(&T) -> (u64, i64),
    ) -> Result<(Vec<T>, bool), String> {
        let after = self.after.get(&(kind, market)).copied().unwrap_or(0);
        let now_ms = self.control.get("/sim/status")?.body["now_ms"].as_i64().unwrap_or(0);
        let path = format!("/sim/ledger?kind={kind}&market={market}&after={after}&limit={PAGE}");
        let mut answer = self.control.get(&path)?;
        let total = answer.body["totals"][kind].as_u64().unwrap_or(0);
        let rows: Vec<T> =
            serde_json::from_value(answer.body["entries"].take()).map_err(|error| error.to_string())?;
        let found = rows.len();
        let rows: Vec<T> = rows.into_iter().take_while(|row| of(row).1 <= now_ms - SETTLED_MS).collect();
        let Some(last) = rows.last() else { return Ok((rows, false)) };
        self.after.insert((kind, market), of(last).0);
        let read = self.read.entry((kind, market)).or_default();
        *read += rows.len() as u64;
        let unread = (found - rows.len() + PAGE) as u64;
        if found < PAGE && total > *read + unread {
            return Err(format!("{read} rows read of {total}: the ledger forgot some"));
        }
        let whole = rows.len() == PAGE;
        Ok((rows, whole))
    }
}
