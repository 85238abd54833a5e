//! What the service says of itself: the first sign of a fault, and that all is well again.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::stand::{Stand, Target};
use crate::harness::{Book, Http, check, true_book};

/// A service that does not answer for so long is in trouble.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Levels that are compared.
const LEVELS: usize = 100;
/// Counters that grow when something goes wrong. A family that a program does not have is not missed.
const SIGNS: [&str; 16] = [
    "fathom_shard_reconnects_total",
    "fathom_shard_renewals_total",
    "fathom_shard_lost_events_total",
    "fathom_shard_generation",
    "fathom_records_rejected_total",
    "fathom_book_gaps_total",
    "fathom_book_resyncs_total",
    "fathom_book_crossed_total",
    "fathom_book_rejects_total",
    "fathom_book_divergences_total",
    "fathom_rest_failed_total",
    "fathom_actor_restarts_total",
    "fathom_actor_panics_total",
    "fathom_actor_stalls_total",
    "fathom_writer_retries_total",
    "fathom_gaps_total",
];

/// What was published at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    signs: BTreeMap<String, u64>,
    /// What is not as it should be.
    pub ill: Vec<String>,
}

impl Sight {
    /// A counter; 0 when there is none of this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.signs.get(name).copied().unwrap_or(0)
    }

    /// What has changed for the worse since another look.
    pub fn sign_since(&self, before: &Self) -> Option<String> {
        if let Some(ill) = self.ill.first() {
            return Some(ill.clone());
        }
        let grown = |name: &&String| self.signs[*name] > before.signs.get(*name).copied().unwrap_or(0);
        self.signs.keys().find(grown).cloned()
    }
}

/// Looks at one process of the service.
pub struct Watch {
    http: Http,
    control: Http,
    books: u64,
}

impl Watch {
    /// Looks at the process that runs now.
    pub fn new(stand: &Stand) -> Self {
        Self {
            http: stand.service.http.hasty(ANSWERS_WITHIN),
            control: stand.simulator.control().hasty(ANSWERS_WITHIN),
            books: stand.books(),
        }
    }

    /// One look.
    ///
    /// # Errors
    /// When the service does not answer.
    pub fn look(&self) -> Result<Sight, String> {
        let status = self.http.get("/api/v1/admin/status")?;
        let metrics = self.http.get("/metrics")?;
        check(status.status == 200 && metrics.status == 200, || {
            format!("{} {}", status.status, status.body)
        })?;
        let text = metrics.body.as_str().unwrap_or_default();
        Ok(Sight { signs: signs(text), ill: ill(&status.body, self.books) })
    }

    /// Whether all is well, and the symbol's book is that of the venue.
    ///
    /// # Errors
    /// What is not.
    pub fn all_is_well(&self, target: Option<&Target>) -> Result<(), String> {
        let sight = self.look()?;
        check(sight.ill.is_empty(), || sight.ill.join(", "))?;
        target.map_or(Ok(()), |target| self.is_true(target))
    }

    /// Whether a book is that of the venue at the same id.
    ///
    /// # Errors
    /// When it is not served, or differs.
    pub fn is_true(&self, target: &Target) -> Result<(), String> {
        let Target { market, symbol } = target;
        let kind = market.to_uppercase();
        let path = format!("/api/v1/exchanges/binance/orderbook/{symbol}?marketType={kind}&levels={LEVELS}");
        let answer = self.http.get(&path)?;
        check(answer.status == 200 && answer.body["state"] == "live", || {
            format!("{market} {symbol}: {:.200}", answer.body)
        })?;
        let served = Book::read(&answer.body, "lastUpdateId");
        let truth = true_book(&self.control, market, symbol, served.id)?.top(LEVELS);
        served.difference(&truth).map_or(Ok(()), |difference| Err(format!("{market} {symbol}: {difference}")))
    }
}

/// Sums of the counters by family.
fn signs(metrics: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for line in metrics.lines() {
        let Some((name, value)) = sample(line) else { continue };
        if SIGNS.contains(&name) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}

/// A sample's family and whole value.
fn sample(line: &str) -> Option<(&str, u64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let name = series.split('{').next()?;
    value.parse().ok().map(|value| (name, value))
}

/// What is wrong in `/api/v1/admin/status`.
fn ill(status: &Value, books: u64) -> Vec<String> {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let mut ill = Vec::new();
    let mut live = 0;
    for states in status["books"].as_object().into_iter().flat_map(|markets| markets.values()) {
        for (state, number) in states.as_object().into_iter().flatten() {
            match state.as_str() {
                "live" => live += count(number),
                _ if count(number) > 0 => ill.push(format!("{number} books {state}")),
                _ => {}
            }
        }
    }
    if live != books && ill.is_empty() {
        ill.push(format!("{live} books of {books}"));
    }
    for (what, sound) in [("shards", ["connected", ""]), ("actors", ["running", "degraded"])] {
        for (state, number) in status[what].as_object().into_iter().flatten() {
            if !sound.contains(&state.as_str()) && count(number) > 0 {
                ill.push(format!("{number} {what} {state}"));
            }
        }
    }
    if status["writer"]["reachable"] == false || status["database"] == "disconnected" {
        ill.push("the store is away".to_owned());
    }
    ill
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn signs_are_summed_by_family_and_compared() {
        let before = "# HELP x\nfathom_book_gaps_total{market=\"spot\"} 2\nfathom_book_gaps_total{market=\"futures\"} 1\n";
        let after = before.replace("} 1\n", "} 2\n");
        let sight = |text: &str| Sight { signs: signs(text), ill: Vec::new() };
        assert_eq!(sight(before).signs["fathom_book_gaps_total"], 3);
        assert_eq!(sight(before).sign_since(&sight(before)), None);
        assert_eq!(sight(&after).sign_since(&sight(before)).as_deref(), Some("fathom_book_gaps_total"));
    }

    #[test]
    fn only_a_service_whose_every_part_is_up_is_well() {
        let status = |live: u64, connected: u64, lost: u64| {
            json!({"books": {"binance/spot": {"live": live}}, "shards": {"connected": connected, "reconnecting": lost},
                "actors": {"running": 9}, "database": "connected", "writer": {"reachable": true}})
        };
        assert!(ill(&status(4, 2, 0), 4).is_empty());
        assert_eq!(ill(&status(3, 2, 0), 4), ["3 books of 4"]);
        assert_eq!(ill(&status(4, 1, 1), 4), ["1 shards reconnecting"]);
    }
}
