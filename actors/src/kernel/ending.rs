//! How an instance is ended, step by step of force, and how its end is noted. The order: ask, grace, kill signal, abort,
//! give up the thread.

use std::time::Duration;

use super::cell::{Cell, Ended, Ending, Instance, KillStep, RestartMode};
use super::clock::between;
use super::exit::{ExitReason, ExitReport, Phase};
use super::lifeline::{Command, locked};
use super::reconcile::Step;

/// From the kill signal to the abort.
const SIGNAL_PATIENCE: Duration = Duration::from_millis(100);

/// What came of one more look at an instance that is being ended.
pub(super) enum Push {
    Wait,
    /// It is at another step now.
    Next(Ending),
    /// Its thread does not answer: go on as if it had ended.
    Hopeless(ExitReason),
}

impl Step<'_> {
    /// Begins the end of an instance.
    pub(super) fn begin_end(&self, instance: &Instance, mode: RestartMode) -> Ending {
        if mode != RestartMode::Kill && instance.commands.try_send(Command::Drain).is_ok() {
            return self.at(KillStep::Asked);
        }
        self.condemn(instance, ExitReason::Killed)
    }

    /// By force from here on.
    pub(super) fn condemn(&self, instance: &Instance, reason: ExitReason) -> Ending {
        instance.life.condemn(reason);
        instance.life.fence();
        self.slot.unplug(instance.generation());
        self.at(KillStep::Signalled)
    }

    /// More force, when it is time.
    pub(super) fn push(&self, instance: &Instance, ending: Ending, kill_now: bool) -> Push {
        let waited = between(ending.since, self.now);
        match ending.step {
            KillStep::Asked if kill_now || waited >= self.slot.core().facts.stop_grace => {
                Push::Next(self.condemn(instance, ExitReason::Killed))
            }
            KillStep::Signalled if waited >= SIGNAL_PATIENCE => {
                if let Some(abort) = &instance.abort {
                    abort.abort();
                }
                Push::Next(self.at(KillStep::Aborted))
            }
            KillStep::Aborted if self.is_hopeless(instance, waited) => {
                Push::Hopeless(instance.life.reason().unwrap_or(ExitReason::Killed))
            }
            _ => Push::Wait,
        }
    }

    /// The instance does not end although it was aborted: its thread is blocked, and marked as such.
    fn is_hopeless(&self, instance: &Instance, waited: Duration) -> bool {
        let patience = self.env.config.abort_patience;
        if waited < patience {
            return false;
        }
        let mut arbiters = locked(&self.env.arbiters);
        if !arbiters.is_late(instance.arbiter) {
            return waited >= patience * 10;
        }
        arbiters.mark_stuck(instance.arbiter);
        true
    }

    /// Goes on as if the instance had ended; it is fenced and its late report is ignored.
    pub(super) fn give_up(&self, cell: &mut Cell, instance: Instance, reason: ExitReason) {
        let ended = Ended { reason, phase: instance.life.phase(), at: self.now };
        instance.life.fence();
        self.slot.unplug(instance.generation());
        self.bury(cell, instance, ended);
    }

    /// Notes the end of an instance that is over.
    pub(super) fn bury(&self, cell: &mut Cell, instance: Instance, ended: Ended) {
        let core = self.slot.core();
        self.slot.unplug(instance.generation());
        locked(&self.env.arbiters).release(instance.arbiter);
        let Ended { reason, phase, at } = ended;
        let report = ExitReport {
            id: core.id().clone(),
            generation: instance.generation(),
            reason,
            phase,
            at_us: at,
            lived: between(instance.life.started_us(), at),
        };
        if let (ExitReason::Panicked(_), Phase::Handling { tag: Some(tag), .. }) = (&report.reason, phase)
            && core.board.panicked_on(tag)
        {
            tracing::error!(actor = %report.id, tag = tag.0, "item panicked again, refused from now on");
        }
        log_end(&report);
        cell.bury(report);
    }

    fn at(&self, step: KillStep) -> Ending {
        Ending { step, since: self.now }
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
