//! One step of one slot towards what is wished for it.
//!
//! Level triggered: it looks at the facts, not at messages, so a step that was missed is made at the next sweep and a
//! new supervisor goes on where the old one died. It never waits. The order of force: ask, grace, kill signal,
//! abort, give up the thread.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::ArbiterHandle;

use super::clock::{Micros, between, micros};
use super::exit::{ExitReason, ExitReport, Phase};
use super::lifeline::{Command, Lifeline, locked};
use super::policy::Decision;
use super::registry::Registry;
use super::slot::{AnySlot, Cell, KillStep, Request, RestartMode, Stage, State, Wanted};

/// From the kill signal to the abort.
const SIGNAL_PATIENCE: Duration = Duration::from_millis(100);

pub(crate) fn drive(slot: &Arc<dyn AnySlot>, env: &Registry) {
    let core = slot.core();
    let mut cell = locked(&core.cell);
    let before = cell.state();
    let mut step = Step { slot, env, now: env.clock.now_us(), launch: None };
    step.note_end(&mut cell);
    step.note_lost(&mut cell);
    step.act(&mut cell);
    step.note_health(&mut cell);
    let changed = cell.state() != before;
    let launch = step.launch.take();
    drop(cell);
    // A launch on a dead thread drops its closure here and now, which reports to this very slot: not under its lock.
    if let Some((arbiter, life)) = launch {
        Arc::clone(slot).launch(&arbiter, life);
    }
    if changed {
        core.changed.notify_waiters();
    }
}

struct Step<'a> {
    slot: &'a Arc<dyn AnySlot>,
    env: &'a Registry,
    now: Micros,
    launch: Option<(ArbiterHandle, Lifeline)>,
}

impl Step<'_> {
    fn act(&mut self, cell: &mut Cell) {
        match cell.stage {
            Stage::Up => self.up(cell),
            Stage::Dying { step, since } => self.dying(cell, step, since),
            Stage::Spawning { since } => self.spawning(cell, since),
            Stage::Due | Stage::Waiting { .. } | Stage::Over => self.resting(cell),
        }
    }

    /// Nothing lives here: is something due?
    fn resting(&mut self, cell: &mut Cell) {
        if cell.wanted != Wanted::Up {
            if cell.stage != Stage::Over {
                cell.enter(Stage::Over, self.now);
            }
            return self.settle(cell, Ok(()));
        }
        if let Some(request) = cell.request.take() {
            self.accept(cell, request, "restart");
            return self.start(cell);
        }
        match cell.stage {
            Stage::Due | Stage::Over => self.start(cell),
            Stage::Waiting { until, .. } if self.now >= until => self.start(cell),
            _ => {}
        }
    }

    fn up(&mut self, cell: &mut Cell) {
        if let Some(request) = cell.request.take() {
            let mode = request.mode;
            self.accept(cell, request, "restart");
            self.end(cell, mode);
        } else if cell.wanted != Wanted::Up {
            self.end(cell, if cell.kill_now { RestartMode::Kill } else { RestartMode::Graceful });
        } else if let Some(silent) = self.silence(cell) {
            tracing::error!(actor = %self.slot.core().id(), generation = cell.generation, ?silent, "actor stalled");
            self.condemn(cell, ExitReason::Stalled { silent });
        }
    }

    /// The thread has not taken the instance yet.
    fn spawning(&mut self, cell: &mut Cell, since: Micros) {
        if between(since, self.now) < self.env.config.spawn_patience {
            return;
        }
        let Some(arbiter) = cell.arbiter else { return };
        let mut arbiters = locked(&self.env.arbiters);
        if arbiters.is_late(arbiter) {
            arbiters.mark_stuck(arbiter);
            drop(arbiters);
            self.give_up(cell, ExitReason::ArbiterLost);
            self.start_elsewhere(cell);
        }
    }

    /// A start that never happened: paced like a restart, lest a factory that blocks eats all threads; but it is no
    /// end, so an operation goes on and a child that never restarts is still started.
    fn start_elsewhere(&mut self, cell: &mut Cell) {
        let Some(exit) = cell.last_exit.clone().filter(|_| cell.wanted == Wanted::Up) else {
            return cell.enter(Stage::Due, self.now);
        };
        let stage = match cell.policy.decide(&exit, self.now, rand::random()) {
            Decision::Restart { after } => Stage::Waiting { until: self.now + micros(after), breaker: false },
            Decision::OpenBreaker { wait } => {
                self.settle(cell, Err("no thread took the new instance".into()));
                Stage::Waiting { until: self.now + micros(wait), breaker: true }
            }
            Decision::Stop => Stage::Due,
        };
        cell.enter(stage, self.now);
    }

    fn dying(&mut self, cell: &mut Cell, step: KillStep, since: Micros) {
        let waited = between(since, self.now);
        match step {
            KillStep::Asked if cell.kill_now || waited >= self.slot.core().facts.stop_grace => {
                self.condemn(cell, ExitReason::Killed);
            }
            KillStep::Signalled if waited >= SIGNAL_PATIENCE => {
                if let Some(abort) = &cell.abort {
                    abort.abort();
                }
                cell.enter(Stage::Dying { step: KillStep::Aborted, since: self.now }, self.now);
            }
            KillStep::Aborted if self.is_hopeless(cell, waited) => {
                let reason = cell.life.as_ref().and_then(Lifeline::reason).unwrap_or(ExitReason::Killed);
                self.give_up(cell, reason);
                self.after_end(cell);
            }
            _ => {}
        }
    }

    /// The instance does not end although it was aborted: its thread is blocked, and marked as such.
    fn is_hopeless(&self, cell: &Cell, waited: Duration) -> bool {
        let patience = self.env.config.abort_patience;
        if waited < patience {
            return false;
        }
        let mut arbiters = locked(&self.env.arbiters);
        let Some(late) = cell.arbiter.filter(|arbiter| arbiters.is_late(*arbiter)) else {
            return waited >= patience * 10;
        };
        arbiters.mark_stuck(late);
        true
    }

    fn silence(&self, cell: &Cell) -> Option<Duration> {
        let life = cell.life.as_ref()?;
        life.stalled(self.now, self.slot.core().facts.liveness.stall_after)
    }

    fn end(&mut self, cell: &mut Cell, mode: RestartMode) {
        let asked = mode == RestartMode::Graceful
            && cell.commands.as_ref().is_some_and(|commands| commands.try_send(Command::Drain).is_ok());
        if asked {
            cell.enter(Stage::Dying { step: KillStep::Asked, since: self.now }, self.now);
        } else {
            self.condemn(cell, ExitReason::Killed);
        }
    }

    /// By force from here on.
    fn condemn(&mut self, cell: &mut Cell, reason: ExitReason) {
        if let Some(life) = &cell.life {
            life.condemn(reason);
            life.fence();
        }
        self.slot.unplug(cell.generation);
        cell.enter(Stage::Dying { step: KillStep::Signalled, since: self.now }, self.now);
    }

    /// The instance goes on as if it had ended; it is fenced and its late report is ignored.
    fn give_up(&mut self, cell: &mut Cell, reason: ExitReason) {
        let phase = cell.life.as_ref().map_or(Phase::Idle, Lifeline::phase);
        if let Some(life) = &cell.life {
            life.fence();
        }
        self.slot.unplug(cell.generation);
        self.bury(cell, reason, phase);
    }

    fn note_end(&mut self, cell: &mut Cell) {
        let Some((reason, phase)) = cell.ended.take() else { return };
        self.bury(cell, reason, phase);
        self.after_end(cell);
    }

    /// The second witness: a task that is finished although nobody reported it.
    fn note_lost(&mut self, cell: &mut Cell) {
        let finished = cell.abort.as_ref().is_some_and(tokio::task::AbortHandle::is_finished);
        if finished && cell.life.is_some() && cell.ended.is_none() {
            let phase = cell.life.as_ref().map_or(Phase::Idle, Lifeline::phase);
            self.slot.unplug(cell.generation);
            self.bury(cell, ExitReason::ArbiterLost, phase);
            self.after_end(cell);
        }
    }

    fn bury(&mut self, cell: &mut Cell, reason: ExitReason, phase: Phase) {
        let core = self.slot.core();
        let report = core.report(cell, reason, phase);
        if let Some(arbiter) = cell.arbiter.take() {
            locked(&self.env.arbiters).release(arbiter);
        }
        if let (ExitReason::Panicked(_), Phase::Handling { tag: Some(tag), .. }) = (&report.reason, phase)
            && core.board.panicked_on(tag)
        {
            tracing::error!(actor = %report.id, tag = tag.0, "item panicked again, refused from now on");
        }
        locked(&core.board.degraded).clear();
        log_end(&report);
        cell.bury(report);
    }

    /// Nothing lives any more: what follows?
    fn after_end(&mut self, cell: &mut Cell) {
        if let Some(operation) = &cell.operation {
            self.env.operations.step(operation, "stop", true);
        }
        if cell.wanted != Wanted::Up {
            cell.enter(Stage::Over, self.now);
            return self.settle(cell, Ok(()));
        }
        if matches!(&cell.operation, Some(operation) if !self.has_started(operation)) {
            cell.policy.manual();
            cell.exits.manual += 1;
            return cell.enter(Stage::Due, self.now);
        }
        if cell.request.is_some() {
            return cell.enter(Stage::Due, self.now);
        }
        self.settle(cell, Err("the new instance ended before it was ready".into()));
        let Some(exit) = cell.last_exit.clone() else { return };
        let dice = rand::random();
        cell.next_cause = (exit.reason.word().into(), "kernel".into());
        let stage = match cell.policy.decide(&exit, self.now, dice) {
            Decision::Restart { after } => Stage::Waiting { until: self.now + micros(after), breaker: false },
            Decision::OpenBreaker { wait } => {
                tracing::error!(actor = %exit.id, ?wait, "too many restarts, breaker open");
                Stage::Waiting { until: self.now + micros(wait), breaker: true }
            }
            Decision::Stop => {
                cell.wanted = Wanted::Stopped;
                Stage::Over
            }
        };
        cell.enter(stage, self.now);
    }

    fn has_started(&self, operation: &super::operations::OperationId) -> bool {
        self.env.operations.get(operation).is_none_or(|operation| operation.to_generation.is_some())
    }

    fn accept(&mut self, cell: &mut Cell, request: Request, cause: &str) {
        cell.next_cause = (cause.to_owned(), request.by);
        cell.operation = request.operation;
        if cell.stage != Stage::Up {
            cell.policy.manual();
            cell.exits.manual += 1;
        }
    }

    fn start(&mut self, cell: &mut Cell) {
        let core = self.slot.core();
        let Some((arbiter, handle)) = locked(&self.env.arbiters).place(&core.facts.placement) else {
            tracing::error!(actor = %core.id(), "no thread to start on");
            cell.enter(Stage::Waiting { until: self.now + 1_000_000, breaker: false }, self.now);
            return;
        };
        if cell.generation > 0 && !cell.history.is_empty() {
            cell.exits.restarts += 1;
        }
        core.next_generation(cell);
        if let Some(operation) = &cell.operation {
            self.env.operations.leads_to(operation, cell.generation);
        }
        let (sender, receiver) = async_channel::bounded(8);
        let (clock, board) = (self.env.clock.clone(), Arc::clone(&core.board));
        let life = Lifeline::new(core.id().clone(), cell.generation, clock, board, Some(receiver));
        cell.life = Some(life.clone());
        cell.commands = Some(sender);
        cell.arbiter = Some(arbiter);
        cell.ended = None;
        cell.record_start(self.now);
        cell.enter(Stage::Spawning { since: self.now }, self.now);
        self.launch = Some((handle, life));
    }

    fn note_health(&mut self, cell: &mut Cell) {
        if cell.state() != State::Running {
            return;
        }
        if let Some(life) = &cell.life {
            cell.policy.observe(between(life.started_us(), self.now), self.now);
        }
        if cell.operation.as_ref().is_some_and(|operation| self.has_started(operation)) {
            self.settle(cell, Ok(()));
        }
    }

    /// The operation under way is over; where nothing is to run, a restart that still waits is refused.
    fn settle(&mut self, cell: &mut Cell, outcome: Result<(), String>) {
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

fn log_end(report: &ExitReport) {
    let ExitReport { id, generation, reason, phase, .. } = report;
    if matches!(reason, ExitReason::Asked | ExitReason::Finished) {
        tracing::debug!(actor = %id, generation, %reason, "instance ended");
    } else {
        tracing::warn!(actor = %id, generation, %reason, %phase, "instance ended");
    }
}
