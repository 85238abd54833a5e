//! What was done in the last minute, and in all, by venue and sink: the block that operators grep for.

use std::{collections::BTreeMap, fmt::Write as _};

use fathom_actors::{kernel::ActorId, system::MarketSystem, writer::WriterStatus};

/// Successes and errors.
type Counts = (u64, u64);

/// Counters by who keeps them, so that one that starts again with its actor is seen to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events decoded and errors (records rejected, events lost, connections lost, refusals), by venue and counter.
    pub venues: BTreeMap<(String, String), Counts>,
    /// Rows stored (or found stored), and rows that failed.
    pub store: Counts,
}

impl Totals {
    /// Reads the counters.
    pub fn read(system: &MarketSystem) -> Self {
        let mut venues: BTreeMap<(String, String), Counts> = BTreeMap::new();
        for shard in system.directory().shards() {
            let reconnects: u64 = shard.lines.iter().map(|line| line.reconnects).sum();
            let errors = shard.rejects.values().sum::<u64>() + shard.lost_events + reconnects;
            venues.insert((shard.venue.to_string(), shard.id.clone()), (shard.events, errors));
        }
        for budget in system.budgets() {
            let owner =
                system.settings().markets.iter().find(|market| market.endpoints.rest.contains(&budget.host));
            if let Some(market) = owner {
                let key = (market.venue.id().to_string(), format!("{}/{}", budget.host, budget.group));
                venues.insert(key, (0, budget.counters.refused_429 + budget.counters.banned_418));
            }
        }
        let status = system.control().detail::<WriterStatus>(&ActorId::from("writer"));
        let store = status.map_or((0, 0), |(_, status)| {
            let tables = status.tables.values();
            tables.fold((0, status.retries), |sum, table| {
                (sum.0 + table.stored + table.duplicate, sum.1 + table.refused() + table.quarantined)
            })
        });
        Self { venues, store }
    }

    /// What was added since.
    pub fn since(&self, before: &Self) -> Self {
        // A counter of a restarted actor begins at zero: what it has now is what was added.
        let added = |now: u64, before: u64| if now >= before { now - before } else { now };
        let difference = |now: Counts, before: Counts| (added(now.0, before.0), added(now.1, before.1));
        let venues = self.venues.iter().map(|(counter, now)| {
            let before = before.venues.get(counter).copied().unwrap_or_default();
            (counter.clone(), difference(*now, before))
        });
        Self { venues: venues.collect(), store: difference(self.store, before.store) }
    }

    /// Adds what was added since.
    pub fn add(&mut self, more: &Self) {
        for (counter, more) in &more.venues {
            let sum = self.venues.entry(counter.clone()).or_default();
            *sum = (sum.0 + more.0, sum.1 + more.1);
        }
        self.store = (self.store.0 + more.store.0, self.store.1 + more.store.1);
    }

    /// The block, headed by the span that it covers.
    pub fn block(&self, span: &str) -> String {
        let mut block = format!("=== Statistics ({span}) ===\n");
        let mut venues: BTreeMap<&str, Counts> = BTreeMap::new();
        for ((venue, _), (successes, errors)) in &self.venues {
            let sum = venues.entry(venue).or_default();
            *sum = (sum.0 + successes, sum.1 + errors);
        }
        for (venue, (successes, errors)) in venues {
            // Writing to a string cannot fail.
            let _ = writeln!(block, "{}: {successes} success, {errors} errors", titled(venue));
        }
        let _ = writeln!(block, "Store: {} stored, {} failed", self.store.0, self.store.1);
        block.push_str("=====");
        block
    }
}

fn titled(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(shards: [u64; 2], stored: u64) -> Totals {
        let counter = |at: usize| (("binance".to_owned(), format!("shard-{at}")), (shards[at], 1));
        Totals { venues: BTreeMap::from([counter(0), counter(1)]), store: (stored, 0) }
    }

    #[test]
    fn the_block_is_the_one_that_operators_grep_for() {
        let block = totals([12, 5], 35).since(&totals([2, 3], 0)).block("last 60s");
        assert_eq!(
            block,
            "=== Statistics (last 60s) ===\nBinance: 12 success, 0 errors\nStore: 35 stored, 0 failed\n====="
        );
    }

    #[test]
    fn a_restarted_shard_hides_nothing_of_the_others() {
        let mut sum = totals([1000, 1000], 2);
        let added = totals([7, 1050], 9).since(&totals([1000, 1000], 2));
        assert!(added.block("x").contains("Binance: 57 success"), "{}", added.block("x"));
        sum.add(&added);
        assert!(sum.block("x").contains("Binance: 2057 success"), "{}", sum.block("x"));
        assert_eq!(sum.store, (9, 0));
    }
}
