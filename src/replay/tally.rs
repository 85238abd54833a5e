//! Counts of a replay.

use std::collections::BTreeMap;

use fathom_market::{
    book::{KeeperCounters, Step},
    event::Body,
};
use serde_json::{Value, json};

/// The types of events, as printed.
const TYPES: [&str; 6] = ["quote", "trade", "book", "candle", "ticker", "funding"];

/// The printed type of an event.
pub(super) const fn type_of(body: &Body) -> &'static str {
    match body {
        Body::Quote(_) => "quote",
        Body::Trade(_) => "trade",
        Body::Delta(_) | Body::Snapshot(_) => "book",
        Body::Candle(_) => "candle",
        Body::Ticker(_) => "ticker",
        Body::Funding(_) => "funding",
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Frames and answers of REST.
    pub(super) frames: u64,
    /// Breaks of a symbol's chain of updates.
    pub(super) gaps: u64,
    /// Buffered updates that a snapshot contained.
    pub(super) dropped: u64,
    counts: BTreeMap<&'static str, u64>,
    kinds: BTreeMap<&'static str, u64>,
    rejects: BTreeMap<&'static str, u64>,
    ignored: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn event(&mut self, body: &Body) {
        *self.counts.entry(type_of(body)).or_default() += 1;
        match body {
            Body::Delta(_) => *self.kinds.entry("deltas").or_default() += 1,
            Body::Snapshot(_) => *self.kinds.entry("snapshots").or_default() += 1,
            _ => {}
        }
    }

    pub(super) fn rejected(&mut self, reason: &'static str) {
        *self.rejects.entry(reason).or_default() += 1;
    }

    pub(super) fn ignored(&mut self, reason: &'static str) {
        *self.ignored.entry(reason).or_default() += 1;
    }

    pub(super) fn step(&mut self, step: Step) {
        if let Step::Synced { dropped, .. } = step {
            self.dropped += dropped as u64;
        }
    }

    /// The counts, with those of the books: how many are in each state, and what they did in all.
    pub(super) fn summary(&self, states: &BTreeMap<&'static str, u64>, books: KeeperCounters) -> Value {
        let of =
            |counts: &BTreeMap<&'static str, u64>, name: &str| counts.get(name).copied().unwrap_or_default();
        let counts: BTreeMap<_, _> = TYPES.iter().map(|name| (*name, of(&self.counts, name))).collect();
        json!({
            "frames": self.frames,
            "counts": counts,
            "gaps": self.gaps,
            "rejects": self.rejects,
            "ignored": self.ignored,
            "books": {
                "states": states,
                "deltas": of(&self.kinds, "deltas"),
                "snapshots": of(&self.kinds, "snapshots"),
                "applied": books.applied,
                "dropped": self.dropped,
                "duplicates": books.duplicates,
                "synced": books.synced,
                "crossed": books.crossed,
                "refused": books.refused,
            },
        })
    }
}
