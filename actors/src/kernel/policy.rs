//! What follows the end of an instance. Pure: neither clock nor dice inside.

use std::time::Duration;

use super::backoff::Backoff;
use super::breaker::{Breaker, BreakerSpec, BreakerState, Threshold};
use super::clock::{Micros, between};
use super::exit::{ExitReason, ExitReport};
use super::spec::{RestartLimits, RestartPolicy};

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start the next instance after a delay; none after a healthy life.
    Restart {
        /// The delay.
        after: Duration,
    },
    /// Too many restarts: wait, then start one probe. A permanent child is probed for ever.
    OpenBreaker {
        /// How long to wait.
        wait: Duration,
        /// How often that was decided since the child was last healthy, this time included.
        in_a_row: u32,
    },
    /// Its life is over, and rightly so.
    Stop,
}

/// The memory behind the decisions for one child.
#[derive(Clone, Debug)]
pub struct Policy {
    restart: RestartPolicy,
    backoff: Backoff,
    breaker: Breaker,
    attempt: u32,
    openings: u32,
}

impl Policy {
    /// A policy that has seen nothing yet.
    #[must_use]
    pub fn new(
        restart: RestartPolicy,
        limits: RestartLimits,
        backoff: Backoff,
        breaker: BreakerSpec,
    ) -> Self {
        let threshold = Threshold { failures: limits.max.saturating_add(1), window: limits.window };
        Self { restart, backoff, breaker: Breaker::new(threshold, breaker), attempt: 0, openings: 0 }
    }

    /// Decides, and remembers. The first restart after a healthy life is immediate, the backoff counts from the
    /// second on. `limits.max` restarts pass inside the window; the next end opens the breaker. An
    /// instance that lived for `reset_after` clears backoff and breaker first.
    pub fn decide(&mut self, exit: &ExitReport, now: Micros, dice: u64) -> Decision {
        if !wants_restart(self.restart, &exit.reason) {
            return Decision::Stop;
        }
        self.observe(exit.lived, now);
        self.breaker.on_failure(now);
        if let BreakerState::Open { until_us } = self.breaker.state(now) {
            self.openings = self.openings.saturating_add(1);
            return Decision::OpenBreaker { wait: between(now, until_us), in_a_row: self.openings };
        }
        let after = self.attempt.checked_sub(1).map_or(Duration::ZERO, |n| self.backoff.delay(n, dice));
        self.attempt = self.attempt.saturating_add(1);
        Decision::Restart { after }
    }

    /// A live instance has lived for `lived`: past `reset_after` the child counts as healthy again.
    pub fn observe(&mut self, lived: Duration, now: Micros) {
        if lived >= self.backoff.reset_after() {
            self.attempt = 0;
            self.openings = 0;
            self.breaker.on_success(now);
        }
    }

    /// How long an instance must live for the child to count as healthy.
    #[must_use]
    pub fn healthy_after(&self) -> Duration {
        self.backoff.reset_after()
    }

    /// Counts a restart that the child did not cause itself; false when it is one too many.
    pub fn charge(&mut self, now: Micros) -> bool {
        self.breaker.on_failure(now);
        self.breaker.state(now) == BreakerState::Closed
    }

    /// An operator restarts the child: the backoff starts again and the intensity is left as it is.
    pub fn manual(&mut self) {
        self.attempt = 0;
    }

    /// An operator closes the breaker.
    pub fn reset(&mut self) {
        self.attempt = 0;
        self.openings = 0;
        self.breaker.reset();
    }

    /// The breaker at `now`.
    #[must_use]
    pub fn breaker(&self, now: Micros) -> BreakerState {
        self.breaker.state(now)
    }

    /// Restarts since the child was last healthy.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Restarts inside the window that ends at `now`.
    #[must_use]
    pub fn recent(&self, now: Micros) -> u32 {
        self.breaker.recent(now)
    }
}

fn wants_restart(policy: RestartPolicy, reason: &ExitReason) -> bool {
    match (policy, reason) {
        (_, ExitReason::Asked) | (RestartPolicy::Temporary, _) => false,
        (RestartPolicy::Transient, ExitReason::Finished) => false,
        (RestartPolicy::Permanent | RestartPolicy::Transient, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit::{Fault, Phase};
    use super::*;

    const S: Micros = 1_000_000;

    fn exit(reason: ExitReason, lived: Duration) -> ExitReport {
        ExitReport { id: "x".into(), generation: 1, reason, phase: Phase::Idle, at_us: 0, lived }
    }

    fn panicked() -> ExitReport {
        exit(ExitReason::Panicked("p".into()), Duration::ZERO)
    }

    fn policy(restart: RestartPolicy) -> Policy {
        let limits = RestartLimits::try_new(3, Duration::from_secs(10)).unwrap();
        Policy::new(restart, limits, Backoff::default(), BreakerSpec::default())
    }

    #[test]
    fn reason_by_policy() {
        use RestartPolicy::{Permanent, Temporary, Transient};
        let silent = Duration::from_secs(1);
        let table = [
            (ExitReason::Finished, [true, false, false]),
            (ExitReason::Asked, [false, false, false]),
            (ExitReason::Failed(Fault::new("f", "f")), [true, true, false]),
            (ExitReason::Panicked("p".into()), [true, true, false]),
            (ExitReason::Stalled { silent }, [true, true, false]),
            (ExitReason::Killed, [true, true, false]),
            (ExitReason::ArbiterLost, [true, true, false]),
        ];
        for (reason, expected) in table {
            for (restart, expected) in [Permanent, Transient, Temporary].into_iter().zip(expected) {
                let decision = policy(restart).decide(&exit(reason.clone(), Duration::ZERO), 0, 0);
                assert_eq!(matches!(decision, Decision::Restart { .. }), expected, "{reason} {restart:?}");
                assert_eq!(decision == Decision::Stop, !expected, "{reason} {restart:?}");
            }
        }
    }

    #[test]
    fn the_restart_past_the_limit_opens_and_a_failed_probe_doubles() {
        let mut policy = policy(RestartPolicy::Permanent);
        for n in 0..3 {
            assert!(matches!(policy.decide(&panicked(), n, 0), Decision::Restart { .. }));
        }
        assert_eq!(
            policy.decide(&panicked(), 3, 0),
            Decision::OpenBreaker { wait: Duration::from_secs(10), in_a_row: 1 }
        );
        let probe = 3 + 10 * S;
        assert_eq!(policy.breaker(probe), BreakerState::HalfOpen);
        assert_eq!(
            policy.decide(&panicked(), probe, 0),
            Decision::OpenBreaker { wait: Duration::from_secs(20), in_a_row: 2 }
        );
        let healthy = exit(ExitReason::Panicked("p".into()), Duration::from_secs(30));
        assert!(matches!(policy.decide(&healthy, probe + 60 * S, 0), Decision::Restart { .. }));
        assert_eq!(policy.breaker(probe + 60 * S), BreakerState::Closed);
    }

    #[test]
    fn the_first_restart_after_a_healthy_life_is_immediate_and_the_next_are_not() {
        let mut policy = policy(RestartPolicy::Permanent);
        let after =
            |policy: &mut Policy, lived, now| match policy.decide(&exit(ExitReason::Killed, lived), now, 0) {
                Decision::Restart { after } => after.as_millis(),
                other => panic!("{other:?}"),
            };
        assert_eq!([0, 1, 2].map(|n| after(&mut policy, Duration::ZERO, n)), [0, 25, 50]);
        assert_eq!(after(&mut policy, Duration::from_secs(30), 60 * S), 0);
    }

    #[test]
    fn restarts_outside_the_window_never_open() {
        let mut policy = policy(RestartPolicy::Permanent);
        for n in 0..50 {
            assert!(
                matches!(policy.decide(&panicked(), n * 10 * S / 3 + n, 0), Decision::Restart { .. }),
                "{n}"
            );
        }
    }

    #[test]
    fn manual_resets_the_backoff_but_not_the_intensity() {
        let mut policy = policy(RestartPolicy::Permanent);
        policy.decide(&panicked(), 0, 0);
        policy.decide(&panicked(), 1, 0);
        policy.manual();
        assert_eq!((policy.attempt(), policy.recent(1)), (0, 2));
        assert_eq!(policy.decide(&panicked(), 2, 0), Decision::Restart { after: Duration::ZERO });
        assert!(matches!(policy.decide(&panicked(), 3, 0), Decision::OpenBreaker { .. }));
        policy.reset();
        assert_eq!(policy.breaker(3), BreakerState::Closed);
    }
}
