//! A line's place: the connection that holds it, and the one that is opened beside it to take over. Make before break: the
//! old connection is closed once the new one has every stream, so no book is touched.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use actix::{AsyncContext, Context};
use rustc_hash::FxHasher;

use super::{
    ConnectionState, StreamActor,
    line::Line,
    merge::{LineKey, Merge},
    outflow::{self, Audience},
};
use crate::kernel::clock::micros;

/// A stream that says nothing on a new connection has been watched for this long, beside the old one, before its silence
/// counts as the market's.
const WATCH_US: i64 = 2_000_000;
/// After this long with every subscription acknowledged the new connection takes over whatever it lacks.
pub(super) const DEADLINE_US: i64 = 10_000_000;

/// The place of one line.
pub(super) struct Slot {
    /// The line that holds it.
    pub current: Line,
    /// The line that is to take over.
    pub next: Option<Line>,
    /// Why it is to be replaced as soon as it is its turn.
    pub due: Option<&'static str>,
}

impl Slot {
    /// The place of a line that nothing replaces.
    pub(super) const fn new(line: Line) -> Self {
        Self { current: line, next: None, due: None }
    }

    /// The line with this key.
    pub(super) fn line_mut(&mut self, key: LineKey) -> Option<&mut Line> {
        if self.current.key == key {
            return Some(&mut self.current);
        }
        self.next.as_mut().filter(|line| line.key == key)
    }

    /// When the present connection is to be replaced, microseconds.
    pub(super) fn rotates_us(&self, shard: &str, rotate_after: Option<Duration>) -> Option<i64> {
        let mut hasher = FxHasher::default();
        (shard, self.current.id()).hash(&mut hasher);
        planned(self.current.reconnect.opened_us()?, self.current.life_limit(), rotate_after, hasher.finish())
    }
}

/// When a connection is to be replaced: at nine tenths of the venue's age limit, or at `rotate_after`, and up to a ninth of
/// that earlier, by the line's own dice, so that the lines of a venue do not come at once. `None` without a limit.
fn planned(opened_us: i64, life: Duration, rotate_after: Option<Duration>, dice: u64) -> Option<i64> {
    let latest = micros(life.checked_div(10)?.saturating_mul(9).min(rotate_after.unwrap_or(Duration::MAX)));
    if latest >= micros(Duration::MAX) / 10 {
        return None;
    }
    let spread = latest / 9;
    let earlier = i64::try_from(dice % 1024).unwrap_or_default() * spread / 1024;
    Some(opened_us + latest - earlier)
}

/// Which streams of a connection could not yet be carried by it alone, by name.
pub(super) fn not_warm(line: &Line, merge: &Merge, now_us: i64) -> Vec<String> {
    let acked_us = line.acked_us().filter(|acked_us| now_us - acked_us >= WATCH_US);
    let cold = line
        .streams()
        .iter()
        .filter(|stream| !merge.is_warm(line.key, stream.instrument, stream.channel, acked_us));
    cold.map(|stream| stream.name.clone()).collect()
}

impl StreamActor {
    /// The connection is to be replaced when its turn comes.
    pub(super) fn is_due(&mut self, key: LineKey, cause: &'static str) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.current.key == key) {
            slot.due.get_or_insert(cause);
        }
    }

    /// Opens a new connection beside this one, which it is to replace.
    pub(super) fn rotate(&mut self, key: LineKey, cause: &'static str, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let Some(at) = self.slots.iter().position(|slot| slot.current.key == key) else { return };
        if self.slots[at].next.is_some() {
            return;
        }
        let next_key = self.new_key();
        let slot = &mut self.slots[at];
        slot.due = None;
        let settings = self.spec.settings.clone();
        let next =
            slot.current.beside(next_key, self.table.clone(), settings.reconnect, settings.liveness, now_us);
        tracing::info!(shard = %self.plan.id, line = %next.id(), cause, "a new connection is opened beside the old one");
        slot.next = Some(next);
        self.connect_later(next_key, Duration::ZERO, ctx);
    }

    /// The connection that held a place is gone: the one beside it, if there is one, holds it from now on.
    pub(super) fn next_steps_in(&mut self, gone: LineKey) -> bool {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.current.key == gone) else { return false };
        let Some(next) = slot.next.take() else { return false };
        let before = std::mem::replace(&mut slot.current, next);
        slot.current.succeed(&before, Default::default());
        slot.due = None;
        self.outflow().merge.forget(gone);
        true
    }

    /// Lets new connections take over that are ready, and begins the next rotation that is due: one at a time.
    pub(super) fn tend_rotations(&mut self, now_us: i64, ctx: &mut Context<Self>) {
        for at in 0..self.slots.len() {
            self.cut_over_if_warm(at, now_us, ctx);
        }
        let busy = self.slots.iter().any(|slot| slot.next.is_some());
        if busy || self.warming.is_some() || self.succeeded {
            return;
        }
        let (shard, after) = (&self.plan.id, self.spec.settings.rotate_after);
        let due = self.slots.iter().find_map(|slot| {
            let old = || slot.rotates_us(shard, after).is_some_and(|at| now_us >= at).then_some("age");
            Some((slot.current.key, slot.due.or_else(old)?))
        });
        if let Some((key, cause)) = due {
            self.rotate(key, cause, ctx);
        }
    }

    fn cut_over_if_warm(&mut self, at: usize, now_us: i64, ctx: &mut Context<Self>) {
        let Some(next) = &self.slots[at].next else { return };
        let Some(acked_us) = next.acked_us() else { return };
        let cold = not_warm(next, &self.outflow().merge, now_us);
        if !cold.is_empty() && now_us - acked_us < DEADLINE_US {
            return;
        }
        if !cold.is_empty() {
            tracing::warn!(shard = %self.plan.id, streams = ?cold, "the new connection takes over without these streams");
        }
        self.cut_over(at, now_us, ctx);
    }

    fn cut_over(&mut self, at: usize, now_us: i64, ctx: &mut Context<Self>) {
        let slot = &mut self.slots[at];
        let Some(next) = slot.next.take() else { return };
        let mut old = std::mem::replace(&mut slot.current, next);
        if let Some(session) = old.session.take() {
            session.close();
        }
        if let Some(task) = old.task.take() {
            ctx.cancel_future(task);
        }
        let mut outflow = outflow::locked(&self.outflow);
        let tally = outflow.merge.tally(old.key);
        let audience = Audience { live: &self.spec.live, table: &self.table };
        outflow.leave(old.key, "connection_replaced", now_us, audience);
        drop(outflow);
        slot.current.succeed(&old, tally);
        if slot.current.reconnect.state() != ConnectionState::Connected {
            // Acknowledged and watched: what it carries is silent.
            slot.current.reconnect.delivered(now_us);
        }
        tracing::info!(
            shard = %self.plan.id, line = %slot.current.id(), connection = slot.current.connection,
            "the new connection has taken over"
        );
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn rotations_are_spread_over_the_last_part_before_nine_tenths_of_the_limit() {
        let day = Duration::from_secs(24 * 3600);
        for dice in [0, 1, 511, 1023, u64::MAX] {
            let at = planned(HOUR, day, None, dice).unwrap();
            let age = (at - HOUR) as f64 / HOUR as f64;
            assert!((19.2..=21.6).contains(&age), "{age} h with {dice}");
        }
        let early = planned(0, day, Some(Duration::from_secs(90)), 512).unwrap();
        assert!((80_000_000..=90_000_000).contains(&early), "{early}");
        assert_eq!(planned(0, Duration::MAX, None, 1), None);
    }
}
