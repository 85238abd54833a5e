//! The faults of a run and what has to follow from each.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::Symbols;
use crate::harness::{Service, Simulator, check, eventually};

/// `stream.stale_after_ms`, the slowest pace of a depth stream, and a margin for a loaded machine.
const DOUBTED_WITHIN: Duration = Duration::from_secs(2 + 1 + 15);
/// A resync that may have to wait for its turn at the REST service.
const RESYNCED_WITHIN: Duration = Duration::from_secs(90);

type Act = fn(&mut Faults, &Service, &Simulator, &Symbols);

/// What is done after how many percent of the span. The last quarter is left for healing.
pub(super) const SCHEDULE: &[(u32, Act)] = &[
    (3, |faults, _, simulator, symbols| {
        faults.skip(simulator, symbols, "spot", &[1, 6, 22]);
        faults.skip(simulator, symbols, "futures", &[2, 7, 25]);
    }),
    (12, |faults, _, simulator, symbols| faults.drop(simulator, symbols, "spot", 0, "cut")),
    (22, |faults, service, simulator, symbols| faults.silence(service, simulator, symbols, "spot", 8)),
    (35, |faults, _, simulator, symbols| {
        faults.rest(simulator, "spot", 429, 5);
        faults.skip(simulator, symbols, "spot", &[11, 12, 16]);
    }),
    (45, |faults, _, simulator, symbols| faults.drop(simulator, symbols, "futures", 30, "close")),
    (52, |faults, _, simulator, symbols| {
        faults.rest(simulator, "futures", 418, 8);
        faults.skip(simulator, symbols, "futures", &[3, 12, 16]);
    }),
    (60, |faults, service, simulator, symbols| faults.silence(service, simulator, symbols, "futures", 5)),
    (72, |faults, _, simulator, symbols| {
        faults.drop(simulator, symbols, "spot", 45, "close");
        faults.drop(simulator, symbols, "futures", 80, "cut");
    }),
];

#[derive(Default)]
pub(super) struct Faults {
    count: usize,
    /// Actors of the books in whose sequence a hole was made.
    skipped: BTreeSet<String>,
}

/// The name under which the service has subscribed the depth of a symbol.
fn depth_stream(simulator: &Simulator, market: &str, symbol: &str) -> String {
    let found = simulator.stream(market, &format!("{}@depth", symbol.to_lowercase()));
    found.unwrap_or_else(|| panic!("no depth stream of {market} {symbol}"))
}

impl Faults {
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    fn put(&mut self, simulator: &Simulator, fault: &Value) {
        simulator.fault(fault);
        self.count += 1;
    }

    /// A message of each depth stream is left out.
    fn skip(&mut self, simulator: &Simulator, symbols: &Symbols, market: &str, which: &[usize]) {
        for at in which {
            let symbol = &symbols[market][*at];
            let stream = depth_stream(simulator, market, symbol);
            self.put(simulator, &json!({"kind": "skip", "market": market, "stream": stream, "count": 1}));
            self.skipped.insert(format!("book/binance/{market}/{symbol}"));
        }
    }

    /// The connection that carries a symbol's depth is lost.
    fn drop(&mut self, simulator: &Simulator, symbols: &Symbols, market: &str, at: usize, how: &str) {
        let stream = depth_stream(simulator, market, &symbols[market][at]);
        self.put(simulator, &json!({"kind": "drop", "market": market, "stream": stream, "how": how}));
    }

    /// REST refuses for three seconds, and is to be left alone for longer.
    fn rest(&mut self, simulator: &Simulator, market: &str, status: u16, retry_after_s: u64) {
        let fault = json!({"kind": "rest_error", "market": market, "status": status,
            "retry_after_s": retry_after_s, "for_ms": 3000});
        self.put(simulator, &fault);
    }

    /// A depth stream says nothing until it is subscribed anew: its book must be doubted in time, and heal.
    fn silence(
        &mut self,
        service: &Service,
        simulator: &Simulator,
        symbols: &Symbols,
        market: &str,
        at: usize,
    ) {
        let symbol = &symbols[market][at];
        let actor = format!("book/binance/{market}/{symbol}");
        let given_up = || service.actor(&actor)["detail"]["resyncs"].as_u64().expect("resyncs");
        eventually(&format!("{symbol} is live before its silence"), RESYNCED_WITHIN, || {
            service.book(market, symbol, "1").map(drop)
        });
        let before = given_up();
        let stream = depth_stream(simulator, market, symbol);
        self.put(simulator, &json!({"kind": "silence", "market": market, "stream": stream}));
        let silent_id = simulator.book(market, symbol).id;
        eventually(&format!("{symbol} with a silent depth stream is doubted"), DOUBTED_WITHIN, || {
            check(given_up() > before, || service.actor(&actor)["detail"].to_string())
        });
        eventually(&format!("{symbol} is true again"), RESYNCED_WITHIN, || {
            let served = service.book(market, symbol, "1")?;
            check(served.id > silent_id, || format!("at {} of {silent_id}", served.id))
        });
    }

    /// Every hole was found.
    pub(super) fn were_noticed(&self, service: &Service) {
        for actor in &self.skipped {
            let detail = service.actor(actor)["detail"].clone();
            assert!(detail["gaps"].as_u64() >= Some(1), "{actor} has not seen its gap: {detail:#}");
        }
    }
}
