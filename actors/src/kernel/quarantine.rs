//! Kept down on purpose: by an operator, or by the kernel because it does nothing but crash. What the kernel keeps down
//! it probes: one instance of the culprit at growing intervals, and all are let up again when that stays healthy.

use std::time::Duration;

use super::cell::{Call, Cell, Stage, Wanted};
use super::clock::{Micros, between, micros};
use super::exit::ActorId;
use super::reconcile::Step;

/// Openings of the breaker in a row after which a child is no longer just failed.
pub(super) const OPENINGS: u32 = 3;
/// The longest wait between two probes.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Why and since when a child is kept down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) why: String,
    pub(crate) by: String,
    pub(crate) since: Micros,
    pub(crate) kind: HoldKind,
}

/// Who is kept down, and what ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HoldKind {
    /// By an operator, who lifts it.
    Operator,
    /// Together with that one.
    Member { culprit: ActorId },
    /// The one that crashes, until a probe of it stays healthy.
    Culprit(Probes),
}

/// When the next probe is due. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probes {
    pub(crate) next: Micros,
    pub(crate) failed: u32,
    pub(crate) running: bool,
    wait: Duration,
}

impl Probes {
    /// The first after `wait`; each one that fails doubles the wait, to an hour.
    pub(crate) fn new(now: Micros, wait: Duration) -> Self {
        let wait = wait.clamp(Duration::from_millis(1), MAX_WAIT);
        Self { next: now.saturating_add(micros(wait)), failed: 0, running: false, wait }
    }

    pub(crate) fn is_due(&self, now: Micros) -> bool {
        !self.running && now >= self.next
    }

    pub(crate) fn fail(&mut self, now: Micros) {
        self.wait = (self.wait * 2).min(MAX_WAIT);
        self.next = now.saturating_add(micros(self.wait));
        self.failed = self.failed.saturating_add(1);
        self.running = false;
    }
}

impl Cell {
    /// Keeps the child down from here on.
    pub(crate) fn quarantine(&mut self, hold: Hold) {
        self.wanted = Wanted::Quarantined;
        self.hold = Some(hold);
        self.gate = false;
        self.renew = None;
    }

    /// Lets the child up again, as if nothing had been.
    pub(crate) fn lift(&mut self) {
        self.hold = None;
        self.wanted = Wanted::Up;
        self.escalated = false;
        self.policy.reset();
    }

    pub(crate) fn probes(&mut self) -> Option<&mut Probes> {
        match &mut self.hold.as_mut()?.kind {
            HoldKind::Culprit(probes) => Some(probes),
            HoldKind::Operator | HoldKind::Member { .. } => None,
        }
    }
}

impl Step<'_> {
    /// Keeps a child down that has opened its breaker again and again.
    pub(super) fn quarantine_for_crashes(&self, cell: &mut Cell, wait: Duration, in_a_row: u32, last: &str) {
        let why = format!("{in_a_row} openings of the breaker in a row, the last for: {last}");
        tracing::error!(actor = %self.slot.core().id(), why, "quarantined");
        let kind = HoldKind::Culprit(Probes::new(self.now, wait));
        cell.quarantine(Hold { why, by: "kernel".into(), since: self.now, kind });
    }

    /// Whether a probe of a child that is kept down starts now.
    pub(super) fn begin_probe(&self, cell: &mut Cell) -> bool {
        let now = self.now;
        // One that is to stop, or is held by somebody else meanwhile, is not probed.
        if cell.wanted != Wanted::Quarantined {
            return false;
        }
        let Some(probes) = cell.probes().filter(|probes| probes.is_due(now)) else { return false };
        probes.running = true;
        cell.wanted = Wanted::Up;
        cell.next_cause = ("probe".into(), "kernel".into());
        true
    }

    /// Whether what ended was a probe, which then has failed.
    pub(super) fn fail_probe(&self, cell: &mut Cell) -> bool {
        let now = self.now;
        let Some(probes) = cell.probes().filter(|probes| probes.running) else { return false };
        probes.fail(now);
        cell.wanted = Wanted::Quarantined;
        cell.enter(Stage::Over, now);
        true
    }

    /// A probe that has lived for long enough lets up everybody who was kept down with it.
    pub(super) fn note_probe(&self, cell: &mut Cell) {
        let healthy_after = cell.policy.healthy_after();
        let Some(life) = cell.life().filter(|life| life.is_ready() && cell.stage == Stage::Up) else {
            return;
        };
        let lived = between(life.started_us(), self.now);
        if lived >= healthy_after && cell.probes().is_some_and(|probes| probes.running) {
            tracing::warn!(actor = %self.slot.core().id(), "the probe stays healthy, quarantine lifted");
            cell.lift();
            cell.call(Call::Lift);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;

    #[test]
    fn probes_grow_apart_to_the_cap() {
        let mut probes = Probes::new(0, Duration::from_secs(1000));
        assert!(!probes.is_due(1000 * S - 1) && probes.is_due(1000 * S));
        probes.running = true;
        assert!(!probes.is_due(2000 * S), "one at a time");
        let mut now = 1000 * S;
        for wait in [2000, 3600, 3600] {
            probes.fail(now);
            assert_eq!(probes.next - now, wait * S);
            now = probes.next;
        }
        assert_eq!(probes.failed, 3);
    }
}
