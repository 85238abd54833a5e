//! Make before break: the next instance works beside the present one until it says that it has taken over.
//!
//! ```text
//! up ── next is started beside ── plugged in: asks, items and publishing are its own ── took_over ── old one drains
//!                  │ ends, stalls, is too late: thrown away, the old one goes on         │ the old one ends first:
//!                  └── rolled back, the operation failed                                 └── the next one is current
//! ```
//!
//! All of it stands in the slot, so a new supervisor goes on in the middle.

use serde_json::{Value, json};

use super::cell::{Beside, Cell, Ended, Ending, Instance, Request, RestartMode, Role, Stage, Wanted};
use super::clock::{Micros, between, micros};
use super::ending::Push;
use super::exit::ExitReason;
use super::lifeline::locked;
use super::operations::OperationId;
use super::reconcile::Step;

impl Step<'_> {
    /// Starts the next instance beside the present one.
    pub(super) fn begin_handover(&mut self, cell: &mut Cell, request: Request) {
        let until = self.now.saturating_add(micros(request.deadline));
        cell.operation = request.operation;
        let Some(instance) = self.make(cell, ("handover".into(), request.by)) else {
            return self.settle(cell, Err("there is no thread for the next instance".into()));
        };
        instance.life.follow();
        if let Some(operation) = &cell.operation {
            self.env.operations.leads_to(operation, instance.generation());
        }
        let role = Role::Next { since: self.now, until, warm: false };
        cell.beside = Some(Beside { instance, role, drains: None });
    }

    /// One step of the instance beside the current one.
    pub(super) fn step_beside(&mut self, cell: &mut Cell) {
        let Some(Beside { mut instance, role, drains }) = cell.beside.take() else { return };
        let ended = instance.take_end(self.now);
        match (role, ended) {
            (Role::Leaving(_), Some(ended)) => self.left(cell, instance, drains, ended),
            (Role::Leaving(ending), None) => self.leave(cell, instance, drains, ending),
            (Role::Next { .. }, Some(ended)) => {
                let why = format!("the next instance ended before it took over: {}", ended.reason);
                self.bury(cell, instance, ended);
                self.roll_back(cell, why);
            }
            (Role::Next { since, until, warm }, None) => self.warm(cell, instance, (since, until, warm)),
        }
    }

    fn warm(&mut self, cell: &mut Cell, instance: Instance, (since, until, warm): (Micros, Micros, bool)) {
        let ready = instance.life.is_ready();
        if ready && !warm {
            self.note_step(cell, "warm");
        }
        if let Some(effect) = instance.life.takeover() {
            return self.take_over(cell, instance, effect);
        }
        match self.why_not(cell, &instance, since, until) {
            Some(why) => self.throw_away(cell, instance, why),
            None => {
                let role = Role::Next { since, until, warm: warm || ready };
                cell.beside = Some(Beside { instance, role, drains: None });
            }
        }
    }

    /// Why the next instance is given up, if it is.
    fn why_not(&self, cell: &Cell, instance: &Instance, since: Micros, until: Micros) -> Option<String> {
        if cell.wanted != Wanted::Up {
            return Some("the actor is no longer wanted".into());
        }
        if cell.renew.is_some() {
            return Some("the actor is restarted with others".into());
        }
        if self.now >= until {
            return Some(format!("not taken over within {} ms", between(since, self.now).as_millis()));
        }
        if instance.abort.is_none() && self.is_not_taken(since, instance.arbiter) {
            return Some("no thread took the next instance".into());
        }
        let silent = instance.life.stalled(self.now, self.slot.core().facts.liveness.stall_after)?;
        Some(format!("the next instance made no progress for {} ms", silent.as_millis()))
    }

    /// The next instance is the current one from here on, and the old one is asked to stop.
    fn take_over(&mut self, cell: &mut Cell, next: Instance, effect: Value) {
        self.note_step(cell, "takeover");
        if let Some(operation) = &cell.operation {
            self.env.operations.effect(operation, json!({ "downtime_ms": 0 }));
            let effect = if effect.is_object() { effect } else { json!({ "detail": effect }) };
            self.env.operations.effect(operation, effect);
        }
        cell.exits.manual += 1;
        cell.exits.restarts += 1;
        cell.policy.manual();
        let stage = cell.stage;
        let Some(old) = self.make_current(cell, next) else { return };
        self.slot.unplug(old.generation());
        let ending = match stage {
            Stage::Dying(ending) => ending,
            _ => self.begin_end(&old, RestartMode::Graceful),
        };
        let drains = cell.operation.clone();
        cell.beside = Some(Beside { instance: old, role: Role::Leaving(ending), drains });
    }

    /// The old instance is over before the next one took over: the next one simply is the current one.
    pub(super) fn inherit(&mut self, cell: &mut Cell) -> bool {
        let Some(Beside { instance, .. }) =
            cell.beside.take_if(|beside| matches!(beside.role, Role::Next { .. }))
        else {
            return false;
        };
        if let Some(operation) = &cell.operation {
            self.env.operations.step(operation, "predecessor_ended", false);
        }
        cell.exits.restarts += 1;
        drop(self.make_current(cell, instance));
        true
    }

    fn make_current(&self, cell: &mut Cell, next: Instance) -> Option<Instance> {
        next.life.stand_alone();
        let stage = if next.abort.is_some() { Stage::Up } else { Stage::Spawning { since: self.now } };
        self.slot.core().set_generation(cell, next.generation());
        cell.enter(stage, self.now);
        cell.live.replace(next)
    }

    /// The next instance is thrown away and the old one goes on as before.
    fn throw_away(&mut self, cell: &mut Cell, instance: Instance, why: String) {
        if instance.abort.is_none() {
            self.give_up(cell, instance, ExitReason::Killed);
        } else {
            let ending = self.condemn(&instance, ExitReason::Killed);
            cell.beside = Some(Beside { instance, role: Role::Leaving(ending), drains: None });
        }
        self.roll_back(cell, why);
    }

    fn roll_back(&mut self, cell: &mut Cell, why: String) {
        locked(&self.slot.core().board.degraded).clear();
        if let Some(life) = cell.life() {
            life.go_on();
        }
        tracing::error!(actor = %self.slot.core().id(), why, "handover rolled back");
        if let Some(operation) = cell.operation.take() {
            self.env.operations.step(&operation, "rollback", true);
            self.env.operations.finish(&operation, Err(why));
        }
    }

    fn leave(&mut self, cell: &mut Cell, instance: Instance, drains: Option<OperationId>, ending: Ending) {
        let ending = match self.push(&instance, ending, cell.kill_now) {
            Push::Wait => ending,
            Push::Next(ending) => ending,
            Push::Hopeless(reason) => {
                let ended = Ended { reason, phase: instance.life.phase(), at: self.now };
                return self.left(cell, instance, drains, ended);
            }
        };
        cell.beside = Some(Beside { instance, role: Role::Leaving(ending), drains });
    }

    fn left(&mut self, cell: &mut Cell, instance: Instance, drains: Option<OperationId>, ended: Ended) {
        let as_asked = matches!(ended.reason, ExitReason::Asked | ExitReason::Finished);
        instance.life.fence();
        self.bury(cell, instance, ended);
        // Should the successor have ended meanwhile, that has settled the operation.
        if let Some(operation) = cell.operation.take_if(|operation| drains.as_ref() == Some(operation)) {
            self.env.operations.step(&operation, "drain", as_asked);
            self.env.operations.finish(&operation, Ok(()));
        }
    }

    fn note_step(&self, cell: &Cell, name: &str) {
        if let Some(operation) = &cell.operation {
            self.env.operations.step(operation, name, true);
        }
    }
}
