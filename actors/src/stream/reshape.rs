//! The shard's plan has changed while it runs.

use std::{collections::BTreeSet, time::Duration};

use actix::{Context, Handler};
use fathom_market::{event::Channel, instrument::InstrumentIdx};

use super::{
    Reshape, StreamActor,
    connections::find,
    line::LineSpec,
    merge::LineKey,
    outflow::{self, Audience},
    rotation::Slot,
    symbols,
};

impl Handler<Reshape> for StreamActor {
    type Result = bool;

    fn handle(&mut self, _: Reshape, ctx: &mut Context<Self>) -> bool {
        // Only one of the two would follow, and what the other carries would be taken for a loss, or for none.
        if self.warming.is_some() || self.life.is_succeeded() {
            return false;
        }
        self.reshape(ctx);
        true
    }
}

/// The same line, whatever it carries.
fn is_same(one: &LineSpec, other: &LineSpec) -> bool {
    one.plan.class == other.plan.class && one.letter == other.letter
}

impl StreamActor {
    /// Follows the plan in force.
    pub(super) fn reshape(&mut self, ctx: &mut Context<Self>) {
        let _busy = self.life.enter("reshape");
        self.plan = self.spec.plan.load_full();
        self.table = self.spec.table.load_full();
        self.symbols = symbols(&self.plan, &self.table);
        let wanted = self.wanted_lines();
        self.close_unwanted(&wanted, ctx);
        for spec in wanted {
            let lines = self.slots.iter().flat_map(|slot| std::iter::once(&slot.current).chain(&slot.next));
            let same = |line: &&super::line::Line| is_same(line.spec(), &spec);
            let keys: Vec<LineKey> = lines.filter(same).map(|line| line.key).collect();
            for key in &keys {
                self.reshape_line(*key, &spec, ctx);
            }
            if keys.is_empty() {
                let line = self.line(spec);
                let key = line.key;
                self.slots.push(Slot::new(line));
                self.connect_later(key, Duration::ZERO, ctx);
            }
        }
        self.publish();
    }

    fn close_unwanted(&mut self, wanted: &[LineSpec], ctx: &mut Context<Self>) {
        let unwanted = |slot: &&Slot| !wanted.iter().any(|spec| is_same(slot.current.spec(), spec));
        let lines = self.slots.iter().filter(unwanted);
        let keys: Vec<LineKey> = lines
            .flat_map(|slot| std::iter::once(&slot.current).chain(&slot.next))
            .map(|line| line.key)
            .collect();
        let carried_on: BTreeSet<(InstrumentIdx, Channel)> = wanted
            .iter()
            .flat_map(|spec| &spec.plan.streams)
            .map(|one| (one.instrument, one.channel))
            .collect();
        for key in keys {
            self.mute_unwanted(key, &carried_on);
            let Some(key) = self.close(key, "line_given_up", ctx) else { continue };
            self.outflow().merge.forget(key);
        }
        self.slots.retain(|slot| wanted.iter().any(|spec| is_same(slot.current.spec(), spec)));
    }

    /// What nobody is to carry any more is no loss when its line is closed.
    fn mute_unwanted(&mut self, key: LineKey, carried_on: &BTreeSet<(InstrumentIdx, Channel)>) {
        let now_us = self.now_us();
        let Some(line) = find(&mut self.slots, key) else { return };
        let streams = line.streams().iter().map(|one| (one.instrument, one.channel));
        let given_up: Vec<_> = streams.filter(|one| !carried_on.contains(one)).collect();
        let mut outflow = outflow::locked(&self.outflow);
        outflow.mute(key, &given_up, now_us, Audience { live: &self.spec.live, table: &self.table });
    }

    fn reshape_line(&mut self, key: LineKey, spec: &LineSpec, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let Some(line) = find(&mut self.slots, key) else { return };
        line.list(self.table.clone());
        let reshaped = line.reshape(&spec.plan, now_us);
        if reshaped == Default::default() {
            return;
        }
        let mut outflow = outflow::locked(&self.outflow);
        outflow.mute(key, &reshaped.removed, now_us, Audience { live: &self.spec.live, table: &self.table });
        for (instrument, channel) in &reshaped.added {
            outflow.merge.unmute(key, *instrument, *channel);
        }
        drop(outflow);
        tracing::info!(
            shard = %self.plan.id, line = %spec.letter, added = reshaped.added.len(),
            removed = reshaped.removed.len(), "streams of a line have changed"
        );
        self.request(key, reshaped.frames, ctx);
    }
}
