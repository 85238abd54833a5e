//! The shard's actor hands over to its next instance: both feed the shard's merge until the new one has every stream.

use actix::Context;
use serde_json::{Value, json};

use super::{
    StreamActor,
    merge::Counters,
    outflow::{self, Audience},
    rotation::{DEADLINE_US, not_warm},
};

/// Names of streams told in a result.
const NAMED: usize = 50;

/// An instance that works beside its predecessor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Warming {
    since_us: i64,
    before: Counters,
}

impl Warming {
    pub(super) const fn new(since_us: i64, before: Counters) -> Self {
        Self { since_us, before }
    }
}

impl StreamActor {
    /// Looks after the handover from the predecessor, and after one to a successor that was given up.
    pub(super) fn tend_handover(&mut self, now_us: i64, ctx: &mut Context<Self>) {
        let succeeded = self.life.is_succeeded();
        if self.succeeded && !succeeded {
            self.leave_strangers("handover_given_up", now_us);
            // The successor was the one to be told of a change.
            self.reshape(ctx);
        }
        self.succeeded = succeeded;
        let Some(warming) = self.warming else { return };
        if !self.life.has_predecessor() {
            // It has gone before its time: what it carried alone is in doubt.
            self.warming = None;
            self.leave_strangers("shard_stopped", now_us);
            return self.publish();
        }
        let acked: Option<Vec<i64>> = self.slots.iter().map(|slot| slot.current.acked_us()).collect();
        let Some(last_acked_us) = acked.map(|acked| acked.into_iter().max().unwrap_or(warming.since_us))
        else {
            return;
        };
        let cold = self.cold(now_us);
        if cold.is_empty() || now_us - last_acked_us >= DEADLINE_US {
            self.take_over(warming, &cold, now_us);
        }
    }

    /// Streams that this instance could not carry alone: with two lines, those that neither could.
    fn cold(&self, now_us: i64) -> Vec<String> {
        let outflow = self.outflow();
        let lines: Vec<Vec<String>> =
            self.slots.iter().map(|slot| not_warm(&slot.current, &outflow.merge, now_us)).collect();
        let has = |at: usize, name: &String| self.slots[at].current.streams().iter().any(|s| s.name == *name);
        let mut cold: Vec<String> = Vec::new();
        for (at, names) in lines.iter().enumerate() {
            for name in names {
                let elsewhere = (0..lines.len())
                    .any(|other| other != at && has(other, name) && !lines[other].contains(name));
                if !elsewhere && !cold.contains(name) {
                    cold.push(name.clone());
                }
            }
        }
        cold
    }

    fn take_over(&mut self, warming: Warming, cold: &[String], now_us: i64) {
        self.warming = None;
        self.leave_strangers("handover", now_us);
        let effect = self.effect(&warming, cold, now_us);
        tracing::info!(shard = %self.plan.id, generation = self.life.generation(), %effect, "has taken over");
        self.life.took_over(effect);
        self.publish();
    }

    fn leave_strangers(&self, cause: &'static str, now_us: i64) {
        let audience = Audience { live: &self.spec.live, table: &self.table };
        outflow::locked(&self.outflow).leave_strangers(self.life.generation(), cause, now_us, audience);
    }

    /// What the handover cost.
    fn effect(&self, warming: &Warming, cold: &[String], now_us: i64) -> Value {
        let cost = self.outflow().merge.counters(now_us).since(&warming.before);
        let instruments = self.plan.instruments.iter().filter_map(|planned| self.table.get(planned.idx));
        let ids: Vec<_> = instruments.map(|instrument| instrument.id).collect();
        let gaps = self.spec.directory.gaps().since(warming.since_us, &ids);
        let total: usize = self.plan.endpoints.iter().map(|endpoint| endpoint.streams.len()).sum();
        json!({
            "downtime_ms": cost.dark_us / 1000,
            "messages_missed": cost.missed,
            "duplicates_suppressed": cost.duplicates,
            "gaps_opened": gaps.into_iter().map(|gap| gap.id).collect::<Vec<_>>(),
            "streams_total": total,
            "streams_warm": total.saturating_sub(cold.len()),
            "not_warm": cold.iter().take(NAMED).collect::<Vec<_>>(),
            "warmed_ms": (now_us - warming.since_us) / 1000,
        })
    }
}
