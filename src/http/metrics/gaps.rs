//! Metrics of the gap ledger.

use std::collections::BTreeMap;

use super::{Families, Type};
use crate::http::AppState;

pub(super) fn gather(state: &AppState, out: &mut Families) {
    let board = state.system.directory().gaps();
    for ((cause, status), count) in board.counts() {
        let labels = [("cause", cause), ("status", status)];
        out.add("fathom_gaps_total", Type::Counter, "Gaps that entered a status.", &labels, count);
    }
    let open = board.open();
    let mut by_channel: BTreeMap<&str, u64> = BTreeMap::new();
    for gap in &open {
        let kind = gap.channel.split(':').next().unwrap_or_default();
        *by_channel.entry(kind).or_default() += 1;
    }
    for (channel, count) in by_channel {
        out.add("fathom_gaps_open", Type::Gauge, "Gaps that are open.", &[("channel", channel)], count);
    }
    let oldest_us = open.iter().map(|gap| state.now_us() - gap.opened_us).max().unwrap_or(0);
    let help = "Age of the oldest gap that is open.";
    out.add("fathom_gaps_oldest_open_seconds", Type::Gauge, help, &[], oldest_us as f64 / 1e6);
}
