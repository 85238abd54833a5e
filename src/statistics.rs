//! What was done in the last minute, and in all, by venue and sink: the block that operators grep for.

use std::{collections::BTreeMap, fmt::Write as _};

use fathom_actors::{kernel::ActorId, system::MarketSystem, writer::WriterStatus};

/// Counters that only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events decoded and errors (records rejected, events lost, connections lost), by venue.
    pub venues: BTreeMap<String, (u64, u64)>,
    /// Rows stored (or found stored), and rows that failed.
    pub store: (u64, u64),
}

impl Totals {
    /// Reads the counters.
    pub fn read(system: &MarketSystem) -> Self {
        let mut venues: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for shard in system.directory().shards() {
            let counts = venues.entry(shard.venue.to_string()).or_default();
            let reconnects: u64 = shard.lines.iter().map(|line| line.reconnects).sum();
            counts.0 += shard.events;
            counts.1 += shard.rejects.values().sum::<u64>() + shard.lost_events + reconnects;
        }
        for budget in system.budgets() {
            let owner =
                system.settings().markets.iter().find(|market| market.endpoints.rest.contains(&budget.host));
            if let Some(market) = owner {
                venues.entry(market.venue.id().to_string()).or_default().1 +=
                    budget.counters.refused_429 + budget.counters.banned_418;
            }
        }
        let status = system.control().detail::<WriterStatus>(&ActorId::from("writer"));
        let store = status.map_or((0, 0), |(_, status)| {
            let tables = status.tables.values();
            tables.fold((0, status.retries), |sum, table| {
                (sum.0 + table.stored + table.duplicate, sum.1 + table.poisoned)
            })
        });
        Self { venues, store }
    }

    /// What was added since.
    pub fn since(&self, before: &Self) -> Self {
        // A restarted shard counts from zero again: what it has then is what was added.
        let added = |now: u64, before: u64| if now >= before { now - before } else { now };
        let venues = self.venues.iter().map(|(venue, now)| {
            let was = before.venues.get(venue).copied().unwrap_or_default();
            (venue.clone(), (added(now.0, was.0), added(now.1, was.1)))
        });
        Self {
            venues: venues.collect(),
            store: (added(self.store.0, before.store.0), added(self.store.1, before.store.1)),
        }
    }

    /// The block, headed by the span that it covers.
    pub fn block(&self, span: &str) -> String {
        let mut block = format!("=== Statistics ({span}) ===\n");
        for (venue, (successes, errors)) in &self.venues {
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

    fn totals(events: u64, stored: u64) -> Totals {
        Totals { venues: BTreeMap::from([("binance".to_owned(), (events, 1))]), store: (stored, 0) }
    }

    #[test]
    fn the_block_is_the_one_that_operators_grep_for() {
        let block = totals(12, 35).since(&totals(0, 0)).block("last 60s");
        assert_eq!(
            block,
            "=== Statistics (last 60s) ===\nBinance: 12 success, 0 errors\nStore: 35 stored, 0 failed\n====="
        );
    }

    #[test]
    fn a_restarted_counter_is_not_negative() {
        assert_eq!(totals(5, 9).since(&totals(100, 2)).venues["binance"].0, 5);
    }
}
