//! The start of a process: where the last one ended, and which gaps it left open.

use fathom_market::{
    event::Channel,
    gap::{Gap, GapCause, GapStatus, parse_channel},
    mark::StreamMark,
};

use super::{
    GapTracker,
    hole::{Hole, Mark, RecordId, settle, touch},
};

const NOT_SETTLED: &str = "the process ended before it was settled";

impl GapTracker {
    /// True until it is known where the last process ended.
    pub const fn awaits_recall(&self) -> bool {
        !self.recalled
    }

    /// Takes the marks and open gaps that the last process left of this instrument. A stream with a mark has a hole from
    /// there to its first record, which may have come already.
    pub fn recall(&mut self, marks: &[StreamMark], open: &[Gap], now_us: i64) {
        if self.recalled {
            return;
        }
        self.recalled = true;
        let mut taken_up = Vec::new();
        for gap in open {
            taken_up.extend(self.go_on(gap.clone(), now_us));
        }
        for mark in marks {
            // A gap that was left open reaches on to the first record.
            let Some(channel) = parse_channel(&mark.channel).filter(|one| !taken_up.contains(one)) else {
                continue;
            };
            let id = match RecordId::read(channel, mark.last_id.as_deref(), mark.last_us) {
                // Of candles only the last word is a mark.
                RecordId::Candle { open_ms, .. } => RecordId::Candle { open_ms, closed: true },
                id => id,
            };
            self.begin(channel, Mark { us: mark.last_us, id }, now_us);
        }
        for lane in self.lanes.values_mut() {
            lane.first = None;
            if lane.safe.is_none() && lane.hole.is_some() {
                lane.safe.clone_from(&lane.last);
            }
        }
    }

    /// Goes on with a gap; gives its channel where it is the one open hole of that.
    fn go_on(&mut self, mut gap: Gap, now_us: i64) -> Option<Channel> {
        let channel = parse_channel(&gap.channel);
        let lane = channel.map(|channel| self.lanes.entry(channel).or_default());
        let free = lane.as_ref().is_some_and(|lane| lane.hole.is_none());
        let ids = number(gap.from_id.as_deref()).zip(number(gap.to_id.as_deref()));
        match (channel, gap.to_us, ids) {
            (Some(Channel::Trade), Some(_), Some((from, to))) if to > from + 1 => {
                self.queue(gap, from + 1..to, now_us);
                None
            }
            (Some(channel), None, _) | (Some(channel @ Channel::Candle(_)), Some(_), _) if free => {
                self.take_up(channel, gap, now_us);
                Some(channel)
            }
            _ => {
                settle(&mut gap, GapStatus::Lost, Some(NOT_SETTLED.to_owned()), now_us);
                self.change(gap);
                None
            }
        }
    }

    fn take_up(&mut self, channel: Channel, gap: Gap, now_us: i64) {
        let lane = self.lanes.entry(channel).or_default();
        let id = RecordId::read(channel, gap.from_id.as_deref(), gap.from_us);
        let edge = Mark { us: gap.from_us, id };
        let after = gap.to_us.map(|us| Mark { us, id: RecordId::read(channel, gap.to_id.as_deref(), us) });
        let hole = Hole {
            gap,
            edge: edge.clone(),
            after,
            before: Some(0),
            shown: true,
            since_us: now_us,
            fetch_from: None,
        };
        match lane.first.clone() {
            Some(first) if hole.after.is_none() => self.meet(channel, hole, first),
            _ => {
                let last = hole.after.clone().unwrap_or(edge);
                lane.last.get_or_insert(last);
                lane.hole = Some(hole);
            }
        }
    }

    /// The hole between the last process and this one.
    fn begin(&mut self, channel: Channel, edge: Mark, now_us: i64) {
        let lane = self.lanes.entry(channel).or_default();
        match lane.first.take() {
            // The mark was read too late: it is this process's own.
            Some(first) if first.us <= edge.us && !matches!(channel, Channel::Candle(_)) => {}
            Some(first) => {
                let hole = Hole::new(self.instrument, channel, GapCause::Restart, edge, now_us);
                self.meet(channel, hole, first);
            }
            None if lane.last.is_none() => {
                lane.last = Some(edge);
                self.lost(channel, GapCause::Restart, now_us);
            }
            None => {}
        }
    }

    /// The first record after the hole came before the hole was known.
    fn meet(&mut self, channel: Channel, mut hole: Hole, first: Mark) {
        let rule = self.rules.depth;
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        lane.first = None;
        match channel {
            Channel::Trade => self.settle_trades(hole, first),
            Channel::Depth => {
                let now_us = hole.gap.opened_us.max(first.us);
                hole.reach(channel, first, rule);
                touch(&mut hole.gap, now_us);
                if let Some(newer) = lane.hole.take() {
                    // One gap a channel: it began with the older loss.
                    let last = newer.edge.clone();
                    hole.extend(channel, &last, rule);
                    if let Some(after) = newer.after {
                        hole.reach(channel, after, rule);
                    }
                    let mut replaced = newer.gap;
                    settle(
                        &mut replaced,
                        GapStatus::Resynced,
                        Some(format!("part of {}", hole.gap.id)),
                        now_us,
                    );
                    self.changed.insert(replaced.id.clone(), replaced);
                }
                let gap = hole.gap.clone();
                if let Some(lane) = self.lanes.get_mut(&channel) {
                    lane.hole = Some(hole);
                }
                self.change(gap);
            }
            Channel::Candle(_) => {
                let missed = super::hole::between(channel, &hole.edge, &first, rule).unwrap_or(0);
                if missed > 0 && lane.hole.is_none() {
                    hole.reach(channel, first, rule);
                    hole.shown = true;
                    let gap = hole.gap.clone();
                    lane.hole = Some(hole);
                    self.change(gap);
                }
            }
            Channel::Quote | Channel::Ticker | Channel::Funding => {
                let now_us = hole.gap.opened_us;
                hole.reach(channel, first, rule);
                settle(&mut hole.gap, GapStatus::Lost, Some(super::NO_HISTORY.to_owned()), now_us);
                self.change(hole.gap);
            }
        }
    }
}

fn number(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}
