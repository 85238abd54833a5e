//! One step of one slot towards what is wished for it.
//!
//! Level triggered: it looks at the facts, not at messages, so a step that was missed is made at the next sweep and a
//! new supervisor goes on where the old one died. It never waits. How an instance is ended is in `ending`, what is done
//! with two of them in `handover`.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use serde_json::json;

use super::arbiters::ArbiterId;
use super::cell::{Call, Cell, Ended, Ending, Instance, Request, RestartMode, Stage, State, Wanted};
use super::clock::{Micros, between, micros};
use super::ending::Push;
use super::exit::ExitReason;
use super::lifeline::{Lifeline, locked};
use super::operations::OperationId;
use super::policy::Decision;
use super::quarantine::OPENINGS;
use super::registry::Registry;
use super::rounds;
use super::slot::AnySlot;
use super::spec::{Cascade, Strategy};

pub(crate) fn drive(slot: &Arc<dyn AnySlot>, env: &Registry) {
    let core = slot.core();
    let mut cell = locked(&core.cell);
    let before = cell.state();
    let mut step = Step { slot, env, now: env.clock.now_us(), launch: None };
    step.note_end(&mut cell);
    step.step_beside(&mut cell);
    step.act(&mut cell);
    step.note_health(&mut cell);
    let changed = cell.state() != before;
    let launch = step.launch.take();
    let calls = cell.calls.clone();
    drop(cell);
    // A launch on a dead thread drops its closure here and now, which reports to this very slot: not under its lock.
    if let Some((arbiter, life)) = launch {
        Arc::clone(slot).launch(&arbiter, life);
    }
    for call in calls {
        rounds::answer(slot, env, call);
    }
    if changed {
        core.changed.notify_waiters();
    }
}

pub(super) struct Step<'a> {
    pub(super) slot: &'a Arc<dyn AnySlot>,
    pub(super) env: &'a Registry,
    pub(super) now: Micros,
    launch: Option<(ArbiterHandle, Lifeline)>,
}

impl Step<'_> {
    fn act(&mut self, cell: &mut Cell) {
        match cell.stage {
            Stage::Up => self.up(cell),
            Stage::Dying(ending) => self.dying(cell, ending),
            Stage::Spawning { since } => self.spawning(cell, since),
            Stage::Due | Stage::Waiting { .. } | Stage::Over => self.resting(cell),
        }
    }

    /// Nothing lives here: is something due?
    fn resting(&mut self, cell: &mut Cell) {
        cell.renew = None;
        if cell.wanted != Wanted::Up && !self.begin_probe(cell) {
            if cell.stage != Stage::Over {
                cell.enter(Stage::Over, self.now);
            }
            return self.settle(cell, Ok(()));
        }
        if let Some(request) = cell.request.take() {
            self.accept(cell, request, "restart");
            cell.enter(Stage::Due, self.now);
        }
        if cell.gate {
            return;
        }
        match cell.stage {
            Stage::Due | Stage::Over => self.start(cell),
            Stage::Waiting { until, .. } if self.now >= until => self.start(cell),
            _ => {}
        }
    }

    fn up(&mut self, cell: &mut Cell) {
        if cell.wanted != Wanted::Up {
            let mode = if cell.kill_now { RestartMode::Kill } else { RestartMode::Graceful };
            if let Some(life) = cell.life().filter(|_| cell.wanted == Wanted::Paused) {
                life.hold();
            }
            return self.end(cell, mode);
        }
        if let Some(silent) = self.silence(cell) {
            tracing::error!(actor = %self.slot.core().id(), generation = cell.generation, ?silent, "actor stalled");
            return self.end_by_force(cell, ExitReason::Stalled { silent });
        }
        let renew = cell.renew.take();
        let Some(request) = cell.request.take() else { return self.renew(cell, renew) };
        if request.mode != RestartMode::Handover || self.slot.core().facts.solitary {
            let mode = request.mode;
            self.accept(cell, request, "restart");
            cell.renewing = true;
            return self.end(cell, mode);
        }
        if cell.beside.is_some() {
            cell.request = Some(request); // the last one that was thrown away is not gone yet
            return;
        }
        self.begin_handover(cell, request);
    }

    fn renew(&mut self, cell: &mut Cell, renew: Option<(String, String)>) {
        if let Some(cause) = renew {
            cell.next_cause = cause;
            cell.renewing = true;
            self.end(cell, RestartMode::Graceful);
        }
    }

    /// The thread has not taken the instance yet.
    fn spawning(&mut self, cell: &mut Cell, since: Micros) {
        let taken = |instance: &mut Instance| self.is_not_taken(since, instance.arbiter);
        if let Some(instance) = cell.live.take_if(taken) {
            self.give_up(cell, instance, ExitReason::ArbiterLost);
            self.start_elsewhere(cell);
        }
    }

    /// Whether the thread has had its time and does not answer; it is marked so.
    pub(super) fn is_not_taken(&self, since: Micros, arbiter: ArbiterId) -> bool {
        if between(since, self.now) < self.env.config.spawn_patience {
            return false;
        }
        let mut arbiters = locked(&self.env.arbiters);
        let late = arbiters.is_late(arbiter);
        if late {
            arbiters.mark_stuck(arbiter);
        }
        late
    }

    /// A start that never happened: paced like a restart, lest a factory that blocks eats all threads; but it is no
    /// end, so an operation goes on and a child that never restarts is still started.
    fn start_elsewhere(&mut self, cell: &mut Cell) {
        let Some(exit) = cell.last_exit.clone().filter(|_| cell.wanted == Wanted::Up) else {
            return cell.enter(Stage::Due, self.now);
        };
        let stage = match cell.policy.decide(&exit, self.now, rand::random()) {
            Decision::Restart { after } => Stage::Waiting { until: self.now + micros(after), breaker: false },
            Decision::OpenBreaker { wait, .. } => {
                self.settle(cell, Err("no thread took the new instance".into()));
                Stage::Waiting { until: self.now + micros(wait), breaker: true }
            }
            Decision::Stop => Stage::Due,
        };
        cell.enter(stage, self.now);
    }

    fn dying(&mut self, cell: &mut Cell, ending: Ending) {
        let Some(instance) = &cell.live else { return };
        match self.push(instance, ending, cell.kill_now) {
            Push::Wait => {}
            Push::Next(ending) => cell.enter(Stage::Dying(ending), self.now),
            Push::Hopeless(reason) => {
                if let Some(instance) = cell.live.take() {
                    cell.down_since = Some(self.now);
                    self.give_up(cell, instance, reason);
                }
                self.after_end(cell);
            }
        }
    }

    fn silence(&self, cell: &Cell) -> Option<Duration> {
        cell.life()?.stalled(self.now, self.slot.core().facts.liveness.stall_after)
    }

    fn end(&mut self, cell: &mut Cell, mode: RestartMode) {
        let Some(instance) = &cell.live else { return };
        let ending = self.begin_end(instance, mode);
        cell.enter(Stage::Dying(ending), self.now);
    }

    fn end_by_force(&mut self, cell: &mut Cell, reason: ExitReason) {
        let Some(instance) = &cell.live else { return };
        let ending = self.condemn(instance, reason);
        cell.enter(Stage::Dying(ending), self.now);
    }

    fn note_end(&mut self, cell: &mut Cell) {
        let Some(ended) = cell.live.as_mut().and_then(|instance| instance.take_end(self.now)) else { return };
        let Some(instance) = cell.live.take() else { return };
        self.lost(cell, instance, ended);
    }

    /// The current instance is over.
    fn lost(&mut self, cell: &mut Cell, instance: Instance, ended: Ended) {
        cell.down_since = Some(ended.at);
        self.bury(cell, instance, ended);
        self.after_end(cell);
    }

    /// Nothing lives any more, but perhaps one that was to take over: what follows?
    fn after_end(&mut self, cell: &mut Cell) {
        if self.inherit(cell) {
            return;
        }
        locked(&self.slot.core().board.degraded).clear();
        if let Some(operation) = &cell.operation {
            self.env.operations.step(operation, "stop", true);
        }
        if cell.wanted != Wanted::Up {
            cell.enter(Stage::Over, self.now);
            return self.settle(cell, Ok(()));
        }
        if std::mem::take(&mut cell.renewing) {
            cell.policy.manual();
            cell.exits.manual += u64::from(cell.operation.is_some());
            return cell.enter(Stage::Due, self.now);
        }
        if cell.request.is_some() {
            return cell.enter(Stage::Due, self.now);
        }
        self.settle(cell, Err("the new instance ended before it was ready".into()));
        if self.fail_probe(cell) {
            return;
        }
        let Some(exit) = cell.last_exit.clone() else { return };
        let dice = rand::random();
        cell.next_cause = (exit.reason.word().into(), "kernel".into());
        let stage = match cell.policy.decide(&exit, self.now, dice) {
            Decision::Restart { after } => {
                self.call_group(cell);
                Stage::Waiting { until: self.now + micros(after), breaker: false }
            }
            Decision::OpenBreaker { wait, in_a_row } => {
                tracing::error!(actor = %exit.id, ?wait, "too many restarts, breaker open");
                let facts = &self.slot.core().facts;
                if facts.escalation.is_some_and(|escalation| escalation.reaches(facts)) {
                    cell.call(Call::Escalate);
                } else if in_a_row >= OPENINGS {
                    self.quarantine_for_crashes(cell, wait, in_a_row, &exit.reason.to_string());
                }
                Stage::Waiting { until: self.now + micros(wait), breaker: true }
            }
            Decision::Stop => {
                cell.wanted = Wanted::Stopped;
                Stage::Over
            }
        };
        cell.enter(stage, self.now);
    }

    /// Those of its group who are restarted with it; it starts when its turn comes.
    fn call_group(&self, cell: &mut Cell) {
        if let Some((_, Strategy::RestForOne | Strategy::OneForAll)) = &self.slot.core().facts.group {
            cell.call(Call::Group);
            cell.gate = true;
        }
    }

    fn has_started(&self, operation: &OperationId) -> bool {
        self.env.operations.get(operation).is_none_or(|operation| operation.to_generation.is_some())
    }

    fn accept(&mut self, cell: &mut Cell, request: Request, cause: &str) {
        cell.next_cause = (cause.to_owned(), request.by);
        cell.operation = request.operation;
        if request.cascade != Cascade::Self_ && self.slot.core().facts.group.is_some() {
            cell.call(Call::Cascade(request.cascade));
            cell.gate = true;
        }
        if cell.stage != Stage::Up {
            cell.policy.manual();
            cell.exits.manual += 1;
        }
    }

    fn start(&mut self, cell: &mut Cell) {
        let again = !cell.history.is_empty();
        let Some(instance) = self.make(cell, cell.next_cause.clone()) else {
            cell.enter(Stage::Waiting { until: self.now + 1_000_000, breaker: false }, self.now);
            return;
        };
        cell.exits.restarts += u64::from(again);
        self.slot.core().set_generation(cell, instance.generation());
        if let Some(operation) = &cell.operation {
            self.env.operations.leads_to(operation, cell.generation);
        }
        cell.live = Some(instance);
        cell.enter(Stage::Spawning { since: self.now }, self.now);
    }

    /// A new instance, to be launched once the lock is free; `None` when there is no thread for it.
    pub(super) fn make(&mut self, cell: &mut Cell, cause: (String, String)) -> Option<Instance> {
        let core = self.slot.core();
        let Some((arbiter, handle)) = locked(&self.env.arbiters).place(&core.facts.placement) else {
            tracing::error!(actor = %core.id(), "no thread to start on");
            return None;
        };
        let generation = cell.next_generation(self.now, cause);
        let (commands, receiver) = async_channel::bounded(8);
        let (clock, board) = (self.env.clock.clone(), Arc::clone(&core.board));
        let life = Lifeline::new(core.id().clone(), generation, clock, board, Some(receiver));
        self.launch = Some((handle, life.clone()));
        Some(Instance { life, commands, abort: None, arbiter, ended: None })
    }

    fn note_health(&mut self, cell: &mut Cell) {
        self.note_probe(cell);
        let Some(life) = cell.life().filter(|_| cell.state() == State::Running) else { return };
        let (lived, ready_us) = (between(life.started_us(), self.now), life.ready_us());
        cell.policy.observe(lived, self.now);
        cell.escalated &= lived < cell.policy.healthy_after();
        let drains = cell.beside.as_ref().is_some_and(|beside| beside.drains == cell.operation);
        if !drains && cell.operation.as_ref().is_some_and(|operation| self.has_started(operation)) {
            self.note_downtime(cell, ready_us);
            self.settle(cell, Ok(()));
        }
        cell.down_since = None;
    }

    fn note_downtime(&self, cell: &Cell, ready_us: Micros) {
        if let (Some(operation), Some(since)) = (&cell.operation, cell.down_since) {
            let downtime_ms = between(since, ready_us).as_millis();
            let downtime_ms = u64::try_from(downtime_ms).unwrap_or(u64::MAX);
            self.env.operations.effect(operation, json!({ "downtime_ms": downtime_ms }));
        }
    }

    /// The operation under way is over; where nothing is to run, a restart that still waits is refused.
    pub(super) fn settle(&mut self, cell: &mut Cell, outcome: Result<(), String>) {
        if cell.wanted != Wanted::Up
            && let Some(operation) = cell.request.take().and_then(|request| request.operation)
        {
            self.env.operations.finish(&operation, Err("the actor is no longer wanted".into()));
        }
        let Some(operation) = cell.operation.take() else { return };
        if cell.wanted == Wanted::Up {
            self.env.operations.step(&operation, "start", outcome.is_ok());
        }
        self.env.operations.finish(&operation, outcome);
    }
}
