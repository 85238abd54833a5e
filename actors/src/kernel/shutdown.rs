//! The orderly end: children stop in the reverse order of their start, and whoever blocks it is named.
//!
//! Neighbours in that order which are of one kind stop together. A wave gets the grace of its members, but never more
//! than half of what is left, so that those started first (and stopped last) always have time of their own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::cell::Wanted;
use super::clock::{Micros, micros};
use super::exit::ActorId;
use super::lifeline::locked;
use super::registry::Registry;
use super::slot::AnySlot;
use super::spec::Kind;

/// After the grace, for those that are ended by force.
const LAST_ORDERS: Duration = Duration::from_secs(1);

/// A child that did not stop in its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Culprit {
    /// Who.
    pub id: ActorId,
    /// What it was doing.
    pub phase: String,
    /// How long it was waited for, milliseconds.
    pub waited_ms: u64,
}

/// How a shutdown went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShutdownReport {
    /// Those that stopped in their time, in the order of their stopping.
    pub stopped: Vec<ActorId>,
    /// Those that did not.
    pub culprits: Vec<Culprit>,
    /// How long it took, milliseconds.
    pub elapsed_ms: u64,
}

struct Wave {
    slots: Vec<Arc<dyn AnySlot>>,
    since: Micros,
    until: Micros,
}

/// The plan of a shutdown under way.
pub(crate) struct Plan {
    started: Micros,
    deadline: Micros,
    waves: VecDeque<Vec<Arc<dyn AnySlot>>>,
    current: Option<Wave>,
    leftover: Vec<Arc<dyn AnySlot>>,
    report: ShutdownReport,
    pub(crate) done: bool,
}

impl Plan {
    pub(crate) fn new(env: &Registry, grace: Duration) -> Self {
        let started = env.clock.now_us();
        let mut waves: VecDeque<Vec<Arc<dyn AnySlot>>> = VecDeque::new();
        for slot in env.ordered().into_iter().rev() {
            match waves.back_mut().filter(|wave| kind(wave) == Some(slot.core().facts.kind)) {
                Some(wave) => wave.push(slot),
                None => waves.push_back(vec![slot]),
            }
        }
        let deadline = started.saturating_add(micros(grace));
        let report = ShutdownReport::default();
        Self { started, deadline, waves, current: None, leftover: Vec::new(), report, done: false }
    }

    pub(crate) fn report(&self) -> ShutdownReport {
        self.report.clone()
    }

    /// One step; never waits.
    pub(crate) fn step(&mut self, env: &Registry) {
        let now = env.clock.now_us();
        while !self.done {
            let Some(wave) = self.current.take() else {
                match self.waves.pop_front() {
                    Some(slots) => self.current = Some(self.ask(slots, now)),
                    None => return self.wait_for_leftover(now),
                }
                continue;
            };
            let Some(rest) = self.collect(wave) else { continue };
            if now < rest.until {
                self.current = Some(rest);
                return;
            }
            self.name_culprits(rest, now);
        }
    }

    fn ask(&self, slots: Vec<Arc<dyn AnySlot>>, now: Micros) -> Wave {
        for slot in &slots {
            locked(&slot.core().cell).wanted = Wanted::Stopped;
            slot.core().wake();
        }
        let graces = slots.iter().map(|slot| slot.core().facts.stop_grace);
        let left = (self.deadline - now).max(0);
        let share = if self.waves.is_empty() { left } else { left / 2 };
        let until = now + micros(graces.max().unwrap_or_default()).min(share);
        Wave { slots, since: now, until }
    }

    /// Takes out who has stopped; `None` when that is everybody.
    fn collect(&mut self, wave: Wave) -> Option<Wave> {
        let (stopped, rest): (Vec<_>, Vec<_>) = wave.slots.into_iter().partition(is_over);
        self.report.stopped.extend(stopped.iter().map(|slot| slot.core().id().clone()));
        (!rest.is_empty()).then_some(Wave { slots: rest, ..wave })
    }

    fn name_culprits(&mut self, wave: Wave, now: Micros) {
        for slot in wave.slots {
            let core = slot.core();
            let mut cell = locked(&core.cell);
            cell.kill_now = true;
            let phase = cell.life().map_or_else(|| "not running".into(), |life| life.phase().to_string());
            drop(cell);
            core.wake();
            let waited_ms = u64::try_from((now - wave.since) / 1000).unwrap_or(0);
            tracing::error!(actor = %core.id(), phase, waited_ms, "did not stop in its time, ended by force");
            self.report.culprits.push(Culprit { id: core.id().clone(), phase, waited_ms });
            self.leftover.push(slot);
        }
    }

    fn wait_for_leftover(&mut self, now: Micros) {
        self.leftover.retain(|slot| !is_over(slot));
        if self.leftover.is_empty() || now >= self.deadline.max(self.started) + micros(LAST_ORDERS) {
            self.report.elapsed_ms = u64::try_from((now - self.started) / 1000).unwrap_or(0);
            self.done = true;
        }
    }
}

fn kind(wave: &[Arc<dyn AnySlot>]) -> Option<Kind> {
    wave.first().map(|slot| slot.core().facts.kind)
}

fn is_over(slot: &Arc<dyn AnySlot>) -> bool {
    locked(&slot.core().cell).is_over()
}
