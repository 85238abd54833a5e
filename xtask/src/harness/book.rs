//! An order book as the service and the simulator tell it.

use rust_decimal::Decimal;
use serde_json::Value;

type Levels = Vec<(Decimal, Decimal)>;

/// Levels best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// Id of the last change in it.
    pub id: u64,
    /// Bids: price and quantity.
    pub bids: Levels,
    /// Asks: price and quantity.
    pub asks: Levels,
}

impl Book {
    /// Reads `{<id>, bids: [[price, quantity]], asks}`.
    pub fn read(value: &Value, id: &str) -> Self {
        let id = value[id].as_u64().unwrap_or_else(|| panic!("no {id} in {value:.300}"));
        Self { id, bids: levels(&value["bids"]), asks: levels(&value["asks"]) }
    }

    /// Only the best levels.
    pub fn top(mut self, depth: usize) -> Self {
        self.bids.truncate(depth);
        self.asks.truncate(depth);
        self
    }

    /// The first level that differs.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let side = |name: &str, own: &Levels, others: &Levels| {
            let at = (0..own.len().max(others.len())).find(|at| own.get(*at) != others.get(*at))?;
            let sizes = (own.len(), others.len());
            Some(format!("{name} level {at}: {:?} and {:?} of {sizes:?}", own.get(at), others.get(at)))
        };
        if self.id != other.id {
            return Some(format!("ids {} and {}", self.id, other.id));
        }
        side("bid", &self.bids, &other.bids).or_else(|| side("ask", &self.asks, &other.asks))
    }
}

fn levels(value: &Value) -> Levels {
    let decimal = |text: &Value| {
        let text = text.as_str().unwrap_or_else(|| panic!("{text} is no decimal as text"));
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    let list = value.as_array().unwrap_or_else(|| panic!("{value:.100} is no list of levels"));
    list.iter().map(|level| (decimal(&level[0]), decimal(&level[1]))).collect()
}
