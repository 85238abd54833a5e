//! Metrics of the actors as such, in sum over each kind.

use std::collections::BTreeMap;

use fathom_actors::kernel::{ActorHealth, InboxHealth, state_word};

use super::{Families, Sum, Type};
use crate::http::AppState;

pub(super) fn gather(state: &AppState, out: &mut Families) {
    let report = state.system.control().health();
    let live = state.system.control().is_live();
    out.add("fathom_kernel_live", Type::Gauge, "Whether the supervisor looks after its actors.", &[], live);
    let restarts = report.supervisor.restarts;
    out.add("fathom_supervisor_restarts_total", Type::Counter, "Restarts of the supervisor.", &[], restarts);
    let sweep = report.supervisor.sweep_age_us as f64 / 1e6;
    out.add(
        "fathom_supervisor_sweep_age_seconds",
        Type::Gauge,
        "Age of its last look at all actors.",
        &[],
        sweep,
    );
    let given_up = report.supervisor.quarantined_total;
    out.add(
        "fathom_threads_given_up_total",
        Type::Counter,
        "Stuck threads that were given up.",
        &[],
        given_up,
    );
    states(&report.actors, out);
    exits(&report.actors, out);
    inboxes(&report.actors, out);
}

fn states(actors: &[ActorHealth], out: &mut Families) {
    let mut counts = Sum::default();
    for actor in actors {
        counts.add((actor.kind.0, state_word(actor.state)), 1);
    }
    for ((kind, state), count) in counts.iter() {
        out.add("fathom_actors", Type::Gauge, "Actors by state.", &[("kind", kind), ("state", state)], count);
    }
}

/// How counts of an actor are told in sum over its kind.
type Told = (&'static str, &'static str, fn(&ActorHealth) -> u64);

const EXITS: [Told; 7] = [
    ("fathom_actor_restarts_total", "Restarts of actors.", |actor| actor.exits.restarts),
    ("fathom_actor_manual_restarts_total", "Restarts by operators.", |actor| actor.exits.manual),
    ("fathom_actor_panics_total", "Ends by panic.", |actor| actor.exits.panics),
    ("fathom_actor_errors_total", "Ends by a stated fault.", |actor| actor.exits.errors),
    ("fathom_actor_stalls_total", "Ends by stall.", |actor| actor.exits.stalls),
    ("fathom_actor_kills_total", "Ends by force.", |actor| actor.exits.kills),
    ("fathom_actor_handled_total", "Operations done.", |actor| actor.progress.handled_total),
];

fn exits(actors: &[ActorHealth], out: &mut Families) {
    for (name, help, of) in EXITS {
        let mut counts = Sum::default();
        for actor in actors {
            counts.add(actor.kind.0, of(actor));
        }
        for (kind, count) in counts.iter() {
            out.add(name, Type::Counter, help, &[("kind", kind)], count);
        }
    }
}

#[derive(Default)]
struct Inboxes {
    len: usize,
    capacity: usize,
    fullest: f64,
    oldest_us: u64,
    sent: u64,
    dropped: u64,
    conflated: u64,
    refused: u64,
}

impl Inboxes {
    fn add(&mut self, inbox: &InboxHealth) {
        self.len += inbox.len;
        self.capacity += inbox.capacity;
        self.fullest = self.fullest.max(inbox.len as f64 / inbox.capacity.max(1) as f64);
        self.oldest_us = self.oldest_us.max(inbox.oldest_age_us);
        self.sent += inbox.sent_total;
        self.dropped += inbox.dropped_total;
        self.conflated += inbox.conflated_total;
        self.refused += inbox.refused_total;
    }
}

fn inboxes(actors: &[ActorHealth], out: &mut Families) {
    let mut sums: BTreeMap<(&str, &str), Inboxes> = BTreeMap::new();
    for actor in actors {
        for inbox in &actor.inboxes {
            sums.entry((actor.kind.0, inbox.name)).or_default().add(inbox);
        }
    }
    for ((kind, inbox), sum) in sums {
        let labels = [("kind", kind), ("inbox", inbox)];
        let mut gauge =
            |name, help, value: super::exposition::Value| out.add(name, Type::Gauge, help, &labels, value);
        gauge("fathom_inbox_length", "Items that wait.", sum.len.into());
        gauge("fathom_inbox_capacity", "Items that may wait.", sum.capacity.into());
        gauge("fathom_inbox_fullest_ratio", "How full the fullest one is.", sum.fullest.into());
        let oldest = sum.oldest_us as f64 / 1e6;
        gauge("fathom_inbox_oldest_seconds", "How long the oldest item has waited at most.", oldest.into());
        let mut counter = |name, help, value| out.add(name, Type::Counter, help, &labels, value);
        counter("fathom_inbox_sent_total", "Items accepted.", sum.sent);
        counter("fathom_inbox_dropped_total", "Items dropped.", sum.dropped);
        counter("fathom_inbox_conflated_total", "Items replaced by a newer one.", sum.conflated);
        counter("fathom_inbox_refused_total", "Items given back because it was full.", sum.refused);
    }
}
